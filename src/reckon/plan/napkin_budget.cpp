// plan/napkin_budget: how much computing a model takes: parameters, FLOPs, days, energy, price.
#include <algorithm>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/nn/decoder.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/napkin_topic.h"

namespace reckon {
namespace {
using A = NapkinArgument;

// A GPT of this width and depth: learned positions, biases, tied head. The number of heads does not change a parameter.
Config gpt_shape(const NapkinRun& run, int64_t d, int64_t layers) {
  check_as(Failure::usage, d <= kMaxWidth && layers <= kMaxLayers, "d = {} and layers = {} must be at most {} and {}", d, layers, kMaxWidth,
           kMaxLayers);
  int64_t head_dim = std::min<int64_t>(128, d);
  while (d % head_dim != 0) --head_dim;
  return run.config({text("model.d_model={}", d), text("model.layers={}", layers), text("model.heads={}", d / head_dim)});
}

// Declares every tensor of the model and makes them on meta; learned scalars.
int64_t declared_parameters(const NapkinRun& run, const Config& config) {
  Decoder decoder(config.model);
  const Ref<Device> meta = run.meta();
  decoder.parameters().materialize(*meta, {DType::bf16, false}, 1);
  return decoder.parameters().count();
}

std::string model_words(const Config& c) { return text("{} layers, d {}, vocab {}", c.model.layers, c.model.d_model, c.model.vocab); }

// ---- training-days
void price_and_energy(NapkinRun& run, double gpus, double hours) {
  const HardwareProfile& p = run.profile();
  const double watts = gpus * p.tdp.value * run.number("pue");
  run.napkin("energy", watts * hours / 1e6, "MWh",
             text("{} W each (TDP, an upper bound) x PUE {}; {:.4g} MW", p.tdp.value, run.text_of("pue"), watts / 1e6));
  if (run.has("price_per_gpu_hour"))
    run.napkin("price", gpus * hours * run.number("price_per_gpu_hour"), "$", "GPU-hours x price_per_gpu_hour");
}

void training_days(NapkinRun& run) {
  const double N = run.number("params"), D = run.number("tokens"), gpus = run.number("gpus"), mfu = run.number("mfu"), peak = run.peak();
  const double rate = gpus * peak * mfu, flops = 6 * N * D, days = flops / rate / kSecondsPerDay;
  run.napkin("flops", flops, "FLOPs", "6 N D");
  run.napkin("rate", rate, "FLOP/s",
             text("gpus x dense {} peak x MFU; {} has {:.5g} TFLOP/s", name_of(run.peak_type_argument()), run.profile().name, peak / 1e12));
  run.napkin("days", days, "days", "flops / rate");
  run.napkin("gpu_hours", gpus * days * 24, "GPU-hours", "gpus x days x 24");
  price_and_energy(run, gpus, days * 24);
  if (!run.given("params") || run.model_given()) {
    const Config config = run.config();
    const RunPlan plan = run.plan(config);
    const double per_token = double(plan.predicted.flops_per_step->model) / double(tokens_per_step(config));
    run.exact("flops", per_token * D, "FLOPs",
              text("{}, T {}: {} parameters, {} FLOPs a token counted call by call", config.model.preset, config.train.seq_len,
                   with_commas(plan.predicted.parameters.value()), scientific(per_token)));
    run.exact("days", per_token * D / rate / kSecondsPerDay, "days", "the same rate");
    run.why(
        "6 N D counts the token table, which is only looked up, and leaves attention out; the exact count has the causal pairs of "
        "attention and the true N");
  }
  const ProfileValue& printed = *run.profile().peaks[size_t(run.peak_type_argument())];
  if (printed.printed_for_sparse)
    run.mistake("days", days / 2, "days",
                text("the datasheet prints {} TFLOP/s, for 2:4 sparsity: dense products reach half", printed.printed));
  if (!run.given("params") && !run.given("gpus") && !run.given("profile") && !run.given("mfu") && !run.given("tokens") &&
      !run.given("dtype"))
    run.mistake("days", flops / 5e17 / kSecondsPerDay, "days", "the rate rounded down to 5e17 before dividing: round last");
}

// ---- transformer-params
void transformer_params(NapkinRun& run) {
  const double d = run.number("d"), L = run.number("layers");
  const double napkin = 12 * d * d * L;
  run.napkin("parameters", napkin, "parameters", "12 d^2 L: 4 d^2 of attention and 8 d^2 of a feed-forward of width 4 d, each layer");
  const bool named = run.key_given("model.preset");
  const Config config = named ? run.config() : gpt_shape(run, run.count("d"), run.count("layers"));
  const double exact = double(declared_parameters(run, config));
  run.exact("parameters", exact, "parameters",
            text("every tensor declared: {}{}", named ? config.model.preset + ", " : "", model_words(config)));
  const ModelConfig& m = config.model;
  const double tables = double(m.vocab) * double(m.d_model) * (m.tied_head ? 1 : 2) +
                        (m.position == PositionKind::learned ? double(m.max_seq_len) * double(m.d_model) : 0);
  run.exact("tables", tables, "parameters",
            m.tied_head ? "token table (also the head) and positions" : "token table and head, and positions if learned");
  run.why(text("12 d^2 L leaves out {} of tables and {} of biases, norms and the true widths of this model's layers", scientific(tables),
               scientific(exact - tables - napkin)));
  if (named && m.preset == "llama-3-8b" && m.d_model == int64_t(d) && m.layers == int64_t(L))
    run.mistake("parameters", 8e9, "parameters",
                text("read off the model's name: 12 d^2 L gives {} only; the rest is the two tables, and SwiGLU's d_ff = {}",
                     scientific(napkin, 3), m.d_ff));
}

// ---- training-flops, device-years, flops-ratio
void training_flops(NapkinRun& run) {
  const ModelConfig m = run.config().model;
  const double N = run.has("params") ? run.number("params") : 12 * double(m.d_model) * double(m.d_model) * double(m.layers);
  const double D = run.number("tokens"), flops = 6 * N * D;
  if (!run.has("params")) run.napkin("parameters", N, "parameters", "12 d^2 L");
  run.napkin("flops", flops, "FLOPs", "6 N D: 2 N forward and 4 N backward for each token");
  run.napkin("years", flops / run.peak() / kSecondsPerYear, "device-years",
             text("flops / dense {} peak of one {}, at 100 %", name_of(run.peak_type_argument()), run.profile().name));
  if (run.given("params") && !run.model_given()) return;
  const double exact_n = double(declared_parameters(run, run.config()));
  run.exact("flops", 6 * exact_n * D, "FLOPs", text("6 N D with all {} declared parameters", with_commas(int64_t(exact_n))));
  const RunPlan plan = run.plan(run.config());
  const double per_token = double(plan.predicted.flops_per_step->model) / double(tokens_per_step(plan.config));
  run.exact("flops_counted", per_token * D, "FLOPs", text("call by call at T {}, causal attention included", plan.config.train.seq_len));
  run.exact("years", 6 * exact_n * D / run.peak() / kSecondsPerYear, "device-years", "from 6 N D with the declared parameters");
  run.why("12 d^2 L leaves out the tables; attention adds to 6 N D what grows with T, and the token table costs no product on the way in");
}

void device_years(NapkinRun& run) {
  const double flops = run.number("flops"), seconds = flops / run.peak() / run.number("mfu");
  run.napkin("years", seconds / kSecondsPerYear, "device-years",
             text("flops / ({:.5g} TFLOP/s dense {} x MFU) / 365.25 days", run.peak() / 1e12, name_of(run.peak_type_argument())));
  run.napkin("days", seconds / kSecondsPerDay / run.number("gpus"), "days", "on all gpus together");
}

void flops_ratio(NapkinRun& run) {
  const double flops = run.number("flops"), reference = run.number("reference");
  run.napkin("ratio", flops / reference, "times", "flops / reference");
  if (!run.given("flops") && !run.given("reference"))
    run.mistake("ratio", 1, "times", "said to match: it is more than an order of magnitude");
}

// ---- step-flops
void step_flops(NapkinRun& run) {
  const double N = run.number("params"), tokens = run.number("tokens"), T = run.number("seq_len");
  run.napkin("flops", 6 * N * tokens, "FLOPs", "6 N x tokens of the batch");
  run.napkin("seconds", 6 * N * tokens / (run.number("gpus") * run.peak() * run.number("mfu")), "s", "on gpus x dense peak x MFU");
  run.mistake("flops", 6 * N * tokens * T, "FLOPs",
              text("multiplied by the sequence length {} again: tokens = sequences x length already", run.text_of("seq_len")));
  if (run.given("params") && !run.model_given()) return;
  const Config config = run.config({text("train.seq_len={}", run.count("seq_len")), text("model.max_seq_len={}", run.count("seq_len"))});
  const RunPlan plan = run.plan(config);
  const double per_token = double(plan.predicted.flops_per_step->model) / double(tokens_per_step(config));
  run.exact("flops", per_token * tokens, "FLOPs",
            text("a dry run of {} ({} parameters), {} FLOPs a token", model_words(config), with_commas(plan.predicted.parameters.value()),
                 scientific(per_token)));
  run.why("the exact count has attention's causal products and no products for the position table");
}

// ---- chinchilla, d-model
void chinchilla(NapkinRun& run) {
  const double N = run.number("params"), tokens = N * run.number("tokens_per_param"), batch = run.number("batch_tokens");
  run.napkin("tokens", tokens, "tokens", text("{} a parameter; Hoffmann et al. 2022, arXiv:2203.15556", run.text_of("tokens_per_param")));
  run.napkin("steps", std::ceil(tokens / batch), "steps", "tokens / batch_tokens, rounded up");
  run.napkin("flops", 6 * N * tokens, "FLOPs", "6 N D");
  run.note("compute-optimal for training alone; a model that serves many is trained longer, as 15e12 tokens for 8e9 parameters show");
}

void d_model(NapkinRun& run) {
  const double N = run.number("params"), L = run.number("layers"), d = std::sqrt(N / (12 * L));
  run.napkin("d_model", d, "", "sqrt(N / (12 L))");
  const int64_t rounded = std::max<int64_t>(1, std::llround(d / 128)) * 128;
  run.napkin("d_rounded", double(rounded), "", "to a multiple of 128, a head");
  const double exact = double(declared_parameters(run, gpt_shape(run, rounded, run.count("layers"))));
  run.exact("parameters", exact, "parameters", "a GPT of that width and depth, every tensor declared");
  run.why("tables, biases and norms come on top of 12 d^2 a layer, and the width was rounded");
}
}  // namespace

void add_budget_topics(std::vector<NapkinTopic>& topics) {
  topics.push_back({"training-days",
                    "How long do N parameters take on D tokens with so many devices, and what energy and price is that?",
                    {{"params", A::number, "70e9"},
                     {"tokens", A::number, "15e12"},
                     {"gpus", A::count, "1024"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"},
                     {"mfu", A::fraction, "0.5"},
                     {"pue", A::number, "1.2"},
                     {"price_per_gpu_hour", A::number, ""}},
                    training_days,
                    {"model.preset=llama-3-70b", "train.micro_batch=1", "train.seq_len=8192", "train.precision=bf16"}});
  topics.push_back({"transformer-params",
                    "How many parameters has a transformer of width d and L layers?",
                    {{"d", A::count, "12288"}, {"layers", A::count, "96"}},
                    transformer_params,
                    {"model.preset=gpt2-124m", "model.max_seq_len=2048"},
                    {"d=4096 layers=32 model.preset=llama-3-8b"}});
  topics.push_back(
      {"training-flops",
       "How many FLOPs does training on D tokens take? (GPT-3: d 12288, L 96, 300e9 tokens)",
       {{"params", A::number, ""}, {"tokens", A::number, "300e9"}, {"profile", A::word, "h100-sxm"}, {"dtype", A::word, "bf16"}},
       training_flops,
       {"model.preset=gpt2-124m", "model.d_model=12288", "model.layers=96", "model.heads=96", "model.max_seq_len=2048",
        "train.seq_len=2048", "train.micro_batch=1"}});
  topics.push_back({"device-years",
                    "How long does one device take for so many FLOPs?",
                    {{"flops", A::number, "3.14e23"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"},
                     {"mfu", A::fraction, "1"},
                     {"gpus", A::count, "1"}},
                    device_years,
                    {},
                    {"flops=2e25", "flops=1e26"}});
  topics.push_back({"flops-ratio",
                    "How much more is one training than another? (6.3e24 FLOPs against GPT-3's 3.14e23)",
                    {{"flops", A::number, "6.3e24"}, {"reference", A::number, "3.14e23"}},
                    flops_ratio});
  topics.push_back({"step-flops",
                    "How many FLOPs does one optimizer step take? (GPT-3, 4e6 tokens)",
                    {{"params", A::number, "175e9"},
                     {"tokens", A::number, "4e6"},
                     {"seq_len", A::count, "2048"},
                     {"gpus", A::count, "1024"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"},
                     {"mfu", A::fraction, "0.5"}},
                    step_flops,
                    {"model.preset=gpt2-124m", "model.d_model=12288", "model.layers=96", "model.heads=96", "train.micro_batch=1"}});
  topics.push_back({"chinchilla",
                    "How many tokens, and how many steps, are compute-optimal for N parameters?",
                    {{"params", A::number, "8e9"}, {"tokens_per_param", A::number, "20"}, {"batch_tokens", A::number, "6e6"}},
                    chinchilla});
  topics.push_back({"d-model",
                    "Which width gives N parameters in L layers?",
                    {{"params", A::number, "8e9"}, {"layers", A::count, "32"}},
                    d_model,
                    {"model.preset=gpt2-124m", "model.max_seq_len=2048"}});
}
}  // namespace reckon
