// The allocator: where blocks go, what the ledger says of them, and what the trace remembers. It runs here over offsets without bytes.
#include "reckon/memory/allocator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"

namespace reckon {
namespace {
using testing::HasSubstr;

class Offsets final : public RawMemory {
 public:
  void grow(int64_t bytes) override {
    if (bytes > limit) fail_as(Failure::memory, "the system refuses {} bytes", bytes);
    grown = std::max(grown, bytes);
  }
  std::byte* base() const override { return nullptr; }
  int64_t grown = 0, limit = INT64_MAX;
};

class AllocatorTest : public testing::Test {
 protected:
  Block take(int64_t bytes, Category category = Category::activation, const char* op = "test") {
    return allocator.allocate(bytes, category, 0, op);
  }
  // Blocks of the given sizes, one after another from offset 0.
  std::vector<Block> take_all(std::initializer_list<int64_t> sizes) {
    std::vector<Block> blocks;
    for (const int64_t bytes : sizes) blocks.push_back(take(bytes));
    return blocks;
  }
  const Ledger& ledger() const { return allocator.ledger(); }
  Offsets memory;
  Allocator allocator{memory};
};

template <class F>
Error error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error("");
}

TEST(RoundBlock, RoundsUpToSixtyFourBytes) {
  EXPECT_EQ(round_block(0), 0);
  EXPECT_EQ(round_block(1), 64);
  EXPECT_EQ(round_block(64), 64);
  EXPECT_EQ(round_block(65), 128);
  EXPECT_EQ(round_block(INT64_MAX - 63), INT64_MAX - 63);
  EXPECT_THROW(round_block(INT64_MAX - 62), Error);
  EXPECT_THROW(round_block(-1), Error);
}

TEST_F(AllocatorTest, BlocksAreAlignedAndApart) {
  const auto b = take_all({1, 64, 100});
  EXPECT_EQ(b[0].offset, 0);
  EXPECT_EQ(b[1].offset, 64);
  EXPECT_EQ(b[2].offset, 128);
  EXPECT_EQ(b[2].bytes, 128);
  EXPECT_EQ(b[2].requested, 100);
  EXPECT_EQ(ledger().extent, 256);
  EXPECT_EQ(memory.grown, 256);
}

TEST_F(AllocatorTest, TakesTheSmallestHoleThatFits) {
  const auto b = take_all({256, 64, 128, 64, 192, 64});
  allocator.free(b[0]);
  allocator.free(b[2]);
  allocator.free(b[4]);
  EXPECT_EQ(take(128).offset, b[2].offset) << "exactly";
  EXPECT_EQ(take(100).offset, b[4].offset) << "192 is nearer than 256";
  EXPECT_EQ(take(64).offset, b[4].offset + 128) << "the rest of that hole";
  EXPECT_EQ(take(256).offset, b[0].offset);
  EXPECT_EQ(take(64).offset, 768) << "no hole is left";
}

TEST_F(AllocatorTest, TiesGoToTheLowestOffset) {
  const auto b = take_all({128, 64, 128, 64, 128, 64});
  allocator.free(b[4]);
  allocator.free(b[0]);
  allocator.free(b[2]);
  EXPECT_EQ(take(128).offset, b[0].offset);
  EXPECT_EQ(take(128).offset, b[2].offset);
  EXPECT_EQ(take(128).offset, b[4].offset);
}

TEST_F(AllocatorTest, NeighbouringHolesBecomeOneInAnyOrder) {
  for (const std::array<int, 3>& order : {std::array{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}}) {
    const auto b = take_all({64, 128, 192, 64});
    for (const int i : order) allocator.free(b[size_t(i)]);
    const Block whole = take(384);
    EXPECT_EQ(whole.offset, b[0].offset);
    allocator.free(whole);
    allocator.free(b[3]);
    EXPECT_EQ(ledger().live, 0);
    EXPECT_EQ(ledger().extent, 448);
  }
}

TEST_F(AllocatorTest, AHoleAtTheEndGrowsInsteadOfBeingSkipped) {
  const auto b = take_all({64, 128});
  allocator.free(b[1]);
  EXPECT_EQ(take(256).offset, 64);
  EXPECT_EQ(ledger().extent, 320);
}

TEST_F(AllocatorTest, EmptyBlocksTakeNoPlaceButAreCounted) {
  const auto b = take_all({0, 64, 0, 0});
  EXPECT_EQ(ledger().live, 64);
  EXPECT_EQ(ledger().extent, 64);
  EXPECT_EQ(ledger().allocations, 4);
  EXPECT_EQ(b[3].serial, 3);
  for (const Block& block : b) allocator.free(block);
  EXPECT_EQ(take(64).offset, 0);
}

TEST_F(AllocatorTest, TheLedgerSumsByCategoryAndPhase) {
  allocator.enter_phase(Phase::forward);
  const Block w = take(1000, Category::parameter), a = take(2000, Category::activation);
  allocator.free(a);
  allocator.enter_phase(Phase::backward);
  const Block g = take(500, Category::gradient);
  const Ledger& l = ledger();
  EXPECT_EQ(l.live, 1024 + 512);
  EXPECT_EQ(l.peak, 1024 + 2048);
  EXPECT_EQ(l.live_by_category[size_t(Category::parameter)], 1024);
  EXPECT_EQ(l.live_by_category[size_t(Category::activation)], 0);
  EXPECT_EQ(l.at_peak[size_t(Category::activation)], 2048);
  EXPECT_EQ(l.at_peak[size_t(Category::gradient)], 0);
  EXPECT_EQ(std::accumulate(l.at_peak.begin(), l.at_peak.end(), int64_t(0)), l.peak);
  EXPECT_EQ(l.phase_peak[size_t(Phase::forward)], 3072);
  EXPECT_EQ(l.phase_peak[size_t(Phase::backward)], 1536);
  EXPECT_EQ(l.phase_peak[size_t(Phase::step)], 0);
  allocator.free(w);
  allocator.free(g);
}

TEST_F(AllocatorTest, APhaseStartsWithWhatIsLive) {
  take(1000);
  EXPECT_EQ(ledger().phase_peak[size_t(Phase::step)], 0);
  allocator.enter_phase(Phase::step);
  EXPECT_EQ(ledger().phase_peak[size_t(Phase::step)], 1024);
  allocator.return_to_phase(Phase::eval);
  EXPECT_EQ(allocator.phase(), Phase::eval);
  EXPECT_EQ(ledger().phase_peak[size_t(Phase::eval)], 0) << "going back counts nothing by itself";
}

TEST_F(AllocatorTest, ThePeakIsItsFirstMaximum) {
  const Block a = take(128, Category::activation);
  allocator.free(a);
  take(128, Category::temporary);
  EXPECT_EQ(ledger().at_peak[size_t(Category::activation)], 128);
  EXPECT_EQ(ledger().at_peak[size_t(Category::temporary)], 0);
}

TEST_F(AllocatorTest, ABudgetIsMetExactlyAndNotExceededByAByte) {
  allocator.set_budget(256);
  const Block first = take(128, Category::parameter, "embedding");
  take(128);
  const std::string before = allocator.trace_hash();
  const Error error = error_of([&] { take(1, Category::gradient, "matmul"); });
  EXPECT_EQ(error.kind(), Failure::memory);
  EXPECT_THAT(error.what(), HasSubstr("matmul (gradient) needs 64 B on top of 256 B live; the budget is 256 B"));
  EXPECT_THAT(error.what(), HasSubstr("largest: 128 B parameter of embedding, 128 B activation of test"));
  EXPECT_EQ(allocator.trace_hash(), before) << "a refused request leaves no trace";
  EXPECT_EQ(ledger().live, 256);
  EXPECT_EQ(ledger().allocations, 2);
  allocator.free(first);
  EXPECT_EQ(take(100).offset, 0);
  allocator.set_budget(255 + 64);
  EXPECT_EQ(error_of([&] { take(64); }).kind(), Failure::memory) << "an offset may not pass the budget";
  allocator.set_budget(320);
  take(64);
}

TEST_F(AllocatorTest, ABudgetCountsPlacesNotSums) {
  allocator.set_budget(192);
  const auto b = take_all({64, 64, 64});
  allocator.free(b[0]);
  allocator.free(b[2]);
  EXPECT_EQ(error_of([&] { take(128); }).kind(), Failure::memory) << "128 bytes are free, but not in one place";
}

TEST_F(AllocatorTest, ARefusalOfTheSystemChangesNothing) {
  const auto b = take_all({128, 64});
  allocator.free(b[1]);
  memory.limit = 200;
  EXPECT_EQ(error_of([&] { take(256); }).kind(), Failure::memory);
  EXPECT_EQ(ledger().live, 128);
  EXPECT_EQ(ledger().extent, 192);
  EXPECT_EQ(take(64).offset, 128) << "the hole that would have been extended is still there";
}

TEST_F(AllocatorTest, RequestsBeyondAddressesAreRefused) {
  take(64);
  EXPECT_THROW(take(INT64_MAX - 63), Error);
  EXPECT_THROW(take(INT64_MAX), Error);
  EXPECT_THROW(take(-1), Error);
  EXPECT_EQ(ledger().live, 64);
}

TEST_F(AllocatorTest, TheTraceDependsOnTheCallsNotOnThePlaces) {
  Offsets other_memory;
  Allocator other{other_memory};
  // Here a hole is ready for the block of 64; there it is not.
  const auto run = [](Allocator& a, bool scattered) {
    const Block x = a.allocate(64, Category::data, 0, "x"), y = a.allocate(64, Category::data, 0, "y");
    a.free(scattered ? x : y);
    const Block z = a.allocate(64, Category::activation, 0, "z");
    return std::pair{z.offset, a.trace_hash()};
  };
  const auto [at_a, hash_a] = run(allocator, true);
  const auto [at_b, hash_b] = run(other, true);
  EXPECT_EQ(hash_a, hash_b);
  EXPECT_EQ(hash_a.size(), 16u);
  // Placement apart: a budget, another phase and another module do not enter.
  Offsets third_memory;
  Allocator third{third_memory};
  third.set_budget(1 << 20);
  third.enter_phase(Phase::save);
  EXPECT_EQ(run(third, true).second, hash_a);
  Offsets fourth_memory;
  Allocator fourth{fourth_memory};
  EXPECT_NE(run(fourth, false).second, hash_a) << "another block was freed";
}

TEST_F(AllocatorTest, EveryFieldOfAnEventEntersTheHash) {
  const auto hash_of = [](int64_t bytes, Category category, const char* op, bool freed) {
    Offsets m;
    Allocator a{m};
    const Block b = a.allocate(bytes, category, 0, op);
    if (freed) a.free(b);
    return a.trace_hash();
  };
  const std::string base = hash_of(64, Category::data, "op", false);
  EXPECT_EQ(hash_of(1, Category::data, "op", false), base) << "bytes count rounded";
  EXPECT_NE(hash_of(65, Category::data, "op", false), base);
  EXPECT_NE(hash_of(64, Category::cache, "op", false), base);
  EXPECT_NE(hash_of(64, Category::data, "other", false), base);
  EXPECT_NE(hash_of(64, Category::data, "op", true), base);
}

TEST_F(AllocatorTest, EventsAreKeptOnRequest) {
  take(64);
  allocator.record_events(true);
  const Block b = take(100, Category::gradient, "matmul");
  allocator.free(b);
  allocator.record_events(false);
  take(64);
  ASSERT_EQ(allocator.events().size(), 2u);
  EXPECT_TRUE(allocator.events()[0].is_alloc);
  EXPECT_FALSE(allocator.events()[1].is_alloc);
  EXPECT_EQ(to_string(allocator.events()[0]), "alloc #1 128 B gradient matmul (init)");
}

// ---- against a model that looks at every offset
struct Model {
  std::vector<bool> used;  // one entry a unit of 64 bytes, up to the extent
  int64_t place(int64_t units) {
    int64_t best = -1, best_size = INT64_MAX;
    for (int64_t i = 0; i < int64_t(used.size());) {
      int64_t end = i;
      while (end < int64_t(used.size()) && !used[size_t(end)]) ++end;
      if (end - i >= units && end - i < best_size) best = i, best_size = end - i;
      i = end == i ? i + 1 : end;
    }
    if (best < 0) {
      best = int64_t(used.size());
      while (best > 0 && !used[size_t(best - 1)]) --best;
      used.resize(size_t(best + units));
    }
    mark(best, units, true);
    return best;
  }
  void mark(int64_t at, int64_t units, bool value) { std::fill_n(used.begin() + at, units, value); }
};

TEST_F(AllocatorTest, RandomCallsDoWhatTheModelDoes) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Offsets offsets;
    Allocator tested{offsets};
    Model model;
    std::vector<Block> live;
    int64_t sum = 0, peak = 0;
    for (uint64_t step = 0; step < 2000; ++step) {
      const auto words = philox(seed, 1, step);
      if (live.empty() || words[0] % 100 < (step / 250 % 2 ? 35 : 60)) {
        const int64_t bytes = words[1] % 8 == 0 ? 0 : int64_t(words[2] % (words[1] % 4 ? 600 : 6000));
        const Block b = tested.allocate(bytes, Category(words[3] % kCategories), 0, "random");
        ASSERT_EQ(b.serial, tested.ledger().allocations - 1);
        const int64_t expected = b.bytes > 0 ? model.place(b.bytes / 64) * 64 : 0;
        ASSERT_EQ(b.offset, expected) << "seed " << seed << " step " << step;
        live.push_back(b);
        sum += b.bytes;
      } else {
        const size_t i = words[1] % live.size();
        tested.free(live[i]);
        model.mark(live[i].offset / 64, live[i].bytes / 64, false);
        sum -= live[i].bytes;
        live.erase(live.begin() + long(i));
      }
      peak = std::max(peak, sum);
      const Ledger& l = tested.ledger();
      ASSERT_EQ(l.live, sum);
      ASSERT_EQ(l.peak, peak);
      ASSERT_EQ(l.extent, int64_t(model.used.size()) * 64);
      ASSERT_EQ(std::accumulate(l.live_by_category.begin(), l.live_by_category.end(), int64_t(0)), sum);
      ASSERT_EQ(std::accumulate(l.at_peak.begin(), l.at_peak.end(), int64_t(0)), peak);
    }
    for (const Block& b : live) tested.free(b);
    EXPECT_EQ(tested.ledger().live, 0);
    const int64_t extent = tested.ledger().extent;
    EXPECT_EQ(tested.allocate(extent, Category::data, 0, "all").offset, 0) << "everything that was freed is one hole again";
  }
}

TEST_F(AllocatorTest, FreeingTwiceAborts) {
  const Block b = take(64);
  allocator.free(b);
  EXPECT_DEATH(allocator.free(b), "serial");
}
}  // namespace
}  // namespace reckon
