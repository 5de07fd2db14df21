// backend/cpu/fused_blocks: the quick way for fused groups of float32, bfloat16 and bool values: all calls on one block of some vectors,
// then the next, so that reading memory overlaps arithmetic. It knows neither operations nor where blocks come from.
#pragma once
#include <cstddef>
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Elements of a block: few, so that it is loaded while the last one is computed; many against the cost of choosing an operation.
inline constexpr int64_t kBlockElements = 512;

/// bool values are 0 and 1 in float32, bfloat16 values are held in float32. load: a source of bfloat16 or bool.
enum class BlockCode : uint8_t {
  none,
  load,
  copy,
  affine,
  neg,
  exp,
  log,
  sqrt,
  rsqrt,
  square,
  reciprocal,
  abs,
  add,
  sub,
  mul,
  div,
  max,
  min,
  pow,
  equal,
  less,
  less_equal,
  where,
  tanh,
  sigmoid,
  relu,
  gelu,
  silu,
  tanh_back,
  sigmoid_back,
  relu_back,
  gelu_back,
  silu_back
};

/// Floats that a call reads or writes: those of the tile itself, or one block that is used again for each (a register).
struct BlockOperand {
  float* base;
  bool moves;
  float* at(int64_t element) const { return moves ? base + element : base; }
};
/// Where a result goes besides: elements of a tile, in their dtype; null: nowhere.
struct BlockSink {
  std::byte* data;
  DType dtype;
  bool streams;
};
/// Without defaults: arrays of it are made for every tile. What is left out of an initializer is 0.
struct BlockCall {
  BlockCode code;
  bool rounds;        // the result to bfloat16
  uint8_t flops;      // an element, by docs/flops.md
  uint8_t fetches;    // bit k: in[k], or the source, comes from memory: later elements are fetched ahead
  float alpha, beta;  // of affine
  BlockOperand in[3], out;
  const std::byte* source;  // of load
  DType source_dtype;
  BlockSink sinks[2];
};

/// Runs all calls on n elements, block by block, in the calling thread. A result may lie on an input.
void run_blocks(const BlockCall* calls, int count, int64_t n);
}  // namespace reckon::cpu
