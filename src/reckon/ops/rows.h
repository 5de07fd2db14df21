// ops/rows: the ids of the kernel table and the row of every operation. For this room, backends and tests; users include ops/ops.h.
#pragma once
#include "reckon/engine/call.h"
#include "reckon/engine/node.h"
#include "reckon/ops/float8.h"
#include "reckon/ops/loss.h"
#include "reckon/ops/step_scalars.h"

namespace reckon {

enum KernelId : int {
#define OP(name) k_##name,
#include "reckon/ops/ops.def"
#undef OP
  kKernelCount
};

namespace op {
#define OP(name) extern const OpDef name;
#include "reckon/ops/ops.def"
#undef OP
// Views: no kernel.
extern const OpDef reshape, permute, slice, expand;
}  // namespace op

/// Every row: those of ops.def in its order, then the views.
std::span<const OpDef* const> all_ops();

/// The dtype to make the gradient of input i in: the input's, or its slot's where hooks of the leaf keep a rule from writing that. Their
/// sum is held in it.
DType gradient_dtype(const Vjp& v, int i);
/// The gradient of a linear layer's parameter, input i of the node, by a row that takes LinearParams: into its slot, which `in` gets as its
/// last tensor, if it has one; else a fresh tensor of gradient_dtype(). Undefined if it is in the slot, or not wanted.
Tensor parameter_gradient(Vjp& v, const OpDef& row, int i, Tensors in);

// ---- Parameters of the rows, as the kernels read them.
struct AffineParams {
  double alpha, beta;  // alpha * x + beta
};
struct ValueParams {
  double value;
};
struct RandomParams {
  enum Kind : int32_t { uniform, normal, trunc_normal, integers, bernoulli } kind;
  uint64_t key;
  double a, b;  // uniform: [a, b); normal: mean a, std b; trunc_normal: mean 0, std a, cut at +-b; integers: [a, b); bernoulli: 1 with probability a
};
struct ArangeParams {
  int64_t count;
  double start, step;
  DType dtype;
};
struct MaskParams {
  int64_t queries, keys, window;
};
struct SliceParams {
  int32_t axis;
  int64_t extent;  // of the sliced axis in the input
  int64_t start, stop, step;
};
struct AxisParams {
  int32_t axis;
  bool zero_missing = false;  // of gather: an index out of range reads 0, not NaN
  bool slices = false;        // the index is the same beside the axis: one a slice
};
struct TriangleParams {
  bool upper;     // what is kept of the last two axes: column - row >= shift, else <= shift
  int64_t shift;  // as the user gave it: any
};
struct ScanParams {
  int32_t axis;
  bool reverse;    // from the last element to the first
  bool exclusive;  // without the element itself
};
struct OrderParams {
  int32_t axis;
  bool descending;
  bool nan_first;  // a NaN comes before everything; else it counts as larger than everything
  int64_t k;       // of top_k: how many are kept
};
struct ClampParams {
  double low, high;
};
struct ConvParams {
  int64_t stride[2], padding[2], dilation[2];  // along height and width
  int64_t extent[2];                           // of the input, for conv2d_back_x; of the kernel, for conv2d_back_w
  int64_t groups;
};
struct ReduceParams {
  uint32_t axes;  // bit i: axis i is reduced
  bool keepdim;
  bool wide = false;  // of sum: the result is of statistics_dtype(), not rounded to x's type
};
struct MatmulParams {
  bool transpose_a, transpose_b;
  int64_t needed = 0;  // multiply-adds that count, of products that a mask follows or comes before; 0: all
};
struct LinearParams {
  bool accumulate;  // linear_back_w and _b: add to the slot instead of overwriting it
  DType out;        // dtype of a fresh output; bf16 activations may have f32 gradients
};
struct QuantizeParams {
  DType format;  // f8e4m3fn or f8e5m2
};
struct NormParams {
  double eps;
};
struct QkNormParams {
  double eps;
  int32_t heads, kv_heads, head_dim;
};
struct EmbeddingParams {
  int32_t vocab;
  bool accumulate;
};
struct RopeParams {
  double theta;
  int32_t rotated_heads, head_dim;
  bool inverse;
  bool has_position;  // input 1 is the i64 position of the first row
  int64_t first = 0;  // position of the first row otherwise
};
struct AttentionParams {
  double scale;
  int32_t heads, kv_heads, head_dim;
  bool causal;
  int64_t window = 0;  // keys that a token sees at most, itself included; 0: no limit
};
struct ChunkParams {
  int64_t first;  // where the chunk begins along the second axis
};
struct AttentionChunkParams {
  AttentionParams attention;
  int64_t first;               // position of the chunk's first token
  bool has_documents = false;  // the last input is the i32 [B, C] first key of each token's document
};
struct LossParams {
  CrossEntropyOptions options;
  bool accumulate;  // linear_cross_entropy_back and _step: add to the weight's slot instead of overwriting it
};
struct OptimizerParams {
  double weight_decay = 0;
  int64_t first = 0;  // where element 0 lies in its bucket, a multiple of 32, and which bucket that is: stochastic rounding draws by them
  uint64_t bucket = 0;
  double lr_scale = 1;                // of these parameters: multiplies the step's learning rate
  bool coupled = false;               // weight_decay * p is added to the gradient, instead of p being shrunk; adam_step does so always
  bool centered = false;              // rmsprop_step: the variance of the gradient stands for its mean square
  bool momentum = false;              // rmsprop_step: the quotient goes into a velocity
  double phi_low = 0, phi_high = 10;  // lamb_moments: bounds of a parameter's norm in its trust ratio
};
}  // namespace reckon
