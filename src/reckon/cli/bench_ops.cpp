// cli/bench_ops: reckon bench ops [OPERATION ...] [--json]: each operation on tensors beyond every cache, as a share of what a copy of as
// many bytes takes, or of what a matrix product reaches, in the same run.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/usage.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/io/json.h"
#include "reckon/ops/assign.h"
#include "reckon/ops/conv.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/sorting.h"
#include "reckon/ops/unary.h"
#include "reckon/train/optimizer.h"

namespace reckon {
namespace {
constexpr int kRounds = 7;  // best of: other programs can only make a measurement longer

// What all measurements of one dtype share, made once: pages are touched for the first time only once.
struct Operands {
  Device& device;
  DType dtype;
  Tensor a, b;                                            // [rows, width]
  Tensor weight;                                          // [width], also bias
  Tensor mask;                                            // bool [rows, width]
  Tensor ids;                                             // i32 [rows], below `rows`
  Tensor row_target;                                      // i32 [rows], below `width`
  static constexpr int64_t kRows = 16384, kWidth = 4096;  // 64 M elements

  Operands(Device& d, DType t) : device(d), dtype(t) {
    a = make({kRows, kWidth}, 1);
    b = make({kRows, kWidth}, 2);
    weight = make({kWidth}, 3);
    mask = less(a, b);
    ids = empty(device, {{kRows}, DType::i32});
    row_target = empty(device, {{kRows}, DType::i32});
    std::vector<int32_t> values(kRows);
    for (int64_t i = 0; i < kRows; ++i) values[size_t(i)] = int32_t(i * 7919 % kRows);
    ids.write(values.data(), kRows * 4);
    for (int32_t& v : values) v %= int32_t(kWidth);
    row_target.write(values.data(), kRows * 4);
  }
  Tensor make(const Shape& shape, uint64_t key) const {
    const Tensor x = empty(device, {shape, dtype});
    fill_uniform_(x, key, 0.5, 1.5);
    return x;
  }
};

// One line: `run` is measured by the kernels it launches; only those named `only` if that is given.
struct Bench {
  std::string name;
  bool product;  // judged by FLOPs
  std::function<void()> run;
  std::string only = {};
};

// The gradient of a result with respect to its inputs, without the forward pass: the row NAME_back alone counts.
Bench backward_of(const std::string& row, std::function<Tensor(const Tensor&)> f, const Operands& o) {
  return {row, false,
          [f = std::move(f), o] {
            const EnableGrad guard;
            Tensor x = o.a.detached();
            x.set_requires_grad();
            const Tensor y = f(x);
            grad(y, {x}, y.shape() == o.b.shape() ? o.b : ones(o.device, y.spec()));
          },
          row};
}

void add_elementwise(std::vector<Bench>& list, const Operands& o) {
  const Tensor a = o.a, b = o.b, mask = o.mask;
  const auto one = [&](const char* name, Tensor (*f)(const Tensor&)) { list.push_back({name, false, [=] { f(a); }}); };
  const auto two = [&](const char* name, Tensor (*f)(const Tensor&, const Tensor&)) { list.push_back({name, false, [=] { f(a, b); }}); };
  list.push_back({"add", false, [=] { add(a, b); }});
  two("sub", sub), two("mul", mul), two("div", div), two("maximum", maximum), two("less", less);
  list.push_back({"affine", false, [=] { affine(a, 2, 1); }});
  one("neg", neg), one("abs", abs), one("square", square), one("sqrt", sqrt), one("rsqrt", rsqrt), one("reciprocal", reciprocal);
  one("exp", exp), one("log", log), one("tanh", tanh), one("sigmoid", sigmoid), one("relu", relu), one("gelu", gelu), one("silu", silu);
  one("swiglu", swiglu), one("erf", erf), one("sin", sin);
  list.push_back({"where", false, [=] { where(mask, a, b); }});
  list.push_back({"cast", false, [=, to = a.dtype() == DType::f32 ? DType::bf16 : DType::f32] { cast(a, to); }});
  list.push_back({"contiguous of a transpose", false, [=] { contiguous(transpose(a)); }});
  list.push_back(backward_of(
      "gelu_back", [](const Tensor& x) { return gelu(x); }, o));
  list.push_back(backward_of(
      "silu_back", [](const Tensor& x) { return silu(x); }, o));
  list.push_back(backward_of(
      "tanh_back", [](const Tensor& x) { return tanh(x); }, o));
}

void add_rows(std::vector<Bench>& list, const Operands& o) {
  const Tensor a = o.a, b = o.b, w = o.weight, target = o.row_target;
  list.push_back({"layer_norm", false, [=] { layer_norm(a, w, w); }});
  list.push_back({"rms_norm", false, [=] { rms_norm(a, w); }});
  list.push_back({"add_layer_norm", false, [=] { add_layer_norm(a, b, w, w); }});
  list.push_back({"add_rms_norm", false, [=] { add_rms_norm(a, b, w); }});
  list.push_back({"softmax", false, [=] { softmax(a); }});
  list.push_back({"log_softmax", false, [=] { log_softmax(a); }});
  list.push_back({"cross_entropy", false, [=] { cross_entropy(a, target); }});
  list.push_back(backward_of(
      "layer_norm_back", [w](const Tensor& x) { return layer_norm(x, w, w); }, o));
  list.push_back(backward_of(
      "rms_norm_back", [w](const Tensor& x) { return rms_norm(x, w); }, o));
  list.push_back(backward_of(
      "softmax_back", [](const Tensor& x) { return softmax(x); }, o));
  list.push_back(backward_of(
      "cross_entropy_back", [target](const Tensor& x) { return cross_entropy(x, target); }, o));
  list.push_back({"sum", false, [=] { sum(a); }});
  list.push_back({"sum of rows", false, [=] { sum(a, {-1}); }});
  list.push_back({"sum of columns", false, [=] { sum(a, {0}); }});
  list.push_back({"max of rows", false, [=] { max(a, {-1}); }});
  list.push_back({"argmax of rows", false, [=] { argmax(a, -1); }});
  list.push_back({"cumsum of rows", false, [=] { cumsum(a, -1); }});
}

void add_places(std::vector<Bench>& list, const Operands& o) {
  const Tensor a = o.a, b = o.b, ids = o.ids;
  list.push_back({"embedding", false, [=] { embedding(a, ids); }});
  list.push_back({"index_select", false, [=] { index_select(a, 0, ids); }});
  list.push_back({"index_add", false, [=] { index_add(a, 0, ids, b); }});
  list.push_back({"concatenate", false, [=] { concatenate({a, b}, 0); }});
  const Tensor half = slice(b, 1, 0, Operands::kWidth / 2);
  list.push_back({"copy_ into half the columns", false, [=] { copy_(half, slice(a, 1, Operands::kWidth / 2, Operands::kWidth)); }});
  list.push_back({"fill_ of half the columns", false, [=] { fill_(half, 1); }});
  list.push_back({"tril", false, [=] { tril(a); }});
  list.push_back({"top_k of rows, 8", false, [=] { top_k(a, 8); }});
}

void add_products(std::vector<Bench>& list, const Operands& o) {
  const Tensor x = o.make({4096, 1024}, 4), w = o.make({4096, 1024}, 5), q = o.make({16, 512, 256}, 6), k = o.make({16, 256, 512}, 7);
  const Tensor qkv = o.make({4, 1024, 3 * 12 * 64}, 8), image = o.make({16, 64, 56, 56}, 9), filter = o.make({64, 64, 3, 3}, 10);
  list.push_back({"linear 4096 x 4096 x 1024", true, [=] { linear(x, w); }});
  list.push_back({"matmul 16 x 512 x 512 x 256", true, [=] { matmul(q, k); }});
  list.push_back({"attention 4 x 1024 x 12 x 64", true, [=] { attention(qkv, 12, 12, 64); }});
  list.push_back({"conv2d 64 of 3 x 3, 56 x 56", true, [=] { conv2d(image, filter, {}, {.padding = {1, 1}}); }});
}

// A model of one flat parameter of 32 M elements.
struct OptimizerBench {
  Parameters parameters;
  std::unique_ptr<Optimizer> optimizer;
  OptimizerBench(const Operands& o, OptimizerKind kind) {
    parameters.declare("w", {int64_t(32) << 20}, {Init::normal, 0.1, 0}, true);
    parameters.materialize(o.device, {o.dtype, true, true, quantized_from(kind)}, 1);
    for (const Bucket& bucket : parameters.buckets()) fill_normal_(bucket.gradients, 2);
    parameters.mark_gradients_filled();
    OptimConfig config;
    config.name = kind;
    optimizer = std::make_unique<Optimizer>(o.device, parameters, config);
  }
};
void add_optimizers(std::vector<Bench>& list, const Operands& o) {
  using Kind = OptimizerKind;
  for (const Kind kind :
       {Kind::sgd, Kind::momentum, Kind::nesterov, Kind::adagrad, Kind::rmsprop, Kind::adam, Kind::adamw, Kind::lamb, Kind::adamw8bit})
    list.push_back({to_string(kind), false,
                    [=, held = std::shared_ptr<OptimizerBench>()]() mutable {
                      if (!held) held = std::make_shared<OptimizerBench>(o, kind);
                      held->optimizer->step();
                    },
                    kind == Kind::lamb ? "lamb" : "_step"});
}

struct Measured {
  double seconds = 1e300;
  int64_t flops = 0, bytes = 0;
};
Measured measure(const Bench& bench) {
  Meter meter;
  meter.timing = true;
  {
    const MeterScope scope(meter);
    bench.run();
  }
  Measured m{0, 0, 0};
  for (const MeterRow& row : meter.rows()) {
    if (!bench.only.empty() && std::string_view(row.op).find(bench.only) == std::string_view::npos) continue;
    m.seconds += row.seconds;
    m.flops += row.flops.matmul;
    m.bytes += row.bytes;
  }
  return m;
}

struct Line {
  std::string name;
  DType dtype;
  bool product;
  double seconds, rate, share;  // rate: FLOP/s of products, bytes/s of others; share: of the best product or copy of the same rounds
};

std::vector<Bench> benches(const Operands& o) {
  std::vector<Bench> list;
  add_elementwise(list, o);
  add_rows(list, o);
  add_places(list, o);
  add_products(list, o);
  add_optimizers(list, o);
  return list;
}
// What a line is asked for by: "sum" for "sum of rows".
std::string word_of(const Bench& b) { return b.name.substr(0, b.name.find(' ')); }

// Before memory is taken: the list is that of meta.
void check_names(const std::vector<std::string>& wanted) {
  if (wanted.empty()) return;
  const Ref<Device> meta = open_cpu(Mode::meta);
  std::vector<std::string> names;
  std::string all;
  for (const Bench& b : benches(Operands(*meta, DType::f32))) {
    const std::string word = word_of(b);
    if (std::find(names.begin(), names.end(), word) != names.end()) continue;
    names.push_back(word);
    all += (all.empty() ? "" : " ") + word;
  }
  for (const std::string& name : wanted) {
    const std::string hint = did_you_mean(name, names);
    check_as(Failure::usage, std::find(names.begin(), names.end(), name) != names.end(), "bench ops has no '{}'{}", printable_line(name),
             hint.empty() ? ", it has " + all : hint);
  }
}

std::vector<Line> measure_all(Device& device, DType dtype, const std::vector<std::string>& wanted) {
  const NoGrad guard;
  const Operands o(device, dtype);
  std::vector<Bench> list = benches(o);
  std::erase_if(list,
                [&](const Bench& b) { return !wanted.empty() && std::find(wanted.begin(), wanted.end(), word_of(b)) == wanted.end(); });
  const Tensor slot = empty(device, o.a.spec());
  const Tensor x = o.make({4096, 1024}, 11), w = o.make({4096, 1024}, 12);
  const Bench copy{"copy", false,
                   [&] {
                     call(op::accumulate, {slot, o.a}, AccumulateParams{false});
                   }},
      product{"product", true, [&] { linear(x, w); }};
  std::vector<Line> lines;
  for (Bench& bench : list) {
    const Bench& yardstick = bench.product ? product : copy;
    const auto rate_of = [&](const Measured& m) { return double(bench.product ? m.flops : m.bytes) / m.seconds; };
    bench.run();  // first touches, and what is made once
    Measured best, limit;
    for (int round = 0; round < kRounds; ++round) {  // in turn: what else the machine does slows both
      const Measured l = measure(yardstick), m = measure(bench);
      if (l.seconds < limit.seconds) limit = l;
      if (m.seconds < best.seconds) best = m;
    }
    lines.push_back({bench.name, dtype, bench.product, best.seconds, rate_of(best), rate_of(best) / rate_of(limit)});
    bench.run = {};  // lets go of what it holds
  }
  return lines;
}

void print(const std::vector<Line>& lines) {
  std::printf("%-32s %-5s %9s %10s  %s\n", "operation", "dtype", "ms", "rate", "of a copy or product");
  for (const Line& line : lines)
    std::printf("%-32s %-5s %9.2f %6.1f %s %6.0f %%\n", line.name.c_str(), to_string(line.dtype).c_str(), line.seconds * 1e3,
                line.rate * 1e-9, line.product ? "GFLOP/s" : "GB/s   ", 100 * line.share);
}
std::string json_of(const std::vector<Line>& lines) {
  JsonWriter j(true);
  j.begin_array();
  for (const Line& line : lines) {
    j.begin_object();
    j.key("operation").string(line.name);
    j.key("dtype").string(to_string(line.dtype));
    j.key("seconds").number(line.seconds);
    j.key(line.product ? "flops_per_second" : "bytes_per_second").number(line.rate);
    j.key("share").number(line.share);
    j.end_object();
  }
  j.end_array();
  return j.str() + "\n";
}
}  // namespace

int run_bench_ops(const CommandLine& line) {
  check_names(line.words);
  const Ref<Device> device = open_cpu(Mode::real);
  std::vector<Line> all;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::vector<Line> lines = measure_all(*device, dtype, line.words);
    all.insert(all.end(), lines.begin(), lines.end());
  }
  line.json ? void(std::fputs(json_of(all).c_str(), stdout)) : print(all);
  return 0;
}
}  // namespace reckon
