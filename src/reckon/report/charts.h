// report/charts: SVG that any width stretches without stretching its text: areas over events, rectangles of a tree, lines over steps.
// Knows no page around it; scripts may add to it, nothing depends on them.
#pragma once
#include "reckon/report/module_tree.h"
#include "reckon/report/timeline.h"

namespace reckon {

/// Live bytes stacked by category, smallest change at the bottom, with phases below and the peak marked. `above_lowest`: only what is above
/// each category's lowest moment, the part that comes and goes.
std::string memory_chart(const Timeline& timeline, bool above_lowest);

/// What cells are coloured by: css classes "c0".. (categories) or "p0".. (passes), and how amounts are written.
struct TreemapStyle {
  char colour_class = 'c';
  std::string (*format)(int64_t) = nullptr;
  std::string title;  // for readers who see no picture
};
std::string treemap_chart(const TreeNode& tree, const TreemapStyle& style);

struct Series {
  std::string name;
  std::vector<double> x, y;  // NaN in y: a gap
  bool points = false;       // dots joined by a thin line
};
struct LineChart {
  std::string id, title;
  std::vector<Series> series;
  std::string (*format)(double) = nullptr;
  bool from_zero = false;
};
std::string line_chart(const LineChart& chart);

/// At most about 4 * buckets points: of each stretch the first, the lowest, the highest and the last, gaps kept.
Series thinned(const Series& series, size_t buckets);

/// "400 MiB", for axes.
std::string axis_bytes(int64_t bytes);
}  // namespace reckon
