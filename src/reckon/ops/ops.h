// ops/ops: the public operations, as a user writes them. Every one can run on meta, is planned, and says if it has no gradient.
// Float types are f32, f64, bf16 and f16; the 8-bit ones store: they are filled, viewed, copied and cast. Operations on two tensors
// promote them to one dtype, and functions such as exp take whole numbers to f32: ops/dtypes.h. All tensors of one call live on one device.
#pragma once
#include "reckon/engine/call.h"
#include "reckon/ops/loss.h"

namespace reckon {

// ---- creation ------------------------------------------------------------------------------------------------------------------
Tensor empty(Device& device, const TensorSpec& spec);
Tensor full(Device& device, const TensorSpec& spec, double value);
Tensor zeros(Device& device, const TensorSpec& spec);
Tensor ones(Device& device, const TensorSpec& spec);
/// start, start + step, ... : `count` values.
Tensor arange(Device& device, int64_t count, DType dtype = DType::i64, double start = 0, double step = 1);
/// Copies host values (row-major, of T's dtype) into a new tensor; they may be a list: from_values(device, {1, 2}, {7, 8}) is i32[1, 2].
/// Throws Error if the shape does not hold as many.
template <class T>
Tensor from_values(Device& device, const Shape& shape, std::span<const T> values);
template <class T>
Tensor from_values(Device& device, const Shape& shape, std::initializer_list<T> values);
/// A list with one axis: from_values(device, {1.5f, 2.f}) is f32[2].
template <class T>
Tensor from_values(Device& device, std::initializer_list<T> values);
Tensor from_bytes(Device& device, const TensorSpec& spec, const void* host, int64_t bytes);
/// bool [queries, keys]: true where a query may look: key <= query + (keys - queries).
Tensor causal_mask(Device& device, int64_t queries, int64_t keys, int64_t window = 0);

// Random fills write x in place; element i is a function of (key, i) only. A leaf may be filled, a
// result of a recorded operation only under NoGrad.
void fill_uniform_(const Tensor& x, uint64_t key, double low = 0, double high = 1);
void fill_normal_(const Tensor& x, uint64_t key, double mean = 0, double std = 1);
/// Normal with standard deviation `std` before cutting; values beyond +-bound (an absolute value) do not occur.
void fill_trunc_normal_(const Tensor& x, uint64_t key, double std, double bound);

// ---- views: no copy ------------------------------------------------------------------------------------------------------------
/// Throws Error if the strides do not allow the new shape without a copy.
Tensor view(const Tensor& x, const Shape& shape);
/// view() if possible, else of a contiguous copy.
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor permute(const Tensor& x, std::initializer_list<int> axes);
Tensor transpose(const Tensor& x, int axis_a = -2, int axis_b = -1);
/// Elements start, start + step, ... below stop along an axis; negative start and stop count from the end.
Tensor slice(const Tensor& x, int axis, int64_t start, int64_t stop, int64_t step = 1);
/// One index along an axis; the axis goes away.
Tensor select(const Tensor& x, int axis, int64_t index);
/// Axes of extent 1, and missing leading axes, are repeated without a copy.
Tensor expand(const Tensor& x, const Shape& shape);
Tensor unsqueeze(const Tensor& x, int axis);
Tensor squeeze(const Tensor& x, int axis);
/// Row-major copy, or x itself if it is that already.
Tensor contiguous(const Tensor& x);
/// Rounds once, to nearest even. What is too large becomes infinity; NaN in f8e4m3fn, which has none, as in PyTorch. An integer or 8-bit
/// float passes no gradient on.
Tensor cast(const Tensor& x, DType dtype);

// ---- element-wise, broadcast -----------------------------------------------------------------------------------------------------
Tensor add(Tensor a, Tensor b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& a, const Tensor& b);
/// alpha * x + beta, in x's dtype; of whole numbers in f32 if alpha or beta is none.
Tensor affine(Tensor x, double alpha, double beta = 0);
Tensor neg(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
/// The tanh approximation ("gelu_new"). Hendrycks & Gimpel 2016, arXiv:1606.08415.
Tensor gelu(const Tensor& x);
Tensor silu(const Tensor& x);
/// bool results, no gradient.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
/// condition (bool) ? a : b.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

// ---- reductions ------------------------------------------------------------------------------------------------------------------
/// Over the named axes (none: all). Low-precision inputs are summed in f32; whole numbers and bool in i64, which their sum is.
Tensor sum(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
Tensor mean(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
Tensor max(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
/// Sums broadcast axes away until the shape is `shape`.
Tensor sum_to(const Tensor& x, const Shape& shape);
/// Over one axis; any but the last costs a copy there and is given back as a view.
Tensor softmax(const Tensor& x, int axis = -1);
Tensor log_softmax(const Tensor& x, int axis = -1);

// ---- matrix products ---------------------------------------------------------------------------------------------------------------
/// a [..., M, K], b [..., K, N] -> [..., M, N]; leading axes broadcast. f16 and bf16 accumulate in f32; whole numbers
/// wrap, and are multiplied without haste.
Tensor matmul(const Tensor& a, const Tensor& b);
/// y = x w^T + bias: x [..., K], w [N, K], bias [N] or undefined -> [..., N].
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {});

// ---- transformer -------------------------------------------------------------------------------------------------------------------
/// (x - mean) / sqrt(var + eps) * weight + bias over the last axis C; weight [C], bias [C] or undefined. Ba et al. 2016, arXiv:1607.06450.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-5);
/// x / sqrt(mean(x^2) + eps) * weight over the last axis; the mean is taken in f32 (f64 for f64). Zhang & Sennrich 2019, arXiv:1910.07467.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps = 1e-6);
/// sum = x + residual and its norm, in one pass over both: the bits of add() and the norm above. sum takes over the storage of x or the
/// residual if nobody else holds it.
struct SumAndNorm {
  Tensor sum, norm;
};
SumAndNorm add_layer_norm(Tensor x, Tensor residual, const Tensor& weight, const Tensor& bias, double eps = 1e-5);
SumAndNorm add_rms_norm(Tensor x, Tensor residual, const Tensor& weight, double eps = 1e-6);
/// RMS norm of each query and key head of packed qkv [..., (H + 2 KV) D] with weights q, k [D]; values pass through.
Tensor qk_norm(const Tensor& qkv, const Tensor& q_weight, const Tensor& k_weight, int64_t heads, int64_t kv_heads, int64_t head_dim, double eps = 1e-6);
/// silu(gate) * up of packed x [..., 2F] = (gate | up) -> [..., F]. Shazeer 2020, arXiv:2002.05202.
Tensor swiglu(const Tensor& x);
/// Rows of table [V, C] by ids (i32 or i64, any shape S) -> [S..., C]. An id outside [0, V) gives a row of NaN.
Tensor embedding(const Tensor& table, const Tensor& ids);
/// Rotary positions, half-split pairs, on the first `rotated_heads` heads of x [B, T, heads D]; row t has position t + position[0].
/// position (i64 [1]) may be undefined: t + first. Su et al. 2021, arXiv:2104.09864.
Tensor rope(Tensor x, int64_t rotated_heads, int64_t head_dim, double theta, const Tensor& position = {}, int64_t first = 0);
/// Attention over packed qkv [B, T, (H + 2 KV) D] -> [B, T, H D]; softmax of q k^T * scale (0: 1 / sqrt(D)). Only the log-sum-exp of each
/// row is kept for backward. Dao et al. 2022, arXiv:2205.14135.
/// window: a token sees itself and the window - 1 tokens before it (sliding window, Beltagy et al. 2020, arXiv:2004.05150), which needs
/// causal; 0: all before it.
/// documents: i32 [B, T], for each token the position of the first token of its document, which attention does not look beyond; they must
/// not fall along a row, and need causal. Undefined: each row is one document. The work that is counted is that of one document a row.
Tensor attention(const Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal = true, double scale = 0,
                 int64_t window = 0, const Tensor& documents = {});
/// The same by plain matmul, mask and softmax: the reference, with T x T scores in memory.
Tensor attention_plain(const Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal = true, double scale = 0,
                       int64_t window = 0, const Tensor& documents = {});
/// Writes the keys and values of new rows into caches [B, KV, max_T, D] at position (i64 [1]) and attends over everything up to each row.
/// Has no gradient: throws Error, and writes nothing, if one is recorded for qkv or a cache.
Tensor attention_with_cache(const Tensor& qkv, const Tensor& k_cache, const Tensor& v_cache, const Tensor& position, int64_t heads, int64_t kv_heads,
                            int64_t head_dim, double scale = 0, int64_t window = 0);
/// Writes part [B, C, ...] over the rows [first, first + C) of whole [B, T, ...], of one dtype. Has no gradient.
void store_chunk(const Tensor& part, const Tensor& whole, int64_t first);

/// Keys and values of sequences that are computed a chunk at a time, and their gradients, which gather from the last chunk to the first.
struct SequenceKeys {
  Tensor k, v;    // [B, KV, T, D]
  Tensor dk, dv;  // [B, KV, T, key_sum_width(D)] f32 (f64 for f64), zero at first; only backward reads them; undefined: nothing is recorded
};
int64_t key_sum_width(int64_t head_dim);
/// Writes the keys and values of the tokens [first, first + C), qkv [B, C, (H + 2 KV) D], into keys. Has no gradient: give it
/// qkv.detached().
void store_keys(const Tensor& qkv, const SequenceKeys& keys, int64_t first, int64_t heads, int64_t kv_heads, int64_t head_dim);
/// Causal attention of the tokens [first, first + C) of a sequence over all up to each: [B, C, H D], the rows that attention() gives. keys
/// must hold them all, the chunk's own too (store_keys). Backward gives qkv the gradient of the whole sequence's loss if the chunks run
/// backward from the last, which ends at T, to the first: what a chunk adds to the gradients of earlier keys waits in keys.dk and .dv.
/// documents: i32 [B, C], as for attention(), with positions in the whole sequence.
Tensor attention_chunk(const Tensor& qkv, const SequenceKeys& keys, int64_t first, int64_t heads, int64_t kv_heads, int64_t head_dim,
                       double scale = 0, int64_t window = 0, const Tensor& documents = {});

// ---- losses --------------------------------------------------------------------------------------------------------------------------
/// Negative log-likelihood (nats) of targets (i32 or i64) [...] under logits [..., V], see CrossEntropyOptions: a scalar, or one loss a target (0 for
/// ignored ones) with Reduction::none; f32 (f64 for f64). The mean is over the targets that are not ignored. A target that is neither
/// ignored nor in [0, V) gives NaN. backward overwrites the logits if nobody else holds them; it has no gradient of its own.
Tensor cross_entropy(Tensor logits, const Tensor& targets, const CrossEntropyOptions& options = {});
/// cross_entropy(linear(x, w), targets, options) without the logits: x [..., K], w [V, K], targets i32 [...]. They are made by tiles of 256
/// tokens x 4096 classes, in x's dtype, and again in backward, a fourth product beside the three of the pair.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets, const CrossEntropyOptions& options = {});
/// The same loss together with its backward pass, for whoever knows `seed`, the gradient of the loss, beforehand: three products, in tiles of
/// up to 512 tokens. Adds the gradient of w to its slot if w requires one (Error if it has no slot) and returns that of x, which takes over
/// x's storage if nobody else holds it; undefined if x_needs_grad is false. Records nothing.
struct LossAndGradient {
  Tensor loss, dx;
};
LossAndGradient linear_cross_entropy_step(Tensor x, const Tensor& w, const Tensor& targets, const Tensor& seed,
                                          const CrossEntropyOptions& options = {}, bool x_needs_grad = true);
/// Mean of (a - b)^2.
Tensor mse_loss(const Tensor& a, const Tensor& b);

template <class T>
Tensor from_values(Device& device, const Shape& shape, std::span<const T> values) {
  check(shape.numel() == int64_t(values.size()), "from_values: shape {} holds {} elements, {} are given", shape, shape.numel(),
        values.size());
  return from_bytes(device, {shape, DTypeOf<T>::value}, values.data(), int64_t(values.size_bytes()));
}
template <class T>
Tensor from_values(Device& device, const Shape& shape, std::initializer_list<T> values) {
  return from_values(device, shape, std::span<const T>(values.begin(), values.size()));
}
template <class T>
Tensor from_values(Device& device, std::initializer_list<T> values) {
  return from_values(device, Shape{int64_t(values.size())}, values);
}
}  // namespace reckon
