#include "reckon/report/trace.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/report/markup.h"

namespace reckon {
namespace {
constexpr double kMicro = 1e6;
constexpr int64_t kProcess = 1, kThread = 1;

const RunPart& steady_step(const RunPlan& plan) {
  const auto part = std::find_if(plan.parts.begin(), plan.parts.end(), [](const RunPart& p) { return p.name == "steady step"; });
  check(part != plan.parts.end(), "the plan has no steady step to trace");
  return *part;
}

std::string shapes_of(const CallRecord& call) {
  std::string s;
  for (const TensorSpec& spec : call.in) s += to_string(spec) + " ";
  s += "->";
  for (const TensorSpec& spec : call.out) s += " " + to_string(spec);
  return s;
}

// Writes events one a line: a trace of a hundred megabytes is still a text that tools can page.
class TraceWriter {
 public:
  TraceWriter(const std::string& title, Timing timing) {
    out_ = "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"timing\":\"" + std::string(name_of(timing)) + "\"},\n\"traceEvents\":[";
    metadata("process_name", title);
    metadata("thread_name", timing == Timing::order ? "one step in order: a microsecond stands for a call" : "one step");
  }

  void slice(std::string_view name, std::string_view kind, double start, double duration, const TraceSpan* span = nullptr) {
    JsonWriter j;
    event(j, name, "X", start);
    j.key("dur").number(duration).key("cat").string(kind);
    if (span) {
      j.key("args").begin_object().key("module").string(valid_utf8(span->module)).key("tensors").string(span->shapes);
      j.key("flops").integer(span->flops).key("bytes").integer(span->bytes);
      if (span->recomputed) j.key("recomputed").boolean(true);
      j.end_object();
    }
    finish(j);
  }
  void counter(std::string_view name, double at, int64_t bytes) {
    JsonWriter j;
    event(j, name, "C", at);
    j.key("args").begin_object().key("bytes").integer(bytes).end_object();
    finish(j);
  }
  std::string done() { return std::move(out_) + "\n]}\n"; }

 private:
  void metadata(std::string_view name, std::string_view value) {
    JsonWriter j;
    event(j, name, "M", 0);
    j.key("args").begin_object().key("name").string(valid_utf8(value)).end_object();
    finish(j);
  }
  // Times are sums and differences of doubles: what rounding puts back by less than a nanosecond is put right here.
  void event(JsonWriter& j, std::string_view name, std::string_view phase, double at) {
    at = now_ = std::max(now_, at);
    j.begin_object()
        .key("name")
        .string(valid_utf8(name))
        .key("ph")
        .string(phase)
        .key("ts")
        .number(at)
        .key("pid")
        .integer(kProcess)
        .key("tid")
        .integer(kThread);
  }
  void finish(JsonWriter& j) {
    out_ += is_first_ ? "\n" : ",\n";
    out_ += j.end_object().str();
    is_first_ = false;
  }
  std::string out_;
  bool is_first_ = true;
  double now_ = 0;
};

// Phase and modules around a span, outermost first.
std::vector<std::string> path_of(const TraceSpan& span) {
  std::vector<std::string> path = {std::string(name_of(span.phase))};
  if (span.recomputed) path.push_back("recomputed");
  for (size_t start = 0; start < span.module.size();) {
    const size_t dot = std::min(span.module.find('.', start), span.module.size());
    path.push_back(span.module.substr(start, dot - start));
    start = dot + 1;
  }
  return path;
}

// What is written, in the order of time: an enclosing slice before what it encloses.
struct Moment {
  double at;
  std::string name;
  double duration = 0;
  const TraceSpan* span = nullptr;  // of an operation
};

// A slice of a module reaches from its first operation to its last in a row.
std::vector<Moment> nest(std::span<const TraceSpan> spans) {
  std::vector<Moment> moments;
  std::vector<std::string> path;
  std::vector<size_t> open;  // of path: indices in moments
  for (const TraceSpan& span : spans) {
    const std::vector<std::string> wanted = path_of(span);
    size_t common = 0;
    while (common < std::min(path.size(), wanted.size()) && path[common] == wanted[common]) ++common;
    open.resize(common);
    for (size_t i = common; i < wanted.size(); ++i) {
      open.push_back(moments.size());
      moments.push_back({span.start_us, wanted[i]});
    }
    path = wanted;
    const double end = span.start_us + span.duration_us;
    for (const size_t i : open) moments[i].duration = end - moments[i].at;
    moments.push_back({span.start_us, span.op, span.duration_us, &span});
  }
  return moments;
}

// Live bytes after each event. A call's first allocations happen when it starts, everything after them when it ends.
class Counters {
 public:
  Counters(const TraceInput& input, TraceWriter& out) : input_(input), out_(out) {
    for (size_t i = 0; i < input.begin; ++i) apply(input.events[i]);
    for (size_t c = 0; c < live_.size(); ++c) out_.counter(name_of(Category(c)), 0, live_[c]);
    out_.counter("live", 0, total());
    next_ = input.begin;
  }
  void allocations(double at) {
    while (next_ < limit_ && input_.events[next_].is_alloc) write(at);
  }
  void everything(double at) {
    while (next_ < limit_) write(at);
  }
  void set_limit(size_t end) { limit_ = end; }

 private:
  void apply(const AllocationEvent& e) { live_[size_t(e.category)] += e.is_alloc ? e.bytes : -e.bytes; }
  int64_t total() const {
    int64_t sum = 0;
    for (const int64_t bytes : live_) sum += bytes;
    return sum;
  }
  void write(double at) {
    const AllocationEvent& e = input_.events[next_++];
    apply(e);
    out_.counter(name_of(e.category), at, live_[size_t(e.category)]);
    out_.counter("live", at, total());
  }
  const TraceInput& input_;
  TraceWriter& out_;
  std::array<int64_t, kCategories> live_{};
  size_t next_ = 0, limit_ = 0;
};

void check_order(const TraceInput& input) {
  double end = 0;
  size_t events = input.begin;
  for (const TraceSpan& s : input.spans) {
    // Half a nanosecond: sums of seconds and differences of clock readings round.
    check(s.start_us >= end - 5e-4 && s.duration_us >= 0 && std::isfinite(s.start_us + s.duration_us),
          "span {} at {} us begins before the one before it ends", s.op, s.start_us);
    check(s.events >= events && s.events <= input.end, "span {} has event {}, outside {} to {}", s.op, s.events, events, input.end);
    end = s.start_us + s.duration_us;
    events = s.events;
  }
}
}  // namespace

std::string_view name_of(Timing timing) {
  static constexpr std::string_view kNames[] = {"order", "predicted", "measured"};
  return kNames[size_t(timing)];
}

CallTimes predicted_times(std::span<const double> seconds) {
  CallTimes times{.timing = Timing::predicted};
  double at = 0;
  for (const double s : seconds) {
    times.start.push_back(at);
    times.seconds.push_back(s);
    at += s;
  }
  return times;
}

CallTimes order_of_calls(size_t count) {
  CallTimes times = predicted_times(std::vector<double>(count, 1 / kMicro));
  times.timing = Timing::order;
  return times;
}

std::optional<CallTimes> measured_times(const RunPlan& plan, std::span<const CallRecord> records) {
  if (records.empty() || records.size() != plan.calls.size()) return {};
  CallTimes times{.timing = Timing::measured};
  for (size_t i = 0; i < records.size(); ++i) {
    if (records[i].op != plan.calls[i].op || records[i].module != plan.calls[i].module) return {};
    // As a trace gives them back, in every bit: a report that is drawn again shows the same digits.
    times.start.push_back(records[i].start * kMicro / kMicro);
    times.seconds.push_back(records[i].seconds * kMicro / kMicro);
  }
  return times;
}

std::vector<TraceSpan> spans_of(const RunPlan& plan, const CallTimes& times) {
  check(times.start.size() == plan.calls.size() && times.seconds.size() == plan.calls.size(), "{} times for the {} calls of a step",
        times.seconds.size(), plan.calls.size());
  std::vector<TraceSpan> spans;
  spans.reserve(plan.calls.size());
  for (size_t i = 0; i < plan.calls.size(); ++i) {
    const CallRecord& c = plan.calls[i];
    spans.push_back({.op = c.op->name,
                     .module = module_path(c.module),
                     .phase = c.phase,
                     .recomputed = c.recomputed,
                     .start_us = times.start[i] * kMicro,
                     .duration_us = times.seconds[i] * kMicro,
                     .events = c.events,
                     .shapes = shapes_of(c),
                     .flops = c.flops.matmul + c.flops.vector,
                     .bytes = c.bytes});
  }
  return spans;
}

std::string trace_json(const TraceInput& input) {
  check(input.begin <= input.end && input.end <= input.events.size(), "events {} to {} of {} cannot be traced", input.begin, input.end,
        input.events.size());
  check_order(input);
  TraceWriter out(input.title, input.timing);
  Counters counters(input, out);
  counters.set_limit(input.spans.empty() ? input.end : input.spans[0].events);
  counters.everything(0);
  size_t done = 0;  // spans
  for (const Moment& m : nest(input.spans)) {
    if (!m.span) {
      out.slice(m.name, "module", m.at, m.duration);
      continue;
    }
    ++done;
    counters.set_limit(done < input.spans.size() ? input.spans[done].events : input.end);
    out.slice(m.name, "op", m.at, m.duration, m.span);
    counters.allocations(m.at);
    counters.everything(m.at + m.duration);
  }
  return out.done();
}

std::string trace_json(const RunPlan& plan, const CallTimes& times) {
  const RunPart& step = steady_step(plan);
  const std::vector<TraceSpan> spans = spans_of(plan, times);
  return trace_json({.title = text("reckon: {}, {}", plan.config.model.preset, name_of(times.timing)),
                     .timing = times.timing,
                     .spans = spans,
                     .events = plan.events,
                     .begin = step.begin,
                     .end = step.end});
}

std::optional<CallTimes> times_in_trace(std::string_view json, const std::string& source, const RunPlan& plan) {
  const JsonDocument document(json, source, {.max_bytes = size_t(1) << 30});
  if (document.root().get("otherData").get("timing").string() != name_of(Timing::measured)) return {};
  CallTimes times{.timing = Timing::measured};
  for (const Json event : document.root().get("traceEvents")) {
    if (!event.has("cat") || event.get("cat").string() != "op") continue;
    const size_t i = times.start.size();
    if (i == plan.calls.size() || event.get("name").string() != plan.calls[i].op->name ||
        event.get("args").get("module").string() != module_path(plan.calls[i].module))
      return {};
    times.start.push_back(event.get("ts").number() / kMicro);
    times.seconds.push_back(event.get("dur").number() / kMicro);
    if (times.seconds.back() < 0 || (i > 0 && times.start[i] < times.start[i - 1])) event.fail_here("goes back in time");
  }
  if (times.start.size() != plan.calls.size()) return {};
  return times;
}
}  // namespace reckon
