// The work that attention books against the work that it does, multiply-adds of what lies beyond the mask included. On every instruction
// set, and with both schedules of the backward pass.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/device.h"
#include "reckon/backend/cpu/vec_targets.h"
// After the choice of targets, which it would make itself.
#include <hwy/targets.h>

#include "reckon/base/parallel.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/ops.h"
#include "tests/backend/attention_chunked.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;

template <class Run>
int64_t counted(Run run) {
  cpu::take_counted();
  run();
  return cpu::take_counted().matmul / 2;
}

void expect_booked(const AttentionShape& s) {
  const int width = cpu::attention_vector_floats();
  for (const int lanes : {1, 5}) {
    Call c(s, lanes);
    if (lanes == 1) {
      EXPECT_EQ(counted([&] { c.forward(); }), cpu::attention_work(s, width)) << describe(s) << " forward, vectors of " << width;
    } else {
      c.forward();
    }
    EXPECT_EQ(counted([&] { c.backward(); }), cpu::attention_back_work(s, lanes, width))
        << describe(s) << " backward, vectors of " << width << ", " << lanes << " lanes";
  }
}

// Every chunk of sequences of `total` tokens, the last first.
void expect_booked_chunks(AttentionShape s, int64_t total, int64_t chunk) {
  const int width = cpu::attention_vector_floats();
  for (const int lanes : {1, 5}) {
    const AttentionShape whole = with_tokens(s, total);
    Chunked c(whole, lanes);
    c.forward(chunk);
    for (const cpu::AttentionChunk& part : c.parts(chunk)) {
      EXPECT_EQ(counted([&] { c.forward_of(part); }), cpu::attention_chunk_work(part, width)) << describe(s) << " from " << part.first;
      EXPECT_EQ(counted([&] { c.backward_of(part); }), cpu::attention_chunk_back_work(part, lanes, width))
          << describe(s) << " from " << part.first << ", backward, vectors of " << width << ", " << lanes << " lanes";
    }
  }
}

template <class Check>
void on_every_target(Check check) {
  const int threads = thread_count();
  set_thread_count(1);  // thousands of tiny parallel regions would take longer than the kernels
  std::vector<int> widths;
  for (const int64_t disabled : {int64_t(0), int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    widths.push_back(cpu::attention_vector_floats());
    check();
  }
  hwy::DisableTargets(0);
  set_thread_count(threads);
  EXPECT_LT(widths.back(), 8) << "the baseline has short vectors";
}

TEST(CountedAttention, ExecutesWhatItBooks) {
  on_every_target([] {
    // Around the edges of vectors, strips and tiles.
    for (const int64_t T : {1, 2, 5, 6, 7, 16, 17, 37, 63, 64, 65, 127, 129, 200})
      for (const int heads : {1, 2, 3, 7})
        for (const bool causal : {true, false}) expect_booked({1, T, heads, 1, 20, DType::f32, causal});
    expect_booked({3, 100, 4, 2, 20, DType::f32});
    for (const int64_t D : {1, 16, 17, 64, 77, 256}) expect_booked({1, 70, 2, 2, D, DType::f32});
    for (const DType dtype : {DType::bf16, DType::f16, DType::f64})
      for (const bool causal : {true, false}) expect_booked({1, 131, 6, 3, 24, dtype, causal});
    expect_booked({1, 40, 65, 1, 4, DType::f32});  // one token's heads fill more than a block of rows
    for (const int64_t T : {1, 64, 65, 127, 200, 390})
      for (const int64_t window : {1, 5, 16, 63, 64, 65, 100, 128, 500})
        for (const int heads : {1, 3}) {
          AttentionShape s{1, T, heads, 1, 20, DType::f32};
          s.window = window;
          expect_booked(s);
          s.dtype = DType::f64;
          expect_booked(s);
        }
    expect_booked({0, 10, 2, 1, 4, DType::f32});
    expect_booked({1, 0, 2, 1, 4, DType::f32});
  });
}

TEST(CountedAttention, ChunksExecuteWhatTheyBook) {
  on_every_target([] {
    for (const int64_t window : {0, 1, 30, 64, 100})
      for (const int64_t chunk : {1, 7, 64, 70, 128})
        for (const int heads : {1, 3}) {
          AttentionShape s{1, 0, heads, 1, 20, DType::f32};
          s.window = window;
          expect_booked_chunks(s, chunk == 1 ? 20 : 330, chunk);
          s.dtype = DType::f64;
          expect_booked_chunks(s, chunk == 1 ? 20 : 150, chunk);
        }
    expect_booked_chunks({2, 0, 4, 2, 24, DType::bf16}, 200, 60);
  });
}

// What lies before a document is not computed and masked, but left out: whole tiles of documents cost what each costs alone.
TEST(CountedAttention, DocumentsCostWhatEachCostsAlone) {
  on_every_target([] {
    const int width = cpu::attention_vector_floats();
    for (const int lanes : {1, 5}) {
      const std::vector<int64_t> lengths = {64, 192, 64, 70};
      std::vector<int32_t> first;
      int64_t forward = 0, backward = 0, tokens = 0;
      for (const int64_t length : lengths) {
        const AttentionShape alone{1, length, 1, 1, 20, DType::f32};
        first.insert(first.end(), size_t(length), int32_t(tokens));
        tokens += length;
        forward += cpu::attention_work(alone, width);
        backward += cpu::attention_back_work(alone, lanes, width);
      }
      AttentionShape s{1, tokens, 1, 1, 20, DType::f32};
      s.documents = first.data();
      Call c(s, lanes);
      EXPECT_EQ(counted([&] { c.forward(); }), forward) << "vectors of " << width;
      EXPECT_EQ(counted([&] { c.backward(); }), backward) << "vectors of " << width << ", " << lanes << " lanes";
      EXPECT_LT(2 * forward, cpu::attention_work({1, tokens, 1, 1, 20, DType::f32}, width));
    }
  });
}

TEST(CountedAttention, ThreadsDoNotCount) {
  const int before = thread_count();
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    expect_booked({1, 300, 3, 1, 40, DType::f32});  // two passes for five lanes
  }
  set_thread_count(before);
}

// What the meter of a device says, by its plan: meta and real alike.
TEST(CountedAttention, TheMeterCountsIt) {
  for (const int lanes : {2, 5}) {
    Flops totals[2];
    int64_t executed = 0;
    for (const Mode mode : {Mode::meta, Mode::real}) {
      const Ref<Device> device = open_cpu(mode, {"cpu", lanes});
      Meter meter;
      cpu::take_counted();
      {
        const MeterScope scope(meter);
        Tensor qkv = zeros(*device, {{2, 90, 5 * 24}, DType::f32});
        qkv.set_requires_grad();
        const Tensor out = attention(qkv, 3, 1, 24);
        backward(out, zeros(*device, out.spec()));
      }
      totals[mode == Mode::real] = meter.total();
      executed = cpu::take_counted().matmul / 2;
    }
    EXPECT_EQ(totals[0], totals[1]);
    EXPECT_EQ(totals[1].matmul, 2 * executed);
    EXPECT_EQ(totals[1].model, (4 + 8) * 2 * 3 * (90 * 91 / 2) * 24);
    EXPECT_GT(totals[1].matmul, totals[1].model);
  }
}

// Another machine's vectors can be planned here: shorter ones leave less behind the mask.
TEST(CountedAttention, AProfileSaysHowLongVectorsAre) {
  const auto planned = [](int vector_floats) {
    const Ref<Device> meta = open_cpu(Mode::meta, {"cpu", 2, vector_floats});
    Meter meter;
    const MeterScope scope(meter);
    attention(empty(*meta, {{1, 256, 3 * 64}, DType::f32}), 1, 1, 64);
    return std::pair(meter.total().matmul, meta->allocator().trace_hash());
  };
  EXPECT_LT(planned(4).first, planned(8).first);
  EXPECT_LT(planned(8).first, planned(16).first);
  EXPECT_EQ(planned(4).second, planned(16).second) << "sizes do not depend on the instruction set";
  EXPECT_EQ(planned(0), planned(cpu::attention_vector_floats()));
  const int64_t needed = 4 * 64 * (256 * 257 / 2);
  EXPECT_GE(planned(4).first, needed);
  EXPECT_LT(double(planned(16).first), 1.15 * double(needed)) << "most tiles lie below the diagonal";
}

TEST(CountedAttention, LongSequencesAreCountedAtOnce) {
  // The closed form against itself, cut in two: tokens [0, T) and what T more see.
  const AttentionShape s{1, int64_t(1) << 24, 1, 1, 1, DType::f32};
  const int64_t work = cpu::attention_work(s, 16), needed = 2 * ((int64_t(1) << 47) + (int64_t(1) << 23));
  EXPECT_GT(work, needed);
  EXPECT_LT(double(work), 17 * double(needed) / 2 * 1.001) << "a head of 1 fills vectors of 16 in one of two products";
  AttentionShape near = s;
  near.window = near.tokens / 2;
  EXPECT_LT(cpu::attention_work(near, 16), work);
  EXPECT_GT(cpu::attention_work(near, 16), work / 4 * 3) << "three quarters of the pairs";
  EXPECT_THROW(cpu::attention_work({int64_t(1) << 20, int64_t(1) << 24, 1, 1, 256, DType::f32}, 16), Error);
}
}  // namespace
}  // namespace reckon::test
