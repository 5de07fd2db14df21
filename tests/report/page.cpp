// The page holds what it promises for every kind of plan and run, stays small, asks nothing of the network, and lets no name become markup.
#include <algorithm>
#include <cmath>

#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/report/charts.h"
#include "reckon/report/sections.h"
#include "reckon/train/report.h"
#include "tests/report/support.h"

namespace reckon {
namespace {
constexpr size_t kMegabyte = 1'000'000;

size_t count(const std::string& text, std::string_view word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + word.size())) ++found;
  return found;
}

// Elements that have an end tag are closed as often as opened, and nothing refers to anything outside.
void check_page(const std::string& html) {
  for (const char* tag : {"html", "head", "body", "main", "section", "figure", "table", "thead", "tbody", "div", "svg", "script", "style",
                          "ul", "dl", "details"})
    EXPECT_EQ(count(html, std::string("<") + tag + ">") + count(html, std::string("<") + tag + " "),
              count(html, std::string("</") + tag + ">"))
        << tag;
  for (const char* outside :
       {"http:", "https:", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML", "<iframe", "<link rel=\"stylesheet"})
    EXPECT_EQ(count(html, outside), 0u) << outside;
  for (const char* number : {"\"nan", " nan", ":nan", ",nan", "\"inf", " inf%"}) EXPECT_EQ(count(html, number), 0u) << number;
  EXPECT_EQ(count(html, "</script>"), 3u);
}

RunFiles small_run(const RunPlan& plan, std::string run_dir = "runs/x") {
  RunFiles run{.run_dir = std::move(run_dir)};
  for (int i = 1; i <= 5; ++i) run.metrics.steps.push_back({i, 5.0 / i, 0.1, 1000});
  run.metrics.evaluations.push_back({5, 1.25});
  RunReport measured = plan.predicted;
  measured.step_seconds = 0.1;
  measured.tokens_per_second = 1000;
  measured.mfu = 0.5;
  run.summary = parse_summary(summary_json(plan.predicted, measured, {.peak_rss_bytes = 1 << 20}), "summary.json");
  return run;
}

TEST(Page, OfAPlanSaysWhetherItFits) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const int64_t needed = plan.predicted.memory->extent;
  const std::string fits = report_html({.plan = plan, .budget_bytes = needed, .budget_name = "memory.budget"});
  const std::string over = report_html({.plan = plan, .budget_bytes = needed - 1, .budget_name = "memory.budget"});
  check_page(fits);
  check_page(over);
  EXPECT_EQ(count(fits, "<b>Fits.</b>"), 1u);
  EXPECT_EQ(count(over, "<b>Does not fit.</b>"), 1u);
  EXPECT_EQ(count(fits, "<section id=\"run\""), 0u);
  EXPECT_EQ(count(fits, "Nobody has measured"), 1u);
  EXPECT_EQ(fits, report_html({.plan = plan, .budget_bytes = needed, .budget_name = "memory.budget"}));
}

TEST(Page, OfEveryPresetIsSmall) {
  for (const char* preset : {"cruncher", "tiny", "gpt2-1558m", "qwen3-0.6b", "llama-3-70b"}) {
    const std::string html = report_html({.plan = plan_of({std::string("model.preset=") + preset})});
    check_page(html);
    EXPECT_LT(html.size(), kMegabyte) << preset;
  }
  // Sixteen micro-batches of eighty layers: a hundred thousand events in the step.
  const std::string html = report_html({.plan = plan_of({"model.preset=llama-3-70b", "train.grad_accum=16"})});
  EXPECT_LT(html.size(), 2 * kMegabyte);
}

TEST(Page, OfARunShowsItsCurvesAndComparesEveryNumber) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const RunFiles run = small_run(plan);
  const CallTimes times = predicted_times(std::vector<double>(plan.calls.size(), 1e-5));
  CallTimes measured = times;
  measured.timing = Timing::measured;
  const std::string html = report_html({.plan = plan, .run = &run, .measured = measured, .predicted = times});
  check_page(html);
  for (const char* id : {"loss", "speed", "mfu"}) EXPECT_EQ(count(html, text("<div class=\"plot line\" id=\"{}\">", id)), 1u) << id;
  EXPECT_EQ(count(html, "equal to the byte"), 1u);
  for (const SummaryRow& row : run.summary->rows) {
    if (row.measured.number().value_or(0) > 0) {
      EXPECT_EQ(count(html, "<code>" + row.name + "</code>"), 1u) << row.name;
    }
  }
  EXPECT_EQ(count(html, "Time, measured"), 1u);
  EXPECT_EQ(count(html, "Time, predicted"), 1u);
}

TEST(Page, SaysWhenARunDidNotDoAsPredicted) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  RunFiles run = small_run(plan);
  for (SummaryRow& row : run.summary->rows)
    if (row.name == "memory.peak_bytes") row.measured.integer += 64;
  const std::string html = report_html({.plan = plan, .run = &run});
  EXPECT_EQ(count(html, "equal to the byte"), 0u);
  EXPECT_EQ(count(html, "they differ"), 1u);
}

TEST(Page, OfARunThatLeftNothingIsStillAPage) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const RunFiles nothing{.run_dir = "runs/x"};
  check_page(report_html({.plan = plan, .run = &nothing}));
  RunFiles one_step{.run_dir = "runs/x"};
  one_step.metrics.steps.push_back({1, std::nan(""), 0, std::nan("")});
  check_page(report_html({.plan = plan, .run = &one_step}));
  one_step.metrics.steps.push_back({2, 3.5, 0.1, 100});
  const std::string html = report_html({.plan = plan, .run = &one_step});
  check_page(html);
  EXPECT_EQ(count(html, "id=\"loss\""), 1u);
}

TEST(Page, ALongRunIsThinned) {
  const RunPlan plan = plan_of({"model.preset=cruncher"});
  RunFiles run{.run_dir = "runs/x"};
  for (int i = 1; i <= 300'000; ++i) run.metrics.steps.push_back({i, 1.0 + (i % 977) * 1e-3, 0.01, 1e5 + i % 31});
  run.metrics.steps[123'456].loss = 77.125;
  const std::string html = report_html({.plan = plan, .run = &run});
  EXPECT_LT(html.size(), kMegabyte);
  EXPECT_EQ(count(html, "77.125"), 1u) << "the spike must not be thinned out";
}

TEST(Page, NoNameBecomesMarkup) {
  RunPlan plan = plan_of({"model.preset=tiny"});
  const std::string hostile = "x\"><img onerror=z>' </script><script>alert(1)</script>\xFF";
  const uint32_t module = module_id(hostile);
  const char* const op = "</title><b onmouseover='evil'>";
  OpDef row = *plan.calls[0].op;
  row.name = op;
  for (AllocationEvent& e : plan.events) e.module = module, e.op = op;
  for (Holder& h : plan.at_peak) h.module = module, h.op = op;
  for (CallRecord& c : plan.calls) c.module = module, c.op = &row;
  for (RunPart& p : plan.parts)
    if (p.name != "steady step") p.name = hostile;
  plan.config.model.preset = hostile;
  plan.config.data.path = "text</pre><script>";
  RunFiles run = small_run(plan, hostile);
  run.summary->rows.push_back({.name = hostile, .predicted = {.kind = SummaryValue::Kind::word, .word = hostile}});
  const std::string html =
      report_html({.plan = plan, .run = &run, .measured = {}, .predicted = {}, .budget_bytes = 1, .budget_name = hostile});
  check_page(html);
  for (const char* markup : {"<img", "onerror=z>", "alert(1)</script>", "<b onmouseover", "</pre><script>", "\xFF"})
    EXPECT_EQ(count(html, markup), 0u) << markup;
  EXPECT_GT(count(html, "&lt;img"), 0u);
}

TEST(Page, WhatTheScriptKnowsIsWhatTheChartShows) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const JsonDocument data(memory_section(plan).data, "data");
  const RunPart& step = part_of(plan, "steady step");
  EXPECT_EQ(data.root().get("begin").integer(), int64_t(step.begin));
  const size_t samples = data.root().get("event").size();
  std::vector<int64_t> live(samples), blocks(samples);
  for (const Json category : data.root().get("live")) {
    int64_t sum = 0;
    size_t i = 0;
    for (const Json change : category) live[i++] += sum += change.integer();
    EXPECT_TRUE(i == 0 || i == samples);
  }
  std::vector<int64_t> flat;
  for (const Json number : data.root().get("blocks")) flat.push_back(number.integer());
  ASSERT_EQ(flat.size() % 4, 0u);
  for (size_t b = 0; b < flat.size(); b += 4)
    for (int64_t s = flat[b + 2]; s <= flat[b + 2] + flat[b + 3]; ++s) blocks[size_t(s)] += flat[b + 1];
  EXPECT_EQ(live, blocks);
  EXPECT_EQ(*std::max_element(live.begin(), live.end()) * kBlockAlignment, step.peak_bytes);
  EXPECT_EQ(live[size_t(data.root().get("peak").integer())] * kBlockAlignment, step.peak_bytes);
}

TEST(Charts, ThinningALineKeepsExtremesAndGaps) {
  Series s;
  for (int i = 0; i < 10'000; ++i) s.x.push_back(i), s.y.push_back(i == 777 ? -5 : i == 7001 ? std::nan("") : i % 100);
  const Series thin = thinned(s, 50);
  EXPECT_LE(thin.x.size(), 5u * 50u);
  EXPECT_TRUE(std::is_sorted(thin.x.begin(), thin.x.end()));
  EXPECT_NE(std::find(thin.y.begin(), thin.y.end(), -5), thin.y.end());
  EXPECT_NE(std::find(thin.x.begin(), thin.x.end(), 7001), thin.x.end());
  EXPECT_EQ(thin.x.front(), 0);
  EXPECT_EQ(thin.x.back(), 9999);
  EXPECT_EQ(line_chart({"id", "title", {Series{}}}), "");
}
}  // namespace
}  // namespace reckon
