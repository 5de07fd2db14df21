// report/sections: the tables and parts of the page, each a piece of HTML. Knows what numbers mean, not where they go on the page.
#pragma once
#include "reckon/report/report.h"
#include "reckon/report/timeline.h"

namespace reckon {

/// A coloured square of a category.
std::string category_chip(Category category);
/// Peak, arena and budget as one bar, and its legend: bytes and share of every category at the peak.
std::string composition(const ReportInput& input);
/// Most live bytes of each part of the run.
std::string parts_table(const RunPlan& plan);
/// The steady step's memory: charts, and who lives at its peak. `data`: a JSON document for the script that lets readers look elsewhere.
struct MemorySection {
  std::string html, data;
};
MemorySection memory_section(const RunPlan& plan);
std::string holders_section(const RunPlan& plan);
/// By module and operation. Empty times are unknown.
std::string work_section(const RunPlan& plan, const CallTimes& measured, const CallTimes& predicted);
/// Loss, tokens per second and MFU over steps; "" without metrics.
std::string run_section(const RunFiles& run, std::string* data);
/// Predicted against measured; "" without a summary.
std::string summary_section(const Summary& summary);

/// The page's own style and script.
extern const char* const kPageStyle;
extern const char* const kPageScript;
/// Custom properties of the palette: ":root { --c0: #...; ... }" for light or dark.
std::string palette_style(bool dark);
}  // namespace reckon
