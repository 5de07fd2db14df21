// Amounts by module: equal layers fold into one, nothing is lost on the way up, and areas are shares.
#include "reckon/report/module_tree.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace reckon {
namespace {
std::vector<TreeItem> layers(int count) {
  std::vector<TreeItem> items = {
      {"", "optimizer", 2, 5000}, {"embed", "embedding", 4, 700}, {"head", "linear", 4, 1300}, {"head", "linear", 5, 200}};
  for (int i = 0; i < count; ++i) {
    const std::string block = "blocks." + std::to_string(i);
    items.push_back({block + ".attn", "linear", 4, 300});
    items.push_back({block + ".mlp", "linear", 4, 500 + i});
    items.push_back({block + ".mlp", "gelu", 4, 400});
    items.push_back({block, "add", 5, 10});
  }
  return items;
}

void expect_sums(const TreeNode& node) {
  if (node.is_leaf()) {
    EXPECT_TRUE(node.children.empty());
    return;
  }
  int64_t sum = 0;
  for (const TreeNode& child : node.children) {
    sum += child.value;
    expect_sums(child);
  }
  EXPECT_EQ(node.value, sum) << node.name;
}

TEST(ModuleTree, FoldsNumberedSiblings) {
  EXPECT_EQ(folded_path("blocks.12.attn"), "blocks.*.attn");
  EXPECT_EQ(folded_path("experts.3.layers.11"), "experts.*.layers.*");
  EXPECT_EQ(folded_path(""), "");
  EXPECT_EQ(folded_path("norm1"), "norm1");
  const std::vector<TreeItem> items = layers(80);
  const TreeNode tree = make_tree(items, "model");
  EXPECT_EQ(tree.value,
            std::accumulate(items.begin(), items.end(), int64_t(0), [](int64_t sum, const TreeItem& i) { return sum + i.value; }));
  expect_sums(tree);
  ASSERT_EQ(tree.children.size(), 4u);  // blocks.*, optimizer, head, embed
  EXPECT_EQ(tree.children[0].name, "blocks.*");
  EXPECT_EQ(tree.children[0].folded, 80);
  EXPECT_EQ(tree.children[0].children[0].name, "mlp");
  EXPECT_EQ(tree.children[0].children[0].folded, 1);
}

TEST(ModuleTree, LeavesOutWhatIsNothing) {
  EXPECT_TRUE(make_tree({{"a", "op", 0, 0}, {"b", "op", 1, -5}}, "root").children.empty());
  EXPECT_TRUE(make_tree({}, "root").children.empty());
}

TEST(ModuleTree, AreasOfChildrenFillTheirParentInProportion) {
  for (const int count : {0, 1, 7, 80}) {
    const TreeNode tree = make_tree(layers(count), "model");
    const std::vector<Cell> cells = make_treemap(tree, {0, 0, 1000, 420}, 19);
    for (size_t p = 0; p < cells.size(); ++p) {
      const Cell& parent = cells[p];
      double sum = 0;
      for (size_t c = p + 1; c < cells.size() && cells[c].depth > parent.depth; ++c) {
        if (cells[c].depth != parent.depth + 1) continue;
        const Rect &r = cells[c].rect, &i = parent.inner;
        sum += r.area();
        EXPECT_NEAR(r.area(), i.area() * double(cells[c].node->value) / double(parent.node->value), 1e-6 * i.area());
        EXPECT_GE(r.x, i.x - 1e-6);
        EXPECT_GE(r.y, i.y - 1e-6);
        EXPECT_LE(r.x + r.width, i.x + i.width + 1e-6);
        EXPECT_LE(r.y + r.height, i.y + i.height + 1e-6);
      }
      EXPECT_NEAR(sum, parent.node->is_leaf() ? 0 : parent.inner.area(), 1e-6 * parent.inner.area()) << parent.node->name;
    }
    EXPECT_EQ(cells[0].rect.area(), 420'000);
  }
}

TEST(ModuleTree, SiblingsDoNotOverlap) {
  const TreeNode tree = make_tree(layers(3), "model");
  const std::vector<Cell> cells = make_treemap(tree, {0, 0, 640, 400}, 19);
  for (const Cell& a : cells)
    for (const Cell& b : cells) {
      if (&a == &b || !a.node->is_leaf() || !b.node->is_leaf()) continue;
      const double width = std::min(a.rect.x + a.rect.width, b.rect.x + b.rect.width) - std::max(a.rect.x, b.rect.x);
      const double height = std::min(a.rect.y + a.rect.height, b.rect.y + b.rect.height) - std::max(a.rect.y, b.rect.y);
      EXPECT_TRUE(width < 1e-6 || height < 1e-6) << a.node->name << " " << b.node->name;
    }
}
}  // namespace
}  // namespace reckon
