// ops/einsum_order: which pair of operands is contracted next. It knows labels and extents and nothing of tensors. For this room.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace reckon {

/// Axes of an operand, one bit a label.
using Labels = uint64_t;
inline constexpr int kMaxLabels = 64;
inline constexpr int kMaxExhaustive = 6;

/// Work of one contraction of operands with labels a and b, of which `kept` stay: 2 per multiply-add of a matrix product, 1 per product if
/// nothing is summed. A double, because orders that nobody takes may be astronomic.
double contraction_flops(Labels a, Labels b, Labels kept, const std::vector<int64_t>& extents);

/// The pairs in their order. Operands have the places 0, 1, ...; the result of pair i has place (operands + i). Each label is in `out` or
/// in two operands at least. Fewest FLOPs over all orders for up to kMaxExhaustive operands, else greedily; ties go to smaller intermediate
/// results, then to earlier operands.
std::vector<std::pair<int, int>> contraction_order(const std::vector<Labels>& operands, Labels out, const std::vector<int64_t>& extents);
}  // namespace reckon
