// backend/cpu/embedding: forward is one copy a row, past the caches if the result is beyond them. Backward gives each task its own columns,
// so that rows of the same id add up in order without locks, at any number of threads.
#include "reckon/backend/cpu/embedding.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/embedding.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_held-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// y[to, to + cols) = table[from, ...) + positions[at, ...) (at < 0: none).
void embed_row(const Embedding& a, int64_t from, int64_t at, int64_t to, bool streams) {
  HWY_ALIGN float table[kStored], position[kStored];
  RowWriter out(a.y_dtype, a.y, streams);
  for_stores(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    const float* xs = read_chunk(a.table_dtype, a.table, from + c, n, table);
    const float* ps = at < 0 ? nullptr : read_chunk(a.table_dtype, a.positions, at + c, n, position);
    float* ys = out.at(to + c);
    for_vectors(n, [&](int64_t i, auto part)
                       RECKON_VEC { part.store(ps ? hn::Add(part.load(xs + i), part.load(ps + i)) : part.load(xs + i), ys + i); });
    out.done(to + c, n);
  });
}

// to[0, n) += dy[at, at + n), n <= kChunk.
void add_row(DType dtype, const void* dy, int64_t at, int64_t n, float* to) {
  HWY_ALIGN float buffer[kChunk];
  const float* from = read_chunk(dtype, dy, at, n, buffer);
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(part.count());
    part.store(hn::Add(part.load(to + i), part.load(from + i)), to + i);
  });
}

// Columns [c, c + n) of both gradients, over all rows in order.
void embed_back_columns(const EmbeddingBack& a, int64_t c, int64_t n) {
  float *dtable = static_cast<float*>(a.dtable), *dpositions = static_cast<float*>(a.dpositions);
  for (int64_t i = 0; i < a.rows; ++i) {
    const int64_t id = a.ids[i];
    if (dtable && id >= 0 && id < a.vocab) add_row(a.dtype, a.dy, i * a.cols + c, n, dtable + id * a.cols + c);
    if (dpositions && i % a.T < a.max_positions) add_row(a.dtype, a.dy, i * a.cols + c, n, dpositions + i % a.T * a.cols + c);
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cstring>
#include <limits>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(embed_row);
HWY_EXPORT(embed_back_columns);

// Columns of one backward task: a few cache lines, so that even a narrow model has tasks for several threads.
constexpr int64_t kColumns = 64;

void embed_row_f64(const Embedding& a, int64_t from, int64_t at, int64_t to) {
  const double *table = static_cast<const double*>(a.table), *positions = static_cast<const double*>(a.positions);
  for (int64_t c = 0; c < a.cols; ++c) static_cast<double*>(a.y)[to + c] = table[from + c] + (at < 0 ? 0 : positions[at + c]);
}

void embed_back_columns_f64(const EmbeddingBack& a, int64_t begin, int64_t n) {
  double *dtable = static_cast<double*>(a.dtable), *dpositions = static_cast<double*>(a.dpositions);
  for (int64_t i = 0; i < a.rows; ++i) {
    const double* dy = static_cast<const double*>(a.dy) + i * a.cols;
    const int64_t id = a.ids[i];
    for (int64_t c = begin; c < begin + n; ++c) {
      RECKON_COUNT_VECTOR((dtable && id >= 0 && id < a.vocab) + (dpositions && i % a.T < a.max_positions));
      if (dtable && id >= 0 && id < a.vocab) dtable[id * a.cols + c] += dy[c];
      if (dpositions && i % a.T < a.max_positions) dpositions[i % a.T * a.cols + c] += dy[c];
    }
  }
}

void embed_one(const Embedding& a, int64_t row, int64_t first, bool streams) {
  const int64_t id = a.ids[row], position = a.positions ? first + row % a.T : 0;
  if (id < 0 || id >= a.vocab || position < 0 || (a.positions && position >= a.max_positions)) {
    for (int64_t c = 0; c < a.cols; ++c) store_float(a.y_dtype, a.y, row * a.cols + c, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const int64_t from = id * a.cols, at = a.positions ? position * a.cols : -1, to = row * a.cols;
  if (a.table_dtype == a.y_dtype && !a.positions) {
    const int64_t bytes = size_of(a.y_dtype);
    const char* const source = static_cast<const char*>(a.table) + from * bytes;
    char* const place = static_cast<char*>(a.y) + to * bytes;
    return streams ? stream_run(source, place, a.cols * bytes) : void(std::memcpy(place, source, size_t(a.cols * bytes)));
  }
  if (a.y_dtype == DType::f64) return embed_row_f64(a, from, at, to);
  HWY_DYNAMIC_DISPATCH(embed_row)(a, from, at, to, streams);
}
// A row lies anywhere: the processor foresees its rest, not where it begins.
void fetch_row(const Embedding& a, int64_t row) {
  constexpr int64_t kBeginning = 2048;
  const int64_t bytes = a.cols * size_of(a.table_dtype);
  const char* const first = static_cast<const char*>(a.table) + a.ids[row] * bytes;
  for (int64_t line = 0; line < std::min(bytes, kBeginning); line += 64) __builtin_prefetch(first + line);
}
}  // namespace

void embedding(const Embedding& a) {
  RECKON_ASSERT(is_float(a.table_dtype) && is_float(a.y_dtype) && (a.table_dtype == DType::f64) == (a.y_dtype == DType::f64));
  const int64_t first = a.first_position ? *a.first_position : 0;
  const RowTasks tasks = row_tasks(a.rows, a.cols * (size_of(a.table_dtype) + size_of(a.y_dtype)), a.cols * size_of(a.y_dtype));
  parallel_range(a.rows, tasks.rows_each, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (row + 1 < end) fetch_row(a, row + 1);
      embed_one(a, row, first, tasks.streams);
    }
    if (tasks.streams) stream_fence();
  });
}

void embedding_back(const EmbeddingBack& a) {
  RECKON_ASSERT(is_float(a.dtype));
  const int64_t bytes = size_of(statistics_dtype(a.dtype));
  if (!a.accumulate && a.dtable) fill_zero(a.dtable, a.vocab * a.cols * bytes);
  if (!a.accumulate && a.dpositions) fill_zero(a.dpositions, a.max_positions * a.cols * bytes);
  parallel_range(a.cols, kColumns, [&](int64_t begin, int64_t end) {
    if (a.dtype == DType::f64) return embed_back_columns_f64(a, begin, end - begin);
    HWY_DYNAMIC_DISPATCH(embed_back_columns)(a, begin, end - begin);
  });
}
}  // namespace reckon::cpu
#endif
