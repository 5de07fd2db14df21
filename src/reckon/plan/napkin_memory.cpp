// plan/napkin_memory: what weights, training state and tensors take, in bytes.
#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/nn/decoder.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/napkin_topic.h"
#include "reckon/train/step.h"

namespace reckon {
namespace {
using A = NapkinArgument;

// ---- tensor-bytes
void tensor_bytes(NapkinRun& run) {
  const TensorSpec spec{run.shape(), run.dtype()};
  const int64_t count = run.count("count");
  run.napkin("bytes", double(count) * double(spec.numel()) * double(size_of(spec.dtype)), "B",
             text("{} x {} elements x {} B", count, with_commas(spec.numel()), size_of(spec.dtype)));
  check_as(Failure::usage, count <= 4096, "count = {} tensors are more than are made for an answer: at most 4096", count);
  const Ref<Device> meta = run.meta();
  Tensors kept;
  int64_t requested = 0;
  for (int64_t i = 0; i < count; ++i) {
    kept.push_back(empty(*meta, spec));
    requested = requested + kept.back().storage().block().requested;
  }
  const int64_t live = meta->allocator().ledger().live;
  run.exact("bytes", double(requested), "B", "asked of the allocator on meta");
  run.exact("blocks", double(live), "B", text("in blocks of a multiple of {} B", kBlockAlignment));
  run.why(live == requested ? "nothing to round: the bytes are whole blocks" : "every tensor is a block of its own, rounded up");
}

// ---- weights-bytes
void weights_bytes(NapkinRun& run) {
  const double N = run.number("params"), element = double(size_of(run.dtype()));
  run.napkin("bytes", N * element, "B", text("{} B a parameter", element));
  if (!run.given("params") || run.model_given()) {
    const Config config = run.config();
    Decoder decoder(config.model);
    const Ref<Device> meta = run.meta();
    const DType stored = run.dtype();
    check_as(Failure::usage, is_float(stored), "weights are counted in f32, f64, bf16 or f16, not in {}", stored);
    decoder.parameters().materialize(*meta, {stored, false}, 1);
    const double live = double(meta->allocator().ledger().live_by_category[size_t(Category::parameter)]);
    run.exact("bytes", live, "B", text("{} on meta: {} parameters", config.model.preset, with_commas(decoder.parameters().count())));
    run.why("the model's name rounds its parameters; each tensor starts at a multiple of 32 elements");
  }
  run.mistake("bytes", N * 16, "B",
              "16 B a parameter is the training state with AdamW (weights, gradients, m, v in float32), not the weights");
}

// ---- largest-model
// Bytes of the training state by category, after a training step's objects were made on meta; gradients as when all are there.
struct State {
  double parameters = 0;
  double bytes[kCategories] = {};
  double total() const {
    return bytes[size_t(Category::parameter)] + bytes[size_t(Category::gradient)] + bytes[size_t(Category::optimizer)] +
           bytes[size_t(Category::master)];
  }
};
State training_state(const NapkinRun& run, const Config& config) {
  const Ref<Device> meta = run.meta();
  TrainStep step(config, *meta);
  State state;
  state.parameters = double(step.parameters().count());
  for (int i = 0; i < kCategories; ++i) state.bytes[i] = double(meta->allocator().ledger().live_by_category[size_t(i)]);
  state.bytes[size_t(Category::gradient)] = double(step.parameters().gradient_bytes());
  return state;
}

void largest_model(NapkinRun& run) {
  const Config config = run.config();
  const double states = state_bytes(config.optim);
  const bool mixed = config.train.precision != Precision::fp32;
  const double memory = run.count("gpus") * run.number("memory"), each = (mixed ? 2 + 4 + 4 : 4 + 4) + states;
  run.napkin("bytes_per_parameter", each, "B",
             mixed ? text("weights 2 + float32 master 4 + gradient 4 + {} of {}", states, to_string(config.optim.name))
                   : text("weight 4 + gradient 4 + {} of {}", states, to_string(config.optim.name)));
  run.napkin("parameters", memory / each, "parameters",
             text("all memory / bytes_per_parameter, activations ignored; state sharded over all devices (ZeRO-3)"));
  run.napkin("parameters_replicated", run.number("memory") / each, "parameters", "if each device holds everything (data parallel)");
  const State state = training_state(run, config);
  run.exact("bytes_per_parameter", state.total() / state.parameters, "B",
            text("{} on meta: all bytes of parameters, gradients, optimizer and master / {}", config.model.preset,
                 with_commas(int64_t(state.parameters))));
  run.exact("parameters", memory / (state.total() / state.parameters), "parameters", "all memory / exact bytes_per_parameter");
  run.why(dtype_of(config.train.precision) == DType::bf16
              ? "here the bfloat16 weight is the upper half of the float32 master, so the master costs 2 B more, not 4"
              : "each tensor starts at a multiple of 32 elements, and the optimizer keeps a few scalars");
  run.mistake("parameters", memory / 4, "parameters",
              "memory / 4 B counts the weights alone: training keeps gradients and optimizer state too");
}

// ---- mixed-precision
void mixed_precision(NapkinRun& run) {
  const double N = run.number("params"), W = double(run.count("gpus"));
  run.napkin("weights", 2 * N, "B", "bfloat16 or float16: 2 N");
  run.napkin("master", 4 * N, "B", "float32 copy: 4 N");
  run.napkin("m_and_v", 8 * N, "B", "float32: 8 N");
  run.napkin("gradients", 4 * N, "B", "float32: 4 N");
  run.napkin("total", 18 * N, "B", "18 N, on every device if replicated");
  run.napkin("with_buffers_low", 18 * N * 1.1, "B", "10 % of buffers on top");
  run.napkin("with_buffers_high", 18 * N * 1.2, "B", "20 % of buffers on top");
  run.napkin("zero_1", (2 + 4) * N + 12 * N / W, "B", text("each of {} devices: master, m and v sharded", W));
  run.napkin("zero_2", 2 * N + 16 * N / W, "B", "gradients sharded too");
  run.napkin("zero_3", 18 * N / W, "B", "weights sharded too");
  if (run.given("params") && !run.model_given()) return;
  const Config config = run.config();
  const State state = training_state(run, config);
  const auto part = [&](const char* name, Category category, const char* how) { run.exact(name, state.bytes[size_t(category)], "B", how); };
  const bool split = dtype_of(config.train.precision) == DType::bf16;
  part("weights", Category::parameter, split ? "bfloat16 working copy" : text("in {}", to_string(config.train.precision)).c_str());
  part("master", Category::master, split ? "16 residual bits a parameter: with the working copy the exact float32" : "float32");
  part("m_and_v", Category::optimizer, config.optim.name == OptimizerKind::adamw8bit ? "8 bits each, and scales" : "float32");
  part("gradients", Category::gradient, "float32");
  run.exact("total", state.total(), "B",
            text("{} on meta, {} parameters: {:.5g} B each", config.model.preset, with_commas(int64_t(state.parameters)),
                 state.total() / state.parameters));
  run.why(split ? "the upper half of a float32 is a bfloat16, so weights and master share 4 B: 16 N instead of 18 N"
                : "only a bfloat16 is the upper half of a float32; other weights do not share their bytes with a master");
}

// ---- quantized-bytes: elements and bytes of a block, as ggml-common.h lays them out
struct QuantFormat {
  const char* name;
  int64_t elements, bytes;
};
constexpr QuantFormat kFormats[] = {{"q8_0", 32, 34},  {"q5_0", 32, 22},   {"q4_1", 32, 20},   {"q4_0", 32, 18},
                                    {"mxfp4", 32, 17}, {"q6_k", 256, 210}, {"q5_k", 256, 176}, {"q4_k", 256, 144}};

const QuantFormat& find_format(const std::string& word) {
  std::string lower = word;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  std::vector<std::string> names;
  std::string known;
  for (const QuantFormat& f : kFormats) {
    if (lower == f.name) return f;
    names.emplace_back(f.name);
    known += (known.empty() ? "" : ", ") + names.back();
  }
  fail_as(Failure::usage, "unknown format '{}'{}; known: {}", printable_line(word, 60), did_you_mean(lower, names), known);
}

void quantized_bytes(NapkinRun& run) {
  const QuantFormat& f = find_format(run.text_of("format"));
  const double N = run.number("params"), bits = 8.0 * double(f.bytes) / double(f.elements);
  run.napkin("bytes", N * double(f.bytes) / double(f.elements), "B",
             text("{} B for {} weights: {:.4g} bits each, scales included", f.bytes, f.elements, bits));
  if (!run.given("params") || run.model_given()) {
    const Config config = run.config();
    Decoder decoder(config.model);
    double bytes = 0, plain = 0;
    for (const Parameter& p : decoder.parameters().all()) {
      const bool blocks = p.shape.rank() == 2 && p.shape.last() % f.elements == 0;
      (blocks ? bytes : plain) += blocks ? double(p.shape.numel() / f.elements * f.bytes) : double(p.shape.numel() * 4);
    }
    run.exact("bytes", bytes + plain, "B",
              text("{}: matrices in blocks, {} of norms and the like in float32", config.model.preset, human_bytes(int64_t(plain))));
    run.why("the model's name rounds its parameters, and vectors stay in float32");
  }
  run.mistake("bytes", N * std::floor(bits) / 8, "B",
              text("{} bits a weight: each block of {} also stores its scale", std::floor(bits), f.elements));
}

// ---- cruncher
void cruncher(NapkinRun& run) {
  check_as(Failure::usage, !run.key_given("model.preset"),
           "the question is about the preset cruncher alone; change its model.d_model, model.layers or train.micro_batch");
  const Config config = run.config();
  const double D = double(config.model.d_model), L = double(config.model.layers), B = double(config.train.micro_batch), P = L * D * D + D,
               activations = B * D * L;
  const double total = 4 * (3 * P + activations);
  run.napkin("parameters", P, "", "L D^2 + D: square layers and a head to one number");
  run.napkin("activations", activations, "", "B D L: the output of each square layer");
  run.napkin("gradients", P, "", "one for each parameter");
  run.napkin("states", P, "", "one for each parameter (AdaGrad)");
  run.napkin("bytes", total, "B", "4 B each, float32");
  for (const auto& [name, part] :
       {std::pair("share_parameters", P), {"share_activations", activations}, {"share_gradients", P}, {"share_states", P}})
    run.napkin(name, 100 * 4 * part / total, "%", "of the bytes");
  run.napkin("flops", 6 * B * P, "FLOPs", "6 B P");
  const RunPlan plan = run.plan(config);
  const Ledger& m = *plan.predicted.memory;
  run.exact("parameters", double(*plan.predicted.parameters), "", "declared");
  run.exact("flops", double(plan.predicted.flops_per_step->model), "FLOPs",
            "matrix products of a step on meta: the first layer's input needs no gradient");
  for (const Category c :
       {Category::parameter, Category::activation, Category::gradient, Category::optimizer, Category::data, Category::temporary})
    run.exact(std::string(name_of(c)).c_str(), double(m.at_peak[size_t(c)]), "B",
              c == Category::temporary ? "scratch of a matrix product: the same for any small one"
                                       : "live at the peak of a step, in blocks of 64 B");
  run.exact("peak", double(m.peak), "B", "all of it");
  run.why(
      "blocks are multiples of 64 B and parameters begin at multiples of 32 elements; the optimizer keeps scalars, products need scratch");
  if (D != 4 || L != 2 || B != 2) return;
  run.mistake("bytes", double(std::bit_ceil(uint64_t(total))), "B", "rounded up to a power of two");
  run.mistake("share_states", 100 * 14 / (2 * P + activations + 14), "%",
              "shares of 35/16/35/14 % have 14 states; AdaGrad keeps one for each of the 36 parameters");
}
}  // namespace

void add_memory_topics(std::vector<NapkinTopic>& topics) {
  topics.push_back({"tensor-bytes",
                    "How many bytes does a tensor take?",
                    {{"shape", A::word, "1x4096x4096"}, {"dtype", A::word, "bf16"}, {"count", A::count, "1"}},
                    tensor_bytes,
                    {},
                    {"shape=32x32 dtype=f32 count=2"}});
  topics.push_back({"weights-bytes",
                    "How many bytes do the weights of N parameters take?",
                    {{"params", A::number, "70e9"}, {"dtype", A::word, "f16"}},
                    weights_bytes,
                    {"model.preset=llama-3-70b"}});
  topics.push_back({"quantized-bytes",
                    "How many bytes do N quantized weights take?",
                    {{"params", A::number, "8e9"}, {"format", A::word, "q8_0"}},
                    quantized_bytes,
                    {"model.preset=llama-3-8b"},
                    {"format=q4_k"}});
  topics.push_back({"largest-model",
                    "What is the largest model whose training state fits, activations ignored?",
                    {{"gpus", A::count, "8"}, {"memory", A::bytes, "80GB"}},
                    largest_model,
                    {"model.preset=gpt2-124m", "optim.name=adamw", "train.precision=fp32"}});
  topics.push_back({"mixed-precision",
                    "What does mixed-precision training with Adam keep, and what does ZeRO leave on each device?",
                    {{"params", A::number, "8e9"}, {"gpus", A::count, "8"}},
                    mixed_precision,
                    {"model.preset=llama-3-8b", "train.precision=bf16", "optim.name=adamw"}});
  topics.push_back({"cruncher",
                    "What does a step of the deep linear net take? (D 4, L 2, B 2, AdaGrad, float32)",
                    {},
                    cruncher,
                    {"model.preset=cruncher", "model.d_model=4", "model.layers=2", "train.micro_batch=2", "optim.name=adagrad"}});
}
}  // namespace reckon
