// report/report: what a plan and its run say, as one page that needs nothing else, and as a trace. The files of a run get their names here.
#pragma once
#include <optional>

#include "reckon/report/run_files.h"
#include "reckon/report/trace.h"

namespace reckon {

struct ReportInput {
  const RunPlan& plan;
  const RunFiles* run = nullptr;  // null: a plan without a run
  CallTimes measured;             // of the plan's calls in a step of the run; empty: unknown
  CallTimes predicted;            // the same from the time model
  int64_t budget_bytes = 0;       // 0: none to judge by
  std::string budget_name;        // "memory.budget", "available memory"
};
/// One self-contained HTML file: no network, readable without script, in light and dark, on a phone and on paper. The same input gives the
/// same bytes. Everything that is not ours (names, paths) is escaped.
std::string report_html(const ReportInput& input);

/// Writes run.dir/report.html and, if times were measured or there is none yet, run.dir/trace.json. `meta`: a fresh device of Mode::meta.
/// `records`: of a real step, may be empty; then times are those of the trace that is already there, or predicted. Throws Error as reading,
/// planning and writing do.
void write_run_report(const Config& config, Device& meta, std::span<const CallRecord> records);
/// The report of a plan that nobody ran, judged against memory.budget or what is available here: FILE, and beside it FILE's name with
/// .trace.json instead of .html. Returns the trace's path.
std::string write_plan_report(const Config& config, Device& meta, const std::string& file);
}  // namespace reckon
