#include "reckon/plan/device_profiles.h"

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr std::string_view kPeakNames[kPeakTypes] = {"fp32", "tf32", "bf16", "fp16", "fp8", "int8"};

enum Source {
#define SOURCE(id, document, url) id,
#define PROFILE(name, product)
#define ALIAS(text)
#define PEAK(type, value, dense_or_sparse, source)
#define MEMORY(value, source)
#define BANDWIDTH(value, source)
#define NVLINK(value, source)
#define PCIE(value, source)
#define TDP(value, source)
#include "reckon/plan/device_profiles.def"
#undef SOURCE
};
constexpr ProfileSource kSources[] = {
#define SOURCE(id, document, url) {document, url},
#include "reckon/plan/device_profiles.def"
#undef SOURCE
#undef PROFILE
#undef ALIAS
#undef PEAK
#undef MEMORY
#undef BANDWIDTH
#undef NVLINK
#undef PCIE
#undef TDP
};

// One line of the data file.
struct Row {
  enum Kind : uint8_t { profile, alias, peak, memory, bandwidth, nvlink, pcie, tdp } kind;
  const char* first = "";
  const char* second = "";
  PeakType type = PeakType::fp32;
  double value = 0;
  bool sparse = false;
  Source source = Source(0);
};
constexpr bool dense = false, sparse = true;
constexpr Row kRows[] = {
#define SOURCE(id, document, url)
#define PROFILE(name, product) {Row::profile, name, product},
#define ALIAS(text) {Row::alias, text},
#define PEAK(type, value, dense_or_sparse, source) {Row::peak, "", "", PeakType::type, value, dense_or_sparse, source},
#define MEMORY(value, source) {Row::memory, "", "", PeakType::fp32, value, false, source},
#define BANDWIDTH(value, source) {Row::bandwidth, "", "", PeakType::fp32, value, false, source},
#define NVLINK(value, source) {Row::nvlink, "", "", PeakType::fp32, value, false, source},
#define PCIE(value, source) {Row::pcie, "", "", PeakType::fp32, value, false, source},
#define TDP(value, source) {Row::tdp, "", "", PeakType::fp32, value, false, source},
#include "reckon/plan/device_profiles.def"
};

ProfileValue value_of(const Row& row, double unit_in_base, const char* unit) {
  return {row.value * unit_in_base / (row.sparse ? 2 : 1), row.value, unit, row.sparse, &kSources[row.source]};
}

std::vector<HardwareProfile> read_rows() {
  std::vector<HardwareProfile> all;
  for (const Row& row : kRows) {
    if (row.kind == Row::profile) {
      all.emplace_back();
      all.back().name = row.first;
      all.back().product = row.second;
      continue;
    }
    HardwareProfile& p = all.back();
    switch (row.kind) {
      case Row::profile:
        break;
      case Row::alias:
        p.aliases.emplace_back(row.first);
        break;
      case Row::peak:
        p.peaks[size_t(row.type)] = value_of(row, 1e12, "TFLOP/s");
        break;
      case Row::memory:
        p.memory = value_of(row, 1e9, "GB");
        break;
      case Row::bandwidth:
        p.bandwidth = value_of(row, 1e9, "GB/s");
        break;
      case Row::nvlink:
        p.link = value_of(row, 1e9, "GB/s");
        break;
      case Row::pcie:
        p.pcie = value_of(row, 1e9, "GB/s");
        break;
      case Row::tdp:
        p.tdp = value_of(row, 1, "W");
        break;
    }
  }
  return all;
}

// Letters and digits only, lower case: "H100 SXM" and "h100_sxm" are one name.
std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c >= 'A' && c <= 'Z') out += char(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) out += c;
  }
  return out;
}

std::string joined(std::span<const std::string> words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}
}  // namespace

std::string_view name_of(PeakType type) { return kPeakNames[size_t(type)]; }

std::optional<PeakType> peak_type(std::string_view name) {
  static constexpr std::pair<std::string_view, PeakType> kWords[] = {
      {"float32", PeakType::fp32}, {"f32", PeakType::fp32},  {"bfloat16", PeakType::bf16}, {"float16", PeakType::fp16},
      {"f16", PeakType::fp16},     {"half", PeakType::fp16}, {"f8", PeakType::fp8},        {"i8", PeakType::int8}};
  const std::string word = plain(name);
  for (int i = 0; i < kPeakTypes; ++i)
    if (word == kPeakNames[i]) return PeakType(i);
  for (const auto& [known, type] : kWords)
    if (word == known) return type;
  return std::nullopt;
}

int64_t operand_bytes(PeakType type) {
  switch (type) {
    case PeakType::fp32:
    case PeakType::tf32:
      return 4;
    case PeakType::bf16:
    case PeakType::fp16:
      return 2;
    case PeakType::fp8:
    case PeakType::int8:
      break;
  }
  return 1;
}

double HardwareProfile::peak(PeakType type) const {
  if (const std::optional<ProfileValue>& p = peaks[size_t(type)]) return p->value;
  std::vector<std::string> has;
  for (int i = 0; i < kPeakTypes; ++i)
    if (peaks[i]) has.emplace_back(kPeakNames[i]);
  fail_as(Failure::usage, "no document gives a {} peak of {}; it has {}", name_of(type), name, joined(has));
}

std::span<const HardwareProfile> hardware_profiles() {
  static const std::vector<HardwareProfile> all = read_rows();
  return all;
}

const HardwareProfile& find_profile(std::string_view name) {
  const std::string wanted = plain(name);
  std::vector<std::string> all, begin_so;
  for (const HardwareProfile& p : hardware_profiles()) {
    if (plain(p.name) == wanted) return p;
    for (const std::string& alias : p.aliases)
      if (plain(alias) == wanted) return p;
    all.push_back(p.name);
    if (!wanted.empty() && plain(p.name).starts_with(wanted)) begin_so.push_back(p.name);
  }
  if (begin_so.size() > 1)
    fail_as(Failure::usage, "device profile '{}' may be one of several: {}", printable_line(name, 60), joined(begin_so));
  if (begin_so.size() == 1)
    fail_as(Failure::usage, "unknown device profile '{}', did you mean '{}'?", printable_line(name, 60), begin_so[0]);
  fail_as(Failure::usage, "unknown device profile '{}'{}; known: {}", printable_line(name, 60), did_you_mean(name, all), joined(all));
}
}  // namespace reckon
