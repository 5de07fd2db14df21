// backend/cpu/embedding: rows of a table by index, with learned positions, and their gradients.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// y[i] = table[ids[i]] + positions[first_position + i % T], added in float32 (float64 for f64) and rounded once.
/// An id outside [0, vocab), or a position beyond the table, gives a row of NaN; nothing is read out of bounds.
/// Types may differ (a float32 table into bfloat16 rows), except that f64 goes only with f64.
struct Embedding {
  DType table_dtype = DType::f32, y_dtype = DType::f32;
  int64_t rows = 0, vocab = 0, cols = 0;
  const int32_t* ids = nullptr;     // [rows]
  const void* table = nullptr;      // [vocab, cols]
  const void* positions = nullptr;  // [max_positions, cols] in table_dtype; null: none
  int64_t max_positions = 0;
  int64_t T = 1;                            // rows of one sequence
  const int32_t* first_position = nullptr;  // [1], of row 0 of each sequence; null: 0
  void* y = nullptr;                        // [rows, cols]
};
void embedding(const Embedding& args);

/// dtable[ids[i]] += dy[i] in order of i, and dpositions[i % T] += dy[i] in order of i; either may be null.
/// Invalid ids and positions are left out. The gradients are f32, or f64 for f64; unless `accumulate`, they are set to 0 first.
struct EmbeddingBack {
  DType dtype = DType::f32;  // of dy
  int64_t rows = 0, vocab = 0, cols = 0;
  const int32_t* ids = nullptr;  // [rows]
  const void* dy = nullptr;      // [rows, cols]
  void* dtable = nullptr;        // [vocab, cols]
  void* dpositions = nullptr;    // [max_positions, cols]
  int64_t max_positions = 0, T = 1;
  bool accumulate = false;
};
void embedding_back(const EmbeddingBack& args);
}  // namespace reckon::cpu
