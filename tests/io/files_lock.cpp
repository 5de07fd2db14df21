#include "reckon/io/files_lock.h"

#include <sys/wait.h>
#include <unistd.h>

#include "reckon/base/error.h"
#include "reckon/io/files.h"
#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::Folder;
using scratch::put;

TEST(DirectoryLock, LeavesNothingThatItMade) {
  const Folder folder;
  {
    const DirectoryLock lock(folder / "a/b");
    EXPECT_TRUE(path_exists(folder / "a/b/.lock"));
    expect_error(Failure::failed, "a/b is in use by process ", [&] { DirectoryLock second(folder / "a/b"); });
    EXPECT_TRUE(path_exists(folder / "a/b/.lock")) << "the refused one did not take it away";
  }
  EXPECT_EQ(list_directory(folder.path()).size(), 0u);
  {
    const DirectoryLock lock(folder / "a/b");
    put(folder / "a/kept", "x");
  }
  EXPECT_EQ(list_directory(folder / "a"), std::vector<std::string>{"kept"});
  { const DirectoryLock lock(folder / "a"); }
  EXPECT_EQ(list_directory(folder / "a"), std::vector<std::string>{"kept"}) << "what was there before stays";
}

// A lock whose name was removed and made anew by others must not be held by two: many processes take it in turn and count.
TEST(DirectoryLock, IsHeldByOneAtATime) {
  const Folder folder;
  constexpr int kProcesses = 4, kRounds = 60;
  put(folder / "count", "0");
  for (int p = 0; p < kProcesses; ++p) {
    if (fork() != 0) continue;
    for (int round = 0; round < kRounds;) {
      try {
        const DirectoryLock lock(folder / "x/run");
        const int count = std::stoi(read_file(folder / "count", 100));
        usleep(100);
        put(folder / "count", std::to_string(count + 1));
        ++round;
      } catch (const Error&) {
        usleep(50);
      }
    }
    _exit(0);
  }
  for (int p = 0; p < kProcesses; ++p) {
    int status = 1;
    ::wait(&status);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(read_file(folder / "count", 100), std::to_string(kProcesses * kRounds));
}
