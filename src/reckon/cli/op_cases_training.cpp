// cli/op_cases: the operations of an optimizer step.
#include <algorithm>
#include <cmath>

#include "reckon/cli/op_cases_optimizers.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/state_blocks.h"
#include "reckon/ops/training.h"

namespace reckon {
std::vector<double> step_scalars(double learning_rate, double clip, bool ok) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = learning_rate;
  s[kBeta1] = 0.9;
  s[kBeta2] = 0.95;
  s[kBiasFactor1] = 1 - std::pow(0.9, 3);
  s[kBiasFactor2] = 1 - std::pow(0.95, 3);
  s[kEpsilon] = 1e-8;
  s[kMaxNorm] = 1;
  s[kLossScale] = 2;
  s[kClip] = clip;
  s[kOk] = ok;
  return s;
}

CaseWeights::CaseWeights(Device& device, const Tensor& given) : working_(given), master_(given) {
  if (given.dtype() != DType::bf16 && given.dtype() != DType::f16) return;
  master_ = cast(given, DType::f32);
  if (given.dtype() == DType::f16) return;
  working_ = empty(device, given.spec());
  residual_ = empty(device, given.spec());
  split_master_(master_, working_, residual_);
}
void CaseWeights::append_to(Tensors& args) const {
  if (residual_.defined()) args.push_back(residual_);
  if (working_.dtype() == DType::f16) args.push_back(master_);
}
Tensors CaseWeights::after() const {
  if (residual_.defined()) join_master_(master_, working_, residual_);
  return working_.dtype() == DType::f16 ? Tensors{master_, working_} : Tensors{master_};
}
void append_weights(Arrays& results, const Array& weights, DType dtype, bool moved) {
  for (int copies = dtype == DType::f16 ? 2 : 1; copies > 0; --copies) results.push_back(weights);
  if (dtype != DType::bf16) return;
  const double step = moved ? epsilon(DType::bf16) : 0;
  results.push_back(map(weights, [=](const Real& w) { return Real(w.value, w.rounded, w.stored, step * magnitude(w.value)); }));
}

namespace {
constexpr uint32_t kSingle = 1u << int(DType::f32), kDouble = 1u << int(DType::f64);

void add_sums(CaseList& list) {
  list.op("sum_of_squares", false);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay)}, [](const Tensors& x) { return sum_of_squares(x[0]); },
        [](const Arrays& x) {
          Real sum;
          for (const Real& r : x[0].values) sum += r * r;
          return Array(Shape{1}, {sum});
        });
}

void add_clip(CaseList& list) {
  list.op("clip", false, kSingle | kDouble);
  for (const double max_norm : {0.0, 1.0, 100.0})
    for (const double scale : {1.0, 1024.0, 1.5})
      for (const double interval : {0.0, 3.0, 4.0})  // with two good steps behind
        for (const double loss : {2.5, double(NAN), double(INFINITY)})
          for (const double last : {4.0, double(INFINITY)}) {
            std::vector<double> before = step_scalars(0.1, 0, false);
            before[kMaxNorm] = max_norm;
            before[kLossScale] = scale;
            before[kGrowthInterval] = interval;
            before[kGoodSteps] = 2;
            list.add(
                {CaseInput::of({kStepScalars}, DType::f64, before), CaseInput::of({}, {loss}), CaseInput::of({1}, DType::f64, {9}),
                 CaseInput::of({1}, DType::f64, {last})},
                [](const Tensors& x) {
                  clip_(x[0], x[1], {x[2], x[3]});
                  return x[0];
                },
                [=](const Arrays& x) {
                  Array after = x[0];
                  const double norm = std::sqrt(9 + last) / scale;
                  const bool ok = std::isfinite(norm) && std::isfinite(loss);
                  after[kGradNorm] = store(norm);
                  after[kClip] = store((max_norm == 0 ? 1 : std::min(1.0, max_norm / (norm + 1e-6))) / scale);
                  after[kOk] = ok;
                  after[kUsedScale] = scale;
                  if (interval == 0) return after;
                  after[kLossScale] = !ok ? std::max(1.0, scale / 2) : interval == 3 ? 2 * scale : scale;
                  after[kGoodSteps] = ok && interval > 3 ? 3 : 0;
                  return after;
                });
          }
}

void add_masters(CaseList& list) {
  // x -> bf16 working copy, rounded half away from 0, and residual -> x again, every bit.
  list.op("split_master", false, kSingle);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay).range(-100, 100)},
        [](Device& device, DType, const Tensors& x) {
          const Tensor master = contiguous(x[0]), working = empty(device, {x[0].shape(), DType::bf16}),
                       residual = empty(device, working.spec());
          split_master_(master, working, residual);
          return working;
        },
        [](const Arrays& x) { return x[0]; });
  list.op("join_master", false, kSingle);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay).range(-100, 100)},
        [](Device& device, DType, const Tensors& x) {
          const Tensor master = contiguous(x[0]), working = empty(device, {x[0].shape(), DType::bf16}),
                       residual = empty(device, working.spec());
          const Tensor joined = empty(device, x[0].spec());
          split_master_(master, working, residual);
          join_master_(joined, working, residual);
          // Equal as numbers and as bits: the difference is +0 everywhere.
          return Tensors{joined, sub(joined, master)};
        },
        [](const Arrays& x) {
          return Arrays{x[0], Array(x[0].shape)};
        });
}

// One optimizer: what it does to a weight and its states, with the gradient already clipped and decay where it belongs.
struct Rule {
  const char* name;
  const OpDef* row;
  int states;
  void (*update)(const std::vector<double>& s, const Real& g, Real& p, Real* state);
  OptimizerParams params = {};
  bool always_coupled = false;
};
void update_adamw(const std::vector<double>& s, const Real& g, Real& p, Real* state) {
  state[0] = Real(s[kBeta1]) * state[0] + Real(1 - s[kBeta1]) * g;
  state[1] = Real(s[kBeta2]) * state[1] + Real(1 - s[kBeta2]) * g * g;
  p = p - Real(s[kLearningRate]) * (state[0] / Real(s[kBiasFactor1])) / (sqrt(state[1] / Real(s[kBiasFactor2])) + Real(s[kEpsilon]));
}
// What rmsprop takes its root of.
Real mean_square(const std::vector<double>& s, const Real& g, Real& square) {
  return square = Real(s[kBeta2]) * square + Real(1 - s[kBeta2]) * g * g;
}
Real variance(const std::vector<double>& s, const Real& g, Real* state) {
  mean_square(s, g, state[0]);
  state[1] = Real(s[kBeta2]) * state[1] + Real(1 - s[kBeta2]) * g;
  return state[0] - state[1] * state[1];
}
// Its step, along the quotient itself or along a velocity.
void along(const std::vector<double>& s, const Real& g, const Real& square, Real& p) {
  p = p - Real(s[kLearningRate]) * g / (sqrt(square) + Real(s[kEpsilon]));
}
void along(const std::vector<double>& s, const Real& g, const Real& square, Real& p, Real& velocity) {
  velocity = Real(s[kBeta1]) * velocity + g / (sqrt(square) + Real(s[kEpsilon]));
  p = p - Real(s[kLearningRate]) * velocity;
}
const Rule kRules[] = {
    {"sgd_step", &op::sgd_step, 0, [](const std::vector<double>& s, const Real& g, Real& p, Real*) { p = p - Real(s[kLearningRate]) * g; }},
    {"momentum_step", &op::momentum_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = Real(s[kBeta1]) * state[0] + g;
       p = p - Real(s[kLearningRate]) * state[0];
     }},
    {"nesterov_step", &op::nesterov_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = Real(s[kBeta1]) * state[0] + g;
       p = p - Real(s[kLearningRate]) * (g + Real(s[kBeta1]) * state[0]);
     }},
    {"adagrad_step", &op::adagrad_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = state[0] + g * g;
       p = p - Real(s[kLearningRate]) * g / (sqrt(state[0]) + Real(s[kEpsilon]));
     }},
    {"adam_step", &op::adam_step, 2, update_adamw, {}, true},
    {"adamw_step", &op::adamw_step, 2, update_adamw},
};
// States: mean square (, mean) (, velocity).
const Rule kRmsprop[] = {
    {"rmsprop_step", &op::rmsprop_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) { along(s, g, mean_square(s, g, state[0]), p); }},
    {"rmsprop_step",
     &op::rmsprop_step,
     2,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) { along(s, g, mean_square(s, g, state[0]), p, state[1]); },
     {.momentum = true}},
    {"rmsprop_step",
     &op::rmsprop_step,
     2,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) { along(s, g, variance(s, g, state), p); },
     {.centered = true}},
    {"rmsprop_step",
     &op::rmsprop_step,
     3,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) { along(s, g, variance(s, g, state), p, state[2]); },
     {.centered = true, .momentum = true}},
};

// Runs the step and returns the states and weights after it; bf16 weights also as they are after a step without a residual plane.
Tensors run_step(const OpDef& row, Device& device, DType dtype, const Tensors& in, OptimizerParams params) {
  const CaseWeights weights(device, in[1]);
  Tensors args{in[0], weights.working()};
  for (size_t i = 2; i < in.size(); ++i) args.push_back(cast(in[i], statistics_dtype(dtype)));
  weights.append_to(args);
  call(row, args, params);
  Tensors after(args.begin() + 3, args.begin() + long(in.size()));
  for (const Tensor& w : weights.after()) after.push_back(w);
  if (dtype != DType::bf16) return after;
  Tensors alone{in[0], in[1]};
  for (size_t i = 2; i < in.size(); ++i) alone.push_back(cast(in[i], DType::f32));
  params.first = 96;
  params.bucket = 1;
  call(row, alone, params);
  after.push_back(in[1]);
  return after;
}

// A rule's case number `at`, on n weights.
void add_step(CaseList& list, const Rule& rule, int64_t n, int at) {
  OptimizerParams params = rule.params;
  params.weight_decay = at % 3 == 0 ? 0.0 : at % 3 == 1 ? 0.1 : 0.01;
  params.coupled = !rule.always_coupled && at / 3 % 2 == 1;
  params.lr_scale = at % 5 == 4 ? 0.5 : 1;
  const bool ok = at % 7 != 6, coupled = params.coupled || rule.always_coupled;
  const std::vector<double> s = step_scalars(0.05, at % 2 ? 0.25 : 1, ok);
  CaseInputs inputs{CaseInput::of({kStepScalars}, DType::f64, s), CaseInput(Shape{n}).range(-2, 2), CaseInput(Shape{n}).range(-3, 3)};
  for (int i = 0; i < rule.states; ++i)
    inputs.push_back(params.centered && i == 0 ? CaseInput(Shape{n}).range(2, 3)
                                               : CaseInput(Shape{n}).range(0.1, 1));  // a variance above 0
  list.add(
      inputs, [=](Device& device, DType dtype, const Tensors& x) { return run_step(*rule.row, device, dtype, x, params); },
      [=](DType dtype, const Arrays& x) {
        Arrays after(x.begin() + 3, x.end());
        Array weights = x[1];
        std::vector<double> scaled = s;
        scaled[kLearningRate] *= params.lr_scale;
        const Real decay(params.weight_decay, params.weight_decay, 0, 0);
        for (int64_t i = 0; i < n && ok; ++i) {
          Real states[3], g = x[2][i] * Real(s[kClip]);
          for (int k = 0; k < rule.states; ++k) states[k] = after[size_t(k)][i];
          if (coupled) {
            g = g + decay * weights[i];
          } else {
            weights[i] = weights[i] * (Real(1) - Real(scaled[kLearningRate] * params.weight_decay));
          }
          rule.update(scaled, g, weights[i], states);
          for (int k = 0; k < rule.states; ++k) after[size_t(k)][i] = states[k];
        }
        append_weights(after, weights, dtype, ok);
        return after;
      });
}
void add_steps(CaseList& list, std::span<const Rule> rules) {
  list.op(rules[0].name, false);
  int at = 0;
  for (const int64_t n : {0, 1, 7, 16, 33, 100, 257, 2049, 16391})
    for (int i = 0; i < 6; ++i, ++at) add_step(list, rules[size_t(at + at / 6) % rules.size()], n, at);
}

// ---- AdamW with 8-bit states
// What a code stands for, from the definition: the leading zeros of the magnitude divide by 10, the bits behind its first one are a part of
// [0.1, 1]; the one code that this leaves over is 1. A kernel makes it by a product and a sum of at most 1.8 times the decade.
Real value_of(int code, bool is_signed) {
  const int bits = is_signed ? 7 : 8, c = is_signed ? code & 127 : code;
  if (code == (is_signed ? 128 : 1)) return 1;
  if (c == 0) return 0;
  int p = 0;
  while (c >> (p + 1)) ++p;
  const double decade = std::pow(10.0, p + 1 - bits), fraction = (c - (1 << p) + 0.5) / (1 << p);
  return {(is_signed && code > 127 ? -1 : 1) * decade * (0.1 + 0.9 * fraction), 3 * decade, 0, 0};
}

// Restores codes with operations, so that meta does the same: table [256, 1] of values, codes u8 [N], scales f32 [N / kStateBlock].
Tensor restore(const Tensor& table, const Tensor& codes, const Tensor& scales) {
  const int64_t blocks = scales.numel();
  const Tensor values = reshape(embedding(table, cast(codes, DType::i32)), {blocks, kStateBlock});
  return reshape(mul(values, reshape(scales, {blocks, 1})), codes.shape());
}

// Appends what quantizing should restore, and the scale of each block.
void append_quantized(Arrays& results, const Array& exact, bool is_signed) {
  std::vector<double> values;
  for (int code = 0; code < 256; ++code) values.push_back(value_of(code, is_signed).value);
  std::sort(values.begin(), values.end());
  Array restored = exact, scales(Shape{exact.size() / kStateBlock});
  for (int64_t block = 0; block < scales.size(); ++block) {
    const int64_t begin = block * kStateBlock;
    Real& scale = scales[block];
    for (int64_t i = begin; i < begin + kStateBlock; ++i) {
      scale.value = std::max(scale.value, magnitude(exact[i].value));
      scale.rounded = std::max(scale.rounded, exact[i].rounded + magnitude(exact[i].value));
    }
    for (int64_t i = begin; i < begin + kStateBlock; ++i) {
      // The nearest value is at most half a gap away; beyond the last one, and for a second moment that must not become 0, farther.
      const double x = exact[i].value / scale.value;
      const size_t above = size_t(std::upper_bound(values.begin(), values.end(), x) - values.begin());
      double away = 0;
      if (above == 0) {
        away = values[0] - x;
      } else if (above < values.size()) {
        away = !is_signed && above == 1 ? values[1] : (values[above] - values[above - 1]) / 2;
      }
      restored[i] = {exact[i].value, exact[i].rounded + 4 * scale.rounded, exact[i].stored, scale.value * away};
    }
  }
  results.push_back(restored);
  results.push_back(scales);
}

std::vector<double> drawn(int64_t count, uint64_t key, double low, double high) {
  std::vector<double> v = random_values(count, key, 8);
  for (double& x : v) x = low + (high - low) * (x + 1) / 2;
  return v;
}
std::vector<double> drawn_codes(int64_t count, uint64_t key) {
  std::vector<double> v = drawn(count, key, 0, 256);
  for (double& x : v) x = std::floor(x);
  return v;
}

void add_8bit_step(CaseList& list) {
  list.op("adamw8bit_step", false, kSingle | 1u << int(DType::bf16) | 1u << int(DType::f16));
  std::vector<double> tables[2];
  for (int code = 0; code < 256; ++code)
    for (const bool is_signed : {false, true}) tables[is_signed].push_back(value_of(code, is_signed).value);
  int at = 0;
  for (const int64_t blocks : {0, 1, 2, 3, 4, 5, 8, 11, 64, 65})  // 64 are a task of the CPU
    for (const double weight_decay : {0.0, 0.1}) {
      const bool ok = at % 7 != 6;
      const std::vector<double> s = step_scalars(0.05, at % 2 ? 0.25 : 1, ok);
      const uint64_t key = uint64_t(10 * ++at);
      const int64_t n = blocks * kStateBlock;
      const CaseInputs inputs{CaseInput::of({kStepScalars}, DType::f64, s),
                              CaseInput(Shape{n}).range(-2, 2),
                              CaseInput(Shape{n}).held(CaseInput::Hold::apart, -3, 3),
                              CaseInput::of({n}, DType::u8, drawn_codes(n, key)),
                              CaseInput::of({blocks}, DType::f32, drawn(blocks, key + 1, 0.1, 1)),
                              CaseInput::of({n}, DType::u8, drawn_codes(n, key + 2)),
                              CaseInput::of({blocks}, DType::f32, drawn(blocks, key + 3, 0.1, 1)),
                              CaseInput::of({256, 1}, DType::f32, tables[1]),
                              CaseInput::of({256, 1}, DType::f32, tables[0])};
      list.add(
          inputs,
          [=](Device& device, DType dtype, const Tensors& x) {
            const CaseWeights weights(device, x[1]);
            Tensors args{x[0], weights.working(), cast(x[2], DType::f32), x[3], x[4], x[5], x[6]};
            if (dtype == DType::bf16) {  // before the states change
              const auto codes = [](const Tensor& t) { return cast(cast(t, DType::i32), DType::u8); };
              const Tensors alone{x[0], x[1], args[2], codes(x[3]), affine(x[4], 1, 0), codes(x[5]), affine(x[6], 1, 0)};
              call(op::adamw8bit_step, alone, OptimizerParams{weight_decay, 512, 1});
            }
            weights.append_to(args);
            call(op::adamw8bit_step, args, OptimizerParams{weight_decay});
            Tensors after{restore(x[7], x[3], x[4]), x[4], restore(x[8], x[5], x[6]), x[6]};
            for (const Tensor& w : weights.after()) after.push_back(w);
            if (dtype == DType::bf16) after.push_back(x[1]);
            return after;
          },
          [=](DType dtype, const Arrays& x) {
            Array m(Shape{n}), v(Shape{n}), weights = x[1];
            for (int64_t i = 0; i < n; ++i) {
              m[i] = value_of(int(x[3][i].value), true) * x[4][i / kStateBlock];
              v[i] = value_of(int(x[5][i].value), false) * x[6][i / kStateBlock];
              if (!ok) continue;
              Real states[2] = {m[i], v[i]};
              weights[i] = weights[i] * (Real(1) - Real(s[kLearningRate] * weight_decay));
              update_adamw(s, x[2][i] * Real(s[kClip]), weights[i], states);
              m[i] = states[0], v[i] = states[1];
            }
            Arrays after;
            if (ok) {
              append_quantized(after, m, true);
              append_quantized(after, v, false);
            } else {
              after = {m, x[4], v, x[6]};
            }
            append_weights(after, weights, dtype, ok);
            return after;
          });
    }
}
}  // namespace

void add_training_cases(CaseList& list) {
  add_sums(list);
  add_clip(list);
  add_masters(list);
  for (const Rule& rule : kRules) add_steps(list, {&rule, 1});
  add_steps(list, kRmsprop);
  add_8bit_step(list);
  add_lamb_cases(list);
}
}  // namespace reckon
