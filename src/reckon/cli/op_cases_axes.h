// cli/op_cases_axes: inputs of reductions and the axes that go, for the files of the table.
#pragma once
#include "reckon/cli/op_cases.h"

namespace reckon {

struct ArrangedReduction {
  Arrangement x;
  std::vector<int> axes;  // none: all
  bool keepdim;
};
/// Some thirty, with empty and size-1 axes, eight axes, and sizes around the cuts of kernels.
const std::vector<ArrangedReduction>& arranged_reductions();

/// f(axes), as the public functions want them: a list in the source.
template <class F>
auto with_axes(const std::vector<int>& a, F f) {
  using Axes = std::initializer_list<int>;
  switch (a.size()) {
    case 0:
      return f(Axes{});
    case 1:
      return f(Axes{a[0]});
    case 2:
      return f(Axes{a[0], a[1]});
    default:
      return f(Axes{a[0], a[1], a[2]});
  }
}
}  // namespace reckon
