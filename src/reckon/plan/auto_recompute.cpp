#include "reckon/plan/auto_recompute.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/plan/run_plan.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
constexpr int64_t kMaxAutoLayers = 1024;  // half a million compositions
constexpr BlockRecompute kModes[] = {BlockRecompute::none, BlockRecompute::selective, BlockRecompute::full};

// ---- what a dry run says of its blocks
// "blocks.12.attn" -> 12; -1: outside of the blocks.
class BlockOf {
 public:
  int64_t operator()(uint32_t module) {
    if (module >= known_.size()) known_.resize(module + 1, -2);
    if (known_[module] == -2) known_[module] = parse(module_path(module));
    return known_[module];
  }

 private:
  static int64_t parse(std::string_view path) {
    constexpr std::string_view kPrefix = "blocks.";
    int64_t index = -1;
    if (path.starts_with(kPrefix)) std::from_chars(path.data() + kPrefix.size(), path.data() + path.size(), index);
    return index;
  }
  std::vector<int64_t> known_;
};

struct Measured {
  int64_t kept = 0, gradient = 0, peak = 0, head = 0, other = 0;
};

// Calls visit(event, live bytes after it, its block or -1, steps through the blocks have begun in this pass) for allocations of the steps.
template <class Visit>
void visit_steps(const RunPlan& plan, Visit visit) {
  BlockOf block_of;
  int64_t live = 0;
  for (const RunPart& part : plan.parts) {
    const bool is_step = part.name.ends_with("step");
    Phase pass = Phase::init;
    bool began = false;
    for (size_t i = part.begin; i < part.end; ++i) {
      const AllocationEvent& e = plan.events[i];
      live += e.is_alloc ? e.bytes : -e.bytes;
      if (!is_step || !e.is_alloc) continue;
      if (e.phase != pass) began = false;
      pass = e.phase;
      const int64_t block = pass == Phase::forward || pass == Phase::backward ? block_of(e.module) : -1;
      began |= block >= 0;
      visit(e, live, block, began);
    }
  }
}

// Bytes that stay of a block when the next begins; all blocks of the plan have the same mode.
int64_t kept_of(const RunPlan& plan) {
  std::vector<int64_t> begin;  // live bytes when block i begins, then when the head does; of the first forward pass
  const size_t layers = size_t(plan.config.model.layers);
  visit_steps(plan, [&](const AllocationEvent& e, int64_t live, int64_t block, bool began) {
    const bool next = block >= 0 ? size_t(block) == begin.size() : begin.size() == layers;
    if (e.phase == Phase::forward && began && next && begin.size() <= layers) begin.push_back(live - e.bytes);
  });
  RECKON_ASSERT(begin.size() == layers + 1);
  int64_t most = 0;
  for (size_t i = 0; i < layers; ++i) most = std::max(most, begin[i + 1] - begin[i]);
  return most;
}

// Bytes that a block's gradients add in the backward pass. With several micro-batches they are all there in the second.
int64_t gradient_of(const RunPlan& plan) {
  if (plan.config.train.grad_accum > 1) return 0;
  std::vector<int64_t> bytes(size_t(plan.config.model.layers), 0);
  int64_t steps = 0;
  for (const RunPart& part : plan.parts) steps += part.name.ends_with("step");
  visit_steps(plan, [&](const AllocationEvent& e, int64_t, int64_t block, bool) {
    if (block >= 0 && e.category == Category::gradient) bytes[size_t(block)] += e.bytes;
  });
  return *std::min_element(bytes.begin(), bytes.end()) / std::max<int64_t>(steps, 1);
}

Measured measure(const RunPlan& plan) {
  Measured m;
  m.kept = kept_of(plan);
  m.gradient = gradient_of(plan);
  const int64_t layers = plan.config.model.layers;
  for (const RunPart& part : plan.parts)
    if (!part.name.ends_with("step")) m.other = std::max(m.other, part.peak_bytes);
  visit_steps(plan, [&](const AllocationEvent& e, int64_t live, int64_t block, bool began) {
    if (block >= 0) {
      const int64_t behind = e.phase == Phase::backward ? (layers - 1 - block) * m.gradient : 0;
      m.peak = std::max(m.peak, live - block * m.kept - behind);
    } else if (e.phase == (began ? Phase::forward : Phase::backward)) {
      m.head = std::max(m.head, live - layers * m.kept);
    } else {
      m.other = std::max(m.other, live);
    }
  });
  return m;
}

double recomputed_flops(const RunPlan& plan) {
  double sum = 0;
  for (const MeterRow& row : plan.work)
    if (row.recomputed) sum += double(row.flops.matmul) + double(row.flops.vector);
  return sum;
}

// The dry runs of all blocks in one mode. Neither memory nor a micro-batch's work depends on how many follow the second.
class Uniform {
 public:
  Uniform(const Config& config, const Device& meta, bool saves, bool evaluates) {
    Config probe = config;
    probe.train.grad_accum = std::min<int64_t>(config.train.grad_accum, 2);
    micro_batches_ = double(config.train.grad_accum) / double(probe.train.grad_accum);
    for (const BlockRecompute mode : kModes) {
      probe.train.recompute_blocks = to_string(RecomputePolicy(size_t(config.model.layers), {mode, 1}));
      plans_.push_back(plan_run(probe, *meta.open_meta(), saves, evaluates));
    }
  }
  bool in_seconds() const {
    return std::all_of(plans_.begin(), plans_.end(), [](const RunPlan& p) { return p.predicted.step_seconds.has_value(); });
  }
  // Seconds or FLOPs of a step without recomputation.
  double base() const {
    const RunReport& none = plans_[0].predicted;
    return micro_batches_ * (in_seconds() ? *none.step_seconds : double(none.flops_per_step->matmul) + double(none.flops_per_step->vector));
  }
  BlockModel model() const {
    BlockModel model;
    model.layers = plans_[0].config.model.layers;
    for (size_t i = 0; i < plans_.size(); ++i) {
      const Measured m = measure(plans_[i]);
      model.other_bytes = std::max(model.other_bytes, m.other);
      model.head_bytes = std::max(model.head_bytes, m.head);
      model.gradient_bytes = m.gradient;
      const double more =
          in_seconds() ? *plans_[i].predicted.step_seconds - *plans_[0].predicted.step_seconds : recomputed_flops(plans_[i]);
      model.modes.push_back({kModes[i], m.kept, m.peak, std::max(0.0, more * micro_batches_ / double(model.layers))});
    }
    return model;
  }

 private:
  double micro_batches_ = 1;  // of the run, for each of a dry run's
  std::vector<RunPlan> plans_;
};

// ---- compositions
using Counts = std::array<int64_t, 3>;

// From block to block of a mode live bytes grow, or fall: its last one or its first one has the peak.
int64_t peak_of(const BlockModel& model, const std::vector<size_t>& order, const Counts& counts) {
  int64_t peak = model.other_bytes, kept = 0, gradients = model.layers * model.gradient_bytes;  // of this block and those behind it
  for (const size_t mode : order) {
    if (counts[mode] == 0) continue;
    const BlockCost& m = model.modes[mode];
    const int64_t first = kept + gradients, more = (counts[mode] - 1) * (m.kept_bytes - model.gradient_bytes);
    peak = std::max(peak, first + std::max<int64_t>(more, 0) + m.peak_bytes - model.gradient_bytes);
    kept += counts[mode] * m.kept_bytes;
    gradients -= counts[mode] * model.gradient_bytes;
  }
  return std::max(peak, kept + model.head_bytes);
}

double cost_of_counts(const BlockModel& model, const Counts& counts) {
  double cost = 0;
  for (size_t mode = 0; mode < counts.size(); ++mode) cost += double(counts[mode]) * model.modes[mode].cost;
  return cost;
}

std::vector<Composition> compositions(const BlockModel& model, int64_t budget) {
  const std::vector<size_t> order = best_order(model);
  std::vector<Composition> found;
  for (int64_t a = 0; a <= model.layers; ++a)
    for (int64_t b = 0; a + b <= model.layers; ++b) {
      const Counts counts = {a, b, model.layers - a - b};
      const int64_t peak = peak_of(model, order, counts);
      if (peak <= budget) found.push_back({counts, peak, cost_of_counts(model, counts)});
    }
  return found;
}
}  // namespace

int64_t peak_bytes(const BlockModel& model, std::span<const size_t> blocks) {
  int64_t peak = model.other_bytes, kept = 0, gradients = (model.layers - 1) * model.gradient_bytes;
  for (const size_t mode : blocks) {
    peak = std::max(peak, kept + model.modes[mode].peak_bytes + gradients);
    kept += model.modes[mode].kept_bytes;
    gradients -= model.gradient_bytes;
  }
  return std::max(peak, kept + model.head_bytes);
}

double cost_of(const BlockModel& model, std::span<const size_t> blocks) {
  Counts counts{};
  for (const size_t mode : blocks) ++counts[mode];
  return cost_of_counts(model, counts);
}

std::vector<size_t> best_order(const BlockModel& model) {
  std::vector<size_t> order(model.modes.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const BlockCost &x = model.modes[a], &y = model.modes[b];
    const bool x_shrinks = x.kept_bytes < model.gradient_bytes, y_shrinks = y.kept_bytes < model.gradient_bytes;
    if (x_shrinks != y_shrinks) return x_shrinks;
    return x_shrinks ? x.peak_bytes < y.peak_bytes : x.peak_bytes - x.kept_bytes > y.peak_bytes - y.kept_bytes;
  });
  return order;
}

std::vector<size_t> blocks_of(const BlockModel& model, const Composition& composition) {
  std::vector<size_t> blocks;
  for (const size_t mode : best_order(model)) blocks.insert(blocks.end(), size_t(composition.counts[mode]), mode);
  return blocks;
}

std::vector<Composition> compositions_within(const BlockModel& model, int64_t budget) {
  std::vector<Composition> found = compositions(model, budget);
  std::stable_sort(found.begin(), found.end(), [](const Composition& a, const Composition& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.peak_bytes < b.peak_bytes;
  });
  return found;
}

std::vector<Composition> compositions_by_size(const BlockModel& model) {
  std::vector<Composition> found = compositions(model, INT64_MAX);
  std::stable_sort(found.begin(), found.end(), [](const Composition& a, const Composition& b) {
    return a.peak_bytes != b.peak_bytes ? a.peak_bytes < b.peak_bytes : a.cost < b.cost;
  });
  return found;
}

BlockModel block_model(const Config& config, const Device& meta, bool saves, bool evaluates) {
  return Uniform(config, meta, saves, evaluates).model();
}

std::string to_string(const AutoRecompute& a) {
  if (!a.fits())
    return text("train.recompute=auto: nothing fits into {}; the smallest plan is {}, in {}", human_bytes(a.budget_bytes), a.blocks,
                human_bytes(a.arena_bytes));
  const std::string more = a.base > 0 ? text("{:.2f} %", 100 * a.cost / a.base) : "0 %";
  return text("train.recompute=auto: {} in {}, {} more {} than without recomputation, {:.2f} % above the least of any policy that fits{}",
              a.blocks, human_bytes(a.arena_bytes), more, a.in_seconds ? "time" : "FLOPs", 100 * a.gap(),
              a.in_seconds ? "" : " (this machine was not measured: FLOPs stand for time)");
}

bool is_open_auto(const Config& c) {
  return c.train.recompute == Recompute::automatic && c.train.recompute_blocks.empty() && !c.model.cruncher;
}

RunPlan plan_auto_recompute(const Config& config, const Device& meta, bool saves, bool evaluates) {
  check_as(Failure::usage, config.model.layers <= kMaxAutoLayers,
           "train.recompute = auto chooses for up to {} blocks, and model.layers = {}: use full", kMaxAutoLayers, config.model.layers);
  const Uniform uniform(config, meta, saves, evaluates);
  const BlockModel model = uniform.model();
  AutoRecompute choice;
  choice.budget_bytes = budget_bytes(config);
  choice.in_seconds = uniform.in_seconds();
  choice.base = uniform.base();
  const auto plan_of = [&](const Composition& c) {
    RecomputePolicy policy;
    for (const size_t mode : blocks_of(model, c)) policy.push_back({model.modes[mode].mode, 1});
    Config chosen = config;
    chosen.train.recompute_blocks = to_string(policy);
    RunPlan plan = plan_run(chosen, *meta.open_meta(), saves, evaluates);
    choice.blocks = chosen.train.recompute_blocks;
    choice.arena_bytes = plan.arena.bytes;
    choice.cost = c.cost;
    plan.recompute = choice;
    return plan;
  };
  // Blocks have places, not only sizes: a plan may need a little more than its live bytes, and then it is the next one's turn.
  const std::vector<Composition> within = compositions_within(model, choice.budget_bytes);
  if (!within.empty()) choice.bound = within[0].cost;
  for (const Composition& c : within) {
    RunPlan plan = plan_of(c);
    if (choice.fits()) return plan;
  }
  choice.bound = 0;
  std::optional<RunPlan> smallest;
  for (const Composition& c : compositions_by_size(model)) {
    if (smallest && c.peak_bytes >= smallest->arena.bytes) break;
    RunPlan plan = plan_of(c);
    if (!smallest || plan.arena.bytes < smallest->arena.bytes) smallest = std::move(plan);
  }
  return std::move(*smallest);
}
}  // namespace reckon
