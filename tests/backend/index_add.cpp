// Slices added by index against the loop over the indices, to the bit.
#include "reckon/backend/cpu/index_add.h"

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Case {
  Shape shape;
  int axis;
  int64_t length;
  bool one_target = false;  // all indices name the same slice
};

int64_t drawn(const Case& c, int64_t j) {
  const int64_t extent = c.shape[c.axis];
  if (c.one_target) return extent / 2;
  const uint32_t draw = philox(5, 0, uint64_t(j))[0];
  return j % 13 == 7 ? (j % 2 ? -1 : extent) : int64_t(draw % uint64_t(std::max<int64_t>(extent, 1)));
}

// The sum of two elements as the kernel rounds it.
double plus(DType dtype, double a, double b) {
  switch (dtype) {
    case DType::f64:
      return a + b;
    case DType::i32:
      return int32_t(uint32_t(int64_t(a)) + uint32_t(int64_t(b)));
    case DType::i64:
      return double(int64_t(a) + int64_t(b));
    case DType::u8:
      return uint8_t(int64_t(a) + int64_t(b));
    default:
      return float(a) + float(b);
  }
}

void expect_sums(DType dtype, const Case& c, bool wide, bool strided, bool in_place) {
  const Shape from = c.shape.with(c.axis, c.length);
  const int64_t outer = [&] {
    int64_t n = 1;
    for (int i = 0; i < c.axis; ++i) n *= c.shape[i];
    return n;
  }();
  const int64_t extent = c.shape[c.axis], inner = extent == 0 || outer == 0 ? 0 : c.shape.numel() / extent / outer;
  const int64_t step = strided ? 2 : 1;
  const Buffer x = uniform(dtype, c.shape.numel() * step, 1, 0, 100), src = uniform(dtype, from.numel() * step, 2, 0, 100);
  int64_t x_strides[kMaxRank], src_strides[kMaxRank], index_strides[kMaxRank] = {};
  dense_strides(c.shape, x_strides);
  dense_strides(from, src_strides);
  for (int i = 0; i < c.shape.rank(); ++i) x_strides[i] *= step, src_strides[i] *= step;
  index_strides[c.axis] = step;
  Buffer index(wide ? DType::i64 : DType::i32, c.length * step, -77);
  for (int64_t j = 0; j < c.length; ++j) index.set(j * step, double(drawn(c, j)));
  std::vector<double> want;
  for (int64_t i = 0; i < c.shape.numel(); ++i) want.push_back(x[i * step]);
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t j = 0; j < c.length; ++j)
      if (const int64_t id = drawn(c, j); id >= 0 && id < extent)
        for (int64_t i = 0; i < inner; ++i) {
          double& to = want[size_t((o * extent + id) * inner + i)];
          to = plus(dtype, to, src[((o * c.length + j) * inner + i) * step]);
        }
  Buffer y(dtype, c.shape.numel());
  if (in_place) y = x;
  IndexAdd args{dtype,
                c.shape,
                c.axis,
                c.length,
                {in_place ? y.data() : x.data(), x_strides},
                {src.data(), src_strides},
                {{index.data(), index_strides}, wide}};
  args.y = y.data();
  std::vector<int64_t> workspace(size_t(index_add_workspace(extent, c.length) / 8));
  index_add(args, workspace.data());
  Buffer expected(dtype, c.shape.numel());
  for (size_t i = 0; i < want.size(); ++i) expected.set(int64_t(i), want[i]);
  ASSERT_TRUE(y.same_bytes(expected)) << name_of(dtype) << to_string(c.shape) << " axis " << c.axis << " by " << c.length
                                      << (wide ? " wide" : "") << (strided ? " strided" : "") << (in_place ? " in place" : "");
}

const Case kCases[] = {{{1, 1}, 0, 1},      {{5, 3}, 0, 0},           {{0, 3}, 0, 4},      {{4, 0}, 0, 4},       {{7, 33}, 0, 50},
                       {{3, 1500}, 0, 7},   {{200, 65}, 0, 90},       {{2, 9, 40}, 1, 30}, {{3, 4, 2, 5}, 1, 9}, {{3, 4, 2, 5}, 2, 9},
                       {{2, 3, 700}, 0, 5}, {{6, 1300}, 0, 40, true}, {{1, 20, 1}, 1, 60}, {{300, 17}, 0, 300}};

TEST(RowsIndexAdd, IsTheLoopOverTheIndices) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8})
      for (const Case& c : kCases) {
        expect_sums(dtype, c, false, false, false);
        expect_sums(dtype, c, true, true, false);
        expect_sums(dtype, c, true, false, true);
      }
  });
}

TEST(RowsIndexAdd, IsTheSameOnAnyThreads) {
  for (const Case& c : {Case{{200, 300}, 0, 500}, Case{{2, 4000}, 0, 50, true}}) {
    const Buffer x = uniform(DType::bf16, c.shape.numel(), 1), src = uniform(DType::bf16, c.shape.with(0, c.length).numel(), 2);
    Buffer index(DType::i32, c.length);
    for (int64_t j = 0; j < c.length; ++j) index.set(j, double(drawn(c, j)));
    expect_same_on_any_threads([&] {
      Buffer y(DType::bf16, c.shape.numel());
      const int64_t strides[] = {c.shape[1], 1}, along[] = {1, 0};
      IndexAdd args{DType::bf16, c.shape, 0, c.length, {x.data(), strides}, {src.data(), strides}, {{index.data(), along}, false}};
      args.y = y.data();
      std::vector<int64_t> workspace(size_t(index_add_workspace(c.shape[0], c.length) / 8));
      index_add(args, workspace.data());
      return std::vector<Buffer>{y};
    });
  }
}
}  // namespace
}  // namespace reckon::cpu
