#include "reckon/report/charts.h"

#include <algorithm>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/report/markup.h"

namespace reckon {
namespace {
constexpr int kWidth = 4000, kHeight = 1000;  // of a plot's own coordinates; the page stretches them

std::string percentage(double share) { return fixed2(share * 100) + "%"; }

struct Axis {
  double low = 0, high = 1;
  double share(double v) const { return high > low ? (v - low) / (high - low) : 0; }
};

// Labels left of a plot, from its bottom.
std::string y_labels(const Axis& axis, const std::vector<double>& ticks, const std::vector<std::string>& labels) {
  std::string out = "<div class=\"y\" aria-hidden=\"true\">";
  for (size_t i = 0; i < ticks.size(); ++i)
    out += text("<span style=\"bottom:{}\">{}</span>", percentage(axis.share(ticks[i])), escaped(labels[i]));
  return out + "</div>";
}

std::string grid_lines(const Axis& axis, const std::vector<double>& ticks) {
  std::string path;
  for (const double t : ticks) path += text("M0 {}h{}", std::lround(kHeight * (1 - axis.share(t))), kWidth);
  return "<path class=\"grid\" d=\"" + path + "\"/>";
}

std::vector<double> ticks_of(double low, double high, double step) {
  std::vector<double> ticks;
  for (double at = std::ceil(low / step) * step; at <= high + step * 1e-9 && ticks.size() < 20; at += step) ticks.push_back(at);
  return ticks;
}

// ---- memory
class MemoryChart {
 public:
  MemoryChart(const Timeline& line, bool above_lowest) : line_(line), above_lowest_(above_lowest) {
    for (size_t c = 0; c < size_t(kCategories); ++c)
      if (std::any_of(line.samples.begin(), line.samples.end(), [&](const TimelineSample& s) { return live(s, c) > 0; }))
        present_.push_back(c);
    for (const TimelineSample& s : line.samples) highest_ = std::max(highest_, stack(s, present_.size()));
    axis_ = {0, std::max<double>(64, double(highest_)) * 1.12};
  }

  std::string draw() const {
    const std::vector<double> ticks = ticks_of(0, axis_.high * 0.97, tick_step(axis_.high, 4, true));
    std::vector<std::string> labels;
    for (const double t : ticks) labels.push_back(axis_bytes(int64_t(t)));
    std::string out = "<div class=\"plot memory\">" + y_labels(axis_, ticks, labels) + "<div class=\"area\">";
    out += text("<svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight,
                escaped(description()));
    out += grid_lines(axis_, ticks);
    // Each area reaches down to zero and is covered by the one below it: no seams between them.
    for (size_t i = present_.size(); i > 0; --i) out += text("<path class=\"f c{}\" d=\"{}\"/>", present_[i - 1], outline(i));
    return out + "</svg>" + peak_mark() + "<div class=\"cursor\" hidden></div></div>" + phase_bands() + "</div>";
  }

 private:
  int64_t live(const TimelineSample& s, size_t c) const { return s.live[c] - (above_lowest_ ? line_.lowest[c] : 0); }
  int64_t stack(const TimelineSample& s, size_t count) const {
    int64_t bytes = 0;
    for (size_t i = 0; i < count; ++i) bytes += live(s, present_[i]);
    return bytes;
  }
  double place(size_t event) const { return line_.end > line_.begin ? double(event - line_.begin) / double(line_.end - line_.begin) : 0; }
  long x(size_t event) const { return std::lround(kWidth * place(event)); }
  long y(int64_t bytes) const { return std::lround(kHeight * (1 - axis_.share(double(bytes)))); }

  // The top of the lowest `count` categories, as stairs: what lives after an event lives until the next.
  std::string outline(size_t count) const {
    long at_x = 0, at_y = y(stack(line_.samples[0], count));
    std::string d = text("M0 {}V{}", kHeight, at_y);
    for (const TimelineSample& s : line_.samples) {
      const long to_x = x(s.event), to_y = y(stack(s, count));
      if (to_y == at_y) continue;
      if (to_x != at_x) d += text("h{}", to_x - at_x);
      d += text("v{}", to_y - at_y);
      at_x = to_x, at_y = to_y;
    }
    return d + text("H{}V{}z", kWidth, kHeight);
  }

  std::string peak_mark() const {
    const TimelineSample& peak = line_.at_peak();
    const double at = place(peak.event);
    const std::string label = above_lowest_ ? "+ " + human_bytes(stack(peak, present_.size())) : "peak " + human_bytes(peak.total());
    return text("<div class=\"peak{}\" style=\"left:{};height:{}\"><b>{}</b></div>", at > 0.5 ? " left" : "", percentage(at),
                percentage(axis_.share(double(stack(peak, present_.size())))), label);
  }

  std::string phase_bands() const {
    std::string out = "<div class=\"bands\" aria-hidden=\"true\">";
    for (size_t i = 1; i < line_.samples.size();) {
      size_t end = i;
      while (end + 1 < line_.samples.size() && line_.samples[end + 1].phase == line_.samples[i].phase) ++end;
      const double left = place(line_.samples[i - 1].event), width = place(line_.samples[end].event) - left;
      const std::string_view name = name_of(line_.samples[i].phase);
      out += text("<span style=\"left:{};width:{}\" title=\"{}\">{}</span>", percentage(left), percentage(width), name,
                  width > 0.05 ? name : "");
      i = end + 1;
    }
    return out + "</div>";
  }

  std::string description() const {
    const TimelineSample& peak = line_.at_peak();
    return text("Live memory over {} allocations and frees{}: from {} to a peak of {} in {}, after event {}.", line_.end - line_.begin,
                above_lowest_ ? ", above what is always there" : "", human_bytes(stack(line_.samples[0], present_.size())),
                human_bytes(stack(peak, present_.size())), name_of(peak.phase), peak.event - line_.begin);
  }

  const Timeline& line_;
  const bool above_lowest_;
  std::vector<size_t> present_;  // categories, bottom first
  int64_t highest_ = 0;
  Axis axis_;
};

// ---- treemap
constexpr double kMapWidth = 1000, kMapHeight = 420;                // what the layout aims at; the page makes it as wide as it is
constexpr double kLetter = 6.4;                                     // pixels, on average
constexpr double kDesktop = 1030, kPaperWidth = 660, kPhone = 310;  // pixels of a treemap's width

std::string label_of(const TreeNode& node) { return node.folded > 1 ? text("{}, {} times", node.name, node.folded) : node.name; }

// What does not fit is left out; what does not fit on paper or on a phone is marked, for the page's style to hide there.
enum class Fit : uint8_t { everywhere, wide, desktop, nowhere };
constexpr const char* kFitClass[] = {"", "wide ", "desktop ", ""};
Fit fit(size_t letters, double share) {
  const double length = double(letters) * kLetter + 10;
  return length <= share * kPhone        ? Fit::everywhere
         : length <= share * kPaperWidth ? Fit::wide
         : length <= share * kDesktop    ? Fit::desktop
                                         : Fit::nowhere;
}

// Name and amount, beside each other in a header, else below each other.
std::string cell_text(const TreeNode& node, const std::string& amount, double share, double height, bool is_header,
                      const std::string& ink) {
  const std::string name = label_of(node);
  const Fit name_fits = fit(name.size(), share), both_fit = fit(name.size() + amount.size() + 2, share);
  if (name_fits == Fit::nowhere || height < 15) return {};
  std::string out = text("<text x=\"5\" y=\"13\" class=\"{}{}\">{}", kFitClass[size_t(name_fits)], ink, escaped(name));
  if (is_header || height < 30) {
    if (both_fit != Fit::nowhere)
      out += text("<tspan dx=\"7\" class=\"{}amount\">{}</tspan>", kFitClass[size_t(both_fit)], escaped(amount));
    return out + "</text>";
  }
  const Fit amount_fits = std::max(name_fits, fit(amount.size(), share));
  out += "</text>";
  if (amount_fits != Fit::nowhere)
    out += text("<text x=\"5\" y=\"28\" class=\"{}amount {}\">{}</text>", kFitClass[size_t(amount_fits)], ink, escaped(amount));
  return out;
}

std::string draw_cell(const Cell& cell, const TreemapStyle& style, int64_t total) {
  const TreeNode& node = *cell.node;
  const Rect& r = cell.rect;
  if (r.width < 0.4 || r.height < 0.4) return {};
  const double share = r.width / kMapWidth;
  const std::string amount = style.format(node.value);
  std::string out = text("<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}: {} ({})</title>",
                         percentage(share == 0 ? 0 : r.x / kMapWidth), fixed2(r.y), percentage(share), fixed2(r.height),
                         escaped(label_of(node)), escaped(amount), percent(double(node.value) / double(std::max<int64_t>(1, total))));
  const std::string colour = node.is_leaf() ? text("leaf {}{}", style.colour_class, node.kind) : text("box d{}", cell.depth % 2);
  out += text("<rect width=\"100%\" height=\"100%\" class=\"{}\"/>", colour);
  const bool has_header = !node.is_leaf() && cell.inner.y > r.y;
  if (node.is_leaf() || has_header) {
    const std::string ink = node.is_leaf() ? text("on {}{}", style.colour_class, node.kind) : "head";
    out += cell_text(node, amount, share, r.height, has_header, ink);
  }
  return out + "</svg>";
}

std::string nice_number(double v) { return short_number(v); }
}  // namespace

std::string axis_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = double(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 5) value /= 1024, ++unit;
  return bytes == 0 ? "0" : text("{:.4g} {}", value, kUnits[unit]);
}

std::string memory_chart(const Timeline& timeline, bool above_lowest) { return MemoryChart(timeline, above_lowest).draw(); }

std::string treemap_chart(const TreeNode& tree, const TreemapStyle& style) {
  if (tree.value <= 0) return "<p class=\"none\">Nothing to show.</p>";
  std::string out =
      text("<svg class=\"map\" width=\"100%\" height=\"{}\" role=\"img\" aria-label=\"{}\">", int(kMapHeight), escaped(style.title));
  for (const Cell& cell : make_treemap(tree, {0, 0, kMapWidth, kMapHeight}, 19)) out += draw_cell(cell, style, tree.value);
  return out + "</svg>";
}

Series thinned(const Series& series, size_t buckets) {
  if (series.x.size() <= 4 * buckets) return series;
  Series out{.name = series.name, .points = series.points};
  const size_t stretch = (series.x.size() + buckets - 1) / buckets;
  for (size_t begin = 0; begin < series.x.size(); begin += stretch) {
    const size_t end = std::min(begin + stretch, series.x.size());
    std::vector<size_t> kept = {begin, end - 1};
    size_t low = end, high = end;
    for (size_t i = begin; i < end; ++i) {
      if (std::isnan(series.y[i])) {
        if (kept.size() == 2) kept.push_back(i);  // one gap in a stretch shows that there was one
        continue;
      }
      if (low == end || series.y[i] < series.y[low]) low = i;
      if (high == end || series.y[i] > series.y[high]) high = i;
    }
    if (low != end) kept.insert(kept.end(), {low, high});
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    for (const size_t i : kept) out.x.push_back(series.x[i]), out.y.push_back(series.y[i]);
  }
  return out;
}

std::string line_chart(const LineChart& chart) {
  Axis x{0, 1}, y{0, 1};
  bool any = false;
  for (const Series& s : chart.series)
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!std::isfinite(s.y[i])) continue;
      if (!any) x = {s.x[i], s.x[i]}, y = {s.y[i], s.y[i]};
      any = true;
      x = {std::min(x.low, s.x[i]), std::max(x.high, s.x[i])};
      y = {std::min(y.low, s.y[i]), std::max(y.high, s.y[i])};
    }
  if (!any) return {};
  const double low = y.low, high = y.high;
  if (chart.from_zero) y.low = std::min(0.0, y.low);
  if (y.high == y.low) y.high = y.low + std::max(1e-9, std::abs(y.low) * 0.1);
  const double margin = (y.high - y.low) * 0.08;
  y.high += margin;
  if (!chart.from_zero) y.low -= margin;
  auto* const format = chart.format ? chart.format : nice_number;
  const std::vector<double> ticks = ticks_of(y.low, y.high - margin * 0.4, tick_step(y.high - y.low, 5, false));
  std::vector<std::string> labels;
  for (const double t : ticks) labels.push_back(format(t));
  std::string out = text("<div class=\"plot line\" id=\"{}\">", escaped(chart.id)) + y_labels(y, ticks, labels) + "<div class=\"area\">";
  out += text("<svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight,
              escaped(text("{} over steps {} to {}: between {} and {}.", chart.title, short_number(x.low), short_number(x.high),
                           format(low), format(high))));
  out += grid_lines(y, ticks);
  for (size_t n = 0; n < chart.series.size(); ++n) {
    const Series& s = chart.series[n];
    std::string d, dots;
    bool pen_down = false;
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (!std::isfinite(s.y[i])) {
        pen_down = false;
        continue;
      }
      const std::string point =
          text("{} {}", fixed2(kWidth * (x.high > x.low ? x.share(s.x[i]) : 0.5)), fixed2(kHeight * (1 - y.share(s.y[i]))));
      d += (pen_down ? "L" : "M") + point;
      dots += "M" + point + "h0";
      pen_down = true;
    }
    out += text("<path class=\"s{}\" d=\"{}\"/>", n, d);
    if (s.points || s.x.size() == 1) out += text("<path class=\"s{} dots\" d=\"{}\"/>", n, dots);
  }
  out += "</svg><div class=\"cursor\" hidden></div></div>";
  return out + text("<div class=\"x\" aria-hidden=\"true\"><span>{}</span><span>step {}</span></div></div>",
                    text("step {}", short_number(x.low)), short_number(x.high));
}
}  // namespace reckon
