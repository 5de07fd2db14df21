// plan/napkin_planning: the terms of planning a run: global batch, accumulation, learning rate.
#include <algorithm>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/plan/napkin_topic.h"

namespace reckon {
namespace {
using A = NapkinArgument;
constexpr double kLargeModel = 1e9;        // parameters
constexpr double kQuietBatchTokens = 1e6;  // below it large models see noisy gradients

// ---- global-batch
void global_batch(NapkinRun& run) {
  const double micro = run.number("micro_batch"), T = run.number("seq_len"), k = run.number("grad_accum"), W = run.number("gpus"),
               tokens = micro * T * k * W;
  run.napkin("micro_batch_tokens", micro * T, "tokens", "micro_batch x seq_len: what one device holds at a time");
  run.napkin("global_batch", tokens, "tokens", "micro_batch x seq_len x grad_accum x gpus");
  run.napkin("steps", std::ceil(run.number("tokens") / tokens), "steps", text("for {} tokens, rounded up", run.text_of("tokens")));
  if (run.number("params") >= kLargeModel && tokens < kQuietBatchTokens)
    run.note(
        text("warning: below 1e6 tokens the gradient of a large model ({} parameters) is noisy: raise grad_accum to {} or lower the "
             "learning rate; McCandlish et al. 2018, arXiv:1812.06162",
             run.text_of("params"), int64_t(std::ceil(kQuietBatchTokens / (micro * T * W)))));
  else
    run.note("the batch is large enough for its model: from 1e6 tokens on, or below 1e9 parameters");
}

// ---- accumulation
void accumulation(NapkinRun& run) {
  const int64_t k = run.count("k");
  const double W = run.number("gpus"), bytes = run.number("params") * run.number("gradient_bytes"), ring = 2 * (W - 1) / W * bytes;
  run.napkin("loss_scale", 1 / double(k), "",
             "each micro-batch's loss counts 1/k, so that the sum of gradients is that of the whole batch's mean");
  run.napkin("communicated", ring, "B",
             text("a device and cycle, once: 2 (W - 1) / W x {} B of gradients, all-reduced in a ring of {}", scientific(bytes), W));
  run.mistake("communicated", ring * double(k), "B", "after every micro-batch: k times too much");
  run.mistake("loss_scale", 1, "",
              text("without 1/k gradients are k = {} times too large: the learning rate is, too, and clipping hides it", k));
  const auto peak = [&](int64_t micro, int64_t accumulate) {
    Config c = run.config();
    c.train.micro_batch = checked_multiply(c.train.micro_batch, micro);
    c.train.grad_accum = checked_multiply(c.train.grad_accum, accumulate);
    validate(c);
    check_as(Failure::usage, c.train.grad_accum <= 256, "k = {} micro-batches are more than are run for an answer: at most 256", k);
    return run.plan(c);
  };
  const RunPlan one = peak(1, 1), cycle = peak(1, k), whole = peak(k, 1);
  run.exact("peak_one", double(one.predicted.memory->peak), "B", text("{} on meta, one micro-batch", one.config.model.preset));
  run.exact("peak_accumulated", double(cycle.predicted.memory->peak), "B", text("{} micro-batches one after the other", k));
  run.exact("peak_whole", double(whole.predicted.memory->peak), "B",
            text("the same {} sequences at once", k * one.config.train.micro_batch));
  run.exact("flops_ratio", double(cycle.predicted.flops_per_step->model) / double(whole.predicted.flops_per_step->model), "times",
            "model FLOPs, accumulated over whole: the same work");
  run.why("activations are those of one micro-batch; gradients have one place, into which every micro-batch adds. From the second on they "
          "are there from its start: with one micro-batch they come when the activations go");
}

// ---- largest-micro-batch
// Bytes that the arena of a run needs; every size is monotone in the micro-batch.
double arena_bytes(const NapkinRun& run, Config config, int64_t micro_batch) {
  config.train.micro_batch = micro_batch;
  return double(run.plan(config).arena.bytes);
}

void largest_micro_batch(NapkinRun& run) {
  const Config config = run.config();
  const ModelConfig& m = config.model;
  check_as(Failure::usage, !m.cruncher, "the question is about tokens; a cruncher has none");
  const double memory = run.number("memory"), T = double(config.train.seq_len), element = double(size_of(dtype_of(config.train.precision)));
  const double state = run.number("state_bytes") * double(parameter_count(m)),
               sequence = run.number("per_layer") * double(m.layers) * double(m.d_model) * T * element;
  run.napkin("state", state, "B", text("{} B a parameter, as AdamW has", run.text_of("state_bytes")));
  run.napkin("sequence", sequence, "B",
             text("{} n d elements of {} B a layer, for one sequence of {} tokens", run.text_of("per_layer"), element, T));
  run.napkin("micro_batch", std::max(0.0, std::floor((memory - state) / sequence)), "sequences", "(memory - state) / sequence");
  const auto limit = int64_t(std::min(memory / (T * 4), double(1 << 20)));  // a sequence of tokens takes at least its ids
  int64_t fits = 0, too_large = 1;
  while (too_large <= limit && arena_bytes(run, config, too_large) <= memory) fits = too_large, too_large *= 2;
  while (too_large - fits > 1) {
    const int64_t middle = fits + (too_large - fits) / 2;
    (middle <= limit && arena_bytes(run, config, middle) <= memory ? fits : too_large) = middle;
  }
  run.exact("micro_batch", double(fits), "sequences",
            text("the largest whose dry run of {} fits: {} tokens", m.preset, with_commas(fits * config.train.seq_len)));
  if (fits > 0) run.exact("arena", arena_bytes(run, config, fits), "B", "what it needs, to the byte");
  run.exact("arena_next", arena_bytes(run, config, fits + 1), "B", "what one sequence more would need");
  const int64_t some = std::max<int64_t>(fits, 1);
  const double base = arena_bytes(run, config, some), one = arena_bytes(run, config, some + 1) - base, rest = base - one * double(some);
  const auto bytes = [](double b) { return human_bytes(std::max(int64_t(0), int64_t(b))); };
  run.why(
      text("a sequence takes {} more, in the napkin {}, which knows neither train.recompute nor train.fused_loss; what does not grow is "
           "{}, in the napkin {}; see activations",
           bytes(one), bytes(sequence), bytes(rest), bytes(state)));
  if (fits == 0) run.note("not one sequence fits: shorten train.seq_len, or set train.recompute=auto or full");
}

// ---- lr-scaling
void lr_scaling(NapkinRun& run) {
  const double lr = run.number("lr"), ratio = run.number("new_batch") / run.number("batch");
  run.napkin("linear", lr * ratio, "", text("lr x {:.4g}: for SGD, with a warm-up; Goyal et al. 2017, arXiv:1706.02677", ratio));
  run.napkin("square_root", lr * std::sqrt(ratio), "",
             text("lr x sqrt({:.4g}): for Adam and its kin; Malladi et al. 2022, arXiv:2205.10287", ratio));
  run.note("both hold below the critical batch size only: beyond it a larger batch saves no steps");
}
}  // namespace

void add_planning_topics(std::vector<NapkinTopic>& topics) {
  topics.push_back({"global-batch",
                    "How many tokens has a global batch?",
                    {{"micro_batch", A::count, "4"},
                     {"seq_len", A::count, "4096"},
                     {"grad_accum", A::count, "8"},
                     {"gpus", A::count, "64"},
                     {"params", A::number, "8e9"},
                     {"tokens", A::number, "160e9"}},
                    global_batch,
                    {},
                    {"micro_batch=1 grad_accum=1"}});
  topics.push_back({"accumulation",
                    "What does gradient accumulation over k micro-batches change?",
                    {{"k", A::count, "8"}, {"params", A::number, "8e9"}, {"gradient_bytes", A::number, "4"}, {"gpus", A::count, "8"}},
                    accumulation,
                    {"model.preset=gpt2-124m", "train.micro_batch=1", "train.seq_len=1024"}});
  topics.push_back({"largest-micro-batch",
                    "How many sequences fit into a device's memory at a time?",
                    {{"memory", A::bytes, "24GB"}, {"state_bytes", A::number, "16"}, {"per_layer", A::number, "6"}},
                    largest_micro_batch,
                    {"model.preset=gpt2-124m", "train.seq_len=1024", "train.precision=bf16"},
                    {"train.recompute=full"}});
  topics.push_back({"lr-scaling",
                    "How does the learning rate follow the batch?",
                    {{"lr", A::number, "3e-4"}, {"batch", A::number, "0.5e6"}, {"new_batch", A::number, "4e6"}},
                    lr_scaling});
}
}  // namespace reckon
