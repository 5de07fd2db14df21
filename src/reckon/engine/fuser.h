// engine/fuser: lets element-wise calls wait, so that a connected group of them runs in one pass and what only the group reads needs no
// memory. It observes a step once without data, then follows what it found. It names no operation and no backend.
#pragma once
#include "reckon/engine/context.h"
#include "reckon/engine/fused.h"

namespace reckon {

/// A group that was found, in one place of the step. Bytes are of one run of the step.
struct FusedGroup {
  std::vector<const OpDef*> ops;  // in the order of their calls
  Shape shape;
  uint32_t module = 0;         // of the first call
  int64_t unstored = 0;        // bytes of the blocks that results inside the group do not take
  int64_t traffic_before = 0;  // each call reads its inputs and writes its result
  int64_t traffic_after = 0;   // the group reads each input once and writes each output once
};

/// While a scope of it lives, every call on its device asks it. A call that waits has its result's spec at once, its data when the group
/// runs: before the first call that is not part of it, before anybody touches data from outside, or at the end of the step.
class Fuser final : public PendingCalls {
 public:
  /// What is known of one call of the step.
  struct CallPlan {
    const OpDef* op;
    std::vector<TensorSpec> out;
    int group = -1;      // number of its group; -1: it runs by itself
    bool stored = true;  // its result has memory
  };

  /// Observes a step; everything is stored meanwhile. For a rehearsal or meta only: no group runs.
  explicit Fuser(Device& device) : device_(device), observes_(true) {}
  /// Follows what was found: the same calls, in the same order. The first difference ends the fusion: what waits runs, results that
  /// somebody holds get memory, and from there on each call runs by itself, outside of the allocator's plan.
  Fuser(Device& device, const std::vector<CallPlan>& plan) : device_(device), observes_(false), plan_(plan) {}
  ~Fuser() { device_.set_pending(nullptr); }
  Fuser(const Fuser&) = delete;
  Fuser& operator=(const Fuser&) = delete;

  bool serves(const Device& device) const { return &device == &device_; }
  /// True if the call joins a group, by defer(); false if it runs now. What must run before it, has.
  bool waits(const OpDef& op, const Plan& plan, const Tensors& in);
  /// Its result: with memory, unless only the group will read it.
  Tensor defer(const OpDef& op, const Plan& plan, const Tensors& in, bool is_tracked, Category category);
  void settle() override { flush(); }
  /// The step is over.
  void finish();

  /// Where the step left what was observed; "" if it did not.
  const std::string& difference() const { return difference_; }
  /// What an observation found; groups that save no traffic are dissolved.
  const std::vector<CallPlan>& calls() const { return plan_; }
  const std::vector<FusedGroup>& groups() const { return groups_; }

 private:
  struct Waiting {
    FusedCall call;  // in[k] >= 0: number of an input; < 0: ~ number of a waiting call
    int arity;
    Tensor out;
    size_t number;  // of the call in the step
    Category category;
    uint32_t module;
  };
  int waiting_value(const Tensor& tensor) const;
  bool reads_as_value(const Tensor& tensor, int value) const;
  bool joins(const OpDef& op, const Plan& plan, const Tensors& in) const;
  bool joins_as_sum(const OpDef& op, const Plan& plan, const Tensors& in) const;
  bool passes(const OpDef& op, const Plan& plan, const Tensors& in) const;
  bool observe(const OpDef& op, const Plan& plan, const Tensors& in);
  bool follow(const OpDef& op, const Plan& plan, const Tensors& in);
  int input_number(const Tensor& tensor);
  int dead_input(const OpDef& op, const TensorSpec& out, const Tensors& in, bool is_tracked) const;
  FusedProgram program_of(std::vector<Waiting>& calls, const Tensors& inputs, Tensors& out) const;
  void note_group(const std::vector<Waiting>& calls, const FusedProgram& all);
  void flush();
  void diverge(std::string why);

  Device& device_;
  const bool observes_;
  bool off_ = false;
  std::vector<CallPlan> plan_;
  std::vector<FusedGroup> groups_;
  std::string difference_;
  size_t next_ = 0;  // number of the call to come
  int open_ = -1;    // the group that waits, when following
  // What waits: calls over one shape, and what they read that is not theirs.
  Shape shape_;
  uint32_t sum_axes_ = 0;
  std::vector<Waiting> waiting_;
  Tensors inputs_;
};

class FuserScope {
 public:
  explicit FuserScope(Fuser& fuser) : restore_(context().fuser, &fuser) {}

 private:
  detail::Restore<Fuser*> restore_;
};
}  // namespace reckon
