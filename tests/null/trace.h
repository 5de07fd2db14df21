// tests/null: a run on meta and the same run with data must make the same allocations in the same order, and account for the same work.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/error.h"
#include "reckon/engine/context.h"
#include "reckon/train/step.h"

namespace trace {
using namespace reckon;

/// What one device knows of a run.
struct Record {
  std::string hash;
  Ledger ledger;
  std::vector<MeterRow> rows;
  std::vector<AllocationEvent> events;
};

/// Initialization, two optimizer steps and an evaluation.
inline Record run(const Config& config, Mode mode, const DeviceProfile& profile = local_cpu_profile()) {
  const Ref<Device> device = open_cpu(mode, profile);
  device->allocator().record_events(true);
  Meter meter;
  {
    const MeterScope scope(meter);
    TrainStep step(config, *device);
    const SyntheticBatches batches(config.model.vocab, 7);
    for (int64_t i = 0; i < 2; ++i) {
      const TrainStep::Result result = step.run(i, batches);
      EXPECT_TRUE(result.updated) << "step " << i;
    }
    if (!config.model.cruncher) step.evaluate(batches, 2 * config.train.micro_batch - 1);  // the second micro-batch is not full
  }
  const Allocator& allocator = device->allocator();
  return {allocator.trace_hash(), allocator.ledger(), meter.rows(), allocator.events()};
}

inline std::string describe(const AllocationEvent& e) { return to_string(e) + " in '" + module_path(e.module) + "'"; }

/// "" if the sequences are the same, else their first difference.
inline std::string first_difference(const std::vector<AllocationEvent>& meta, const std::vector<AllocationEvent>& real) {
  for (size_t i = 0; i < std::max(meta.size(), real.size()); ++i) {
    const std::string a = i < meta.size() ? describe(meta[i]) : "nothing", b = i < real.size() ? describe(real[i]) : "nothing";
    if (a != b) return text("event {}: meta has {}, real has {}", i, a, b);
  }
  return "";
}

inline void expect_equal(const Record& meta, const Record& real) {
  EXPECT_EQ(meta.hash, real.hash);
  EXPECT_EQ(first_difference(meta.events, real.events), "");
  EXPECT_GT(real.events.size(), 0u);
  EXPECT_EQ(meta.ledger.peak, real.ledger.peak);
  EXPECT_EQ(meta.ledger.extent, real.ledger.extent);
  EXPECT_EQ(meta.ledger.live, 0);
  EXPECT_EQ(real.ledger.live, 0);
  EXPECT_EQ(meta.ledger.allocations, real.ledger.allocations);
  EXPECT_EQ(meta.ledger.at_peak, real.ledger.at_peak);
  EXPECT_EQ(meta.ledger.phase_peak, real.ledger.phase_peak);
  int64_t sum = 0;
  for (const int64_t bytes : real.ledger.at_peak) sum += bytes;
  EXPECT_EQ(sum, real.ledger.peak) << "the categories at the peak must add up to it";
  ASSERT_EQ(meta.rows.size(), real.rows.size());
  for (size_t i = 0; i < real.rows.size(); ++i) {
    const MeterRow &a = meta.rows[i], &b = real.rows[i];
    EXPECT_TRUE(a.phase == b.phase && a.module == b.module && std::string(a.op) == b.op && a.recomputed == b.recomputed && a.calls == b.calls &&
                a.flops == b.flops && a.bytes == b.bytes)
        << "row " << i << ": " << a.op << " in '" << module_path(a.module) << "', " << b.op << " in '" << module_path(b.module) << "'";
  }
}

inline void expect_meta_is_real(const Config& config) { expect_equal(run(config, Mode::meta), run(config, Mode::real)); }

/// A preset with sizes of a quick run.
inline Config preset(const std::string& name, std::vector<std::string> overrides = {}) {
  overrides.insert(overrides.begin(), {"model.preset=" + name, "train.micro_batch=1", "train.seq_len=16"});
  return parse_config("", "test", overrides);
}

/// The preset's name as a test's: letters, digits and underscores.
inline std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}
inline std::vector<std::string> all_presets() { return {model_preset_names().begin(), model_preset_names().end()}; }
}  // namespace trace
