// Embedding rows and their gradients against a plain loop; invalid ids; threads.
#include "reckon/backend/cpu/embedding.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
std::vector<int32_t> some_ids(int64_t rows, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < rows; ++i) {  // few distinct ids: their gradients collide
    const uint32_t draw = philox(1, 0, uint64_t(i))[0];
    ids.push_back(i % 11 == 4 ? (i % 2 ? -1 : int32_t(vocab)) : int32_t(draw % uint64_t(std::min<int64_t>(vocab, 9))));
  }
  return ids;
}

bool valid(int32_t id, int64_t vocab) { return id >= 0 && id < vocab; }

TEST(RowsEmbedding, ForwardMatchesReference) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const DType y_dtype : kFloats) {
        if ((dtype == DType::f64) != (y_dtype == DType::f64)) continue;
        for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 3}, {1, 1}, {30, 65}, {12, 4100}}) {
          for (const bool positioned : {false, true}) {
            constexpr int64_t kVocab = 13, kT = 6, kMax = 8;
            const auto ids = some_ids(rows, kVocab);
            const Buffer table = uniform(dtype, kVocab * cols, 1), positions = uniform(dtype, kMax * cols, 2);
            Buffer y(y_dtype, rows * cols);
            const int32_t first = 1;
            Embedding a{.table_dtype = dtype,
                        .y_dtype = y_dtype,
                        .rows = rows,
                        .vocab = kVocab,
                        .cols = cols,
                        .ids = ids.data(),
                        .table = table.data(),
                        .T = kT};
            a.y = y.data();
            if (positioned) a.positions = positions.data(), a.max_positions = kMax, a.first_position = &first;
            embedding(a);
            std::vector<double> want;
            for (int64_t i = 0; i < rows * cols; ++i) {
              const int32_t id = ids[size_t(i / cols)];
              const double p = positioned ? positions[(first + i / cols % kT) * cols + i % cols] : 0;
              want.push_back(valid(id, kVocab) ? table[id * cols + i % cols] + p : std::nan(""));
            }
            expect_near(y, want, epsilon(statistics_dtype(dtype)), "y");
          }
        }
      }
  });
}

// Results that go past the caches, with conversion and positions: each row is that of a call for it alone.
TEST(RowsEmbedding, ManyRowsAreThoseOfOne) {
  for (const auto& [dtype, y_dtype] :
       {std::pair{DType::f32, DType::bf16}, {DType::bf16, DType::f32}, {DType::f32, DType::f32}, {DType::f64, DType::f64}})
    for (const bool positioned : {false, true}) {
      constexpr int64_t kRows = 2300, kCols = 4100, kVocab = 40, kT = 50;
      const auto ids = some_ids(kRows, kVocab);
      const Buffer table = uniform(dtype, kVocab * kCols, 1), positions = uniform(dtype, kT * kCols, 2);
      Buffer y(y_dtype, kRows * kCols), one(y_dtype, kCols);
      Embedding a{.table_dtype = dtype,
                  .y_dtype = y_dtype,
                  .rows = kRows,
                  .vocab = kVocab,
                  .cols = kCols,
                  .ids = ids.data(),
                  .table = table.data(),
                  .T = kT};
      if (positioned) a.positions = positions.data(), a.max_positions = kT;
      a.y = y.data();
      embedding(a);
      for (const int64_t row : {int64_t(0), int64_t(4), int64_t(1111), kRows - 1}) {
        Embedding alone = a;
        const int32_t first = int32_t(row % kT);
        alone.rows = alone.T = 1, alone.ids = ids.data() + row, alone.first_position = &first, alone.y = one.data();
        embedding(alone);
        EXPECT_EQ(
            std::memcmp(one.data(), static_cast<const char*>(y.data()) + row * kCols * size_of(y_dtype), size_t(kCols * size_of(y_dtype))),
            0)
            << name_of(dtype) << " " << name_of(y_dtype) << " row " << row;
      }
    }
}

TEST(RowsEmbedding, PositionBeyondTheTableIsNaN) {
  const std::vector<int32_t> ids = {0, 0, 0};
  const Buffer table = uniform(DType::f32, 4, 1);
  Buffer y(DType::f32, 12);
  Embedding a{
      .rows = 3, .vocab = 1, .cols = 4, .ids = ids.data(), .table = table.data(), .positions = table.data(), .max_positions = 1, .T = 3};
  a.y = y.data();
  embedding(a);
  EXPECT_EQ(y[1], 2 * table[1]);
  EXPECT_TRUE(std::isnan(y[4]) && std::isnan(y[8]));
}

TEST(RowsEmbedding, BackwardMatchesReference) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 3}, {1, 1}, {600, 130}, {90, 300}}) {
        constexpr int64_t kVocab = 13, kT = 30, kMax = 40;
        const DType stat = statistics_dtype(dtype);
        const auto ids = some_ids(rows, kVocab);
        const Buffer dy = uniform(dtype, rows * cols, 3);
        for (const bool accumulate : {false, true}) {
          std::vector<double> want(size_t(kVocab * cols), accumulate ? 2 : 0), pwant(size_t(kMax * cols), accumulate ? 2 : 0);
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t c = 0; c < cols; ++c) {
              if (valid(ids[size_t(i)], kVocab)) want[size_t(ids[size_t(i)] * cols + c)] += dy[i * cols + c];
              pwant[size_t(i % kT * cols + c)] += dy[i * cols + c];
            }
          expect_same_on_any_threads([&] {
            Buffer dtable(stat, kVocab * cols, 2), dpositions(stat, kMax * cols, 2);
            EmbeddingBack b{.dtype = dtype, .rows = rows, .vocab = kVocab, .cols = cols, .ids = ids.data(), .dy = dy.data()};
            b.dtable = dtable.data(), b.dpositions = dpositions.data(), b.max_positions = kMax, b.T = kT, b.accumulate = accumulate;
            embedding_back(b);
            const double walk = std::sqrt(double(rows)) * epsilon(stat);
            expect_near(dtable, want, walk * std::max(1.0, max_abs(want)), "dtable");
            expect_near(dpositions, pwant, walk * std::max(1.0, max_abs(pwant)), "dpositions");
            return std::vector<Buffer>{dtable, dpositions};
          });
        }
      }
  });
}
}  // namespace
}  // namespace reckon::cpu
