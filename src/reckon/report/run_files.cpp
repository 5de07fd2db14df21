#include "reckon/report/run_files.h"

#include <algorithm>
#include <cmath>

#include "reckon/io/files.h"
#include "reckon/io/json.h"

namespace reckon {
namespace {
constexpr int64_t kMaxMetrics = int64_t(1) << 32, kMaxSummary = int64_t(1) << 24;  // bytes

double number_or_nan(const Json& object, std::string_view key) {
  return object.has(key) && !object.get(key).is_null() ? object.get(key).number() : std::nan("");
}

SummaryValue value_of(const Json& json) {
  switch (json.kind()) {
    case Json::Kind::integer:
      return {.kind = SummaryValue::Kind::integer, .integer = json.integer()};
    case Json::Kind::real:
      return {.kind = SummaryValue::Kind::real, .real = json.number()};
    case Json::Kind::string:
      return {.kind = SummaryValue::Kind::word, .word = std::string(json.string())};
    case Json::Kind::boolean:
      return {.kind = SummaryValue::Kind::word, .word = json.boolean() ? "yes" : "no"};
    default:
      return {};
  }
}

// Adds every leaf below an object; rows that the other document made before are filled in.
void flatten(const Json& json, const std::string& prefix, bool predicted, std::vector<SummaryRow>& rows) {
  for (const Json child : json) {
    const std::string name = prefix.empty() ? std::string(child.key()) : prefix + "." + std::string(child.key());
    if (child.is_object()) {
      flatten(child, name, predicted, rows);
      continue;
    }
    auto row = std::find_if(rows.begin(), rows.end(), [&](const SummaryRow& r) { return r.name == name; });
    if (row == rows.end()) row = rows.insert(rows.end(), SummaryRow{.name = name});
    (predicted ? row->predicted : row->measured) = value_of(child);
  }
}
}  // namespace

std::optional<double> SummaryValue::number() const {
  if (kind == Kind::integer) return double(integer);
  return kind == Kind::real ? std::optional(real) : std::nullopt;
}

Metrics parse_metrics(std::string_view text, const std::string& source) {
  Metrics metrics;
  size_t line_number = 1;
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n'), ++line_number) {
    const JsonDocument line(text.substr(0, end), source + " line " + std::to_string(line_number));
    text.remove_prefix(end + 1);
    const Json root = line.root();
    const int64_t step = root.get("step").integer(0);
    if (root.has("loss_validation")) {
      metrics.evaluations.push_back({step, number_or_nan(root, "loss_validation")});
    } else {
      metrics.steps.push_back(
          {step, number_or_nan(root, "loss"), number_or_nan(root, "seconds"), number_or_nan(root, "tokens_per_second")});
    }
  }
  return metrics;
}

const SummaryRow* Summary::find(std::string_view name) const {
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const SummaryRow& r) { return r.name == name; });
  return row == rows.end() ? nullptr : &*row;
}

Summary parse_summary(std::string_view json, const std::string& source) {
  const JsonDocument document(json, source);
  Summary summary;
  flatten(document.root().get("predicted"), "", true, summary.rows);
  flatten(document.root().get("measured"), "", false, summary.rows);
  const Json rss = document.root().get("process").get("peak_rss_bytes");
  if (!rss.is_null()) summary.peak_rss_bytes = rss.integer(0);
  return summary;
}

RunFiles read_run_files(const std::string& run_dir) {
  RunFiles files{.run_dir = run_dir};
  const std::string metrics = join_path(run_dir, "metrics.jsonl"), summary = join_path(run_dir, "summary.json");
  if (path_exists(metrics)) files.metrics = parse_metrics(read_file(metrics, kMaxMetrics), metrics);
  if (path_exists(summary)) files.summary = parse_summary(read_file(summary, kMaxSummary), summary);
  return files;
}
}  // namespace reckon
