// In a container the page cache counts as used memory: after reading a few gigabytes of files a run was refused although all of it was
// free.
#include "reckon/train/report.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
TEST(Cgroup, pages_of_files_are_available) {
  const Folder folder;
  const std::string group = folder / "group";
  EXPECT_EQ(cgroup_available_bytes(group), -1);
  std::filesystem::create_directory(group);
  const auto write = [&](const char* name, const char* text) { std::ofstream(group + "/" + name) << text; };
  write("memory.max", "max\n");
  write("memory.current", "900\n");
  EXPECT_EQ(cgroup_available_bytes(group), -1);
  write("memory.max", "1000\n");
  EXPECT_EQ(cgroup_available_bytes(group), 100);
  write("memory.stat", "anon 300\nfile 600\ninactive_anon 1\nactive_file 200\ninactive_file 350\n");
  EXPECT_EQ(cgroup_available_bytes(group), 650);
  write("memory.current", "1600\n");
  EXPECT_EQ(cgroup_available_bytes(group), 0);
}
}  // namespace
}  // namespace small
