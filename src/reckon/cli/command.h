// cli/command: what every command is given, and the commands themselves. One file a command.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "reckon/train/config.h"

namespace reckon {

/// The command line, parsed: COMMAND [CONFIG.toml] [key.path=value ...] [--flags].
struct CommandLine {
  std::string command;                        // its name in the table, two words for some
  std::vector<std::string> words;             // positional arguments that are neither a configuration nor an override
  std::vector<std::string> first_word_means;  // keys that the first of them may be the name of
  std::string config_path;                    // "" if none was given
  std::vector<std::string> overrides;         // key.path=value
  bool json = false, resume = false, overwrite = false, profile = false;
  // plan
  bool napkin = false;                // answer questions, not a configuration
  std::string fit, why, compare, on;  // "" if not given
  int64_t threads = 0;                // 0: all cores
  // generate
  std::string prompt;
  int64_t tokens = 200;
  double temperature = 0.8, top_p = 1.0;
  int64_t top_k = 0;
  // eval, bench
  int64_t batches = 0;  // 0: the command's default
  std::string out;      // tokenize, report: the file to write
  std::string layer;    // check signals: IN,OUT

  Config config() const { return load_config(config_path, overrides); }
  /// run.dir and seed alone: the other overrides are meant for the configuration saved there and may not fit the defaults.
  Config run_named() const;
  /// True if an override names this key.
  bool overrides_key(std::string_view key) const;
  /// Throws Error (usage) if there are words left over.
  void no_words() const;
};

int run_train(const CommandLine& line);
int run_eval(const CommandLine& line);
int run_generate(const CommandLine& line);
int run_tokenize(const CommandLine& line);
int run_report(const CommandLine& line);
int run_inspect(const CommandLine& line);
int run_bench_train(const CommandLine& line);
int run_bench_device(const CommandLine& line);
int run_bench_ops(const CommandLine& line);
int run_check(const CommandLine& line);
int run_check_signals(const CommandLine& line);
int run_plan(const CommandLine& line);
int run_plan_napkin(const CommandLine& line);
}  // namespace reckon
