#include "reckon/engine/hooks.h"

#include <algorithm>

#include "reckon/engine/node_extras.h"

namespace reckon {

// A hook may remove itself or others while the list runs.
void detail::HookList::run(const Node* node, Tensors& gradients) const {
  const auto now = hooks;
  for (const auto& [id, hook] : now) hook->run(node, gradients);
}

void HookHandle::remove() {
  if (list_) std::erase_if(list_->hooks, [&](const auto& entry) { return entry.first == id_; });
  list_ = {};
}

namespace {
HookHandle append(Ref<detail::HookList>& list, Ref<detail::Hook> hook) {
  if (!list) list = Ref<detail::HookList>(new detail::HookList);
  const uint64_t id = list->added++;
  list->hooks.emplace_back(id, std::move(hook));
  return HookHandle(list, id);
}
detail::LeafHooks& hooks_of(const Tensor& leaf) {
  if (!leaf.state().hooks) leaf.state().hooks = Ref<RefCounted>(new detail::LeafHooks);
  return static_cast<detail::LeafHooks&>(*leaf.state().hooks);
}
}  // namespace

HookHandle detail::add_tensor_hook(const Tensor& tensor, Ref<Hook> hook) {
  check(tensor.requires_grad(), "register_hook: {} does not require a gradient", tensor);
  Node* node = node_of(tensor);
  if (!node) return append(hooks_of(tensor).gradient, std::move(hook));
  auto& lists = node->extras().of_output;
  lists.resize(node->out_specs().size());
  return append(lists[size_t(tensor.state().output_index)], std::move(hook));
}

HookHandle detail::add_accumulated_hook(const Tensor& leaf, Ref<Hook> hook) {
  check(leaf.requires_grad() && leaf.is_leaf(), "register_post_accumulate_grad_hook: {} is not a leaf that requires a gradient", leaf);
  return append(hooks_of(leaf).accumulated, std::move(hook));
}

HookHandle detail::add_node_hook(Node& node, Moment moment, Ref<Hook> hook) {
  Node::Extras& extras = node.extras();
  return append(moment == Moment::before ? extras.before : extras.after, std::move(hook));
}

void retain_grad(const Tensor& tensor) {
  check(tensor.requires_grad(), "retain_grad: {} does not require a gradient", tensor);
  Node* node = node_of(tensor);
  if (!node || tensor.state().retained) return;
  auto& places = node->extras().retained;
  places.resize(node->out_specs().size());
  Ref<RetainedGradient>& place = places[size_t(tensor.state().output_index)];
  if (!place) place = Ref<RetainedGradient>(new RetainedGradient);
  tensor.state().retained = place;
}
}  // namespace reckon
