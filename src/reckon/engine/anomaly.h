// engine/anomaly: while it is on, the backward pass names the operation, module and source line behind the first NaN or infinity.
#pragma once
#include "reckon/engine/context.h"
#include "reckon/engine/node.h"

namespace reckon {

/// In this scope each recorded operation notes where it was called from, and backward() and grad() look at every gradient that a rule
/// makes: the first NaN or infinity is an Error that says which operation's rule made it, in which module, and which line called the
/// operation; its details() are the calls on the way there. The line is that of the caller outside of this library's operations: with its
/// file and number where that was compiled with -g and addr2line is installed, else the function's name. Both passes belong into the scope.
/// Costs a walk of the stack a call and a pass over each gradient; the numbers, the memory and the trace are as without.
class AnomalyMode {
 public:
  explicit AnomalyMode(bool on = true) : restore_(context().anomaly, on) {}

 private:
  detail::Restore<bool> restore_;
};

/// Where an operation was called.
struct CallSite {
  std::string line;                // "model.cpp:42 in Model::forward(...)", or the function alone, or "an unknown place"
  std::vector<std::string> calls;  // all that is known, the innermost first
};
/// Of a node that was recorded under AnomalyMode; "an unknown place" for others.
CallSite call_site(const Node& node);

namespace detail {
/// Return addresses of the calls that led here, the innermost first.
std::vector<void*> stack_frames();
/// Throws Error if one of the tensors holds a NaN or infinity; undefined ones hold none. what: "the gradient of its input".
void check_gradients(const Node& node, const Tensors& gradients, const char* what, bool made_by_rule);
}  // namespace detail
}  // namespace reckon
