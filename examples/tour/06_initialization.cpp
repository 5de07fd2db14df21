// Page 6 of the tour, docs/tour/06-initialization.md: how large weights must be at the start.
#include "tour.h"

using namespace tour;

double std_of(const Tensor& x) { return std::sqrt(variance(x).item()); }

void unit(Device& cpu) {
  const int64_t in = 16384, out = 32;
  const Tensor x = normal(cpu, {1024, in}, 1);
  SHOW(cpu, Tensor w = normal(cpu, {out, in}, 2));
  SHOW(cpu, Tensor y = linear(x, w));
  SHOW(cpu, Tensor scaled = linear(x, w / std::sqrt(double(in))));
  say("std of y {:.0f}, of scaled {:.2f}", std_of(y), std_of(scaled));
  check(std::abs(std_of(y) / 128 - 1) < 0.02, "sqrt(16384) = 128");
  check(std::abs(std_of(scaled) - 1) < 0.02, "1 / sqrt(fan_in) keeps the size");
}

void rules(Device& cpu) {
  const int64_t in = 16384, out = 32;
  const Tensor x = normal(cpu, {1024, in}, 1);
  for (const auto& [name, kind] : {std::pair{"xavier", Init::xavier}, std::pair{"kaiming", Init::kaiming}}) {
    const double std = init_std({kind}, out, in);
    SHOW(cpu, Tensor y = linear(x, normal(cpu, {out, in}, 2, std)));
    say("{:8} std {:.6f}, variance of y {:.3f} expected, {:.2f} measured", name, std, std * std * in, variance(y).item());
    check(std::abs(variance(y).item() / (std * std * in) - 1) < 0.04, "the variance of y is in std^2");
  }
}

double mean_square_after(Device& cpu, int64_t layers, double std) {
  const int64_t width = 256;
  Tensor h = normal(cpu, {256, width}, 1);
  for (int64_t i = 0; i < layers; ++i) h = relu(linear(h, normal(cpu, {width, width}, uint64_t(10 + i), std)));
  return mean(square(h)).item();
}
void depth(Device& cpu) {
  SHOW(cpu, double narrow = mean_square_after(cpu, 10, std::sqrt(1.0 / 256)));
  SHOW(cpu, double kaiming = mean_square_after(cpu, 10, std::sqrt(2.0 / 256)));
  say("after ten layers of relu: {:.5f} and {:.2f}", narrow, kaiming);
  check(narrow < 0.002, "relu halves the mean square, ten times over");
  check(kaiming > 0.5 && kaiming < 2, "and 2 / in makes up for it");
}

void truncated(Device& cpu) {
  const double std = 1 / std::sqrt(16384.0);
  const Tensor w = empty(cpu, {{32, 16384}, DType::f32});
  const auto largest = [&] { return max(abs(w)).item() / std; };
  SHOW(cpu, fill_trunc_normal_(w, 3, std, 3));
  say("bound 3:        largest |w| / std {:.1f}, std {:.5f}", largest(), std_of(w));
  check(largest() > 4, "no weight is anywhere near 3");
  SHOW(cpu, fill_trunc_normal_(w, 3, std, 3 * std));
  say("bound 3 * std:  largest |w| / std {:.1f}, std {:.5f}", largest(), std_of(w));
  check(largest() <= 3.0001, "cut at three standard deviations");
}

int main() { return run({unit, rules, depth, truncated}); }
