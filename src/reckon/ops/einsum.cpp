// ops/einsum: sums of products by labels: diagonals and sums of single operands, then pairs in the order of fewest FLOPs.
#include <algorithm>

#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/einops_axes.h"
#include "reckon/ops/einsum_contract.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
class Einsum {
 public:
  Einsum(const PatternPlace& place, const Tensors& operands) : place_(place), operands_(operands) {
    read_pattern();
    place_.check(pattern_.in.size() == operands.size(), "the pattern has {} {}, {} {} given", pattern_.in.size(),
                 pattern_.in.size() == 1 ? "operand" : "operands", operands.size(), operands.size() == 1 ? "is" : "are");
    for (size_t i = 1; i < operands.size(); ++i)
      place_.check(operands[i].dtype() == operands[0].dtype(), "operands 0 and {} differ in dtype: {} and {}; cast one of them", i,
                   operands[0].dtype(), operands[i].dtype());
    read_labels();
  }

  Composition plan() const {
    Composition calls(operands_);
    std::vector<Term> terms;
    std::vector<Labels> sets;
    for (size_t i = 0; i < operands_.size(); ++i) {
      terms.push_back(prepared(calls, i));
      sets.push_back(terms.back().set());
    }
    List wanted;
    for (const int label : out_)
      if (extents_[size_t(label)] != 1) wanted.push_back(label);
    const auto order = contraction_order(sets, bits(wanted), extents_);
    for (size_t i = 0; i < order.size(); ++i) {
      Labels kept = bits(wanted);
      for (size_t later = i + 1; later < order.size(); ++later)
        for (const int place : {order[later].first, order[later].second})
          if (size_t(place) < terms.size()) kept |= terms[size_t(place)].set();
      const Term &a = terms[size_t(order[i].first)], &b = terms[size_t(order[i].second)];
      const Term result = contract(calls, a, b, kept, i + 1 == order.size() ? wanted : List{});
      terms.push_back(result);
    }
    finish(calls, terms.back(), wanted);
    return calls;
  }

 private:
  using List = std::vector<int>;
  static Labels bits(const List& labels) { return Term{0, labels}.set(); }

  bool fits(const EinsumPattern& pattern) const {
    bool fits = pattern.in.size() == operands_.size();
    for (size_t i = 0; fits && i < operands_.size(); ++i) {
      const int rank = operands_[i].rank(), named = int(pattern.in[i].axes.size());
      fits = pattern.in[i].ellipsis >= 0 ? named <= rank : named == rank;
    }
    return fits;
  }
  // Words without a blank between them are letters, unless only as names do they fit the operands: "batch, batch -> batch".
  void read_pattern() {
    const std::string_view text = place_.pattern;
    const bool named = detail::has_named_axes(text);
    const FaultAt fault = detail::read_einsum_as(named, text, pattern_);
    if (!named && (fault || !fits(pattern_))) {
      EinsumPattern names;
      if (!detail::read_einsum_as(true, text, names) && fits(names)) {
        pattern_ = names;
        return;
      }
    }
    place_.check(fault);
  }
  int label_of(std::string_view name) {
    const auto at = std::find(names_.begin(), names_.end(), name);
    if (at != names_.end()) return int(at - names_.begin());
    place_.check(names_.size() < size_t(kMaxLabels), "there are more than {} different axes", kMaxLabels);
    names_.emplace_back(name);
    extents_.push_back(-1);
    first_.push_back(-1);
    return int(names_.size()) - 1;
  }
  // Axes under an ellipsis are counted from the last: "...[-1]".
  void add_hidden(int count, List& labels) {
    for (int i = count; i > 0; --i) labels.push_back(label_of(text("...[-{}]", i)));
  }
  void read_labels() {
    int hidden = 0;
    for (size_t i = 0; i < operands_.size(); ++i) {
      const EinsumTerm& term = pattern_.in[i];
      const int rank = operands_[i].rank(), named = int(term.axes.size());
      place_.check(term.ellipsis >= 0 ? named <= rank : named == rank, "operand {} has {}{} {} in the pattern, the tensor {} has {}", i,
                   term.ellipsis >= 0 ? "at least " : "", named, named == 1 ? "axis" : "axes", operands_[i].shape(), rank);
      if (term.ellipsis >= 0) hidden = std::max(hidden, rank - named);
      in_.push_back(labels_of(term, rank - named));
      for (int axis = 0; axis < rank; ++axis) read_extent(i, axis);
    }
    out_ = labels_of(pattern_.out, hidden);
    place_.check(out_.size() <= size_t(kMaxRank), "the result has {} axes, and {} are the most", out_.size(), kMaxRank);
  }
  List labels_of(const EinsumTerm& term, int hidden) {
    List labels;
    for (int i = 0; i <= int(term.axes.size()); ++i) {
      if (i == term.ellipsis) add_hidden(hidden, labels);
      if (i < int(term.axes.size())) labels.push_back(label_of(term.axes[size_t(i)]));
    }
    return labels;
  }
  void read_extent(size_t operand, int axis) {
    const size_t label = size_t(in_[operand][size_t(axis)]);
    const int64_t extent = operands_[operand].shape()[axis];
    int64_t& known = extents_[label];
    const bool hidden = names_[label][0] == '.';
    if (known < 0 || (hidden && known == 1)) {
      known = extent;
      first_[label] = int(operand);
    } else if (!(hidden && extent == 1)) {
      const std::string what = hidden ? text("axes '{}' do not broadcast: they have", names_[label]) : text("axis '{}' has", names_[label]);
      place_.check(extent == known, "{} length {} in operand {} and {} in operand {}", what, known, first_[label], extent, operand);
    }
  }

  // An operand without axes of 1, its diagonals taken, and summed over what nobody else has.
  Term prepared(Composition& calls, size_t operand) const {
    Term term{int(operand), {}};
    std::vector<int64_t> extents;
    for (int axis = 0; axis < operands_[operand].rank(); ++axis) {
      const int64_t extent = operands_[operand].shape()[axis];
      if (extent == 1) continue;
      extents.push_back(extent);
      term.labels.push_back(in_[operand][size_t(axis)]);
    }
    term.value = calls.reshape(term.value, Shape(std::span<const int64_t>(extents)));
    take_diagonals(calls, term);
    Labels others = bits(out_);
    for (size_t i = 0; i < in_.size(); ++i)
      if (i != operand) others |= bits(in_[i]);
    uint32_t summed = 0;
    List kept;
    for (size_t i = 0; i < term.labels.size(); ++i) {
      if (others & Labels(1) << term.labels[i])
        kept.push_back(term.labels[i]);
      else
        summed |= 1u << i;
    }
    if (summed) term.value = calls.apply(op::sum, term.value, ReduceParams{summed, false});
    const DType dtype = operands_[operand].dtype();
    if (calls.dtype(term.value) != dtype && operands_.size() > 1)  // a sum of whole numbers is i64, and meets operands that wrap
      term.value = calls.apply(op::cast, term.value, CastParams{dtype});
    term.labels = kept;
    return term;
  }
  static void take_diagonals(Composition& calls, Term& term) {
    for (size_t first = 0; first < term.labels.size(); ++first) {
      const auto second = std::find(term.labels.begin() + int64_t(first) + 1, term.labels.end(), term.labels[first]);
      if (second == term.labels.end()) continue;
      const int label = *second;
      term.value = calls.apply(op::diagonal, term.value, DiagonalParams{int(first), int(second - term.labels.begin())});
      term.labels.erase(second);
      term.labels.erase(term.labels.begin() + int64_t(first));
      term.labels.push_back(label);
      first = size_t(-1);  // from the beginning: a label may stand three times
    }
  }
  void finish(Composition& calls, const Term& term, const List& wanted) const {
    std::vector<int> axes;
    for (const int label : wanted) axes.push_back(int(std::find(term.labels.begin(), term.labels.end(), label) - term.labels.begin()));
    std::vector<int64_t> extents;
    for (const int label : out_) extents.push_back(extents_[size_t(label)]);
    calls.reshape(calls.permute(term.value, axes), Shape(std::span<const int64_t>(extents)));
  }

  const PatternPlace& place_;
  const Tensors& operands_;
  EinsumPattern pattern_;
  std::vector<std::string> names_;  // of the labels
  std::vector<int64_t> extents_;    // of the labels
  std::vector<int> first_;          // the operand that said so
  std::vector<List> in_;            // a label for each axis
  List out_;
};
}  // namespace

Composition plan_einsum(SumPattern pattern, const Tensors& operands) {
  check(!operands.empty(), "einsum: no operand is given, for \"{}\"", pattern.text());
  std::string printed;
  for (const Tensor& t : operands) {
    check(t.defined(), "einsum: an operand is undefined, for \"{}\"", pattern.text());
    printed += (printed.empty() ? "" : ", ") + to_string(t);
  }
  const PatternPlace place{"einsum", pattern.text(), printed};
  const Einsum einsum(place, operands);
  try {
    return einsum.plan();
  } catch (const Error& error) {
    place.fail(error.kind(), error.what());
  }
}
Tensor einsum(SumPattern pattern, const Tensors& operands) {
  // Operands of a product are cast before they are rearranged: a parameter once, and all to one type.
  Tensors in = operands;
  if (in.size() > 1)
    for (Tensor& t : in) t = autocast_input(AutocastPolicy::low, t);
  return plan_einsum(pattern, in).run(in);
}
}  // namespace reckon
