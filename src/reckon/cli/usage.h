// cli/usage: what the program says of itself, and of a command line that it cannot read. Knows the rows of the table of commands, not
// what commands do.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "reckon/cli/command.h"

namespace CLI {
class App;
}

namespace reckon {

struct CommandRow {
  const char* name;  // one word, or two: "bench train" is called as `reckon bench train`
  int (*run)(const CommandLine&);
  bool has_keys;  // takes CONFIG.toml and key.path=value; if not, every word is the command's own
  const char* help;
  const char* example;              // beginning with "reckon "
  const char* keys = "*";           // those it uses, apart by spaces: "run.dir model.*"; for help and hints
  const char* arguments = nullptr;  // what stands after the name in the line of usage; nullptr: CONFIG.toml and keys
  bool of_run = false;              // works on a trained run: keys that nobody names are as saved there, but run.dir and seed
};
using CommandTable = std::span<const CommandRow>;

/// The row that the arguments begin with; its words are taken away from them. nullptr for the first word of two-word commands alone if
/// `help`. Throws Error (usage), naming the nearest, if there is no such command.
const CommandRow* find_command(CommandTable table, std::vector<std::string>& arguments, bool help);

/// All commands, or those of two words that begin with `group`.
std::string program_help(CommandTable table, const std::string& group = "");
/// Usage, flags, the keys that it uses and an example.
std::string command_help(const CommandRow& row, const CLI::App& flags);
/// The example as it can be typed: the program by the name it was called.
std::string example_of(const CommandRow& row);

/// The keys of the row that `word`, a flag's name without dashes or an argument, may mean.
std::vector<std::string> keys_meant(const CommandRow& row, const std::string& word);
/// Throws the Error (usage) for something that looks like a flag and is none of this command: a key if it names one, another command's flag
/// (`owners` are the commands that have it), or unknown with the nearest one. `arguments` are all, for the value that followed.
[[noreturn]] void fail_unknown_flag(const CommandRow& row, const CLI::App& flags, const std::string& flag,
                                    const std::vector<std::string>& arguments, const std::vector<std::string>& owners);
}  // namespace reckon
