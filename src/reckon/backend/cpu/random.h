// backend/cpu/random: keyed random fills. Element i of a fill depends on the key and on i alone: not on the fill's size or the threads.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Fills take elements [first, first + n) of the stream named by the key (base/philox.h), so that a shard holds what the whole would.
/// data [n] is f32, f64, bf16 or f16, unless said otherwise; the halves are the float32 values, rounded.

/// low + (high - low) * u with u uniform in [0, 1): 24 bits, 53 for f64. Rounding may give `high` itself.
void fill_uniform(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double low, double high);
/// mean + std * z with z normal (Box & Muller 1958); |z| is at most 5.8 (8.6 for f64).
void fill_normal(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double mean, double std);
/// The normal distribution cut to [low, high] (absolute bounds), by its inverse distribution function (Wichura 1988, AS 241). std > 0, low
/// < high.
void fill_truncated_normal(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double mean, double std, double low,
                           double high);
/// Whole numbers in [low, high), at most 2^32 of them, by the upper half of a 32-bit word's product with their count (Lemire 2019); of any
/// dtype that holds them.
void fill_integers(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, int64_t low, int64_t high);
/// 1 with this probability, else 0; of any dtype.
void fill_bernoulli(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double probability);
}  // namespace reckon::cpu
