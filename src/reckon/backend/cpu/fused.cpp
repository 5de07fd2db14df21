#include "reckon/backend/cpu/fused.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "reckon/backend/cpu/fused_blocks.h"
#include "reckon/backend/cpu/fused_calls.h"
#include "reckon/backend/cpu/fused_places.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/backend/cpu/rows_reduce.h"
#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/parallel.h"
#include "reckon/ops/rows.h"

namespace reckon::cpu {
namespace {
int64_t lanes_of(const FusedProgram& program, int lanes) {
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
  Evaluation(const FusedProgram& program, const KernelArgs& k) : program_(program), places_(program), sums_(sums_of(program)), k_(k) {
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
  std::byte* lane_tiles(int lane) const { return tiles_ + lane * places_.lane_bytes(); }
  int64_t bytes_of(int v) const { return size_of(program_.spec(v).dtype); }
  std::byte* at(int v, const Tile& tile, std::byte* tiles) const {
    return places_.tile[size_t(v)] >= 0 ? tiles + places_.tile[size_t(v)] * places_.tile_bytes
                                        : memory_[size_t(v)] + tile.begin * bytes_of(v);
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
    places_.by_blocks ? evaluate_blocks(tile, tiles) : evaluate_calls(tile, tiles);
  }

  // Each call on the whole tile.
  void evaluate_calls(const Tile& tile, std::byte* tiles) const {
    int sum = 0;
    for (int i = 0; i < int(program_.calls.size()); ++i) {
      const FusedCall& c = program_.calls[size_t(i)];
      const int result = program_.first_result() + i;
      TileCall call{{}, nullptr, tile.n, DType::f32, c.out.dtype, &c.params};
      for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
        std::byte* operand = at(c.in[k], tile, tiles);
        if (places_.loaded_at[size_t(c.in[k])] == i && std::find(c.in, c.in + k, c.in[k]) == c.in + k)
          load(c.in[k], tile.begin, tile.n, operand);
        call.in[k] = operand;
        call.in_dtype = program_.spec(c.in[k]).dtype;
      }
      if (c.op->traits.sums) {
        add_up(c, sum++, call.in[0], tile);
        continue;
      }
      call.out = at(result, tile, tiles);
      tile_function(c.op->id)(call);
      if (c.output >= 0 && places_.tile[size_t(result)] >= 0)
        store(call.out, memory_[size_t(result)] + tile.begin * bytes_of(result), tile.n * bytes_of(result));
    }
  }

  // All calls on one block after the other; then the sums, over the whole tile.
  void evaluate_blocks(const Tile& tile, std::byte* tiles) const {
    for (int v = 0; v < program_.first_result(); ++v)
      if (places_.loaded_at[size_t(v)] >= 0) load(v, tile.begin, tile.n, at(v, tile, tiles));
    BlockCall calls[kMaxFusedValues];
    run_blocks(calls, block_calls(tile, tiles, calls), tile.n);
    int sum = 0;
    for (const FusedCall& c : program_.calls)
      if (c.op->traits.sums) add_up(c, sum++, at(c.in[0], tile, tiles), tile);
  }
  int block_calls(const Tile& tile, std::byte* tiles, BlockCall* to) const {
    int count = 0;
    uint32_t fetched = 0;  // inputs
    const auto fetches = [&](int v) {
      const bool from_memory = v >= 0 && v < program_.first_result() && places_.streams && places_.tile[size_t(v)] < 0;
      if (!from_memory || (fetched >> v & 1u)) return false;
      fetched |= 1u << v;
      return true;
    };
    for (int i = 0; i < int(program_.calls.size()); ++i) {
      const FusedCall& c = program_.calls[size_t(i)];
      if (c.op->traits.sums) continue;
      for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
        if (places_.widened_at[size_t(c.in[k])] != i || std::find(c.in, c.in + k, c.in[k]) != c.in + k) continue;
        BlockCall& widen = to[count++];
        widen = {.code = BlockCode::load,
                 .fetches = fetches(c.in[k]),
                 .source = at(c.in[k], tile, tiles),
                 .source_dtype = program_.spec(c.in[k]).dtype};
        widen.out = operand(c.in[k], tile, tiles);
      }
      const BlockRow row = block_row(c.op->id);
      const int result = program_.first_result() + i;
      BlockCall& call = to[count++];
      call = {.code = row.code, .rounds = c.out.dtype == DType::bf16 && row.rounds, .flops = row.flops};
      if (row.code == BlockCode::affine) {
        const auto p = c.params.as<AffineParams>();
        call.alpha = float(p.alpha), call.beta = float(p.beta);
      }
      for (int k = 0; k < 3 && c.in[k] >= 0; ++k) {
        call.in[k] = operand(c.in[k], tile, tiles);
        if (call.in[k].moves && fetches(c.in[k])) call.fetches |= uint8_t(1u << k);
      }
      call.out = operand(result, tile, tiles);
      set_sinks(c, result, tile, tiles, call);
    }
    return count;
  }
  BlockOperand operand(int v, const Tile& tile, std::byte* tiles) const {
    const int number = places_.block[size_t(v)];
    if (number < 0) return {reinterpret_cast<float*>(at(v, tile, tiles)), true};
    return {reinterpret_cast<float*>(tiles + places_.registers_at()) + number * kBlockElements, false};
  }
  // What a call writes besides its register, or besides its tile.
  void set_sinks(const FusedCall& c, int result, const Tile& tile, std::byte* tiles, BlockCall& call) const {
    const bool has_tile = places_.tile[size_t(result)] >= 0, in_register = places_.block[size_t(result)] >= 0;
    if (has_tile && in_register) call.sinks[0] = {at(result, tile, tiles), c.out.dtype, false};
    if (c.output >= 0 && (has_tile || in_register))
      call.sinks[1] = {memory_[size_t(result)] + tile.begin * bytes_of(result), c.out.dtype, places_.streams};
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
    const int lanes = int(lanes_of(program_, k_.lanes));
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
    const int64_t n = program_.shape.numel(), grain = fused_grain(places_);
    for_tasks((n + grain - 1) / grain, [&](int64_t task, std::byte* tiles) {
      const int64_t end = std::min(n, (task + 1) * grain);
      for (int64_t at = task * grain; at < end; at += places_.elements) evaluate({at, std::min(places_.elements, end - at)}, tiles);
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
  const FusedPlaces places_;
  const Sums sums_;
  const KernelArgs& k_;
  std::byte* partial_;
  std::byte* tiles_;
  std::array<Loop, FusedProgram::kMaxInputs> loops_;
  std::array<std::byte*, kMaxFusedValues> memory_;
};
}  // namespace

void run_fused(const KernelArgs& k) { Evaluation(*k.as<FusedParams>().program, k).run(); }

void book_fused(Plan& p) {
  const FusedProgram& program = *p.params.as<FusedParams>().program;
  const FusedPlaces places(program);
  const Sums sums = sums_of(program);
  p.workspace = checked_sum(
      {checked_product({lanes_of(program, p.profile.lanes), places.lane_bytes()}), checked_product({sums.count, sums.workspace})});
}
}  // namespace reckon::cpu
