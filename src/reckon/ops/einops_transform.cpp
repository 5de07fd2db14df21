// ops/einops_transform: a resolved pattern as calls: split, reduce, permute, repeat, merge.
#include <algorithm>
#include <numeric>

#include "reckon/ops/einops_axes.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
using Axes = std::vector<int>;
using Extents = std::vector<int64_t>;

Shape shape_of(const Extents& extents) { return Shape(std::span<const int64_t>(extents)); }

// By halves, so that the gradient is exact where factors are 0. Over nothing it is 1.
int product_of(Composition& calls, int value, uint32_t axes) {
  if (calls.shape(value).numel() == 0)
    return calls.apply(op::affine, calls.apply(op::sum, value, ReduceParams{axes, false}), AffineParams{1, 1});
  Axes order;
  Extents kept;
  int64_t count = 1;
  for (const bool reduced : {false, true})
    for (int axis = 0; axis < calls.shape(value).rank(); ++axis) {
      if (bool(axes >> axis & 1u) != reduced) continue;
      order.push_back(axis);
      if (reduced)
        count *= calls.shape(value)[axis];
      else
        kept.push_back(calls.shape(value)[axis]);
    }
  const Shape result = shape_of(kept);
  const int last = int(kept.size());
  value = calls.reshape(calls.permute(value, order), result.appended(count));
  const auto part = [&](int of, int64_t start, int64_t stop) {
    return calls.apply(op::slice, of, SliceParams{last, calls.shape(of)[last], start, stop, 1});
  };
  Axes odd;
  for (; count > 1; count /= 2) {
    if (count % 2) odd.push_back(part(value, count - 1, count));
    const int low = part(value, 0, count / 2), high = part(value, count / 2, count / 2 * 2);
    value = calls.apply(op::mul, low, high, {});
  }
  for (const int factor : odd) value = calls.apply(op::mul, value, factor, {});
  return calls.reshape(value, result);
}

int reduce_axes(Composition& calls, int value, uint32_t axes, Reducer reducer) {
  const ReduceParams params{axes, false};
  const Shape from = calls.shape(value);
  const DType dtype = calls.dtype(value);
  switch (reducer) {
    case Reducer::max:
      return calls.apply(op::max, value, params);
    case Reducer::min: {
      // The least whole number has no negative, but -1 - x reverses the order of all of them.
      if (dtype == DType::boolean) {  // is every one true
        const int least = reduce_axes(calls, calls.apply(op::cast, value, CastParams{DType::i32}), axes, reducer);
        return calls.apply(op::cast, least, CastParams{dtype});
      }
      if (is_float(dtype)) return calls.apply(op::neg, calls.apply(op::max, calls.apply(op::neg, value), params));
      const AffineParams reversed{-1, -1};
      return calls.apply(op::affine, calls.apply(op::max, calls.apply(op::affine, value, reversed), params), reversed);
    }
    case Reducer::prod: {
      check(!is_float8(dtype), "{} is for storage, and nothing is computed in it: cast it to bf16 or f32 first", dtype);
      // As sums are: whole numbers in i64, 16-bit floats in f32.
      const bool narrow = is_float(dtype) && size_of(dtype) == 2;
      const DType wide = narrow ? DType::f32 : is_float(dtype) ? dtype : DType::i64;
      if (wide != dtype) value = calls.apply(op::cast, value, CastParams{wide});
      value = product_of(calls, value, axes);
      return narrow ? calls.apply(op::cast, value, CastParams{dtype}) : value;
    }
    case Reducer::sum:
      return calls.apply(op::sum, value, params);
    case Reducer::mean:
      break;
  }
  check(is_float(dtype), "the mean of {} is no whole number; cast it to a float first", dtype);
  value = calls.apply(op::sum, value, params);
  const int64_t kept = calls.shape(value).numel();
  check(from.numel() > 0 || kept == 0, "the mean over an empty axis of {} is undefined", from);
  return kept ? calls.apply(op::affine, value, AffineParams{double(kept) / double(from.numel()), 0}) : value;
}

// The axes that matter: those of 1 come and go with a reshape.
class Transform {
 public:
  Transform(Composition& calls, const ResolvedPattern& pattern) : calls_(calls), lengths_(pattern.lengths), given_(pattern.given) {
    for (int axis = 0; axis < given_; ++axis)
      if (length(axis) != 1) from_.push_back(axis);
    for (const std::vector<int>& group : pattern.right)
      for (const int axis : group)
        if (length(axis) != 1) to_.push_back(axis);
  }

  int run(int value, Reducer reducer) {
    if (most_axes() > size_t(kMaxRank)) merge_neighbours();
    return most_axes() > size_t(kMaxRank) ? run_in_passes(value, reducer) : run_at_once(value, reducer);
  }

 private:
  int64_t length(int axis) const { return lengths_[size_t(axis)]; }
  bool is_new(int axis) const { return axis >= given_; }
  bool is_reduced(int axis) const { return std::find(to_.begin(), to_.end(), axis) == to_.end(); }
  size_t most_axes() const { return std::max(from_.size(), to_.size()); }
  Shape shape_of_axes(const Axes& axes) const {
    Extents extents;
    for (const int axis : axes) extents.push_back(length(axis));
    return shape_of(extents);
  }
  int64_t product(const Axes& axes) const {
    int64_t n = 1;
    for (const int axis : axes) n = checked_multiply(n, length(axis));
    return n;
  }

  // Axes that stay neighbours, or are reduced together, are one.
  void merge_neighbours() {
    Axes merged;
    for (const int axis : from_) {
      const int last = merged.empty() ? -1 : merged.back();
      const auto at = std::find(to_.begin(), to_.end(), axis);
      const bool reduced = at == to_.end();
      if (last >= 0 && (reduced ? is_reduced(last) : at != to_.begin() && *(at - 1) == last)) {
        lengths_[size_t(last)] = product({last, axis});
        if (!reduced) to_.erase(at);
      } else {
        merged.push_back(axis);
      }
    }
    from_ = merged;
    Axes kept;  // new axes that are neighbours
    for (const int axis : to_) {
      if (is_new(axis) && !kept.empty() && is_new(kept.back()))
        lengths_[size_t(kept.back())] = product({kept.back(), axis});
      else
        kept.push_back(axis);
    }
    to_ = kept;
  }

  int run_at_once(int value, Reducer reducer) {
    value = calls_.reshape(value, shape_of_axes(from_));
    uint32_t reduced = 0;
    Axes kept, order;
    for (size_t i = 0; i < from_.size(); ++i) {
      if (is_reduced(from_[i]))
        reduced |= 1u << i;
      else
        kept.push_back(from_[i]);
    }
    if (reduced) value = reduce_axes(calls_, value, reduced, reducer);
    Extents with_ones;
    for (const int axis : to_) {
      with_ones.push_back(is_new(axis) ? 1 : length(axis));
      if (!is_new(axis)) order.push_back(int(std::find(kept.begin(), kept.end(), axis) - kept.begin()));
    }
    value = calls_.permute(value, order);
    return calls_.expand(calls_.reshape(value, shape_of(with_ones)), shape_of_axes(to_));
  }

  // More axes than a tensor has: each pass moves a few runs of axes to their places and merges what has become neighbours, by a copy.
  int run_in_passes(int value, Reducer reducer) {
    Axes created, goal = to_;
    std::copy_if(to_.begin(), to_.end(), std::back_inserter(created), [&](int axis) { return is_new(axis); });
    if (!created.empty()) {
      const int64_t elements = product(from_), copies = product(created);
      value = calls_.expand(calls_.reshape(value, {1, elements}), {copies, elements});
      from_.insert(from_.begin(), created.begin(), created.end());
    }
    std::copy_if(from_.begin(), from_.end(), std::back_inserter(goal), [&](int axis) { return is_reduced(axis); });
    const int64_t kept = product(to_), reduced = product(goal) / std::max<int64_t>(kept, 1);
    while (from_ != goal) value = pass(value, goal);
    return goal.size() > to_.size() ? reduce_axes(calls_, calls_.reshape(value, {kept, reduced}), 0b10, reducer) : value;
  }

  // Runs of axes that lie one behind the other in the goal.
  std::vector<Axes> runs(const Axes& goal) const {
    std::vector<Axes> found;
    for (const int axis : from_) {
      const auto at = std::find(goal.begin(), goal.end(), axis);
      if (!found.empty() && at != goal.begin() && *(at - 1) == found.back().back())
        found.back().push_back(axis);
      else
        found.push_back({axis});
    }
    return found;
  }
  int pass(int value, const Axes& goal) {
    std::vector<Axes> blocks = runs(goal);
    const auto place = [&](const Axes& block) { return std::find(goal.begin(), goal.end(), block.front()) - goal.begin(); };
    Axes order(blocks.size());
    std::iota(order.begin(), order.end(), 0);
    const auto sort_by_place = [&](Axes& list) {
      std::sort(list.begin(), list.end(), [&](int a, int b) { return place(blocks[size_t(a)]) < place(blocks[size_t(b)]); });
    };
    sort_by_place(order);
    if (blocks.size() > size_t(kMaxRank)) {
      // The first three that are not in front go there; what lies between them stays together: 1 + 3 + 4 blocks at most.
      Axes moved(order.begin(), order.begin() + (order[0] == 0 ? 4 : 3));
      std::vector<Axes> fewer;
      Axes front(moved.size()), rest;
      for (int i = 0, last = -1; i < int(blocks.size()); ++i) {
        const auto at = std::find(moved.begin(), moved.end(), i);
        if (at == moved.end() && last == 0) {
          fewer.back().insert(fewer.back().end(), blocks[size_t(i)].begin(), blocks[size_t(i)].end());
          continue;
        }
        last = at == moved.end() ? 0 : 1;
        (at == moved.end() ? rest.emplace_back() : front[size_t(at - moved.begin())]) = int(fewer.size());
        fewer.push_back(blocks[size_t(i)]);
      }
      blocks = fewer;
      order = front;
      order.insert(order.end(), rest.begin(), rest.end());
    }
    Extents extents;
    for (const Axes& block : blocks) extents.push_back(product(block));
    value = calls_.permute(calls_.reshape(value, shape_of(extents)), order);
    from_.clear();
    for (const int block : order) from_.insert(from_.end(), blocks[size_t(block)].begin(), blocks[size_t(block)].end());
    return value;
  }

  Composition& calls_;
  Extents lengths_;
  int given_;
  Axes from_, to_;
};
}  // namespace

int transform(Composition& calls, int value, const ResolvedPattern& pattern, Reducer reducer) {
  const Shape result = pattern.result();  // refuses what no tensor can hold
  return calls.reshape(Transform(calls, pattern).run(value, reducer), result);
}
}  // namespace reckon
