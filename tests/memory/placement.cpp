// Placement: whatever the lifetimes, blocks that are live together lie apart, in no fewer bytes than must be live and as few as can be
// hoped.
#include "reckon/memory/placement.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "reckon/base/philox.h"
#include "reckon/memory/allocator.h"

namespace reckon {
namespace {
using Lifetimes = std::vector<Lifetime>;

// Kinds of programs: blocks that come and go at random, stacks, blocks of few sizes, activations that end in reverse order among
// temporaries.
enum class Pattern { random, stack, few_sizes, training, empty_ones };
constexpr Pattern kPatterns[] = {Pattern::random, Pattern::stack, Pattern::few_sizes, Pattern::training, Pattern::empty_ones};

int64_t size_from(uint32_t word) { return int64_t(1 + word % (word % 16 == 0 ? 5000 : 60)) * kBlockAlignment; }

Lifetimes stack_of(uint64_t seed, int64_t count) {
  Lifetimes lives;
  std::vector<size_t> open;
  int64_t time = 0;
  for (uint64_t i = 0; int64_t(lives.size()) < count || !open.empty(); ++i, ++time) {
    const auto words = philox(seed, 2, i);
    if (int64_t(lives.size()) < count && (open.empty() || words[0] % 3 != 0)) {
      open.push_back(lives.size());
      lives.push_back({size_from(words[1]), time, 0});
    } else {
      lives[open.back()].end = time;
      open.pop_back();
    }
  }
  return lives;
}

// Layer n keeps a block from its forward to its backward moment; temporaries live for a moment in between.
Lifetimes training_of(uint64_t seed, int64_t count) {
  Lifetimes lives;
  const int64_t layers = count / 4, steps = 2 * layers;
  for (int64_t n = 0; n < layers; ++n) {
    const auto words = philox(seed, 3, uint64_t(n));
    lives.push_back({size_from(words[0]), 4 * n, 4 * (steps - n)});
    lives.push_back({size_from(words[1]), 4 * n + 1, 4 * n + 3});
    lives.push_back({size_from(words[2]), 4 * (steps - n) - 2, 4 * (steps - n) + 1});
    lives.push_back({size_from(words[3]), 4 * n + 2, 4 * n + 6});
  }
  return lives;
}

Lifetimes lifetimes(Pattern pattern, uint64_t seed, int64_t count) {
  if (pattern == Pattern::stack) return stack_of(seed, count);
  if (pattern == Pattern::training) return training_of(seed, count);
  Lifetimes lives;
  for (int64_t i = 0; i < count; ++i) {
    const auto words = philox(seed, 4, uint64_t(i));
    Lifetime life{size_from(words[0]), int64_t(words[1]) % (2 * count), 0};
    life.end = life.begin + 1 + int64_t(words[2]) % (words[3] % 4 == 0 ? 2 * count : 12);
    if (pattern == Pattern::few_sizes) life.bytes = kBlockAlignment << (words[0] % 4 * 2);
    if (pattern == Pattern::empty_ones && words[3] % 3 == 0) life.bytes = 0;
    if (pattern == Pattern::empty_ones && words[3] % 5 == 0) life.end = life.begin;
    lives.push_back(life);
  }
  return lives;
}

bool occupies(const Lifetime& b) { return b.bytes > 0 && b.begin < b.end; }
bool overlap(int64_t a, int64_t a_end, int64_t b, int64_t b_end) { return a < b_end && b < a_end; }

// Looks at every pair and every moment.
void expect_sound(const Lifetimes& lives, const Placement& placed) {
  ASSERT_EQ(placed.offsets.size(), lives.size());
  int64_t end = 0, most = 0;
  for (size_t i = 0; i < lives.size(); ++i) {
    if (!occupies(lives[i])) continue;
    ASSERT_GE(placed.offsets[i], 0) << i;
    ASSERT_EQ(placed.offsets[i] % kBlockAlignment, 0) << i;
    end = std::max(end, placed.offsets[i] + lives[i].bytes);
    int64_t live = 0;  // when block i begins
    for (size_t j = 0; j < lives.size(); ++j) {
      if (!occupies(lives[j])) continue;
      if (lives[j].begin <= lives[i].begin && lives[i].begin < lives[j].end) live += lives[j].bytes;
      if (i == j || !overlap(lives[i].begin, lives[i].end, lives[j].begin, lives[j].end)) continue;
      ASSERT_FALSE(overlap(placed.offsets[i], placed.offsets[i] + lives[i].bytes, placed.offsets[j], placed.offsets[j] + lives[j].bytes))
          << "blocks " << i << " and " << j << " are live together and share bytes";
    }
    most = std::max(most, live);
  }
  EXPECT_EQ(placed.bytes, end) << "no byte is planned that no block uses";
  EXPECT_EQ(placed.lower_bound, most);
  EXPECT_GE(placed.bytes, placed.lower_bound);
}

TEST(Placement, BlocksThatAreLiveTogetherLieApart) {
  for (const Pattern pattern : kPatterns)
    for (const int64_t count : {1, 2, 3, 7, 40, 200, 600}) {
      for (uint64_t seed = 0; seed < (count < 100 ? 40 : 4); ++seed) {
        SCOPED_TRACE(testing::Message() << "pattern " << int(pattern) << " count " << count << " seed " << seed);
        const Lifetimes lives = lifetimes(pattern, seed, count);
        const Placement placed = place_blocks(lives);
        expect_sound(lives, placed);
        if (HasFatalFailure()) return;
        const Placement again = place_blocks(lives);
        EXPECT_EQ(placed.offsets, again.offsets);
      }
    }
}

// First fit in order of age puts a stack into its lower bound; whatever is chosen must not be worse.
TEST(Placement, AStackNeedsNoMoreThanItsPeak) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Placement placed = place_blocks(stack_of(seed, 300));
    EXPECT_EQ(placed.bytes, placed.lower_bound) << seed;
  }
}

TEST(Placement, EqualSizesNeedNoMoreThanTheirPeak) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Lifetimes lives = lifetimes(Pattern::random, seed, 300);
    for (Lifetime& life : lives) life.bytes = 640;
    const Placement placed = place_blocks(lives);
    EXPECT_EQ(placed.bytes, placed.lower_bound) << seed;
  }
}

// Times only order events: stretching them changes no place.
TEST(Placement, KnowsTheOrderOfEventsOnly) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Lifetimes lives = lifetimes(Pattern::training, seed, 100);
    const Placement placed = place_blocks(lives);
    for (Lifetime& life : lives) life.begin = 1000 + 7 * life.begin, life.end = 1000 + 7 * life.end;
    EXPECT_EQ(place_blocks(lives).offsets, placed.offsets) << seed;
  }
}

// As in an arena's first segment: what stays has its place, and what passes may lie where a later one of these will be.
TEST(Placement, FixedBlocksStayWhereTheyAreAndOthersUseTheirPlacesBefore) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Lifetimes lives = lifetimes(Pattern::random, seed, 150);
    int64_t stays = 0;
    for (size_t i = 0; i < lives.size(); ++i) {
      if (philox(seed, 5, i)[0] % 3 != 0) continue;
      lives[i].end = 1000;
      lives[i].fixed_offset = stays;
      stays += lives[i].bytes;
    }
    const Placement placed = place_blocks(lives);
    expect_sound(lives, placed);
    for (size_t i = 0; i < lives.size(); ++i) EXPECT_TRUE(lives[i].fixed_offset < 0 || placed.offsets[i] == lives[i].fixed_offset) << i;
  }
  const Lifetimes lives = {{64, 0, 9, 0}, {640, 1, 2}, {640, 3, 9, 64}};
  EXPECT_EQ(place_blocks(lives).bytes, 704);
}

TEST(Placement, ABlockThatEndsMakesRoomForOneThatBeginsThen) {
  const Lifetimes lives = {{128, 0, 2}, {128, 2, 4}};
  EXPECT_EQ(place_blocks(lives).bytes, 128);
}

TEST(Placement, NothingTakesNothing) {
  EXPECT_EQ(place_blocks({}).bytes, 0);
  EXPECT_EQ(place_blocks({}).lower_bound, 0);
  const Lifetimes lives = {{0, 0, 5}, {64, 3, 3}};
  EXPECT_EQ(place_blocks(lives).bytes, 0);
}

// Four blocks whose bound no order of first fit by size alone reaches: (1 unit = 64 bytes)
//   A 1 [0, 2)   B 2 [1, 3)   C 1 [2, 4)   D 2 [3, 5): 3 units are live at once.
TEST(Placement, FindsATightChain) {
  const Lifetimes lives = {{64, 0, 2}, {128, 1, 3}, {64, 2, 4}, {128, 3, 5}};
  const Placement placed = place_blocks(lives);
  EXPECT_EQ(placed.lower_bound, 192);
  EXPECT_EQ(placed.bytes, 192);
}
}  // namespace
}  // namespace reckon
