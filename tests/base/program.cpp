#include "reckon/base/program.h"

#include <gtest/gtest.h>

#include <cstdlib>

using namespace reckon;

TEST(Program, IsNamedAsItWasCalled) {
  unsetenv("RECKON_PROGRAM");
  unsetenv("RECKON_ARGV0");
  EXPECT_EQ(program_name(), "reckon");
  set_program_name("build/release/reckon");
  EXPECT_EQ(program_name(), "build/release/reckon");
  EXPECT_FALSE(called_by_launcher());
  setenv("RECKON_PROGRAM", "./reckon", 1);
  EXPECT_EQ(program_name(), "./reckon");
  EXPECT_TRUE(called_by_launcher());
  setenv("RECKON_PROGRAM", "/a check out/reckon", 1);
  EXPECT_EQ(program_name(), "'/a check out/reckon'");
  unsetenv("RECKON_PROGRAM");
  set_program_name(nullptr);
  EXPECT_EQ(program_name(), "reckon");
  unsetenv("RECKON_ARGV0");
}

TEST(Program, QuotesWordsForAShell) {
  EXPECT_EQ(shell_word("run.dir=runs/mine"), "run.dir=runs/mine");
  EXPECT_EQ(shell_word("run.dir=my runs"), "'run.dir=my runs'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word("$(x)*"), "'$(x)*'");
  EXPECT_EQ(shell_word(""), "''");
}
