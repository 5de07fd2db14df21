// report/run_files: what a run left behind: metrics.jsonl and summary.json. Reads whatever the schema grows to; trusts no file.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

struct StepMetrics {
  int64_t step = 0;
  double loss = 0, seconds = 0, tokens_per_second = 0;  // NaN where the line has null or nothing
};
struct Evaluation {
  int64_t step = 0;
  double loss = 0;
};
struct Metrics {
  std::vector<StepMetrics> steps;       // in order
  std::vector<Evaluation> evaluations;  // of the validation data
};
/// One JSON object a line; a last line without a line feed was cut off and is left out. Throws Error (corrupt) naming source and line.
Metrics parse_metrics(std::string_view text, const std::string& source);

/// A number, a word, or nothing.
struct SummaryValue {
  enum class Kind : uint8_t { absent, integer, real, word } kind = Kind::absent;
  int64_t integer = 0;
  double real = 0;
  std::string word;
  bool operator==(const SummaryValue&) const = default;
  /// Integer or real.
  std::optional<double> number() const;
};
/// One line of predicted against measured: "memory.peak_bytes".
struct SummaryRow {
  std::string name;
  SummaryValue predicted, measured;
};
struct Summary {
  std::vector<SummaryRow> rows;  // every leaf of either document, in its order
  std::optional<int64_t> peak_rss_bytes;
  const SummaryRow* find(std::string_view name) const;
};
/// Throws Error (corrupt) if it is no summary of this schema.
Summary parse_summary(std::string_view json, const std::string& source);

/// The files of a run directory; what is missing is empty.
struct RunFiles {
  std::string run_dir;
  Metrics metrics;
  std::optional<Summary> summary;
};
RunFiles read_run_files(const std::string& run_dir);
}  // namespace reckon
