#include "reckon/ops/einsum_order.h"

#include <bit>
#include <limits>
#include <tuple>

namespace reckon {
namespace {
double elements(Labels labels, const std::vector<int64_t>& extents) {
  double n = 1;
  for (; labels; labels &= labels - 1) n *= double(extents[size_t(std::countr_zero(labels))]);
  return n;
}

// The best way to contract a set of operands, one bit each.
struct Best {
  double flops = std::numeric_limits<double>::infinity();
  double results = 0;  // elements of all intermediate results
  uint32_t left = 0;   // the set of the first operand of the last contraction
};

class Search {
 public:
  Search(const std::vector<Labels>& operands, Labels out, const std::vector<int64_t>& extents)
      : operands_(operands), out_(out), extents_(extents), best_(size_t(1) << operands.size()) {
    for (uint32_t set = 1; set < best_.size(); ++set) find(set);
  }
  int emit(uint32_t set, std::vector<std::pair<int, int>>& order) const {
    if (std::has_single_bit(set)) return std::countr_zero(set);
    const int a = emit(best_[set].left, order), b = emit(set & ~best_[set].left, order);
    order.push_back({a, b});
    return int(operands_.size() + order.size()) - 1;
  }
  uint32_t all() const { return uint32_t(best_.size()) - 1; }

 private:
  Labels in(uint32_t set) const {
    Labels labels = 0;
    for (; set; set &= set - 1) labels |= operands_[size_t(std::countr_zero(set))];
    return labels;
  }
  Labels kept(uint32_t set) const { return in(set) & (out_ | in(all() & ~set)); }
  void find(uint32_t set) {
    Best& best = best_[set];
    if (std::has_single_bit(set)) {
      best.flops = 0;
      return;
    }
    const uint32_t lowest = set & (~set + 1);
    const double result = elements(kept(set), extents_);
    for (uint32_t left = (set - 1) & set; left; left = (left - 1) & set) {
      if (!(left & lowest)) continue;  // each split once, with the first operand on the left
      const uint32_t right = set & ~left;
      const double flops = best_[left].flops + best_[right].flops + contraction_flops(kept(left), kept(right), kept(set), extents_);
      const double results = best_[left].results + best_[right].results + result;
      if (std::tie(flops, results) < std::tie(best.flops, best.results) || best.left == 0) best = {flops, results, left};
    }
  }

  const std::vector<Labels>& operands_;
  Labels out_;
  const std::vector<int64_t>& extents_;
  std::vector<Best> best_;
};

std::vector<std::pair<int, int>> greedy_order(std::vector<Labels> terms, Labels out, const std::vector<int64_t>& extents) {
  std::vector<std::pair<int, int>> order;
  std::vector<int> live(terms.size());
  for (size_t i = 0; i < live.size(); ++i) live[i] = int(i);
  while (live.size() > 1) {
    std::tuple<double, double> best;
    size_t best_a = 0, best_b = 0;
    Labels best_kept = 0;
    for (size_t a = 0; a < live.size(); ++a)
      for (size_t b = a + 1; b < live.size(); ++b) {
        Labels others = out;
        for (size_t c = 0; c < live.size(); ++c)
          if (c != a && c != b) others |= terms[size_t(live[c])];
        const Labels x = terms[size_t(live[a])], y = terms[size_t(live[b])], kept = (x | y) & others;
        const std::tuple<double, double> cost{contraction_flops(x, y, kept, extents), elements(kept, extents)};
        if (best_b == 0 || cost < best) {
          best = cost;
          best_a = a;
          best_b = b;
          best_kept = kept;
        }
      }
    order.push_back({live[best_a], live[best_b]});
    terms.push_back(best_kept);
    live.erase(live.begin() + int64_t(best_b));
    live.erase(live.begin() + int64_t(best_a));
    live.push_back(int(terms.size()) - 1);
  }
  return order;
}
}  // namespace

double contraction_flops(Labels a, Labels b, Labels kept, const std::vector<int64_t>& extents) {
  return ((a | b) & ~kept ? 2.0 : 1.0) * elements(a | b, extents);
}

std::vector<std::pair<int, int>> contraction_order(const std::vector<Labels>& operands, Labels out, const std::vector<int64_t>& extents) {
  if (operands.size() > size_t(kMaxExhaustive)) return greedy_order(operands, out, extents);
  std::vector<std::pair<int, int>> order;
  const Search search(operands, out, extents);
  search.emit(search.all(), order);
  return order;
}
}  // namespace reckon
