// plan/run_plan: what the dry run of a whole training run knows: every allocation, every call, and who holds the peak. Nothing here is
// estimated; time is the business of plan/time_model.
#pragma once
#include "reckon/plan/auto_recompute.h"
#include "reckon/train/trainer.h"

namespace reckon {

/// A part of the dry run, in the order of the run: init, first step, steady step, eval, save. Events [begin, end) of RunPlan::events.
struct RunPart {
  std::string name;
  size_t begin = 0, end = 0;
  int64_t peak_bytes = 0;  // most live bytes at a moment of this part
};

/// Blocks that are live at the peak and have category, module and operation in common.
struct Holder {
  Category category;
  uint32_t module;
  const char* op;
  int64_t bytes = 0;  // of rounded blocks
  int64_t blocks = 0;
};

struct RunPlan {
  Config config;  // with what train.recompute=auto chose, in train.recompute_blocks
  RunReport predicted;
  std::vector<RunPart> parts;
  std::vector<AllocationEvent> events;
  std::vector<MeterRow> work;     // of one steady optimizer step, by phase, module and operation
  std::vector<CallRecord> calls;  // of the same step, one by one
  ArenaPlan arena;
  std::vector<Holder> at_peak;             // largest first; their bytes sum to memory.peak_bytes
  std::string note;                        // why there is no time, one line; "" if there is
  std::optional<AutoRecompute> recompute;  // where train.recompute=auto made this plan
};

/// Runs init, two steps, an evaluation (where the run has one) and, if it saves, a checkpoint on meta. Throws Error (usage) for what
/// cannot be planned. Time is predicted where this machine was measured (reckon bench device). With train.recompute=auto the plan is the
/// fastest that fits the budget, or the smallest if none does.
RunPlan plan_run(const Config& config, Device& meta, bool saves = true);
RunPlan plan_run(const Config& config, Device& meta, bool saves, bool evaluates);

/// Indices of the allocations that are live at the first maximum of live bytes, in their order.
std::vector<size_t> blocks_at_peak(std::span<const AllocationEvent> events);
/// Holders at the first maximum of live bytes over the events, largest first; ties in the order of their first block.
std::vector<Holder> holders_at_peak(std::span<const AllocationEvent> events);

/// Plans the run on `meta`, refuses it (exit 3) if it does not fit, and trains on `device`; both are fresh.
TrainOutcome plan_and_train(const Config& config, Device& device, Device& meta, const TrainOptions& options);
}  // namespace reckon
