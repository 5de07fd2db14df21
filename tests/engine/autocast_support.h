// tests/engine/autocast_support: tensors of any float, calls of an operation counted by the meter, and bits.
#pragma once
#include "reckon/engine/autocast.h"
#include "tests/engine/support.h"

namespace reckon {

inline Tensor drawn(Device& device, const Shape& shape, uint64_t key, DType dtype = DType::f32, double std = 1) {
  const Tensor x = empty(device, {shape, dtype});
  fill_normal_(x, key, 0, std);
  return x;
}
inline Tensor drawn_leaf(Device& device, const Shape& shape, uint64_t key, DType dtype = DType::f32, double std = 0.3) {
  return drawn(device, shape, key, dtype, std).set_requires_grad();
}

/// How often f calls the operation, by the meter.
template <class F>
int64_t calls_in(const char* op, F f) {
  Meter meter;
  {
    const MeterScope scope(meter);
    f();
  }
  int64_t calls = 0;
  for (const MeterRow& row : meter.rows())
    if (std::string(row.op) == op) calls += row.calls;
  return calls;
}
template <class F>
int64_t casts_in(F f) {
  return calls_in("cast", f);
}

/// One layer after the other: products, an activation, a norm and a loss. In `hand`, the casts that Autocast makes are written out.
struct TwoLayers {
  explicit TwoLayers(Device& d)
      : x(drawn(d, {6, 16}, 1)),
        w1(drawn_leaf(d, {32, 16}, 2)),
        b1(drawn_leaf(d, {32}, 3)),
        scale(drawn_leaf(d, {32}, 4)),
        shift(drawn_leaf(d, {32}, 5)),
        w2(drawn_leaf(d, {12, 32}, 6)),
        b2(drawn_leaf(d, {12}, 7)),
        targets(from_values<int32_t>(d, {6}, std::vector<int32_t>{3, 0, 11, 5, 5, 1})) {}
  Tensor loss() const {
    const Tensor hidden = gelu(linear(x, w1, b1));
    return cross_entropy(linear(layer_norm(hidden, scale, shift), w2, b2), targets);
  }
  Tensor hand(DType low) const {
    const auto down = [&](const Tensor& t) { return cast(t, low); };
    const auto up = [](const Tensor& t) { return cast(t, DType::f32); };
    const Tensor hidden = gelu(linear(down(x), down(w1), down(b1)));
    return cross_entropy(up(linear(down(layer_norm(up(hidden), scale, shift)), down(w2), down(b2))), targets);
  }
  Tensors parameters() const { return {w1, b1, scale, shift, w2, b2}; }
  std::vector<Values> gradients() const {
    std::vector<Values> all;
    for (const Tensor& p : parameters()) {
      EXPECT_EQ(p.grad().dtype(), DType::f32);
      all.push_back(p.grad().to_vector());
    }
    return all;
  }
  Tensor x, w1, b1, scale, shift, w2, b2, targets;
};
}  // namespace reckon
