// cli/flags: the flags of a command: added with limits that are told in words, read, explained. Knows no command by name.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace reckon {

/// --flag, without a value.
void add_switch(CLI::App& app, const char* flag, bool& field, const char* help);
/// --flag VALUE. What is not in [least, most] is an Error (usage) of one line when the flags are read: flag, range, value. `name` stands
/// for the value in the help, which should name the default.
void add_integer(CLI::App& app, const char* flag, int64_t& field, int64_t least, int64_t most, const char* name, const char* help);
void add_number(CLI::App& app, const char* flag, double& field, double low, double high, const char* name, const char* help);
void add_text(CLI::App& app, const char* flag, std::string& field, const char* name, const char* help);

/// Reads the arguments: flags go to their fields, everything else to `words`. Returns those that look like flags and are none of the app's,
/// each as it stands. Throws Error (usage) for values that do not fit. Sets `help` and reads no further if --help or -h is among them.
std::vector<std::string> read_flags(CLI::App& app, const std::vector<std::string>& arguments, std::vector<std::string>& words, bool& help);
/// "--json", "--threads", ...: the flags of the app.
std::vector<std::string> flag_names(const CLI::App& app);
/// A line for each flag: "  --threads N    Threads to use (default: all cores)".
std::string flags_help(const CLI::App& app);

/// "  name   text", the text wrapped at 110 columns and indented to `column`.
std::string help_line(const std::string& name, const std::string& text, size_t column = 28);
}  // namespace reckon
