// cli/check: reckon check [OPERATION ...] [--json]: is every kernel there, are its values and gradients right on this machine, does the
// meta device see what the real one does, and do threads change no bit.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/op_cases_judge.h"
#include "reckon/io/json.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

// One property of one operation: how often it was looked at, and what was wrong first.
struct Finding {
  int64_t checks = 0, failures = 0;
  std::string first;
  void add(const std::string& wrong) {
    ++checks;
    if (wrong.empty()) return;
    if (failures++ == 0) first = wrong;
  }
};
enum Property { kKernels, kValues, kGradients, kMeta, kThreads, kProperties };
constexpr const char* kTitles[kProperties] = {"kernels", "values", "gradients", "meta = real", "threads"};
constexpr const char* kKeys[kProperties] = {"kernels", "values", "gradients", "meta", "threads"};

struct OpReport {
  std::string op;
  Finding findings[kProperties];
  bool ok() const {
    return std::all_of(std::begin(findings), std::end(findings), [](const Finding& f) { return f.failures == 0; });
  }
};

// An exception of one case is its failure, not the end of the check.
template <class Judge>
std::string guarded(const OpCase& c, Judge judge) {
  try {
    return judge();
  } catch (const Error& error) {
    if (error.kind() == Failure::interrupted) throw;
    return text("{}: {}", c, error.what());
  }
}

std::string missing_kernels(const OpCase& c, Device& real, Device& meta) {
  for (const std::string& name : rows_of(c, meta)) {
    const auto row = std::find_if(all_ops().begin(), all_ops().end(), [&](const OpDef* r) { return r->name == name; });
    if (row == all_ops().end()) return text("{} runs {}, which is not in the table of operations", c, name);
    if ((*row)->id >= 0 && !real.kernel((*row)->id).run) return text("{} has no kernel on {}", name, real.profile().name);
  }
  return {};
}

// The bits on all threads are those on one, forward and backward.
std::string other_bits(const OpCase& c, Device& device, int threads) {
  const DType dtype = c.runs_with(DType::f32) ? DType::f32 : DType::f64;
  const uint64_t one = bits_of(c, device, dtype);
  set_thread_count(threads);
  const uint64_t many = bits_of(c, device, dtype);
  set_thread_count(1);
  return one == many ? "" : text("{} {}: other bits with {} threads than with 1", c, dtype, threads);
}

// On one thread, but where threads are the subject: most cases are too small to be worth waking another.
OpReport check_op(const std::string& op, int threads) {
  OpReport report{op, {}};
  const DevicePair devices{open_cpu(Mode::real), open_cpu(Mode::meta)};
  const Ref<Device> counted = open_cpu(Mode::meta);
  for (const OpCase& c : op_cases()) {
    if (c.op != op) continue;
    report.findings[kKernels].add(guarded(c, [&] { return missing_kernels(c, *devices.real, *counted); }));
    for (const DType dtype : kFloats) {
      if (!c.runs_with(dtype)) continue;
      report.findings[kMeta].add(guarded(c, [&] { return judge_meta(c, devices, dtype); }));
    }
  }
  // Apart from the pair: its traces must stay in step.
  const Ref<Device> device = open_cpu(Mode::real);
  for (const OpCase& c : op_cases()) {
    if (c.op != op) continue;
    for (const DType dtype : kFloats)
      if (c.runs_with(dtype)) report.findings[kValues].add(guarded(c, [&] { return judge_values(c, *device, dtype); }));
    if (c.differentiable) report.findings[kGradients].add(guarded(c, [&] { return judge_gradients(c, *device); }));
    report.findings[kThreads].add(guarded(c, [&] { return other_bits(c, *device, threads); }));
  }
  return report;
}

std::vector<std::string> selected_ops(const CommandLine& line) {
  const std::vector<std::string> all = case_ops();
  for (const std::string& word : line.words)
    if (std::find(all.begin(), all.end(), word) == all.end())
      fail_as(Failure::usage, "unknown operation '{}'{}", printable_line(word), did_you_mean(word, all));
  if (line.words.empty()) return all;
  std::vector<std::string> some;
  for (const std::string& name : all)
    if (std::find(line.words.begin(), line.words.end(), name) != line.words.end()) some.push_back(name);
  return some;
}

// Rows of the table that no case runs; only looked for when everything is checked.
std::vector<std::string> unchecked_rows() {
  const Ref<Device> meta = open_cpu(Mode::meta);
  std::set<std::string> run;
  for (const UncoveredRow& row : uncovered_rows()) run.insert(row.op);
  for (const OpCase& c : op_cases())
    for (const std::string& name : rows_of(c, *meta)) run.insert(name);
  std::vector<std::string> missing;
  for (const OpDef* row : all_ops())
    if (!run.contains(row->name)) missing.emplace_back(row->name);
  return missing;
}

std::string cell(const Finding& f) {
  if (f.checks == 0) return "-";
  return f.failures == 0 ? text("ok {}", f.checks) : text("{} of {} FAIL", f.failures, f.checks);
}

void print_row(const OpReport& r) {
  std::printf("%-22s", r.op.c_str());
  for (const Finding& f : r.findings) std::printf(" %-14s", cell(f).c_str());
  std::printf("\n");
  for (const Finding& f : r.findings)
    if (f.failures > 0) std::printf("    %s\n", f.first.c_str());
  std::fflush(stdout);
}

std::string to_json(const std::vector<OpReport>& reports, const std::vector<std::string>& unchecked, bool ok) {
  JsonWriter json(true);
  json.begin_object().key("ok").boolean(ok).key("operations").begin_object();
  for (const OpReport& r : reports) {
    json.key(r.op).begin_object().key("ok").boolean(r.ok());
    for (int p = 0; p < kProperties; ++p) {
      const Finding& f = r.findings[p];
      json.key(kKeys[p]).begin_object().key("checks").integer(f.checks).key("failures").integer(f.failures).key("first_failure");
      if (f.failures > 0)
        json.string(f.first);
      else
        json.null();
      json.end_object();
    }
    json.end_object();
  }
  json.end_object().key("rows_without_a_case").begin_array();
  for (const std::string& name : unchecked) json.string(name);
  json.end_array().end_object();
  return json.str();
}
}  // namespace

int run_check(const CommandLine& line) {
  const std::vector<std::string> ops = selected_ops(line);
  const auto start = std::chrono::steady_clock::now();
  if (!line.json) {
    std::printf("%-22s", "operation");
    for (const char* title : kTitles) std::printf(" %-14s", title);
    std::printf("\n");
  }
  const int threads = std::max(2, thread_count());
  set_thread_count(1);
  std::vector<OpReport> reports;
  for (const std::string& op : ops) {
    reports.push_back(check_op(op, threads));
    if (!line.json) print_row(reports.back());
  }
  const std::vector<std::string> unchecked = line.words.empty() ? unchecked_rows() : std::vector<std::string>();
  const int64_t bad = std::count_if(reports.begin(), reports.end(), [](const OpReport& r) { return !r.ok(); });
  const bool ok = bad == 0 && unchecked.empty();
  if (line.json) {
    std::fputs((to_json(reports, unchecked, ok) + "\n").c_str(), stdout);
    return ok ? 0 : int(Failure::failed);
  }
  int64_t checks = 0;
  for (const OpReport& r : reports)
    for (const Finding& f : r.findings) checks += f.checks;
  for (const std::string& name : unchecked) std::printf("%s has no case: nothing is known of it\n", name.c_str());
  std::printf("%s, %s in %s: ", counted(int64_t(reports.size()), "operation").c_str(), counted(checks, "check").c_str(),
              human_seconds(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()).c_str());
  if (ok)
    std::printf("all right\n");
  else
    std::printf("%s with failures\n", with_commas(bad).c_str());
  return ok ? 0 : int(Failure::failed);
}
}  // namespace reckon
