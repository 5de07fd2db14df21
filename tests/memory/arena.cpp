// The arena: a recorded program runs again inside exactly its plan, and nothing but that program does.
#include "reckon/memory/arena.h"

#include <gtest/gtest.h>

#include "reckon/base/text.h"
#include "tests/memory/programs.h"

namespace programs {
namespace {
constexpr uint64_t kPrograms = 30;

TEST(Arena, TheSameProgramRunsInsideItsPlan) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    SCOPED_TRACE(seed);
    const Program program(seed);
    const Recorded recorded = record(whole(program));
    Offsets memory;
    Allocator allocator{memory};
    allocator.set_budget(recorded.plan.bytes);
    allocator.adopt(recorded.plan);
    EXPECT_EQ(memory.grown, recorded.plan.bytes) << "taken from the system at once";
    Player player{allocator};
    for (const Segment* s : whole(program)) player.play(*s);
    EXPECT_EQ(player.highest_end(), recorded.plan.bytes) << "all of it is used and nothing else";
    EXPECT_EQ(allocator.ledger().extent, recorded.plan.bytes);
    EXPECT_EQ(memory.grown, recorded.plan.bytes);
    EXPECT_EQ(allocator.trace_hash(), recorded.hash);
    EXPECT_EQ(allocator.ledger().peak, recorded.ledger.peak);
    EXPECT_EQ(allocator.ledger().at_peak, recorded.ledger.at_peak);
    EXPECT_EQ(allocator.ledger().phase_peak, recorded.ledger.phase_peak);
    EXPECT_EQ(recorded.plan.lower_bound, recorded.ledger.peak);
    EXPECT_GE(recorded.plan.bytes, recorded.plan.lower_bound);
  }
}

TEST(Arena, ABlockLiesWhereItLayInEveryRepetition) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    const Program program(seed);
    const Recorded recorded = record(whole(program));
    Offsets memory;
    Allocator allocator{memory};
    allocator.adopt(recorded.plan);
    Player player{allocator};
    player.play(program.init);
    std::map<int64_t, int64_t> first;
    for (int repetition = 0; repetition < 3; ++repetition) {
      SegmentScope scope(allocator, "step");
      for (const Action& a : program.step.actions) {
        player.act(a);
        if (!a.is_alloc() || a.bytes == 0) continue;
        const int64_t offset = player.blocks().at(a.id).offset;
        EXPECT_EQ(first.emplace(a.id, offset).first->second, offset) << a.id;
        EXPECT_GE(offset, recorded.plan.persistent_bytes);
      }
      scope.end();
    }
  }
}

// A large temporary of the first segment is gone before the last block that stays is made, and lies where that will be.
TEST(Arena, TemporariesOfTheFirstSegmentUseThePlacesOfLaterBlocks) {
  const Segment init{"init",
                     {{1, 64, Category::parameter, "weights"},
                      {2, 6400, Category::temporary, "draw"},
                      {2},
                      {3, 64, Category::master, "residual"},
                      {4, 12800, Category::optimizer, "state"}}};
  const ArenaPlan plan = record({&init}).plan;
  EXPECT_EQ(plan.bytes, plan.lower_bound);
  EXPECT_EQ(plan.persistent_bytes, plan.bytes);
  Offsets memory;
  Allocator allocator{memory};
  allocator.adopt(plan);
  Player player{allocator};
  player.play(init);
  EXPECT_EQ(player.highest_end(), plan.bytes);
}

TEST(Arena, ABudgetOfThePlanIsEnoughAndAByteLessIsRefusedAtOnce) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    const Program program(seed);
    const ArenaPlan plan = record(whole(program)).plan;
    Offsets memory;
    Allocator allocator{memory};
    allocator.set_budget(plan.bytes - 1);
    EXPECT_EQ(error_of([&] { allocator.adopt(plan); }).kind(), Failure::memory);
    EXPECT_EQ(memory.grown, 0);
    EXPECT_EQ(allocator.ledger().allocations, 0);
    allocator.set_budget(plan.bytes);
    allocator.adopt(plan);  // what was refused changed nothing
    EXPECT_EQ(memory.grown, plan.bytes);
  }
}

TEST(Arena, ARefusalOfTheSystemChangesNothing) {
  const Program program(1);
  const ArenaPlan plan = record(whole(program)).plan;
  Offsets memory;
  memory.limit = plan.bytes - 1;
  Allocator allocator{memory};
  EXPECT_EQ(error_of([&] { allocator.adopt(plan); }).kind(), Failure::memory);
  memory.limit = plan.bytes;
  allocator.adopt(plan);
  Player player{allocator};
  player.play(program.init);
  player.play(program.step);
}

// ---- divergence

// The segment's events by themselves.
std::vector<AllocationEvent> events_of(const Segment& segment) {
  Offsets memory;
  Allocator allocator{memory};
  allocator.record_events(true);
  Player player{allocator};
  player.play(segment);
  return allocator.events();
}

// What is said of the first difference between two segments.
std::string first_difference(const Segment& planned, const Segment& got) {
  const auto a = events_of(planned), b = events_of(got);
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const std::string want = i < a.size() ? to_string(a[i]) : "nothing more", have = i < b.size() ? to_string(b[i]) : "its end";
    if (want != have) return text("step left its plan at event {}: planned {}, got {};", i, want, have);
  }
  return "";
}

struct Change {
  const char* name;
  // Changes the segment at about action `at`; false: not there.
  bool (*make)(std::vector<Action>& actions, size_t at);
};
size_t free_of(const std::vector<Action>& actions, size_t at) {
  size_t i = at + 1;
  while (i < actions.size() && (actions[i].is_alloc() || actions[i].id != actions[at].id)) ++i;
  return i;
}
constexpr Change kChanges[] = {
    {"another size", [](std::vector<Action>& a, size_t at) { return a[at].is_alloc() && (a[at].bytes += kBlockAlignment, true); }},
    {"another operation", [](std::vector<Action>& a, size_t at) { return a[at].is_alloc() && (a[at].op = "other", true); }},
    {"another category",
     [](std::vector<Action>& a, size_t at) {
       if (!a[at].is_alloc()) return false;
       a[at].category = Category((int(a[at].category) + 1) % kCategories);
       return true;
     }},
    {"one more block",
     [](std::vector<Action>& a, size_t at) {
       a.insert(a.begin() + long(at), {{99'999, 320, Category::activation, "extra"}, {99'999}});
       return true;
     }},
    {"one more block at the end",
     [](std::vector<Action>& a, size_t) {
       a.insert(a.end(), {{99'999, 320, Category::activation, "extra"}, {99'999}});
       return true;
     }},
    {"a block less",
     [](std::vector<Action>& a, size_t at) {
       if (!a[at].is_alloc()) return false;
       a.erase(a.begin() + long(free_of(a, at)));
       a.erase(a.begin() + long(at));
       return true;
     }},
    {"an earlier end",
     [](std::vector<Action>& a, size_t) {
       const int64_t last = a.back().id;
       std::erase_if(a, [&](const Action& x) { return x.id == last; });
       return true;
     }},
    {"two frees in the other order",
     [](std::vector<Action>& a, size_t at) {
       if (at + 1 >= a.size() || a[at].is_alloc() || a[at + 1].is_alloc()) return false;
       std::swap(a[at], a[at + 1]);
       return true;
     }},
    {"a later free",
     [](std::vector<Action>& a, size_t at) {
       if (at + 1 >= a.size() || a[at].is_alloc() || !a[at + 1].is_alloc()) return false;
       std::swap(a[at], a[at + 1]);
       return true;
     }},
    {"an earlier free",
     [](std::vector<Action>& a, size_t at) {
       if (at + 1 >= a.size() || !a[at].is_alloc() || a[at + 1].is_alloc() || a[at + 1].id == a[at].id) return false;
       std::swap(a[at], a[at + 1]);
       return true;
     }},
};

TEST(Arena, ADivergenceIsAnErrorThatNamesTheFirstDifference) {
  for (const Change& change : kChanges) {
    int made = 0;
    for (uint64_t seed = 0; seed < 60; ++seed) {
      const Program program(seed % kPrograms);
      Segment other = program.step;
      if (!change.make(other.actions, philox(seed, 12, 0)[0] % other.actions.size())) continue;
      SCOPED_TRACE(text("{}, program {}", change.name, seed));
      ++made;
      const Recorded recorded = record(whole(program));
      Offsets memory;
      Allocator allocator{memory};
      allocator.adopt(recorded.plan);
      Player player{allocator};
      player.play(program.init);
      player.play(program.step);
      const std::string hash_after_step = [&] {
        const Error error = error_of([&] { player.play(other); });
        EXPECT_EQ(error.kind(), Failure::failed);
        EXPECT_THAT(error.what(), StartsWith(first_difference(program.step, other)));
        return allocator.trace_hash();
      }();
      // What diverged is over, and nothing of it stays.
      player.play(program.step);
      player.play(program.eval);
      EXPECT_NE(allocator.trace_hash(), hash_after_step);
      EXPECT_EQ(player.highest_end(), recorded.plan.bytes);
    }
    EXPECT_GE(made, 5) << change.name;
  }
}

TEST(Arena, AfterAnExceptionTheSegmentRunsAgain) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    SCOPED_TRACE(seed);
    const Program program(seed);
    const Recorded recorded = record(whole(program));
    Offsets memory;
    Allocator allocator{memory};
    allocator.adopt(recorded.plan);
    Player player{allocator};
    EXPECT_THROW(player.play(program.init, philox(seed, 13, 0)[0] % program.init.actions.size()), std::runtime_error);
    EXPECT_EQ(allocator.ledger().live, 0);
    player.play(program.init);
    const int64_t kept = allocator.ledger().live;
    EXPECT_EQ(kept, recorded.plan.persistent_bytes);
    for (uint64_t i = 1; i < 6; ++i) {
      EXPECT_THROW(player.play(program.step, philox(seed, 13, i)[0] % program.step.actions.size()), std::runtime_error);
      EXPECT_EQ(allocator.ledger().live, kept);
      player.play(i % 2 ? program.step : program.eval);
    }
    EXPECT_EQ(player.highest_end(), recorded.plan.bytes);
  }
}

// A tensor of a step that failed lies where the next step puts its own: it must go first.
TEST(Arena, WhatAFailedSegmentMadeMustBeGoneBeforeTheNext) {
  const Program program(3);
  const Recorded recorded = record(whole(program));
  Offsets memory;
  Allocator allocator{memory};
  allocator.adopt(recorded.plan);
  Player player{allocator};
  player.play(program.init);
  player.keep_blocks(true);
  EXPECT_THROW(player.play(program.step, 100), std::runtime_error);
  for (const Segment* next : {&program.step, &program.eval})
    EXPECT_THAT(error_of([&] { player.play(*next); }).what(), HasSubstr("still held"));
  player.drop(10'000);
  player.play(program.step);
}

TEST(Arena, TheFirstSegmentRunsAgainWhenWhatItLeftIsGone) {
  const Program program(4);
  const Recorded recorded = record(whole(program));
  Offsets memory;
  Allocator allocator{memory};
  allocator.adopt(recorded.plan);
  {
    Player player{allocator};
    player.play(program.init);
    player.play(program.step);
    Player second{allocator};
    EXPECT_THAT(error_of([&] { second.play(program.init); }).what(), HasSubstr("still held"));
  }
  EXPECT_EQ(allocator.ledger().live, 0);
  Player player{allocator};
  player.play(program.init);
  player.play(program.step);
  EXPECT_EQ(player.highest_end(), recorded.plan.bytes);
}

TEST(Arena, NothingIsAllocatedOutsideOfItsSegments) {
  const Program program(5);
  const Recorded recorded = record(whole(program));
  Offsets memory;
  Allocator allocator{memory};
  allocator.adopt(recorded.plan);
  Player player{allocator};
  EXPECT_THAT(error_of([&] { allocator.allocate(64, Category::data, 0, "rope"); }).what(),
              HasSubstr("rope (data) asks for 64 B outside of every planned segment"));
  EXPECT_THAT(error_of([&] { player.play({"generate", {}}); }).what(), HasSubstr("generate is not part of the plan"));
  player.play(program.init);
  player.play(program.step);
}

TEST(Arena, IsAdoptedBeforeTheFirstBlock) {
  const Program program(6);
  const Recorded recorded = record(whole(program));
  Offsets memory;
  Allocator allocator{memory};
  const Block block = allocator.allocate(64, Category::data, 0, "early");
  EXPECT_THAT(error_of([&] { allocator.adopt(recorded.plan); }).what(), HasSubstr("before its first allocation"));
  allocator.free(block);
}

// ---- what cannot be planned

ArenaPlan plan_of(const std::vector<const Segment*>& segments) { return record(segments).plan; }

TEST(ArenaPlan, SaysWhatASegmentLeavesBehind) {
  const Program program(7);
  const Segment leaving{"step", {{1, 1000, Category::activation, "gelu"}, {2, 64, Category::activation, "add"}, {2}}};
  EXPECT_THAT(error_of([&] { plan_of({&program.init, &leaving}); }).what(), HasSubstr("step leaves 1.00 KiB behind"));
}

TEST(ArenaPlan, SaysWhichForeignBlockASegmentFrees) {
  const Segment init{"init", {{1, 1000, Category::parameter, "fill"}, {2, 64, Category::parameter, "fill"}}};
  for (const bool allocates : {false, true}) {
    Segment step{"step", {{1}}};
    if (allocates) step.actions.insert(step.actions.begin(), {{3, 64, Category::activation, "add"}, {3}});
    EXPECT_THAT(error_of([&] { plan_of({&init, &step}); }).what(), HasSubstr("step frees a block that it did not make: 1.00 KiB of fill"));
  }
}

TEST(ArenaPlan, SaysWhereASegmentDoesNotRepeatItself) {
  const Program program(8);
  for (const Change& change : kChanges) {
    SCOPED_TRACE(change.name);
    Segment other = program.step;
    size_t at = 20;
    while (!change.make(other.actions, at)) ++at;
    EXPECT_THAT(error_of([&] { plan_of({&program.init, &program.step, &other}); }).what(), StartsWith("step does not repeat itself: "));
  }
}

TEST(ArenaPlan, SaysWhatWasAllocatedOutsideOfEverySegment) {
  const Program program(9);
  for (const int where : {0, 1, 2}) {
    Offsets memory;
    Allocator allocator{memory};
    allocator.record_events(true);
    Player player{allocator};
    const auto stray = [&] { allocator.free(allocator.allocate(100, Category::temporary, 0, "stray")); };
    if (where == 0) stray();
    player.play(program.init);
    if (where == 1) stray();
    player.play(program.step);
    if (where == 2) stray();
    EXPECT_THAT(error_of([&] { plan_arena(allocator.events(), allocator.marks()); }).what(),
                testing::AllOf(HasSubstr("outside of every segment"), HasSubstr("128 B temporary stray")));
  }
  EXPECT_THAT(error_of([] { plan_arena({}, {}); }).what(), HasSubstr("nothing was recorded"));
}

// A segment inside another is part of it.
TEST(ArenaPlan, SegmentsDoNotNest) {
  Offsets memory;
  Allocator allocator{memory};
  allocator.record_events(true);
  SegmentScope outer(allocator, "step");
  const Block a = allocator.allocate(64, Category::data, 0, "a");
  {
    SegmentScope inner(allocator, "eval");
    allocator.free(allocator.allocate(64, Category::data, 0, "b"));
    inner.end();
  }
  allocator.free(a);
  outer.end();
  ASSERT_EQ(allocator.marks().size(), 1u);
  EXPECT_EQ(allocator.marks()[0].name, "step");
  EXPECT_EQ(allocator.marks()[0].end, 4u);
}

// ---- segments of a library user: planned one by one, in a region beside other blocks

SegmentPlan plan_alone(const Segment& segment, bool may_leave) { return SegmentPlan::make(segment.name, events_of(segment), may_leave); }

// events_of frees what is left, in order of age, after the segment; only its own events count.
SegmentPlan plan_leaving(const Segment& segment) {
  const std::vector<AllocationEvent> events = events_of(segment);
  return SegmentPlan::make(segment.name, std::span(events).first(segment.actions.size()), true);
}

void play_planned(Allocator& allocator, Player& player, const SegmentPlan& plan, const Segment& segment) {
  allocator.reserve_region(plan.bytes);
  allocator.begin_segment(plan);
  for (const Action& a : segment.actions) player.act(a);
  allocator.end_segment();
}

TEST(Region, PlannedSegmentsRunBesideOtherBlocks) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    SCOPED_TRACE(seed);
    const Program program(seed);
    const SegmentPlan step = plan_alone(program.step, false), eval = plan_alone(program.eval, false);
    Offsets memory;
    Allocator allocator{memory};
    Player player{allocator};
    player.act({1, 5000});
    play_planned(allocator, player, eval, program.eval);
    player.act({2, 7000});  // lies behind the region, which must move to grow
    play_planned(allocator, player, step, program.step);
    player.act({1});
    player.act({3, 3000});
    play_planned(allocator, player, eval, program.eval);
    play_planned(allocator, player, step, program.step);
    EXPECT_LE(player.highest_end(), allocator.ledger().extent);
  }
}

TEST(Region, WhatASegmentReturnsMustBeGoneBeforeTheNext) {
  const Segment leaving = random_segment("step", 77, 50, 10, true);
  const SegmentPlan plan = plan_leaving(leaving);
  ASSERT_GT(plan.left_bytes, 0);
  Offsets memory;
  Allocator allocator{memory};
  Player player{allocator};
  play_planned(allocator, player, plan, leaving);
  EXPECT_EQ(allocator.ledger().live, plan.left_bytes);
  EXPECT_THAT(error_of([&] { allocator.begin_segment(plan); }).what(), HasSubstr("still held"));
  EXPECT_THAT(error_of([&] { allocator.reserve_region(plan.bytes + 1); }).what(), HasSubstr("still held"));
  player.drop(0);
  play_planned(allocator, player, plan, leaving);
}

TEST(Region, CountsAgainstTheBudget) {
  Offsets memory;
  Allocator allocator{memory};
  allocator.set_budget(1024);
  const Block block = allocator.allocate(512, Category::data, 0, "data");
  EXPECT_EQ(error_of([&] { allocator.reserve_region(513); }).kind(), Failure::memory);
  allocator.reserve_region(512);
  EXPECT_EQ(error_of([&] { allocator.allocate(1, Category::data, 0, "data"); }).kind(), Failure::memory);
  allocator.free(block);
}

// ---- rehearsals

TEST(Rehearsal, PutsEverythingBack) {
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    SCOPED_TRACE(seed);
    const Program program(seed);
    Offsets memory, other_memory;
    Allocator allocator{memory}, other{other_memory};  // the other one rehearses nothing
    Player player{allocator}, same{other};
    player.play(program.init);
    same.play(program.init);
    const int64_t grown = memory.grown;
    allocator.begin_rehearsal();
    EXPECT_TRUE(allocator.in_rehearsal());
    player.play(program.step);
    EXPECT_EQ(memory.grown, grown) << "a rehearsal takes no memory";
    allocator.end_rehearsal();
    EXPECT_FALSE(allocator.in_rehearsal());
    EXPECT_EQ(allocator.trace_hash(), other.trace_hash());
    EXPECT_EQ(allocator.ledger().peak, other.ledger().peak);
    EXPECT_EQ(allocator.ledger().extent, other.ledger().extent);
    for (const Segment* s : {&program.eval, &program.step}) {
      player.play(*s);
      same.play(*s);
    }
    EXPECT_EQ(allocator.trace_hash(), other.trace_hash());
    EXPECT_EQ(allocator.ledger().extent, other.ledger().extent);
    for (const auto& [id, block] : player.blocks()) EXPECT_EQ(block.offset, same.blocks().at(id).offset);
  }
}

TEST(Rehearsal, NamesWhatItLeavesBehind) {
  Offsets memory;
  Allocator allocator{memory};
  allocator.begin_rehearsal();
  const Block left = allocator.allocate(1000, Category::activation, 0, "gelu");
  EXPECT_THAT(error_of([&] { allocator.end_rehearsal(); }).what(), HasSubstr("the step leaves 1.00 KiB activation of gelu behind"));
  EXPECT_EQ(allocator.ledger().live, 0);
  allocator.free(left);  // its handle goes later; nothing is left to free
  EXPECT_EQ(allocator.ledger().live, 0);
}

TEST(Rehearsal, FreesAtItsEndWhatItWasToFree) {
  Offsets memory;
  Allocator allocator{memory};
  const Block old = allocator.allocate(1000, Category::activation, 0, "gelu");
  allocator.begin_rehearsal();
  allocator.free(old);
  EXPECT_EQ(allocator.ledger().live, 0);
  allocator.end_rehearsal();
  EXPECT_EQ(allocator.ledger().live, 0);
  const Block next = allocator.allocate(1000, Category::activation, 0, "gelu");
  EXPECT_EQ(next.offset, 0) << "its place is free again";
  EXPECT_EQ(next.serial, 1);
  allocator.free(next);
}
}  // namespace
}  // namespace programs
