// backend/cpu/rope: rotary position embedding on packed rows. Plain pointers; it does not know what the heads are for.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Rows [B * T, width]: the first `rotated_heads` runs of `head_dim` elements of a row are rotated, the rest is copied.
struct RopeShape {
  int64_t rows = 0;           // B * T
  int64_t tokens = 1;         // T: row r is token r % T
  int64_t width = 0;          // elements of a row, >= rotated_heads * head_dim
  int64_t rotated_heads = 0;  // query heads + key heads of a packed qkv row
  int64_t head_dim = 64;      // D, even, at most 256
  double theta = 10000.0;
  DType dtype = DType::f32;  // f32, f64, bf16 or f16
};

/// Scratch bytes: cos and sin tables [T, D / 2], in f32 (f64 for f64).
int64_t rope_workspace(const RopeShape& shape);

/// Turns the pair (x[i], x[i + D/2]) of each head by the angle p * theta^(-2i/D), p = r % T + position_offset[0] (0 if null; read when the
/// kernel runs); `inverse` turns back, which is also the gradient. `to` may equal `from`. Angles are exact in double: HF Llama's
/// rotate-half convention. Su et al. 2021, arXiv:2104.09864.
void rope(const RopeShape& shape, const void* from, void* to, const int64_t* position_offset, bool inverse, void* workspace);
}  // namespace reckon::cpu
