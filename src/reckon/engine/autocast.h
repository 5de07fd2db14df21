// engine/autocast: inside a scope each operation computes in the float that suits it, by the policy of its row. It names no operation but
// cast.
#pragma once
#include "reckon/engine/context.h"
#include "reckon/engine/op.h"

namespace reckon {

/// Inside, call() casts what operations are given by AutocastPolicy: products run in `low`, what is sensitive to rounding in f32. The casts
/// are operations like others: they are in the trace, in the plan and in the graph, so gradients of f32 parameters arrive in f32.
/// A leaf that requires a gradient is cast once; the outermost scope keeps the result, as long as nobody writes the leaf. Scopes nest, and
/// hold for their thread. Backward runs outside: in the types that forward chose. docs/autocast.md has the table of operations.
class Autocast {
 public:
  /// low: bf16 or f16, else Error (usage). Without `on` nothing is cast inside.
  explicit Autocast(DType low, bool on = true);
  /// `const Autocast off;`: nothing is cast inside.
  Autocast() : Autocast(DType::bf16, false) {}

 private:
  Ref<RefCounted> made_;  // the casts that an outermost scope keeps; let go after the context is put back
  detail::Restore<DType> low_;
  detail::Restore<detail::AutocastCache*> casts_;
};
inline bool is_autocast_enabled() { return context().autocast != DType::f32; }

/// For functions of several operations that have one policy together: x as an operation of that policy is given it; x itself outside.
Tensor autocast_input(AutocastPolicy policy, const Tensor& x);

namespace detail {
/// Inputs of a call as the row's policy wants them.
void autocast_inputs(const OpDef& op, Tensors& in);

/// A part of a program that makes the same calls whatever was cast before it: a step, a checkpointed segment. Casts from outside are not
/// seen, and those made inside end with it.
class OwnCasts {
 public:
  /// results: those of its leaves that stand for results of operations, which are cast wherever they are used.
  explicit OwnCasts(Tensors results = {});

 private:
  Ref<RefCounted> made_;
  Restore<AutocastCache*> casts_;
};

/// Casts to `low`, by default none at all, and keeps no casts.
class UncachedAutocast {
 public:
  explicit UncachedAutocast(DType low = DType::f32) : low_(context().autocast, low), casts_(context().casts, nullptr) {}

 private:
  Restore<DType> low_;
  Restore<AutocastCache*> casts_;
};
}  // namespace detail
}  // namespace reckon
