// cli/op_cases: the operations of an optimizer step.
#include <cmath>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/training.h"

namespace reckon {
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

std::vector<double> step_scalars(double learning_rate, double clip, bool ok) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = learning_rate;
  s[kBeta1] = 0.9;
  s[kBeta2] = 0.95;
  s[kBiasFactor1] = 1 - std::pow(0.9, 3);
  s[kBiasFactor2] = 1 - std::pow(0.95, 3);
  s[kEpsilon] = 1e-8;
  s[kMaxNorm] = 1;
  s[kGradScale] = 0.5;
  s[kClip] = clip;
  s[kOk] = ok;
  return s;
}

void add_clip(CaseList& list) {
  list.op("clip", false, kSingle | kDouble);
  for (const double max_norm : {0.0, 1.0, 100.0})
    for (const double grad_scale : {1.0, 1.0 / 1024})
      for (const double loss : {2.5, double(NAN), double(INFINITY)})
        for (const double last : {4.0, double(INFINITY)}) {
          std::vector<double> before = step_scalars(0.1, 0, false);
          before[kMaxNorm] = max_norm;
          before[kGradScale] = grad_scale;
          list.add(
              {CaseInput::of({kStepScalars}, DType::f64, before), CaseInput::of({}, {loss}), CaseInput::of({1}, DType::f64, {9}),
               CaseInput::of({1}, DType::f64, {last})},
              [](const Tensors& x) {
                clip_(x[0], x[1], {x[2], x[3]});
                return x[0];
              },
              [=](const Arrays& x) {
                Array after = x[0];
                const double norm = std::sqrt(9 + last) * grad_scale;
                after[kGradNorm] = store(norm);
                after[kClip] = store(grad_scale * (max_norm == 0 ? 1 : std::min(1.0, max_norm / (norm + 1e-6))));
                after[kOk] = std::isfinite(norm) && std::isfinite(loss);
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

// One optimizer: what it does to a weight and its states, with the gradient already clipped.
struct Rule {
  const char* name;
  const OpDef* row;
  int states;
  void (*update)(const std::vector<double>& s, const Real& g, Real& p, Real* state);
};
const Rule kRules[] = {
    {"sgd_step", &op::sgd_step, 0, [](const std::vector<double>& s, const Real& g, Real& p, Real*) { p = p - Real(s[kLearningRate]) * g; }},
    {"momentum_step", &op::momentum_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = Real(s[kBeta1]) * state[0] + g;
       p = p - Real(s[kLearningRate]) * state[0];
     }},
    {"adagrad_step", &op::adagrad_step, 1,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = state[0] + g * g;
       p = p - Real(s[kLearningRate]) * g / (sqrt(state[0]) + Real(s[kEpsilon]));
     }},
    {"adamw_step", &op::adamw_step, 2,
     [](const std::vector<double>& s, const Real& g, Real& p, Real* state) {
       state[0] = Real(s[kBeta1]) * state[0] + Real(1 - s[kBeta1]) * g;
       state[1] = Real(s[kBeta2]) * state[1] + Real(1 - s[kBeta2]) * g * g;
       p = p - Real(s[kLearningRate]) * (state[0] / Real(s[kBiasFactor1])) / (sqrt(state[1] / Real(s[kBiasFactor2])) + Real(s[kEpsilon]));
     }},
};

// Runs the step and returns the weights and states after it. bf16 weights live in two planes; they are split and joined around it.
Tensors run_step(const OpDef& row, Device& device, DType dtype, const Tensors& in, double weight_decay) {
  const bool split = dtype == DType::bf16;
  Tensors args{in[0]}, after;
  Tensor master = in[1], residual;
  if (split) {
    master = cast(in[1], DType::f32);
    args.push_back(empty(device, in[1].spec()));
    residual = empty(device, in[1].spec());
    split_master_(master, args[1], residual);
  } else {
    args.push_back(in[1]);
  }
  for (size_t i = 2; i < in.size(); ++i) args.push_back(split ? cast(in[i], DType::f32) : in[i]);
  if (split) args.push_back(residual);
  call(row, args, OptimizerParams{weight_decay});
  if (split) join_master_(master, args[1], residual);
  after.push_back(master);
  for (size_t i = 3; i < in.size(); ++i) after.push_back(args[i]);
  return after;
}

void add_steps(CaseList& list, const Rule& rule) {
  list.op(rule.name, false, kSingle | kDouble | 1u << int(DType::bf16));
  int at = 0;
  for (const int64_t n : {0, 1, 7, 16, 33, 100, 2049, 16391})
    for (const double weight_decay : {0.0, 0.1, 0.01}) {
      const bool ok = at % 7 != 6;
      const std::vector<double> s = step_scalars(0.05, at % 2 ? 0.25 : 1, ok);
      ++at;
      CaseInputs inputs{CaseInput::of({kStepScalars}, DType::f64, s), CaseInput(Shape{n}).range(-2, 2), CaseInput(Shape{n}).range(-3, 3)};
      for (int i = 0; i < rule.states; ++i) inputs.push_back(CaseInput(Shape{n}).range(0.1, 1));
      list.add(
          inputs, [=](Device& device, DType dtype, const Tensors& x) { return run_step(*rule.row, device, dtype, x, weight_decay); },
          [=](const Arrays& x) {
            Arrays after{x[1]};
            for (int k = 0; k < rule.states; ++k) after.push_back(x[size_t(3 + k)]);
            for (int64_t i = 0; i < n && ok; ++i) {
              Real states[2];
              for (int k = 0; k < rule.states; ++k) states[k] = after[size_t(1 + k)][i];
              Real p = after[0][i] * (Real(1) - Real(s[kLearningRate] * weight_decay));
              rule.update(s, x[2][i] * Real(s[kClip]), p, states);
              after[0][i] = p;
              for (int k = 0; k < rule.states; ++k) after[size_t(1 + k)][i] = states[k];
            }
            return after;
          });
    }
}
}  // namespace

void add_training_cases(CaseList& list) {
  add_sums(list);
  add_clip(list);
  add_masters(list);
  for (const Rule& rule : kRules) add_steps(list, rule);
}
}  // namespace reckon
