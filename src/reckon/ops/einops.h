// ops/einops: operations by named axes, in the notation of einops (Rogozhnikov 2022, ICLR). All are made of the rows of ops.h: planned,
// differentiable any number of times, and a rearrangement that is a view copies nothing.
//
// A pattern that is a literal is read by the compiler: a malformed one does not compile. Others go through runtime(text). Every Error names
// the axis, the pattern and the shape.
#pragma once
#include "reckon/ops/composition.h"
#include "reckon/ops/einops_pattern.h"

namespace reckon {

struct AxisLength {
  std::string name;
  int64_t length;
};
/// Lengths by name: what a pattern is given, and what parse_shape() finds.
class AxisLengths {
 public:
  AxisLengths() = default;
  AxisLengths(std::initializer_list<AxisLength> lengths) : lengths_(lengths) {}
  /// Throws Error if there is none of this name.
  int64_t operator[](std::string_view name) const;
  void add(std::string_view name, int64_t length) { lengths_.push_back({std::string(name), length}); }
  auto begin() const { return lengths_.begin(); }
  auto end() const { return lengths_.end(); }
  size_t size() const { return lengths_.size(); }

 private:
  std::vector<AxisLength> lengths_;
};

using RearrangePattern = Pattern<PatternOf::rearrange>;
using ReducePattern = Pattern<PatternOf::reduce>;
using RepeatPattern = Pattern<PatternOf::repeat>;
using ShapePattern = Pattern<PatternOf::parse_shape>;
using SumPattern = Pattern<PatternOf::einsum>;

enum class Reducer : uint8_t { sum, mean, max, min, prod };
/// x with the axes (ascending) reduced away.
using ReduceFunction = Tensor (*)(const Tensor& x, std::span<const int> axes);

/// Splits, reorders and merges axes: rearrange(x, "b (h w) c -> b c h w", {{"h", 4}}). One length in parentheses may be left out. A copy is
/// made only where axes are merged that do not lie one in the other.
Tensor rearrange(const Tensor& x, RearrangePattern pattern, const AxisLengths& lengths = {});
/// Axes that the right does not name are reduced: reduce(x, "b (h 2) (w 2) c -> b h w c", Reducer::max). Sums and products of whole numbers
/// are i64; they have no mean. The least of bools says whether all are true. 8-bit floats are refused.
Tensor reduce(const Tensor& x, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths = {});
Tensor reduce(const Tensor& x, ReducePattern pattern, ReduceFunction reducer, const AxisLengths& lengths = {});
/// Axes that only the right names are new, and x is repeated along them: repeat(x, "h w -> h (w r)", {{"r", 3}}). Unmerged ones have stride
/// 0.
Tensor repeat(const Tensor& x, RepeatPattern pattern, const AxisLengths& lengths = {});
/// The lengths that a pattern names: parse_shape(x, "b c _ _"). Numbers are compared.
AxisLengths parse_shape(const Tensor& x, ShapePattern pattern);

/// Products of operands, summed over the axes that the output does not name: einsum("b i k, b k j -> b i j", {a, b}), or with a letter an
/// axis: einsum("bik,bkj->bij", {a, b}), where the output may be left out as in NumPy. An axis that an operand names twice is its diagonal.
/// Axes under an ellipsis broadcast, those with a name do not. Contractions are matrix products; for up to 6 operands their order is the
/// one of fewest FLOPs, beyond that the cheapest pair goes first. Operands and result have one dtype, but that a sum of a single operand of
/// whole numbers or bool is i64.
Tensor einsum(SumPattern pattern, const Tensors& operands);

// ---- What they would do, before they do it: each call, whether it is a view, the bytes of each copy, the FLOPs. to_string() prints it.
Composition plan_rearrange(const Tensor& x, RearrangePattern pattern, const AxisLengths& lengths = {});
Composition plan_reduce(const Tensor& x, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths = {});
Composition plan_repeat(const Tensor& x, RepeatPattern pattern, const AxisLengths& lengths = {});
Composition plan_einsum(SumPattern pattern, const Tensors& operands);
}  // namespace reckon
