// plan/napkin_activations: what a step keeps for its backward pass, what grows with the number of tokens, and what recomputing saves and
// costs.
#include <algorithm>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/nn/decoder.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/napkin_topic.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
using A = NapkinArgument;

// ---- activations
// Bytes of activations that are live when the forward pass of a decoder of so many layers has ended.
double kept_bytes(const NapkinRun& run, Config config, int64_t layers, Recompute recompute) {
  config.model.layers = layers;
  config.train.recompute = recompute;
  config.train.recompute_blocks.clear();
  const Ref<Device> meta = run.meta();
  Decoder decoder(config.model);
  decoder.parameters().materialize(*meta, {dtype_of(config.train.precision), true}, 1);
  const Tensor tokens = zeros(*meta, {{config.train.micro_batch, config.train.seq_len}, DType::i32});
  const PhaseScope phase(*meta, Phase::forward);
  const Tensor loss = decoder.loss(tokens, tokens, recompute_policy(config));
  return double(meta->allocator().ledger().live_by_category[size_t(Category::activation)]);
}

// Bytes a token of a checkpointed stack: one boundary for each segment of k layers, and one segment alive.
double checkpointed(double layers, double k, double per_layer, double row_bytes) {
  return (std::ceil(layers / k) + k * per_layer) * row_bytes;
}

void activations(NapkinRun& run) {
  const double L = run.number("layers"), d = run.number("d"), per_layer = run.number("per_layer"), n = run.number("tokens"),
               row = d * double(size_of(run.dtype()));
  check_as(Failure::usage, L <= double(kMaxLayers), "layers = {} must be at most {}", run.text_of("layers"), kMaxLayers);
  run.napkin("per_token", L * per_layer * row, "B", text("layers x {} d elements x {} B", run.text_of("per_layer"), size_of(run.dtype())));
  const double every = checkpointed(L, 1, per_layer, row);
  run.napkin("checkpointed", every, "B",
             text("a token, every layer a checkpoint: {} boundaries and one live layer, {} d bytes", L, every / d));
  run.napkin("checkpointed_all", every * n, "B", text("for {} tokens", run.text_of("tokens")));
  double best = 1;
  for (double k = 2; k <= L; ++k)
    if (checkpointed(L, k, per_layer, row) < checkpointed(L, best, per_layer, row)) best = k;
  run.napkin("best", checkpointed(L, best, per_layer, row), "B",
             text("a token, a checkpoint every {} layers; the optimum is near sqrt(L / {}) = {:.2f}", best, run.text_of("per_layer"),
                  std::sqrt(L / per_layer)));
  const Config config = run.config();
  check_as(Failure::usage, !config.model.cruncher, "the exact count needs a decoder");
  const double tokens = double(config.train.micro_batch * config.train.seq_len),
               width = double(config.model.d_model) * double(size_of(dtype_of(config.train.precision)));
  const auto third_layer = [&](Recompute mode) { return kept_bytes(run, config, 3, mode) - kept_bytes(run, config, 2, mode); };
  const double layer = third_layer(Recompute::none), selective = third_layer(Recompute::selective), boundary = third_layer(Recompute::full);
  const double layers = double(config.model.layers);
  run.exact(
      "per_layer", layer / tokens / width, "d",
      text("elements a token that a layer of {} keeps: the third layer's share on meta, T {}", config.model.preset, config.train.seq_len));
  run.exact("per_token", layers * layer / tokens, "B", text("{} layers of it", layers));
  run.exact("selective", selective / tokens / width, "d",
            "the same with train.recompute=selective: outputs of norms and activations are computed again, products are kept");
  run.exact("checkpointed", (layers * boundary + layer) / tokens, "B", "train.recompute=full: every boundary, and one live layer");
  run.why(
      "a list that stops at 6 d leaves tensors out: norms, packed q k v, attention's output, and a feed-forward wider than d are all read "
      "by the backward pass");
  if (L != 32 || per_layer != 6) return;
  run.mistake("checkpointed", 36 * d, "B", "36 d taken for bytes: 32 boundaries and 6 make 38 elements, of 2 B each");
  run.mistake("checkpointed_all", 36 * d * n / 1000, "B", "and giga read as mega");
}

// ---- scores, activation-growth
struct KeptScores {
  double plain, fused;  // bytes that attention keeps besides its input
};
KeptScores kept_scores(const NapkinRun& run, int64_t n, int64_t heads, int64_t head_dim, DType dtype) {
  const auto measure = [&](auto attend) {
    const Ref<Device> meta = run.meta();
    Tensor qkv = empty(*meta, {{1, n, 3 * heads * head_dim}, dtype});
    qkv.set_requires_grad();
    const int64_t before = meta->allocator().ledger().live;
    const Tensor y = attend(qkv);
    return double(meta->allocator().ledger().live - before);
  };
  return {measure([&](const Tensor& x) { return attention_plain(x, heads, heads, head_dim); }),
          measure([&](const Tensor& x) { return attention(x, heads, heads, head_dim); })};
}
int64_t head_dim_of(const NapkinRun& run) {
  const int64_t d = run.count("d"), heads = run.count("heads");
  check_as(Failure::usage, d % heads == 0 && d / heads <= kMaxHeadDim, "d = {} must be a multiple of heads = {}, of at most {}", d, heads,
           kMaxHeadDim);
  check_as(Failure::usage, run.number("n") * run.number("n") * double(heads) < 0x1p55, "n = {} makes more scores than can be counted",
           run.text_of("n"));
  return d / heads;
}

void scores(NapkinRun& run) {
  const double H = run.number("heads"), d = run.number("d"), per_layer = run.number("per_layer"), n = run.number("n"),
               element = double(size_of(run.dtype()));
  run.napkin("crossover", per_layer * d / H, "tokens",
             text("H n^2 > {} n d from n > {} d / H", run.text_of("per_layer"), run.text_of("per_layer")));
  run.napkin("scores", H * n * n * element, "B", text("one n x n matrix for each of {} heads, n {}", H, n));
  run.napkin("rest", per_layer * n * d * element, "B", text("{} n d elements of the layer", run.text_of("per_layer")));
  const KeptScores kept = kept_scores(run, run.count("n"), run.count("heads"), head_dim_of(run), run.dtype());
  run.exact("plain", kept.plain, "B", "what attention by matmul, mask and softmax keeps on meta");
  run.exact("fused", kept.fused, "B", "what the fused operation keeps: its output, and one float32 a row and head");
  run.why(
      "beside the probabilities plain attention keeps a mask, q, k, v and its output; the fused one keeps no matrix and computes the "
      "scores again in backward");
  run.mistake("scores", 0, "B", "said to be negligible beside 6 n d: from the crossover on they are the larger part");
}

void activation_growth(NapkinRun& run) {
  const int64_t n = run.count("n"), heads = run.count("heads"), head_dim = head_dim_of(run);
  check_as(Failure::usage, n <= kMaxSeqLen / 3, "n = {} tripled is above the limit of {}", n, kMaxSeqLen);
  run.napkin("linear", 2, "times", "everything but the scores, when the tokens double");
  run.napkin("quadratic", 4, "times", "the n x n scores, where they are stored");
  const KeptScores one = kept_scores(run, n, heads, head_dim, run.dtype()), two = kept_scores(run, 2 * n, heads, head_dim, run.dtype());
  run.exact("fused", two.fused / one.fused, "times", text("kept by fused attention, {} to {} tokens", n, 2 * n));
  run.exact("plain", two.plain / one.plain, "times", "kept by plain attention");
  const Config config = run.config();
  const int64_t T = config.train.seq_len;
  const auto at = [&](int64_t length) {
    Config c = config;
    c.train.seq_len = length;
    c.model.max_seq_len = std::max(c.model.max_seq_len, length);
    return double(run.plan(c).predicted.memory->at_peak[size_t(Category::activation)]);
  };
  run.exact("model", at(2 * T) / at(T), "times",
            text("activations at the peak of a step of {}, T {} to {}", config.model.preset, T, 2 * T));
  run.why("plain attention keeps a linear part beside its scores, so it stays a little below 4");
  run.exact("fused_at_3n", kept_scores(run, 3 * n, heads, head_dim, run.dtype()).fused / one.fused, "times",
            "kept by fused attention at three times the tokens");
  run.mistake("fused_at_3n", 4, "times",
              "exponential growth that doubles from n to 2 n would double again to 3 n: nothing in a transformer does that");
}

// ---- recomputation
void recomputation(NapkinRun& run) {
  const double N = run.number("params"), T = run.number("tokens"), k = run.number("segments");
  run.napkin("flops", 6 * N * T, "FLOPs", "6 N T without");
  run.napkin("flops_recomputed", 8 * N * T, "FLOPs", "8 N T: one more forward pass, 2 N T");
  run.napkin("increase", 100.0 * (8 * N * T / (6 * N * T) - 1), "%", "8 / 6 - 1");
  run.napkin("forwards", 2, "times", "the forward pass counts twice if every segment runs again");
  run.napkin("forwards_but_last", 2 - 1 / k, "times",
             text("2 - 1/k if the last of k = {} segments is kept: backward starts there", run.text_of("segments")));
  const Config config = run.config();
  check_as(Failure::usage, !config.model.cruncher, "the exact count needs a decoder");
  const auto with = [&](Recompute mode) {
    Config c = config;
    c.train.recompute = mode;
    c.train.recompute_blocks.clear();
    return run.plan(c);
  };
  const RunPlan none = with(Recompute::none), selective = with(Recompute::selective), full = with(Recompute::full);
  const Flops f = *full.predicted.flops_per_step;
  run.exact("increase", 100.0 * (double(f.matmul) / double(none.predicted.flops_per_step->matmul) - 1), "%",
            text("executed products of {} with train.recompute=full over those without", config.model.preset));
  double again = 0, first = 0;
  for (const MeterRow& row : full.work) {
    if (row.phase != Phase::forward && !row.recomputed) continue;
    if (!module_path(row.module).starts_with("blocks.")) continue;
    (row.recomputed ? again : first) += double(row.flops.matmul);
  }
  run.exact("forwards", 1 + again / first, "times", "the blocks' products, first pass and repeated, over the first pass");
  const auto all_work = [](const RunPlan& plan) {
    return double(plan.predicted.flops_per_step->matmul) + double(plan.predicted.flops_per_step->vector);
  };
  run.exact("increase_selective", 100.0 * (all_work(selective) / all_work(none) - 1), "%",
            "all FLOPs with train.recompute=selective over those without: no product is repeated");
  run.exact("activations", double(none.predicted.memory->at_peak[size_t(Category::activation)]), "B", "at the peak, without");
  run.exact("activations_selective", double(selective.predicted.memory->at_peak[size_t(Category::activation)]), "B",
            "at the peak, selective");
  run.exact("activations_recomputed", double(full.predicted.memory->at_peak[size_t(Category::activation)]), "B", "at the peak, with");
  run.why("head and tables are never repeated, so the whole step grows by less than a third");
  run.mistake("forwards_but_last", 1 + 1 / k, "times", "1 + 1/k repeats one segment only: it is the others that are repeated");
}

// ---- recompute-faster
// Products and element-wise work at their peaks, or memory traffic, whichever takes longer, operation by operation.
struct Roofline {
  double matmul, vector, bandwidth;
  double seconds(const MeterRow& row) const {
    return std::max(double(row.flops.matmul) / matmul + double(row.flops.vector) / vector, double(row.bytes) / bandwidth);
  }
};
struct Attended {
  double seconds = 0, flops = 0, bytes = 0;
};
template <class Attend>
Attended attended(const NapkinRun& run, const Roofline& roofline, int64_t n, int64_t heads, int64_t head_dim, Attend attend) {
  const Ref<Device> meta = run.meta();
  Meter meter;
  const MeterScope scope(meter);
  Tensor qkv = empty(*meta, {{1, n, 3 * heads * head_dim}, run.dtype()});
  qkv.set_requires_grad();
  const Tensor y = attend(qkv);
  backward(y, empty(*meta, y.spec()));
  Attended sum;
  for (const MeterRow& row : meter.rows()) {
    sum.seconds += roofline.seconds(row);
    sum.flops += double(row.flops.matmul);
    sum.bytes += double(row.bytes);
  }
  return sum;
}

void recompute_faster(NapkinRun& run) {
  const HardwareProfile& p = run.profile();
  const int64_t n = run.count("n"), heads = run.count("heads"), head_dim = head_dim_of(run);
  const Roofline roofline{p.peak(run.peak_type_argument()), p.peak(PeakType::fp32), p.bandwidth.value};
  const double element = double(size_of(run.dtype()));
  run.napkin("break_even", 2 * element * roofline.vector / roofline.bandwidth, "FLOPs",
             text("an element of {} B stored and read again costs 2 x {} B of traffic; in that time {} does so many float32 FLOPs", element,
                  element, p.name));
  const Attended plain =
      attended(run, roofline, n, heads, head_dim, [&](const Tensor& x) { return attention_plain(x, heads, heads, head_dim, false); });
  const Attended fused =
      attended(run, roofline, n, heads, head_dim, [&](const Tensor& x) { return attention(x, heads, heads, head_dim, false); });
  run.exact("stored_flops", plain.flops, "FLOPs", "attention that stores its scores, forward and backward, all n^2 pairs");
  run.exact("recomputed_flops", fused.flops, "FLOPs", "fused attention, with 2 n^2 d for the scores that its backward computes again");
  run.exact("stored_bytes", plain.bytes, "B", "memory traffic of every call");
  run.exact("recomputed_bytes", fused.bytes, "B", "the same for the fused one");
  run.napkin("stored_ms", plain.seconds * 1e3, "ms",
             text("roofline of {}: the longer of FLOPs / peak and bytes / bandwidth, call by call", p.name));
  run.napkin("recomputed_ms", fused.seconds * 1e3, "ms",
             text("{:.3g} times faster with {:.3g} times the products", plain.seconds / fused.seconds, fused.flops / plain.flops));
  run.why(
      "what is stored must be written and read; where that takes longer than computing it again from what is at hand, recomputing saves "
      "time and memory");
}
}  // namespace

void add_activation_topics(std::vector<NapkinTopic>& topics) {
  topics.push_back({"activations",
                    "What do the activations of a transformer take, whole and checkpointed?",
                    {{"layers", A::count, "32"},
                     {"d", A::count, "4096"},
                     {"per_layer", A::number, "6"},
                     {"tokens", A::number, "2e6"},
                     {"dtype", A::word, "bf16"}},
                    activations,
                    {"model.preset=llama-3-8b", "train.micro_batch=1", "train.seq_len=2048", "train.precision=bf16"}});
  topics.push_back({"scores",
                    "From which length do stored n x n scores exceed the other activations of a layer?",
                    {{"heads", A::count, "32"},
                     {"d", A::count, "4096"},
                     {"per_layer", A::number, "6"},
                     {"n", A::count, "4096"},
                     {"dtype", A::word, "bf16"}},
                    scores});
  topics.push_back({"activation-growth",
                    "How do activations grow with the number of tokens?",
                    {{"n", A::count, "2048"}, {"heads", A::count, "32"}, {"d", A::count, "4096"}, {"dtype", A::word, "bf16"}},
                    activation_growth,
                    {"model.preset=gpt2-124m", "train.micro_batch=1", "train.seq_len=512"}});
  topics.push_back({"recomputation",
                    "What does recomputing activations cost?",
                    {{"params", A::number, "8e9"}, {"tokens", A::number, "1e6"}, {"segments", A::count, "12"}},
                    recomputation,
                    {"model.preset=gpt2-124m", "train.micro_batch=1", "train.seq_len=1024"}});
  topics.push_back({"recompute-faster",
                    "When is recomputing faster than storing?",
                    {{"n", A::count, "4096"},
                     {"heads", A::count, "32"},
                     {"d", A::count, "4096"},
                     {"profile", A::word, "h100-sxm"},
                     {"dtype", A::word, "bf16"}},
                    recompute_faster});
}
}  // namespace reckon
