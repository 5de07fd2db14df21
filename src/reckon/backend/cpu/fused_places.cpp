#include "reckon/backend/cpu/fused_places.h"

#include <algorithm>

#include "reckon/backend/cpu/fused_blocks.h"
#include "reckon/backend/cpu/fused_calls.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/backend/cpu/rows_reduce.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kTilesBytes = 24 << 10;     // all tiles of a lane: half of a 48 KiB L1 cache
constexpr int64_t kStreamedBytes = 32 << 20;  // inputs and outputs from which on results would not be found in a cache again
constexpr int64_t kStreamedGrain = 128 << 10;

// Numbers that are given back and taken again.
class NumberList {
 public:
  int take() { return free_ > 0 ? list_[size_t(--free_)] : count_++; }
  void give(int number) { list_[size_t(free_++)] = number; }
  int count() const { return count_; }

 private:
  std::array<int, kMaxFusedValues> list_;
  int free_ = 0, count_ = 0;
};

int64_t traffic_of(const FusedProgram& program) {
  int64_t bytes = 0;
  for (const FusedInput& input : program.inputs) bytes = checked_sum({bytes, input.spec.bytes()});
  for (const FusedCall& c : program.calls)
    if (c.output >= 0) bytes = checked_sum({bytes, c.out.bytes()});
  return bytes;
}

// The last call that reads each value, or the one that makes it; sums count only if `with_sums`.
FusedPlaces::Numbers last_uses(const FusedProgram& program, bool with_sums) {
  FusedPlaces::Numbers last{};
  for (size_t i = 0; i < program.calls.size(); ++i) {
    last[size_t(program.first_result()) + i] = int(i);
    if (program.calls[i].op->traits.sums && !with_sums) continue;
    for (const int v : program.calls[i].in)
      if (v >= 0) last[size_t(v)] = int(i);
  }
  return last;
}

// True if operand k is the same value as an earlier one.
bool is_repeated(const FusedCall& c, int k) { return std::find(c.in, c.in + k, c.in[k]) != c.in + k; }

// float32 and bfloat16, and bool between comparison and selection.
bool runs_by_blocks(const FusedProgram& program) {
  const auto is_value = [](DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; };
  for (const FusedCall& c : program.calls) {
    const BlockCode code = c.op->traits.sums ? BlockCode::none : block_row(c.op->id).code;
    const bool compares = code == BlockCode::equal || code == BlockCode::less || code == BlockCode::less_equal;
    if (!c.op->traits.sums && (code == BlockCode::none || !(compares || is_value(c.out.dtype)))) return false;
    for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
      const DType dtype = program.spec(c.in[k]).dtype;
      if (code == BlockCode::where && k == 0 ? dtype != DType::boolean : !is_value(dtype)) return false;
    }
  }
  return true;
}
}  // namespace

FusedPlaces::FusedPlaces(const FusedProgram& program) : by_blocks(runs_by_blocks(program)), streams(traffic_of(program) > kStreamedBytes) {
  for (Numbers* numbers : {&tile, &loaded_at, &block, &widened_at}) numbers->fill(-1);
  by_blocks ? place_by_blocks(program) : place_by_tiles(program);
  cut(program);
}

void FusedPlaces::place_singles(const FusedProgram& program) {
  for (int v = 0; v < program.first_result(); ++v)
    if (program.inputs[size_t(v)].is_single && !program.inputs[size_t(v)].is_dense) tile[size_t(v)] = tiles++;
}

// All tiles are there at once: inputs that are broadcast or have gaps, and what a sum reads where it does not lie in memory.
void FusedPlaces::place_by_blocks(const FusedProgram& program) {
  place_singles(program);
  for (int v = 0; v < program.first_result(); ++v) {
    if (program.inputs[size_t(v)].is_dense || tile[size_t(v)] >= 0) continue;
    tile[size_t(v)] = tiles++;
    loaded_at[size_t(v)] = 0;
  }
  for (const FusedCall& c : program.calls) {
    if (!c.op->traits.sums || c.in[0] < program.first_result() || tile[size_t(c.in[0])] >= 0) continue;
    const bool lies_in_memory = program.calls[size_t(c.in[0] - program.first_result())].output >= 0 && !streams;
    if (!lies_in_memory) tile[size_t(c.in[0])] = tiles++;
  }
  const Numbers last = last_uses(program, false);
  NumberList list;
  for (int i = 0; i < int(program.calls.size()); ++i) {
    const FusedCall& c = program.calls[size_t(i)];
    if (c.op->traits.sums) continue;
    for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
      const size_t v = size_t(c.in[k]);
      if (c.in[k] >= program.first_result() || program.spec(c.in[k]).dtype == DType::f32 || block[v] >= 0) continue;
      block[v] = list.take();
      widened_at[v] = i;
    }
    // A result may take the register of an input that is read for the last time: calls go element by element.
    for (int k = 0; k < 3 && c.in[k] >= 0; ++k)
      if (block[size_t(c.in[k])] >= 0 && last[size_t(c.in[k])] == i && !is_repeated(c, k)) list.give(block[size_t(c.in[k])]);
    const size_t result = size_t(program.first_result() + i);
    const bool lies_in_memory = c.out.dtype == DType::f32 && (tile[result] >= 0 || (c.output >= 0 && !streams));
    if (lies_in_memory) continue;
    block[result] = list.take();
    if (last[result] == i) list.give(block[result]);
  }
  registers = list.count();
}

// One call after the other on the whole tile, in the dtypes of the values. A tile has many values, one at a time.
void FusedPlaces::place_by_tiles(const FusedProgram& program) {
  place_singles(program);
  const Numbers last = last_uses(program, true);
  NumberList list;
  const int singles = tiles;
  for (int i = 0; i < int(program.calls.size()); ++i) {
    const FusedCall& c = program.calls[size_t(i)];
    const size_t result = size_t(program.first_result() + i);
    const auto dies = [&](int k) { return tile[size_t(c.in[k])] >= singles && last[size_t(c.in[k])] == i && !is_repeated(c, k); };
    for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
      const size_t v = size_t(c.in[k]);
      if (c.in[k] >= program.first_result() || program.inputs[v].is_dense || tile[v] >= 0) continue;
      tile[v] = singles + list.take();
      loaded_at[v] = i;
    }
    // Rows that may reuse an input may also write in place, where the output lies (on an input, perhaps); others write a tile, and are
    // copied.
    const bool in_memory = c.op->traits.sums || (c.output >= 0 && c.op->traits.reuse != 0 && !streams);
    for (int k = 0; k < 3 && c.in[k] >= 0 && !in_memory && tile[result] < 0; ++k)
      if ((c.op->traits.reuse >> k & 1u) && dies(k) && size_of(program.spec(c.in[k]).dtype) == size_of(c.out.dtype))
        tile[result] = tile[size_t(c.in[k])];
    if (!in_memory && tile[result] < 0) tile[result] = singles + list.take();
    for (int k = 0; k < 3 && c.in[k] >= 0; ++k)
      if (dies(k) && tile[size_t(c.in[k])] != tile[result]) list.give(tile[size_t(c.in[k])] - singles);
    if (!in_memory && last[result] == i) list.give(tile[result] - singles);
  }
  tiles = singles + list.count();
}

void FusedPlaces::cut(const FusedProgram& program) {
  int64_t width = 1;
  for (int v = 0; v < program.values(); ++v) width = std::max(width, size_of(program.spec(v).dtype));
  elements = tiles > 0 ? 4 * kSumRun : kStreamedGrain;
  while (tiles > 0 && elements > kSumRun && tiles * elements * width > kTilesBytes) elements /= 2;
  const int64_t whole = (program.shape.numel() + 63) / 64 * 64;
  elements = std::min(elements, whole);
  tile_bytes = tiles > 0 ? elements * width : 0;
  // Not tiles * tile_bytes, which shrinks where more elements make results stream, and those take tiles.
  tiles_bytes = tiles > 0 ? std::min(std::max(kTilesBytes, tiles * kSumRun * width), checked_product({tiles, whole, width})) : 0;
}

int64_t FusedPlaces::lane_bytes() const { return checked_sum({registers_at(), registers * kBlockElements * 4}); }

int64_t fused_grain(const FusedPlaces& places) { return places.streams ? kStreamedGrain : kTaskElements; }
}  // namespace reckon::cpu
