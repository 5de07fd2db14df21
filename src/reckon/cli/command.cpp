#include "reckon/cli/command.h"

#include "reckon/base/error.h"
#include "reckon/base/program.h"
#include "reckon/base/text.h"
#include "reckon/io/files.h"

namespace reckon {

bool CommandLine::overrides_key(std::string_view key) const {
  for (const std::string& o : overrides)
    if (o.size() > key.size() && o.starts_with(key) && o[key.size()] == '=') return true;
  return false;
}

Config CommandLine::run_named() const {
  std::vector<std::string> named;
  for (const std::string& o : overrides)
    if (o.starts_with("run.dir=") || o.starts_with("seed=")) named.push_back(o);
  return load_config(config_path, named);
}

void CommandLine::no_words() const {
  if (words.empty()) return;
  const std::string& word = words[0];
  check_as(Failure::usage, first_word_means.empty(), "'{}' is a key without a value: write {}=VALUE", printable_line(word),
           first_word_means.empty() ? "" : first_word_means[0]);
  std::string hint;
  if (path_exists(word)) hint = text("; write {}", shell_word((is_directory(word) ? "run.dir=" : "data.path=") + word));
  fail_as(Failure::usage, "unexpected argument '{}': {} takes CONFIG.toml, key.path=value and flags{}", printable_line(word), command,
          printable_line(hint));
}
}  // namespace reckon
