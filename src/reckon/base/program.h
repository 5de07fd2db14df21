// base/program: how this program was called, so that hints can be typed as they stand. Knows no command.
#pragma once
#include <string>
#include <string_view>

namespace reckon {
/// The program as the user calls it, ready for a shell: what the launcher said in RECKON_PROGRAM, else what set_program_name was given
/// ("reckon" before that).
std::string program_name();
/// argv[0]; does not displace what the launcher said. Call it before there are threads.
void set_program_name(const char* argv0);
/// True if the launcher, with commands of its own, called.
bool called_by_launcher();

/// The word as a shell takes it: quoted if it holds anything but letters, digits and harmless signs.
std::string shell_word(std::string_view word);
}  // namespace reckon
