#include "reckon/cli/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr size_t kHelpWidth = 110;

// The whole text as a number, or false. from_chars knows no '+', no spaces and no hexadecimal, which is how a person counts.
template <class T>
bool read_number(const std::string& value, T& number) {
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  return error == std::errc() && end == value.data() + value.size();
}

// Reads the number itself: CLI11 would take 010 for eight, and words its refusals after C++ types.
template <class T>
void add_ranged(CLI::App& app, const char* flag, T& field, T least, T most, const char* expected, const char* name, const char* help) {
  const std::string range = text("{} from {} to {}", expected, least, most);
  const auto assign = [=, &field](const std::string& value) {
    T number{};
    check_as(Failure::usage, read_number(value, number) && number >= least && number <= most, "{} expects {}, got '{}'", flag, range,
             printable_line(value));
    field = number;
  };
  app.add_option_function<std::string>(flag, assign, help)->type_name(range)->option_text(name);
}

// The option that an error message of CLI11 begins with.
const CLI::Option* option_of(const CLI::App& app, const std::string& message) {
  const std::string name = message.substr(0, message.find_first_of(": "));
  return name.empty() ? nullptr : app.get_option_no_throw(name);
}

[[noreturn]] void fail_parse(const CLI::App& app, const CLI::ParseError& error) {
  const std::string message = error.what();
  const size_t override_at = message.find(" was given a disallowed flag override");
  if (override_at != message.npos) fail_as(Failure::usage, "--{} takes no value", message.substr(0, override_at));
  const CLI::Option* option = option_of(app, message);
  if (!option) fail_as(Failure::usage, "{}", message);
  const std::string flag = option->get_name();
  if (message.find(" missing") != message.npos) fail_as(Failure::usage, "{} needs a value: {}", flag, option->get_type_name());
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) fail_as(Failure::usage, "{} was given more than once", flag);
  fail_as(Failure::usage, "{}", message);
}
}  // namespace

void add_switch(CLI::App& app, const char* flag, bool& field, const char* help) {
  app.add_flag(flag, field, help)->disable_flag_override()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void add_integer(CLI::App& app, const char* flag, int64_t& field, int64_t least, int64_t most, const char* name, const char* help) {
  add_ranged(app, flag, field, least, most, "an integer", name, help);
}

void add_number(CLI::App& app, const char* flag, double& field, double low, double high, const char* name, const char* help) {
  add_ranged(app, flag, field, low, high, "a number", name, help);
}

void add_text(CLI::App& app, const char* flag, std::string& field, const char* name, const char* help) {
  app.add_option(flag, field, help)->type_name(name)->option_text(name);
}

std::vector<std::string> read_flags(CLI::App& app, const std::vector<std::string>& arguments, std::vector<std::string>& words, bool& help) {
  app.allow_extras();
  app.add_option("words", words)->group("");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    help = true;
    return {};
  } catch (const CLI::ParseError& error) {
    fail_parse(app, error);
  }
  std::vector<std::string> unknown = app.remaining();
  std::erase(unknown, "--");
  return unknown;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    if (option->nonpositional()) names.push_back(option->get_name());
  return names;
}

std::string flags_help(const CLI::App& app) {
  std::string lines;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional()) continue;
    const std::string value = option->get_option_text();
    lines += help_line(option->get_name(false, true) + (value.empty() ? "" : " " + value), option->get_description());
  }
  return lines;
}

std::string help_line(const std::string& name, const std::string& text, size_t column) {
  std::string lines = "  " + name, word;
  size_t at = lines.size();
  const auto next_line = [&] { lines += "\n" + std::string(column, ' '), at = column; };
  if (at + 1 >= column) {
    next_line();
  } else {
    lines += std::string(column - at, ' '), at = column;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (at > column && at + 1 + end - begin > kHelpWidth) next_line();
    if (at > column) lines += ' ', ++at;
    lines += text.substr(begin, end - begin);
    at += end - begin;
    begin = end + 1;
  }
  return lines + "\n";
}
}  // namespace reckon
