// ops/einsum_contract: one contraction of two labelled values as one matrix product or one product of elements. For this room.
#pragma once
#include "reckon/ops/composition.h"
#include "reckon/ops/einsum_order.h"

namespace reckon {

/// A value of a composition and the label of each of its axes, none of which is named twice or has an extent of 1.
struct Term {
  int value;
  std::vector<int> labels;
  Labels set() const;
};

/// a times b, summed over the labels that are not kept. `wanted` is the order in which the labels are wanted, where one is cheaper than
/// another that is taken; empty: any. Operands are copied only if no order of the axes makes them matrices as they lie.
/// Throws Error if the result has more axes than a tensor.
Term contract(Composition& calls, const Term& a, const Term& b, Labels kept, const std::vector<int>& wanted);
}  // namespace reckon
