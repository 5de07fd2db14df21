// A machine's profile comes back as it was written; a damaged, old or foreign one is none.
#include "reckon/train/machine.h"

#include <stdlib.h>

#include "reckon/io/files.h"
#include "tests/train/small_runs.h"

namespace reckon {
namespace {
MachineProfile profile_of(const std::string& cpu) {
  MachineProfile p{
      .cpu = cpu, .lanes = 2, .f32_flops_per_second = 2.5e11, .bf16_flops_per_second = 1.0 / 3e-12, .copy_bytes_per_second = 5e10};
  p.tables = {{"add f32", {{1024.5, 4096.5}}, {1e-6, 3.3e-6}},
              {"linear bf16", {{8, 32}, {16}, {16, 64, 192}}, {1e-6, 2e-6, 3e-6, 4e-6, 5e-6, 0.1}}};
  p.call_factor = 1.013;
  p.call_overhead_seconds = 1.2e-6;
  return p;
}

// A cache folder of its own for one test.
class MachineProfiles : public testing::Test {
 protected:
  MachineProfiles() { setenv("RECKON_CACHE", (folder_ / "cache").c_str(), 1); }
  ~MachineProfiles() override { unsetenv("RECKON_CACHE"); }
  std::string file() const { return folder_ / "cache/cpu.json"; }
  small::Folder folder_;
};

TEST_F(MachineProfiles, ComeBackAsTheyWereSaved) {
  EXPECT_FALSE(load_machine_profile(2));
  const MachineProfile p = profile_of(local_cpu_name());
  save_machine_profile(p);
  const std::optional<MachineProfile> loaded = load_machine_profile(2);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(*loaded, p);
  EXPECT_FALSE(load_machine_profile(3)) << "measured with other lanes";
  save_machine_profile(profile_of("another CPU"));
  EXPECT_FALSE(load_machine_profile(2));
}

TEST_F(MachineProfiles, AreNoneWhenDamagedOrOld) {
  const std::string whole = write_machine_profile(profile_of(local_cpu_name()));
  make_directories(folder_ / "cache");
  const auto expect_none = [&](const std::string& contents) {
    write_file(file(), contents);
    EXPECT_FALSE(load_machine_profile(2)) << contents;
  };
  for (size_t length = 0; length + 2 < whole.size(); length += 7) expect_none(whole.substr(0, length));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string contents = whole;
    const size_t at = contents.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return contents.replace(at, from.size(), to);
  };
  expect_none(changed("\"version\":2", "\"version\":1"));
  expect_none(changed("\"version\":2,", ""));  // as the first version, which had none
  expect_none(changed("[1024.5,", "[5000.5,"));    // an axis that falls
  expect_none(changed("[[1024.5,4096.5]]", "[]"));
  expect_none(changed("[[1024.5,4096.5]]", "[[]]"));
  expect_none(changed("0.1]", "0.1,0.2]"));  // a value without a point
  expect_none(changed("0.1]", "-0.1]"));
  expect_none(changed("0.1]", "null]"));
  expect_none(changed("1.013", "0"));
  write_file(file(), whole);
  EXPECT_TRUE(load_machine_profile(2));
}

TEST_F(MachineProfiles, SayWhereTheyAreDamaged) {
  try {
    read_machine_profile("{\"version\": 2, \"cpu\": \"x\", \"lanes\": 0}", "cpu.json");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::corrupt);
    EXPECT_NE(std::string(error.what()).find("lanes"), std::string::npos) << error.what();
  }
}
}  // namespace
}  // namespace reckon
