// cli/report: reckon report [run.dir=DIR] writes the report of a run again; reckon report [CONFIG.toml] [key=value ...] --out FILE that of
// a plan that nobody has run.
#include "reckon/report/report.h"

#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/cli/command.h"
#include "reckon/io/files.h"
#include "reckon/io/json.h"

namespace reckon {
int run_report(const CommandLine& line) {
  line.no_words();
  const Ref<Device> meta = open_cpu(Mode::meta);
  std::string html = line.out, trace;
  if (html.empty()) {
    const std::string run_dir = line.run_named().run_dir, saved = join_path(run_dir, "config.toml");
    check_as(Failure::usage, path_exists(saved),
             "run.dir {} holds no run (no config.toml): name one with run.dir=DIR, or write the report of a plan with --out FILE.html",
             run_dir);
    check_as(Failure::usage, line.config_path.empty() && line.overrides.size() <= (line.overrides_key("run.dir") ? 1 : 0),
             "a run's report is of the configuration it has: leave other keys out, or write the report of a plan with --out FILE.html");
    Config config = load_config(saved, {});
    config.run_dir = run_dir;
    write_run_report(config, *meta, {});
    html = join_path(run_dir, "report.html");
    trace = join_path(run_dir, "trace.json");
  } else {
    trace = write_plan_report(line.config(), *meta, html);
  }
  if (line.json) {
    JsonWriter j(true);
    j.begin_object().key("report").string(html).key("trace").string(trace).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
  } else {
    std::printf("wrote %s and %s\n", html.c_str(), trace.c_str());
  }
  return 0;
}
}  // namespace reckon
