// benchmarks/rows: bandwidth of the row kernels against a copy of the same run. Every round times each kernel once, so that noise falls on all
// alike; the best round counts. Bytes are those that must be read and written once. Build and run:
//   g++ -std=c++20 -O2 -fopenmp -Isrc benchmarks/rows.cpp build/release/libreckon_engine.a -lhwy -lfmt -o build/bench_rows && build/bench_rows
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "reckon/backend/cpu/activation.h"
#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/embedding.h"
#include "reckon/backend/cpu/loss.h"
#include "reckon/backend/cpu/norm.h"
#include "reckon/backend/cpu/optimizer_lamb.h"
#include "reckon/backend/cpu/random.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/rows_reduce.h"
#include "reckon/backend/cpu/softmax.h"

using namespace reckon;
using namespace reckon::cpu;

namespace {
struct Case {
  std::string name;
  double bytes;
  std::function<void()> run;
  double best = 1e30;
};
using Cases = std::vector<Case>;

constexpr int64_t kRows = 4096, kCols = 768, kN = kRows * kCols, kV = 50304, kLossRows = 256;

// 4 * n bytes, touched once: no page fault falls into a measurement.
using Block = std::vector<float>;
Block normals(int64_t n, uint64_t key, DType dtype) {
  Block block(static_cast<size_t>(n));
  fill_normal(dtype, block.data(), n, key, 0, 0, 1);
  return block;
}

struct Arrays {
  Block x, dy, small, logits;
  explicit Arrays(DType dtype) : x(normals(2 * kN, 1, dtype)), dy(normals(2 * kN, 2, dtype)), small(normals(kCols, 3, dtype)), logits(normals(kLossRows * kV, 4, dtype)) {}
};

void add_norms(Cases& cases, DType dtype, Arrays& in, Block& out, Block& scratch) {
  const double bytes = double(kN * size_of(dtype));
  float* s = scratch.data();
  for (const Norm kind : {Norm::layer, Norm::rms}) {
    const std::string name = kind == Norm::layer ? "layer_norm " : "rms_norm ";
    NormForward f{.kind = kind, .dtype = dtype, .w_dtype = dtype, .rows = kRows, .cols = kCols, .x = in.x.data(), .x_rows = {kCols}, .w = in.small.data()};
    f.y = out.data(), f.y_rows = {kCols}, f.mean = s, f.r = s + kRows;
    cases.push_back({name + to_string(dtype), 2 * bytes, [f] { norm_forward(f); }});
    NormBackward b{.kind = kind, .dtype = dtype, .w_dtype = dtype, .rows = kRows, .cols = kCols, .dy = in.dy.data(), .dy_rows = {kCols}};
    b.x = in.x.data(), b.x_rows = {kCols}, b.w = in.small.data(), b.mean = f.mean, b.r = f.r, b.dx = out.data(), b.dx_rows = {kCols};
    b.dw = s + 2 * kRows, b.db = kind == Norm::layer ? s + 2 * kRows + kCols : nullptr, b.workspace = s + 4 * kRows;
    cases.push_back({name + "back " + to_string(dtype), 3 * bytes, [b] { norm_backward(b); }});
  }
}

void add_activations(Cases& cases, DType dtype, Arrays& in, Block& out) {
  const double bytes = double(kN * size_of(dtype));
  void *x = in.x.data(), *dy = in.dy.data(), *y = out.data();
  const std::string type = to_string(dtype);
  cases.push_back({"gelu " + type, 2 * bytes, [=] { activation(Activation::gelu, dtype, x, y, kN); }});
  cases.push_back({"gelu back " + type, 3 * bytes, [=] { activation_back(Activation::gelu, dtype, dy, x, y, kN); }});
  cases.push_back({"tanh " + type, 2 * bytes, [=] { activation(Activation::tanh, dtype, x, y, kN); }});
  cases.push_back({"swiglu " + type, 3 * bytes, [=] { swiglu(dtype, x, y, kRows, kCols); }});
  cases.push_back({"swiglu back " + type, 5 * bytes, [=] { swiglu_back(dtype, dy, x, y, kRows, kCols); }});
  cases.push_back({"softmax " + type, 2 * bytes, [=] { softmax(false, dtype, x, y, kRows, kCols); }});
  cases.push_back({"softmax back " + type, 3 * bytes, [=] { softmax_back(false, dtype, dy, x, y, kRows, kCols); }});
}

void add_elementwise(Cases& cases, DType dtype, Arrays& in, Block& out) {
  const double bytes = double(kN * size_of(dtype));
  void *x = in.x.data(), *dy = in.dy.data(), *y = out.data();
  const std::string type = to_string(dtype);
  static const int64_t dense[] = {kCols, 1}, row[] = {0, 1}, turned[] = {1, kRows}, heads[] = {256 * kCols, 64, kCols, 1};
  static int64_t dense_heads[4];
  const Shape matrix{kRows, kCols}, by_head{kRows / 256, kCols / 64, 256, 64};  // [B, T, H, D] seen as [B, H, T, D]
  dense_strides(by_head, dense_heads);
  cases.push_back({"add " + type, 3 * bytes, [=] { binary(Binary::add, dtype, matrix, {x, dense}, {dy, dense}, y, dense); }});
  cases.push_back({"add bias " + type, 2 * bytes, [=] { binary(Binary::add, dtype, matrix, {x, dense}, {dy, row}, y, dense); }});
  cases.push_back({"transpose " + type, 2 * bytes, [=] { copy_strided(size_of(dtype), matrix, {x, turned}, y, dense); }});
  cases.push_back({"copy of heads " + type, 2 * bytes, [=] { copy_strided(size_of(dtype), by_head, {x, heads}, y, dense_heads); }});
}

void add_reductions(Cases& cases, DType dtype, Arrays& in, Block& scratch) {
  const double bytes = double(kN * size_of(dtype));
  void *x = in.x.data(), *out = scratch.data(), *work = scratch.data() + 8 * kCols;
  const std::string type = to_string(dtype);
  static const int64_t dense[] = {kCols, 1};
  cases.push_back({"column_sums " + type, bytes, [=] { column_sums(dtype, x, kRows, kCols, kCols, DType::f32, out, false, work); }});
  cases.push_back({"sum of each row " + type, bytes, [=] { reduce(Reduce::sum, dtype, {kRows, kCols}, {x, dense}, 2, DType::f32, out, work); }});
  cases.push_back({"sum over rows " + type, bytes, [=] { reduce(Reduce::sum, dtype, {kRows, kCols}, {x, dense}, 1, DType::f32, out, work); }});
  cases.push_back({"sum of squares " + type, bytes, [=] { sum_of_squares(dtype, x, kN, static_cast<double*>(out), work); }});
}

void add_loss(Cases& cases, DType dtype, Arrays& in, Block& out, Block& scratch) {
  static const std::vector<int32_t> targets(kLossRows, 17);
  const double bytes = double(kLossRows * kV * size_of(dtype));
  float* s = scratch.data();
  CrossEntropy f{.dtype = dtype, .rows = kLossRows, .classes = kV, .logits = in.logits.data(), .targets = targets.data(), .loss = s, .lse = s + kLossRows};
  f.mean = s + 2 * kLossRows, f.count = s + 2 * kLossRows + 1;
  cases.push_back({"cross_entropy " + to_string(dtype), bytes, [f] { cross_entropy(f); }});
  CrossEntropyBack b{.dtype = dtype, .rows = kLossRows, .classes = kV, .logits = in.logits.data(), .targets = targets.data(), .lse = f.lse};
  b.scale = s + 2 * kLossRows + 1, b.count = f.count, b.dlogits = out.data();
  cases.push_back({"cross_entropy back " + to_string(dtype), 2 * bytes, [b] { cross_entropy_back(b); }});
  b.dlogits = in.logits.data();  // from then on the logits are gradients: other numbers, the same work
  cases.push_back({"cross_entropy back, in place " + to_string(dtype), 2 * bytes, [b] { cross_entropy_back(b); }});
}

void add_optimizers(Cases& cases, Block& p, Block& g, Block& m, Block& v, Block& planes) {
  static double scalars[kStepScalars];
  scalars[kLearningRate] = 1e-6, scalars[kBeta1] = 0.9, scalars[kBeta2] = 0.95, scalars[kBiasFactor1] = scalars[kBiasFactor2] = 0.5;
  scalars[kEpsilon] = 1e-8, scalars[kClip] = scalars[kOk] = 1;
  OptimizerStep a{.kind = Optimizer::adamw, .n = kN, .p = p.data(), .g = g.data(), .m = m.data(), .v = v.data(), .weight_decay = 0.1, .scalars = scalars};
  cases.push_back({"adamw f32", 28.0 * kN, [a] { optimizer_step(a); }});
  OptimizerStep sgd = a;
  sgd.kind = Optimizer::sgd;
  cases.push_back({"sgd f32", 12.0 * kN, [sgd] { optimizer_step(sgd); }});
  const std::tuple<Optimizer, const char*, double> others[] = {{Optimizer::momentum, "momentum f32", 20.0}, {Optimizer::nesterov, "nesterov f32", 20.0},
                                                               {Optimizer::adagrad, "adagrad f32", 20.0},   {Optimizer::rmsprop, "rmsprop f32", 20.0},
                                                               {Optimizer::rmsprop_momentum, "rmsprop with momentum f32", 28.0}};
  for (const auto& [kind, name, bytes] : others) {
    OptimizerStep other = a;
    other.kind = kind;
    cases.push_back({name, bytes * kN, [other] { optimizer_step(other); }});
  }
  OptimizerStep adam = a;
  adam.coupled = true;
  cases.push_back({"adam f32", 28.0 * kN, [adam] { optimizer_step(adam); }});
  // Of one tensor: a ratio is a sum over all of it, whatever their number.
  static const int64_t places[] = {0, kN};
  static double ratio;
  static std::vector<std::byte> workspace(size_t(lamb_workspace(kN, 1)));
  const LambStep lamb{.step = a, .parameters = 1, .places = places, .ratios = &ratio, .phi_low = 0, .phi_high = 10};
  cases.push_back({"lamb, moments f32", 24.0 * kN, [lamb] { lamb_moments(lamb, workspace.data()); }});
  cases.push_back({"lamb, weights f32", 16.0 * kN, [lamb] { lamb_step(lamb); }});
  uint16_t* halves = reinterpret_cast<uint16_t*>(planes.data());
  split_master(p.data(), halves, halves + kN, kN);
  a.dtype = DType::bf16, a.p = halves, a.residual = halves + kN;
  cases.push_back({"adamw bf16 + residual", 28.0 * kN, [a] { optimizer_step(a); }});
}

void add_rest(Cases& cases, Arrays& in, Block& out) {
  void *x = in.x.data(), *dy = in.dy.data(), *y = out.data();
  cases.push_back({"f32 to bf16", 6.0 * kN, [=] { convert(DType::f32, x, DType::bf16, y, kN); }});
  cases.push_back({"bf16 to f32", 6.0 * kN, [=] { convert(DType::bf16, x, DType::f32, y, kN); }});
  cases.push_back({"f32 to f16", 6.0 * kN, [=] { convert(DType::f32, x, DType::f16, y, kN); }});
  static std::vector<int32_t> ids(kRows);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i * 7919 % kRows);
  Embedding e{.rows = kRows, .vocab = kRows, .cols = kCols, .ids = ids.data(), .table = x, .positions = dy, .max_positions = 256, .T = 256};
  e.y = y;
  cases.push_back({"embedding + positions f32", 8.0 * kN, [e] { embedding(e); }});
  EmbeddingBack b{.rows = kRows, .vocab = kRows, .cols = kCols, .ids = ids.data(), .dy = dy, .dtable = y, .accumulate = true};
  cases.push_back({"embedding back f32", 12.0 * kN, [b] { embedding_back(b); }});
  cases.push_back({"fill f32", 4.0 * kN, [=] { fill(DType::f32, y, kN, 1.5); }});
  cases.push_back({"fill_uniform f32", 4.0 * kN, [=] { fill_uniform(DType::f32, y, kN, 5, 0, 0, 1); }});
  cases.push_back({"fill_normal f32", 4.0 * kN, [=] { fill_normal(DType::f32, y, kN, 5, 0, 0, 1); }});
  cases.push_back({"fill_truncated_normal f32", 4.0 * kN, [=] { fill_truncated_normal(DType::f32, y, kN, 5, 0, 0, 1, -2, 2); }});
}
}  // namespace

int main() {
  Arrays f32(DType::f32), bf16(DType::bf16);
  Block out(kLossRows * kV), scratch(1 << 22), p = normals(kN, 5, DType::f32), planes(kN), m(kN), v(kN, 0.1f);
  Cases cases;
  void *x = f32.x.data(), *logits = f32.logits.data(), *y = out.data();
  cases.push_back({"copy, 2 x 12.6 MB", 8.0 * kN, [=] { copy_bytes(x, y, 4 * kN); }});
  cases.push_back({"copy, 2 x 51.5 MB", 8.0 * kLossRows * kV, [=] { copy_bytes(logits, y, 4 * kLossRows * kV); }});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Arrays& in = dtype == DType::f32 ? f32 : bf16;
    add_norms(cases, dtype, in, out, scratch);
    add_activations(cases, dtype, in, out);
    add_elementwise(cases, dtype, in, out);
    add_reductions(cases, dtype, in, scratch);
    add_loss(cases, dtype, in, out, scratch);
  }
  add_optimizers(cases, p, f32.dy, m, v, planes);
  add_rest(cases, f32, out);
  for (int round = 0; round < 15; ++round) {
    for (Case& c : cases) {
      const auto start = std::chrono::steady_clock::now();
      c.run();
      c.best = std::min(c.best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
  }
  const double copy = cases[0].bytes / cases[0].best;
  std::printf("%-34s %9s %8s %8s\n", "kernel", "ms", "GB/s", "of copy");
  for (const Case& c : cases) std::printf("%-34s %9.3f %8.1f %7.0f%%\n", c.name.c_str(), c.best * 1e3, c.bytes / c.best / 1e9, 100 * c.bytes / c.best / copy);
}
