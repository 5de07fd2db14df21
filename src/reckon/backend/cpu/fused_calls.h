// backend/cpu/fused_calls: each element-wise operation on a run of contiguous elements, in the calling thread: what the evaluator of fused
// groups calls on its tiles. The kernels are those of the operations themselves, so the bits are, too.
#pragma once
#include "reckon/backend/cpu/fused_blocks.h"
#include "reckon/engine/op.h"

namespace reckon::cpu {
struct TileCall {
  const void* in[3];
  void* out;
  int64_t n;
  DType in_dtype;  // of the last input: of `where` and all others the type that is computed with
  DType out_dtype;
  const Params* params;
};
using TileFunction = void (*)(const TileCall&);
/// The function of an operation by its id; null if it is not element-wise.
TileFunction tile_function(int id);

/// The same operation on blocks; code none: it has no such form.
struct BlockRow {
  BlockCode code = BlockCode::none;
  uint8_t flops = 0;   // an element
  bool rounds = true;  // false: a bfloat16 result is one of its inputs, bit for bit
};
BlockRow block_row(int id);
}  // namespace reckon::cpu
