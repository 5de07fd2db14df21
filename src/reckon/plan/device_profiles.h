// plan/device_profiles: named accelerators and what their documents promise: dense peaks, memory, links, power. Nothing here was measured;
// an unknown name is an error, never a guess.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// What a multiplier works on; the sum of 16- and 8-bit products is kept in float32 (int8: in int32).
enum class PeakType : uint8_t { fp32, tf32, bf16, fp16, fp8, int8 };
inline constexpr int kPeakTypes = 6;
/// "fp32", "tf32", "bf16", "fp16", "fp8", "int8".
std::string_view name_of(PeakType type);
/// The type of that name, also as "float32", "f32", "bfloat16", ...; nothing for others.
std::optional<PeakType> peak_type(std::string_view name);
/// Bytes of one operand in memory: tf32 is stored as float32.
int64_t operand_bytes(PeakType type);

/// The document that prints a number.
struct ProfileSource {
  const char* document;
  const char* url;
};

/// One number, in base units (bytes, bytes/s, FLOP/s, W), and where it is printed.
struct ProfileValue {
  double value = 0;
  double printed = 0;               // as the document has it, in its unit
  const char* unit = "";            // of `printed`: "TFLOP/s", "GB", "GB/s", "W"
  bool printed_for_sparse = false;  // the document states the 2:4 sparse rate; `value` is the dense half
  const ProfileSource* source = nullptr;
};

struct HardwareProfile {
  std::string name;     // "h100-sxm"
  std::string product;  // "NVIDIA H100 SXM5 80 GB"
  std::vector<std::string> aliases;
  std::optional<ProfileValue> peaks[kPeakTypes];  // dense FLOP/s (int8: OP/s); nothing where no document has it
  ProfileValue memory, bandwidth, tdp;            // bytes, bytes/s, W
  std::optional<ProfileValue> link;               // NVLink or Infinity Fabric, bytes/s, both directions together
  ProfileValue pcie;                              // bytes/s, both directions together

  /// Dense FLOP/s. Throws Error (usage) naming the types it has if this is not one of them.
  double peak(PeakType type) const;
};

/// Every profile, in the order of the data file.
std::span<const HardwareProfile> hardware_profiles();
/// By name or alias; case and punctuation do not count. Throws Error (usage) for an unknown name, with the nearest or the several that
/// begin so ("h100": which one?).
const HardwareProfile& find_profile(std::string_view name);
}  // namespace reckon
