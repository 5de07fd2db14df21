// engine/context: the only ambient state of a thread: grad mode, module path, phase, meter, autocast. Scopes set it and put it back.
#pragma once
#include <string>
#include <string_view>

#include "reckon/memory/allocator.h"
#include "reckon/tensor/dtype.h"

namespace reckon {

class Device;
class Fuser;
class Meter;
namespace detail {
struct AutocastCache;
struct SavedTensorPacker;
}

struct Context {
  bool grad_enabled = true;
  bool marking = false;        // inside a checkpoint's first pass: results say if they require a gradient, but nothing is recorded
  bool recomputing = false;    // inside a checkpoint's second forward pass, or where a result is computed again
  bool remade = false;         // inside Recomputed
  int64_t segment_begin = -1;  // inside a checkpointed segment: the number of its first block; what is older may not be written
  bool finite_check = false;   // every kernel's outputs are searched for NaN and infinity; the first finding throws
  bool anomaly = false;        // nodes note where they were called from, and backward looks for NaN and infinity: see engine/anomaly.h
  bool has_category = false;   // category below overrides the default
  Category category = Category::activation;
  Phase phase = Phase::init;
  uint32_t module = 0;             // id of the current module path; 0 is the root ""
  Meter* meter = nullptr;
  detail::SavedTensorPacker* packer = nullptr;  // what nodes keep passes through it: see engine/saved_tensors.h
  Fuser* fuser = nullptr;          // inside a compiled step, see engine/compile.h
  DType autocast = DType::f32;     // the 16-bit float of an Autocast scope; f32: none, see engine/autocast.h
  detail::AutocastCache* casts = nullptr;  // what the outermost of these scopes keeps
};
Context& context();

/// The dotted path of a module id ("blocks.3.attn"). Ids are handed out in the order of first use and are the same in every thread.
std::string module_path(uint32_t id);
uint32_t module_id(std::string_view path);

namespace detail {
// Restores one field of the context when it leaves the scope.
template <class T>
class Restore {
 public:
  Restore(T& field, T value) : field_(field), old_(field) { field_ = value; }
  ~Restore() { field_ = old_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& field_;
  T old_;
};
}  // namespace detail

/// No graph is recorded.
class NoGrad {
  detail::Restore<bool> restore_{context().grad_enabled, false}, marking_{context().marking, false};
};
class EnableGrad {
  detail::Restore<bool> restore_{context().grad_enabled, true}, marking_{context().marking, false};
};
inline bool is_grad_enabled() { return context().grad_enabled; }
/// What recorded operations make in this scope is not kept for backward: the first who needs it there has it computed again, from what the
/// operation was given, and the last one lets it go. Same bits; the work counts as recomputed. For what is cheap to compute from what is
/// kept anyway: norms, activations. Saves nothing where a view of the result is kept that was made outside of the scope.
class Recomputed {
 public:
  explicit Recomputed(bool on = true) : restore_(context().remade, on || context().remade) {}

 private:
  detail::Restore<bool> restore_;
};
class FiniteCheck {
  detail::Restore<bool> restore_{context().finite_check, true};
};
/// Everything allocated inside belongs to this category.
class CategoryScope {
 public:
  explicit CategoryScope(Category category) : has_(context().has_category, true), category_(context().category, category) {}

 private:
  detail::Restore<bool> has_;
  detail::Restore<Category> category_;
};
/// Appends a name to the module path.
class ModuleScope {
 public:
  explicit ModuleScope(std::string_view name);
  /// Continues at a path met before (backward).
  explicit ModuleScope(uint32_t id) : restore_(context().module, id) {}

 private:
  detail::Restore<uint32_t> restore_;
};
/// The phase of the context and of the device's allocator.
class PhaseScope {
 public:
  PhaseScope(Device& device, Phase phase);
  ~PhaseScope();
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Device& device_;
  Phase old_;
};
class MeterScope {
 public:
  explicit MeterScope(Meter& meter) : restore_(context().meter, &meter) {}

 private:
  detail::Restore<Meter*> restore_;
};
}  // namespace reckon
