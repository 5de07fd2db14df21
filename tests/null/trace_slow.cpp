// The trace of every preset at its own width: whole up to 200 million parameters, else with two layers and a small vocabulary.
#include "reckon/base/text.h"
#include "reckon/train/report.h"
#include "tests/null/trace.h"

namespace trace {
namespace {
constexpr int64_t kWholeUpTo = 200'000'000;

class SlowPresets : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> sizes(const std::string& name) {
  if (parameter_count(model_preset(name)) <= kWholeUpTo) return {};
  return {"model.layers=2", "model.vocab=1024"};
}

// The 8B and 70B widths have gigabytes in two layers alone: sgd has no state, so that the real run fits a common machine.
Config widest_that_fits(const std::string& name, std::vector<std::string> overrides) {
  overrides.insert(overrides.begin(), "train.seq_len=8");
  if (model_preset(name).d_model >= 4096) overrides.push_back("optim.name=sgd");
  const Config config = preset(name, overrides);
  const int64_t needed = run(config, Mode::meta).ledger.extent;
  if (needed < available_memory_bytes()) return config;
  overrides.push_back("model.d_ff=1024");
  std::printf("%s needs %s, more than this machine has: running it with model.d_ff=1024\n", name.c_str(), human_bytes(needed).c_str());
  return preset(name, overrides);
}

TEST_P(SlowPresets, meta_is_real) {
  std::vector<std::vector<std::string>> variants = {{}, {"train.precision=bf16", "train.grad_accum=3", "train.recompute=full"}};
  if (model_preset(GetParam()).d_model >= 8192) variants.pop_back();
  for (std::vector<std::string> overrides : variants) {
    SCOPED_TRACE(overrides.empty() ? "defaults" : overrides[0]);
    const std::vector<std::string> cut = sizes(GetParam());
    overrides.insert(overrides.end(), cut.begin(), cut.end());
    expect_meta_is_real(widest_that_fits(GetParam(), overrides));
  }
}
INSTANTIATE_TEST_SUITE_P(All, SlowPresets, ::testing::ValuesIn(all_presets()), test_name);
}  // namespace
}  // namespace trace
