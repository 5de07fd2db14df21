// Batches: what a sample holds depends on the seed and its number, and on nothing that happened before.
#include "reckon/data/batches.h"

#include <cmath>
#include <map>
#include <numeric>

#include "tests/data/scratch.h"

using namespace reckon;
using Order = Batches::Order;

namespace {
// Token i of the file is id i: a sample's tokens tell where it starts.
Ref<Dataset> counting(const Scratch& s, int64_t tokens, double validation_fraction = 0) {
  const std::string path = s.path + "/count.npy";
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  std::iota(ids.begin(), ids.end(), 0);
  TokenFileWriter writer(path, tokens);
  writer.append(ids);
  writer.finish();
  return Dataset::open({.path = path, .validation_fraction = validation_fraction, .model_vocab = 1000});
}
}  // namespace

TEST(Batches, TargetsAreTheNextTokens) {
  Scratch s;
  const Batches batches(counting(s, 100), DataSplit::train, 8, Order::random, 1);
  std::vector<int32_t> inputs(24), targets(24);
  batches.fill(5, inputs, targets);
  for (size_t row = 0; row < 3; ++row) {
    EXPECT_EQ(inputs[row * 8], batches.start(5 + int64_t(row)));
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(inputs[row * 8 + i], inputs[row * 8] + int32_t(i));
      EXPECT_EQ(targets[row * 8 + i], inputs[row * 8 + i] + 1);
    }
  }
  std::vector<int32_t> one(8), next(8);
  batches.fill(6, one, next);  // the same sample alone
  EXPECT_TRUE(std::equal(one.begin(), one.end(), inputs.begin() + 8));
  EXPECT_THROW(batches.fill(0, std::span(inputs).first(7), std::span(targets).first(7)), Error);
  EXPECT_THROW(batches.fill(0, inputs, std::span(targets).first(8)), Error);
  EXPECT_THROW(batches.fill(-1, inputs, targets), Error);
}

TEST(Batches, SequentialWindowsWrapAround) {
  Scratch s;
  const Batches batches(counting(s, 26), DataSplit::train, 8, Order::sequential, 1);
  EXPECT_EQ(batches.samples(), 3);  // 25 inputs have a target; 24 of them fill windows
  for (int64_t sample : {0, 1, 2}) EXPECT_EQ(batches.start(sample), 8 * sample);
  EXPECT_EQ(batches.start(3), 0);
  EXPECT_EQ(batches.start(3000001), 8);
  std::vector<int32_t> inputs(32), targets(32);
  batches.fill(1, inputs, targets);
  EXPECT_EQ(targets[15], 24);
  EXPECT_EQ(inputs[16], 0);
}

TEST(Batches, RandomStartsAreUniformAndReachBothEnds) {
  Scratch s;
  const Ref<Dataset> data = counting(s, 30);
  const Batches batches(data, DataSplit::train, 9, Order::random, 42);
  EXPECT_EQ(batches.samples(), 21);
  const int draws = 21000;
  std::map<int64_t, int> counts;
  for (int64_t sample = 0; sample < draws; ++sample) ++counts[batches.start(sample)];
  EXPECT_EQ(counts.begin()->first, 0);
  EXPECT_EQ(counts.rbegin()->first, 20);
  double chi = 0;
  for (const auto& [start, count] : counts) chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi, 20 + 5 * std::sqrt(2 * 20.0));  // chi-squared with 20 degrees of freedom, five standard deviations
  int same = 0;
  const Batches other(data, DataSplit::train, 9, Order::random, 43);
  for (int64_t sample = 0; sample < draws; ++sample) same += batches.start(sample) == other.start(sample);
  EXPECT_NEAR(same, draws / 21.0, 5 * std::sqrt(draws / 21.0));
  // Pinned: a resumed run of a later version must see the same data.
  EXPECT_EQ((std::vector<int64_t>{batches.start(0), batches.start(1), batches.start(1000000000000)}), (std::vector<int64_t>{10, 3, 16}));
}

TEST(Batches, StayWithinTheirSplit) {
  Scratch s;
  const Ref<Dataset> data = counting(s, 100, 0.2);
  std::vector<int32_t> inputs(10), targets(10);
  for (int64_t sample = 0; sample < 500; ++sample) {
    Batches(data, DataSplit::validation, 10, Order::random, 1).fill(sample, inputs, targets);
    ASSERT_GE(inputs[0], 80);
    Batches(data, DataSplit::train, 10, Order::random, 1).fill(sample, inputs, targets);
    ASSERT_LT(targets[9], 80);
  }
}

TEST(Batches, ExactlyOneSequenceIsEnough) {
  Scratch s;
  const Ref<Dataset> data = counting(s, 9);
  for (Order order : {Order::random, Order::sequential}) {
    const Batches batches(data, DataSplit::train, 8, order, 3);
    EXPECT_EQ(batches.samples(), 1);
    EXPECT_EQ(batches.start(17), 0);
    EXPECT_TRUE(
        contains(error_of(Failure::usage, [&] { Batches(data, DataSplit::train, 9, order, 3); }), "needs at least 10 (seq_len + 1)"));
    EXPECT_NE(error_of(Failure::usage, [&] { Batches(data, DataSplit::train, 0, order, 3); }), "");
    EXPECT_NE(error_of(Failure::usage, [&] { Batches(data, DataSplit::train, INT64_MAX, order, 3); }), "");
  }
}
