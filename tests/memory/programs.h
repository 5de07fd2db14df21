// tests/memory: random programs of segments, such as a training run makes them, and what plays them on an allocator without bytes.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"
#include "reckon/memory/arena.h"

namespace programs {
using namespace reckon;

class Offsets final : public RawMemory {
 public:
  void grow(int64_t bytes) override {
    if (bytes > limit) fail_as(Failure::memory, "the system refuses {} bytes", bytes);
    grown = std::max(grown, bytes);
  }
  std::byte* base() const override { return nullptr; }
  int64_t grown = 0, limit = INT64_MAX;
};

/// Allocates block `id`, or frees it (bytes < 0).
struct Action {
  int64_t id = 0;
  int64_t bytes = -1;
  Category category = Category::activation;
  const char* op = "op";
  bool is_alloc() const { return bytes >= 0; }
};
struct Segment {
  std::string name;
  std::vector<Action> actions;
};

inline Segment random_segment(std::string name, uint64_t seed, int64_t events, int64_t first_id, bool leaves) {
  constexpr const char* kOps[] = {"linear", "gelu", "norm", "attention"};
  Segment segment{std::move(name), {}};
  std::vector<int64_t> live;
  int64_t next = first_id;
  for (int64_t i = 0; i < events || (!leaves && !live.empty()); ++i) {
    const auto words = philox(seed, 11, uint64_t(i));
    if (i < events && (live.empty() || words[0] % 100 < 55)) {
      const int64_t bytes = words[1] % 9 == 0 ? 0 : int64_t(1 + words[2] % (words[1] % 5 ? 900 : 20000));
      segment.actions.push_back({next, bytes, Category(words[3] % kCategories), kOps[words[3] / 16 % 4]});
      live.push_back(next++);
    } else {
      const size_t at = words[1] % live.size();
      segment.actions.push_back({live[at]});
      live.erase(live.begin() + long(at));
    }
  }
  return segment;
}

/// init, which leaves blocks; step; eval; save without blocks.
struct Program {
  Segment init, step, eval, save;
  explicit Program(uint64_t seed)
      : init(random_segment("init", 4 * seed, 40, 0, true)),
        step(random_segment("step", 4 * seed + 1, 300, 10'000, false)),
        eval(random_segment("eval", 4 * seed + 2, 60, 20'000, false)),
        save{"save", {}} {}
};

/// The blocks of a played program; they are freed when it goes.
class Player {
 public:
  explicit Player(Allocator& allocator) : allocator_(allocator) {}
  ~Player() { drop(0); }
  Player(const Player&) = delete;

  /// Plays a segment; what it made is released if it throws.
  void play(const Segment& segment) { play(segment, segment.actions.size()); }
  /// Throws a std::runtime_error of its own before action `stop`.
  void play(const Segment& segment, size_t stop) {
    SegmentScope scope(allocator_, segment.name);
    int64_t first_new = INT64_MAX;
    for (const Action& a : segment.actions) first_new = std::min(first_new, a.is_alloc() ? a.id : INT64_MAX);
    try {
      for (size_t i = 0; i < segment.actions.size(); ++i) {
        if (i == stop) throw std::runtime_error("the step failed");
        act(segment.actions[i]);
      }
    } catch (...) {
      if (!keeps_) drop(first_new);
      throw;
    }
    scope.end();
  }
  void act(const Action& a) {
    if (a.is_alloc()) {
      const Block block = allocator_.allocate(a.bytes, a.category, 0, a.op);
      expect_apart(block);
      blocks_.emplace(a.id, block);
    } else {
      const auto found = blocks_.find(a.id);
      allocator_.free(found->second);
      blocks_.erase(found);
    }
  }
  /// From now on, what a failed segment made is held.
  void keep_blocks(bool on) { keeps_ = on; }
  /// Frees all blocks from an id on, oldest first.
  void drop(int64_t first_id) {
    for (auto at = blocks_.lower_bound(first_id); at != blocks_.end(); at = blocks_.erase(at)) allocator_.free(at->second);
  }
  const std::map<int64_t, Block>& blocks() const { return blocks_; }
  int64_t highest_end() const { return highest_end_; }

 private:
  void expect_apart(const Block& b) {
    if (b.bytes == 0) return;
    highest_end_ = std::max(highest_end_, b.offset + b.bytes);
    for (const auto& [id, other] : blocks_)
      ASSERT_TRUE(other.bytes == 0 || b.offset + b.bytes <= other.offset || other.offset + other.bytes <= b.offset)
          << "block " << b.serial << " shares bytes with block " << other.serial;
  }
  Allocator& allocator_;
  std::map<int64_t, Block> blocks_;
  int64_t highest_end_ = 0;
  bool keeps_ = false;
};

/// What a recording of the whole program knows.
struct Recorded {
  ArenaPlan plan;
  Ledger ledger;
  std::string hash;
  std::vector<AllocationEvent> events;
};
inline Recorded record(const std::vector<const Segment*>& segments) {
  Offsets memory;
  Allocator allocator{memory};
  allocator.record_events(true);
  Player player{allocator};
  for (const Segment* s : segments) player.play(*s);
  return {plan_arena(allocator.events(), allocator.marks()), allocator.ledger(), allocator.trace_hash(), allocator.events()};
}
inline std::vector<const Segment*> whole(const Program& p) { return {&p.init, &p.step, &p.step, &p.eval, &p.step, &p.eval, &p.save}; }

/// The Error that f throws; a failure of the test if it throws none.
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
using testing::HasSubstr;
using testing::StartsWith;
}  // namespace programs
