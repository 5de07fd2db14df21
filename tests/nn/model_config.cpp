#include "reckon/nn/model_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "reckon/base/error.h"

using namespace reckon;

namespace {
// The message of the usage error that the call throws; "" if it throws none.
template <class Call>
std::string usage_error(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

std::string refusal(const ModelConfig& config) {
  return usage_error([&] { validate(config); });
}

// The preset with one field changed.
template <class T>
ModelConfig with(const char* preset, T ModelConfig::*field, T value) {
  ModelConfig config = model_preset(preset);
  config.*field = value;
  return config;
}

// Counted tensor by tensor, the obvious way: what parameter_count's formula is judged against.
int64_t count_by_tensor(const ModelConfig& c) {
  int64_t total = 0;
  const auto matrix = [&](int64_t rows, int64_t columns) { total += rows * columns; };
  const auto vector = [&](int64_t size, bool present = true) { total += present ? size : 0; };
  const bool norm_has_bias = c.norm == NormKind::layer_norm && c.norm_bias;
  matrix(c.vocab, c.d_model);
  if (c.position == PositionKind::learned) matrix(c.max_seq_len, c.d_model);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    vector(c.d_model), vector(c.d_model, norm_has_bias);
    for (const int64_t heads : {c.heads, c.kv_heads, c.kv_heads})
      matrix(heads * c.head_dim, c.d_model), vector(heads * c.head_dim, c.qkv_bias);
    vector(c.head_dim, c.qk_norm), vector(c.head_dim, c.qk_norm);
    matrix(c.d_model, c.heads * c.head_dim), vector(c.d_model, c.proj_bias);
    vector(c.d_model), vector(c.d_model, norm_has_bias);
    matrix(c.d_ff, c.d_model), vector(c.d_ff, c.mlp_bias);
    if (c.mlp == MlpKind::swiglu) matrix(c.d_ff, c.d_model), vector(c.d_ff, c.mlp_bias);
    matrix(c.d_model, c.d_ff), vector(c.d_model, c.mlp_bias);
  }
  vector(c.d_model), vector(c.d_model, norm_has_bias);
  if (!c.tied_head) matrix(c.vocab, c.d_model);
  return total;
}
}  // namespace

TEST(ModelConfig, PresetsHaveThePublishedParameterCounts) {
  const std::map<std::string, int64_t> published = {
      {"cruncher", 36},
      {"gpt2-124m", 124'439'808},
      {"gpt2-355m", 354'823'168},
      {"gpt2-774m", 774'030'080},
      {"gpt2-1558m", 1'557'611'200},
      {"smollm2-135m", 134'515'008},
      {"llama-3.2-1b", 1'235'814'400},
      {"llama-3-8b", 8'030'261'248},
      {"llama-3-70b", 70'553'706'496},
      {"qwen2.5-0.5b", 494'032'768},
      {"qwen3-0.6b", 596'049'920},
  };
  for (const auto& [name, count] : published) EXPECT_EQ(parameter_count(model_preset(name)), count) << name;
  // By hand: embeddings (256 + 256) * 128, 4 layers of 12 d^2 + 13 d, the final norm 2 d.
  EXPECT_EQ(parameter_count(model_preset("tiny")), 512 * 128 + 4 * (12 * 128 * 128 + 13 * 128) + 2 * 128);
  EXPECT_EQ(model_preset_names().size(), published.size() + 1);
}

TEST(ModelConfig, CountsEveryTensorUnderEverySwitch) {
  for (const std::string& name : model_preset_names()) {
    const ModelConfig preset = model_preset(name);
    if (preset.cruncher) continue;
    EXPECT_EQ(parameter_count(preset), count_by_tensor(preset)) << name;
  }
  for (unsigned bits = 0; bits < 512; ++bits) {
    ModelConfig c = model_preset("tiny");
    c.layers = 3, c.d_model = 40, c.heads = 6, c.kv_heads = 2, c.head_dim = 10, c.d_ff = 72, c.vocab = 97, c.max_seq_len = 31;
    c.norm = NormKind(bits & 1), c.position = PositionKind(bits >> 1 & 1), c.mlp = MlpKind(bits >> 2 & 1);
    c.qkv_bias = bits & 8, c.proj_bias = bits & 16, c.mlp_bias = bits & 32, c.norm_bias = bits & 64;
    c.qk_norm = bits & 128, c.tied_head = bits & 256;
    EXPECT_EQ(parameter_count(c), count_by_tensor(c)) << bits;
  }
}

TEST(ModelConfig, EveryPresetIsValidAndNamed) {
  for (const std::string& name : model_preset_names()) {
    const ModelConfig preset = model_preset(name);
    EXPECT_EQ(preset.preset, name);
    EXPECT_EQ(refusal(preset), "") << name;
    EXPECT_EQ(preset.cruncher, name == "cruncher");
  }
  EXPECT_EQ(model_preset("tiny"), ModelConfig());
}

TEST(ModelConfig, FamiliesDifferWhereTheyShould) {
  const ModelConfig gpt2 = model_preset("gpt2-355m"), llama = model_preset("llama-3-8b");
  EXPECT_EQ(gpt2.norm, NormKind::layer_norm);
  EXPECT_TRUE(gpt2.qkv_bias && gpt2.proj_bias && gpt2.mlp_bias && gpt2.norm_bias && gpt2.tied_head && gpt2.residual_scaling);
  EXPECT_EQ(gpt2.d_ff, 4096);
  EXPECT_EQ(llama.norm, NormKind::rms_norm);
  EXPECT_EQ(llama.position, PositionKind::rope);
  EXPECT_EQ(llama.mlp, MlpKind::swiglu);
  EXPECT_FALSE(llama.qkv_bias || llama.proj_bias || llama.mlp_bias || llama.norm_bias || llama.tied_head);
  EXPECT_TRUE(model_preset("qwen2.5-0.5b").qkv_bias);
  EXPECT_FALSE(model_preset("qwen2.5-0.5b").proj_bias);
  EXPECT_TRUE(model_preset("qwen3-0.6b").qk_norm);
  EXPECT_NE(model_preset("qwen3-0.6b").head_dim, model_preset("qwen3-0.6b").d_model / model_preset("qwen3-0.6b").heads);
  EXPECT_EQ(model_preset("smollm2-135m").rope_theta, 1e5);
}

TEST(ModelConfig, CruncherIgnoresItsOtherNumbers) {
  ModelConfig c = model_preset("cruncher");
  c.layers = 5, c.d_model = 7, c.heads = 0, c.vocab = -1, c.head_dim = 3, c.kv_heads = 0;
  EXPECT_EQ(refusal(c), "");
  EXPECT_EQ(parameter_count(c), 5 * 49 + 7);
  c.layers = 0;
  EXPECT_EQ(refusal(c), "model.layers must be at least 1, got 0");
}

TEST(ModelConfig, UnknownPresetNamesTheNearest) {
  const std::string message = usage_error([] { model_preset("gpt2-124M"); });
  EXPECT_NE(message.find("unknown model.preset 'gpt2-124M', did you mean 'gpt2-124m'?"), std::string::npos) << message;
  EXPECT_NE(message.find("qwen3-0.6b"), std::string::npos) << message;
  EXPECT_NE(usage_error([] { model_preset("a\nb\x1b"); }).find("'a\\nb\\x1B'"), std::string::npos);
}

TEST(ModelConfig, RefusesSizesOutsideTheirLimits) {
  const struct {
    const char* key;
    int64_t ModelConfig::*field;
    int64_t limit;
  } sizes[] = {
      {"model.layers", &ModelConfig::layers, kMaxLayers},      {"model.d_model", &ModelConfig::d_model, kMaxWidth},
      {"model.heads", &ModelConfig::heads, kMaxHeads},         {"model.kv_heads", &ModelConfig::kv_heads, kMaxHeads},
      {"model.head_dim", &ModelConfig::head_dim, kMaxHeadDim}, {"model.d_ff", &ModelConfig::d_ff, kMaxInnerWidth},
      {"model.vocab", &ModelConfig::vocab, kMaxVocab},         {"model.max_seq_len", &ModelConfig::max_seq_len, kMaxSeqLen},
  };
  for (const auto& size : sizes) {
    for (const int64_t bad : {int64_t(0), int64_t(-1), INT64_MIN})
      EXPECT_EQ(refusal(with("tiny", size.field, bad)), text("{} must be at least 1, got {}", size.key, bad));
    for (const int64_t bad : {size.limit + 1, INT64_MAX})
      EXPECT_EQ(refusal(with("tiny", size.field, bad)), text("{} must be at most {}, got {}", size.key, size.limit, bad));
  }
}

TEST(ModelConfig, RefusesNumbersOutsideTheirLimits) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, inf, -inf}) {
    EXPECT_NE(refusal(with("tiny", &ModelConfig::norm_eps, bad)).find("model.norm_eps"), std::string::npos);
    EXPECT_NE(refusal(with("tiny", &ModelConfig::rope_theta, bad)).find("finite"), std::string::npos);
    EXPECT_NE(refusal(with("tiny", &ModelConfig::init_std, bad)).find("model.init_std"), std::string::npos);
  }
  EXPECT_EQ(refusal(with("tiny", &ModelConfig::norm_eps, 0.0)), "model.norm_eps must be at least 1e-30, got 0");
  EXPECT_EQ(refusal(with("tiny", &ModelConfig::norm_eps, 2.0)), "model.norm_eps must be at most 1, got 2");
  EXPECT_EQ(refusal(with("tiny", &ModelConfig::rope_theta, 0.5)), "model.rope_theta must be at least 1, got 0.5");
  EXPECT_EQ(refusal(with("tiny", &ModelConfig::init_std, -0.02)), "model.init_std must be at least 0, got -0.02");
}

TEST(ModelConfig, RefusesImpossibleModels) {
  EXPECT_NE(
      refusal(with("llama-3-8b", &ModelConfig::kv_heads, int64_t(5))).find("model.heads = 32 is not a multiple of model.kv_heads = 5"),
      std::string::npos);
  EXPECT_NE(refusal(with("tiny", &ModelConfig::kv_heads, int64_t(8))).find("model.heads = 4"), std::string::npos);
  EXPECT_NE(refusal(with("llama-3-8b", &ModelConfig::head_dim, int64_t(127))).find("model.head_dim = 127 is odd"), std::string::npos);
  EXPECT_EQ(refusal(with("gpt2-124m", &ModelConfig::head_dim, int64_t(63))), "");
  EXPECT_NE(refusal(with("tiny", &ModelConfig::cruncher, true)).find("cruncher"), std::string::npos);
  EXPECT_NE(refusal(with("cruncher", &ModelConfig::cruncher, false)).find("cruncher"), std::string::npos);
  EXPECT_NE(refusal(with("tiny", &ModelConfig::preset, std::string("small"))).find("unknown model.preset 'small'"), std::string::npos);
}

TEST(ModelConfig, RefusesMoreParametersThanBytesCanCount) {
  ModelConfig c = model_preset("tiny");
  c.layers = kMaxLayers, c.d_model = kMaxWidth, c.heads = c.kv_heads = kMaxHeads, c.head_dim = kMaxHeadDim;
  c.d_ff = kMaxInnerWidth, c.vocab = kMaxVocab, c.max_seq_len = kMaxSeqLen;
  EXPECT_NE(refusal(c).find("(2^56)"), std::string::npos) << refusal(c);
  EXPECT_NE(usage_error([&] { parameter_count(c); }).find("model.layers"), std::string::npos);
  ModelConfig deep = model_preset("cruncher");
  deep.layers = kMaxLayers, deep.d_model = kMaxWidth;
  EXPECT_NE(refusal(deep).find("7.21e+16 parameters"), std::string::npos) << refusal(deep);
  deep.layers = kMaxLayers - 1;
  EXPECT_EQ(refusal(deep), "");
  EXPECT_EQ(parameter_count(deep), (kMaxLayers - 1) * kMaxWidth * kMaxWidth + kMaxWidth);
}

TEST(ModelConfig, WordsNameEveryValue) {
  EXPECT_EQ(to_string(NormKind::rms_norm), "rms_norm");
  EXPECT_EQ(to_string(PositionKind::learned), "learned");
  EXPECT_EQ(to_string(MlpKind::swiglu), "swiglu");
  EXPECT_EQ(to_string(InitKind::trunc_normal), "trunc_normal");
  EXPECT_EQ(words_of(InitKind()).size(), 4u);
}
