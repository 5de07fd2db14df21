// cli/op_cases: losses, by their definitions.
#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
using Options = CrossEntropyOptions;

bool is_ignored(const Real& target, const Options& o) { return target.value == double(o.ignore_index); }

// log(sum(exp(x))) of one row, as a kernel keeps it.
Real lse_of(const Real* x, int64_t V) {
  Real total;
  for (int64_t i = 0; i < V; ++i) total += exp(x[i]);
  return log(total) + Real(0.0);
}

Real row_loss(const Real* x, int64_t V, const Real& target, const Options& o) {
  if (is_ignored(target, o)) return {};
  const Real lse = lse_of(x, V), s(o.label_smoothing), hit = x[int64_t(target.value)];
  Real total;
  for (int64_t i = 0; i < V; ++i) total += x[i];
  Real loss = o.label_smoothing == 0 ? lse - hit : lse - (Real(1) - s) * hit - s * (total / Real(double(V)));
  if (o.z_loss != 0) loss = loss + Real(o.z_loss) * lse * lse;
  return loss;
}

double count_of(const Array& targets, const Options& o) {
  double count = 0;
  for (const Real& t : targets.values) count += !is_ignored(t, o);
  return count;
}

// logits [rows, V] as values in a row.
Array loss_of(const Array& logits, const Array& targets, const Options& o) {
  const int64_t V = logits.shape.last();
  Array each(targets.shape);
  Real sum;
  for (int64_t row = 0; row < targets.size(); ++row) {
    each[row] = row_loss(&logits.values[size_t(row * V)], V, targets[row], o);
    if (!is_ignored(targets[row], o)) sum += each[row];
  }
  if (o.reduction == Reduction::none) return each;
  return Array(Shape{}, {o.reduction == Reduction::sum ? sum : sum / Real(count_of(targets, o))});
}

// The gradient of the loss in the logits, for the seeds of the losses or of their mean or sum.
Array gradient_of(DType dtype, const Array& logits, const Array& targets, const Array& seed, const Options& o) {
  const int64_t V = logits.shape.last();
  Array dx(logits.shape);
  for (int64_t row = 0; row < targets.size(); ++row) {
    if (is_ignored(targets[row], o)) continue;
    const Real* x = &logits.values[size_t(row * V)];
    const Real lse = lse_of(x, V);
    Real factor = o.reduction == Reduction::none ? seed[row] : seed[0];
    if (o.reduction == Reduction::mean) factor = factor / Real(count_of(targets, o));
    for (int64_t i = 0; i < V; ++i) {
      const Real p = exp(x[i] - lse) * (Real(1) + Real(2 * o.z_loss) * lse);
      const Real s(o.label_smoothing), one_hot = i == int64_t(targets[row].value) ? Real(1) - s : Real(0);
      dx[row * V + i] = store((p - s / Real(double(V)) - one_hot) * factor);
      if (dtype == DType::f16) dx[row * V + i].slack += 0x1p-25;  // below its normal numbers it rounds to multiples of 2^-24
    }
  }
  return dx;
}

Array logits_of(const Array& x, const Array& w) {
  const int64_t V = w.shape[0], K = w.shape[1];
  Array y(x.shape.with(-1, V));
  for (int64_t row = 0; row < x.shape.rows(); ++row)
    for (int64_t j = 0; j < V; ++j) {
      Real& out = y[row * V + j];
      for (int64_t c = 0; c < K; ++c) out += x[row * K + c] * w[j * K + c];
      out = store(out);
    }
  return y;
}

// Each reduction with and without smoothing, z-loss and another ignored label.
Options options_at(int at) {
  Options o;
  o.reduction = Reduction(at % 3);
  if (at % 4 >= 2) o.label_smoothing = 0.1 + 0.2 * (at % 5);
  if (at % 5 >= 3) o.z_loss = 0.01;
  if (at % 7 == 4 && o.reduction != Reduction::mean) o.ignore_index = 2;
  return o;
}
CaseInput targets_at(int at, const Shape& shape, int64_t V, const Options& o) {
  return at % 2 == 1 && shape.numel() >= 4 && o.ignore_index == kIgnoredTarget ? CaseInput::targets(shape, V) : CaseInput::ids(shape, V);
}

void add_cross_entropy(CaseList& list) {
  list.op("cross_entropy");
  int at = 0;
  for (const bool plain : {true, false})
    for (const Arrangement& a : row_arrangements()) {
      if (a.shape.rows() == 0) continue;
      const Options o = plain ? Options() : options_at(at);
      list.add(
          {CaseInput(a.shape, a.lay).range(-4, 4), targets_at(at, a.shape.without_last(), a.shape.last(), o)},
          [=](const Tensors& x) { return cross_entropy(x[0], x[1], o); }, [=](const Arrays& x) { return loss_of(x[0], x[1], o); });
      ++at;
    }
}

struct Head {
  Arrangement x, w;  // x [..., K], w [V, K]
};
// 256 rows and 4096 classes are a tile; 512 rows are one of the step.
const Head kHeads[] = {
    {{{1}, Lay::plain}, {{1, 1}, Lay::plain}},
    {{{5}, Lay::plain}, {{3, 5}, Lay::plain}},
    {{{2, 5}, Lay::plain}, {{3, 5}, Lay::transposed}},
    {{{5, 6}, Lay::transposed}, {{4, 6}, Lay::plain}},
    {{{4, 3, 5}, Lay::turned}, {{7, 5}, Lay::padded}},
    {{{6, 4}, Lay::expanded}, {{9, 4}, Lay::shifted}},
    {{{2, 2, 2, 2, 3}, Lay::stepped}, {{9, 3}, Lay::plain}},
    {{{65, 33}, Lay::plain}, {{17, 33}, Lay::plain}},
    {{{3, 43, 16}, Lay::padded}, {{130, 16}, Lay::plain}},
    {{{300, 5}, Lay::plain}, {{20, 5}, Lay::plain}},
    {{{7, 6}, Lay::plain}, {{4500, 6}, Lay::plain}},
    {{{600, 3}, Lay::plain}, {{11, 3}, Lay::plain}},
    {{{12, 70}, Lay::plain}, {{40, 70}, Lay::plain}},
};
template <class Add>
void for_heads(Add add) {
  int at = 0;
  for (const bool plain : {true, false})
    for (const Head& h : kHeads) {
      const CaseInput x = CaseInput(h.x.shape, h.x.lay).range(-2, 2), w(h.w.shape, h.w.lay);
      const Options o = plain ? Options() : options_at(at);
      add(x, w, targets_at(at, h.x.shape.without_last(), h.w.shape[0], o), o);
      ++at;
    }
}

void add_linear_cross_entropy(CaseList& list) {
  list.op("linear_cross_entropy");
  for_heads([&](const CaseInput& x, const CaseInput& w, const CaseInput& targets, const Options& o) {
    list.add(
        {x, w, targets}, [=](const Tensors& in) { return linear_cross_entropy(in[0], in[1], in[2], o); },
        [=](const Arrays& in) { return loss_of(logits_of(in[0], in[1]), in[2], o); });
  });
}

// The loss, and both gradients: w's is added to ones that lie in its slot.
void add_linear_cross_entropy_step(CaseList& list) {
  list.op("linear_cross_entropy_step", false);
  for_heads([&](const CaseInput& x, const CaseInput& w, const CaseInput& targets, const Options& o) {
    const CaseInput seed(o.reduction == Reduction::none ? targets.shape : Shape{});
    list.add(
        {x, w, targets, seed},
        [=](Device& device, DType dtype, const Tensors& in) {
          Tensor weight = contiguous(in[1]).detached();
          const Tensor slot = empty(device, {weight.shape(), statistics_dtype(dtype)});
          const CrossEntropyOptions options = o;
          weight.set_requires_grad().set_grad_slot(slot);
          const Tensor dloss = cast(in[3], statistics_dtype(dtype));
          const LossAndGradient overwritten = linear_cross_entropy_step(in[0], weight, in[2], dloss, options);
          const LossAndGradient added = linear_cross_entropy_step(in[0], weight, in[2], dloss, options);
          return Tensors{added.loss, overwritten.dx, slot};
        },
        [=](DType dtype, const Arrays& in) {
          const Array logits = logits_of(in[0], in[1]), dlogits = gradient_of(dtype, logits, in[2], in[3], o);
          const int64_t V = in[1].shape[0], K = in[1].shape[1];
          Array dx(in[0].shape), dw(in[1].shape);
          for (int64_t row = 0; row < in[2].size(); ++row)
            for (int64_t j = 0; j < V; ++j)
              for (int64_t c = 0; c < K; ++c) {
                dx[row * K + c] += dlogits[row * V + j] * in[1][j * K + c];
                for (int twice = 0; twice < 2; ++twice) dw[j * K + c] += dlogits[row * V + j] * in[0][row * K + c];
              }
          return Arrays{loss_of(logits, in[2], o), dx, dw};
        });
  });
}

void add_mse_loss(CaseList& list) {
  list.op("mse_loss");
  for (const ArrangedPair& pair : arranged_pairs()) {
    const int64_t count = broadcast(pair.a.shape, pair.b.shape).numel();
    if (count == 0) continue;
    list.add(
        {CaseInput(pair.a.shape, pair.a.lay), CaseInput(pair.b.shape, pair.b.lay)}, [](const Tensors& x) { return mse_loss(x[0], x[1]); },
        [=](const Arrays& x) {
          Real sum;
          const Array squares = map(x[0], x[1], [](const Real& a, const Real& b) {
            const Real difference = store(a - b);
            return store(difference * difference);
          });
          for (const Real& r : squares.values) sum += r;
          return Array(Shape{}, {store(sum) * Real(1 / double(count))});
        });
  }
}
}  // namespace

void add_loss_cases(CaseList& list) {
  add_cross_entropy(list);
  add_linear_cross_entropy(list);
  add_linear_cross_entropy_step(list);
  add_mse_loss(list);
}
}  // namespace reckon
