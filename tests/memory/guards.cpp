// Guards: a run whose blocks are poisoned, or lie in pages of their own, gives the bits of the ordinary run; and a kernel that touches what
// is not its own is caught.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>

#include "reckon/engine/call.h"
#include "reckon/ops/ops.h"
#include "reckon/plan/run_plan.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
constexpr Guard kGuards[] = {Guard::none, Guard::poison, Guard::mapping};
std::string name_of(Guard guard) { return guard == Guard::none ? "none" : guard == Guard::poison ? "poison" : "mapping"; }

Config two_steps(const std::string& name, const Overrides& more) {
  Overrides o = {"train.steps=2"};
  o.insert(o.end(), more.begin(), more.end());
  return config(name, o);
}

/// Parameters and optimizer state after two steps and an evaluation; inside the arena of the plan, or where eager placement puts blocks.
State after_run(const Config& c, Guard guard, bool in_arena) {
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), guard);
  if (in_arena) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    Config evaluated = c;
    evaluated.data.path = "any.txt";  // so that the plan has an evaluation
    device->allocator().adopt(plan_run(evaluated, *meta, false).arena);
  }
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 3);
  for (int64_t i = 0; i < 2; ++i) EXPECT_TRUE(step.run(i, batches).updated);
  if (c.model.cruncher) return state_of(step);
  EXPECT_TRUE(std::isfinite(step.evaluate(batches, 1)));
  return state_of(step);
}

TEST(Guards, GiveTheSameBits) {
  const std::pair<std::string, Overrides> runs[] = {
      {"gpt2", {}},
      {"gpt2", {"train.precision=bf16", "train.recompute=full", "train.grad_accum=2"}},
      {"llama", {"train.precision=bf16", "optim.name=momentum"}},
      {"gpt2", {"train.precision=fp8", "train.recompute=selective", "train.grad_accum=2"}},
      {"qwen", {"train.recompute=full", "optim.name=adagrad", "optim.clip_norm=0"}},
      {"cruncher", {"optim.name=sgd"}},
      {"gpt2", {"optim.name=lamb", "train.precision=bf16"}},
  };
  for (const auto& [name, more] : runs) {
    const Config c = two_steps(name, more);
    const State plain = after_run(c, Guard::none, false);
    for (const Guard guard : kGuards)
      for (const bool in_arena : {false, true}) {
        SCOPED_TRACE(text("{} guard={} arena={}", name, name_of(guard), in_arena));
        expect_same(plain, after_run(c, guard, in_arena));
      }
  }
}

// ---- kernels that are wrong

constexpr int64_t kElements = 1024;  // a whole page of float32

// x [n] -> y [n], with a mistake.
void plan_copy(Plan& p) { p.output(p.in[0]); }
void read_beyond_the_end(const KernelArgs& k) {
  const float* x = k.in[0].data<float>();
  float* y = k.out[0].data<float>();
  for (int64_t i = 0; i < k.out[0].numel(); ++i) y[i] = x[i + 1];
}
void read_before_the_start(const KernelArgs& k) {
  const float* x = k.in[0].data<float>();
  float* y = k.out[0].data<float>();
  for (int64_t i = 0; i < k.out[0].numel(); ++i) y[i] = x[i - 1];
}
void write_beyond_the_end(const KernelArgs& k) {
  const float* x = k.in[0].data<float>();
  float* y = k.out[0].data<float>();
  for (int64_t i = 0; i <= k.out[0].numel(); ++i) y[i] = x[std::min(i, k.out[0].numel() - 1)];
}
void read_before_writing(const KernelArgs& k) {
  const float* x = k.in[0].data<float>();
  float* y = k.out[0].data<float>();
  for (int64_t i = 0; i < k.out[0].numel(); ++i) y[i] = x[i] + 0 * y[i];
}
const float* kept_address = nullptr;  // as a kernel would that remembers an input of an earlier call
void read_an_old_input(const KernelArgs& k) {
  std::fill_n(k.out[0].data<float>(), k.out[0].numel(), 0.0f);
  std::memcpy(k.out[0].raw(), kept_address, kElements * sizeof(float));
}

OpDef row(const char* name, Kernel kernel) { return {-1, name, plan_copy, nullptr, {}, {.own_kernel = kernel}}; }

Tensor input(Device& device) { return full(device, {{kElements}, DType::f32}, 1.0); }
int64_t nonfinite(const Tensor& t) { return t.device().count_nonfinite(t.raw(), t.dtype(), t.numel()); }

// Fresh memory: whatever lay there before must not help.
int64_t nonfinite_results(const OpDef& op, Guard guard) {
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), guard);
  { const Tensor earlier = input(*device), other = input(*device); }
  const Tensor x = input(*device), spare = input(*device);
  return nonfinite(call(op, {x})[0]);
}
int64_t nonfinite_of_freed(Guard guard) {
  static const OpDef op = row("read_an_old_input", read_an_old_input);
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), guard);
  // As large as two blocks: no result takes the place that becomes free.
  const Tensor large = full(*device, {{2 * kElements}, DType::f32}, 1.0);
  Tensor gone = input(*device);
  kept_address = gone.data<float>();
  const Tensor y = call(op, {large})[0];
  EXPECT_EQ(nonfinite(y), 0) << "while it lives it may be read";
  gone = Tensor();
  return nonfinite(call(op, {large})[0]);
}

const OpDef beyond = row("read_beyond_the_end", read_beyond_the_end), ahead = row("read_before_the_start", read_before_the_start),
            writes = row("write_beyond_the_end", write_beyond_the_end), unwritten = row("read_before_writing", read_before_writing);

class WrongKernelDeathTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

template <class F>
void expect_caught(F run) {
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(run(), "AddressSanitizer");  // it is told of every block, and stops the same mistakes earlier
#else
  EXPECT_EXIT(run(), testing::KilledBySignal(SIGSEGV), "");
#endif
}

TEST_F(WrongKernelDeathTest, PagesOfItsOwnStopATouchOutsideOfABlock) {
  expect_caught([] { nonfinite_results(beyond, Guard::mapping); });
  expect_caught([] { nonfinite_results(ahead, Guard::mapping); });
  expect_caught([] { nonfinite_results(writes, Guard::mapping); });
}
TEST_F(WrongKernelDeathTest, PagesOfItsOwnStopATouchAfterItsLife) {
  expect_caught([] { nonfinite_of_freed(Guard::mapping); });
}
// The last page of the arena is followed by one that nobody may touch.
TEST_F(WrongKernelDeathTest, TheArenaEndsInAGuardPage) {
  expect_caught([] {
    const Config c = two_steps("cruncher", {});
    const Ref<Device> meta = open_cpu(Mode::meta), device = open_cpu(Mode::real);
    const int64_t bytes = plan_run(c, *meta, false).arena.bytes;
    const Ref<Device> again = open_cpu(Mode::meta);
    device->allocator().adopt(plan_run(c, *again, false).arena);
    volatile std::byte* base = device->base();
    base[bytes / 4096 * 4096 + 4096] = std::byte{1};
  });
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(WrongKernel, PoisonShowsWhatWasReadAmiss) {
  EXPECT_EQ(nonfinite_of_freed(Guard::none), 0) << "unguarded, the mistake is not seen";
  EXPECT_EQ(nonfinite_of_freed(Guard::poison), kElements);
  EXPECT_EQ(nonfinite_results(unwritten, Guard::poison), kElements);
  EXPECT_EQ(nonfinite_results(unwritten, Guard::mapping), kElements);
}

// Behind x is a hole that is too small for y.
TEST(WrongKernel, PoisonFillsWhatIsFreeBehindABlock) {
  for (const Guard guard : {Guard::none, Guard::poison}) {
    const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), guard);
    const Tensor x = input(*device);
    Tensor behind = full(*device, {{16}, DType::f32}, 1.0);
    const Tensor end = input(*device);
    behind = Tensor();
    EXPECT_EQ(nonfinite(call(beyond, {x})[0]), guard == Guard::poison ? 1 : 0);
  }
}

// Memory that the arena's plan has and no block used yet is NaN, too.
TEST(WrongKernel, PoisonFillsTheArenaFromTheStart) {
  const Config c = two_steps("cruncher", {});
  const Ref<Device> meta = open_cpu(Mode::meta), device = open_cpu(Mode::real, local_cpu_profile(), Guard::poison);
  const int64_t bytes = [&] {
    const ArenaPlan plan = plan_run(c, *meta, false).arena;
    device->allocator().adopt(plan);
    return plan.bytes;
  }();
  EXPECT_EQ(device->count_nonfinite(device->base(), DType::f32, bytes / 4), bytes / 4);
}
#endif
}  // namespace
}  // namespace small
