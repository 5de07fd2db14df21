// plan/napkin_speed: FLOPs of operations, what a device can do of them, and how much of it is used.
#include <algorithm>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/napkin_topic.h"

namespace reckon {
namespace {
using A = NapkinArgument;

// What one piece of work charges.
template <class Work>
std::vector<MeterRow> charged(Work work) {
  Meter meter;
  const MeterScope scope(meter);
  work();
  return meter.rows();
}
Flops flops_of(const std::vector<MeterRow>& rows) {
  Flops sum;
  for (const MeterRow& row : rows) sum += row.flops;
  return sum;
}
void check_products(double flops) {
  check_as(Failure::usage, flops < 0x1p62, "{} FLOPs are beyond the 63 bits that exact counts have: ask about smaller sizes",
           scientific(flops));
}

// ---- matmul-flops, linear-stack
void matmul_flops(NapkinRun& run) {
  const double B = run.number("b"), D = run.number("d"), K = run.number("k"), flops = 2 * B * D * K;
  run.napkin("flops", flops, "FLOPs", "2 B D K: B K results, each D multiplications and D additions");
  run.napkin("ms", 1e3 * flops / run.peak(), "ms",
             text("at the dense {} peak of {}", name_of(run.peak_type_argument()), run.profile().name));
  check_products(flops);
  const Ref<Device> meta = run.meta();
  const std::vector<MeterRow> rows = charged([&] {
    linear(empty(*meta, {{run.count("b"), run.count("d")}, DType::bf16}), empty(*meta, {{run.count("k"), run.count("d")}, DType::bf16}));
  });
  run.exact("flops", double(flops_of(rows).model), "FLOPs", "the plan of the operation `linear` on meta");
  run.why("no difference: the formula is the definition");
  if (!run.given("b") && !run.given("d") && !run.given("k"))
    run.mistake("flops", flops * 1e3, "FLOPs", "a thousand times too much: tera read as peta");
}

void linear_stack(NapkinRun& run) {
  const double B = run.number("b"), d = run.number("d"), L = run.number("layers"), P = L * d * d;
  run.napkin("forward", 2 * B * P, "FLOPs", "2 B P");
  run.napkin("backward", 4 * B * P, "FLOPs", "4 B P: gradients of weights and of inputs");
  run.napkin("backward_needed", 4 * B * P - 2 * B * d * d, "FLOPs", text("without the gradient of the first input: {} B D^2", 4 * L - 2));
  check_products(6 * B * P);
  check_as(Failure::usage, L <= 4096, "layers = {} are more than are run for an answer: at most 4096", run.text_of("layers"));
  const Ref<Device> meta = run.meta();
  const std::vector<MeterRow> rows = charged([&] {
    Tensor x = empty(*meta, {{run.count("b"), run.count("d")}, DType::f32});
    Tensors weights;
    {
      const PhaseScope phase(*meta, Phase::forward);
      for (int64_t i = 0; i < run.count("layers"); ++i) {
        weights.push_back(empty(*meta, {{run.count("d"), run.count("d")}, DType::f32}));
        x = linear(x, weights.back().set_requires_grad());
      }
    }
    const PhaseScope phase(*meta, Phase::backward);
    backward(x, empty(*meta, x.spec()));
  });
  double forward = 0, back = 0;
  for (const MeterRow& row : rows) (row.phase == Phase::forward ? forward : back) += double(row.flops.model);
  run.exact("forward", forward, "FLOPs", "a stack of `linear` on meta");
  run.exact("backward", back, "FLOPs", "its backward pass on meta");
  run.why("nobody asks for the gradient of the data, so the first layer has one backward product less");
  run.mistake("backward", 4 * B * P, "FLOPs", text("{} B D^2 counts a gradient that nobody computes", 4 * L));
}

// ---- mfu, sparsity, ridge-point, intensity
std::string mfu_band(double mfu) {
  if (mfu > 1) return "above 1: the peak, the type or the FLOPs are wrong";
  if (mfu > 0.5) return "very good (above 50 %)";
  if (mfu >= 0.3) return "what to plan with (30-60 %)";
  return mfu < 0.2 ? "poor (below 20 %)" : "between poor (below 20 %) and what to plan with (30-60 %)";
}

void mfu(NapkinRun& run) {
  const double achieved = run.number("achieved"), share = achieved / run.peak();
  run.napkin(
      "mfu", share, "",
      text("achieved / {:.5g} TFLOP/s, the dense {} peak of {}", run.peak() / 1e12, name_of(run.peak_type_argument()), run.profile().name));
  run.napkin("percent", 100 * share, "%", mfu_band(share));
  const HardwareProfile& p = run.profile();
  if (run.peak_type_argument() == PeakType::fp32 && p.peaks[size_t(PeakType::bf16)])
    run.mistake("mfu", achieved / p.peak(PeakType::bf16), "",
                text("of the bf16 peak of {:.5g} TFLOP/s: float32 work is judged by the float32 peak", p.peak(PeakType::bf16) / 1e12));
  const ProfileValue& printed = *p.peaks[size_t(run.peak_type_argument())];
  if (printed.printed_for_sparse)
    run.mistake("mfu", share / 2, "", text("of the {} TFLOP/s that the datasheet prints for 2:4 sparsity", printed.printed));
  run.note("bands: below 20 % poor, 30-60 % for planning, above 50 % very good");
}

void sparsity(NapkinRun& run) {
  const HardwareProfile& p = run.profile();
  for (int i = 0; i < kPeakTypes; ++i) {
    if (!p.peaks[i]) continue;
    const ProfileValue& v = *p.peaks[i];
    run.napkin(std::string(name_of(PeakType(i))).c_str(), v.value, "FLOP/s",
               text("dense; {} prints {}{}", v.source->document, v.printed, v.printed_for_sparse ? " with 2:4 sparsity" : ""));
    if (v.printed_for_sparse)
      run.mistake(std::string(name_of(PeakType(i))).c_str(), v.value * 2, "FLOP/s", "the sparse rate, twice what dense matrices reach");
  }
  run.note(
      "n:m sparsity doubles the datasheet's peak and nothing else: no dense product, and no training step here, can use it; it is never a "
      "denominator of MFU");
}

void ridge_point(NapkinRun& run) {
  const HardwareProfile& p = run.profile();
  run.napkin(
      "ridge", run.peak() / p.bandwidth.value, "FLOP/B",
      text("{:.5g} TFLOP/s dense {} over {:.5g} TB/s", run.peak() / 1e12, name_of(run.peak_type_argument()), p.bandwidth.value / 1e12));
  for (int i = 0; i < kPeakTypes; ++i)
    if (p.peaks[i] && PeakType(i) != run.peak_type_argument())
      run.napkin(text("ridge_{}", name_of(PeakType(i))).c_str(), p.peaks[i]->value / p.bandwidth.value, "FLOP/B",
                 text("{:.5g} TFLOP/s", p.peaks[i]->value / 1e12));
  run.note("an operation below the ridge is bound by memory bandwidth, above it by arithmetic");
}

void intensity(NapkinRun& run) {
  const double m = run.number("m"), n = run.number("n"), k = run.number("k"), size = double(size_of(run.dtype()));
  const double ridge = run.peak() / run.profile().bandwidth.value,
               vector_ridge = run.profile().peak(PeakType::fp32) / run.profile().bandwidth.value;
  run.napkin("ridge", ridge, "FLOP/B", text("of {} for {} products", run.profile().name, name_of(run.peak_type_argument())));
  run.napkin("matmul", 2 * m * n * k / ((m * k + k * n + m * n) * size), "FLOP/B", "2 m n k / ((m k + k n + m n) x bytes an element)");
  check_products(2 * m * n * k);
  const Ref<Device> meta = run.meta();
  const int64_t rows = run.count("m"), columns = run.count("n"), inner = run.count("k");
  const DType dtype = run.dtype();
  const auto show = [&](const char* name, const std::vector<MeterRow>& work) {
    double flops = 0, bytes = 0;
    bool products = false;
    for (const MeterRow& row : work) {
      flops += double(row.flops.matmul + row.flops.vector);
      bytes += double(row.bytes);
      products = products || row.flops.matmul > 0;
    }
    const double limit = products ? ridge : vector_ridge;
    run.exact(
        name, flops / bytes, "FLOP/B",
        text("{} FLOPs over {} B: bound by {}", scientific(flops), scientific(bytes), flops / bytes < limit ? "bandwidth" : "arithmetic"));
  };
  const Tensor x = empty(*meta, {{rows, inner}, dtype}), w = empty(*meta, {{columns, inner}, dtype}),
               y = empty(*meta, {{rows, columns}, dtype}), c = empty(*meta, {{columns}, dtype});
  show("matmul", charged([&] { linear(x, w); }));
  show("add", charged([&] { add(y, y); }));
  show("gelu", charged([&] { gelu(y); }));
  show("softmax", charged([&] { softmax(y); }));
  show("layer_norm", charged([&] { layer_norm(y, c, c); }));
  run.why("bytes of a call: each input read and each output written once; element-wise work is far below the ridge whatever its size");
}

// ---- conventions, profile
void conventions(NapkinRun& run) {
  const Config config = run.config();
  const RunPlan plan = run.plan(config);
  const double seconds = run.number("step_seconds"), peak = run.peak() * run.number("gpus");
  const std::vector<FlopConvention> rows = flop_conventions(plan);
  for (const FlopConvention& c : rows) {
    const NapkinValue::Kind kind = std::string_view(c.name) == "exact" ? NapkinValue::exact : NapkinValue::napkin;
    run.add(kind, c.name, c.flops_per_token, "FLOPs",
            text("a token, {} a step, {:.4f} of exact, MFU {:.2f} %: {}", scientific(c.flops_per_step), c.ratio,
                 100 * claimed_mfu(c, seconds, peak), c.formula));
  }
  const Flops f = *plan.predicted.flops_per_step;
  run.exact("matmul_share", 100.0 * double(f.matmul) / double(f.matmul + f.vector), "%", "matrix products among all FLOPs of a step");
  run.why(
      "the conventions differ in which tables N has, and in whether attention counts not at all, all T^2 pairs, or half of them; exact is "
      "the causal T (T + 1) / 2");
  for (const FlopConvention& c : rows) run.note(text("{}: {}", c.name, c.source));
  run.note(text("{}: {} parameters, {} tokens a step of {} s on {:.5g} TFLOP/s", config.model.preset,
                with_commas(*plan.predicted.parameters), with_commas(tokens_per_step(config)), run.text_of("step_seconds"), peak / 1e12));
}

void profile(NapkinRun& run) {
  const HardwareProfile& p = run.profile();
  const auto line = [&](const std::string& name, const ProfileValue& v, const char* unit) {
    run.napkin(name.c_str(), v.value, unit,
               text("{} {}{}: {}, {}", v.printed, v.unit, v.printed_for_sparse ? " with 2:4 sparsity, halved" : "", v.source->document,
                    v.source->url));
  };
  for (int i = 0; i < kPeakTypes; ++i)
    if (p.peaks[i]) line(std::string(name_of(PeakType(i))), *p.peaks[i], "FLOP/s");
  line("memory", p.memory, "B");
  line("bandwidth", p.bandwidth, "B/s");
  if (p.link) line("link", *p.link, "B/s");
  line("pcie", p.pcie, "B/s");
  line("tdp", p.tdp, "W");
  run.note(text("{}; link and pcie: both directions together", p.product));
  std::string names;
  for (const HardwareProfile& other : hardware_profiles()) names += (names.empty() ? "" : ", ") + other.name;
  run.note("profiles: " + names);
}
}  // namespace

void add_speed_topics(std::vector<NapkinTopic>& topics) {
  topics.push_back({"matmul-flops",
                    "How many FLOPs has the product of [B, D] and [D, K]?",
                    {{"b", A::count, "16384"},
                     {"d", A::count, "32768"},
                     {"k", A::count, "8192"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"}},
                    matmul_flops});
  topics.push_back({"linear-stack",
                    "How many FLOPs do L square linear layers take, forward and backward?",
                    {{"b", A::count, "64"}, {"d", A::count, "1024"}, {"layers", A::count, "2"}},
                    linear_stack});
  topics.push_back({"mfu",
                    "Which share of the dense peak is this rate?",
                    {{"achieved", A::number, "19.5e12"}, {"profile", A::word, "a100-sxm-80gb"}, {"dtype", A::word, "fp32"}},
                    mfu,
                    {},
                    {"achieved=82e12 profile=h100-sxm dtype=bf16"}});
  topics.push_back({"ridge-point",
                    "From how many FLOPs a byte is a device bound by arithmetic?",
                    {{"profile", A::word, "h100-sxm"}, {"dtype", A::word, "bf16"}},
                    ridge_point});
  topics.push_back({"intensity",
                    "How many FLOPs a byte do operations have, and what binds them?",
                    {{"m", A::count, "4096"},
                     {"n", A::count, "4096"},
                     {"k", A::count, "4096"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"}},
                    intensity});
  topics.push_back({"sparsity", "Which of a device's printed peaks are sparse?", {{"profile", A::word, "h100-sxm"}}, sparsity});
  topics.push_back(
      {"conventions",
       "How many FLOPs has a training step, by the conventions in use, and which MFU would each claim?",
       {{"step_seconds", A::number, "0.05"}, {"gpus", A::count, "1"}, {"profile", A::word, "a100-sxm-40gb"}, {"dtype", A::word, "bf16"}},
       conventions,
       {"model.preset=gpt2-124m", "train.micro_batch=8", "train.seq_len=1024"},
       {"model.preset=llama-3-8b train.seq_len=8192 train.micro_batch=1 step_seconds=1 profile=h100-sxm"}});
  topics.push_back({"profile", "What do documents promise of a device?", {{"profile", A::word, "h100-sxm"}}, profile});
}
}  // namespace reckon
