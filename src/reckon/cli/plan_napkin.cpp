// cli/plan_napkin: reckon plan --napkin [TOPIC] [name=value ...] [--json]: prints answers; plan/napkin finds them.
#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/program.h"
#include "reckon/cli/command.h"
#include "reckon/plan/napkin.h"

namespace reckon {
namespace {
Ref<Device> open_meta() { return open_cpu(Mode::meta, DeviceProfile{}); }

void print_topics() {
  std::string out = text("Ask your own: {} plan --napkin TOPIC name=value ...\n", program_name());
  for (const NapkinTopicHelp& topic : napkin_topics()) {
    std::string arguments;
    for (const auto& [name, value] : topic.arguments) arguments += " " + name + "=" + value;
    out += text("  {:18}{}{}\n", topic.name, arguments, topic.takes_model ? " [model.*, train.*, optim.*]" : "");
  }
  std::fputs(out.c_str(), stdout);
}
}  // namespace

int run_plan_napkin(const CommandLine& line) {
  check_as(Failure::usage, line.config_path.empty(), "plan --napkin takes name=value arguments, not a file");
  check_as(Failure::usage, line.words.size() <= 1, "plan --napkin takes one topic, then name=value arguments");
  check_as(Failure::usage, !line.words.empty() || line.overrides.empty(),
           "plan --napkin takes arguments after a topic only: {} plan --napkin TOPIC name=value", program_name());
  const std::vector<NapkinAnswer> answers =
      line.words.empty() ? napkin_table(open_meta) : std::vector<NapkinAnswer>{napkin(line.words[0], line.overrides, open_meta)};
  if (line.json) {
    JsonWriter j(true);
    j.begin_object().key("answers").begin_array();
    for (const NapkinAnswer& answer : answers) write_napkin(j, answer);
    j.end_array().end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return 0;
  }
  for (const NapkinAnswer& answer : answers) std::fputs((to_text(answer) + "\n").c_str(), stdout);
  if (line.words.empty()) print_topics();
  return 0;
}
}  // namespace reckon
