#include "tests/grid/configurations.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"

namespace grid {
namespace {
// A key, or keys that must change together, and their values; "@" keys are not the program's. Sizes are odd where kernels cut in blocks.
struct Axis {
  std::vector<std::string> values;
};
using Axes = std::vector<Axis>;

std::vector<std::string> all_of(const char* key, std::initializer_list<const char*> values) {
  std::vector<std::string> out;
  for (const char* v : values) out.push_back(std::string(key) + "=" + v);
  return out;
}

Axes common_axes() {
  return {{all_of("train.precision", {"fp32", "bf16", "fp16", "fp8"})},
          {all_of("train.loss_scale", {"dynamic", "8"})},
          {all_of("train.master_weights", {"true", "false"})},
          {all_of("train.micro_batch", {"1", "2", "3", "5"})},
          {all_of("train.grad_accum", {"1", "2", "3"})},
          {{"train.recompute=none", "train.recompute=selective", "train.recompute=full", "train.recompute=sqrt", "@recompute=mixed"}},
          {all_of("optim.name", {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop optim.centered=true optim.rmsprop_momentum=0.9", "adam",
                                 "adamw", "lamb", "adamw8bit"})},
          {all_of("optim.clip_norm", {"0", "1.0"})},
          {all_of("optim.schedule", {"constant", "cosine", "linear", "wsd", "inverse_sqrt"})},
          {all_of("optim.lr_scaling", {"none", "sqrt"})},
          {all_of("optim.groups", {"", "*0*,lr=0.5;*,weight_decay=0"})},
          {all_of("optim.weight_decay", {"0", "0.1"})},
          {all_of("model.init", {"normal", "xavier", "kaiming", "trunc_normal"})},
          {all_of("@lanes", {"1", "2", "5"})},
          {all_of("@threads", {"1", "2", "3"})},
          {all_of("@files", {"none", "kept"})}};
}

Axes decoder_axes() {
  Axes axes = common_axes();
  axes.insert(axes.end(),
              {{all_of("model.layers", {"1", "2", "3"})},
               {all_of("model.d_model", {"8", "24", "33", "72"})},
               {{"model.heads=1 model.kv_heads=1", "model.heads=2 model.kv_heads=1", "model.heads=3 model.kv_heads=3",
                 "model.heads=4 model.kv_heads=2", "model.heads=6 model.kv_heads=2"}},
               {all_of("model.head_dim", {"2", "7", "16", "24", "40"})},
               {{"model.mlp=gelu model.d_ff=20", "model.mlp=gelu model.d_ff=77", "model.mlp=swiglu model.d_ff=20",
                 "model.mlp=swiglu model.d_ff=49"}},
               {{"model.norm=rms_norm", "model.norm=layer_norm model.norm_bias=true", "model.norm=layer_norm model.norm_bias=false"}},
               {all_of("model.position", {"learned", "rope"})},
               {all_of("model.qkv_bias", {"false", "true"})},
               {all_of("model.proj_bias", {"false", "true"})},
               {all_of("model.mlp_bias", {"false", "true"})},
               {all_of("model.qk_norm", {"false", "true"})},
               {all_of("model.sliding_window", {"0", "5", "100"})},
               {all_of("model.tied_head", {"false", "true"})},
               {all_of("model.dropout", {"0", "0.2"})},
               {all_of("model.vocab", {"11", "64", "131", "300"})},
               {all_of("train.seq_len", {"1", "2", "7", "16", "33", "64", "130"})},
               {{"@eval=none", "eval.every=0 eval.batches=1", "eval.every=1 eval.batches=3"}},
               {all_of("checkpoint.every", {"0", "1"})},
               {all_of("train.fused_loss", {"true", "false"})},
               {all_of("train.fused_kernels", {"true", "false"})},
               {all_of("train.sequence_chunk", {"0", "5", "64"})},
               {all_of("train.attention", {"flash", "plain"})},
               {{"data.documents=joined", "data.documents=separate data.separator=3"}}});
  return axes;
}

Axes cruncher_axes() {
  Axes axes = common_axes();
  axes.insert(axes.end(),
              {{{"model.preset=cruncher"}}, {all_of("model.layers", {"1", "2", "4"})}, {all_of("model.d_model", {"1", "4", "19", "33"})}});
  return axes;
}

// Two values that exclude each other: an odd head cannot be rotated in pairs, float16 needs master weights, plain attention and float8
// whole sequences.
bool exclude(const std::string& a, const std::string& b) {
  const auto are = [&](const char* one, const char* other) { return (a == one && b == other) || (a == other && b == one); };
  return are("model.position=rope", "model.head_dim=7") || are("train.precision=fp16", "train.master_weights=false") ||
         are("train.precision=fp8", "train.sequence_chunk=5") || are("train.precision=fp8", "train.sequence_chunk=64") ||
         are("train.attention=plain", "train.sequence_chunk=5") || are("train.attention=plain", "train.sequence_chunk=64");
}

using Choice = std::vector<size_t>;  // of a value for each axis

// Which pairs of values occurred. Values are numbered through all axes.
class Pairs {
 public:
  explicit Pairs(const Axes& axes) {
    for (const Axis& axis : axes) {
      first_.push_back(values_);
      values_ += axis.values.size();
    }
    seen_.resize(values_ * values_);
  }
  // Marks the pairs of a choice if told to; how many of them are new.
  size_t count_new(const Choice& choice, bool mark) {
    size_t fresh = 0;
    for (size_t i = 0; i < choice.size(); ++i)
      for (size_t j = i + 1; j < choice.size(); ++j) {
        char& seen = at(i, choice[i], j, choice[j]);
        fresh += !seen;
        if (mark) seen = 1;
      }
    return fresh;
  }
  char& at(size_t i, size_t a, size_t j, size_t b) { return seen_[(first_[i] + a) * values_ + first_[j] + b]; }

 private:
  std::vector<size_t> first_;  // value of each axis
  size_t values_ = 0;
  std::vector<char> seen_;
};

Choice draw(const Axes& axes, uint64_t key, uint64_t row) {
  Choice choice(axes.size());
  for (uint64_t attempt = 0;; ++attempt) {
    for (size_t i = 0; i < axes.size(); ++i) choice[i] = philox(key, row, 1000 * attempt + i)[0] % axes[i].values.size();
    bool possible = true;
    for (size_t i = 0; i < axes.size(); ++i)
      for (size_t j = 0; j < i; ++j) possible = possible && !exclude(axes[i].values[choice[i]], axes[j].values[choice[j]]);
    if (possible) return choice;
  }
}

std::vector<std::string> words_of(const std::string& values) {
  std::vector<std::string> words(1);
  for (const char c : values) {
    if (c != ' ') {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

// A list of its own for each number of layers; the cruncher has no blocks.
std::string mixed_policy(const std::vector<std::string>& overrides) {
  const auto has = [&](const char* word) { return std::find(overrides.begin(), overrides.end(), word) != overrides.end(); };
  if (has("model.preset=cruncher")) return "train.recompute=full";
  return text("train.recompute_blocks={}", has("model.layers=3")   ? "full,selective,none"
                                           : has("model.layers=2") ? "segment:2"
                                                                   : "selective");
}

Configuration configuration(const Axes& axes, const Choice& choice) {
  Configuration c;
  bool mixed = false;
  bool evaluates = axes.size() == decoder_axes().size();
  for (size_t i = 0; i < axes.size(); ++i)
    for (const std::string& word : words_of(axes[i].values[choice[i]])) {
      if (word.starts_with("@lanes="))
        c.profile = {"cpu", std::stoi(word.substr(7))};
      else if (word.starts_with("@threads="))
        c.threads = std::stoi(word.substr(9));
      else if (word.starts_with("@files="))
        c.keeps_files = word == "@files=kept";
      else if (word == "@eval=none")
        evaluates = false;
      else if (word == "@recompute=mixed")
        mixed = true;
      else
        c.overrides.push_back(word);
    }
  if (mixed) c.overrides.push_back(mixed_policy(c.overrides));
  c.overrides.push_back("train.steps=2");
  if (evaluates) c.overrides.push_back("data.validation_fraction=0.25");
  return c;
}

// Each row is the one of a few draws that brings the most new pairs.
std::vector<Choice> choices(const Axes& axes, uint64_t key, size_t count) {
  constexpr uint64_t kDraws = 12;
  std::vector<Choice> rows;
  Pairs pairs(axes);
  for (uint64_t row = 0; row < count; ++row) {
    Choice best;
    size_t most = 0;
    for (uint64_t d = 0; d < kDraws; ++d) {
      Choice choice = draw(axes, key + d, row);
      const size_t fresh = pairs.count_new(choice, false);
      if (best.empty() || fresh > most) best = std::move(choice), most = fresh;
    }
    pairs.count_new(best, true);
    rows.push_back(std::move(best));
  }
  return rows;
}

constexpr size_t kCruncherEvery = 13;  // rows
size_t crunchers_of(size_t count) { return count / kCruncherEvery; }
std::vector<Choice> decoder_choices(size_t count) { return choices(decoder_axes(), 100, count - crunchers_of(count)); }
std::vector<Choice> cruncher_choices(size_t count) { return choices(cruncher_axes(), 200, crunchers_of(count)); }

void find_missing(const Axes& axes, const std::vector<Choice>& rows, std::vector<std::string>& missing) {
  Pairs pairs(axes);
  for (const Choice& row : rows) pairs.count_new(row, true);
  for (size_t i = 0; i < axes.size(); ++i)
    for (size_t j = i + 1; j < axes.size(); ++j)
      for (size_t a = 0; a < axes[i].values.size(); ++a)
        for (size_t b = 0; b < axes[j].values.size(); ++b)
          if (!pairs.at(i, a, j, b) && !exclude(axes[i].values[a], axes[j].values[b]))
            missing.push_back(axes[i].values[a] + " with " + axes[j].values[b]);
}
}  // namespace

std::vector<Configuration> configurations(size_t count) {
  const std::vector<Choice> decoders = decoder_choices(count), crunchers = cruncher_choices(count);
  std::vector<Configuration> rows;
  const Axes decoder = decoder_axes(), cruncher = cruncher_axes();
  for (size_t i = 0, d = 0, c = 0; i < count; ++i) {
    const bool is_cruncher = i % kCruncherEvery == kCruncherEvery - 1;
    rows.push_back(is_cruncher ? configuration(cruncher, crunchers[c++]) : configuration(decoder, decoders[d++]));
  }
  return rows;
}

std::vector<std::string> missing_pairs(size_t count) {
  std::vector<std::string> missing;
  find_missing(decoder_axes(), decoder_choices(count), missing);
  find_missing(cruncher_axes(), cruncher_choices(count), missing);
  return missing;
}

Config Configuration::config(const std::string& folder, const std::string& tokens) const {
  std::vector<std::string> all = overrides;
  all.push_back("run.dir=" + folder + "/run");
  for (const std::string& o : overrides)
    if (o.starts_with("data.validation_fraction=")) all.push_back("data.path=" + tokens);
  return load_config("", all);
}

std::string Configuration::line() const {
  std::string line;
  for (const std::string& o : overrides) line += o + " ";
  return line + text("(lanes {}, threads {}, files {})", profile.lanes, threads, keeps_files ? "kept" : "not kept");
}
}  // namespace grid
