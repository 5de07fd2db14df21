#include "reckon/plan/napkin.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "reckon/base/text.h"
#include "reckon/plan/conventions.h"
#include "reckon/plan/napkin_topic.h"

namespace reckon {
namespace {
// What a dry run goes through one by one for an answer: seconds, not minutes.
constexpr int64_t kMostLayers = 512, kMostMicroBatches = 512, kMostLayerPasses = 4096;
constexpr double kExactInteger = 9007199254740992.0;  // 2^53: beyond it a double skips integers

const std::vector<NapkinTopic>& topics() {
  static const std::vector<NapkinTopic> all = [] {
    std::vector<NapkinTopic> list;
    add_budget_topics(list);
    add_memory_topics(list);
    add_activation_topics(list);
    add_speed_topics(list);
    add_planning_topics(list);
    return list;
  }();
  return all;
}

// The name of "key.path=value".
std::string_view key_name(std::string_view key) { return key.substr(0, key.find('=')); }

const NapkinTopic& find_topic(std::string_view name) {
  std::vector<std::string> names;
  std::string known;
  for (const NapkinTopic& t : topics()) {
    if (name == t.name) return t;
    names.emplace_back(t.name);
    known += (known.empty() ? "" : ", ") + names.back();
  }
  fail_as(Failure::usage, "unknown napkin topic '{}'{}; topics: {}", printable_line(name, 60), did_you_mean(name, names), known);
}
}  // namespace

std::string_view name_of(NapkinValue::Kind kind) {
  static constexpr std::string_view kNames[] = {"napkin", "exact", "mistake"};
  return kNames[size_t(kind)];
}

double NapkinAnswer::value(NapkinValue::Kind kind, std::string_view name) const {
  for (const NapkinValue& v : values)
    if (v.kind == kind && v.name == name) return v.value;
  fail("{}: no {} value '{}'", topic, name_of(kind), name);
}

double parse_quantity(std::string_view text, bool bytes) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return std::nan("");
  std::string_view rest = text.substr(size_t(end - text.data()));
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  if (rest.empty()) return value;
  static constexpr std::pair<std::string_view, double> kCounts[] = {{"k", 1e3}, {"K", 1e3}, {"M", 1e6},
                                                                    {"G", 1e9}, {"B", 1e9}, {"T", 1e12}};
  static constexpr std::pair<std::string_view, double> kBytes[] = {{"B", 1},        {"kB", 1e3},    {"KB", 1e3},     {"MB", 1e6},
                                                                   {"GB", 1e9},     {"TB", 1e12},   {"KiB", 0x1p10}, {"MiB", 0x1p20},
                                                                   {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  const std::span<const std::pair<std::string_view, double>> units =
      bytes ? std::span<const std::pair<std::string_view, double>>(kBytes) : kCounts;
  for (const auto& [name, factor] : units)
    if (rest == name) return value * factor;
  return std::nan("");
}

std::string scientific(double value, int digits) {
  std::string s = text("{:.{}e}", value, digits - 1);
  const size_t e = s.find('e');
  std::string mantissa = s.substr(0, e);
  int exponent = 0;
  const size_t first = s[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(s.data() + first, s.data() + s.size(), exponent);
  return text("{}e{}", mantissa, exponent);
}

namespace {
struct Scale {
  const char* unit;
  double size;
};
constexpr Scale kByteScales[] = {{"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15}};
constexpr Scale kRateScales[] = {{"GB/s", 1e9}, {"TB/s", 1e12}};
constexpr Scale kFlopScales[] = {{"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}, {"EFLOP/s", 1e18}};

// In the largest unit of which there are at least `least`; in the first for everything smaller.
std::string scaled(double value, std::span<const Scale> scales, double least) {
  const Scale* best = &scales[0];
  for (const Scale& s : scales)
    if (value >= least * s.size) best = &s;
  const double x = value / best->size;
  return (x < 1e6 ? text("{:.5g}", x) : scientific(x)) + " " + best->unit;
}

std::string shown_bytes(double value, bool whole) {
  if (value >= 1e13) return scaled(value, kByteScales, 1);
  const std::string plain = (whole ? with_commas(int64_t(value)) : text("{:.6g}", value)) + " B";
  return value < 1e6 ? plain : plain + " = " + scaled(value, kByteScales, 1);
}
}  // namespace

std::string shown_value(double value, std::string_view unit) {
  const bool whole = value == std::floor(value) && std::abs(value) < kExactInteger;
  const std::string tail = unit.empty() ? "" : " " + std::string(unit);
  if (unit == "B") return shown_bytes(value, whole);
  if (unit == "%") return text("{:.1f} %", value);
  if (unit == "$") return value < 1e15 ? "$" + with_commas(std::llround(value)) : "$" + scientific(value);
  if (unit == "FLOP/s") return scaled(value, kFlopScales, 10);
  if (unit == "B/s") return scaled(value, kRateScales, 10);
  if (whole && std::abs(value) >= 1e4 && value < 1e15)
    return with_commas(int64_t(value)) + tail + (value >= 1e8 ? " = " + scientific(value) : "");
  if (std::abs(value) >= 1e5 || (value != 0 && std::abs(value) < 1e-3)) return scientific(value) + tail;
  return (whole ? text("{}", int64_t(value)) : text("{:.4g}", value)) + tail;
}

// ---- one run of a topic

NapkinRun::NapkinRun(const NapkinTopic& topic, std::span<const std::string> arguments, OpenMeta open_meta)
    : topic_(topic), open_meta_(open_meta) {
  answer_.topic = topic.name;
  answer_.question = topic.question;
  answer_.command = text("reckon plan --napkin {}", topic.name);
  for (const std::string& word : arguments) read(word);
  set_default_keys();
  take_parameters_of_model();
  for (const NapkinArgument& a : topic_.arguments) {
    const std::string value = text_of(a.name);
    check_argument(a, value);
    if (!value.empty()) answer_.arguments.emplace_back(a.name, value);
  }
  for (const std::vector<std::string>& keys : {default_keys_, keys_})
    for (const std::string& key : keys) answer_.arguments.emplace_back(key_name(key), key.substr(key.find('=') + 1));
}

void NapkinRun::set_default_keys() {
  const std::string* preset = nullptr;
  for (const std::string& key : keys_)
    if (key_name(key) == "model.preset") preset = &key;
  for (std::string key : topic_.model) {
    if (key_given(key_name(key))) continue;
    // A default length may be longer than the positions of the model that was asked for.
    if (preset && key_name(key) == "train.seq_len") {
      const ModelConfig m = model_preset(preset->substr(preset->find('=') + 1));
      key = text("train.seq_len={}", std::min<int64_t>(int64_t(parse_quantity(key.substr(key.find('=') + 1), false)), m.max_seq_len));
    }
    default_keys_.push_back(std::move(key));
  }
}

// Who names a model asks about its parameters, not about the default number of them.
void NapkinRun::take_parameters_of_model() {
  const auto asks = [](const NapkinArgument& a) { return std::string_view(a.name) == "params" && *a.standard; };
  if (!key_given("model.preset") || given("params") || std::none_of(topic_.arguments.begin(), topic_.arguments.end(), asks)) return;
  typed_.emplace_back("params", text("{}", parameter_count(config().model)));
}

void NapkinRun::read_key(const std::string& word) {
  const std::string_view name = key_name(word);
  check_as(Failure::usage, !topic_.model.empty(), "{} asks about no model, so it takes no key such as {}", topic_.name,
           printable_line(name, 60));
  for (const std::string& key : keys_)
    check_as(Failure::usage, key_name(key) != name, "{}: {} is given twice", topic_.name, printable_line(name, 60));
  keys_.push_back(word);
}

void NapkinRun::read(const std::string& word) {
  const size_t equals = word.find('=');
  check_as(Failure::usage, equals != std::string::npos && equals > 0, "{}: '{}' is not an argument; write name=value", topic_.name,
           printable_line(word, 60));
  const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
  answer_.command += " " + printable_line(word);
  if (name.find('.') != std::string::npos) return read_key(word);
  std::vector<std::string> names;
  std::string known;
  for (const NapkinArgument& a : topic_.arguments) {
    names.emplace_back(a.name);
    known += (known.empty() ? "" : ", ") + names.back();
  }
  check_as(Failure::usage, std::find(names.begin(), names.end(), name) != names.end(), "{} takes no argument '{}'{}; it takes: {}{}",
           topic_.name, printable_line(name, 60), did_you_mean(name, names), known.empty() && topic_.model.empty() ? "none" : known,
           topic_.model.empty() ? ""
           : known.empty()      ? "keys such as model.preset"
                                : ", and keys such as model.preset");
  check_as(Failure::usage, !given(name), "{}: {} is given twice", topic_.name, name);
  check_as(Failure::usage, !value.empty(), "{}: {} has no value", topic_.name, name);
  typed_.emplace_back(name, value);
}

void NapkinRun::check_argument(const NapkinArgument& a, const std::string& value) const {
  if (a.type == NapkinArgument::word || value.empty()) return;
  const double x = parse_quantity(value, a.type == NapkinArgument::bytes);
  const auto refuse = [&](const char* wanted) {
    fail_as(Failure::usage, "{}: {} = '{}' must be {}", topic_.name, a.name, printable_line(value, 60), wanted);
  };
  switch (a.type) {
    case NapkinArgument::count:
      if (!(x >= 1 && x < kExactInteger && x == std::floor(x))) refuse("a whole number from 1 to 9.007e15, such as 4096, 70e9 or 70B");
      return;
    case NapkinArgument::number:
      if (!(x > 0)) refuse("a number above 0, such as 0.5, 70e9 or 15T");
      return;
    case NapkinArgument::fraction:
      if (!(x > 0 && x <= 1)) refuse("above 0 and at most 1");
      return;
    case NapkinArgument::bytes:
      if (!(x > 0)) refuse("a size above 0, such as 80GB (10^9) or 80GiB (2^30)");
      return;
    case NapkinArgument::word:
      return;
  }
}

const NapkinArgument& NapkinRun::argument(std::string_view name) const {
  for (const NapkinArgument& a : topic_.arguments)
    if (name == a.name) return a;
  fail("topic {} declares no argument {}", topic_.name, name);
}

bool NapkinRun::given(std::string_view name) const {
  return std::any_of(typed_.begin(), typed_.end(), [&](const auto& t) { return t.first == name; });
}

bool NapkinRun::key_given(std::string_view name) const {
  return std::any_of(keys_.begin(), keys_.end(), [&](const std::string& key) { return key_name(key) == name; });
}

std::string NapkinRun::text_of(std::string_view name) const {
  for (const auto& [known, value] : typed_)
    if (known == name) return value;
  return argument(name).standard;
}

double NapkinRun::number(std::string_view name) const {
  return parse_quantity(text_of(name), argument(name).type == NapkinArgument::bytes);
}
int64_t NapkinRun::count(std::string_view name) const { return int64_t(number(name)); }

PeakType NapkinRun::peak_type_argument() const {
  const std::optional<PeakType> type = peak_type(text_of("dtype"));
  check_as(Failure::usage, type.has_value(), "{}: dtype = '{}' must be one of fp32, tf32, bf16, fp16, fp8, int8", topic_.name,
           printable_line(text_of("dtype"), 60));
  return *type;
}

DType NapkinRun::dtype() const {
  static constexpr std::pair<std::string_view, DType> kWords[] = {
      {"float32", DType::f32}, {"fp32", DType::f32}, {"float64", DType::f64}, {"fp64", DType::f64},  {"bfloat16", DType::bf16},
      {"float16", DType::f16}, {"fp16", DType::f16}, {"int32", DType::i32},   {"int64", DType::i64}, {"uint8", DType::u8}};
  const std::string word = text_of("dtype");
  for (int i = 0; i < kDTypes; ++i)
    if (word == name_of(DType(i))) return DType(i);
  for (const auto& [known, type] : kWords)
    if (word == known) return type;
  std::string known;
  for (int i = 0; i < kDTypes; ++i) known += (i > 0 ? ", " : "") + std::string(name_of(DType(i)));
  fail_as(Failure::usage, "{}: dtype = '{}' must be one of {}", topic_.name, printable_line(word, 60), known);
}

Shape NapkinRun::shape() const {
  std::vector<int64_t> extents;
  std::string word = text_of("shape");
  std::erase_if(word, [](char c) { return c == '[' || c == ']' || c == ' '; });
  for (size_t at = 0, end; at <= word.size(); at = end + 1) {
    end = std::min(word.find_first_of("x,", at), word.size());
    const double extent = parse_quantity(std::string_view(word).substr(at, end - at), false);
    check_as(Failure::usage, extent >= 0 && extent < kExactInteger && extent == std::floor(extent),
             "{}: shape = '{}' must be whole numbers such as 1x4096x4096", topic_.name, printable_line(text_of("shape"), 60));
    extents.push_back(int64_t(extent));
  }
  return Shape(extents);
}

Config NapkinRun::config(const std::vector<std::string>& more) const {
  std::vector<std::string> all = default_keys_;
  all.insert(all.end(), more.begin(), more.end());
  all.insert(all.end(), keys_.begin(), keys_.end());
  const Config config = load_config("", all);
  const int64_t layers = config.model.layers, passes = config.train.grad_accum;
  check_as(Failure::usage, layers <= kMostLayers, "model.layers = {} are more than are run for an answer: at most {}", layers, kMostLayers);
  check_as(Failure::usage, passes <= kMostMicroBatches && layers * passes <= kMostLayerPasses,
           "train.grad_accum = {} with {} layers is more than is run for an answer: at most {}", passes, layers,
           std::min(kMostMicroBatches, kMostLayerPasses / layers));
  return config;
}

RunPlan NapkinRun::plan(const Config& config) const {
  const ModelConfig& m = config.model;
  const double tokens =
      double(config.train.micro_batch) * double(config.train.grad_accum) * (m.cruncher ? 1.0 : double(config.train.seq_len));
  const double attention = m.cruncher ? 0 : 16 * double(m.layers) * double(m.heads) * double(m.head_dim) * double(config.train.seq_len);
  const double flops = (8 * double(parameter_count(m)) + attention) * tokens;
  check_as(Failure::usage, flops < 0x1p62, "a step of {} FLOPs is beyond the 63 bits that exact counts have: ask about a smaller batch",
           scientific(flops));
  return plan_run(config, *meta(), false);
}

void NapkinRun::add(NapkinValue::Kind kind, std::string name, double value, const char* unit, std::string how) {
  check_as(Failure::usage, std::isfinite(value), "{} is beyond what a number can hold (1.8e308): ask with smaller numbers", name);
  answer_.values.push_back({kind, std::move(name), value, unit, shown_value(value, unit), std::move(how)});
}

// ---- answers

NapkinAnswer napkin(std::string_view topic, std::span<const std::string> arguments, OpenMeta open_meta) {
  const NapkinTopic& row = find_topic(topic);
  NapkinRun run(row, arguments, open_meta);
  try {
    row.answer(run);
  } catch (const Error& error) {
    // All input is what was typed, so whatever the engine refuses is bad usage.
    if (error.kind() == Failure::usage && std::string_view(error.what()).starts_with(text("{}: ", row.name))) throw;
    fail_as(Failure::usage, "{}: {}", row.name, error.what());
  }
  return run.take();
}

std::vector<NapkinAnswer> napkin_table(OpenMeta open_meta) {
  std::vector<NapkinAnswer> answers;
  for (const NapkinTopic& t : topics()) {
    answers.push_back(napkin(t.name, {}, open_meta));
    for (const char* example : t.examples) {
      std::vector<std::string> words;
      std::string_view rest = example;
      while (!rest.empty()) {
        const size_t end = std::min(rest.find(' '), rest.size());
        words.emplace_back(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
      answers.push_back(napkin(t.name, words, open_meta));
    }
  }
  return answers;
}

std::vector<NapkinTopicHelp> napkin_topics() {
  std::vector<NapkinTopicHelp> list;
  for (const NapkinTopic& t : topics()) {
    NapkinTopicHelp help{t.name, t.question, {}, !t.model.empty()};
    for (const NapkinArgument& a : t.arguments) help.arguments.emplace_back(a.name, a.standard);
    list.push_back(std::move(help));
  }
  return list;
}

std::string to_text(const NapkinAnswer& a) {
  std::string out = text("$ {}\n{}\n", a.command, a.question);
  std::string given;
  for (const auto& [name, value] : a.arguments) given += text(" {}={}", name, value);
  if (!given.empty()) out += " " + given + "\n";
  size_t names = 0, values = 0;
  for (const NapkinValue& v : a.values) names = std::max(names, v.name.size()), values = std::max(values, v.shown.size());
  for (const NapkinValue& v : a.values) out += text("  {:8} {:{}}  {:{}}  {}\n", name_of(v.kind), v.name, names, v.shown, values, v.how);
  if (!a.why.empty()) out += "  why      " + a.why + "\n";
  for (const std::string& note : a.notes) out += "  note     " + note + "\n";
  return out;
}

void write_napkin(JsonWriter& j, const NapkinAnswer& a) {
  j.begin_object();
  j.key("topic").string(a.topic).key("command").string(a.command).key("question").string(a.question);
  j.key("arguments").begin_object();
  for (const auto& [name, value] : a.arguments) j.key(name).string(value);
  j.end_object();
  j.key("values").begin_array();
  for (const NapkinValue& v : a.values) {
    j.begin_object().key("kind").string(name_of(v.kind)).key("name").string(v.name).key("value");
    v.value == std::floor(v.value) && std::abs(v.value) < kExactInteger ? j.integer(int64_t(v.value)) : j.number(v.value);
    j.key("unit").string(v.unit).key("how").string(v.how).end_object();
  }
  j.end_array();
  j.key("why");
  a.why.empty() ? j.null() : j.string(a.why);
  j.key("notes").begin_array();
  for (const std::string& note : a.notes) j.string(note);
  j.end_array().end_object();
}
}  // namespace reckon
