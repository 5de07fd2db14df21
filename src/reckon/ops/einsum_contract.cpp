#include "reckon/ops/einsum_contract.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "reckon/ops/rows.h"

namespace reckon {
namespace {
using List = std::vector<int>;

Labels bit(int label) { return Labels(1) << label; }
Labels bits(const List& labels) {
  Labels set = 0;
  for (const int label : labels) set |= bit(label);
  return set;
}
List those_in(const List& labels, Labels set) {
  List found;
  for (const int label : labels)
    if (set & bit(label)) found.push_back(label);
  return found;
}
List joined(List a, const List& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// An operand as it lies.
struct Lying {
  const Composition& calls;
  const Term& term;

  int axis_of(int label) const { return int(std::find(term.labels.begin(), term.labels.end(), label) - term.labels.begin()); }
  int64_t extent(int label) const { return calls.shape(term.value)[axis_of(label)]; }
  int64_t stride(int label) const { return calls.layout(term.value).strides[axis_of(label)]; }
  /// Labels by stride, the largest first.
  List by_stride() const {
    List labels = term.labels;
    std::stable_sort(labels.begin(), labels.end(), [&](int a, int b) { return stride(a) > stride(b); });
    return labels;
  }
  /// True if the elements lie in this order without gaps.
  bool contiguous_as(const List& order) const {
    int64_t expected = 1;
    for (size_t i = order.size(); i-- > 0; expected *= extent(order[i]))
      if (stride(order[i]) != expected) return false;
    return true;
  }
};

// One way to see the operands as batches of matrices [rows, depth] and [depth, columns].
struct Matrices {
  List batch, rows, columns, depth;  // labels; batch: of either operand or both
  bool swapped = false;              // rows are b's and columns are a's
};
enum class Fit : uint8_t { plain, transposed, copied };

Fit fit_of(const Lying& x, const List& batch, const List& first, const List& second) {
  const List own = those_in(batch, x.term.set());
  if (x.contiguous_as(joined(own, joined(first, second)))) return Fit::plain;
  return x.contiguous_as(joined(own, joined(second, first))) ? Fit::transposed : Fit::copied;
}

// Of a swapped pair each operand is the other one's transpose; a copy is made as it is wanted.
bool is_turned(Fit fit, bool swapped) { return fit != Fit::copied && (fit == Fit::transposed) != swapped; }

class Contraction {
 public:
  Contraction(Composition& calls, const Term& a, const Term& b, Labels kept, const List& wanted)
      : calls_(calls), a_{calls, a}, b_{calls, b}, kept_(kept), wanted_(wanted) {}

  Term multiply() {
    List order = wanted_;
    if (order.empty()) order = joined(a_.by_stride(), those_in(b_.by_stride(), ~a_.term.set()));
    check_rank(order);
    const int x = spread(a_, order), y = spread(b_, order);
    return {calls_.apply(op::mul, x, y, {}), order};
  }
  Term product() {
    const Matrices best = choose();
    const Lying &left = best.swapped ? b_ : a_, &right = best.swapped ? a_ : b_;
    const List labels = joined(best.batch, joined(best.rows, best.columns));
    check_rank(labels);
    const auto [x, transpose_x] = matrices(left, best.batch, best.rows, best.depth);
    const auto [y, transpose_y] = matrices(right, best.batch, best.depth, best.columns);
    const int value = calls_.apply(op::matmul, x, y, MatmulParams{transpose_x, transpose_y, 0});
    return {calls_.reshape(value, extents(labels)), labels};
  }

 private:
  int64_t extent(int label) const { return a_.term.set() & bit(label) ? a_.extent(label) : b_.extent(label); }
  Shape extents(const List& labels) const {
    std::vector<int64_t> e;
    for (const int label : labels) e.push_back(extent(label));
    return Shape(std::span<const int64_t>(e));
  }
  static void check_rank(const List& labels) {
    check(labels.size() <= size_t(kMaxRank), "a product has {} axes, and {} are the most", labels.size(), kMaxRank);
  }
  int arranged(const Lying& x, const List& order) {
    List axes;
    for (const int label : order) axes.push_back(x.axis_of(label));
    return calls_.permute(x.term.value, axes);
  }
  // Axes of 1 where the other operand has axes that this one has not.
  int spread(const Lying& x, const List& order) {
    const Labels own = x.term.set();
    std::vector<int64_t> e;
    for (const int label : order) e.push_back(own & bit(label) ? extent(label) : 1);
    return calls_.reshape(arranged(x, those_in(order, own)), Shape(std::span<const int64_t>(e)));
  }

  // Labels of one operand alone that lie outside of all its others: the other operand's matrices may serve for each of them.
  List outer(const Lying& x, Labels own) const {
    List found;
    for (const int label : x.by_stride()) {
      if (!(own & bit(label))) break;
      found.push_back(label);
    }
    return found;
  }
  // All orders that are worth a look; the first of equals is taken.
  Matrices choose() const {
    const Labels a = a_.term.set(), b = b_.term.set(), shared = a & b & kept_, only_a = a & ~b, only_b = b & ~a;
    const List by_a = a_.by_stride(), by_b = b_.by_stride();
    const auto orders = [&](Labels set, std::initializer_list<const List*> sources) {
      std::vector<List> found;
      for (const List* source : sources) {
        if (source->empty()) continue;
        const List own = those_in(*source, set);
        const List order = joined(those_in(source == &by_b ? by_a : by_b, set & ~bits(own)), own);
        if (std::find(found.begin(), found.end(), order) == found.end()) found.push_back(order);
      }
      return found;
    };
    Matrices best;
    std::tuple<int64_t, size_t, bool, int, bool> best_cost{-1, 0, false, 0, false};
    for (const List& hoisted_a : {List{}, outer(a_, only_a)})
      for (const List& hoisted_b : {List{}, outer(b_, only_b)}) {
        const Labels hoisted = bits(hoisted_a) | bits(hoisted_b), batch = shared | hoisted;
        if (hoisted && size_t(std::popcount(batch)) + 2 > size_t(kMaxRank)) continue;
        for (const List& batch_order : orders(batch, {&wanted_, &by_a, &by_b}))
          for (const List& rows : orders(only_a & ~hoisted, {&wanted_, &by_a}))
            for (const List& columns : orders(only_b & ~hoisted, {&wanted_, &by_b}))
              for (const List& depth : orders(a & b & ~kept_, {&by_a, &by_b}))
                for (const bool swapped : {false, true}) {
                  const Fit x = fit_of(a_, batch_order, rows, depth), y = fit_of(b_, batch_order, depth, columns);
                  const int64_t copied = (x == Fit::copied ? a_elements() : 0) + (y == Fit::copied ? b_elements() : 0);
                  const List result = joined(batch_order, swapped ? joined(columns, rows) : joined(rows, columns));
                  const bool turned = !wanted_.empty() && result != wanted_;
                  const int transposed = is_turned(x, swapped) + is_turned(y, swapped);
                  const std::tuple<int64_t, size_t, bool, int, bool> cost{copied, hoisted_a.size() + hoisted_b.size(), turned, transposed,
                                                                          swapped};
                  if (std::get<0>(best_cost) >= 0 && !(cost < best_cost)) continue;
                  best_cost = cost;
                  best = swapped ? Matrices{batch_order, columns, rows, depth, true} : Matrices{batch_order, rows, columns, depth, false};
                }
      }
    return best;
  }
  int64_t a_elements() const { return calls_.shape(a_.term.value).numel(); }
  int64_t b_elements() const { return calls_.shape(b_.term.value).numel(); }

  // [batch..., first, second], or with the last two swapped and true. Batch axes that both operands have are one.
  std::pair<int, bool> matrices(const Lying& x, const List& batch, const List& first, const List& second) {
    const bool transposed = fit_of(x, batch, first, second) == Fit::transposed;
    const List &outer_axes = transposed ? second : first, &inner_axes = transposed ? first : second;
    const Labels own = x.term.set();
    const bool same = (bits(batch) & ~(a_.term.set() & b_.term.set())) == 0;
    std::vector<int64_t> e;
    if (same && !batch.empty()) e.push_back(extents(batch).numel());
    if (!same)
      for (const int label : batch) e.push_back(own & bit(label) ? extent(label) : 1);
    e.push_back(extents(outer_axes).numel());
    e.push_back(extents(inner_axes).numel());
    const int value = arranged(x, joined(those_in(batch, own), joined(outer_axes, inner_axes)));
    return {calls_.reshape(value, Shape(std::span<const int64_t>(e))), transposed};
  }

  Composition& calls_;
  Lying a_, b_;
  Labels kept_;
  const List& wanted_;
};
}  // namespace

Labels Term::set() const { return bits(labels); }

Term contract(Composition& calls, const Term& a, const Term& b, Labels kept, const std::vector<int>& wanted) {
  Contraction contraction(calls, a, b, kept, wanted);
  return (a.set() & b.set() & ~kept) ? contraction.product() : contraction.multiply();
}
}  // namespace reckon
