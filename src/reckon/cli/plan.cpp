// cli/plan: reckon plan --napkin [TOPIC] [name=value ...].
#include "reckon/base/error.h"
#include "reckon/base/program.h"
#include "reckon/cli/command.h"

namespace reckon {
int run_plan(const CommandLine& line) {
  check_as(Failure::usage, line.napkin, "plan answers questions only: {} plan --napkin", program_name());
  return run_plan_napkin(line);
}
}  // namespace reckon
