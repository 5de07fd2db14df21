// engine/node_extras: what few nodes have. For this room alone.
#pragma once
#include "reckon/engine/hooks.h"
#include "reckon/engine/saved_tensors.h"

namespace reckon {

struct Node::Extras : RefCounted {
  std::vector<std::pair<Hook, void*>> plain_hooks;
  Ref<detail::HookList> before, after;           // of the node
  std::vector<Ref<detail::HookList>> of_output;  // of the results, one an output
  std::vector<Ref<RetainedGradient>> retained;   // likewise
  std::vector<Kept> others;
  std::vector<void*> frames;  // where it was recorded, the innermost call first: see engine/anomaly.h
};
}  // namespace reckon
