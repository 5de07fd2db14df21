// report/module_tree: amounts by module path as a tree, and the tree as nested rectangles. Knows neither bytes nor FLOPs nor SVG.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// A module, or at the bottom an operation in it. Numbered siblings ("blocks.0", "blocks.1", ...) are one node "blocks.*", so that the
/// tree of eighty layers is that of one.
struct TreeNode {
  std::string name;
  int64_t value = 0;               // of everything below
  int kind = -1;                   // leaf: what it is coloured by; inner node: -1
  int64_t folded = 1;              // how many numbered modules this node stands for
  std::vector<TreeNode> children;  // largest first
  bool is_leaf() const { return kind >= 0; }
};

struct TreeItem {
  std::string path;  // dotted; "" is the root
  std::string leaf;
  int kind = 0;
  int64_t value = 0;  // items of 0 or less are left out
};
/// "blocks.3.attn" -> "blocks.*.attn".
std::string folded_path(std::string_view path);
TreeNode make_tree(const std::vector<TreeItem>& items, std::string root_name);

struct Rect {
  double x = 0, y = 0, width = 0, height = 0;
  double area() const { return width * height; }
};

/// A node and where it lies. Parents come before their children; `inner` is what the children share in proportion to their values.
struct Cell {
  const TreeNode* node;
  Rect rect, inner;
  int depth = 0;
};

/// The squarified treemap (Bruls, Huizing, van Wijk 2000) of a tree. An inner node at least `header` high and wide keeps a strip of this
/// height for its name. Cells are valid while the tree lives.
std::vector<Cell> make_treemap(const TreeNode& root, const Rect& frame, double header);
}  // namespace reckon
