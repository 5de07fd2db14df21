// cli/check_signals: reckon check signals [CONFIG.toml] [key=value ...] [--layer IN,OUT] [--json]
#include <charconv>
#include <cmath>
#include <cstdio>

#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/signals.h"
#include "reckon/io/json.h"
#include "reckon/train/report.h"

namespace reckon {
namespace {
constexpr int64_t kMostWide = int64_t(1) << 20, kMostWeights = int64_t(1) << 28;  // 1 GiB of float32

void write(JsonWriter& json, const Moments& m) {
  json.begin_object()
      .key("count")
      .integer(m.count)
      .key("not_finite")
      .integer(m.bad)
      .key("mean")
      .number(m.mean)
      .key("variance")
      .number(m.variance);
  json.key("max_abs").number(m.max_abs).end_object();
}
std::string cells(const Moments& m) { return text("{:>11.3e} {:>10.3e} {:>10.3e}", m.mean, m.variance, m.max_abs); }

// ---- one layer
struct Widths {
  int64_t in = 0, out = 0;
};
Widths widths_of(const std::string& words) {
  Widths w;
  const char *at = words.data(), *end = at + words.size();
  const auto one = [&](int64_t& value) {
    const auto [next, error] = std::from_chars(at, end, value);
    at = next;
    return error == std::errc();
  };
  const bool reads = one(w.in) && at != end && *at++ == ',' && one(w.out) && at == end;
  check_as(Failure::usage, reads && w.in >= 1 && w.out >= 1 && w.in <= kMostWide && w.out <= kMostWide && w.in * w.out <= kMostWeights,
           "--layer wants two widths IN,OUT of at most {} weights, as in 16384,32; got '{}'", kMostWeights, printable_line(words, 60));
  return w;
}
void print_layer(const Widths& w, const std::vector<LayerSignal>& rows) {
  std::printf("linear layer, %lld inputs of N(0, 1) -> %lld outputs; y = x w^T, dx = dy w with dy of N(0, 1)\n\n",
              static_cast<long long>(w.in), static_cast<long long>(w.out));
  std::printf("%-26s %10s   %-34s   %s\n%-26s %10s   %10s %10s %10s   %10s %10s\n", "", "weights", "output", "gradient of the input",
              "initialization", "std", "expected", "variance", "std", "expected", "variance");
  for (const LayerSignal& s : rows)
    std::printf("%-26s %10.4g   %10.4g %10.4g %10.4g   %10.4g %10.4g\n", s.init.c_str(), s.std, s.output_variance, s.output.variance,
                std::sqrt(s.output.variance), s.gradient_variance, s.gradient.variance);
}
std::string layer_json(const Widths& w, const std::vector<LayerSignal>& rows) {
  JsonWriter json(true);
  json.begin_object().key("in").integer(w.in).key("out").integer(w.out).key("initializations").begin_array();
  for (const LayerSignal& s : rows) {
    json.begin_object()
        .key("init")
        .string(s.init)
        .key("weight_std")
        .number(s.std)
        .key("expected_output_variance")
        .number(s.output_variance);
    json.key("expected_gradient_variance").number(s.gradient_variance).key("output");
    write(json, s.output);
    json.key("gradient");
    write(json, s.gradient);
    json.end_object();
  }
  return json.end_array().end_object().str();
}

// ---- a model
void print_model(const Config& c, const Signals& signals) {
  std::printf("%s, model.init=%s", c.model.preset.c_str(), to_string(c.model.init).c_str());
  const bool has_std = c.model.init == InitKind::normal || c.model.init == InitKind::trunc_normal;
  if (has_std) std::printf(" with std %g", c.model.init_std);
  std::printf(", %s; loss %.4f\n\n", to_string(c.train.precision).c_str(), signals.loss);
  std::printf("%-20s %-26s %-33s   %s\n%-20s %-26s %11s %10s %10s   %11s %10s %10s\n", "", "", "           output",
              "           its gradient", "layer", "operation", "mean", "variance", "max |x|", "mean", "variance", "max |x|");
  for (const Signal& s : signals.rows) {
    std::printf("%-20s %-26s %s   %s", s.module.c_str(), s.operation.c_str(), cells(s.output).c_str(),
                s.gradient ? cells(*s.gradient).c_str() : "          -");
    const int64_t bad = s.output.bad + (s.gradient ? s.gradient->bad : 0);
    if (bad > 0) std::printf("  %s NaN or infinite", with_commas(bad).c_str());
    std::printf("\n");
  }
}
std::string model_json(const Config& c, const Signals& signals) {
  JsonWriter json(true);
  json.begin_object()
      .key("preset")
      .string(c.model.preset)
      .key("init")
      .string(to_string(c.model.init))
      .key("init_std")
      .number(c.model.init_std);
  json.key("loss").number(signals.loss).key("signals").begin_array();
  for (const Signal& s : signals.rows) {
    json.begin_object().key("module").string(s.module).key("operation").string(s.operation).key("shape").begin_array();
    for (const int64_t extent : s.shape) json.integer(extent);
    json.end_array().key("output");
    write(json, s.output);
    json.key("gradient");
    if (s.gradient)
      write(json, *s.gradient);
    else
      json.null();
    json.end_object();
  }
  return json.end_array().end_object().str();
}
}  // namespace

int run_check_signals(const CommandLine& line) {
  line.no_words();
  const Config c = line.config();
  if (!line.layer.empty()) {
    const Widths w = widths_of(line.layer);
    for (const std::string& key : line.overrides)
      check_as(Failure::usage, key.starts_with("seed="), "--layer shows a layer by itself, which no key but seed changes: leave {} out",
               printable_line(key, 60));
    check_as(Failure::usage, line.config_path.empty(), "--layer shows a layer by itself, which no configuration changes: leave {} out",
             printable_line(line.config_path, 100));
    const std::vector<LayerSignal> rows = measure_layer(w.in, w.out, uint64_t(c.seed));
    line.json ? void(std::fputs((layer_json(w, rows) + "\n").c_str(), stdout)) : print_layer(w, rows);
    return 0;
  }
  check_as(Failure::usage, c.train.precision != Precision::fp8,
           "check signals shows the layers themselves, which train.precision=fp8 shares with bf16: use train.precision=bf16");
  const int64_t bytes = signals_bytes(c), budget = c.memory.budget_bytes > 0 ? c.memory.budget_bytes : available_memory_bytes();
  check_as(Failure::memory, bytes <= budget, "one pass of this model takes {}, and {} has {}: lower train.micro_batch or train.seq_len",
           human_bytes(bytes), c.memory.budget_bytes > 0 ? "memory.budget" : "available memory", human_bytes(budget));
  const Signals signals = measure_signals(c);
  line.json ? void(std::fputs((model_json(c, signals) + "\n").c_str(), stdout)) : print_model(c, signals);
  return 0;
}
}  // namespace reckon
