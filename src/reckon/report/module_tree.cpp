#include "reckon/report/module_tree.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

namespace reckon {
namespace {
bool is_number(std::string_view s) { return !s.empty() && s.find_first_not_of("0123456789") == std::string_view::npos; }

// "blocks.3.attn" -> {"blocks.*", "attn"}, and the numbers that the stars stand for.
struct FoldedPath {
  std::vector<std::string> names;
  std::vector<std::string> numbers;  // one a name; "" if it has no star
};
FoldedPath fold(std::string_view path) {
  FoldedPath folded;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string_view part = path.substr(0, dot);
    if (is_number(part) && !folded.names.empty()) {
      folded.names.back() += ".*";
      folded.numbers.back() += (folded.numbers.back().empty() ? "" : ".") + std::string(part);
    } else {
      folded.names.emplace_back(part);
      folded.numbers.emplace_back();
    }
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return folded;
}

// The tree while it is built: children found by name.
struct Branch {
  std::map<std::string, Branch, std::less<>> children;
  std::map<std::pair<std::string, int>, int64_t> leaves;
  std::set<std::string> numbers;
};

TreeNode finish(std::string name, const Branch& branch) {
  TreeNode node{.name = std::move(name), .folded = std::max<int64_t>(1, int64_t(branch.numbers.size()))};
  for (const auto& [child, below] : branch.children) node.children.push_back(finish(child, below));
  for (const auto& [leaf, value] : branch.leaves) node.children.push_back({.name = leaf.first, .value = value, .kind = leaf.second});
  for (const TreeNode& child : node.children) node.value += child.value;
  std::stable_sort(node.children.begin(), node.children.end(), [](const TreeNode& a, const TreeNode& b) { return a.value > b.value; });
  return node;
}

// Largest ratio of sides among cells of these values laid out as one row of the given length.
double worst_ratio(std::span<const TreeNode> row, double row_value, double length, double area_per_value) {
  const double thickness = row_value * area_per_value / length;
  double worst = 1;
  for (const TreeNode& node : row) {
    const double side = double(node.value) * area_per_value / thickness;
    worst = std::max({worst, side / thickness, thickness / side});
  }
  return worst;
}

class Treemap {
 public:
  Treemap(double header, std::vector<Cell>& cells) : header_(header), cells_(cells) {}

  void place(const TreeNode& node, const Rect& rect, int depth) {
    Rect inner = rect;
    const double edge = 2;
    if (!node.is_leaf() && rect.width >= 2 * header_ && rect.height >= 2 * header_) {
      inner = {rect.x + edge, rect.y + header_, rect.width - 2 * edge, rect.height - header_ - edge};
    }
    cells_.push_back({&node, rect, inner, depth});
    if (node.value > 0) squarify(node, inner, depth + 1);
  }

 private:
  void squarify(const TreeNode& parent, Rect free, int depth) {
    const double area_per_value = free.area() / double(parent.value);
    std::span<const TreeNode> rest = parent.children;
    while (!rest.empty()) {
      const double length = std::min(free.width, free.height);
      size_t count = 1;
      double value = double(rest[0].value);
      while (count < rest.size() && worst_ratio(rest.first(count + 1), value + double(rest[count].value), length, area_per_value) <=
                                        worst_ratio(rest.first(count), value, length, area_per_value))
        value += double(rest[count++].value);
      free = place_row(rest.first(count), value, free, area_per_value, depth);
      rest = rest.subspan(count);
    }
  }

  // Along the shorter side of what is free; returns what is left.
  Rect place_row(std::span<const TreeNode> row, double value, const Rect& free, double area_per_value, int depth) {
    const bool is_column = free.width >= free.height;
    const double length = is_column ? free.height : free.width, thickness = length > 0 ? value * area_per_value / length : 0;
    double at = 0;
    for (const TreeNode& node : row) {
      const double side = length * double(node.value) / value;
      place(node, is_column ? Rect{free.x, free.y + at, thickness, side} : Rect{free.x + at, free.y, side, thickness}, depth);
      at += side;
    }
    if (is_column) return {free.x + thickness, free.y, std::max(0.0, free.width - thickness), free.height};
    return {free.x, free.y + thickness, free.width, std::max(0.0, free.height - thickness)};
  }

  const double header_;
  std::vector<Cell>& cells_;
};
}  // namespace

std::string folded_path(std::string_view path) {
  std::string out;
  for (const std::string& name : fold(path).names) out += (out.empty() ? "" : ".") + name;
  return out;
}

TreeNode make_tree(const std::vector<TreeItem>& items, std::string root_name) {
  Branch root;
  for (const TreeItem& item : items) {
    if (item.value <= 0) continue;
    Branch* at = &root;
    const FoldedPath path = fold(item.path);
    for (size_t i = 0; i < path.names.size(); ++i) {
      at = &at->children[path.names[i]];
      if (!path.numbers[i].empty()) at->numbers.insert(path.numbers[i]);
    }
    at->leaves[{item.leaf, item.kind}] += item.value;
  }
  return finish(std::move(root_name), root);
}

std::vector<Cell> make_treemap(const TreeNode& root, const Rect& frame, double header) {
  std::vector<Cell> cells;
  Treemap(header, cells).place(root, frame, 0);
  return cells;
}
}  // namespace reckon
