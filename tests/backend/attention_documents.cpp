// tests/backend/attention_documents: rows that hold several documents give what each document gives alone, in the same bits where documents
// begin at tiles; nothing of the others is seen, and bits depend neither on threads nor on lanes.
#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_chunked.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;
using Lengths = std::vector<int64_t>;

/// For each token the first of its document; the lengths of a row are repeated for all of the batch, turned by one for each.
std::vector<int32_t> firsts(int64_t batch, Lengths lengths) {
  std::vector<int32_t> first;
  for (int64_t b = 0; b < batch; ++b) {
    int32_t start = 0;
    for (const int64_t length : lengths) {
      first.insert(first.end(), size_t(length), start);
      start += int32_t(length);
    }
    std::rotate(lengths.begin(), lengths.begin() + 1, lengths.end());
  }
  return first;
}
int64_t sum(const Lengths& lengths) {
  int64_t total = 0;
  for (const int64_t length : lengths) total += length;
  return total;
}
AttentionShape packed(AttentionShape s, const std::vector<int32_t>& first) {
  s.documents = first.data();
  return s;
}

void expect_reference(const AttentionShape& s, int lanes) {
  Call call(s, lanes);
  call.forward();
  call.backward();
  const Reference want = reference_attention(s, call.qkv.doubles(), call.dout.doubles());
  const Tolerance tol = tolerance(s, want, 1, 1);
  for (int64_t i = 0; i < call.out.count(); ++i)
    ASSERT_LE(std::abs(call.out[i] - want.out[size_t(i)]), tol.out) << describe(s) << " out " << i;
  for (int64_t i = 0; i < call.lse.count(); ++i)
    ASSERT_LE(std::abs(call.lse[i] - want.lse[size_t(i)]), tol.lse) << describe(s) << " lse " << i;
  for (int64_t i = 0; i < call.dqkv.count(); ++i)
    ASSERT_LE(std::abs(call.dqkv[i] - want.dqkv[size_t(i)]), tol.dqkv) << describe(s) << " lanes " << lanes << " dqkv " << i;
}

// One-token documents, ends at, before and behind tile edges, one document of many tiles.
const Lengths kRowsOfDocuments[] = {
    {200}, {1, 199}, {199, 1}, {64, 64, 72}, {63, 65, 1, 1, 70}, {128, 1, 63, 8}, {5, 5, 90, 100}, {60, 60, 60, 19, 1}, {65, 127, 8}};

TEST(AttentionDocuments, MatchTheReference) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const Lengths& lengths : kRowsOfDocuments)
      for (int lanes : {1, 5}) {
        const std::vector<int32_t> first = firsts(2, lengths);
        expect_reference(packed({2, 200, 3, 1, 20, dtype}, first), lanes);
        expect_reference(packed({2, 200, 2, 2, 33, dtype}, first), lanes);
      }
  const Lengths ones(70, 1);
  expect_reference(packed({1, 70, 4, 2, 16, DType::f32}, firsts(1, ones)), 2);
}

TEST(AttentionDocuments, RandomLengthsWithAndWithoutAWindow) {
  for (uint64_t draw = 0; draw < 40; ++draw) {
    Lengths lengths;
    for (uint64_t i = 0; sum(lengths) < 300; ++i) lengths.push_back(1 + int64_t(philox(9, draw, i)[0] % (draw % 4 == 0 ? 12 : 150)));
    lengths.back() -= sum(lengths) - 300;
    const std::vector<int32_t> first = firsts(1, lengths);
    AttentionShape s = packed({1, 300, 4, 2, 24, draw % 3 ? DType::f32 : DType::f64}, first);
    if (draw % 2) s.window = 1 + int64_t(philox(9, draw, 1000)[0] % 200);
    expect_reference(s, draw % 5 == 0 ? 5 : 1);
  }
}

// Rows [begin, begin + count) of an array of rows.
bool same_rows(const Array& all, int64_t begin, const Array& one, int64_t width) {
  const size_t bytes = size_t(one.count() * size_of(one.dtype()));
  return std::memcmp(static_cast<const char*>(all.data()) + begin * width * size_of(all.dtype()), one.data(), bytes) == 0;
}
double largest_difference(const Array& all, int64_t begin, const Array& one, int64_t width) {
  double worst = 0;
  for (int64_t i = 0; i < one.count(); ++i) worst = std::max(worst, std::abs(all[begin * width + i] - one[i]));
  return worst;
}

// Where a document begins at a tile, its keys are cut as if it were alone.
TEST(AttentionDocuments, AreWhatEachGivesAlone) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Lengths& lengths : {Lengths{64, 128, 1, 63, 70}, Lengths{10, 54, 100, 1, 1, 60}}) {
      const std::vector<int32_t> first = firsts(1, lengths);
      const AttentionShape s = packed({1, sum(lengths), 6, 2, 24, dtype}, first);
      Call all(s, 2);
      all.forward();
      all.backward();
      const int64_t row = 10 * 24, out = 6 * 24;
      int64_t begin = 0;
      for (const int64_t length : lengths) {
        Call one({1, length, 6, 2, 24, dtype}, 2);
        std::memcpy(one.qkv.data(), static_cast<const char*>(all.qkv.data()) + begin * row * size_of(dtype),
                    size_t(length * row * size_of(dtype)));
        std::memcpy(one.dout.data(), static_cast<const char*>(all.dout.data()) + begin * out * size_of(dtype),
                    size_t(length * out * size_of(dtype)));
        one.forward();
        one.backward();
        const Reference want = reference_attention(one.shape, one.qkv.doubles(), one.dout.doubles());
        const Tolerance tol = tolerance(one.shape, want, 1, 1);
        EXPECT_LE(largest_difference(all.out, begin, one.out, out), 2 * tol.out) << describe(s) << " from " << begin;
        EXPECT_LE(largest_difference(all.dqkv, begin, one.dqkv, row), 2 * tol.dqkv) << describe(s) << " from " << begin;
        if (begin % 64 == 0 || dtype == DType::f64) {
          EXPECT_TRUE(same_rows(all.out, begin, one.out, out)) << describe(s) << " from " << begin;
        }
        begin += length;
      }
    }
}

// Whatever stands in another document changes nothing.
TEST(AttentionDocuments, SeeNothingOfEachOther) {
  const std::vector<int32_t> first = firsts(1, {50, 90, 60});
  for (DType dtype : {DType::f32, DType::f64}) {
    const AttentionShape s = packed({1, 200, 2, 1, 16, dtype}, first);
    Call before(s, 1), after(s, 1);
    for (int64_t i = 50 * 64; i < 140 * 64; ++i) after.qkv.set(i, double(after.qkv[i]) * -3 + 1);
    for (Call* c : {&before, &after}) c->forward(), c->backward();
    for (int64_t t = 0; t < 200; ++t) {
      const bool is_changed = t >= 50 && t < 140;
      const size_t bytes = size_t(64 * size_of(dtype));
      const auto* a = static_cast<const char*>(before.dqkv.data()) + size_t(t) * bytes;
      const auto* b = static_cast<const char*>(after.dqkv.data()) + size_t(t) * bytes;
      EXPECT_EQ(std::memcmp(a, b, bytes) != 0, is_changed) << "token " << t;
    }
  }
}

TEST(AttentionDocuments, InChunksToo) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Lengths& lengths : kRowsOfDocuments)
      for (int lanes : {1, 5}) {
        const std::vector<int32_t> first = firsts(2, lengths);
        const AttentionShape s = packed({2, 200, 3, 1, 20, dtype}, first);
        Call whole(s, lanes);
        whole.forward();
        Chunked parts(s, lanes);
        parts.forward(70);
        parts.backward(70);
        EXPECT_TRUE(parts.whole.out.same_bits(whole.out)) << describe(s);
        const Reference want = reference_attention(s, whole.qkv.doubles(), whole.dout.doubles());
        const double tol = tolerance(s, want, 1, 1).dqkv;
        for (int64_t i = 0; i < whole.dqkv.count(); ++i)
          ASSERT_LE(std::abs(parts.whole.dqkv[i] - want.dqkv[size_t(i)]), tol) << describe(s) << " dqkv " << i;
      }
}

TEST(AttentionDocuments, BitsDoNotDependOnThreadsOrLanes) {
  const std::vector<int32_t> first = firsts(2, {1, 70, 64, 129, 36});
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) expect_same_bits_everywhere(packed({2, 300, 3, 1, 40, dtype}, first));
}

TEST(AttentionDocuments, EveryInstructionSet) {
  const std::vector<int32_t> first = firsts(1, {1, 62, 1, 64, 30, 2});
  for (int64_t disabled : {int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    for (DType dtype : {DType::f32, DType::bf16}) expect_reference(packed({1, 160, 2, 1, 20, dtype}, first), 1);
  }
  hwy::DisableTargets(0);
}
}  // namespace
}  // namespace reckon::test
