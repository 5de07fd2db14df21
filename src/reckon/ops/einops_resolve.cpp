// ops/einops_resolve: what a pattern's axes are in one shape.
#include <algorithm>

#include "reckon/ops/einops_axes.h"

namespace reckon {
namespace {
using Kind = PatternAxis::Kind;

struct Elementary {
  std::string name;  // "h", "3", "...[0]"
  int64_t length;    // -1: not known yet
};

class Resolver {
 public:
  Resolver(PatternOf what, const PatternPlace& place, const Shape& x, const AxisLengths& lengths) : place_(place), x_(x), given_(lengths) {
    place_.check(detail::read_arrow_pattern(what, place.pattern, pattern_));
    check_lengths();
    read_left();
    read_right();
  }
  ResolvedPattern take() { return std::move(resolved_); }

 private:
  bool names(std::string_view name) const {
    const PatternAxis axis{Kind::named, name, 0};
    return detail::holds(pattern_.left, axis) || detail::holds(pattern_.right, axis);
  }
  void check_lengths() const {
    for (auto at = given_.begin(); at != given_.end(); ++at) {
      place_.check(!at->name.empty() && !detail::check_name(at->name), "'{}' is given a length, but is no name of an axis", at->name);
      place_.check(at->length >= 0, "axis '{}' is given the length {}", at->name, at->length);
      place_.check(names(at->name), "axis '{}' is given a length, but the pattern does not name it", at->name);
      for (auto other = given_.begin(); other != at; ++other)
        place_.check(other->name != at->name, "axis '{}' is given two lengths, {} and {}", at->name, other->length, at->length);
    }
  }
  int64_t given_length(std::string_view name) const {
    for (const AxisLength& l : given_)
      if (l.name == name) return l.length;
    return -1;
  }
  int add(std::string name, int64_t length) {
    axes_.push_back({std::move(name), length});
    return int(axes_.size()) - 1;
  }
  int find(std::string_view name) const {
    for (size_t i = 0; i < axes_.size(); ++i)
      if (axes_[i].name == name) return int(i);
    return -1;
  }

  void read_left() {
    int named = 0;
    bool ellipsis = false;
    for (const PatternGroup& group : pattern_.left) {
      const bool is_ellipsis = group.size() == 1 && group[0].kind == Kind::ellipsis;
      ellipsis |= is_ellipsis;
      named += !is_ellipsis;
    }
    place_.check(ellipsis ? named <= x_.rank() : named == x_.rank(), "the left has {}{} {}, the tensor has {}", ellipsis ? "at least " : "",
                 named, named == 1 ? "axis" : "axes", x_.rank());
    int axis = 0;
    for (const PatternGroup& group : pattern_.left) {
      if (group.size() == 1 && group[0].kind == Kind::ellipsis) {
        hidden_ = x_.rank() - named;
        for (int i = 0; i < hidden_; ++i) add(text("...[{}]", i), x_[axis++]);
      } else {
        read_group(group, axis++);
      }
    }
    resolved_.given = int(axes_.size());
  }
  static std::string print(const PatternGroup& group) {
    std::string names;
    for (const PatternAxis& axis : group) names += (names.empty() ? "" : " ") + std::string(axis.name);
    return group.size() == 1 ? names : "(" + names + ")";
  }
  void read_group(const PatternGroup& group, int axis) {
    const int64_t extent = x_[axis];
    int64_t known = 1;
    int unknown = -1;
    for (const PatternAxis& part : group) {
      const int64_t length = part.kind == Kind::number ? part.length : given_length(part.name);
      const int id = add(std::string(part.name), length);
      if (length >= 0) {
        known = length > 0 && known > INT64_MAX / length ? INT64_MAX : known * length;  // no axis is that long
      } else {
        place_.check(unknown < 0, "the lengths of '{}' and '{}' in {} are both unknown; give one of them",
                     unknown < 0 ? "" : axes_[size_t(unknown)].name, part.name, print(group));
        unknown = id;
      }
    }
    if (group.empty()) {
      place_.check(extent == 1, "axis {} has length {}, and the pattern says 1", axis, extent);
    } else if (unknown < 0) {
      place_.check(known == extent, "axis {}, '{}', has length {}, not {}", axis, print(group), extent, known);
    } else {
      place_.check(known > 0, "the length of '{}' in {} cannot be found beside a length of 0", axes_[size_t(unknown)].name, print(group));
      place_.check(extent % known == 0, "axis {}, '{}', has length {}, which is not divisible by {}", axis, print(group), extent, known);
      axes_[size_t(unknown)].length = extent / known;
    }
  }

  void read_right() {
    for (const PatternGroup& group : pattern_.right) {
      // "(...)" is one axis, "..." as many as there are.
      if (group.size() == 1 && group[0].kind == Kind::ellipsis && !group[0].in_parentheses) {
        for (int i = 0; i < hidden_; ++i) resolved_.right.push_back({find(text("...[{}]", i))});
        continue;
      }
      std::vector<int> parts;
      for (const PatternAxis& part : group) read_part(part, parts);
      resolved_.right.push_back(parts);
    }
    for (const Elementary& axis : axes_) resolved_.lengths.push_back(axis.length);
    place_.check(resolved_.right.size() <= size_t(kMaxRank), "the result has {} axes, and {} are the most", resolved_.right.size(),
                 kMaxRank);
  }
  void read_part(const PatternAxis& part, std::vector<int>& parts) {
    if (part.kind == Kind::ellipsis) {
      for (int i = 0; i < hidden_; ++i) parts.push_back(find(text("...[{}]", i)));
    } else if (part.kind == Kind::number) {
      parts.push_back(add(std::string(part.name), part.length));
    } else if (const int id = find(part.name); id >= 0) {
      parts.push_back(id);
    } else {
      const int64_t length = given_length(part.name);
      place_.check(length >= 0, "the new axis '{}' has no length; give it one", part.name);
      parts.push_back(add(std::string(part.name), length));
    }
  }

  const PatternPlace& place_;
  const Shape& x_;
  const AxisLengths& given_;
  ArrowPattern pattern_;
  std::vector<Elementary> axes_;
  int hidden_ = 0;  // axes under the ellipsis
  ResolvedPattern resolved_;
};
}  // namespace

void PatternPlace::fail(Failure kind, const std::string& message) const {
  fail_as(kind, "{}: {}, in \"{}\" for {}", function, message, pattern, operands);
}

std::string to_string(const FaultAt& at) {
  switch (at.fault) {
    case PatternFault::none:
      break;
#define RECKON_FAULT_TEXT(name, message) \
  case PatternFault::name:               \
    return text(message, at.piece);
      RECKON_PATTERN_FAULTS(RECKON_FAULT_TEXT)
#undef RECKON_FAULT_TEXT
  }
  return "";
}

Shape ResolvedPattern::result() const {
  std::vector<int64_t> extents;
  for (const std::vector<int>& group : right) {
    int64_t extent = 1;
    for (const int axis : group) extent = checked_multiply(extent, lengths[size_t(axis)]);
    extents.push_back(extent);
  }
  return Shape(std::span<const int64_t>(extents));
}

ResolvedPattern resolve(PatternOf what, const PatternPlace& place, const Shape& x, const AxisLengths& lengths) {
  return Resolver(what, place, x, lengths).take();
}

int64_t AxisLengths::operator[](std::string_view name) const {
  for (const AxisLength& l : lengths_)
    if (l.name == name) return l.length;
  fail("there is no length of an axis '{}'", name);
}
}  // namespace reckon
