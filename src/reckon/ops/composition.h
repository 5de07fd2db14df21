// ops/composition: a chain of calls that is known, with the layout of every value, before any of them runs. It knows no notation: what
// named axes become is built with it, so that what a rearrangement says of itself is what it does.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "reckon/engine/op.h"

namespace reckon {

class Composition {
 public:
  /// One call. Views move and compute nothing; a copy is a `contiguous` of its own.
  struct Step {
    const OpDef* row;
    Params params;
    int in[2];  // the values that it takes; -1: none
    int out;
    Flops flops;
    bool is_view() const { return row->traits.view != nullptr; }
  };

  /// Values 0, 1, ... are the inputs; all live on one device.
  explicit Composition(const Tensors& inputs);

  // ---- Building. A value that a row does not take in its layout is made contiguous first, as call() does. Throws Error as call() does.
  int apply(const OpDef& row, int a, const Params& params = {}) { return apply(row, a, -1, params); }
  int apply(const OpDef& row, int a, int b, const Params& params);
  /// The same elements in another shape: a view where the layout allows one, else of a copy. No step if the shape is there already.
  int reshape(int value, const Shape& shape);
  /// Axis i of the result is axes[i]; no step if nothing moves.
  int permute(int value, std::span<const int> axes);
  int expand(int value, const Shape& shape);
  const Layout& layout(int value) const { return values_[size_t(value)].layout; }
  const Shape& shape(int value) const { return layout(value).shape; }
  DType dtype(int value) const { return values_[size_t(value)].dtype; }

  // ---- What it is. The last value that was made, or input 0, is the result.
  const std::vector<Step>& steps() const { return steps_; }
  int result() const { return steps_.empty() ? 0 : steps_.back().out; }
  TensorSpec result_spec() const { return {shape(result()), dtype(result())}; }
  /// True if nothing is copied and nothing computed: the result shares the storage of input 0.
  bool is_view() const;
  /// Bytes written by copies alone, not by what is computed.
  int64_t copied_bytes() const;
  Flops flops() const;
  /// "permute [2, 3] -> [3, 2]: view".
  std::string describe(const Step& step) const;

  /// The calls. Inputs have the specs and the strides of those that it was made for.
  Tensor run(Tensors inputs) const;

 private:
  struct Value {
    Layout layout;
    DType dtype;
  };
  TensorSpec spec(int value) const { return {shape(value), dtype(value)}; }

  Ref<Device> device_;
  size_t inputs_;
  std::vector<Value> values_;
  std::vector<Step> steps_;
};

/// The steps: "permute [2, 3] -> [3, 2]: view; contiguous [3, 2]: copies 24 B"; "nothing to do" if there is none.
std::string to_string(const Composition& composition);
}  // namespace reckon
