#include "reckon/report/report.h"

#include <algorithm>

#include "reckon/base/text.h"
#include "reckon/io/files.h"
#include "reckon/plan/time_model.h"
#include "reckon/report/markup.h"
#include "reckon/report/palette.h"
#include "reckon/report/sections.h"
#include "reckon/train/recompute.h"
#include "reckon/train/report.h"

namespace reckon {
namespace {
constexpr int64_t kMaxTrace = int64_t(1) << 30;  // bytes of a trace that is read back

struct Tile {
  std::string label, value, note;
};

std::optional<double> measured(const ReportInput& input, std::string_view name) {
  const SummaryRow* row = input.run && input.run->summary ? input.run->summary->find(name) : nullptr;
  return row ? row->measured.number() : std::nullopt;
}
std::string word(const ReportInput& input, std::string_view name, bool is_predicted) {
  const SummaryRow* row = input.run && input.run->summary ? input.run->summary->find(name) : nullptr;
  return row ? (is_predicted ? row->predicted : row->measured).word : "";
}

std::string verdict(const ReportInput& input) {
  const int64_t needed = input.plan.predicted.memory->extent, budget = input.budget_bytes;
  if (budget <= 0) return text("<p class=\"verdict\">Needs <b>{}</b></p>", human_bytes(needed));
  if (needed <= budget)
    return text("<p class=\"verdict fits\"><b>Fits.</b> It needs {} of the {} of {}: {}.</p>", human_bytes(needed), human_bytes(budget),
                escaped(input.budget_name), percent(double(needed) / double(budget)));
  return text("<p class=\"verdict over\"><b>Does not fit.</b> It needs {}, and {} is {}: {} too much.</p>", human_bytes(needed),
              escaped(input.budget_name), human_bytes(budget), human_bytes(needed - budget));
}

// What a run proved: the dry run's numbers against its own.
std::string proof(const ReportInput& input) {
  const SummaryRow* peak = input.run && input.run->summary ? input.run->summary->find("memory.peak_bytes") : nullptr;
  if (!peak || peak->predicted.kind != SummaryValue::Kind::integer || peak->measured.kind != SummaryValue::Kind::integer) return {};
  const std::string hash = word(input, "memory.trace_hash", true);
  const bool is_equal = peak->predicted.integer == peak->measured.integer,
             same_trace = !hash.empty() && hash == word(input, "memory.trace_hash", false);
  std::string out = text("<p class=\"proof\">Peak predicted <b>{}</b> bytes, measured <b>{}</b> bytes: {}",
                         with_commas(peak->predicted.integer), with_commas(peak->measured.integer),
                         is_equal ? "<span class=\"same\">equal to the byte</span>" : "<span class=\"off\">they differ</span>");
  if (same_trace) out += text("; every allocation as planned (trace <code>{}</code>)", escaped(hash));
  out += ".";
  if (!hash.empty() && hash != input.plan.predicted.trace_hash)
    out += " The plan drawn below was made again with another number of lanes or another version, and is not exactly the one of the run.";
  return out + "</p>";
}

std::vector<Tile> tiles(const ReportInput& input) {
  const RunReport& p = input.plan.predicted;
  std::vector<Tile> all = {
      {"Peak memory", human_bytes(p.memory->peak), text("{} bytes live at once", with_commas(p.memory->peak))},
      {"Arena", human_bytes(p.memory->extent),
       p.memory->extent == p.memory->peak ? "exactly the peak"
                                          : percent(double(p.memory->extent) / double(p.memory->peak) - 1) + " above the peak"},
      {"Parameters", short_number(double(*p.parameters)), *p.parameters < 1'000'000 ? "" : with_commas(*p.parameters)},
      {"Work of a step", short_number(double(p.flops_per_step->matmul)) + " FLOP",
       text("in matrix products; {} elsewhere", short_number(double(p.flops_per_step->vector)))}};
  const auto add = [&](const char* label, std::string_view name, std::optional<double> predicted, auto format, const std::string& note) {
    const std::optional<double> value = measured(input, name);
    if (value) {
      all.push_back({label, format(*value), note + (predicted ? ", predicted " + format(*predicted) : "")});
    } else if (predicted) {
      all.push_back({label, format(*predicted), "predicted"});
    }
  };
  add(
      "Step time", "step_seconds", p.step_seconds, [](double v) { return short_seconds(v); }, "median");
  add(
      "Tokens per second", "tokens_per_second", p.tokens_per_second, [](double v) { return short_number(v); }, "measured");
  add(
      "MFU", "mfu", p.mfu, [](double v) { return percent(v); }, "of the measured peak");
  add(
      "Training loss", "loss.train", {}, [](double v) { return text("{:.4f}", v); }, "last step, nats per token");
  add(
      "Validation loss", "loss.validation", {}, [](double v) { return text("{:.4f}", v); }, "nats per token");
  return all;
}

std::string header(const ReportInput& input) {
  const Config& c = input.plan.config;
  const std::string sequence = c.model.cruncher ? text("{} samples", c.train.micro_batch)
                                                : text("{} × {} tokens{}", c.train.micro_batch, c.train.seq_len,
                                                       is_chunked(c.train) ? text(" in chunks of {}", c.train.sequence_chunk) : "");
  std::string out = text("<header><p class=\"kind\">{}</p><h1>{}</h1><p class=\"facts\">{} layers, d {}, {}, micro-batch of {}{}{}</p>",
                         input.run ? "Training run" : "Plan of a training run", escaped(c.model.preset), c.model.layers, c.model.d_model,
                         to_string(c.train.precision), sequence, c.train.grad_accum > 1 ? text(", {} accumulated", c.train.grad_accum) : "",
                         recomputes(c.train) ? ", recompute " + recompute_text(c.train) : "");
  if (input.run) out += text("<p class=\"facts where\">{}</p>", escaped(input.run->run_dir));
  out += verdict(input) + composition(input) + proof(input) + "<dl class=\"tiles\">";
  for (const Tile& t : tiles(input))
    out += text("<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>", escaped(t.label), escaped(t.value), escaped(t.note));
  return out + "</dl></header>\n";
}

std::string section(const char* id, const char* title, const std::string& body) {
  return body.empty() ? "" : text("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", id, title, body);
}

std::string document(const std::string& title, const std::string& body, const std::string& memory_data, const std::string& run_data) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n";
  out += "<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n<title>" + escaped(title) +
         "</title>\n<style>\n";
  out += palette_style(false) + "@media screen and (prefers-color-scheme: dark) {\n" + palette_style(true) + "}\n" + kPageStyle +
         "</style>\n</head>\n<body>\n<main>\n" + body;
  out += "</main>\n<script type=\"application/json\" id=\"memory-data\">" + script_safe(memory_data.empty() ? "null" : memory_data) +
         "</script>\n";
  out += "<script type=\"application/json\" id=\"run-data\">" + script_safe(run_data.empty() ? "null" : run_data) + "</script>\n<script>\n";
  return out + kPageScript + "</script>\n</body>\n</html>\n";
}

std::string timing_note(const ReportInput& input) {
  if (!input.measured.seconds.empty()) return "Measured times are of one step of the run, each operation by itself.";
  if (!input.predicted.seconds.empty()) return "Times are predicted from what was measured on this machine.";
  return escaped("Nobody has measured a step here, so there are no times" + (input.plan.note.empty() ? "." : ": " + input.plan.note));
}

// What the time model says of every call; empty if this machine was not measured.
CallTimes model_times(const RunPlan& plan, int lanes) {
  const std::optional<MachineProfile> profile = load_machine_profile(lanes);
  if (!profile) return {};
  const StepTime step = predict_step(plan, *profile);
  CallTimes times{.timing = Timing::predicted};
  if (!step.seconds) return times;
  for (const CallTime& call : step.calls) {
    times.start.push_back(call.start);
    times.seconds.push_back(call.seconds);
  }
  return times;
}

// The best times there are: of a real step, predicted, or only the order of the calls.
CallTimes best_times(const RunPlan& plan, const CallTimes& measured, const CallTimes& predicted) {
  if (!measured.seconds.empty()) return measured;
  return predicted.seconds.empty() ? order_of_calls(plan.calls.size()) : predicted;
}

// Whether the run evaluates is known once it has a summary; before, a run with text does.
RunPlan plan_of_run(const Config& config, Device& meta, const RunFiles& run) {
  const SummaryRow* eval = run.summary ? run.summary->find("memory.phases.eval") : nullptr;
  return eval ? plan_run(config, meta, true, eval->predicted.number().value_or(0) > 0) : plan_run(config, meta);
}
}  // namespace

std::string report_html(const ReportInput& input) {
  const MemorySection memory = memory_section(input.plan);
  std::string run_data, body = header(input);
  body += section("memory", "Memory over a step", memory.html);
  body += section("holders", "Who holds the peak", holders_section(input.plan));
  if (input.run) body += section("run", "The run", run_section(*input.run, &run_data));
  body += section("work", "Work of a step",
                  work_section(input.plan, input.measured, input.predicted) + "<p class=\"note\">" + timing_note(input) + "</p>");
  if (input.run && input.run->summary) body += section("summary", "Predicted and measured", summary_section(*input.run->summary));
  body += section("configuration", "Configuration",
                  "<details><summary>Every key, as the run would be started again</summary><pre>" + escaped(to_toml(input.plan.config)) +
                      "</pre></details>");
  body +=
      "<footer>Written by Reckon. This page needs no network; a trace of the step for Perfetto (ui.perfetto.dev) lies beside "
      "it.</footer>\n";
  return document("Reckon: " + input.plan.config.model.preset, body, memory.data, run_data);
}

void write_run_report(const Config& config, Device& meta, std::span<const CallRecord> records) {
  const RunFiles run = read_run_files(config.run_dir);
  const RunPlan plan = plan_of_run(config, meta, run);
  const std::string trace = join_path(config.run_dir, "trace.json");
  std::optional<CallTimes> measured = measured_times(plan, records);
  const bool is_there = !measured && path_exists(trace) && (measured = times_in_trace(read_file(trace, kMaxTrace), trace, plan));
  ReportInput input{.plan = plan, .run = &run, .predicted = model_times(plan, meta.profile().lanes)};
  if (measured) input.measured = std::move(*measured);
  input.budget_bytes = config.memory.budget_bytes;
  input.budget_name = "memory.budget";
  if (!is_there) write_file(trace, trace_json(plan, best_times(plan, input.measured, input.predicted)));
  write_file(join_path(config.run_dir, "report.html"), report_html(input));
}

std::string write_plan_report(const Config& config, Device& meta, const std::string& file) {
  const RunPlan plan = plan_run(config, meta);
  const std::string_view stem = std::string_view(file).substr(0, file.ends_with(".html") ? file.size() - 5 : file.size());
  const std::string trace = std::string(stem) + ".trace.json";
  ReportInput input{.plan = plan, .predicted = model_times(plan, meta.profile().lanes), .budget_bytes = budget_bytes(config)};
  input.budget_name = config.memory.budget_bytes > 0 ? "memory.budget" : "memory available here";
  write_file(trace, trace_json(plan, best_times(plan, {}, input.predicted)));
  write_file(file, report_html(input));
  return trace;
}
}  // namespace reckon
