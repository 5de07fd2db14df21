#include "reckon/cli/op_cases_judge.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"

namespace reckon {
namespace {

struct Outcome {
  std::vector<BuiltInput> in;
  Tensors out;
};
Tensors seen_of(const std::vector<BuiltInput>& in) {
  Tensors seen;
  for (const BuiltInput& input : in) seen.push_back(input.seen);
  return seen;
}
// The forward pass, on fresh inputs.
Outcome run_forward(const OpCase& c, Device& device, DType dtype, bool requires_grad) {
  const PhaseScope phase(device, Phase::forward);
  Outcome o;
  o.in = build_inputs(c, device, dtype, requires_grad);
  o.out = c.body->run(device, dtype, seen_of(o.in));
  return o;
}
// A cotangent for the first output: the same numbers on every device.
Tensor cotangent(const OpCase& c, const Tensor& out) {
  return tensor_of(out.device(), out.shape(), out.dtype(), random_values(out.numel(), mix_key(uint64_t(c.index), out.numel()), 99));
}
bool has_gradients(const OpCase& c) {
  return c.differentiable &&
         std::any_of(c.inputs.begin(), c.inputs.end(), [](const CaseInput& in) { return in.follows || is_float(in.dtype); });
}
Outcome run_both(const OpCase& c, Device& device, DType dtype) {
  Outcome o = run_forward(c, device, dtype, has_gradients(c));
  if (has_gradients(c)) {
    const PhaseScope phase(device, Phase::backward);
    backward(o.out[0], cotangent(c, o.out[0]));
  }
  return o;
}

double smallest(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x1p-149;
    case DType::bf16:
      return 0x1p-133;
    case DType::f16:
      return 0x1p-24;
    default:
      return 0x1p-1074;
  }
}
// What the reference says a result may be off by, and the rounding to its own type.
double tolerance(const Real& want, DType computed, DType kept) {
  const double unit = epsilon(statistics_dtype(computed)), half = epsilon(computed) / 2, result = epsilon(kept) / 2 * magnitude(want.value);
  const double first_order = unit * want.rounded + half * want.stored + result;
  return want.slack + first_order * (1 + 16 * epsilon(computed)) + smallest(kept) / 2;
}
}  // namespace

std::string judge_values(const OpCase& c, Device& device, DType dtype) {
  const NoGrad guard;
  // The reference reads its inputs first: an operation may write them.
  const std::vector<BuiltInput> in = build_inputs(c, device, dtype, false);
  Arrays arrays;
  for (const BuiltInput& input : in) arrays.emplace_back(input.seen);
  const Arrays want = c.body->reference(dtype, arrays);
  const Tensors got = c.body->run(device, dtype, seen_of(in));
  if (got.size() != want.size()) return text("{} {}: {} results, {} expected", c, dtype, got.size(), want.size());
  for (size_t o = 0; o < got.size(); ++o) {
    if (!(got[o].shape() == want[o].shape))
      return text("{} {}: result {} is {}, the reference says {}", c, dtype, o, got[o], want[o].shape);
    const std::vector<double> values = got[o].to_vector();
    for (int64_t i = 0; i < want[o].size(); ++i) {
      const Real& w = want[o][i];
      const double g = values[size_t(i)], allowed = is_float(got[o].dtype()) ? tolerance(w, dtype, got[o].dtype()) : 0;
      const bool same = g == w.value || (std::isnan(g) && std::isnan(w.value));
      if (!same && !(magnitude(g - w.value) <= allowed))
        return text("{} {}: result {} element {} is {:.17g}, the reference says {:.17g}; off by {:.3g}, allowed {:.3g}", c, dtype, o, i, g,
                    w.value, magnitude(g - w.value), allowed);
    }
  }
  return {};
}

// ---- gradients by differences
namespace {
// Scalar functions of one leaf: sum(weights * f(leaves)). The other leaves stay as they are.
struct Probe {
  Device& device;
  const OpCase& c;
  Tensors leaves;
  size_t varied;
  std::vector<double> values;  // of the varied leaf
  std::vector<double> weights;
  Tensors (*results)(const Probe&);

  std::vector<double> at(const std::vector<double>& direction, double distance) const {
    std::vector<double> moved = values;
    for (size_t i = 0; i < moved.size(); ++i) moved[i] += distance * direction[i];
    leaves[varied].write(moved.data(), int64_t(moved.size() * sizeof(double)));
    std::vector<double> all;
    for (const Tensor& r : results(*this)) {
      const std::vector<double> some = r.to_vector();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  // The derivative along a direction, of fourth order: the error is h^4 f'''''/30, and about eps * f / h from rounding.
  double derivative(const std::vector<double>& direction) const {
    constexpr double h = 1e-3;
    const std::vector<double> far_plus = at(direction, 2 * h), plus = at(direction, h), minus = at(direction, -h),
                              far_minus = at(direction, -2 * h);
    leaves[varied].write(values.data(), int64_t(values.size() * sizeof(double)));
    double sum = 0;
    for (size_t i = 0; i < plus.size(); ++i) sum += weights[i] * (8 * (plus[i] - minus[i]) - (far_plus[i] - far_minus[i]));
    return sum / (12 * h);
  }
};

constexpr int64_t kAllUpTo = 24, kSomeOf = 3;

// The first element, or the direction, whose derivative is not what the gradient says.
std::string compare(const Probe& probe, const std::vector<double>& gradient, const char* what) {
  const int64_t n = int64_t(gradient.size());
  double largest = 0;
  for (const double g : gradient) largest = std::max(largest, magnitude(g));
  const auto judge = [&](const std::vector<double>& direction, double want, double scale, const std::string& where) -> std::string {
    const double got = probe.derivative(direction);
    // Not (<=): a NaN is a failure. Where all gradients vanish the differences must, too.
    if (magnitude(got - want) <= 1e-6 * scale + 1e-10) return {};
    return text("{} {} of input {} {}: {:.10g}, by differences {:.10g}; the largest is {:.3g}", probe.c, what, probe.varied, where, want,
                got, scale);
  };
  const bool all = n <= kAllUpTo;
  for (int64_t k = 0; k < (all ? n : kSomeOf); ++k) {
    const int64_t i = all ? k : int64_t(mix_key(uint64_t(k), uint64_t(n)) % uint64_t(n));
    std::vector<double> direction(gradient.size());
    direction[size_t(i)] = 1;
    if (std::string wrong = judge(direction, gradient[size_t(i)], largest, text("at element {}", i)); !wrong.empty()) return wrong;
  }
  if (all) return {};
  // +-1 everywhere: wrong elements anywhere show, up to chance; the sum's own size is sqrt(n) of the largest.
  std::vector<double> direction = random_values(n, 7, 7);
  double want = 0;
  for (int64_t i = 0; i < n; ++i) {
    direction[size_t(i)] = direction[size_t(i)] < 0 ? -1 : 1;
    want += direction[size_t(i)] * gradient[size_t(i)];
  }
  return judge(direction, want, largest * std::sqrt(double(n)), "along a direction");
}
}  // namespace

std::string judge_gradients(const OpCase& c, Device& device) {
  if (!has_gradients(c) || !c.runs_with(DType::f64)) return {};
  const Outcome o = run_forward(c, device, DType::f64, true);
  const Tensor seed = cotangent(c, o.out[0]);
  backward(o.out[0], seed);
  Tensors leaves;
  for (const BuiltInput& input : o.in) leaves.push_back(input.leaf);
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    if (!leaves[i].grad().defined()) return text("{}: input {} got no gradient", c, i);
    Probe probe{device, c, leaves, i, leaves[i].to_vector(), seed.to_vector(), [](const Probe& p) {
                  const NoGrad guard;
                  return Tensors{p.c.body->run(p.device, DType::f64, see(p.c, p.leaves))[0]};
                }};
    if (std::string wrong = compare(probe, leaves[i].grad().to_vector(), "gradient"); !wrong.empty()) return wrong;
  }
  return {};
}

std::string judge_second_order(const OpCase& c, Device& device) {
  constexpr int64_t kSmall = 1000;  // elements; the kernels are those of the first order, and large inputs are tried there
  for (const CaseInput& input : c.inputs)
    if (input.shape.numel() > kSmall) return {};
  if (!has_gradients(c)) return {};
  const BackwardOptions recorded{.create_graph = true, .allow_unused = true}, plain{.allow_unused = true};  // integers have no gradient
  // g(leaves) = gradients of sum(f * seed); its own gradient along fixed weights is compared with differences of g.
  const auto first = [](const OpCase& of, Device& on, const Tensors& leaves, const BackwardOptions& options) {
    const Tensor y = of.body->run(on, DType::f64, see(of, leaves))[0];
    return grad(y, leaves, cotangent(of, y), options);
  };
  Tensors leaves;
  for (const BuiltInput& input : build_inputs(c, device, DType::f64, true)) leaves.push_back(input.leaf);
  Tensors g;
  try {
    g = first(c, device, leaves, recorded);
  } catch (const Error& error) {
    if (error.kind() == Failure::interrupted) throw;
    return text("{}: second order: {}", c, error.what());
  }
  std::vector<double> weights;
  Tensor total;
  for (size_t i = 0; i < g.size(); ++i) {
    if (!g[i].defined()) continue;
    const std::vector<double> w = random_values(g[i].numel(), 31, i);
    weights.insert(weights.end(), w.begin(), w.end());
    if (!g[i].requires_grad()) continue;  // a gradient that does not depend on the inputs
    const Tensor part = sum(mul(g[i], tensor_of(device, g[i].shape(), DType::f64, w)));
    total = total.defined() ? add(total, part) : part;
  }
  const Tensors second = total.defined() ? grad(total, leaves, {}, plain) : Tensors(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    Probe probe{device, c, leaves, i, leaves[i].to_vector(), weights, [](const Probe& p) {
                  const Tensor y = p.c.body->run(p.device, DType::f64, see(p.c, p.leaves))[0];
                  Tensors defined;
                  for (const Tensor& one : grad(y, p.leaves, cotangent(p.c, y), {.allow_unused = true}))
                    if (one.defined()) defined.push_back(one);
                  return defined;
                }};
    const std::vector<double> want = second[i].defined() ? second[i].to_vector() : std::vector<double>(size_t(leaves[i].numel()));
    if (std::string wrong = compare(probe, want, "second derivative"); !wrong.empty()) return wrong;
  }
  return {};
}

// ---- gradients in other types and places
namespace {
// A leaf whose gradient is asked for, in `dtype`, with values that were rounded to `rounded`.
Tensors leaves_of(const OpCase& c, Device& device, DType dtype, DType rounded) {
  Tensors leaves;
  const std::vector<BuiltInput> like = build_inputs(c, device, rounded, false);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const DType kept = c.inputs[i].follows ? dtype : c.inputs[i].dtype;
    Tensor leaf = tensor_of(device, like[i].leaf.shape(), kept, leaf_values(c, i, rounded));
    if (is_float(kept)) leaf.set_requires_grad();
    leaves.push_back(leaf);
  }
  return leaves;
}
// Gradients of the leaves for a cotangent that is exact in `rounded`.
void differentiate(const OpCase& c, Device& device, DType dtype, DType rounded, const Tensors& leaves) {
  const Tensor y = c.body->run(device, dtype, see(c, leaves))[0];
  const Tensor seed = cast(tensor_of(device, y.shape(), rounded, cotangent(c, y).to_vector()), y.dtype());
  backward(y, seed);
}
}  // namespace

std::string judge_narrow_gradients(const OpCase& c, Device& device, DType dtype) {
  if (!has_gradients(c) || !c.runs_with(dtype) || !c.runs_with(DType::f64)) return {};
  const Tensors narrow = leaves_of(c, device, dtype, dtype), wide = leaves_of(c, device, DType::f64, dtype);
  differentiate(c, device, dtype, dtype, narrow);
  differentiate(c, device, DType::f64, dtype, wide);
  for (size_t i = 0; i < narrow.size(); ++i) {
    if (!narrow[i].requires_grad()) continue;
    const std::vector<double> got = narrow[i].grad().to_vector(), want = wide[i].grad().to_vector();
    double largest = 0;
    for (const double w : want) largest = std::max(largest, magnitude(w));
    // A rule is a handful of operations, each rounding its result to `dtype` and summing up to n terms in at least float32, whose errors
    // walk randomly. Where terms cancel, they are about as large as the cotangent (at most 1): a kept output rounds them by half an
    // epsilon.
    int64_t terms = 1;
    for (const Tensor& leaf : wide) terms = std::max(terms, leaf.numel());
    const double sums = 8 * epsilon(statistics_dtype(dtype)),
                 allowed = largest * (16 * epsilon(dtype) + sums * std::sqrt(double(terms))) + epsilon(dtype) / 2 + sums;
    for (size_t k = 0; k < got.size(); ++k)
      if (!(magnitude(got[k] - want[k]) <= allowed))
        return text("{} {}: gradient of input {} element {} is {:.9g}, in f64 {:.9g}; off by {:.3g}, allowed {:.3g}", c, dtype, i, k,
                    got[k], want[k], magnitude(got[k] - want[k]), allowed);
  }
  return {};
}

std::string judge_slots(const OpCase& c, Device& device) {
  if (!has_gradients(c)) return {};
  const Tensors bare = leaves_of(c, device, DType::f64, DType::f64), slotted = leaves_of(c, device, DType::f64, DType::f64);
  differentiate(c, device, DType::f64, DType::f64, bare);
  Tensors slots(slotted.size());
  for (size_t i = 0; i < slotted.size(); ++i) {
    if (!slotted[i].requires_grad()) continue;
    slots[i] = full(device, slotted[i].spec(), 1e300);  // an empty slot is overwritten, whatever it holds
    Tensor(slotted[i]).set_grad_slot(slots[i]);
  }
  for (const double times : {1.0, 2.0, 3.0}) {
    differentiate(c, device, DType::f64, DType::f64, slotted);
    for (size_t i = 0; i < slotted.size(); ++i) {
      if (!slotted[i].requires_grad()) continue;
      if (!slotted[i].grad().defined() || !slotted[i].grad().same_storage(slots[i]))
        return text("{}: the gradient of input {} is not in its slot", c, i);
      const std::vector<double> got = slotted[i].grad().to_vector(), want = bare[i].grad().to_vector();
      double largest = 0;
      for (const double w : want) largest = std::max(largest, magnitude(w));
      // Adding to a slot may sum in another order than adding up afterwards.
      const double allowed = 4 * epsilon(DType::f64) * times * largest * std::sqrt(double(bare[i].numel()));
      for (size_t k = 0; k < got.size(); ++k)
        if (!(magnitude(got[k] - times * want[k]) <= allowed))
          return text("{}: slot of input {} element {} after {} passes is {:.17g}, one gradient is {:.17g}", c, i, k, times, got[k],
                      want[k]);
    }
  }
  return {};
}

// ---- two devices, many threads
namespace {
std::string describe(const Ledger& a, const Ledger& b) {
  if (a.live != b.live || a.live_by_category != b.live_by_category) return text("live bytes {} and {}", a.live, b.live);
  if (a.peak != b.peak || a.at_peak != b.at_peak) return text("peak bytes {} and {}", a.peak, b.peak);
  if (a.extent != b.extent) return text("extent {} and {}", a.extent, b.extent);
  if (a.allocations != b.allocations) return text("{} and {} allocations", a.allocations, b.allocations);
  return a.phase_peak == b.phase_peak ? "" : "peaks of phases";
}
std::string describe(const std::vector<MeterRow>& a, const std::vector<MeterRow>& b) {
  if (a.size() != b.size()) return text("{} and {} kinds of calls", a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    if (std::string_view(a[i].op) != b[i].op || a[i].phase != b[i].phase || a[i].calls != b[i].calls || !(a[i].flops == b[i].flops) ||
        a[i].bytes != b[i].bytes)
      return text("calls, FLOPs or bytes of {}", a[i].op);
  return {};
}
}  // namespace

std::string judge_meta(const OpCase& c, const DevicePair& devices, DType dtype) {
  Meter real_meter, meta_meter;
  {
    Outcome real, meta;
    {
      const MeterScope scope(real_meter);
      real = run_both(c, *devices.real, dtype);
    }
    {
      const MeterScope scope(meta_meter);
      meta = run_both(c, *devices.meta, dtype);
    }
    for (size_t i = 0; i < real.out.size(); ++i)
      if (!(real.out[i].spec() == meta.out[i].spec()))
        return text("{} {}: result {} is {}, on meta {}", c, dtype, i, real.out[i], meta.out[i]);
    for (size_t i = 0; i < real.in.size(); ++i) {
      const Tensor a = real.in[i].leaf.grad(), b = meta.in[i].leaf.grad();
      if (a.defined() != b.defined() || (a.defined() && !(a.spec() == b.spec())))
        return text("{} {}: gradient {} is {}, on meta {}", c, dtype, i, a, b);
    }
  }
  if (const std::string wrong = describe(real_meter.rows(), meta_meter.rows()); !wrong.empty())
    return text("{} {}: real and meta differ: {}", c, dtype, wrong);
  Allocator &real = devices.real->allocator(), &meta = devices.meta->allocator();
  if (const std::string wrong = describe(real.ledger(), meta.ledger()); !wrong.empty())
    return text("{} {}: real and meta differ: {}", c, dtype, wrong);
  if (real.trace_hash() != meta.trace_hash()) return text("{} {}: trace hashes of real and meta differ", c, dtype);
  return {};
}

uint64_t bits_of(const OpCase& c, Device& device, DType dtype) {
  const Outcome o = run_both(c, device, dtype);
  uint64_t hash = 0;
  const auto append = [&](const Tensor& t) {
    for (const double v : t.to_vector()) hash = mix_key(hash, std::bit_cast<uint64_t>(v));
  };
  for (const Tensor& t : o.out) append(t);
  for (const BuiltInput& in : o.in)
    if (in.leaf.grad().defined()) append(in.leaf.grad());
  return hash;
}

std::vector<std::string> rows_of(const OpCase& c, Device& meta) {
  Meter meter;
  const MeterScope scope(meter);
  const DType dtype = c.runs_with(DType::f64) ? DType::f64 : DType::f32;
  run_both(c, meta, dtype);
  std::vector<std::string> names;
  for (const MeterRow& row : meter.rows()) names.emplace_back(row.op);
  return names;
}
}  // namespace reckon
