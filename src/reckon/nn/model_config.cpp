// nn/model_config: the presets, the rules a model's numbers obey, and the count of its parameters. Knows no tensor.
#include "reckon/nn/model_config.h"

#include <cmath>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr std::string_view kNormWords[] = {"layer_norm", "rms_norm"};
constexpr std::string_view kPositionWords[] = {"learned", "rope"};
constexpr std::string_view kMlpWords[] = {"gelu", "swiglu"};
constexpr std::string_view kInitWords[] = {"normal", "xavier", "kaiming", "trunc_normal"};
}  // namespace

std::span<const std::string_view> words_of(NormKind) { return kNormWords; }
std::span<const std::string_view> words_of(PositionKind) { return kPositionWords; }
std::span<const std::string_view> words_of(MlpKind) { return kMlpWords; }
std::span<const std::string_view> words_of(InitKind) { return kInitWords; }
std::string to_string(NormKind kind) { return std::string(kNormWords[size_t(kind)]); }
std::string to_string(PositionKind kind) { return std::string(kPositionWords[size_t(kind)]); }
std::string to_string(MlpKind kind) { return std::string(kMlpWords[size_t(kind)]); }
std::string to_string(InitKind kind) { return std::string(kInitWords[size_t(kind)]); }

namespace {
// Radford et al. 2019, as published with the checkpoints: every linear layer and norm has a bias, the head is tied.
ModelConfig gpt2(int64_t layers, int64_t d_model, int64_t heads) {
  ModelConfig c;
  c.layers = layers;
  c.d_model = d_model;
  c.heads = c.kv_heads = heads;
  c.head_dim = d_model / heads;
  c.d_ff = 4 * d_model;
  c.vocab = 50257;
  c.max_seq_len = 1024;
  return c;
}

struct LlamaSizes {
  int64_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, max_seq_len;
  double rope_theta;
  bool tied_head;
};

// Llama, SmolLM2 and Qwen: RMSNorm, RoPE, SwiGLU, no bias. Sizes and context lengths are those of the published config.json files.
ModelConfig llama(const LlamaSizes& s) {
  ModelConfig c;
  c.layers = s.layers;
  c.d_model = s.d_model;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.d_ff = s.d_ff;
  c.vocab = s.vocab;
  c.max_seq_len = s.max_seq_len;
  c.norm = NormKind::rms_norm;
  c.position = PositionKind::rope;
  c.rope_theta = s.rope_theta;
  c.mlp = MlpKind::swiglu;
  c.qkv_bias = c.proj_bias = c.mlp_bias = c.norm_bias = false;
  c.tied_head = s.tied_head;
  c.residual_scaling = false;
  return c;
}

std::vector<ModelConfig> make_presets() {
  std::vector<ModelConfig> all;
  const auto add = [&](const char* name, ModelConfig c) {
    c.preset = name;
    all.push_back(c);
  };
  ModelConfig cruncher;
  cruncher.cruncher = true;
  cruncher.layers = 2;
  cruncher.d_model = 4;
  add("cruncher", cruncher);
  add("tiny", ModelConfig());
  add("gpt2-124m", gpt2(12, 768, 12));
  add("gpt2-355m", gpt2(24, 1024, 16));
  add("gpt2-774m", gpt2(36, 1280, 20));
  add("gpt2-1558m", gpt2(48, 1600, 25));
  ModelConfig smollm2 = llama({30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, true});
  smollm2.init_std = 1.0 / 24;  // 1 / sqrt(d_model)
  add("smollm2-135m", smollm2);
  add("llama-3.2-1b", llama({16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5, true}));
  add("llama-3-8b", llama({32, 4096, 32, 8, 128, 14336, 128256, 8192, 5e5, false}));
  add("llama-3-70b", llama({80, 8192, 64, 8, 128, 28672, 128256, 8192, 5e5, false}));
  ModelConfig qwen25 = llama({24, 896, 14, 2, 64, 4864, 151936, 32768, 1e6, true});
  qwen25.norm_eps = 1e-6;
  qwen25.qkv_bias = true;
  add("qwen2.5-0.5b", qwen25);
  ModelConfig qwen3 = llama({28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6, true});
  qwen3.norm_eps = 1e-6;
  qwen3.qk_norm = true;
  add("qwen3-0.6b", qwen3);
  return all;
}

const std::vector<ModelConfig>& presets() {
  static const std::vector<ModelConfig> all = make_presets();
  return all;
}
}  // namespace

std::span<const std::string> model_preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const ModelConfig& preset : presets()) list.push_back(preset.preset);
    return list;
  }();
  return names;
}

ModelConfig model_preset(std::string_view name) {
  for (const ModelConfig& preset : presets())
    if (preset.preset == name) return preset;
  std::string known;
  for (const std::string& preset : model_preset_names()) known += (known.empty() ? "" : ", ") + preset;
  fail_as(Failure::usage, "unknown model.preset '{}'{}; presets: {}", printable_line(name, 60), did_you_mean(name, model_preset_names()),
          known);
}

namespace {
// One learned tensor or a group of them; __int128 holds any product of four sizes within their limits.
__int128 count_layer(const ModelConfig& c) {
  const __int128 d = c.d_model, q = __int128(c.heads) * c.head_dim, kv = __int128(c.kv_heads) * c.head_dim, ff = c.d_ff;
  const __int128 norm = d * (c.norm == NormKind::layer_norm && c.norm_bias ? 2 : 1);
  const __int128 up = c.mlp == MlpKind::swiglu ? 2 * ff : ff;  // gate and up
  __int128 count = 2 * norm;
  count += d * (q + 2 * kv) + (c.qkv_bias ? q + 2 * kv : 0);
  count += q * d + (c.proj_bias ? d : 0);
  count += d * up + ff * d + (c.mlp_bias ? up + d : 0);
  if (c.qk_norm) count += 2 * c.head_dim;
  return count;
}

__int128 count_all(const ModelConfig& c) {
  const __int128 d = c.d_model;
  if (c.cruncher) return c.layers * d * d + d;
  __int128 count = c.vocab * d * (c.tied_head ? 1 : 2);
  if (c.position == PositionKind::learned) count += c.max_seq_len * d;
  count += d * (c.norm == NormKind::layer_norm && c.norm_bias ? 2 : 1);
  return count + c.layers * count_layer(c);
}

void check_integer(const char* key, int64_t value, int64_t limit) {
  check_as(Failure::usage, value >= 1, "{} must be at least 1, got {}", key, value);
  check_as(Failure::usage, value <= limit, "{} must be at most {}, got {}", key, limit, value);
}

void check_number(const char* key, double value, double low, double high) {
  check_as(Failure::usage, std::isfinite(value), "{} must be a finite number, got {}", key, value);
  check_as(Failure::usage, value >= low, "{} must be at least {}, got {}", key, low, value);
  check_as(Failure::usage, value <= high, "{} must be at most {}, got {}", key, high, value);
}

void check_attention(const ModelConfig& c) {
  check_as(Failure::usage, c.heads % c.kv_heads == 0,
           "model.heads = {} is not a multiple of model.kv_heads = {}: each key-value head serves the same number of query heads", c.heads,
           c.kv_heads);
  check_as(Failure::usage, c.position != PositionKind::rope || c.head_dim % 2 == 0,
           "model.head_dim = {} is odd, but model.position = \"rope\" rotates pairs: use an even size or learned positions", c.head_dim);
}
}  // namespace

void validate(const ModelConfig& c) {
  model_preset(c.preset);
  check_as(Failure::usage, c.cruncher == (c.preset == "cruncher"),
           "model.preset = \"{}\" does not go with cruncher = {}: the preset of that name, and only it, is a cruncher", c.preset,
           c.cruncher);
  check_integer("model.layers", c.layers, kMaxLayers);
  check_integer("model.d_model", c.d_model, kMaxWidth);
  check_number("model.init_std", c.init_std, 0, kMaxInitStd);
  if (!c.cruncher) {
    check_integer("model.heads", c.heads, kMaxHeads);
    check_integer("model.kv_heads", c.kv_heads, kMaxHeads);
    check_integer("model.head_dim", c.head_dim, kMaxHeadDim);
    check_integer("model.d_ff", c.d_ff, kMaxInnerWidth);
    check_integer("model.vocab", c.vocab, kMaxVocab);
    check_integer("model.max_seq_len", c.max_seq_len, kMaxSeqLen);
    check_as(Failure::usage, c.sliding_window >= 0 && c.sliding_window <= kMaxSeqLen, "model.sliding_window = {}: it must be 0 to {}",
             c.sliding_window, kMaxSeqLen);
    check_number("model.norm_eps", c.norm_eps, kMinNormEps, kMaxNormEps);
    check_number("model.rope_theta", c.rope_theta, kMinRopeTheta, kMaxRopeTheta);
    check_as(Failure::usage, c.dropout >= 0 && c.dropout < 1, "model.dropout must be at least 0 and below 1, got {}", c.dropout);
    check_attention(c);
  }
  parameter_count(c);
}

int64_t parameter_count(const ModelConfig& c) {
  const __int128 count = count_all(c);
  check_as(Failure::usage, count <= kMaxParameters,
           "the model has {:.3g} parameters, above the limit of {} (2^56): lower model.layers, model.d_model, model.d_ff or model.vocab",
           double(count), kMaxParameters);
  return int64_t(count);
}
}  // namespace reckon
