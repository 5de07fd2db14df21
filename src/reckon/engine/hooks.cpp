#include "reckon/engine/hooks.h"

#include <algorithm>

#include "reckon/engine/node_extras.h"

namespace reckon {

// A hook may remove itself or others while the list runs.
void detail::HookList::run(const Node* node, Tensors& gradients) const {
  const auto now = hooks;
  for (const auto& [id, hook] : now) hook->run(node, gradients);
}

detail::LeafHooks::~LeafHooks() {
  for (const Ref<HookList>& list : {gradient, accumulated})
    if (list) list->leaf = nullptr;
}

// A leaf whose last hook went is as one that never had any: rules write its slot again.
void HookHandle::remove() {
  const Ref<detail::HookList> list = std::move(list_);
  if (!list) return;
  std::erase_if(list->hooks, [&](const auto& entry) { return entry.first == id_; });
  const detail::LeafHooks* leaf = list->leaf;
  if (!leaf || (leaf->gradient && !leaf->gradient->hooks.empty()) || (leaf->accumulated && !leaf->accumulated->hooks.empty())) return;
  leaf->state.hooks = {};
}

namespace {
HookHandle append(Ref<detail::HookList>& list, Ref<detail::Hook> hook, detail::LeafHooks* leaf = nullptr) {
  if (!list) list = Ref<detail::HookList>(new detail::HookList);
  list->leaf = leaf;
  const uint64_t id = list->added++;
  list->hooks.emplace_back(id, std::move(hook));
  return HookHandle(list, id);
}
detail::LeafHooks& hooks_of(const Tensor& leaf) {
  if (!leaf.state().hooks) leaf.state().hooks = Ref<RefCounted>(new detail::LeafHooks(leaf.state()));
  return static_cast<detail::LeafHooks&>(*leaf.state().hooks);
}
}  // namespace

HookHandle detail::add_tensor_hook(const Tensor& tensor, Ref<Hook> hook) {
  check(tensor.requires_grad(), "register_hook: {} does not require a gradient", tensor);
  Node* node = node_of(tensor);
  if (!node) {
    detail::LeafHooks& leaf = hooks_of(tensor);
    return append(leaf.gradient, std::move(hook), &leaf);
  }
  auto& lists = node->extras().of_output;
  lists.resize(node->out_specs().size());
  return append(lists[size_t(tensor.state().output_index)], std::move(hook));
}

HookHandle detail::add_accumulated_hook(const Tensor& leaf, Ref<Hook> hook) {
  check(leaf.requires_grad() && leaf.is_leaf(), "register_post_accumulate_grad_hook: {} is not a leaf that requires a gradient", leaf);
  LeafHooks& hooks = hooks_of(leaf);
  return append(hooks.accumulated, std::move(hook), &hooks);
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
