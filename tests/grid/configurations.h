// tests/grid: configurations of every kind at tiny size, in a fixed order, so that every pair of values of any two keys occurs.
#pragma once
#include <string>
#include <vector>

#include "reckon/tensor/device.h"
#include "reckon/train/config.h"

namespace grid {
using namespace reckon;

/// One way to run the program: a configuration, and what may change nothing of its plan or its bits.
struct Configuration {
  std::vector<std::string> overrides;
  DeviceProfile profile;
  int threads = 1;
  bool keeps_files = false;

  /// Of a run in this folder, on these token ids.
  Config config(const std::string& folder, const std::string& tokens) const;
  /// As the program's arguments.
  std::string line() const;
};

/// The first `count` of them. The longer the list, the more pairs occur; all do in the first kWhole.
std::vector<Configuration> configurations(size_t count);
inline constexpr size_t kWhole = 1040;

/// Pairs of values that can occur together and do not among the first `count` configurations: "train.seq_len=1 with optim.name=sgd".
std::vector<std::string> missing_pairs(size_t count);

/// Ids in every configuration's token file are below this.
inline constexpr int64_t kTokenIds = 11;
}  // namespace grid
