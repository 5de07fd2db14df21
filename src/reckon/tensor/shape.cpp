#include "reckon/tensor/shape.h"

#include <algorithm>

#include "reckon/base/error.h"

namespace reckon {
namespace {
std::string list(std::span<const int64_t> extents) {
  std::string s = "[";
  for (size_t i = 0; i < extents.size(); ++i) s += (i ? ", " : "") + std::to_string(extents[i]);
  return s + "]";
}
}  // namespace

int64_t checked_multiply(int64_t a, int64_t b) {
  int64_t product = 0;
  check_as(Failure::usage, !__builtin_mul_overflow(a, b, &product), "{} times {} is beyond 2^63 - 1, the largest count", a, b);
  return product;
}

int64_t checked_product(std::initializer_list<int64_t> factors) {
  // A factor of 0 anywhere makes 0, whatever the others.
  if (std::find(factors.begin(), factors.end(), 0) != factors.end()) return 0;
  int64_t product = 1;
  for (const int64_t factor : factors) product = checked_multiply(product, factor);
  return product;
}

int64_t checked_sum(std::initializer_list<int64_t> terms) {
  int64_t sum = 0;
  for (const int64_t term : terms)
    check_as(Failure::usage, !__builtin_add_overflow(sum, term, &sum), "a sum of counts is beyond 2^63 - 1, the largest count");
  return sum;
}

Shape::Shape(std::span<const int64_t> extents) {
  check(extents.size() <= size_t(kMaxRank), "a shape has at most {} axes, {} has {}", kMaxRank, list(extents), extents.size());
  rank_ = int(extents.size());
  bool empty = false, overflow = false;
  for (int i = 0; i < rank_; ++i) {
    check(extents[size_t(i)] >= 0, "negative extent in shape {}", list(extents));
    extents_[i] = extents[size_t(i)];
    empty |= extents_[i] == 0;
    overflow |= __builtin_mul_overflow(numel_, std::max<int64_t>(extents_[i], 1), &numel_);
  }
  check_as(Failure::usage, !overflow, "shape {} has more than 2^63 - 1 elements", list(extents));
  if (empty) numel_ = 0;
}

int Shape::resolve(int axis) const {
  check(axis >= -rank_ && axis < rank_, "axis {} is out of range for shape {}", axis, *this);
  return axis < 0 ? axis + rank_ : axis;
}

int64_t Shape::rows() const { return rank_ == 0 ? 1 : without_last().numel(); }

Shape Shape::with(int axis, int64_t extent) const {
  int64_t e[kMaxRank];
  std::copy(begin(), end(), e);
  e[resolve(axis)] = extent;
  return Shape(std::span<const int64_t>(e, size_t(rank_)));
}

Shape Shape::without(int axis) const {
  const int removed = resolve(axis);
  int64_t e[kMaxRank];
  int n = 0;
  for (int i = 0; i < rank_; ++i)
    if (i != removed) e[n++] = extents_[i];
  return Shape(std::span<const int64_t>(e, size_t(n)));
}

Shape Shape::appended(int64_t extent) const {
  int64_t e[kMaxRank + 1];
  std::copy(begin(), end(), e);
  e[rank_] = extent;
  return Shape(std::span<const int64_t>(e, size_t(rank_) + 1));
}

Shape Shape::first(int count) const {
  check(count >= 0 && count <= rank_, "shape {} has no {} leading axes", *this, count);
  return Shape(std::span<const int64_t>(extents_, size_t(count)));
}

bool Shape::operator==(const Shape& other) const { return rank_ == other.rank_ && std::equal(begin(), end(), other.begin()); }

std::string to_string(const Shape& shape) { return list(shape.span()); }
std::string to_string(const TensorSpec& spec) { return to_string(spec.dtype) + to_string(spec.shape); }

Shape broadcast(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  int64_t e[kMaxRank];
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const int64_t ea = ia < 0 ? 1 : a[ia], eb = ib < 0 ? 1 : b[ib];
    check(ea == eb || ea == 1 || eb == 1, "shapes {} and {} do not broadcast: axis {} has extents {} and {}", a, b, i - rank, ea, eb);
    e[i] = ea == 1 ? eb : ea;
  }
  return Shape(std::span<const int64_t>(e, size_t(rank)));
}
}  // namespace reckon
