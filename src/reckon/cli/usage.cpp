#include "reckon/cli/usage.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/program.h"
#include "reckon/base/text.h"
#include "reckon/cli/flags.h"

namespace reckon {
namespace {
// Commands that only the launcher has; a typing error may mean them.
constexpr const char* kLauncherCommands[] = {"demo", "test", "build", "install"};

std::string first_word(const CommandRow& row) {
  const std::string_view name = row.name;
  return std::string(name.substr(0, name.find(' ')));
}
std::string second_word(const CommandRow& row) {
  const std::string_view name = row.name;
  const size_t space = name.find(' ');
  return space == name.npos ? "" : std::string(name.substr(space + 1));
}

// "optim.*" stands for every key of that table, "*" for all.
bool uses_key(const CommandRow& row, std::string_view key) {
  if (!row.has_keys) return false;
  for (std::string_view rest = row.keys; !rest.empty();) {
    const std::string_view pattern = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), pattern.size() + 1));
    if (pattern.ends_with('*') ? key.starts_with(pattern.substr(0, pattern.size() - 1)) : key == pattern) return true;
  }
  return false;
}

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : std::string(separator)) + word;
  return line;
}

std::string keys_help(const CommandRow& row) {
  std::string help;
  for (const KeyHelp& k : config_keys()) {
    const bool saved = row.of_run && k.key != "run.dir" && k.key != "seed";
    if (uses_key(row, k.key)) help += help_line(k.key + (saved ? "" : "=" + k.default_value), text("{} ({})", k.help, k.type), 34);
  }
  if (help.empty()) return help;
  return (row.of_run ? "\nKeys, as key.path=value; those without a default are as the run was trained:\n"
                     : "\nKeys, as key.path=value or in a TOML file, with their defaults:\n") +
         help;
}

// The word after a flag, if it looks like the flag's value.
std::string value_after(const std::string& flag, const std::vector<std::string>& arguments) {
  const size_t equals = flag.find('=');
  if (equals != flag.npos) return flag.substr(equals + 1);
  const auto at = std::find(arguments.begin(), arguments.end(), flag);
  const bool has_value = at != arguments.end() && at + 1 != arguments.end() && !(at + 1)->starts_with("--");
  return has_value && (at + 1)->find('=') == std::string::npos ? *(at + 1) : "VALUE";
}
}  // namespace

const CommandRow* find_command(CommandTable table, std::vector<std::string>& arguments, bool help) {
  const std::string name = arguments.at(0);
  std::vector<std::string> names, kinds;
  // The second word may stand behind flags. It comes first: a command may have kinds and be one itself, `check` beside `check signals`.
  const auto kind = std::find_if(arguments.begin() + 1, arguments.end(), [](const std::string& word) { return !word.starts_with('-'); });
  for (const CommandRow& row : table) {
    if (kind == arguments.end() || first_word(row) != name || second_word(row) != *kind) continue;
    arguments.erase(kind);
    arguments.erase(arguments.begin());
    return &row;
  }
  for (const CommandRow& row : table) {
    if (name == row.name) {
      arguments.erase(arguments.begin());
      return &row;
    }
    if (names.empty() || names.back() != first_word(row)) names.push_back(first_word(row));
    if (name == first_word(row)) kinds.push_back(second_word(row));
  }
  if (kinds.empty()) {
    names.push_back("help");
    if (called_by_launcher()) names.insert(names.end(), std::begin(kLauncherCommands), std::end(kLauncherCommands));
    fail_as(Failure::usage, "unknown command '{}'{} ({} help lists them)", printable_line(name), did_you_mean(name, names), program_name());
  }
  if (kind == arguments.end()) {
    check_as(Failure::usage, help, "{} takes one of: {}", name, joined(kinds, ", "));
    return nullptr;
  }
  fail_as(Failure::usage, "unknown {} '{}': it takes one of: {}", name, printable_line(*kind), joined(kinds, ", "));
}

std::string program_help(CommandTable table, const std::string& group) {
  std::string help;
  if (group.empty()) help += "Reckon trains language models and accounts for every byte and every operation.\n\n";
  help += text("usage: {} {} [CONFIG.toml] [key.path=value ...] [--flags]\n\nCommands:\n", program_name(),
               group.empty() ? "COMMAND" : group + " COMMAND");
  for (const CommandRow& row : table)
    if (group.empty() || first_word(row) == group) help += help_line(row.name, row.help, 17);
  help +=
      text("\n{} help {}COMMAND tells a command's flags and keys, with an example.\n", program_name(), group.empty() ? "" : group + " ");
  if (!group.empty()) return help;
  return help +
         "Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 does not fit in memory, 4 corrupt input,\n"
         "130 interrupted (143 by SIGTERM before there was anything to save).\n";
}

std::string example_of(const CommandRow& row) { return program_name() + std::string(row.example).substr(std::string("reckon").size()); }

std::string command_help(const CommandRow& row, const CLI::App& flags) {
  const char* arguments = row.arguments ? row.arguments : "[CONFIG.toml] [key.path=value ...] [--flags]";
  return text("{}\n\nusage: {} {} {}\n\nFlags:\n{}{}\nExample: {}\n", row.help, program_name(), row.name, arguments, flags_help(flags),
              keys_help(row), example_of(row));
}

std::vector<std::string> keys_meant(const CommandRow& row, const std::string& word) {
  std::vector<std::string> keys;
  if (row.has_keys) keys = keys_named(word);
  std::erase_if(keys, [&](const std::string& key) { return !uses_key(row, key); });
  return keys;
}

void fail_unknown_flag(const CommandRow& row, const CLI::App& flags, const std::string& flag, const std::vector<std::string>& arguments,
                       const std::vector<std::string>& owners) {
  const std::string shown = printable_line(flag.substr(0, flag.find('='))), value = printable_line(value_after(flag, arguments));
  const std::string bare = shown.substr(std::min(shown.find_first_not_of('-'), shown.size()));
  std::vector<std::string> writings;
  for (const std::string& key : keys_meant(row, bare)) writings.push_back(shell_word(key + "=" + value));
  if (!writings.empty()) fail_as(Failure::usage, "{} is no flag but a key: write {}", shown, joined(writings, " or "));
  if (!owners.empty()) fail_as(Failure::usage, "{} is no flag of {}; it belongs to {}", shown, row.name, joined(owners, " and "));
  std::string hint = did_you_mean(shown, flag_names(flags));
  const std::string key = hint.empty() && row.has_keys ? nearest_key(bare) : "";
  if (!key.empty() && uses_key(row, key)) hint = text(", did you mean '{}={}'?", key, value);
  fail_as(Failure::usage, "unknown flag '{}'{} ({} help {} lists the flags)", shown, hint, program_name(), row.name);
}
}  // namespace reckon
