// train/config: builds a configuration from preset, file and arguments, checks it as a whole, and prints it.
#include "reckon/train/config.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/train/config_counts.h"
#include "reckon/train/config_table.h"
#include "reckon/train/config_toml.h"
#include "reckon/train/optimizer.h"
#include "reckon/train/parameter_groups.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
// Keeps every product of a micro-batch's tokens and a width far from 2^63.
constexpr int64_t kMaxMicroBatchTokens = int64_t(1) << 32;

bool names_table(std::string_view name) {
  for (const ConfigKey& key : config_table()) {
    const std::string_view known = key.name;
    if (known.size() > name.size() && known.starts_with(name) && known[name.size()] == '.') return true;
  }
  return false;
}

bool is_named(std::span<const Setting> settings, std::string_view key) {
  return std::any_of(settings.begin(), settings.end(), [&](const Setting& s) { return s.key == key; });
}

// The head's width and the number of key-value heads follow a changed model.d_model or model.heads unless somebody named them.
void derive_heads(ModelConfig& m, const ModelConfig& preset, std::span<const Setting> settings) {
  const bool heads_changed = m.heads != preset.heads;
  if (heads_changed && !is_named(settings, "model.kv_heads")) {
    if (preset.kv_heads == preset.heads) m.kv_heads = m.heads;
    check_as(Failure::usage, m.heads % m.kv_heads == 0,
             "model.heads = {} is not a multiple of model.kv_heads = {} of the preset {}: set model.kv_heads too", m.heads, m.kv_heads,
             m.preset);
  }
  if ((heads_changed || m.d_model != preset.d_model) && !is_named(settings, "model.head_dim")) {
    check_as(Failure::usage, m.d_model % m.heads == 0,
             "model.d_model = {} is not a multiple of model.heads = {}: change one of them, or set model.head_dim", m.d_model, m.heads);
    m.head_dim = m.d_model / m.heads;
    check_as(Failure::usage, m.head_dim <= kMaxHeadDim,
             "model.d_model = {} with model.heads = {} gives model.head_dim = {}, above its limit of {}: set model.heads or model.head_dim",
             m.d_model, m.heads, m.head_dim, kMaxHeadDim);
  }
}

// d_ff keeps the preset's ratio to d_model; a ratio that is not whole is rounded up to a multiple of 32 (a vector of bf16).
void derive_inner_width(ModelConfig& m, const ModelConfig& preset, std::span<const Setting> settings) {
  if (m.d_model == preset.d_model || is_named(settings, "model.d_ff")) return;
  const int64_t scaled = preset.d_ff * m.d_model;  // below 2^44: presets are small against the limits
  m.d_ff = preset.d_ff % preset.d_model == 0 ? scaled / preset.d_model : (scaled + 32 * preset.d_model - 1) / (32 * preset.d_model) * 32;
}

void derive_sizes(ModelConfig& m, const ModelConfig& preset, std::span<const Setting> settings) {
  if (m.cruncher) return;
  derive_heads(m, preset, settings);
  derive_inner_width(m, preset, settings);
}

std::vector<Setting> all_settings(std::string_view toml, std::string_view source, std::span<const std::string> overrides) {
  std::vector<Setting> settings = read_toml(toml, source);
  for (const std::string& argument : overrides) settings.push_back(read_argument(argument));
  return settings;
}
}  // namespace

Config load_config(const std::string& toml_path, std::span<const std::string> overrides) {
  return parse_config(toml_path.empty() ? "" : read_config_file(toml_path), toml_path, overrides);
}

namespace {
// The policy that auto chose stands in a run's file, where nobody wrote it. An argument that changes what it was made for makes it void,
// and auto, if it is still asked for, chooses again; another budget alone does not, so that a run goes on as it began.
void forget_choice(Config& config, std::span<const Setting> settings) {
  bool chosen = false, changed = false;
  Config saved;  // of the file alone, as far as the optimizer's state goes
  for (const Setting& s : settings) {
    if (!s.from_argument && s.key.starts_with("optim.")) assign(saved, *find_key(s.key), s);
    if (!s.from_argument && s.key == "train.recompute") chosen = s.text == "auto";
    if (!s.from_argument) continue;
    if (s.key == "train.recompute_blocks") return;
    const bool sizes = s.key.starts_with("model.") || s.key.starts_with("train.") || s.key == "optim.name";
    changed |= sizes && s.key != "train.steps" && s.key != "train.stop_after";
  }
  changed |= state_bytes(saved.optim) != state_bytes(config.optim);
  if (chosen && changed) config.train.recompute_blocks.clear();
}
}  // namespace

Config parse_config(std::string_view toml, std::string_view source, std::span<const std::string> overrides) {
  const std::vector<Setting> settings = all_settings(toml, source, overrides);
  Config config;
  const ConfigKey& preset_key = *find_key("model.preset");
  for (const Setting& s : settings)
    if (s.key == preset_key.name) assign(config, preset_key, s);
  const ModelConfig preset = model_preset(config.model.preset);
  config.model = preset;
  for (const Setting& s : settings) {
    if (s.key == preset_key.name) continue;
    if (const ConfigKey* key = find_key(s.key)) {
      assign(config, *key, s);
    } else if (s.type != Setting::Type::table || s.from_argument || !names_table(s.key)) {  // an empty table says nothing
      fail_unknown_key(s);
    }
  }
  derive_sizes(config.model, preset, settings);
  forget_choice(config, settings);
  validate(config);
  return config;
}

namespace {
constexpr int64_t kMaxChunks = 4096;  // each is some hundred calls, and planned call by call

void check_chunks(const Config& c) {
  if (c.train.sequence_chunk == 0) return;
  check_as(Failure::usage, !c.model.cruncher, "train.sequence_chunk = {}: the cruncher has no sequences to cut: leave it out",
           c.train.sequence_chunk);
  check_as(
      Failure::usage, c.train.recompute != Recompute::automatic,
      "train.sequence_chunk = {} and train.recompute = auto exclude each other: auto knows blocks that pass once; name a mode, or choose "
      "a smaller chunk instead",
      c.train.sequence_chunk);
  check_as(Failure::usage, c.train.attention != AttentionKind::plain,
           "train.sequence_chunk = {} and train.attention = plain exclude each other: plain attention sees whole sequences",
           c.train.sequence_chunk);
  check_as(
      Failure::usage, c.train.precision != Precision::fp8,
      "train.sequence_chunk = {} and train.precision = fp8 exclude each other: keys are made without gradients first, where nothing is "
      "multiplied in 8 bits; use bf16",
      c.train.sequence_chunk);
  check_as(Failure::usage, (c.train.seq_len - 1) / c.train.sequence_chunk < kMaxChunks,
           "train.sequence_chunk = {} cuts train.seq_len = {} into more than {} chunks: choose a larger one", c.train.sequence_chunk,
           c.train.seq_len, kMaxChunks);
}
}  // namespace

void validate(const OptimConfig& c) {
  Config whole;
  whole.optim = c;
  for (const ConfigKey& key : config_table())
    if (std::string_view(key.name).starts_with("optim.")) check_value(whole, key, "");
  const bool is_adamw = c.name == OptimizerKind::adamw || c.name == OptimizerKind::adamw8bit;
  check_as(Failure::usage, c.name != OptimizerKind::adam || c.weight_decay_kind != DecayKind::decoupled,
           "optim.weight_decay_kind = decoupled and optim.name = adam exclude each other: that is optim.name=adamw");
  check_as(Failure::usage, !is_adamw || c.weight_decay_kind != DecayKind::coupled,
           "optim.weight_decay_kind = coupled and optim.name = {} exclude each other: that is optim.name=adam", to_string(c.name));
  check_as(
      Failure::usage, c.name != OptimizerKind::lamb || c.weight_decay_kind == DecayKind::automatic,
      "optim.weight_decay_kind = {} and optim.name = lamb exclude each other: lamb's decay is a term of the step that it scales; use auto",
      to_string(c.weight_decay_kind));
  check_as(Failure::usage, c.phi_low <= c.phi_high, "optim.phi_low = {} is above optim.phi_high = {}", c.phi_low, c.phi_high);
  parse_groups(c.groups);
}

void validate(const Config& c) {
  for (const ConfigKey& key : config_table()) check_value(c, key, "");
  validate(c.model);
  validate(c.optim);
  check_as(Failure::usage, c.train.micro_batch <= kMaxMicroBatchTokens / c.train.seq_len,
           "train.micro_batch = {} times train.seq_len = {} is above the limit of {} tokens: use more train.grad_accum instead",
           c.train.micro_batch, c.train.seq_len, kMaxMicroBatchTokens);
  check_recompute(c);
  check_chunks(c);
  check_counts(c);
  check_as(Failure::usage, !c.model.cruncher || c.train.attention == AttentionKind::flash,
           "train.attention = plain: the cruncher has no attention: leave it out");
  check_as(Failure::usage, !c.model.cruncher || c.data.documents == DocumentUse::joined,
           "data.documents = separate: the cruncher has no documents: leave it out");
  check_as(Failure::usage, c.model.cruncher || c.data.separator < c.model.vocab, "data.separator = {} is no token of model.vocab = {}",
           c.data.separator, c.model.vocab);
  check_as(Failure::usage, !c.model.cruncher || c.model.dropout == 0,
           "model.dropout = {}: the cruncher has no residual stream to drop from: leave it out", c.model.dropout);
  check_as(Failure::usage, c.train.master_weights || c.train.precision != Precision::fp16,
           "train.master_weights = false needs train.precision=bf16 or fp8, not fp16: its smallest weights have no room for an update");
  check_as(Failure::usage, !c.model.cruncher || c.data.path.empty(),
           "data.path = \"{}\" would not be read: model.preset=cruncher learns a regression on random numbers; leave data.path out or use "
           "another preset",
           printable_line(c.data.path, 100));
  if (c.model.cruncher) return;
  check_as(Failure::usage, c.model.position != PositionKind::learned || c.train.seq_len <= c.model.max_seq_len,
           "train.seq_len = {} is above model.max_seq_len = {}, and learned positions end there: lower one, raise the other, or use "
           "model.position=rope",
           c.train.seq_len, c.model.max_seq_len);
  const std::string_view tokenizer = c.data.tokenizer;
  if (tokenizer.starts_with("bpe:") && !c.data.path.empty())
    check_as(Failure::usage, std::stoll(std::string(tokenizer.substr(4))) <= c.model.vocab,
             "data.tokenizer = \"{}\" makes more tokens than model.vocab = {}: set model.vocab={}", tokenizer, c.model.vocab,
             tokenizer.substr(4));
}

std::string to_toml(const Config& config) {
  std::string out;
  std::string_view open;
  for (const ConfigKey& key : config_table()) {
    const std::string_view name = key.name;
    const size_t dot = name.find('.');
    const std::string_view table = dot == name.npos ? "" : name.substr(0, dot);
    if (table != open) out += "\n[" + std::string(table) + "]\n";
    open = table;
    out += std::string(dot == name.npos ? name : name.substr(dot + 1)) + " = " + value_text(config, key) + "\n";
  }
  return out;
}

std::vector<KeyHelp> config_keys() {
  const Config defaults;
  std::vector<KeyHelp> rows;
  for (const ConfigKey& key : config_table()) rows.push_back({key.name, type_text(key), value_text(defaults, key), key.help});
  return rows;
}
}  // namespace reckon
