// nn/model_config: what a model is, in numbers. Knows no tensor.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace reckon {

enum class NormKind : uint8_t { layer_norm, rms_norm };
enum class PositionKind : uint8_t { learned, rope };
enum class MlpKind : uint8_t { gelu, swiglu };
enum class InitKind : uint8_t { normal, xavier, kaiming, trunc_normal };

/// The words of an enumeration in the order of its values, as configurations spell them.
std::span<const std::string_view> words_of(NormKind);
std::span<const std::string_view> words_of(PositionKind);
std::span<const std::string_view> words_of(MlpKind);
std::span<const std::string_view> words_of(InitKind);
/// The configuration's word for the value: "rms_norm".
std::string to_string(NormKind kind);
std::string to_string(PositionKind kind);
std::string to_string(MlpKind kind);
std::string to_string(InitKind kind);

/// The largest values a model may have; with kMaxParameters their products stay far from 2^63.
inline constexpr int64_t kMaxLayers = 1 << 16;
inline constexpr int64_t kMaxWidth = 1 << 20;  // d_model
inline constexpr int64_t kMaxHeads = 1 << 16;
inline constexpr int64_t kMaxHeadDim = 256;         // what the attention kernels hold in registers and cache
inline constexpr int64_t kMaxInnerWidth = 1 << 24;  // d_ff
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxSeqLen = 1 << 24;
inline constexpr double kMinNormEps = 1e-30, kMaxNormEps = 1;  // stays above zero in float32
inline constexpr double kMinRopeTheta = 1, kMaxRopeTheta = 1e12;
inline constexpr double kMaxInitStd = 1e3;
inline constexpr int64_t kMaxParameters = int64_t(1) << 56;  // at 16 B each the training state is below 2^60 bytes

/// One decoder-only transformer (GPT-2 and Llama/Qwen families), or the deep linear net `cruncher` (layers, d_model).
/// Defaults are the preset `tiny`. The cruncher uses layers, d_model and init; it ignores every other number.
struct ModelConfig {
  std::string preset = "tiny";
  bool cruncher = false;  // the preset of that name: square bias-free linear layers and a d_model -> 1 head, squared error
  int64_t layers = 4;
  int64_t d_model = 128;
  int64_t heads = 4;
  int64_t kv_heads = 4;   // < heads: grouped-query attention
  int64_t head_dim = 32;  // may differ from d_model / heads
  int64_t d_ff = 512;
  int64_t vocab = 256;
  int64_t max_seq_len = 256;  // rows of the learned position table, length of the KV cache
  NormKind norm = NormKind::layer_norm;
  double norm_eps = 1e-5;
  PositionKind position = PositionKind::learned;
  double rope_theta = 10000.0;
  MlpKind mlp = MlpKind::gelu;
  bool qkv_bias = true;
  bool proj_bias = true;  // attention output projection
  bool mlp_bias = true;
  bool norm_bias = true;       // layer_norm only
  bool qk_norm = false;        // RMSNorm over head_dim on q and k before RoPE
  int64_t sliding_window = 0;  // tokens that attention sees, the own included; 0: all before it
  bool tied_head = true;
  InitKind init = InitKind::normal;
  double init_std = 0.02;        // normal and trunc_normal (cut at +-3 std)
  bool residual_scaling = true;  // GPT-2: projections into the residual stream have std / sqrt(2 layers)
  double dropout = 0;            // in training: of the embedding, and of what attention and MLP add to the residual stream
  bool operator==(const ModelConfig&) const = default;
};

/// The preset's full definition; throws Error (usage) naming the nearest preset if the name is unknown.
ModelConfig model_preset(std::string_view name);
/// All preset names in the order of the documentation.
std::span<const std::string> model_preset_names();
/// Throws Error (usage) naming key, value and limit if the numbers cannot form a model. Keys that the cruncher ignores are not looked at.
void validate(const ModelConfig& config);
/// Learned scalars, each counted once (a tied head counts with the embedding). The configuration's sizes must be positive; throws Error
/// (usage) if the count is above kMaxParameters.
int64_t parameter_count(const ModelConfig& config);
}  // namespace reckon
