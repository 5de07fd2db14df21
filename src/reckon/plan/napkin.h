// plan/napkin: questions that people answer on a napkin: each from its closed formula and, where the engine can tell, exactly, from calls
// and runs on meta. No backend is named here: whoever asks says how to open a meta device.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/io/json.h"
#include "reckon/tensor/device.h"

namespace reckon {

using OpenMeta = Ref<Device> (*)();

/// One number of an answer.
struct NapkinValue {
  enum Kind : uint8_t {
    napkin,   // a closed formula
    exact,    // counted by the engine, on meta
    mistake,  // a common wrong value
  } kind = napkin;
  std::string name;   // "parameters"
  double value = 0;   // in `unit`; always finite
  std::string unit;   // "B", "FLOPs", "days", "%", "" for a bare ratio
  std::string shown;  // value and unit for people
  std::string how;    // the formula, where it was counted, or what is wrong
};
std::string_view name_of(NapkinValue::Kind kind);

struct NapkinAnswer {
  std::string topic;
  std::string command;                                         // what to type for this answer
  std::string question;                                        // one line
  std::vector<std::pair<std::string, std::string>> arguments;  // every argument of the topic with the value it had
  std::vector<NapkinValue> values;
  std::string why;                 // one line: why napkin and exact differ; "" if there is nothing to compare
  std::vector<std::string> notes;  // one line each
  /// The value of that kind and name; throws Error if there is none.
  double value(NapkinValue::Kind kind, std::string_view name) const;
};

/// Topics in the order of the documentation.
struct NapkinTopicHelp {
  std::string name, question;
  std::vector<std::pair<std::string, std::string>> arguments;  // name and default
  bool takes_model = false;                                    // model.*, train.* and optim.* keys are arguments, too
};
std::vector<NapkinTopicHelp> napkin_topics();

/// Answers one topic; arguments are name=value, or keys of the configuration where the topic has a model. Throws Error (usage) for unknown
/// topics and arguments, with the nearest known one, for values out of range, and for results beyond what a number can hold.
NapkinAnswer napkin(std::string_view topic, std::span<const std::string> arguments, OpenMeta open_meta);
/// The worked examples: every topic with its defaults, some with other arguments too.
std::vector<NapkinAnswer> napkin_table(OpenMeta open_meta);

/// Lines for people, with a final newline.
std::string to_text(const NapkinAnswer& answer);
/// {"topic", "command", "question", "arguments", "values": [{"kind", "name", "value", "unit", "how"}], "why", "notes"}.
void write_napkin(JsonWriter& json, const NapkinAnswer& answer);
}  // namespace reckon
