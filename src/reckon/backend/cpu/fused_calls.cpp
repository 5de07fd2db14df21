#include "reckon/backend/cpu/fused_calls.h"

#include <array>
#include <cstring>

#include "reckon/backend/cpu/activation.h"
#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/ops/rows.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kDense[] = {1};

template <Unary kOp>
void unary_tile(const TileCall& c) {
  unary_run(kOp, c.out_dtype, c.in[0], c.out, c.n);
}
template <Binary kOp>
void binary_tile(const TileCall& c) {
  binary_run(kOp, c.out_dtype, c.in[0], c.in[1], c.out, c.n);
}
template <Compare kOp>
void compare_tile(const TileCall& c) {
  compare(kOp, c.in_dtype, {c.n}, {c.in[0], kDense}, {c.in[1], kDense}, c.out, kDense);
}
template <Activation kKind>
void activation_tile(const TileCall& c) {
  activation(kKind, c.out_dtype, c.in[0], c.out, c.n);
}
template <Activation kKind>
void activation_back_tile(const TileCall& c) {
  activation_back(kKind, c.out_dtype, c.in[0], c.in[1], c.out, c.n);
}
void affine_tile(const TileCall& c) {
  const auto p = c.params->as<AffineParams>();
  affine(c.out_dtype, c.in[0], p.alpha, p.beta, c.out, c.n);
}
void where_tile(const TileCall& c) {
  where(size_of(c.out_dtype), {c.n}, {c.in[0], kDense}, {c.in[1], kDense}, {c.in[2], kDense}, c.out, kDense);
}
void cast_tile(const TileCall& c) { convert(c.in_dtype, c.in[0], c.out_dtype, c.out, c.n); }
void contiguous_tile(const TileCall& c) { std::memcpy(c.out, c.in[0], size_t(c.n * size_of(c.out_dtype))); }

constexpr std::array<TileFunction, kKernelCount> make_table() {
  std::array<TileFunction, kKernelCount> table{};
#define UNARY(name) table[k_##name] = unary_tile<Unary::name>;
  UNARY(neg)
  UNARY(exp)
  UNARY(log) UNARY(sqrt) UNARY(rsqrt) UNARY(square) UNARY(reciprocal) UNARY(abs)
#undef UNARY
#define BINARY(name, op) table[k_##name] = binary_tile<Binary::op>;
      BINARY(add, add) BINARY(sub, sub) BINARY(mul, mul) BINARY(div, div) BINARY(maximum, max) BINARY(minimum, min) BINARY(pow, pow)
#undef BINARY
#define ACTIVATION(name)                               \
  table[k_##name] = activation_tile<Activation::name>; \
  table[k_##name##_back] = activation_back_tile<Activation::name>;
          ACTIVATION(tanh) ACTIVATION(sigmoid) ACTIVATION(relu) ACTIVATION(gelu) ACTIVATION(silu)
#undef ACTIVATION
              table[k_equal] = compare_tile<Compare::eq>;
  table[k_less] = compare_tile<Compare::lt>;
  table[k_less_equal] = compare_tile<Compare::le>;
  table[k_affine] = affine_tile;
  table[k_where] = where_tile;
  table[k_cast] = cast_tile;
  table[k_contiguous] = contiguous_tile;
  return table;
}
constexpr std::array<TileFunction, kKernelCount> kTable = make_table();

constexpr std::array<BlockRow, kKernelCount> make_block_rows() {
  std::array<BlockRow, kKernelCount> rows{};
#define ROW(name, code, flops) rows[k_##name] = {BlockCode::code, flops, true};
  ROW(neg, neg, 1)
  ROW(exp, exp, 1)
  ROW(log, log, 1) ROW(sqrt, sqrt, 1) ROW(rsqrt, rsqrt, 1) ROW(square, square, 1) ROW(reciprocal, reciprocal, 1) ROW(abs, abs, 1)
      ROW(add, add, 1) ROW(sub, sub, 1) ROW(mul, mul, 1) ROW(div, div, 1) ROW(maximum, max, 1) ROW(minimum, min, 1) ROW(pow, pow, 1)
          ROW(equal, equal, 1) ROW(less, less, 1) ROW(less_equal, less_equal, 1) ROW(tanh, tanh, 1) ROW(sigmoid, sigmoid, 4)
              ROW(relu, relu, 1) ROW(gelu, gelu, 9) ROW(silu, silu, 5) ROW(tanh_back, tanh_back, 3) ROW(sigmoid_back, sigmoid_back, 3)
                  ROW(relu_back, relu_back, 1) ROW(gelu_back, gelu_back, 19) ROW(silu_back, silu_back, 9) ROW(affine, affine, 2)
                      ROW(cast, copy, 0)
#undef ROW
                          rows[k_contiguous] = {BlockCode::copy, 0, false};
  rows[k_where] = {BlockCode::where, 0, false};
  return rows;
}
constexpr std::array<BlockRow, kKernelCount> kBlockRows = make_block_rows();
}  // namespace

BlockRow block_row(int id) { return id >= 0 && id < kKernelCount ? kBlockRows[size_t(id)] : BlockRow{}; }

TileFunction tile_function(int id) { return id >= 0 && id < kKernelCount ? kTable[size_t(id)] : nullptr; }
}  // namespace reckon::cpu
