// train/config_names: which key somebody meant who called it otherwise. Knows names only, no values.
#include <algorithm>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/train/config_table.h"

namespace reckon {
namespace {
constexpr size_t kMaxNameLength = 256;

std::vector<std::string> key_names() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_table()) names.emplace_back(key.name);
  return names;
}

std::string_view last_component(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// Names that other trainers use, by their last component.
struct Synonym {
  std::string_view word, key;
};
constexpr Synonym kSynonyms[] = {
    {"batch_size", "train.micro_batch"},
    {"micro_batch_size", "train.micro_batch"},
    {"block_size", "train.seq_len"},
    {"context_length", "train.seq_len"},
    {"sequence_length", "train.seq_len"},
    {"gradient_accumulation_steps", "train.grad_accum"},
    {"accumulation_steps", "train.grad_accum"},
    {"max_steps", "train.steps"},
    {"max_iters", "train.steps"},
    {"iterations", "train.steps"},
    {"dtype", "train.precision"},
    {"activation_checkpointing", "train.recompute"},
    {"gradient_checkpointing", "train.recompute"},
    {"learning_rate", "optim.lr"},
    {"optimizer", "optim.name"},
    {"grad_clip", "optim.clip_norm"},
    {"max_grad_norm", "optim.clip_norm"},
    {"n_layer", "model.layers"},
    {"n_layers", "model.layers"},
    {"num_layers", "model.layers"},
    {"num_hidden_layers", "model.layers"},
    {"n_head", "model.heads"},
    {"n_heads", "model.heads"},
    {"num_attention_heads", "model.heads"},
    {"num_key_value_heads", "model.kv_heads"},
    {"n_embd", "model.d_model"},
    {"dim", "model.d_model"},
    {"hidden_size", "model.d_model"},
    {"intermediate_size", "model.d_ff"},
    {"vocab_size", "model.vocab"},
    {"max_position_embeddings", "model.max_seq_len"},
    {"eval_interval", "eval.every"},
    {"save_interval", "checkpoint.every"},
    {"out_dir", "run.dir"},
    {"output_dir", "run.dir"},
};

// ", did you mean 'x' or 'y'?" or "": keys of that last component, else the nearest by spelling.
std::string suggestion(std::string_view name) {
  std::string list;
  for (const std::string& key : keys_named(name)) list += text("{}'{}'", list.empty() ? "" : " or ", key);
  return list.empty() ? did_you_mean(name, key_names()) : text(", did you mean {}?", list);
}
}  // namespace

std::vector<std::string> keys_named(std::string_view word) {
  std::string name(word.substr(0, kMaxNameLength));
  std::replace(name.begin(), name.end(), '-', '_');
  if (find_key(name)) return {name};
  const std::string_view last = last_component(name);
  std::vector<std::string> keys;
  for (const ConfigKey& key : config_table())
    if (last_component(key.name) == last) keys.emplace_back(key.name);
  for (const Synonym& synonym : kSynonyms)
    if (keys.empty() && synonym.word == last) keys.emplace_back(synonym.key);
  return keys;
}

std::string nearest_key(std::string_view word) {
  if (word.size() < 4) return "";  // near to everything short
  std::string name(word.substr(0, kMaxNameLength));
  std::replace(name.begin(), name.end(), '-', '_');
  std::vector<std::string> spellings;
  for (const ConfigKey& key : config_table()) {
    spellings.emplace_back(key.name);
    spellings.emplace_back(last_component(key.name));
  }
  for (const Synonym& synonym : kSynonyms) spellings.emplace_back(synonym.word);
  const std::string_view nearest = nearest_word(name, spellings);
  const std::vector<std::string> keys = nearest.empty() ? std::vector<std::string>() : keys_named(nearest);
  return keys.size() == 1 ? keys[0] : "";
}

void fail_unknown_key(const Setting& s) {
  const std::string_view name = s.key;
  const std::string shown = printable_line(name, 100);
  const std::string_view table = name.substr(0, name.find('.'));
  check_as(Failure::usage, table != "parallel",
           "{}{} is not available in this version; available: one process on one device, without parallel.* keys", s.where, shown);
  check_as(Failure::usage, table != "offload",
           "{}{} is not available in this version; available: everything in the device's memory, without offload.* keys", s.where, shown);
  std::string inside;
  for (const std::string& key : key_names())
    if (inside.empty() && key.starts_with(name) && key[name.size()] == '.') inside = key;
  check_as(Failure::usage, inside.empty(), "{}'{}' is a table of keys such as {}, got {}", s.where, shown, inside, s.shown);
  fail_as(Failure::usage, "{}unknown {} '{}'{}", s.where, s.type == Setting::Type::table ? "table" : "key", shown, suggestion(name));
}
}  // namespace reckon
