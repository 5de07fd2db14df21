// The table of accelerators: every number has its document, dense peaks are dense, names are found or refused, never guessed.
#include "reckon/plan/device_profiles.h"

#include <gtest/gtest.h>

#include <set>

#include "reckon/base/error.h"

namespace reckon {
namespace {
std::string refusal(std::string_view name) {
  try {
    find_profile(name);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage);
    return error.what();
  }
  ADD_FAILURE() << name << " was found";
  return "";
}

TEST(DeviceProfiles, EveryNumberHasItsDocument) {
  EXPECT_GE(hardware_profiles().size(), 18u);
  std::set<std::string> names;
  for (const HardwareProfile& p : hardware_profiles()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name << " twice";
    std::vector<ProfileValue> values{p.memory, p.bandwidth, p.tdp, p.pcie};
    for (const auto& peak : p.peaks)
      if (peak) values.push_back(*peak);
    if (p.link) values.push_back(*p.link);
    EXPECT_GE(values.size(), 6u) << p.name;
    for (const ProfileValue& v : values) {
      EXPECT_GT(v.value, 0) << p.name;
      ASSERT_NE(v.source, nullptr) << p.name;
      EXPECT_GT(std::string_view(v.source->document).size(), 10u) << p.name;
      EXPECT_TRUE(std::string_view(v.source->url).starts_with("https://")) << p.name;
      const std::string_view unit = v.unit;
      const double base = unit == "TFLOP/s" ? 1e12 : unit == "W" ? 1 : 1e9;
      EXPECT_DOUBLE_EQ(v.value, v.printed * base / (v.printed_for_sparse ? 2 : 1)) << p.name << " " << unit;
    }
  }
}

// The bf16 peaks that torchtitan, nanochat and llm.c divide by, which are dense: a sparse number in our table would be twice that.
TEST(DeviceProfiles, DensePeaksAreThoseThatTrainersUse) {
  const std::pair<const char*, double> known[] = {{"a100-sxm-40gb", 312},  {"a100-sxm-80gb", 312}, {"a100-pcie-40gb", 312},
                                                  {"a100-pcie-80gb", 312}, {"h100-sxm", 989},      {"h100-pcie", 756},
                                                  {"h200-sxm", 989},       {"b200", 2250},         {"l4", 121},
                                                  {"l40s", 362},           {"a10", 125},           {"rtx-3090", 71},
                                                  {"rtx-4090", 165.2},     {"rtx-5090", 209.5},    {"mi250x", 383},
                                                  {"mi300x", 1307.4}};
  std::set<std::string> checked;
  for (const auto& [name, tflops] : known) {
    EXPECT_NEAR(find_profile(name).peak(PeakType::bf16) / 1e12, tflops, tflops * 1e-3) << name;  // they print three digits
    checked.insert(name);
  }
  for (const HardwareProfile& p : hardware_profiles())
    EXPECT_EQ(p.peaks[size_t(PeakType::bf16)].has_value(), checked.count(p.name) == 1)
        << p.name << " has a bf16 peak that no other table confirms";
  EXPECT_DOUBLE_EQ(find_profile("h100-sxm").peak(PeakType::bf16), 989.5e12);
  EXPECT_DOUBLE_EQ(find_profile("h100-sxm").peak(PeakType::fp32), 67e12);
  EXPECT_DOUBLE_EQ(find_profile("a100-sxm-80gb").peak(PeakType::fp32), 19.5e12);
}

// Narrower types are at most twice as fast a step down, so one sparse row among dense ones shows.
TEST(DeviceProfiles, TypesOfOneDeviceAgree) {
  for (const HardwareProfile& p : hardware_profiles()) {
    const auto peak = [&](PeakType type) { return p.peaks[size_t(type)] ? p.peaks[size_t(type)]->value : 0.0; };
    const double half = peak(PeakType::fp16);
    ASSERT_GT(half, 0) << p.name;
    const auto expect = [&](PeakType type, double ratio) {
      if (peak(type) == 0) return;
      EXPECT_NEAR(peak(type) / half, ratio, 0.05 * ratio) << p.name << " " << name_of(type);
    };
    expect(PeakType::bf16, 1);
    expect(PeakType::tf32, 0.5);
    expect(PeakType::fp8, 2);
    // Consumer cards halve the rate of 16-bit products that are summed in float32; the MI250X has no faster int8.
    expect(PeakType::int8, p.name.starts_with("rtx") ? 4 : p.name == "mi250x" ? 1 : 2);
    EXPECT_LT(peak(PeakType::fp32), half) << p.name;
  }
}

TEST(DeviceProfiles, NamesAreFoundWhateverTheirCase) {
  for (const char* name : {"h100-sxm", "H100 SXM", "h100_sxm5", "NVIDIA H100 80GB HBM3", "H100-SXM-80GB"})
    EXPECT_EQ(find_profile(name).name, "h100-sxm") << name;
  EXPECT_EQ(find_profile("NVIDIA GeForce RTX 4090").name, "rtx-4090");
  EXPECT_EQ(find_profile("Tesla T4").name, "t4");
  EXPECT_EQ(find_profile("mi300x").name, "mi300x");
  for (const HardwareProfile& p : hardware_profiles()) {
    EXPECT_EQ(&find_profile(p.name), &p);
    for (const std::string& alias : p.aliases) EXPECT_EQ(&find_profile(alias), &p) << alias;
  }
}

TEST(DeviceProfiles, UnknownNamesAreRefused) {
  EXPECT_NE(refusal("h100").find("one of several: h100-sxm, h100-pcie"), std::string::npos) << refusal("h100");
  EXPECT_NE(refusal("a100").find("a100-sxm-40gb, a100-sxm-80gb"), std::string::npos);
  EXPECT_NE(refusal("h100-sxn").find("did you mean 'h100-sxm'"), std::string::npos);
  EXPECT_NE(refusal("mi300").find("did you mean 'mi300x'"), std::string::npos);
  EXPECT_NE(refusal("abacus").find("known: a100-sxm-40gb"), std::string::npos);
  EXPECT_NE(refusal("").find("unknown device profile"), std::string::npos);
  EXPECT_NE(refusal("x\n\x1b").find("\\n"), std::string::npos);
}

TEST(DeviceProfiles, TypesWithoutAPeakAreRefused) {
  try {
    find_profile("v100-sxm2-32gb").peak(PeakType::bf16);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage);
    EXPECT_NE(std::string_view(error.what()).find("it has fp32, fp16"), std::string_view::npos) << error.what();
  }
}

TEST(DeviceProfiles, TypeNames) {
  EXPECT_EQ(peak_type("bfloat16"), PeakType::bf16);
  EXPECT_EQ(peak_type("FP32"), PeakType::fp32);
  EXPECT_EQ(peak_type("f16"), PeakType::fp16);
  EXPECT_EQ(peak_type("fp64"), std::nullopt);
  for (int i = 0; i < kPeakTypes; ++i) EXPECT_EQ(peak_type(name_of(PeakType(i))), PeakType(i));
  EXPECT_EQ(operand_bytes(PeakType::tf32), 4);
  EXPECT_EQ(operand_bytes(PeakType::bf16), 2);
  EXPECT_EQ(operand_bytes(PeakType::fp8), 1);
}
}  // namespace
}  // namespace reckon
