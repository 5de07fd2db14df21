#include "reckon/backend/cpu/fused.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "reckon/backend/cpu/fused_calls.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/backend/cpu/rows_reduce.h"
#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
constexpr int kMaxValues = FusedProgram::kMaxInputs + FusedProgram::kMaxCalls;
constexpr int64_t kTilesBytes = 24 << 10;  // all tiles of a lane, if tiles of kSumRun elements allow it: half of a 48 KiB L1 cache

// Where the values of a group live. A value has a tile, or lies in the memory of an input or output; a tile has many values, one at a time.
struct Places {
  std::array<int, kMaxValues> tile;      // -1: in memory
  std::array<int, kMaxValues> last_use;  // number of the last call that reads it; its own if none does
  std::array<int, kMaxValues> loaded_at;  // of an input with a tile: the call before which it is loaded; -1: once a task, it never changes
  int tiles = 0;
  int64_t elements = 0;  // of a tile
  int64_t tile_bytes = 0;
  bool streams = false;
};

class TileList {
 public:
  int take() {
    if (free_ > 0) return list_[size_t(--free_)];
    return count_++;
  }
  void give(int tile) { list_[size_t(free_++)] = tile; }
  int count() const { return count_; }

 private:
  std::array<int, kMaxValues> list_;
  int free_ = 0, count_ = 0;
};

int64_t traffic_of(const FusedProgram& program) {
  int64_t bytes = 0;
  for (const FusedInput& input : program.inputs) bytes = checked_sum({bytes, input.spec.bytes()});
  for (const FusedCall& c : program.calls)
    if (c.output >= 0) bytes = checked_sum({bytes, c.out.bytes()});
  return bytes;
}

// Such a call may write where one of its inputs lies, so it may write its output in place (FusedProgram: an output may lie on an input).
bool writes_in_place(const FusedCall& c) { return c.op->traits.reuse != 0; }

void place_inputs(const FusedProgram& program, int call, Places& p, TileList& tiles) {
  for (const int v : program.calls[size_t(call)].in) {
    if (v < 0 || v >= program.first_result() || program.inputs[size_t(v)].is_dense || p.tile[size_t(v)] >= 0) continue;
    p.tile[size_t(v)] = tiles.take();
    p.loaded_at[size_t(v)] = call;
  }
}

// The tile of a result: that of an input which is read here for the last time, if the operation allows it.
int place_result(const FusedProgram& program, int call, const Places& p, TileList& tiles) {
  const FusedCall& c = program.calls[size_t(call)];
  for (int k = 0; k < 3; ++k) {
    const int v = c.in[k];
    if (v < 0 || !(c.op->traits.reuse >> k & 1u) || p.tile[size_t(v)] < 0 || p.last_use[size_t(v)] != call) continue;
    if (size_of(program.spec(v).dtype) == size_of(c.out.dtype)) return p.tile[size_t(v)];
  }
  return tiles.take();
}

Places places_of(const FusedProgram& program) {
  Places p;
  p.tile.fill(-1);
  p.loaded_at.fill(-1);
  p.streams = traffic_of(program) > kStreamedBytes;
  const int first = program.first_result(), calls = int(program.calls.size()), never = calls;
  for (int i = 0; i < calls; ++i) {
    p.last_use[size_t(first + i)] = i;
    for (const int v : program.calls[size_t(i)].in)
      if (v >= 0) p.last_use[size_t(v)] = i;
  }
  TileList tiles;
  int64_t width = 1;
  for (int v = 0; v < program.values(); ++v) width = std::max(width, size_of(program.spec(v).dtype));
  for (int v = 0; v < first; ++v) {
    if (!program.inputs[size_t(v)].is_single || program.inputs[size_t(v)].is_dense) continue;
    p.tile[size_t(v)] = tiles.take();
    p.last_use[size_t(v)] = never;
  }
  for (int i = 0; i < calls; ++i) {
    const FusedCall& c = program.calls[size_t(i)];
    const int result = first + i;
    place_inputs(program, i, p, tiles);
    const bool in_memory = c.op->traits.sums || (c.output >= 0 && writes_in_place(c) && !p.streams);
    if (!in_memory) p.tile[size_t(result)] = place_result(program, i, p, tiles);
    for (int k = 0; k < 3; ++k) {
      const int v = c.in[k];
      const bool seen = v >= 0 && std::find(c.in, c.in + k, v) != c.in + k;
      if (v < 0 || seen || p.tile[size_t(v)] < 0 || p.last_use[size_t(v)] != i || p.tile[size_t(v)] == p.tile[size_t(result)]) continue;
      tiles.give(p.tile[size_t(v)]);
    }
    if (!in_memory && p.last_use[size_t(result)] == i) tiles.give(p.tile[size_t(result)]);
  }
  p.tiles = tiles.count();
  p.elements = 4 * kSumRun;
  while (p.elements > kSumRun && p.tiles * p.elements * width > kTilesBytes) p.elements /= 2;
  p.elements = std::min(p.elements, (program.shape.numel() + 63) / 64 * 64);
  p.tile_bytes = p.elements * width;
  return p;
}

int64_t tile_lanes(const FusedProgram& program, int lanes) {
  return std::min<int64_t>(lanes, (program.shape.numel() + kTaskElements - 1) / kTaskElements);
}

// The last axes that sums run over; rows [rows, cols] of the group's shape.
struct Sums {
  int count = 0;
  int64_t rows = 1, cols = 1;
  int64_t workspace = 0;  // of one sum
};
Sums sums_of(const FusedProgram& program) {
  Sums sums;
  for (const FusedCall& c : program.calls) {
    if (!c.op->traits.sums) continue;
    ++sums.count;
    sums.rows = c.out.numel();
    sums.cols = program.shape.numel() / sums.rows;
    sums.workspace = round_block(reduce_workspace(program.shape, c.op->traits.sums(c.params)));
  }
  return sums;
}

// A stretch of elements that a task evaluates at once. With sums it is either `rows` whole rows or a part of one slice.
struct Tile {
  int64_t begin, n;
  int64_t rows = 0, first_row = 0;
  double* totals = nullptr;  // of the slice so far, one a sum
};

class Evaluation {
 public:
  Evaluation(const FusedProgram& program, const KernelArgs& k) : program_(program), places_(places_of(program)), sums_(sums_of(program)), k_(k) {
    partial_ = static_cast<std::byte*>(k.workspace);
    tiles_ = partial_ + sums_.count * sums_.workspace;
    int64_t dense[kMaxRank];
    dense_strides(program.shape, dense);
    for (int v = 0; v < program.first_result(); ++v) {
      if (places_.tile[size_t(v)] < 0) continue;
      const Tensor& t = k.in[size_t(v)];
      int64_t strides[kMaxRank] = {};
      const int lead = program.shape.rank() - t.rank();
      for (int axis = lead; axis < program.shape.rank(); ++axis)
        strides[axis] = t.shape()[axis - lead] == 1 && program.shape[axis] != 1 ? 0 : t.layout().strides[axis - lead];
      const int64_t* both[] = {dense, strides};
      loops_[size_t(v)] = make_loop(program.shape, 2, both);
    }
    for (int v = 0; v < program.values(); ++v) memory_[size_t(v)] = memory_of(v);
  }

  void run() { sums_.count > 0 ? run_sums() : run_elements(); }

 private:
  std::byte* memory_of(int v) const {
    if (v < program_.first_result()) return static_cast<std::byte*>(k_.in[size_t(v)].raw());
    const int output = program_.calls[size_t(v - program_.first_result())].output;
    return output >= 0 ? static_cast<std::byte*>(k_.out[size_t(output)].raw()) : nullptr;
  }
  std::byte* lane_tiles(int lane) const { return tiles_ + lane * places_.tiles * places_.tile_bytes; }
  int64_t bytes_of(int v) const { return size_of(program_.spec(v).dtype); }
  std::byte* at(int v, const Tile& tile, std::byte* tiles) const {
    return places_.tile[size_t(v)] >= 0 ? tiles + places_.tile[size_t(v)] * places_.tile_bytes : memory_[size_t(v)] + tile.begin * bytes_of(v);
  }

  // Elements [begin, begin + n) of an input that is broadcast or has gaps, side by side.
  void load(int v, int64_t begin, int64_t n, std::byte* to) const {
    const int64_t bytes = bytes_of(v);
    const Loop& loop = loops_[size_t(v)];
    const std::byte* from = memory_[size_t(v)];
    walk(loop, begin, begin + n, [&](int64_t count, const int64_t* at) {
      const std::byte* source = from + at[1] * bytes;
      if (loop.inner_stride(1) == 1 || count == 1) {
        std::memcpy(to, source, size_t(count * bytes));
      } else {
        repeat(source, bytes, count, to);
      }
      to += count * bytes;
    });
  }
  static void repeat(const std::byte* value, int64_t bytes, int64_t count, std::byte* to) {
    std::memcpy(to, value, size_t(bytes));
    for (int64_t have = 1; have < count;) {  // doubling
      const int64_t more = std::min(have, count - have);
      std::memcpy(to + have * bytes, to, size_t(more * bytes));
      have += more;
    }
  }
  void load_singles(std::byte* tiles) const {
    for (int v = 0; v < program_.first_result(); ++v)
      if (places_.tile[size_t(v)] >= 0 && places_.loaded_at[size_t(v)] < 0)
        repeat(memory_[size_t(v)], bytes_of(v), places_.elements, tiles + places_.tile[size_t(v)] * places_.tile_bytes);
  }

  void evaluate(const Tile& tile, std::byte* tiles) const {
    int sum = 0;
    for (int i = 0; i < int(program_.calls.size()); ++i) {
      const FusedCall& c = program_.calls[size_t(i)];
      const int result = program_.first_result() + i;
      TileCall call{{}, nullptr, tile.n, DType::f32, c.out.dtype, &c.params};
      for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
        std::byte* operand = at(c.in[k], tile, tiles);
        if (places_.loaded_at[size_t(c.in[k])] == i && std::find(c.in, c.in + k, c.in[k]) == c.in + k) load(c.in[k], tile.begin, tile.n, operand);
        call.in[k] = operand;
        call.in_dtype = program_.spec(c.in[k]).dtype;
      }
      if (c.op->traits.sums) {
        add_up(c, sum++, call.in[0], tile);
        continue;
      }
      call.out = at(result, tile, tiles);
      tile_function(c.op->id)(call);
      if (c.output >= 0 && places_.tile[size_t(result)] >= 0) store(call.out, memory_[size_t(result)] + tile.begin * bytes_of(result), tile.n * bytes_of(result));
    }
  }
  void store(const void* from, std::byte* to, int64_t bytes) const {
    places_.streams ? stream_run(from, to, bytes) : void(std::memcpy(to, from, size_t(bytes)));
  }
  void add_up(const FusedCall& c, int sum, const void* x, const Tile& tile) const {
    const DType dtype = program_.spec(c.in[0]).dtype;
    if (tile.totals) {
      tile.totals[sum] = sum_run(dtype, x, tile.n, tile.totals[sum]);
      return;
    }
    for (int64_t r = 0; r < tile.rows; ++r) {
      const std::byte* row = static_cast<const std::byte*>(x) + r * sums_.cols * size_of(dtype);
      store_float(c.out.dtype, k_.out[size_t(c.output)].raw(), tile.first_row + r, sum_run(dtype, row, sums_.cols, 0));
    }
  }

  // body(task, tiles) for each task; what every tile of a task needs is loaded first.
  template <class Body>
  void for_tasks(int64_t tasks, Body body) const {
    const int lanes = int(tile_lanes(program_, k_.lanes));
    parallel_for(
        tasks,
        [&](int64_t task, int lane) {
          load_singles(lane_tiles(lane));
          body(task, lane_tiles(lane));
          if (places_.streams) stream_fence();
        },
        lanes);
  }

  void run_elements() const {
    const int64_t n = program_.shape.numel();
    for_tasks((n + kTaskElements - 1) / kTaskElements, [&](int64_t task, std::byte* tiles) {
      const int64_t end = std::min(n, (task + 1) * kTaskElements);
      for (int64_t at = task * kTaskElements; at < end; at += places_.elements) evaluate({at, std::min(places_.elements, end - at)}, tiles);
    });
  }

  void run_sums() const {
    const SumCut cut = sum_cut(sums_.rows, sums_.cols);
    if (cut.slices == 1 && sums_.cols <= places_.elements) return run_rows();
    const int64_t units = sums_.rows * cut.slices, grain = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(cut.each, 1));
    for_tasks((units + grain - 1) / grain, [&](int64_t task, std::byte* tiles) {
      for (int64_t unit = task * grain; unit < std::min(units, (task + 1) * grain); ++unit) run_slice(unit, cut, tiles);
    });
    if (cut.slices > 1) join(cut);
  }
  // Short rows, as many as fit into a tile.
  void run_rows() const {
    const int64_t at_once = places_.elements / sums_.cols, grain = std::max<int64_t>(1, kTaskElements / sums_.cols);
    for_tasks((sums_.rows + grain - 1) / grain, [&](int64_t task, std::byte* tiles) {
      const int64_t end = std::min(sums_.rows, (task + 1) * grain);
      for (int64_t row = task * grain; row < end; row += at_once) {
        const int64_t rows = std::min(at_once, end - row);
        evaluate({row * sums_.cols, rows * sums_.cols, rows, row}, tiles);
      }
    });
  }
  void run_slice(int64_t unit, const SumCut& cut, std::byte* tiles) const {
    const int64_t row = unit / cut.slices, slice = unit % cut.slices;
    const int64_t begin = std::min(sums_.cols, slice * cut.each), end = std::min(sums_.cols, begin + cut.each);
    double totals[FusedProgram::kMaxCalls] = {};
    for (int64_t at = begin; at < end; at += places_.elements)
      evaluate({row * sums_.cols + at, std::min(places_.elements, end - at), 0, 0, totals}, tiles);
    int sum = 0;
    for (const FusedCall& c : program_.calls) {
      if (!c.op->traits.sums) continue;
      if (cut.slices > 1) {
        partial_of(sum)[slice * sums_.rows + row] = totals[sum];
      } else {
        store_float(c.out.dtype, k_.out[size_t(c.output)].raw(), row, totals[sum]);
      }
      ++sum;
    }
  }
  double* partial_of(int sum) const { return reinterpret_cast<double*>(partial_ + sum * sums_.workspace); }
  void join(const SumCut& cut) const {
    int sum = 0;
    for (const FusedCall& c : program_.calls) {
      if (!c.op->traits.sums) continue;
      const double* partial = partial_of(sum++);
      for (int64_t row = 0; row < sums_.rows; ++row) {
        double value = partial[row];
        for (int64_t slice = 1; slice < cut.slices; ++slice) value += partial[slice * sums_.rows + row];
        store_float(c.out.dtype, k_.out[size_t(c.output)].raw(), row, value);
      }
    }
  }

  const FusedProgram& program_;
  const Places places_;
  const Sums sums_;
  const KernelArgs& k_;
  std::byte* partial_;
  std::byte* tiles_;
  std::array<Loop, FusedProgram::kMaxInputs> loops_;
  std::array<std::byte*, kMaxValues> memory_;
};
}  // namespace

void run_fused(const KernelArgs& k) { Evaluation(*k.as<FusedParams>().program, k).run(); }

void book_fused(Plan& p) {
  const FusedProgram& program = *p.params.as<FusedParams>().program;
  const Places places = places_of(program);
  const Sums sums = sums_of(program);
  p.workspace = checked_sum({checked_product({tile_lanes(program, p.profile.lanes), places.tiles, places.tile_bytes}), checked_product({sums.count, sums.workspace})});
}
}  // namespace reckon::cpu
