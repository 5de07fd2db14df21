// tensor/shape: extents of up to eight axes, without heap memory.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "reckon/tensor/dtype.h"

namespace reckon {

inline constexpr int kMaxRank = 8;

/// Extents, outermost first. Every extent is >= 0 and the number of elements fits in 63 bits.
class Shape {
 public:
  Shape() = default;
  /// Throws Error for more than 8 axes, a negative extent, or (usage) more than 2^63 - 1 elements.
  Shape(std::initializer_list<int64_t> extents) : Shape(std::span<const int64_t>(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const int64_t> extents);

  int rank() const { return rank_; }
  /// Axis may be negative: -1 is the last.
  int64_t operator[](int axis) const { return extents_[resolve(axis)]; }
  int64_t last() const { return (*this)[-1]; }
  int64_t numel() const { return numel_; }
  /// Product of all extents but the last: the number of rows of a row-wise operation.
  int64_t rows() const;
  const int64_t* begin() const { return extents_; }
  const int64_t* end() const { return extents_ + rank_; }
  std::span<const int64_t> span() const { return {extents_, size_t(rank_)}; }

  Shape with(int axis, int64_t extent) const;  // one extent replaced
  Shape without(int axis) const;               // one axis removed
  Shape without_last() const { return without(-1); }
  Shape appended(int64_t extent) const;
  Shape first(int count) const;  // the leading axes
  /// The axis counted from the front; throws Error if it is out of range.
  int resolve(int axis) const;
  bool operator==(const Shape& other) const;

 private:
  int64_t extents_[kMaxRank] = {};
  int64_t numel_ = 1;
  int rank_ = 0;
};

/// "[2, 3]"; "[]" for a scalar.
std::string to_string(const Shape& shape);
/// NumPy's rule: axes align at the end; extents are equal or one of them is 1. Throws Error naming both shapes.
Shape broadcast(const Shape& a, const Shape& b);
/// Counts of elements, bytes and operations: products and sums that throw Error (usage) instead of passing 2^63 - 1. Terms are >= 0.
int64_t checked_multiply(int64_t a, int64_t b);
int64_t checked_product(std::initializer_list<int64_t> factors);
int64_t checked_sum(std::initializer_list<int64_t> terms);

/// What a shape rule may see of a tensor.
struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  int64_t numel() const { return shape.numel(); }
  int64_t bytes() const { return checked_multiply(shape.numel(), size_of(dtype)); }
  bool operator==(const TensorSpec&) const = default;
};
/// "f32[2, 3]".
std::string to_string(const TensorSpec& spec);
}  // namespace reckon
