// Views share their storage; what cannot be a view is refused with the message that people know from elsewhere.
#include <numeric>

#include "reckon/base/philox.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Views : public OnCpu {
 protected:
  Tensor counting(const Shape& shape) {
    Values v(size_t(shape.numel()));
    std::iota(v.begin(), v.end(), 0.0);
    return tensor(shape, v);
  }
};

TEST_F(Views, ShareTheirStorage) {
  const Tensor x = counting({2, 3, 4});
  const int64_t before = live();
  for (const Tensor& v : {view(x, {6, 4}), permute(x, {2, 0, 1}), transpose(x), slice(x, 1, 0, 2), select(x, 0, 1),
                          expand(unsqueeze(x, 0), {5, 2, 3, 4}), unsqueeze(x, 1), reshape(x, {24}), x.detached()})
    EXPECT_TRUE(v.same_storage(x)) << v.shape().rank();
  EXPECT_EQ(live(), before) << "a view takes no memory";
  EXPECT_FALSE(contiguous(transpose(x)).same_storage(x));
  EXPECT_TRUE(contiguous(x).same_storage(x));
}

TEST_F(Views, WritesShowThrough) {
  const Tensor x = counting({2, 3});
  const Tensor t = transpose(x), row = select(x, 0, 1), column = slice(x, 1, 2, 3);
  const uint64_t version = t.version();
  const Values one(6, 1);
  x.write(one.data(), 48);
  EXPECT_THAT(t.to_vector(), ElementsAre(1, 1, 1, 1, 1, 1));
  EXPECT_THAT(row.to_vector(), ElementsAre(1, 1, 1));
  EXPECT_GT(t.version(), version) << "the version belongs to the storage";
  const Values two(3, 2);
  row.write(two.data(), 24);
  EXPECT_THAT(x.to_vector(), ElementsAre(1, 1, 1, 2, 2, 2));
  EXPECT_THAT(column.to_vector(), ElementsAre(1, 2));
  EXPECT_THAT(error_of([&] { column.write(two.data(), 16); }), HasSubstr("contiguous"));
}

TEST_F(Views, InPlaceOperationsRefuseStridedTensors) {
  const Tensor x = counting({2, 3});
  EXPECT_THAT(error_of([&] { fill_uniform_(transpose(x), 1); }), HasSubstr("must be contiguous"));
  EXPECT_THAT(x.to_vector(), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST_F(Views, HaveTheLayoutThatNumPyGives) {
  const Tensor x = counting({2, 3, 4});
  const Tensor s = slice(slice(x, 2, 1, 4, 2), 1, -2, 3);
  EXPECT_EQ(s.shape(), (Shape{2, 2, 2}));
  EXPECT_EQ(s.stride(0), 12);
  EXPECT_EQ(s.stride(1), 4);
  EXPECT_EQ(s.stride(2), 2);
  EXPECT_EQ(s.layout().offset, 5);
  EXPECT_THAT(s.to_vector(), ElementsAre(5, 7, 9, 11, 17, 19, 21, 23));
  EXPECT_EQ(expand(counting({3, 1}), {2, 3, 4}).stride(0), 0);
  EXPECT_EQ(expand(counting({3, 1}), {2, 3, 4}).stride(1), 1);
  EXPECT_EQ(expand(counting({3, 1}), {2, 3, 4}).stride(2), 0);
  EXPECT_TRUE(slice(x, 0, 1, 2).is_contiguous());
  EXPECT_FALSE(slice(x, 1, 0, 2).is_contiguous());
  EXPECT_TRUE(slice(x, 1, 0, 2).layout().inner_contiguous());
  EXPECT_FALSE(transpose(x).layout().inner_contiguous());
  EXPECT_EQ(slice(x, 0, 2, 1).numel(), 0);
}

TEST_F(Views, RefuseWhatStridesDoNotAllow) {
  const Tensor x = counting({2, 3});
  const std::string message = error_of([&] { view(transpose(x), {6}); });
  EXPECT_THAT(message, HasSubstr("view: [3, 2] with strides [1, 3] has no view of shape [6]"));
  EXPECT_THAT(message, HasSubstr("view size is not compatible with input tensor's size and stride"));
  EXPECT_THAT(message, HasSubstr("reshape()"));
  EXPECT_THAT(reshape(transpose(x), {6}).to_vector(), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(error_of([&] { view(x, {5}); }), HasSubstr("does not hold the 6 elements"));
  EXPECT_THAT(error_of([&] { reshape(x, {5}); }), HasSubstr("does not hold the 6 elements"));
  EXPECT_THAT(error_of([&] { expand(x, {2, 4}); }), HasSubstr("do not broadcast"));
  EXPECT_THAT(error_of([&] { expand(x, {3}); }), HasSubstr("does not expand"));
  EXPECT_THAT(error_of([&] { permute(x, {0, 0}); }), HasSubstr("twice"));
  EXPECT_THAT(error_of([&] { permute(x, {0}); }), HasSubstr("axes"));
  EXPECT_THAT(error_of([&] { transpose(x, 0, 2); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { select(x, 0, 2); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { select(x, 0, -3); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { slice(x, 0, 0, 2, 0); }), HasSubstr("step"));
  EXPECT_THAT(error_of([&] { slice(x, 0, 0, 2, -1); }), HasSubstr("step"));
  EXPECT_THAT(error_of([&] { squeeze(x, 0); }), HasSubstr("is not 1"));
  EXPECT_THAT(error_of([&] { unsqueeze(x, 4); }), HasSubstr("out of range"));
}

// ---- reshape of random views: the elements stay, and a view is made exactly if strides for it exist.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  int64_t below(int64_t n) { return int64_t(philox(seed_, 0, count_++)[0] % uint64_t(n)); }

 private:
  uint64_t seed_, count_ = 0;
};

Tensor random_view(Tensor x, Random& random) {
  for (int64_t step = random.below(4); step > 0; --step) {
    const int axis = int(random.below(x.rank()));
    switch (random.below(5)) {
      case 0:
        x = transpose(x, axis, int(random.below(x.rank())));
        break;
      case 1:
        x = slice(x, axis, random.below(2), x.shape()[axis]);
        break;
      case 2:
        x = slice(x, axis, 0, x.shape()[axis], 2);
        break;
      case 3:
        if (x.rank() < 6) x = unsqueeze(x, axis);
        break;
      case 4:
        if (x.shape()[axis] == 1) x = expand(x, x.shape().with(axis, 1 + random.below(3)));
        break;
    }
  }
  return x;
}
// A shape of the same number of elements.
Shape random_split(int64_t numel, Random& random) {
  std::vector<int64_t> e;
  while (e.size() < 5 && numel > 1) {
    std::vector<int64_t> divisors;
    for (int64_t d = 1; d <= numel; ++d)
      if (numel % d == 0) divisors.push_back(d);
    e.push_back(divisors[size_t(random.below(int64_t(divisors.size())))]);
    numel /= e.back();
  }
  e.insert(e.begin() + random.below(int64_t(e.size()) + 1), numel);
  return Shape(std::span<const int64_t>(e));
}
// By trying: the strides of each axis are fixed by the addresses of its first two elements; they must then explain all others.
bool has_strides(const Tensor& x, const Shape& to) {
  Layout layout = x.layout();
  std::vector<int64_t> address;
  int64_t index[kMaxRank] = {};
  for (int64_t n = 0; n < x.numel(); ++n) {
    int64_t at = 0;
    for (int axis = 0; axis < x.rank(); ++axis) at += index[axis] * layout.strides[axis];
    address.push_back(at);
    for (int axis = x.rank() - 1; axis >= 0 && ++index[axis] == x.shape()[axis]; --axis) index[axis] = 0;
  }
  const Layout rows(to);
  for (int64_t n = 0; n < x.numel(); ++n) {
    int64_t at = address[0], rest = n;
    for (int axis = 0; axis < to.rank(); ++axis) {
      const int64_t i = rest / rows.strides[axis];
      rest %= rows.strides[axis];
      if (to[axis] > 1) at += i * (address[size_t(rows.strides[axis])] - address[0]);
    }
    if (at != address[size_t(n)]) return false;
  }
  return true;
}

TEST_F(Views, RandomReshapesKeepTheElementsAndCopyOnlyWhereTheyMust) {
  int views = 0, copies = 0;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Random random(seed);
    const Tensor x = random_view(counting(random_split(std::array{12, 24, 36, 60}[size_t(random.below(4))], random)), random);
    const Shape to = random_split(x.numel(), random);
    if (to.rank() > kMaxRank) continue;
    const Tensor y = reshape(x, to);
    ASSERT_EQ(y.to_vector(), x.to_vector()) << "seed " << seed;
    ASSERT_EQ(y.shape(), to);
    if (x.numel() == 0) continue;
    const bool possible = has_strides(x, to);
    ASSERT_EQ(y.same_storage(x), possible) << "seed " << seed << ": " << to_string(x.shape()) << " to " << to_string(to);
    ASSERT_EQ(error_of([&] { view(x, to); }).empty(), possible) << "seed " << seed;
    ++(possible ? views : copies);
  }
  EXPECT_GT(views, 500);
  EXPECT_GT(copies, 200);
}

TEST_F(Views, AViewOfAReleasedTensorKeepsTheStorage) {
  Tensor x = counting({4});
  const Tensor tail = slice(x, 0, 2, 4);
  x = Tensor();
  const Tensor other = full(*device_, {{4}, DType::f64}, 9);
  EXPECT_THAT(tail.to_vector(), ElementsAre(2, 3));
}
}  // namespace
}  // namespace reckon
