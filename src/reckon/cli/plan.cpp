// cli/plan: reckon plan [CONFIG.toml] [key=value ...] [--fit GOAL | --compare 'KEYS' | --why WHAT] [--on DEVICE] [--json]
#include <algorithm>
#include <cstdio>
#include <sstream>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/device_profiles.h"
#include "reckon/plan/remedies.h"
#include "reckon/plan/time_model.h"
#include "reckon/plan/why.h"
#include "reckon/train/recompute.h"
#include "reckon/train/schedule.h"

namespace reckon {
namespace {
void print(const std::string& lines) { std::fputs(lines.c_str(), stdout); }
std::string percent(int64_t part, int64_t whole) { return whole > 0 ? text("{:.1f} %", 100.0 * double(part) / double(whole)) : "-"; }
std::string in_powers(double value, const char* unit) {
  const char* prefixes[] = {"", " k", " M", " G", " T", " P", " E"};
  int power = 0;
  while (value >= 1000 && power < 6) value /= 1000, ++power;
  return text("{:.3g}{}{}", value, power ? prefixes[power] : " ", unit);
}

// ---- the whole plan
// "; loss scale 1024", or what a dynamic one does; what stands for fp8's products.
std::string format_of(const Config& c) {
  const LossScaling scaling = loss_scaling(c.train);
  if (c.train.precision == Precision::fp8) return "; linear layers of the blocks in float8, emulated by bfloat16 products";
  if (c.train.precision != Precision::fp16) return "";
  return text("; loss scale {}{}", scaling.growth_interval > 0 ? "dynamic from " : "", scaling.start);
}
std::string headline(const RunPlan& plan) {
  const Config& c = plan.config;
  const std::string scaling = scaling_text(c);
  return text("{}: {}, {}, {}; micro-batch {} x {} tokens x {} = {} a step{}\n{}", c.model.preset,
              counted(*plan.predicted.parameters, "parameter"), to_string(c.train.precision), to_string(c.optim.name), c.train.micro_batch,
              c.model.cruncher ? 1 : c.train.seq_len, c.train.grad_accum, with_commas(tokens_per_step(c)),
              (is_chunked(c.train) ? text("; in chunks of {} tokens", c.train.sequence_chunk) : "") +
                  (recomputes(c.train) ? "; recompute " + recompute_text(c.train) : "") + format_of(c),
              scaling.empty() ? "" : scaling + "\n");
}

std::string memory_lines(const RunPlan& plan) {
  const Ledger& m = *plan.predicted.memory;
  std::string out =
      text("\nmemory  {} at the peak ({} bytes); arena {} = {:.4f} of the lower bound\n", human_bytes(m.peak), with_commas(m.peak),
           human_bytes(plan.arena.bytes), plan.arena.lower_bound > 0 ? double(plan.arena.bytes) / double(plan.arena.lower_bound) : 1.0);
  for (int c = 0; c < kCategories; ++c)
    if (const int64_t bytes = m.at_peak[size_t(c)]; bytes > 0)
      out += text("  {:<14} {:>12} {:>8}\n", name_of(Category(c)), human_bytes(bytes), percent(bytes, m.peak));
  out += "peak of each phase:";
  for (int p = 0; p < kPhases; ++p)
    if (m.phase_peak[size_t(p)] > 0) out += text(" {} {},", name_of(Phase(p)), human_bytes(m.phase_peak[size_t(p)]));
  out.back() = '\n';
  out += "parts of the run:";
  for (const RunPart& part : plan.parts) out += text(" {} {},", part.name, human_bytes(part.peak_bytes));
  out.back() = '\n';
  out += "who holds the peak:\n";
  for (size_t i = 0; i < std::min<size_t>(8, plan.at_peak.size()); ++i) {
    const Holder& h = plan.at_peak[i];
    const std::string module = module_path(h.module);
    out += text("  {:>12} {:>8}  {} {}{}{}, {}\n", human_bytes(h.bytes), percent(h.bytes, m.peak), name_of(h.category), h.op,
                module.empty() ? "" : " in ", module, counted(h.blocks, "block"));
  }
  return out;
}

std::string work_lines(const RunPlan& plan) {
  const Flops& f = *plan.predicted.flops_per_step;
  std::string out =
      text("\nwork of a step  {} in matrix products ({} needed, {} executed), {} in vectors\n", in_powers(double(f.matmul), "FLOP"),
           with_commas(f.model), with_commas(f.matmul), in_powers(double(f.vector), "FLOP"));
  int64_t by_phase[kPhases] = {}, moved = 0;
  for (const MeterRow& row : plan.work) by_phase[size_t(row.phase)] += row.flops.matmul, moved += row.bytes;
  out += text("share of matrix products in all FLOPs {}; at least {} moved", percent(f.matmul, f.matmul + f.vector), human_bytes(moved));
  for (int p = 0; p < kPhases; ++p)
    if (by_phase[p] > 0) out += text("; {} {}", name_of(Phase(p)), percent(by_phase[p], f.matmul));
  out += "\nFLOPs a token by the conventions in use:\n";
  if (plan.config.model.cruncher) return out.substr(0, out.rfind("\nFLOPs") + 1);
  for (const FlopConvention& c : flop_conventions(plan))
    out += text("  {:<12} {:>12}  {:.3f} of exact  {}\n", c.name, in_powers(c.flops_per_token, "FLOP"), c.ratio, c.formula);
  return out;
}

std::string speed(double tokens_per_second) {
  return (tokens_per_second < 100 ? text("{:.3g}", tokens_per_second) : with_commas(int64_t(tokens_per_second))) + " tokens/s";
}

std::string time_lines(const RunPlan& plan) {
  const RunReport& r = plan.predicted;
  if (!r.step_seconds) return "";
  std::string out = text("\ntime of a step  {:.4g} s, {}", *r.step_seconds, speed(*r.tokens_per_second));
  if (r.mfu) out += text(", MFU {:.1f} %", *r.mfu * 100);
  if (r.hfu) out += text(", HFU {:.1f} %", *r.hfu * 100);
  return out + text("; {} steps take {:.3g} hours\n", plan.config.train.steps, *r.step_seconds * double(plan.config.train.steps) / 3600);
}

std::string fit_line(const RunPlan& plan) {
  const bool has_budget = plan.config.memory.budget_bytes > 0;
  const int64_t budget = budget_bytes(plan.config);
  if (plan.arena.bytes > budget && has_budget) return "";  // the error says it
  return text("\n{} {} {}: {}\n", human_bytes(plan.arena.bytes), plan.arena.bytes <= budget ? "fits into" : "does not fit into",
              has_budget ? "memory.budget" : "what this machine has available", human_bytes(budget));
}

// ---- on a device by its data sheet
std::string device_lines(const RunPlan& plan, const HardwareProfile& device) {
  const PeakType type = peak_type(to_string(plan.config.train.precision)).value();
  const double peak = device.peak(type);
  const double seconds = *bound_step(plan, device).seconds;
  std::string out = text("\non {} ({}, {}/s dense {}, {}/s)\n", device.name, human_bytes(int64_t(device.memory.value)),
                         in_powers(peak, "FLOP"), name_of(type), in_powers(device.bandwidth.value, "B"));
  out += text("  {}: the arena takes {} of its memory; a CUDA context and libraries come on top\n",
              plan.arena.bytes <= int64_t(device.memory.value) ? "fits" : "does not fit",
              percent(plan.arena.bytes, int64_t(device.memory.value)));
  out += text("  no step is faster than {:.4g} s: each operation at its peak or its bandwidth; MFU would then be {:.2f}\n", seconds,
              double(plan.predicted.flops_per_step->model) / peak / seconds);
  return out;
}

// ---- two plans side by side
struct Row {
  const char* name;
  int64_t a, b;
  bool bytes;
};
std::vector<Row> rows_of(const RunPlan& a, const RunPlan& b) {
  const Ledger &m = *a.predicted.memory, &n = *b.predicted.memory;
  const Flops &f = *a.predicted.flops_per_step, &g = *b.predicted.flops_per_step;
  std::vector<Row> rows = {{"parameters", *a.predicted.parameters, *b.predicted.parameters, false},
                           {"tokens a step", tokens_per_step(a.config), tokens_per_step(b.config), false},
                           {"peak", m.peak, n.peak, true},
                           {"arena", a.arena.bytes, b.arena.bytes, true}};
  for (int c = 0; c < kCategories; ++c)
    if (m.at_peak[size_t(c)] + n.at_peak[size_t(c)] > 0)
      rows.push_back({name_of(Category(c)).data(), m.at_peak[size_t(c)], n.at_peak[size_t(c)], true});
  rows.push_back({"FLOPs needed", f.model, g.model, false});
  rows.push_back({"FLOPs executed", f.matmul, g.matmul, false});
  rows.push_back({"FLOPs in vectors", f.vector, g.vector, false});
  return rows;
}

int compare(const CommandLine& line, const RunPlan& plan, const Device& meta) {
  std::vector<std::string> overrides = line.overrides;
  std::istringstream words(line.compare);
  for (std::string word; words >> word;) overrides.push_back(word);
  const Ref<Device> fresh = meta.open_meta();
  const RunPlan other = plan_run(load_config(line.config_path, overrides), *fresh);
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("predicted");
    write_report(j, plan.predicted);
    j.key("compared");
    write_report(j, other.predicted);
    j.end_object();
    print(j.str() + "\n");
    return 0;
  }
  print(text("{:<18} {:>24} {:>24}  {}\n", "", "this", printable_line(line.compare, 24), "ratio"));
  for (const Row& r : rows_of(plan, other)) {
    const auto shown = [&](int64_t v) { return r.bytes ? human_bytes(v) : with_commas(v); };
    print(text("{:<18} {:>24} {:>24}  {}\n", r.name, shown(r.a), shown(r.b), r.a > 0 ? text("{:.3f}", double(r.b) / double(r.a)) : "-"));
  }
  if (plan.predicted.step_seconds && other.predicted.step_seconds)
    print(text("{:<18} {:>24.4g} {:>24.4g}  {:.3f}\n", "seconds a step", *plan.predicted.step_seconds, *other.predicted.step_seconds,
               *other.predicted.step_seconds / *plan.predicted.step_seconds));
  return 0;
}

int why(const CommandLine& line, const RunPlan& plan) {
  const Explanation e = explain(plan, line.why);
  if (!line.json) {
    print(to_string(e));
    return 0;
  }
  JsonWriter j(true);
  j.begin_object();
  j.key("of").string(e.of);
  j.key("bytes_at_peak").integer(e.total_bytes);
  j.key("bytes").begin_array();
  for (const ByteTerm& t : e.bytes) {
    j.begin_object();
    j.key("category").string(name_of(t.category));
    j.key("module").string(t.module);
    j.key("op").string(t.op);
    j.key("shape").string(t.shape);
    j.key("block_bytes").integer(t.block_bytes);
    j.key("blocks").integer(t.blocks);
    j.end_object();
  }
  j.end_array();
  j.key("flops").begin_array();
  for (const FlopTerm& t : e.flops) {
    j.begin_object();
    j.key("phase").string(name_of(t.phase));
    j.key("module").string(t.module);
    j.key("op").string(t.op);
    j.key("shapes").string(t.shapes);
    j.key("recomputed").boolean(t.recomputed);
    j.key("calls").integer(t.calls);
    j.key("matmul_each").integer(t.each.matmul);
    j.key("vector_each").integer(t.each.vector);
    j.end_object();
  }
  j.end_array();
  j.end_object();
  print(j.str() + "\n");
  return 0;
}

int fit(const CommandLine& line, const Config& config, const Device& meta) {
  const int64_t budget = budget_bytes(config);
  const Fit found = find_fit(config, meta, budget, fit_goal(line.fit));
  std::string changes;
  for (const std::string& c : found.changes) changes += (changes.empty() ? "" : " ") + c;
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("fit").begin_object();
    j.key("goal").string(line.fit);
    j.key("budget_bytes").integer(budget);
    j.key("micro_batch").integer(found.plan.config.train.micro_batch);
    j.key("seq_len").integer(found.plan.config.train.seq_len);
    j.key("recompute").string(recompute_text(found.plan.config.train));
    j.end_object();
    j.key("predicted");
    write_report(j, found.plan.predicted);
    j.end_object();
    print(j.str() + "\n");
    return 0;
  }
  print(text("fits into {}: {} ({}){}\n", human_bytes(budget), changes.empty() ? "nothing to change" : changes,
             human_bytes(found.plan.arena.bytes),
             found.plan.predicted.tokens_per_second ? ", " + speed(*found.plan.predicted.tokens_per_second) : ""));
  return 0;
}
}  // namespace

int run_plan(const CommandLine& line) {
  if (line.napkin) return run_plan_napkin(line);
  line.no_words();
  const int modes = !line.fit.empty() + !line.compare.empty() + !line.why.empty();
  check_as(Failure::usage, modes <= 1, "--fit, --compare and --why exclude each other");
  const Config config = line.config();
  const HardwareProfile* device = line.on.empty() ? nullptr : &find_profile(line.on);
  const Ref<Device> meta = open_cpu(Mode::meta);
  if (!line.fit.empty()) return fit(line, config, *meta);
  const RunPlan plan = plan_run(config, *meta);
  if (!line.compare.empty()) return compare(line, plan, *meta);
  if (!line.why.empty()) return why(line, plan);
  if (line.json) {
    JsonWriter j(true);
    write_report(j, plan.predicted);
    print(j.str() + "\n");
  } else {
    print(headline(plan) + (plan.recompute ? to_string(*plan.recompute) + "\n" : "") + memory_lines(plan) + work_lines(plan) +
          time_lines(plan) + (device ? device_lines(plan, *device) : fit_line(plan)));
  }
  if (!plan.note.empty()) std::fprintf(stderr, "%s\n", plan.note.c_str());
  std::fflush(stdout);
  if (config.memory.budget_bytes > 0) check_fits(plan, *meta, config.memory.budget_bytes);
  return 0;
}
}  // namespace reckon
