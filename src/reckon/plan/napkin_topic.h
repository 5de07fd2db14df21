// plan/napkin_topic: what the files of topics share: the rows of topics, and one run of a topic that reads arguments and collects lines.
#pragma once
#include "reckon/plan/device_profiles.h"
#include "reckon/plan/napkin.h"
#include "reckon/plan/run_plan.h"

namespace reckon {

struct NapkinArgument {
  enum Type : uint8_t {
    count,     // a whole number of at least 1, below 2^53
    number,    // above 0
    fraction,  // above 0, at most 1
    bytes,     // as number, with B, GB, GiB, ...
    word,      // anything; the topic reads it
  };
  const char* name;
  Type type;
  const char* standard;  // the default, as one would type it; "" if the argument may be left out
};

class NapkinRun;
struct NapkinTopic {
  const char* name;
  const char* question;
  std::vector<NapkinArgument> arguments;
  void (*answer)(NapkinRun&);
  std::vector<const char*> model = {};     // default keys of the configuration; empty: the topic has no model
  std::vector<const char*> examples = {};  // arguments of further worked examples
};

/// One file of topics each.
void add_budget_topics(std::vector<NapkinTopic>& topics);
void add_memory_topics(std::vector<NapkinTopic>& topics);
void add_activation_topics(std::vector<NapkinTopic>& topics);
void add_speed_topics(std::vector<NapkinTopic>& topics);
void add_planning_topics(std::vector<NapkinTopic>& topics);

/// One run of a topic. Readers throw Error (usage) naming the argument; lines throw if a value is not finite.
class NapkinRun {
 public:
  NapkinRun(const NapkinTopic& topic, std::span<const std::string> arguments, OpenMeta open_meta);

  /// The argument was typed.
  bool given(std::string_view name) const;
  /// Some key of the configuration was typed.
  bool model_given() const { return !keys_.empty(); }
  /// This key was typed.
  bool key_given(std::string_view name) const;
  /// Typed, or with a default.
  bool has(std::string_view name) const { return !text_of(name).empty(); }
  std::string text_of(std::string_view name) const;
  double number(std::string_view name) const;
  int64_t count(std::string_view name) const;
  const HardwareProfile& profile() const { return find_profile(text_of("profile")); }
  /// The argument `dtype` as a peak of the profile, and as bytes an element.
  PeakType peak_type_argument() const;
  double peak() const { return profile().peak(peak_type_argument()); }
  /// The argument `dtype` as a type of tensors.
  DType dtype() const;
  /// The argument `shape`: 1x4096x4096 or 1,4096,4096.
  Shape shape() const;
  /// The topic's default keys, these, and the typed ones on top.
  Config config(const std::vector<std::string>& more = {}) const;
  /// A new meta device.
  Ref<Device> meta() const { return open_meta_(); }
  /// plan_run() on a new meta device, without saving. Throws Error (usage) if FLOPs or bytes would pass 2^62.
  RunPlan plan(const Config& config) const;

  void napkin(const char* name, double value, const char* unit, std::string how) {
    add(NapkinValue::napkin, name, value, unit, std::move(how));
  }
  void exact(const char* name, double value, const char* unit, std::string how) {
    add(NapkinValue::exact, name, value, unit, std::move(how));
  }
  void mistake(const char* name, double value, const char* unit, std::string how) {
    add(NapkinValue::mistake, name, value, unit, std::move(how));
  }
  void add(NapkinValue::Kind kind, std::string name, double value, const char* unit, std::string how);
  void why(std::string line) { answer_.why = std::move(line); }
  void note(std::string line) { answer_.notes.push_back(std::move(line)); }
  NapkinAnswer take() { return std::move(answer_); }

 private:
  const NapkinArgument& argument(std::string_view name) const;
  void read(const std::string& word);
  void read_key(const std::string& word);
  void set_default_keys();
  void take_parameters_of_model();
  void check_argument(const NapkinArgument& a, const std::string& text) const;

  const NapkinTopic& topic_;
  OpenMeta open_meta_;
  std::vector<std::pair<std::string, std::string>> typed_;  // name, text
  std::vector<std::string> keys_;                           // typed key.path=value
  std::vector<std::string> default_keys_;                   // the topic's, without those that were typed
  NapkinAnswer answer_;
};

/// A number as typed: 70e9, 70B (10^9), 15T, 0.5; with `bytes` also 80GB and 80GiB. NaN if it is none.
double parse_quantity(std::string_view text, bool bytes);
/// 6.3e24, 1.740e11: `digits` significant digits, no plus sign.
std::string scientific(double value, int digits = 4);
/// Value and unit for people.
std::string shown_value(double value, std::string_view unit);

inline constexpr double kSecondsPerDay = 86400, kSecondsPerYear = 365.25 * kSecondsPerDay;
}  // namespace reckon
