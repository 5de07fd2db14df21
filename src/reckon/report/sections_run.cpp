#include <algorithm>
#include <cmath>
#include <map>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/report/charts.h"
#include "reckon/report/markup.h"
#include "reckon/report/palette.h"
#include "reckon/report/sections.h"

namespace reckon {
namespace {
constexpr size_t kLineBuckets = 250;

enum Pass { forward, backward, recomputed, update };
Pass pass_of(Phase phase, bool is_recomputed) {
  if (is_recomputed) return recomputed;
  return phase == Phase::backward ? backward : phase == Phase::step ? update : forward;
}

struct OpWork {
  std::string op;
  int64_t calls = 0, bytes = 0;
  Flops flops;
  double measured = 0, predicted = 0;  // seconds
};

bool covers(const CallTimes& times, const RunPlan& plan) { return !plan.calls.empty() && times.seconds.size() == plan.calls.size(); }

std::vector<OpWork> work_by_op(const RunPlan& plan, const CallTimes& measured, const CallTimes& predicted) {
  std::map<std::string, OpWork> by_op;
  for (size_t i = 0; i < plan.calls.size(); ++i) {
    const CallRecord& c = plan.calls[i];
    OpWork& w = by_op[c.op->name];
    w.op = c.op->name;
    ++w.calls;
    w.flops += c.flops;
    w.bytes += c.bytes;
    if (covers(measured, plan)) w.measured += measured.seconds[i];
    if (covers(predicted, plan)) w.predicted += predicted.seconds[i];
  }
  std::vector<OpWork> rows;
  for (auto& [op, w] : by_op) rows.push_back(std::move(w));
  return rows;
}

std::string op_table(const RunPlan& plan, const CallTimes& measured, const CallTimes& predicted) {
  const bool is_measured = covers(measured, plan), is_predicted = covers(predicted, plan), is_timed = is_measured || is_predicted;
  std::vector<OpWork> rows = work_by_op(plan, measured, predicted);
  const auto seconds = [&](const OpWork& w) { return is_measured ? w.measured : w.predicted; };
  const auto weight = [&](const OpWork& w) { return is_timed ? seconds(w) : double(w.flops.matmul + w.flops.vector); };
  std::stable_sort(rows.begin(), rows.end(), [&](const OpWork& a, const OpWork& b) { return weight(a) > weight(b); });
  OpWork sum{.op = "all"};
  for (const OpWork& w : rows) {
    sum.calls += w.calls, sum.flops += w.flops, sum.bytes += w.bytes;
    sum.measured += w.measured, sum.predicted += w.predicted;
  }
  const auto head = [](std::string_view name) { return text("<th class=\"n\">{}</th>", name); };
  std::string out = text("<div class=\"scroll\"><table class=\"sticky\"><thead><tr><th>Operation</th><th>Share of {}</th>",
                         is_timed ? "the time" : "the FLOPs");
  if (is_measured) out += head("Time, measured");
  if (is_predicted) out += head("Time, predicted");
  out += head("Calls") + head("Matrix FLOPs") + head("Vector FLOPs") + head("Bytes moved");
  if (is_timed) out += head("FLOP/s") + head("Bytes/s");
  out += "</tr></thead><tbody>";
  const auto line = [&](const OpWork& w, bool is_sum) {
    const double share = weight(sum) > 0 ? weight(w) / weight(sum) : 0;
    const auto cell = [](const std::string& shown) { return text("<td class=\"n\">{}</td>", shown); };
    const auto amount = [](int64_t count, const std::string& shown) {
      return text("<td class=\"n\" title=\"{}\">{}</td>", with_commas(count), shown);
    };
    std::string row = text("<tr{}><td>{}</td>", is_sum ? " class=\"sum\"" : "", escaped(w.op));
    row += text("<td class=\"bar\"><span class=\"plain\" style=\"width:{}%\"></span><i>{}</i></td>", fixed2(is_sum ? 0 : share * 100),
                percent(share));
    if (is_measured) row += cell(short_seconds(w.measured));
    if (is_predicted) row += cell(short_seconds(w.predicted));
    row += amount(w.calls, with_commas(w.calls)) + amount(w.flops.matmul, short_number(double(w.flops.matmul))) +
           amount(w.flops.vector, short_number(double(w.flops.vector))) + amount(w.bytes, human_bytes(w.bytes));
    const auto rate = [&](double work) { return seconds(w) > 0 && work > 0 ? short_number(work / seconds(w)) : std::string("–"); };
    if (is_timed) row += cell(rate(double(w.flops.matmul + w.flops.vector))) + cell(rate(double(w.bytes)));
    return row + "</tr>";
  };
  for (const OpWork& w : rows) out += line(w, false);
  return out + line(sum, true) + "</tbody></table></div>";
}

std::string module_table(const RunPlan& plan) {
  std::map<std::string, std::array<int64_t, 2>> by_module;  // calls, FLOPs
  int64_t all = 0;
  for (const CallRecord& c : plan.calls) {
    const int64_t flops = c.flops.matmul + c.flops.vector;
    auto& [calls, sum] = by_module[folded_path(module_path(c.module))];
    ++calls;
    sum += flops;
    all += flops;
  }
  std::vector<std::pair<std::string, std::array<int64_t, 2>>> rows(by_module.begin(), by_module.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second[1] > b.second[1]; });
  std::string out =
      "<details><summary>The same as a table</summary><div class=\"scroll\"><table><thead><tr><th>Module</th><th class=\"n\">Calls</th><th "
      "class=\"n\">FLOPs</th><th>Share</th></tr></thead><tbody>";
  for (const auto& [module, work] : rows) {
    const double share = double(work[1]) / double(std::max<int64_t>(1, all));
    out += text(
        "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\" title=\"{}\">{}</td><td class=\"bar\"><span class=\"plain\" "
        "style=\"width:{}%\"></span><i>{}</i></td></tr>",
        escaped(module.empty() ? "whole model" : module), with_commas(work[0]), with_commas(work[1]), short_number(double(work[1])),
        fixed2(share * 100), percent(share));
  }
  return out + "</tbody></table></div></details>";
}

std::string format_flops(int64_t flops) { return short_number(double(flops)) + " FLOP"; }
std::string format_loss(double v) { return text("{:.4g}", v); }
std::string format_share(double v) { return text("{:.3g} %", v * 100); }

void series_json(JsonWriter& j, const LineChart& chart) {
  j.key(chart.id).begin_array();
  for (const Series& s : chart.series) {
    j.begin_object().key("name").string(s.name).key("x").begin_array();
    for (const double x : s.x) j.number(x);
    j.end_array().key("y").begin_array();
    for (const double y : s.y) j.number(std::isfinite(y) ? std::stod(text("{:.6g}", y)) : y);
    j.end_array().end_object();
  }
  j.end_array();
}

std::string line_figure(const LineChart& chart, const std::string& caption) {
  const std::string drawn = line_chart(chart);
  if (drawn.empty()) return {};
  std::string legend;
  if (chart.series.size() > 1)
    for (size_t i = 0; i < chart.series.size(); ++i)
      legend += text("<span class=\"key\"><span class=\"chip s{}\"></span>{}</span> ", i, escaped(chart.series[i].name));
  return text("<figure><h3>{}</h3>{}<figcaption>{}{}<output data-of=\"{}\"></output></figcaption></figure>", escaped(chart.title), drawn,
              legend, caption, escaped(chart.id));
}

// ---- predicted | measured
bool is_bytes(std::string_view name) {
  return name.ends_with("_bytes") || name.find(".at_peak.") != name.npos || name.find(".phases.") != name.npos ||
         name.starts_with("comm.bytes");
}

std::string shown(const SummaryRow& row, const SummaryValue& v) {
  using Kind = SummaryValue::Kind;
  if (v.kind == Kind::absent) return "<td class=\"n none\">–</td>";
  if (v.kind == Kind::word) return text("<td class=\"n\"><code>{}</code></td>", escaped(v.word));
  const double number = *v.number();
  if (v.kind == Kind::integer)
    return text("<td class=\"n\" title=\"{}\">{}</td>", is_bytes(row.name) ? human_bytes(v.integer) : short_number(number),
                with_commas(v.integer));
  std::string rounded = short_number(number);
  if (row.name.ends_with("_seconds")) rounded = short_seconds(number);
  if (row.name == "mfu" || row.name == "hfu") rounded = percent(number);
  if (row.name.starts_with("loss.")) rounded = text("{:.4f}", number);
  return text("<td class=\"n\" title=\"{:.17g}\">{}</td>", number, rounded);
}

std::string verdict(const SummaryRow& row) {
  using Kind = SummaryValue::Kind;
  const SummaryValue &p = row.predicted, &m = row.measured;
  if (p.kind == Kind::absent || m.kind == Kind::absent) return "<td></td>";
  if (p == m) return "<td class=\"same\">= equal</td>";
  if (!p.number() || !m.number()) return "<td class=\"off\">differs</td>";
  if (*p.number() == 0) return "<td class=\"off\">differs</td>";
  return text("<td class=\"off\">{:+.2f} %</td>", (*m.number() / *p.number() - 1) * 100);
}
}  // namespace

std::string work_section(const RunPlan& plan, const CallTimes& measured, const CallTimes& predicted) {
  std::vector<TreeItem> items;
  for (const CallRecord& c : plan.calls)
    items.push_back({module_path(c.module), c.op->name, int(pass_of(c.phase, c.recomputed)), c.flops.matmul + c.flops.vector});
  std::string legend;
  for (int p = 0; p < kPasses; ++p)
    if (std::any_of(items.begin(), items.end(), [&](const TreeItem& i) { return i.kind == p && i.value > 0; }))
      legend += text("<span class=\"key\"><span class=\"chip p{}\"></span>{}</span> ", p, kPassNames[p]);
  std::string out =
      "<figure>" + treemap_chart(make_tree(items, "one step"),
                                 {'p', format_flops, "FLOPs of a step by module and operation; the table below has the same numbers."});
  out += "<figcaption>" + legend + "FLOPs of one optimizer step by module and operation. Equal layers are one box.</figcaption></figure>";
  return out + module_table(plan) + "<h3>By operation</h3>" + op_table(plan, measured, predicted);
}

std::string run_section(const RunFiles& run, std::string* data) {
  const Metrics& m = run.metrics;
  Series loss{.name = "train"}, validation{.name = "validation", .points = true}, speed{.name = "tokens/s"}, mfu{.name = "MFU"};
  const auto measured = [&](std::string_view name) {
    const SummaryRow* row = run.summary ? run.summary->find(name) : nullptr;
    return row ? row->measured.number() : std::nullopt;
  };
  const std::optional<double> mean_mfu = measured("mfu"), mean_seconds = measured("step_seconds");
  for (const StepMetrics& s : m.steps) {
    loss.x.push_back(double(s.step)), loss.y.push_back(s.loss);
    speed.x.push_back(double(s.step)), speed.y.push_back(s.tokens_per_second);
    // Model FLOPs of a step never change: utilization goes with the inverse of its time.
    if (mean_mfu && mean_seconds && s.seconds > 0) mfu.x.push_back(double(s.step)), mfu.y.push_back(*mean_mfu * *mean_seconds / s.seconds);
  }
  for (const Evaluation& e : m.evaluations) validation.x.push_back(double(e.step)), validation.y.push_back(e.loss);
  LineChart losses{"loss", "Loss", {thinned(loss, kLineBuckets)}, format_loss};
  if (!validation.x.empty()) losses.series.push_back(thinned(validation, kLineBuckets));
  const LineChart speeds{"speed", "Tokens per second", {thinned(speed, kLineBuckets)}, nullptr, true},
      utilization{"mfu", "Model FLOPs utilization", {thinned(mfu, kLineBuckets)}, format_share, true};
  std::string out = line_figure(losses, "nats per token");
  const std::string small = line_figure(speeds, "each step") + line_figure(utilization, "share of the measured peak");
  if (!small.empty()) out += "<div class=\"pair\">" + small + "</div>";
  if (out.empty()) return {};
  JsonWriter j;
  j.begin_object();
  series_json(j, losses);
  series_json(j, speeds);
  series_json(j, utilization);
  j.end_object();
  *data = j.str();
  return out;
}

std::string summary_section(const Summary& summary) {
  std::string out =
      "<div class=\"scroll\"><table class=\"sticky\"><thead><tr><th>Value</th><th class=\"n\">Predicted</th><th "
      "class=\"n\">Measured</th><th></th></tr></thead><tbody>";
  std::string group;
  for (const SummaryRow& row : summary.rows) {
    if (row.predicted.kind == SummaryValue::Kind::absent && row.measured.kind == SummaryValue::Kind::absent) continue;
    const bool is_empty = row.name.find(".at_peak.") != row.name.npos &&
                          row.predicted == SummaryValue{.kind = SummaryValue::Kind::integer} && row.predicted == row.measured;
    if (is_empty) continue;
    const std::string head = row.name.find('.') == row.name.npos ? "step" : row.name.substr(0, row.name.find('.'));
    out += text("<tr{}><td><code>{}</code></td>{}{}{}</tr>", head != group ? " class=\"first\"" : "", escaped(row.name),
                shown(row, row.predicted), shown(row, row.measured), verdict(row));
    group = head;
  }
  if (summary.peak_rss_bytes)
    out += text(
        "<tr class=\"first\"><td><code>process.peak_rss_bytes</code></td><td class=\"n none\">–</td><td class=\"n\" "
        "title=\"{}\">{}</td><td></td></tr>",
        human_bytes(*summary.peak_rss_bytes), with_commas(*summary.peak_rss_bytes));
  return out + "</tbody></table></div>";
}
}  // namespace reckon
