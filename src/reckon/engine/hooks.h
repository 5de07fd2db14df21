// engine/hooks: what a user is told of gradients while backward runs: of one tensor, of one node, of a leaf when its gradient is there.
#pragma once
#include "reckon/engine/node.h"

namespace reckon {
namespace detail {
struct Hook : RefCounted {
  virtual void run(const Node* node, Tensors& gradients) = 0;
};
struct LeafHooks;
struct HookList : RefCounted {
  LeafHooks* leaf = nullptr;  // that it belongs to, while that lives
  std::vector<std::pair<uint64_t, Ref<Hook>>> hooks;
  uint64_t added = 0;
  void run(const Node* node, Tensors& gradients) const;
};
struct LeafHooks : RefCounted {
  explicit LeafHooks(TensorState& tensor) : state(tensor) {}
  ~LeafHooks() override;
  TensorState& state;  // holds this
  Ref<HookList> gradient, accumulated;
};
}  // namespace detail

/// Takes a hook away again. To let go of the handle does not: a hook lives as long as its tensor or node.
class HookHandle {
 public:
  HookHandle() = default;
  explicit HookHandle(Ref<detail::HookList> list, uint64_t id) : list_(std::move(list)), id_(id) {}
  void remove();

 private:
  Ref<detail::HookList> list_;
  uint64_t id_ = 0;
};

namespace detail {
HookHandle add_tensor_hook(const Tensor& tensor, Ref<Hook> hook);
HookHandle add_accumulated_hook(const Tensor& leaf, Ref<Hook> hook);
enum class Moment : uint8_t { before, after };
HookHandle add_node_hook(Node& node, Moment moment, Ref<Hook> hook);

template <class F>
struct TensorHook final : Hook {
  F function;
  explicit TensorHook(F f) : function(std::move(f)) {}
  void run(const Node*, Tensors& gradients) override {
    if constexpr (std::is_void_v<std::invoke_result_t<F&, const Tensor&>>) {
      function(gradients[0]);
    } else {
      Tensor replaced = function(gradients[0]);
      if (replaced.defined()) gradients[0] = std::move(replaced);
    }
  }
};
template <class F>
struct NodeHook final : Hook {
  F function;
  explicit NodeHook(F f) : function(std::move(f)) {}
  void run(const Node* node, Tensors& gradients) override { function(*node, gradients); }
};
}  // namespace detail

/// f(gradient) is called with the whole gradient of this tensor, in each backward() and grad() that reaches it. It returns what takes its
/// place, of the same shape and dtype, or an undefined tensor, or nothing. A leaf's hook is called when the pass has its whole gradient,
/// before that is accumulated; where the leaf has a slot, in the slot's dtype. f must not hold the tensor itself: that would be a cycle.
/// Throws Error if it requires no gradient.
template <class F>
HookHandle register_hook(const Tensor& tensor, F f) {
  return detail::add_tensor_hook(tensor, Ref<detail::Hook>(new detail::TensorHook<F>(std::move(f))));
}
/// f(leaf) is called at the end of each backward() that changed the leaf's grad. Throws Error if it is not a leaf that requires one.
template <class F>
HookHandle register_post_accumulate_grad_hook(const Tensor& leaf, F f) {
  return detail::add_accumulated_hook(leaf, Ref<detail::Hook>(new detail::TensorHook<F>(std::move(f))));
}
/// f(node, dy) before the node's rule runs, with the gradients of its outputs (undefined for those that carry none); it may replace them.
template <class F>
HookHandle register_prehook(Node& node, F f) {
  return detail::add_node_hook(node, detail::Moment::before, Ref<detail::Hook>(new detail::NodeHook<F>(std::move(f))));
}
/// f(node, dx) after it, with the gradients of its inputs (undefined: not needed, or in its slot); it may replace them by others
/// of the same shape and dtype, and take none away.
template <class F>
HookHandle register_posthook(Node& node, F f) {
  return detail::add_node_hook(node, detail::Moment::after, Ref<detail::Hook>(new detail::NodeHook<F>(std::move(f))));
}

/// The gradient of a result is kept as its grad(), as that of a leaf is; backward() adds to it. It is nobody else's memory, and a constant
/// under create_graph too (grad() gives one that can be differentiated). Does nothing for a leaf. Throws Error if the tensor requires no
/// gradient.
void retain_grad(const Tensor& tensor);
}  // namespace reckon
