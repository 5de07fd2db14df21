// docs/flops.md against the plans: every line of its tables is a formula, and every formula must give what a call on meta charges.
#include <gtest/gtest.h>

#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/routing.h"
#include "reckon/ops/rows.h"
#include "tests/docs/flops_table.h"

namespace reckon::docs {
namespace {

// What one call charged, and the names that its formulas may use.
struct Charged {
  std::string label;  // "attention, causal": the first column of the table
  std::string op;
  MeterRow row;
  int64_t plain_bytes = 0;  // inputs and outputs once each
  bool is_view = false;
  Names names;
};

class Calls {
 public:
  explicit Calls(Device& meta) : meta_(meta) {}

  Tensor make(const Shape& shape, DType dtype = DType::f32) { return empty(meta_, {shape, dtype}); }

  // variant: "" or what distinguishes this line from another of the same operation.
  void add(const OpDef& row, const Tensors& in, const Params& params = {}, Names extents = {}, const std::string& variant = "") {
    record(row, in, extents, variant, [&] { return call_on(meta_, row, in, params); });
  }
  template <class View>
  void add_view(const OpDef& row, const Tensor& x, View view) {
    record(row, {x}, {}, "", [&] { return Tensors{view(x)}; });
  }
  const std::vector<Charged>& all() const { return charged_; }

 private:
  template <class Run>
  void record(const OpDef& row, const Tensors& in, Names names, const std::string& variant, Run run) {
    const NoGrad guard;
    Meter meter;
    Tensors out;
    {
      const MeterScope scope(meter);
      out = run();
    }
    const std::vector<MeterRow> rows = meter.rows();
    ASSERT_EQ(rows.size(), 1u) << row.name << " is one operation and must charge one row";
    ASSERT_EQ(std::string(rows[0].op), row.name);
    Charged c{variant.empty() ? row.name : std::string(row.name) + ", " + variant,
              row.name,
              rows[0],
              0,
              row.traits.view != nullptr,
              std::move(names)};
    for (size_t i = 0; i < in.size(); ++i) c.plain_bytes += c.names[text("in{}", i)] = in[i].spec().bytes();
    for (size_t i = 0; i < out.size(); ++i) c.plain_bytes += c.names[text("out{}", i)] = out[i].spec().bytes();
    if (in.size() > 0) c.names["a"] = in[0].numel();
    if (in.size() > 1) c.names["b"] = in[1].numel();
    if (out.size() > 0) c.names["y"] = out[0].numel();
    charged_.push_back(std::move(c));
  }

  Device& meta_;
  std::vector<Charged> charged_;
};

// Every extent is another number, and `s` changes them all, so that no wrong formula can agree by chance.
void call_elementwise(Calls& c, int64_t s) {
  const Tensor x = c.make({3 + s, 1, 5}), y = c.make({7, 5 + 0 * s}), same = c.make({3 + s, 1, 5});
  for (const OpDef* row : {&op::add, &op::sub, &op::mul, &op::div, &op::maximum, &op::minimum, &op::pow, &op::floor_divide, &op::remainder,
                           &op::equal, &op::less, &op::less_equal})
    c.add(*row, {x, y});
  c.add(op::affine, {x}, AffineParams{2, 1});
  for (const OpDef* row : {&op::neg, &op::exp, &op::log, &op::sqrt, &op::rsqrt, &op::square, &op::reciprocal, &op::abs, &op::tanh,
                           &op::sigmoid, &op::relu, &op::gelu, &op::silu})
    c.add(*row, {x});
  for (const OpDef* row : {&op::tanh_back, &op::sigmoid_back, &op::relu_back, &op::gelu_back, &op::silu_back}) c.add(*row, {x, same});
  c.add(op::where, {c.make({7, 5}, DType::boolean), x, y});
  const Tensor packed = c.make({3 + s, 14});
  c.add(op::swiglu, {packed});
  c.add(op::swiglu_back, {c.make({3 + s, 7}), packed});
}

void call_functions(Calls& c, int64_t s) {
  const Tensor x = c.make({3 + s, 1, 5}), y = c.make({7, 5});
  for (const OpDef* row :
       {&op::sin, &op::cos, &op::erf, &op::floor, &op::ceil, &op::round, &op::sign, &op::log1p, &op::expm1, &op::softplus, &op::gelu_erf})
    c.add(*row, {x});
  c.add(op::clamp, {x}, ClampParams{-1, 1});
  c.add(op::not_equal, {x, y});
}

void call_indexing(Calls& c, int64_t s) {
  const Tensor x = c.make({3 + s, 40}), index = c.make({2 + s, 40}, DType::i64), src = c.make({2 + s, 40});
  c.add(op::concatenate, {x, src}, AxisParams{0});
  c.add(op::gather, {x, index}, AxisParams{0});
  c.add(op::scatter, {x, index, src}, AxisParams{0});
  c.add(op::scatter_add, {x, index, src}, AxisParams{0});
  const int64_t rows = 3 + s;  // of which row r keeps r + 3 elements
  c.add(op::triangle, {x}, TriangleParams{false, 2}, {{"e", 4}, {"kept", 3 * rows + rows * (rows - 1) / 2}});
  c.add(op::cumsum, {x}, ScanParams{1, false, false});
  c.add(op::sort, {x}, OrderParams{1, false, false, 0}, {{"L", 6}});
  c.add(op::top_k, {x}, OrderParams{1, true, false, 5}, {{"L", 3}});
  c.add(op::top_k, {x}, OrderParams{1, true, false, 40}, {{"L", 6}}, "of all");
}

void call_convolutions(Calls& c, int64_t s) {
  const int64_t B = 2, C = 6, H = 9 + s, W = 8, O = 4, G = 2;
  ConvParams p{{2, 1}, {1, 2}, {1, 2}, {0, 0}, G};
  const Tensor x = c.make({B, C, H, W}), w = c.make({O, C / G, 3, 2}), dy = c.make({B, O, (H + 2 - 3) / 2 + 1, W + 4 - 2});
  const Names taps{{"K", C / G * 3 * 2}};
  c.add(op::conv2d, {x, w}, p, taps);
  c.add(op::conv2d, {x, w, c.make({O})}, p, taps, "with bias");
  p.extent[0] = H, p.extent[1] = W;
  c.add(op::conv2d_back_x, {dy, w}, p, taps);
  p.extent[0] = 3, p.extent[1] = 2;
  c.add(op::conv2d_back_w, {dy, x}, p, taps);
}

void call_memory(Calls& c, int64_t s) {
  const Tensor x = c.make({4 + s, 9}), slot = c.make({4 + s, 9});
  c.add(op::contiguous, {transpose(x)});
  c.add(op::cast, {x}, CastParams{DType::bf16});
  c.add(op::empty, {}, FillParams({{4 + s, 3}, DType::f32}, 0));
  c.add(op::fill, {}, FillParams({{4 + s, 3}, DType::f32}, 1));
  c.add(op::copy_, {slot, c.make({9}, DType::bf16)});
  c.add(op::fill_, {x}, ValueParams{1});
  c.add(op::accumulate, {slot, x}, AccumulateParams{false}, {}, "overwriting");
  c.add(op::accumulate, {slot, x}, AccumulateParams{true}, {}, "adding");
  c.add(op::arange, {}, ArangeParams{11 + s, 0, 1, DType::i64});
  c.add(op::random, {x}, RandomParams{RandomParams::normal, 1, 0, 1});
  c.add(op::causal_mask, {}, MaskParams{4 + s, 6 + s});
  c.add(op::slice_back, {c.make({4 + s, 3})}, SliceParams{1, 9, 2, 8, 2});
  c.add_view(op::reshape, x, [](const Tensor& t) { return view(t, {t.numel()}); });
  c.add_view(op::permute, x, [](const Tensor& t) { return transpose(t); });
  c.add_view(op::diagonal, c.make({7, 7}), [](const Tensor& t) { return diagonal(t, 0, 1); });
  c.add_view(op::slice, x, [](const Tensor& t) { return slice(t, 1, 1, 4); });
  c.add_view(op::expand, c.make({1, 9}), [s](const Tensor& t) { return expand(t, {4 + s, 9}); });
}

void call_rows(Calls& c, int64_t s) {
  const Tensor x = c.make({6, 3 + s, 10}), y = c.make({6, 3 + s, 10});
  c.add(op::sum, {x}, ReduceParams{0b010, false});
  c.add(op::max, {x}, ReduceParams{0b100, true});
  c.add(op::softmax, {x});
  c.add(op::log_softmax, {x});
  c.add(op::softmax_back, {x, y});
  c.add(op::log_softmax_back, {x, y});
  const Tensor w = c.make({10}), statistic = c.make({6, 3 + s});
  c.add(op::layer_norm, {x, w, w}, NormParams{1e-5});
  c.add(op::layer_norm, {x, w}, NormParams{1e-5}, {}, "without bias");
  const auto needs = [](uint32_t bits) { return Params(NormParams{1e-5}, bits); };
  const Tensors layer{x, y, w, statistic, statistic}, rms{x, y, w, statistic};
  c.add(op::layer_norm_back, layer, needs(0b111));
  c.add(op::layer_norm_back, layer, needs(0b001), {}, "dx only");
  c.add(op::layer_norm_back, layer, needs(0b010), {}, "dw only");
  c.add(op::layer_norm_back, layer, needs(0b100), {}, "db only");
  c.add(op::layer_norm_back, {x, y, w, statistic, statistic, y}, needs(0b111), {}, "with dsum");
  c.add(op::add_layer_norm, {x, y, w, w}, NormParams{1e-5});
  c.add(op::add_layer_norm, {x, y, w}, NormParams{1e-5}, {}, "without bias");
  c.add(op::rms_norm, {x, w}, NormParams{1e-5});
  c.add(op::rms_norm_back, rms, needs(0b11));
  c.add(op::rms_norm_back, rms, needs(0b01), {}, "dx only");
  c.add(op::rms_norm_back, rms, needs(0b10), {}, "dw only");
  c.add(op::rms_norm_back, {x, y, w, statistic, y}, needs(0b11), {}, "with dsum");
  c.add(op::add_rms_norm, {x, y, w}, NormParams{1e-5});
}

void call_products(Calls& c, int64_t s) {
  const int64_t B = 3, M = 5 + s, N = 7 + 2 * s, K = 11;
  c.add(op::matmul, {c.make({B, M, K}), c.make({K, N})}, MatmulParams{false, false}, {{"B", B}, {"M", M}, {"N", N}, {"K", K}});
  c.add(op::matmul, {c.make({B, M, K}), c.make({K, N})}, MatmulParams{false, false, 13 + s}, {{"P", 13 + s}}, "masked");
  const Names extents{{"M", B * M}, {"N", N}, {"K", K}};
  const Tensor x = c.make({B, M, K}), w = c.make({N, K}), dy = c.make({B, M, N});
  c.add(op::linear, {x, w}, {}, extents);
  c.add(op::linear, {x, w, c.make({N})}, {}, extents, "with bias");
  c.add(op::linear_back_x, {dy, w}, {}, extents);
  c.add(op::linear_back_w, {dy, x}, LinearParams{false, DType::f32}, extents);
  c.add(op::linear_back_b, {dy}, LinearParams{false, DType::f32}, extents);
}

void call_float8(Calls& c, int64_t s) {
  const int64_t B = 3, M = 5 + s, N = 7 + 2 * s, K = 11, W = 4 + s;
  const Names extents{{"M", B * M}, {"N", N}, {"K", K}};
  const Tensor x = c.make({B, M, K}), w = c.make({N, K}), dy = c.make({B, M, N}, DType::f8e5m2), codes = c.make({B, M, K}, DType::f8e4m3fn);
  const Tensor three = c.make({3}), stats = c.make({4}), of_dy = c.make({2}), scalars = c.make({kStepScalars}, DType::f64);
  c.add(op::quantize_fp8, {x, c.make({1})}, QuantizeParams{DType::f8e5m2});
  c.add(op::linear_fp8, {x, w, three, three}, {}, extents);
  c.add(op::linear_fp8, {x, w, three, three, c.make({N})}, {}, extents, "with bias");
  c.add(op::linear_fp8_again, {x, w, three, three}, {}, extents);
  c.add(op::linear_fp8_back_x, {dy, w, of_dy, stats}, {}, extents);
  c.add(op::linear_fp8_back_w, {dy, codes, of_dy, stats}, LinearParams{false, DType::f32}, extents);
  c.add(op::record_fp8_amax, {three, stats, of_dy});
  c.add(op::step_fp8_scales, {scalars, three, c.make({3, W}), three}, {}, {{"W", W}});
}

void call_transformer(Calls& c, int64_t s) {
  const int64_t B = 2, T = 9 + s, H = 6, KV = 3, D = 4 + 2 * s, R = 5, L = 31, V = 17, W = 5;
  const int64_t width = (H + 2 * KV) * D;
  const Tensor qkv = c.make({B, T, width}), out = c.make({B, T, H * D}), lse = c.make({B, H, T}), w = c.make({D});
  const QkNormParams q{1e-6, int32_t(H), int32_t(KV), int32_t(D)};
  const Names heads{{"M", B * T}, {"H", H}, {"KV", KV}, {"D", D}};
  c.add(op::qk_norm, {qkv, w, w}, q, heads);
  const Tensors back{qkv, qkv, w, w, c.make({B * T, H + KV})};
  c.add(op::qk_norm_back, back, Params(q, 0b111), heads);
  c.add(op::qk_norm_back, back, Params(q, 0b101), heads, "dx and dwk");
  const Tensor ids = c.make({B, T}, DType::i32);
  c.add(op::embedding, {c.make({V, 8 + s}), ids});
  c.add(op::embedding_back, {c.make({B, T, 8 + s}), ids}, EmbeddingParams{int32_t(V), false});
  c.add(op::embedding_back, {c.make({B, T, 8 + s}), ids, c.make({V, 8 + s})}, EmbeddingParams{int32_t(V), true}, {}, "adding");
  c.add(op::rope, {qkv}, RopeParams{1e4, int32_t(R), int32_t(D), false, false}, {{"B", B}, {"T", T}, {"R", R}, {"D", D}});
  const Names scores{{"B", B}, {"T", T}, {"H", H}, {"D", D}, {"L", L}, {"W", W}};
  for (const bool causal : {true, false}) {
    const AttentionParams a{0.5, int32_t(H), int32_t(KV), int32_t(D), causal};
    c.add(op::attention, {qkv}, a, scores, causal ? "causal" : "full");
    c.add(op::attention_back, {out, qkv, out, lse}, a, scores, causal ? "causal" : "full");
  }
  const AttentionParams a{0.5, int32_t(H), int32_t(KV), int32_t(D), true}, near{0.5, int32_t(H), int32_t(KV), int32_t(D), true, W};
  c.add(op::attention, {qkv}, near, scores, "window of W");
  c.add(op::attention_back, {out, qkv, out, lse}, near, scores, "window of W");
  const Tensor cache = c.make({B, KV, L, D}), position = c.make({1}, DType::i64);
  c.add(op::kv_append, {qkv, cache, cache, position}, a);
  c.add(op::attention_cached, {qkv, cache, cache, position}, a, scores);
  c.add(op::attention_cached, {qkv, cache, cache, position}, near, scores, "window of W");
  const int64_t F = 6 + s, first_keys = F + T + 3;  // a chunk of T tokens that begins at F
  const Tensor keys = c.make({B, KV, first_keys, D}), sums = c.make({B, KV, first_keys, key_sum_width(D)});
  const Names chunk{{"B", B}, {"T", T}, {"H", H}, {"KV", KV}, {"D", D}, {"F", F}, {"W", W}, {"e", 4}, {"G", key_sum_width(D)}};
  for (const AttentionParams& p : {a, near}) {
    const std::string variant = p.window > 0 ? "window of W" : "";
    c.add(op::attention_chunk, {qkv, keys, keys}, AttentionChunkParams{p, F}, chunk, variant);
    c.add(op::attention_chunk_back, {out, qkv, keys, keys, out, lse, sums, sums}, AttentionChunkParams{p, F}, chunk, variant);
  }
  c.add(op::store_chunk, {qkv, c.make({B, first_keys, width})}, ChunkParams{F});
  c.add(op::store_keys, {qkv, keys, keys}, AttentionChunkParams{a, F}, chunk);
  const Tensor logits = c.make({B, T, V}), statistic = c.make({B * T});
  const auto options = [](double label_smoothing, double z_loss, uint32_t needs = 0b11) {
    return Params(LossParams{{Reduction::mean, label_smoothing, z_loss}, false}, needs);
  };
  const Tensor scalar = c.make({});
  const Tensors loss_back{scalar, logits, ids, statistic, scalar};
  c.add(op::cross_entropy, {logits, ids}, options(0, 0));
  c.add(op::cross_entropy, {logits, ids}, options(0.1, 0), {}, "smoothed");
  c.add(op::cross_entropy_back, loss_back, options(0, 0));
  c.add(op::cross_entropy_back, loss_back, options(0.1, 0), {}, "smoothed");
  c.add(op::cross_entropy_back, loss_back, options(0, 1e-4), {}, "with z-loss");
  c.add(op::cross_entropy_back, loss_back, options(0.1, 1e-4), {}, "both");
  const int64_t M = B * T, K = 6 + s;
  const Names extents{{"M", M}, {"N", V}, {"K", K}};
  const Tensor x = c.make({B, T, K}), head = c.make({V, K});
  c.add(op::linear_cross_entropy, {x, head, ids}, options(0, 0), extents);
  c.add(op::linear_cross_entropy, {x, head, ids}, options(0.1, 0), extents, "smoothed");
  const Tensors head_back{scalar, x, head, ids, statistic, scalar};
  c.add(op::linear_cross_entropy_back, head_back, options(0, 0), extents);
  c.add(op::linear_cross_entropy_back, head_back, options(0, 0, 0b10), extents, "dw only");
  c.add(op::linear_cross_entropy_back, head_back, options(0, 0, 0b01), extents, "dx only");
  c.add(op::linear_cross_entropy_back, head_back, options(0.1, 1e-4), extents, "both");
  c.add(op::linear_cross_entropy_step, {x, head, ids, scalar, head}, options(0, 0), extents);
  c.add(op::linear_cross_entropy_step, {x, head, ids, scalar}, options(0, 0, 0b01), extents, "frozen w");
  c.add(op::linear_cross_entropy_step, {x, head, ids, scalar, head}, options(0.1, 1e-4), extents, "both");
}

void call_lamb(Calls& c, int64_t s) {
  const int64_t N = 64 + 32 * s, S = 2 + s;
  const Names names{{"S", S}};
  const Tensor p = c.make({N}), scalars = c.make({kStepScalars}, DType::f64), places = c.make({S + 1}, DType::i64),
               ratios = c.make({S}, DType::f64);
  const Tensor half = c.make({N}, DType::bf16), working = c.make({N}, DType::f16);
  const OptimizerParams none{0};
  c.add(op::lamb_moments, {scalars, p, p, p, p, places}, none, names);
  c.add(op::lamb_moments, {scalars, half, p, p, p, places, half}, none, names, "bf16");
  c.add(op::lamb_moments, {scalars, working, p, p, p, places, p}, none, names, "fp16");
  c.add(op::lamb_step, {scalars, p, p, p, places, ratios}, none, names);
  c.add(op::lamb_step, {scalars, half, p, p, places, ratios, half}, none, names, "bf16");
  c.add(op::lamb_step, {scalars, working, p, p, places, ratios, p}, none, names, "fp16");
}

void call_training(Calls& c, int64_t s) {
  const Tensor p = c.make({40 + s}), scalars = c.make({kStepScalars}, DType::f64), square = c.make({1}, DType::f64);
  c.add(op::sum_of_squares, {p});
  c.add(op::clip, s ? Tensors{scalars, c.make({}), square, square, square} : Tensors{scalars, c.make({}), square}, {}, {{"S", s ? 3 : 1}});
  const OptimizerParams none{0};
  c.add(op::sgd_step, {scalars, p, p}, none);
  c.add(op::momentum_step, {scalars, p, p, p}, none);
  c.add(op::nesterov_step, {scalars, p, p, p}, none);
  c.add(op::adagrad_step, {scalars, p, p, p}, none);
  OptimizerParams coupled, centered, momentum, both;
  coupled.coupled = centered.centered = momentum.momentum = both.centered = both.momentum = true;
  c.add(op::sgd_step, {scalars, p, p}, coupled, {}, "coupled");
  c.add(op::rmsprop_step, {scalars, p, p, p}, none);
  c.add(op::rmsprop_step, {scalars, p, p, p, p}, momentum, {}, "with momentum");
  c.add(op::rmsprop_step, {scalars, p, p, p, p}, centered, {}, "centered");
  c.add(op::rmsprop_step, {scalars, p, p, p, p, p}, both, {}, "both");
  c.add(op::adam_step, {scalars, p, p, p, p}, none);
  c.add(op::adamw_step, {scalars, p, p, p, p}, none);
  const Tensor half = c.make({40 + s}, DType::bf16);
  c.add(op::adamw_step, {scalars, half, p, p, p, half}, none, {}, "bf16");
  c.add(op::adamw_step, {scalars, half, p, p, p}, none, {}, "rounded");
  const Tensor working = c.make({40 + s}, DType::f16);
  c.add(op::adamw_step, {scalars, working, p, p, p, p}, none, {}, "fp16");
  const Tensor q = c.make({256 + 64 * s}), codes = c.make({256 + 64 * s}, DType::u8), scales = c.make({1 + s / 4});
  c.add(op::adamw8bit_step, {scalars, q, q, codes, scales, codes, scales}, none);
  call_lamb(c, s);
  c.add(op::split_master, {p, half, half});
  c.add(op::join_master, {p, half, half});
}

void call_modules(Calls& c, int64_t s) {
  const int64_t N = 9 + s, k = 2, E = 5, R = 4 + s, C = 6 + s;
  const Tensor x = c.make({N, C}), probabilities = c.make({N, E}), choices = c.make({N, k}, DType::i32), rows = c.make({E, R}, DType::i32);
  const Tensor weights = c.make({N, k}), y = c.make({E, R, C});
  c.add(op::dropout, {x, c.make({2}, DType::i64)}, DropoutParams{0.1, 1, 0});
  c.add(op::route_top_k, {probabilities}, RouteParams{k, R}, {{"k", k}});
  c.add(op::pick_experts, {probabilities, choices});
  c.add(op::pick_experts_back, {weights, choices}, PickParams{E});
  const Names width{{"C", C}};
  c.add(op::moe_dispatch, {x, choices, rows}, {}, width);
  c.add(op::moe_dispatch, {x, choices, rows, weights}, {}, width, "weighted");
  c.add(op::moe_combine, {y, choices, rows}, {}, width);
  c.add(op::moe_combine, {y, choices, rows, weights}, {}, width, "weighted");
  c.add(op::moe_weights_back, {x, choices, rows, y}, {}, width);
}

class FlopsTable : public testing::Test {
 protected:
  void SetUp() override {
    for (const int64_t s : {0, 4}) {
      call_elementwise(calls_, s);
      call_memory(calls_, s);
      call_functions(calls_, s);
      call_indexing(calls_, s);
      call_convolutions(calls_, s);
      call_rows(calls_, s);
      call_products(calls_, s);
      call_float8(calls_, s);
      call_transformer(calls_, s);
      call_training(calls_, s);
      call_modules(calls_, s);
    }
  }
  Ref<Device> meta_ = open_cpu(Mode::meta);
  Calls calls_{*meta_};
  const Table flops_ = read_table("docs/flops.md", "The table"), bytes_ = read_table("docs/flops.md", "Bytes moved");
};

// The line of a variant, or else the line of its operation.
const TableLine* line_of(const Table& table, const Charged& c) {
  const auto variant = table.find(c.label), plain = table.find(c.op);
  return variant != table.end() ? &variant->second : plain != table.end() ? &plain->second : nullptr;
}

TEST_F(FlopsTable, EveryLineIsWhatThePlanSays) {
  for (const Charged& c : calls_.all()) {
    const TableLine* line = line_of(flops_, c);
    ASSERT_NE(line, nullptr) << c.label << " has no line in docs/flops.md";
    EXPECT_EQ(evaluate(line->at(1), c.names), c.row.flops.model) << c.label << ": model is documented as " << line->at(1);
    EXPECT_EQ(evaluate(line->at(2), c.names), c.row.flops.vector) << c.label << ": vector is documented as " << line->at(2);
  }
}

TEST_F(FlopsTable, EveryLineBelongsToACall) {
  std::set<std::string> labels, ops;
  for (const Charged& c : calls_.all()) {
    labels.insert(c.label);
    ops.insert(c.op);
  }
  for (const Table* table : {&flops_, &bytes_})
    for (const auto& [label, line] : *table) EXPECT_TRUE(labels.contains(label)) << label << " is documented but no call here checks it";
  for (const OpDef* row : all_ops()) EXPECT_TRUE(ops.contains(row->name)) << row->name << " is not called here";
}

TEST_F(FlopsTable, BytesAreInputsAndOutputsOnceButForTheExceptions) {
  for (const Charged& c : calls_.all()) {
    const TableLine* line = line_of(bytes_, c);
    const int64_t expected = line ? evaluate(line->at(1), c.names) : c.is_view ? 0 : c.plain_bytes;
    EXPECT_EQ(expected, c.row.bytes) << c.label << (line ? " is documented as " + line->at(1) : " has no line of its own");
    if (line) {
      EXPECT_NE(c.plain_bytes, c.row.bytes) << c.label << " is no exception";
    }
  }
}

TEST_F(FlopsTable, TheCpuExecutesWhatIsNeededButForAttentionAndLogitsMadeAgain) {
  for (const Charged& c : calls_.all()) {
    if (c.op.starts_with("attention") && c.op != "attention_cached") {
      EXPECT_GT(c.row.flops.matmul, c.row.flops.model) << c.label;
    } else if (c.op == "linear_cross_entropy_back") {
      EXPECT_EQ(c.row.flops.matmul, c.row.flops.model + 2 * c.names.at("M") * c.names.at("N") * c.names.at("K")) << c.label;
    } else if (c.names.contains("P")) {  // matmul, masked
      EXPECT_GT(c.row.flops.matmul, c.row.flops.model) << c.label;
    } else {
      EXPECT_EQ(c.row.flops.matmul, c.row.flops.model) << c.label << ": docs/flops.md says that the CPU books no extra work";
    }
  }
}

// Needed and executed work of attention and of its backward pass, B 8, H 12, D 64, on vectors of so many floats.
std::pair<Flops, Flops> attention_flops(int64_t T, DType dtype, int vector_floats, int64_t B = 8, int lanes = 2) {
  const Ref<Device> meta = open_cpu(Mode::meta, {"cpu", lanes, vector_floats});
  Tensor qkv = empty(*meta, {{B, T, 3 * 12 * 64}, dtype});
  qkv.set_requires_grad();
  Meter forward, back;
  Tensor out;
  {
    const MeterScope scope(forward);
    out = attention(qkv, 12, 12, 64);
  }
  const Tensor seed = empty(*meta, out.spec());
  {
    const MeterScope scope(back);
    backward(out, seed);
  }
  return {forward.total(), back.total()};
}

TEST(ExecutedWork, OfAttentionIsAsTheTableSays) {
  for (const auto& [length, line] : read_table("docs/flops.md", "Executed work")) {
    const int64_t T = evaluate(length, {});
    ASSERT_EQ(line.size(), 7u);
    size_t column = 1;
    for (const int vector_floats : {4, 8, 16}) {
      const auto [forward, back] = attention_flops(T, DType::f32, vector_floats);
      EXPECT_EQ(line[column], fmt::format("{:.3f}", double(forward.matmul) / double(forward.model))) << T << " forward, " << vector_floats;
      EXPECT_EQ(line[column + 3], fmt::format("{:.3f}", double(back.matmul) / double(back.model))) << T << " backward, " << vector_floats;
      ++column;
    }
  }
}

TEST(ExecutedWork, OfAttentionInFloat64IsTwoAndFiveProducts) {
  const auto [forward, back] = attention_flops(100, DType::f64, 8);
  EXPECT_EQ(forward.matmul, forward.model);
  EXPECT_EQ(back.matmul * 4, back.model * 5);
}

TEST(ExecutedWork, OfTwoPassesIsSevenProducts) {
  const auto [forward, one] = attention_flops(4096, DType::f32, 8, 1, 12);  // a head for each lane
  const auto [same, two] = attention_flops(4096, DType::f32, 8, 1, 11);     // one lane would have two
  EXPECT_EQ(forward, same);
  EXPECT_NEAR(double(one.matmul) / double(one.model), 5.0 / 4, 0.01);
  EXPECT_NEAR(double(two.matmul) / double(two.model), 7.0 / 4, 0.01);
}

// The two claims about whole steps: unwanted gradients cost nothing, repeated work is hardware work only.
TEST(FlopsConventions, UnwantedGradientsAreNotCounted) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor x = empty(*meta, {{5, 11}, DType::f32});
  Tensor w = empty(*meta, {{7, 11}, DType::f32}).set_requires_grad();
  Meter meter;
  {
    const MeterScope scope(meter);
    backward(sum(linear(x, w)));
  }
  EXPECT_EQ(meter.total().model, 2 * (2 * 5 * 11 * 7));  // forward and dw; x wants no gradient
}

TEST(FlopsConventions, RepeatedWorkIsNotModelWork) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor x = empty(*meta, {{5, 11}, DType::f32});
  Tensor w = empty(*meta, {{7, 11}, DType::f32}).set_requires_grad();
  Meter meter;
  {
    const MeterScope scope(meter);
    backward(sum(checkpoint([&w](const Tensors& in) { return linear(in[0], w); }, {x})));
  }
  const int64_t product = 2 * 5 * 11 * 7;
  EXPECT_EQ(meter.total().model, 2 * product);
  EXPECT_EQ(meter.total().matmul, 3 * product);
}

TEST(FlopsFormula, IsArithmeticOnKnownNames) {
  EXPECT_EQ(evaluate("2 * (a + 4) / 7 - KV", {{"a", 3}, {"KV", 5}}), -3);
  EXPECT_EQ(evaluate("0", {}), 0);
  EXPECT_THROW(evaluate("2 * c", {{"a", 3}}), Error);
  EXPECT_THROW(evaluate("2 a", {{"a", 3}}), Error);
  EXPECT_THROW(evaluate("(a", {{"a", 3}}), Error);
  EXPECT_THROW(evaluate("", {}), Error);
  EXPECT_THROW(evaluate("a / 2", {{"a", 3}}), Error);  // a formula that does not come out even is wrong
}
}  // namespace
}  // namespace reckon::docs
