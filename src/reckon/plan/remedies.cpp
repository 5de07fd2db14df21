#include "reckon/plan/remedies.h"

#include <algorithm>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/plan/conventions.h"
#include "reckon/train/optimizer.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
constexpr int64_t kLeastChunk = 64, kMostChunks = 64;  // that are tried: tokens of one, and of a sequence
constexpr std::string_view kReachNames[] = {"same training", "other number format", "other optimizer", "shorter sequences"};

// The plan of a changed configuration; none where the change is impossible.
std::optional<RunPlan> try_plan(const Config& config, const Device& meta, bool saves) {
  try {
    validate(config);
    const Ref<Device> fresh = meta.open_meta();
    return plan_run(config, *fresh, saves);
  } catch (const Error& error) {
    if (error.kind() == Failure::usage) return {};
    throw;
  }
}

// Memory does not depend on how many micro-batches follow the second, so that a search need not run them.
Config for_memory(Config config) {
  config.train.grad_accum = std::min<int64_t>(config.train.grad_accum, 2);
  return config;
}

// No plan needs less: parameters, gradients, masters and optimizer states. What is above the budget already need not be dry-run.
double least_bytes(const Config& config) {
  const int weight = config.train.precision == Precision::fp32 ? 4 : 2;
  const int master = config.train.precision == Precision::fp16                                        ? 4
                     : dtype_of(config.train.precision) == DType::bf16 && config.train.master_weights ? 2
                                                                                                      : 0;
  const int gradient = 4;
  return double(parameter_count(config.model)) * (weight + master + gradient + state_bytes(config.optim));
}

bool fits(const Config& config, const Device& meta, int64_t budget, bool saves) {
  if (least_bytes(config) > double(budget)) return false;
  const std::optional<RunPlan> plan = try_plan(for_memory(config), meta, saves);
  return plan && plan->arena.bytes <= budget;
}

// Micro-batches that divide the sequences of an optimizer step, ascending, none larger than today's.
std::vector<int64_t> divisors(int64_t sequences, int64_t limit) {
  std::vector<int64_t> found;
  for (int64_t d = 1; d <= limit && d <= 65536; ++d)
    if (sequences % d == 0) found.push_back(d);
  return found;
}

Config with_micro_batch(Config config, int64_t micro_batch) {
  config.train.grad_accum = config.train.micro_batch * config.train.grad_accum / micro_batch;
  config.train.micro_batch = micro_batch;
  return config;
}

// The largest of ascending candidates that fits, which all smaller ones then do: memory is monotone in every extent. -1: none.
template <class Fits>
int64_t largest(const std::vector<int64_t>& candidates, Fits fits_one) {
  if (candidates.empty() || !fits_one(candidates.front())) return -1;
  size_t low = 0, high = candidates.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (fits_one(candidates[middle]) ? low : high) = middle;
  }
  return candidates[low];
}

std::vector<std::string> changes_between(const Config& from, const Config& to) {
  std::vector<std::string> changes;
  if (to.train.micro_batch != from.train.micro_batch) changes.push_back(text("train.micro_batch={}", to.train.micro_batch));
  if (to.train.grad_accum != from.train.grad_accum) changes.push_back(text("train.grad_accum={}", to.train.grad_accum));
  if (to.train.sequence_chunk != from.train.sequence_chunk) changes.push_back(text("train.sequence_chunk={}", to.train.sequence_chunk));
  if (to.train.seq_len != from.train.seq_len) changes.push_back(text("train.seq_len={}", to.train.seq_len));
  // What auto chose nobody wrote.
  if (to.train.recompute_blocks != from.train.recompute_blocks && from.train.recompute != Recompute::automatic)
    changes.push_back("train.recompute_blocks=" + to.train.recompute_blocks);
  if (to.train.attention != from.train.attention) changes.push_back("train.attention=" + to_string(to.train.attention));
  if (to.train.recompute != from.train.recompute) changes.push_back("train.recompute=" + to_string(to.train.recompute));
  if (to.train.precision != from.train.precision) changes.push_back("train.precision=" + to_string(to.train.precision));
  if (to.optim.name != from.optim.name) changes.push_back("optim.name=" + to_string(to.optim.name));
  return changes;
}

class Search {
 public:
  Search(const Config& config, const Device& meta, int64_t budget, bool saves)
      : config_(config), meta_(meta), budget_(budget), saves_(saves) {}

  // Without recomputation and with more and more of it, each with the largest micro-batch that fits, fastest first.
  bool add(Config candidate, Reach reach) {
    std::vector<Remedy> found;
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      if (config_.model.cruncher && recompute != Recompute::none) continue;
      // That needs more, not less; but what auto cannot do for this micro-batch may be right for a smaller one.
      const bool open = config_.train.recompute == Recompute::automatic;
      if (recompute == Recompute::none && recomputes(config_.train) && !open) continue;
      if (recompute == Recompute::selective && config_.train.recompute == Recompute::full) continue;
      candidate.train.recompute = recompute;
      candidate.train.recompute_blocks.clear();
      const int64_t sequences = config_.train.micro_batch * config_.train.grad_accum;
      const int64_t micro_batch = largest(divisors(sequences, config_.train.micro_batch),
                                          [&](int64_t d) { return fits(with_micro_batch(candidate, d), meta_, budget_, saves_); });
      if (micro_batch < 0) continue;
      add_planned(with_micro_batch(candidate, micro_batch), reach, found);
    }
    std::stable_sort(found.begin(), found.end(), [](const Remedy& a, const Remedy& b) {
      return a.step_seconds && b.step_seconds ? *a.step_seconds < *b.step_seconds : a.hardware_flops < b.hardware_flops;
    });
    remedies_.insert(remedies_.end(), found.begin(), found.end());
    return !found.empty();
  }
  // One sequence at a time, in the largest chunks that fit: where not even that fits whole.
  void add_chunks() {
    Config candidate = with_micro_batch(config_, 1);
    candidate.train.recompute_blocks.clear();
    candidate.train.attention = AttentionKind::flash;
    std::vector<int64_t> chunks;
    const int64_t whole = is_chunked(config_.train) ? config_.train.sequence_chunk : config_.train.seq_len;
    for (int64_t chunk = whole / 2; chunk >= std::max<int64_t>(kLeastChunk, config_.train.seq_len / kMostChunks); chunk /= 2)
      chunks.insert(chunks.begin(), chunk);
    const auto with_chunk = [&](int64_t chunk) {
      candidate.train.sequence_chunk = chunk;
      return candidate;
    };
    for (const Recompute recompute : {Recompute::none, Recompute::full}) {
      candidate.train.recompute = recompute;
      const int64_t chunk = largest(chunks, [&](int64_t c) { return fits(with_chunk(c), meta_, budget_, saves_); });
      if (chunk > 0) add_planned(with_chunk(chunk), Reach::schedule, remedies_);
    }
  }
  std::vector<Remedy> remedies_;

 private:
  // The very configuration that is named.
  void add_planned(const Config& chosen, Reach reach, std::vector<Remedy>& found) {
    const std::optional<RunPlan> plan = try_plan(chosen, meta_, saves_);
    if (!plan || plan->arena.bytes > budget_) return;
    found.push_back(
        {changes_between(config_, chosen), reach, plan->arena.bytes, plan->predicted.flops_per_step->matmul, plan->predicted.step_seconds});
  }

  const Config& config_;
  const Device& meta_;
  int64_t budget_;
  bool saves_;
};
}  // namespace

std::string_view name_of(Reach reach) { return kReachNames[size_t(reach)]; }

std::vector<Remedy> find_remedies(const Config& config, const Device& meta, int64_t budget, bool saves) {
  Search search(config, meta, budget, saves);
  if (!search.add(config, Reach::schedule) && !config.model.cruncher) search.add_chunks();
  Config smaller = config;
  const bool is_wide = config.train.precision == Precision::fp32, has_wide_state = config.optim.name == OptimizerKind::adamw;
  bool narrow_fits = false;
  if (is_wide) {
    smaller.train.precision = Precision::bf16;
    narrow_fits = search.add(smaller, Reach::precision);
  }
  if (has_wide_state) {
    smaller = config;
    smaller.optim.name = OptimizerKind::adamw8bit;
    narrow_fits |= search.add(smaller, Reach::precision);
  }
  if (is_wide && has_wide_state && !narrow_fits) {
    smaller.train.precision = Precision::bf16;
    search.add(smaller, Reach::precision);
  }
  for (const OptimizerKind kind : {OptimizerKind::adagrad, OptimizerKind::momentum, OptimizerKind::sgd}) {
    smaller = config;
    smaller.optim.name = kind;
    if (state_bytes(smaller.optim) < state_bytes(config.optim) && search.add(smaller, Reach::optimizer)) break;
  }
  for (int64_t tokens = config.train.seq_len / 2; !config.model.cruncher && search.remedies_.empty() && tokens >= 1; tokens /= 2) {
    smaller = config;
    smaller.train.seq_len = tokens;
    search.add(smaller, Reach::sequence);
  }
  if (!search.remedies_.empty()) return std::move(search.remedies_);
  // All of it together, before giving up.
  smaller = config;
  smaller.train.precision = Precision::bf16;
  smaller.optim.name = OptimizerKind::sgd;
  search.add(smaller, Reach::optimizer);
  return std::move(search.remedies_);
}

std::string explain_refusal(const RunPlan& plan, int64_t budget) {
  std::string lines;
  int64_t live = 0;
  for (const AllocationEvent& e : plan.events) {
    live += e.is_alloc ? e.bytes : -e.bytes;
    if (live <= budget) continue;
    const std::string module = module_path(e.module);
    lines += text("the first block beyond {}: {} {} of {}{}{} ({} pass)\n", human_bytes(budget), human_bytes(e.bytes), name_of(e.category),
                  e.op, module.empty() ? "" : " in ", module, name_of(e.phase));
    break;
  }
  lines += text("at the peak of {}:", human_bytes(plan.predicted.memory->peak));
  for (int c = 0; c < kCategories; ++c)
    if (const int64_t bytes = plan.predicted.memory->at_peak[size_t(c)]; bytes > 0)
      lines += text(" {} {},", name_of(Category(c)), human_bytes(bytes));
  lines.back() = '\n';
  lines += "largest:";
  for (size_t i = 0; i < std::min<size_t>(4, plan.at_peak.size()); ++i) {
    const Holder& h = plan.at_peak[i];
    const std::string module = module_path(h.module);
    lines +=
        text("{} {} {} of {}{}{}", i ? "," : "", human_bytes(h.bytes), name_of(h.category), h.op, module.empty() ? "" : " in ", module);
  }
  return lines;
}

namespace {
std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& w : words) line += (line.empty() ? "" : " ") + w;
  return line;
}
std::string describe(const Remedy& r, const RunPlan& today) {
  std::string line = text("{} ({}", joined(r.changes), human_bytes(r.arena_bytes));
  if (r.step_seconds && today.predicted.step_seconds) {
    line += text(", {:.2f}x the time", *r.step_seconds / *today.predicted.step_seconds);
  } else if (today.predicted.flops_per_step->matmul > 0) {
    line += text(", {:.2f}x the FLOPs", double(r.hardware_flops) / double(today.predicted.flops_per_step->matmul));
  }
  return line + text(", {})", name_of(r.reach));
}
}  // namespace

void check_fits(const RunPlan& plan, const Device& meta, int64_t budget, bool saves) {
  if (plan.arena.bytes <= budget) return;
  const std::vector<Remedy> remedies = find_remedies(plan.config, meta, budget, saves);
  std::string advice;
  std::string lines = explain_refusal(plan, budget);
  if (remedies.empty()) {
    const bool is_state = plan.predicted.memory->at_peak[size_t(Category::parameter)] > budget;
    advice = text(
        "nothing that was tried fits (smaller micro-batches, sequences and chunks of them, recomputation, bf16, 8-bit states, sgd{}); take "
        "a smaller model",
        is_state ? "; the parameters alone are more" : "");
  } else {
    advice = "the cheapest change that fits: " + describe(remedies[0], plan);
    for (size_t i = 1; i < remedies.size(); ++i) lines += text("\nalso fits: {}", describe(remedies[i], plan));
  }
  const std::string run = plan.recompute ? text("the smallest plan of train.recompute=auto ({})", plan.recompute->blocks) : "the run";
  throw Error(text("does not fit: {} needs {} and {} is {}; {}", run, human_bytes(plan.arena.bytes),
                   plan.config.memory.budget_bytes > 0 ? "memory.budget" : "available memory", human_bytes(budget), advice),
              Failure::memory, lines);
}

FitGoal fit_goal(std::string_view word) {
  const std::vector<std::string> goals = {"micro_batch", "seq_len", "fastest"};
  for (size_t i = 0; i < goals.size(); ++i)
    if (goals[i] == word) return FitGoal(i);
  fail_as(Failure::usage, "--fit takes micro_batch, seq_len or fastest, not '{}'{}", printable_line(word), did_you_mean(word, goals));
}

namespace {
constexpr int64_t kMost = int64_t(1) << 24;

// The largest value from 1 that fits: doubled until it does not, then halved between. -1: not even 1.
template <class Fits>
int64_t largest_value(int64_t most, Fits fits_one) {
  if (!fits_one(1)) return -1;
  int64_t low = 1, high = 2;
  while (high <= most && fits_one(high)) low = high, high *= 2;
  high = std::min(high, most + 1);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits_one(middle) ? low : high) = middle;
  }
  return low;
}

Fit planned_fit(const Config& from, const Config& to, const Device& meta) {
  const Ref<Device> fresh = meta.open_meta();
  return {changes_between(from, to), plan_run(to, *fresh)};
}

Fit fastest_fit(const Config& config, const Device& meta, int64_t budget) {
  std::optional<Fit> best;
  double best_rate = 0;
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full, Recompute::automatic}) {
    if (config.model.cruncher && recompute != Recompute::none) continue;
    Config candidate = config;
    candidate.memory.budget_bytes = budget;  // what auto chooses for
    candidate.train.recompute = recompute;
    candidate.train.recompute_blocks.clear();
    for (candidate.train.micro_batch = 1; candidate.train.micro_batch <= kMost; candidate.train.micro_batch *= 2) {
      if (!fits(candidate, meta, budget, true)) break;
      Fit fit = planned_fit(config, candidate, meta);
      check_as(Failure::usage, fit.plan.predicted.step_seconds.has_value(),
               "the fastest configuration needs this machine's measured speed: run `bench device` once");
      const double rate = double(tokens_per_step(candidate)) / *fit.plan.predicted.step_seconds;
      if (best && rate <= best_rate * 1.002) continue;  // larger for nothing
      best_rate = rate;
      best = std::move(fit);
    }
  }
  check_as(Failure::memory, best.has_value(), "nothing fits into {}, not even train.micro_batch=1 with train.recompute=full",
           human_bytes(budget));
  return std::move(*best);
}
}  // namespace

Fit find_fit(const Config& config, const Device& meta, int64_t budget, FitGoal goal) {
  if (goal == FitGoal::fastest) return fastest_fit(config, meta, budget);
  const bool batch = goal == FitGoal::micro_batch;
  check_as(Failure::usage, batch || !config.model.cruncher, "the cruncher has no sequences: --fit micro_batch");
  Config candidate = config;
  int64_t& value = batch ? candidate.train.micro_batch : candidate.train.seq_len;
  const int64_t most = batch || config.model.position != PositionKind::learned ? kMost : config.model.max_seq_len;
  const int64_t found = largest_value(most, [&](int64_t v) {
    value = v;
    return fits(candidate, meta, budget, true);
  });
  if (found < 0) {
    value = 1;
    const Ref<Device> fresh = meta.open_meta();
    check_fits(plan_run(candidate, *fresh), meta, budget);
  }
  value = found;
  return planned_fit(config, candidate, meta);
}
}  // namespace reckon
