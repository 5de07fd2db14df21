// backend/cpu/optimizer_8bit: AdamW with moments of 8 bits, in blocks that each have a scale.
#pragma once
#include "reckon/backend/cpu/optimizer.h"

namespace reckon::cpu {

/// Codes of the dynamic map (dynamic_map.h), and for each block of kStateBlock elements its largest magnitude as scale: value = map[code] *
/// scale.
struct States8bit {
  uint8_t* m = nullptr;      // [n], signed
  float* m_scale = nullptr;  // [n / kStateBlock]
  uint8_t* v = nullptr;      // [n], unsigned
  float* v_scale = nullptr;  // [n / kStateBlock]
};
/// optimizer_step of adamw with these states: they are restored, updated, and after the weights quantized again, to the nearest value of
/// the map. A second moment that is not 0 never becomes 0, as its root divides. args.n and args.first are multiples of kStateBlock; args.m
/// and args.v are not used; parameters are f32, bf16 or f16. Every block is one task's, so the bits do not depend on threads. Dettmers et
/// al. 2022, arXiv:2110.02861.
void adamw8bit_step(const OptimizerStep& args, const States8bit& states);
}  // namespace reckon::cpu
