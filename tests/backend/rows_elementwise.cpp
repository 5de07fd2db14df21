// Element-wise operations with broadcasting and odd strides against an index-by-index definition.
#include "reckon/backend/cpu/rows_elementwise.h"

#include <limits>

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
// A strided operand inside a buffer, by its strides and first element.
struct Operand {
  std::vector<int64_t> strides;
  int64_t first = 0, size = 1;
};

// All positions of a shape's elements, in row-major order.
std::vector<int64_t> positions(const Shape& shape, const Operand& o) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < shape.numel(); ++i) {
    int64_t at = o.first, rest = i;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) at += rest % shape[axis] * o.strides[size_t(axis)], rest /= shape[axis];
    out.push_back(at);
  }
  return out;
}

// A layout of the shape chosen by the draw: axes permuted, padded, reversed or (if allowed) broadcast.
Operand layout(const Shape& shape, uint64_t draw, bool may_repeat) {
  Operand o;
  o.strides.resize(size_t(shape.rank()));
  std::vector<int> order;
  for (int axis = 0; axis < shape.rank(); ++axis) order.push_back(axis);
  const auto words = philox(draw, 3, 0);
  for (size_t i = order.size(); i > 1; --i)
    if (words[0] % 3 == 0) std::swap(order[i - 1], order[philox(draw, 4, i)[0] % i]);
  int64_t stride = words[1] % 4 == 0 ? 2 : 1;
  for (size_t k = order.size(); k-- > 0;) {
    const int axis = order[k];
    const uint32_t w = philox(draw, 5, uint64_t(axis))[0];
    if (may_repeat && w % 4 == 0) {
      o.strides[size_t(axis)] = 0;
      continue;
    }
    const bool reversed = w % 7 == 1;
    o.strides[size_t(axis)] = reversed ? -stride : stride;
    if (reversed && shape[axis] > 0) o.first += (shape[axis] - 1) * stride;
    stride *= shape[axis] + (w % 5 == 2 ? 3 : 0);
  }
  o.size = std::max<int64_t>(stride, 1) + 1;
  return o;
}

const Shape kShapes[] = {{},       {1},       {0, 4}, {7}, {3, 5}, {2, 3, 4}, {5, 1, 6}, {1500}, {3, 1100}, {2, 3, 2, 2, 1, 2, 3, 2},
                         {33, 70}, {16, 1100}};

template <class Check>
void on_layouts(Check check) {
  for (const Shape& shape : kShapes)
    for (uint64_t draw = 0; draw < 6; ++draw) check(shape, draw);
}

Strided strided(Buffer& b, const Operand& o) {
  return {static_cast<const char*>(b.data()) + o.first * size_of(b.dtype()), o.strides.data()};
}
void* start(Buffer& b, const Operand& o) { return static_cast<char*>(b.data()) + o.first * size_of(b.dtype()); }

// Every element of the output that the shape covers is `want`, within `ulps` roundings of its statistics type; the others are untouched.
void expect_output(const Buffer& out, const std::vector<int64_t>& at, const std::vector<double>& want, double ulps,
                   const std::string& what) {
  std::vector<double> all(size_t(out.size()), 3);
  for (size_t i = 0; i < at.size(); ++i) all[size_t(at[i])] = want[i];
  const double eps = is_float(out.dtype()) ? epsilon(statistics_dtype(out.dtype())) * ulps : 0,
               half = is_float(out.dtype()) ? epsilon(out.dtype()) / 2 : 0;
  for (int64_t i = 0; i < out.size(); ++i) {
    const double w = all[size_t(i)];
    if (std::isnan(w) && std::isnan(out[i])) continue;
    if (w == out[i]) continue;
    ASSERT_LE(std::abs(out[i] - w), std::abs(w) * (eps + half) + (out.dtype() == DType::f16 ? 0x1p-25 : 1e-37))
        << what << ", element " << i << ": got " << out[i] << ", want " << w;
  }
}

TEST(RowsElementwise, Unary) {
  const auto want = [](Unary op, double v) {
    switch (op) {
      case Unary::neg:
        return -v;
      case Unary::exp:
        return std::exp(v);
      case Unary::log:
        return std::log(v);
      case Unary::sqrt:
        return std::sqrt(v);
      case Unary::rsqrt:
        return 1 / std::sqrt(v);
      case Unary::square:
        return v * v;
      case Unary::reciprocal:
        return 1 / v;
      case Unary::abs:
        return std::abs(v);
    }
    return 0.0;
  };
  on_every_target([&] {
    for (const Unary op : {Unary::neg, Unary::exp, Unary::log, Unary::sqrt, Unary::rsqrt, Unary::square, Unary::reciprocal, Unary::abs})
      for (const DType dtype : kFloats)
        on_layouts([&](const Shape& shape, uint64_t draw) {
          if (draw % 6 != uint64_t(op) % 6) return;
          const Operand ox = layout(shape, 2 * draw, true), oy = layout(shape, 2 * draw + 1, false);
          Buffer x = uniform(dtype, ox.size, 1, op == Unary::log || op == Unary::sqrt || op == Unary::rsqrt ? 0 : -3, 3),
                 y(dtype, oy.size, 3);
          unary(op, dtype, shape, strided(x, ox), start(y, oy), oy.strides.data());
          std::vector<double> expected;
          for (const int64_t at : positions(shape, ox)) expected.push_back(want(op, x[at]));
          expect_output(y, positions(shape, oy), expected, 4,
                        "unary " + std::to_string(int(op)) + " " + to_string(dtype) + to_string(shape));
        });
  });
}

TEST(RowsElementwise, Binary) {
  const auto want = [](Binary op, double a, double b) {
    const double rest = b == 0 ? a : std::fmod(a, b), positive = rest != 0 && b != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    switch (op) {
      case Binary::floor_divide:
        return b == 0 ? 0.0 : std::nearbyint((a - positive) / b);
      case Binary::remainder:
        return positive;
      case Binary::add:
        return a + b;
      case Binary::sub:
        return a - b;
      case Binary::mul:
        return a * b;
      case Binary::div:
        return a / b;
      case Binary::max:
        return std::isnan(a) || std::isnan(b) ? std::nan("") : std::max(a, b);
      case Binary::min:
        return std::isnan(a) || std::isnan(b) ? std::nan("") : std::min(a, b);
      case Binary::pow:
        return std::pow(a, b);
    }
    return 0.0;
  };
  on_every_target([&] {
    for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div, Binary::max, Binary::min, Binary::pow, Binary::floor_divide,
                            Binary::remainder})
      for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64})
        on_layouts([&](const Shape& shape, uint64_t draw) {
          const bool integer = !is_float(dtype);
          if ((integer && (op == Binary::div || op == Binary::pow)) || draw % 6 != uint64_t(op) % 6) return;
          const Operand oa = layout(shape, 3 * draw, true), ob = layout(shape, 3 * draw + 1, true), oo = layout(shape, 3 * draw + 2, false);
          const double low = op == Binary::pow ? 0.3 : -9, power = op == Binary::pow ? 4 : 9;  // 9^4 fits in float16
          Buffer a = uniform(dtype, oa.size, 1, low, 9), b = uniform(dtype, ob.size, 2, -power, power), out(dtype, oo.size, 3);
          if (!integer && op == Binary::max && oa.size > 2) a.set(1, std::nan("")), b.set(0, std::nan(""));
          binary(op, dtype, shape, strided(a, oa), strided(b, ob), start(out, oo), oo.strides.data());
          const auto pa = positions(shape, oa), pb = positions(shape, ob);
          std::vector<double> expected;
          for (size_t i = 0; i < pa.size(); ++i) expected.push_back(want(op, a[pa[i]], b[pb[i]]));
          expect_output(out, positions(shape, oo), expected, 2,
                        "binary " + std::to_string(int(op)) + " " + to_string(dtype) + to_string(shape));
        });
  });
}

TEST(RowsElementwise, IntegersWrap) {
  Buffer a(DType::i32, 1, 2147483647), b(DType::i32, 1, 2), out(DType::i32, 1);
  const int64_t one = 1;
  binary(Binary::mul, DType::i32, {1}, {a.data(), &one}, {b.data(), &one}, out.data(), &one);
  EXPECT_EQ(out[0], -2);
}

TEST(RowsElementwise, CompareAndWhere) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8, DType::boolean})
    for (const Compare op : {Compare::eq, Compare::ne, Compare::lt, Compare::le, Compare::gt, Compare::ge})
      on_layouts([&](const Shape& shape, uint64_t draw) {
        if (draw % 6 != uint64_t(op)) return;
        const Operand oa = layout(shape, 3 * draw, true), ob = layout(shape, 3 * draw + 1, true), oo = layout(shape, 3 * draw + 2, false);
        Buffer a = uniform(dtype, oa.size, 1, 0, 4), b = uniform(dtype, ob.size, 2, 0, 4), out(DType::boolean, oo.size, 3);
        for (int64_t i = 0; i < a.size(); ++i) a.set(i, std::floor(a[i]));
        for (int64_t i = 0; i < b.size(); ++i) b.set(i, std::floor(b[i]));
        if (is_float(dtype)) a.set(0, std::nan(""));
        compare(op, dtype, shape, strided(a, oa), strided(b, ob), start(out, oo), oo.strides.data());
        const auto pa = positions(shape, oa), pb = positions(shape, ob), po = positions(shape, oo);
        std::vector<double> expected;
        for (size_t i = 0; i < pa.size(); ++i) {
          const double u = a[pa[i]], v = b[pb[i]];
          const bool results[] = {u == v, u != v, u<v, u <= v, u> v, u >= v};
          expected.push_back(results[int(op)]);
        }
        expect_output(out, po, expected, 0, "compare");
        if (op != Compare::lt) return;
        // The result is the condition of a selection between the same operands: the smaller one.
        const Operand os = layout(shape, 3 * draw + 77, false);
        Buffer selected(dtype, os.size, 3);
        where(size_of(dtype), shape, strided(out, oo), strided(a, oa), strided(b, ob), start(selected, os), os.strides.data());
        for (size_t i = 0; i < pa.size(); ++i) expected[i] = expected[i] != 0 ? a[pa[i]] : b[pb[i]];
        expect_output(selected, positions(shape, os), expected, 0, "where");
      });
}

// Dense operands of every length around some vectors, and one element that stands for a whole operand; as above, by definition.
TEST(RowsElementwise, DenseCompareAndWhere) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::u8})
      for (const int64_t n : {1, 7, 15, 16, 31, 33, 64, 127, 131, 200})
        for (int repeats = 0; repeats < 8; ++repeats) {  // bit k: operand k is one element
          const int64_t sa = (repeats & 1) == 0, sb = (repeats & 2) == 0, sc = (repeats & 4) == 0, one = 1;
          Buffer a = uniform(dtype, n, 1, 0, 4), b = uniform(dtype, n, 2, 0, 4), chosen(dtype, n, 3), condition(DType::boolean, n);
          for (int64_t i = 0; i < n; ++i) a.set(i, std::floor(a[i])), b.set(i, std::floor(b[i]));
          for (int64_t i = 0; i < n; ++i) condition.set(i, double(mix_key(5, uint64_t(i)) % 3));  // any byte but 0 is true
          if (is_float(dtype)) a.set(n / 2, std::nan(""));
          const auto at = [&](const Buffer& x, int64_t i, int64_t stride) { return x[i * stride]; };
          const std::string what = to_string(dtype) + " " + std::to_string(n) + " " + std::to_string(repeats);
          for (const Compare op : {Compare::eq, Compare::ne, Compare::lt, Compare::le, Compare::gt, Compare::ge}) {
            Buffer out(DType::boolean, n, 3);
            compare(op, dtype, {n}, {a.data(), &sa}, {b.data(), &sb}, out.data(), &one);
            for (int64_t i = 0; i < n; ++i) {
              const double u = at(a, i, sa), v = at(b, i, sb);
              const bool results[] = {u == v, u != v, u<v, u <= v, u> v, u >= v};
              ASSERT_EQ(out[i], double(results[int(op)])) << what << ", element " << i << " of comparison " << int(op);
            }
          }
          where(size_of(dtype), {n}, {condition.data(), &sc}, {a.data(), &sa}, {b.data(), &sb}, chosen.data(), &one);
          for (int64_t i = 0; i < n; ++i) {
            const double want = at(condition, i, sc) != 0 ? at(a, i, sa) : at(b, i, sb);
            ASSERT_TRUE(chosen[i] == want || (std::isnan(chosen[i]) && std::isnan(want))) << what << ", element " << i;
          }
        }
  });
}

// One pass over 16-bit values gives the bits that widening, the float32 operation and rounding give. (Exponentials and logarithms of
// bfloat16 are functions of their own: rows_narrow.)
TEST(RowsElementwise, HalvesRoundTheFloatResult) {
  on_every_target([] {
    for (const DType dtype : {DType::bf16, DType::f16})
      for (const int64_t n : {1, 15, 16, 33, 1000}) {
        const Buffer a = uniform(dtype, n, 1, 0.1, 3), b = uniform(dtype, n, 2, 0.1, 3);
        Buffer wide_a(DType::f32, n), wide_b(DType::f32, n), wide(DType::f32, n), got(dtype, n), want(dtype, n);
        for (int64_t i = 0; i < n; ++i) wide_a.set(i, a[i]), wide_b.set(i, b[i]);
        for (const Unary op :
             {Unary::neg, Unary::exp, Unary::log, Unary::sqrt, Unary::rsqrt, Unary::square, Unary::reciprocal, Unary::abs}) {
          if (dtype == DType::bf16 && (op == Unary::exp || op == Unary::log)) continue;
          unary_run(op, dtype, a.data(), got.data(), n);
          unary_run(op, DType::f32, wide_a.data(), wide.data(), n);
          for (int64_t i = 0; i < n; ++i) want.set(i, wide[i]);
          EXPECT_TRUE(got.same_bytes(want)) << "unary " << int(op) << " " << to_string(dtype) << " " << n;
        }
        for (const Binary op : {Binary::add, Binary::sub, Binary::mul, Binary::div, Binary::max, Binary::min, Binary::pow}) {
          binary_run(op, dtype, a.data(), b.data(), got.data(), n);
          binary_run(op, DType::f32, wide_a.data(), wide_b.data(), wide.data(), n);
          for (int64_t i = 0; i < n; ++i) want.set(i, wide[i]);
          EXPECT_TRUE(got.same_bytes(want)) << "binary " << int(op) << " " << to_string(dtype) << " " << n;
        }
      }
  });
}

TEST(RowsElementwise, StridedCopy) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::u8})
      on_layouts([&](const Shape& shape, uint64_t draw) {
        const Operand of = layout(shape, 2 * draw + 1000, true), ot = layout(shape, 2 * draw + 1001, false);
        Buffer from = uniform(dtype, of.size, 1, 0, 100), to(dtype, ot.size, 3);
        copy_strided(size_of(dtype), shape, strided(from, of), start(to, ot), ot.strides.data());
        std::vector<double> expected;
        for (const int64_t at : positions(shape, of)) expected.push_back(from[at]);
        expect_output(to, positions(shape, ot), expected, 0, "copy");
      });
  });
}

// What `contiguous` meets: a transposed matrix, and heads between tokens ([B, T, H, D] read as [B, H, T, D] or [B, H, D, T]).
TEST(RowsElementwise, Transposes) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::u8}) {
      struct Case {
        Shape shape;
        std::vector<int64_t> strides;
      };
      for (const Case& c : {Case{{130, 67}, {1, 130}},
                            {{65, 1100}, {1, 65}},
                            {{97, 64}, {1, 200}},
                            {{16, 16}, {1, 16}},
                            {{2, 3, 70, 66}, {70 * 3 * 66, 66, 3 * 66, 1}},
                            {{2, 3, 66, 70}, {70 * 3 * 66, 66, 1, 3 * 66}}}) {
        int64_t size = 1;
        for (int i = 0; i < c.shape.rank(); ++i) size += (c.shape[i] - 1) * c.strides[size_t(i)];
        const Operand of{c.strides, 0, size};
        std::vector<int64_t> dense(size_t(c.shape.rank()));
        dense_strides(c.shape, dense.data());
        Buffer from = uniform(dtype, of.size, 1, 0, 200), to(dtype, c.shape.numel(), 3);
        copy_strided(size_of(dtype), c.shape, strided(from, of), to.data(), dense.data());
        const auto at = positions(c.shape, of);
        for (size_t i = 0; i < at.size(); ++i) ASSERT_EQ(to[int64_t(i)], from[at[i]]) << to_string(c.shape) << " " << i;
      }
    }
  });
}

TEST(RowsElementwise, AffineAndAxpby) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const DType x_dtype : kFloats)
        for (const int64_t n : {0, 1, 37, 40003}) {
          if ((dtype == DType::f64) != (x_dtype == DType::f64)) continue;
          const Buffer x = uniform(x_dtype, n, 1), y = uniform(dtype, n, 2);
          Buffer sum(dtype, n), in_place = y, shifted(x_dtype, n);
          axpby(x_dtype, 0.75, x.data(), dtype, -2, y.data(), sum.data(), n);
          axpby(x_dtype, 0.75, x.data(), dtype, -2, in_place.data(), in_place.data(), n);
          affine(x_dtype, x.data(), 0.75, -2, shifted.data(), n);
          EXPECT_TRUE(in_place.same_bytes(sum));
          std::vector<double> want, moved;
          for (int64_t i = 0; i < n; ++i) want.push_back(0.75 * x[i] - 2 * y[i]), moved.push_back(0.75 * x[i] - 2);
          expect_near(sum, want, 2 * epsilon(statistics_dtype(dtype)), "axpby");
          expect_near(shifted, moved, 2 * epsilon(statistics_dtype(dtype)), "affine");
        }
  });
}

TEST(RowsElementwise, InPlaceAndAnyThreads) {
  for (const DType dtype : kFloats) {
    const Shape shape{90, 700};
    const Buffer a = uniform(dtype, 63000, 1), b = uniform(dtype, 700, 2);
    const int64_t dense[] = {700, 1}, row[] = {0, 1};
    Buffer apart(dtype, 63000);
    binary(Binary::mul, dtype, shape, {a.data(), dense}, {b.data(), row}, apart.data(), dense);
    expect_same_on_any_threads([&] {
      Buffer in_place = a, roots(dtype, 63000), turned(dtype, 63000);
      binary(Binary::mul, dtype, shape, {in_place.data(), dense}, {b.data(), row}, in_place.data(), dense);
      EXPECT_TRUE(in_place.same_bytes(apart));
      unary(Unary::exp, dtype, shape, {a.data(), dense}, roots.data(), dense);
      const int64_t other[] = {1, 90};
      copy_strided(size_of(dtype), shape, {a.data(), other}, turned.data(), dense);
      return std::vector<Buffer>{in_place, roots, turned};
    });
  }
}

// exp and log hold their promise of about 2 units over all magnitudes, subnormals included.
TEST(RowsElementwise, ExpAndLogWithinTwoUnits) {
  const double inf = std::numeric_limits<double>::infinity();
  on_every_target([&] {
    constexpr int64_t n = 300000;
    const int64_t one = 1;
    Buffer x(DType::f32, n), y(DType::f32, n);
    for (int64_t i = 0; i < n; ++i) x.set(i, -104 + 193.0 * double(i) / n);
    unary(Unary::exp, DType::f32, {n}, {x.data(), &one}, y.data(), &one);
    for (int64_t i = 0; i < n; ++i) {
      const double want = std::exp(x[i]);
      if (want > 3.4028235e38) {
        ASSERT_TRUE(y[i] == inf || want < 3.403e38) << x[i];
      } else {
        ASSERT_NEAR(y[i], want, 2 * 0x1p-23 * want + 0x1p-149) << x[i];
      }
    }
    for (int64_t i = 0; i < n; ++i) x.set(i, std::exp2(-149 + 276.9 * double(i) / n));
    for (int64_t i = 0; i < 1000; ++i) x.set(i, 1 + double(i - 500) * 0x1p-20);
    unary(Unary::log, DType::f32, {n}, {x.data(), &one}, y.data(), &one);
    for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], std::log(x[i]), 2 * 0x1p-23 * std::abs(std::log(x[i]))) << x[i];
    Buffer edges(DType::f32, 5), out(DType::f32, 5);
    edges.set(0, 0), edges.set(1, -1), edges.set(2, inf), edges.set(3, -inf), edges.set(4, std::nan(""));
    unary(Unary::log, DType::f32, {5}, {edges.data(), &one}, out.data(), &one);
    EXPECT_TRUE(out[0] == -inf && std::isnan(out[1]) && out[2] == inf && std::isnan(out[3]) && std::isnan(out[4]));
    unary(Unary::exp, DType::f32, {5}, {edges.data(), &one}, out.data(), &one);
    EXPECT_TRUE(out[0] == 1 && out[2] == inf && out[3] == 0 && std::isnan(out[4]));
  });
}
}  // namespace
}  // namespace reckon::cpu
