// backend/cpu/attention_pairs: attention's small products for machines that multiply pairs of bfloat16 (AVX512_BF16), twice as fast as
// float32. Two neighbours along the sum lie in one 32-bit word, the earlier one low. It knows nothing of heads, masks or softmax.
#pragma once
#include <cstdint>

namespace reckon::cpu::detail {

/// Whether this machine does; then attention's vectors hold 16 floats.
bool multiplies_pairs();

/// What a product does with its result: c = factor * ab, c += ab, c = factors[row] * c + ab.
enum class PairsInto { scale, add, scale_and_add };

/// One small product c[m][n] (op)= sum over k of a(m, k) * b[k][n]; k counts pairs, strides are in words and floats.
struct PairProduct {
  const uint32_t* a;
  int64_t a_row, a_step;  // a(m, k) = a[m * a_row + k * a_step]
  const uint32_t* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  int64_t pairs;
  float factor;          // of scale
  const float* factors;  // of scale_and_add
};
/// For `rows` rows and `vecs` vectors of 16 columns.
void pair_product(PairsInto into, const PairProduct& p, int64_t rows, int64_t vecs);

/// to[i] = the pair (first[i], second[i]), rounded to nearest even; n is a multiple of 16. to may be first.
void round_to_pairs(const float* first, const float* second, int64_t n, uint32_t* to);
/// to[0..n) = from[0..n), rounded to nearest even; n is a multiple of 16. to may be from.
void round_to_row(const float* from, int64_t n, uint16_t* to);
/// to[i] = the pair (first[i], second[i]); n is a multiple of 16.
void pair_rows(const uint16_t* first, const uint16_t* second, int64_t n, uint32_t* to);
/// to[c * to_row + r] = from[r * from_row + c]; rows and columns are multiples of 4.
void transpose_words(const uint32_t* from, int64_t rows, int64_t columns, int64_t from_row, uint32_t* to, int64_t to_row);
}  // namespace reckon::cpu::detail
