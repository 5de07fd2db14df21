// Policies of recomputation: how they are written, that they change no bit, and that what they promise to let go is gone.
#include "reckon/train/recompute.h"

#include <gmock/gmock.h>

#include "tests/train/config_check.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
using testing::HasSubstr;
constexpr int64_t kSteps = 3;

RecomputePolicy policy_of(int layers, const Overrides& more) {
  Overrides o = {text("model.layers={}", layers)};
  o.insert(o.end(), more.begin(), more.end());
  return recompute_policy(parse_config("", "test", o));
}
RecomputePolicy listed(int layers, const std::string& list) { return policy_of(layers, {"train.recompute_blocks=" + list}); }

TEST(RecomputePolicy, WordsAreForAllBlocks) {
  EXPECT_EQ(policy_of(3, {}), RecomputePolicy());
  EXPECT_EQ(to_string(policy_of(3, {"train.recompute=selective"})), "selective:3");
  EXPECT_EQ(to_string(policy_of(3, {"train.recompute=full"})), "full:3");
  EXPECT_EQ(policy_of(3, {"train.recompute=full"}).size(), 3u) << "each block on its own";
  EXPECT_THROW(policy_of(3, {"train.recompute=auto"}), Error);
}

TEST(RecomputePolicy, SqrtCutsIntoAboutAsManySegmentsAsTheyHaveBlocks) {
  EXPECT_EQ(to_string(policy_of(1, {"train.recompute=sqrt"})), "full:1");
  EXPECT_EQ(to_string(policy_of(12, {"train.recompute=sqrt"})), "segment:4,segment:4,segment:4");
  EXPECT_EQ(to_string(policy_of(14, {"train.recompute=sqrt"})), "segment:4,segment:4,segment:3,segment:3");
  for (int layers = 1; layers < 90; ++layers) {
    int64_t sum = 0;
    for (const RecomputeRun& run : policy_of(layers, {"train.recompute=sqrt"})) sum += run.blocks;
    EXPECT_EQ(sum, layers);
  }
}

TEST(RecomputePolicy, ListsReadBackAsTheyArePrinted) {
  for (const char* list : {"full:3,none:9", "segment:4,selective:1,segment:7", "none:12", "full:1,selective:1,full:1,segment:8,none:1"})
    EXPECT_EQ(to_string(listed(12, list)), list);
  EXPECT_EQ(to_string(listed(4, "full, full none  selective")), "full:2,none:1,selective:1");
  EXPECT_EQ(listed(4, "segment:1,full:3"), listed(4, "full:4"));
  EXPECT_EQ(to_string(policy_of(2, {"train.recompute=auto", "train.recompute_blocks=full,none"})), "full:1,none:1");
}

std::string refusal_of(const Overrides& overrides) {
  try {
    parse_config("", "test", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage);
    return error.what();
  }
  return "";
}

TEST(RecomputePolicy, MistakesAreOneClearLine) {
  const auto error = [](const std::string& list) { return refusal_of({"model.layers=4", "train.recompute_blocks=" + list}); };
  EXPECT_THAT(error("full:3"), HasSubstr("train.recompute_blocks = \"full:3\" names 3 of the 4 blocks of model.layers"));
  EXPECT_THAT(error("full:3,none:2"), HasSubstr("names more than the 4 blocks"));
  EXPECT_THAT(error("ful:4"), HasSubstr("got \"ful:4\", did you mean 'full'?"));
  for (const char* count : {"0", "-1", "5", "x", "1.5", "", "99999999999999999999"})
    EXPECT_THAT(error(std::string("full:") + count), HasSubstr("must be from 1 to model.layers = 4")) << count;
  EXPECT_THAT(refusal_of({"model.layers=4", "train.recompute=full", "train.recompute_blocks=none:4"}), HasSubstr("exclude each other"));
  EXPECT_THAT(refusal_of({"model.preset=cruncher", "train.recompute_blocks=none:4"}), HasSubstr("the cruncher has none"));
}

// ---- bits
class RecomputeBits : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(RecomputeBits, AreThoseWithoutIt) {
  const auto [model, precision] = GetParam();
  const auto run = [&](const Overrides& more) {
    Overrides o = {text("train.precision={}", precision), "model.layers=3", "train.grad_accum=2",
                   precision == std::string_view("bf16") ? "model.dropout=0.15" : "model.dropout=0"};
    o.insert(o.end(), more.begin(), more.end());
    return trained(config(model, o), kSteps);
  };
  const Trained kept = run({});
  const Overrides modes = {"train.recompute=selective",
                           "train.recompute=full",
                           "train.recompute=sqrt",
                           "train.recompute_blocks=segment:3",
                           "train.recompute_blocks=full,selective,none",
                           "train.recompute_blocks=selective,segment:2"};
  for (const int threads : {1, 2, 5}) {
    const Threads guard(threads);
    for (const std::string& mode : modes) {
      SCOPED_TRACE(text("{} with {} threads", mode, threads));
      const Trained again = run({mode});
      expect_same(kept.state, again.state);
      EXPECT_EQ(kept.losses, again.losses);
      EXPECT_EQ(kept.norms, again.norms);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Models, RecomputeBits,
                         ::testing::Combine(::testing::Values("gpt2", "llama", "qwen"), ::testing::Values("fp32", "bf16", "fp8")));

// A run's file holds what auto chose; nobody wrote it, so nobody has to take it back.
TEST(Recompute, WhatAutoChoseIsForgottenWithWhatItWasMadeFor) {
  const std::string saved = "[model]\nlayers = 3\n[train]\nrecompute = 'auto'\nrecompute_blocks = 'full:1,selective:2'\n";
  const auto blocks = [&](const std::vector<std::string>& arguments) {
    return parse_config(saved, "saved", arguments).train.recompute_blocks;
  };
  for (const char* kept : {"train.stop_after=3", "run.dir=x", "train.steps=9", "checkpoint.every=2", "memory.budget=1MB"})
    EXPECT_EQ(blocks({kept}), "full:1,selective:2") << kept;
  EXPECT_EQ(blocks({}), "full:1,selective:2");
  for (const char* changed : {"train.recompute=full", "train.recompute=auto", "model.layers=4", "train.precision=bf16",
                              "optim.name=adamw8bit", "train.micro_batch=2"})
    EXPECT_EQ(blocks({changed}), "") << changed;
  EXPECT_EQ(blocks({"train.recompute=auto", "train.recompute_blocks=full:3"}), "full:3");
  // What the optimizer keeps for each parameter.
  const auto of_rmsprop = [&](const std::string& optim, const std::string& argument) {
    return parse_config(saved + "[optim]\nname = 'rmsprop'\n" + optim, "saved", std::vector<std::string>{argument}).train.recompute_blocks;
  };
  EXPECT_EQ(of_rmsprop("", "optim.centered=true"), "");
  EXPECT_EQ(of_rmsprop("", "optim.rmsprop_momentum=0.9"), "");
  EXPECT_EQ(of_rmsprop("rmsprop_momentum = 0.5\n", "optim.rmsprop_momentum=0.9"), "full:1,selective:2") << "as many bytes as before";
  EXPECT_EQ(of_rmsprop("centered = true\n", "optim.centered=false"), "");
  EXPECT_EQ(of_rmsprop("", "optim.alpha=0.9"), "full:1,selective:2");
  // What somebody wrote stays, and must go with the rest.
  const std::string written = "[model]\nlayers = 3\n[train]\nrecompute_blocks = 'full:3'\n";
  EXPECT_EQ(parse_config(written, "written", std::vector<std::string>{"memory.budget=1MB"}).train.recompute_blocks, "full:3");
  EXPECT_THROW(parse_config(written, "written", std::vector<std::string>{"model.layers=4"}), Error);
}
}  // namespace
}  // namespace small
