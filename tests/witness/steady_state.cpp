// The steady state: after the first steps, training takes nothing from the heap that it does not give back, and nothing from the system;
// and kernels take nothing at all that is worth speaking of.
#include <sys/mman.h>

#include <array>

#include "reckon/base/text.h"
#include "reckon/plan/run_plan.h"
#include "tests/support/watched_device.h"
#include "tests/train/small_runs.h"
#include "tests/witness/heap.h"

namespace small {
namespace {
constexpr int64_t kWarm = 3, kSteps = 10;

struct Trial {
  std::string name;
  Overrides more;
};
const std::vector<Trial>& runs() {
  static const std::vector<Trial> all = {
      {"gpt2", {}},
      {"gpt2", {"train.precision=bf16", "train.recompute=full", "train.grad_accum=2"}},
      {"llama", {"train.precision=bf16", "optim.name=momentum", "optim.clip_norm=0"}},
      {"gpt2", {"train.precision=fp8", "train.recompute=selective", "train.grad_accum=2"}},
      {"llama", {"optim.name=sgd", "train.recompute=full"}},
      {"qwen", {"train.grad_accum=3", "optim.name=adagrad"}},
      {"qwen", {"train.grad_accum=2", "train.recompute=selective"}},
      {"llama", {"train.sequence_chunk=16", "train.precision=bf16"}},
      {"qwen", {"train.sequence_chunk=16", "train.recompute=full", "train.grad_accum=2"}},
      {"gpt2", {"data.documents=separate", "data.separator=3"}},
      {"gpt2", {"optim.name=lamb", "train.precision=fp16"}},
      {"cruncher", {}},
  };
  return all;
}
Config config_of(const Trial& run) {
  Overrides o = {text("train.steps={}", kSteps)};
  o.insert(o.end(), run.more.begin(), run.more.end());
  return config(run.name, o);
}
std::string line(const Trial& run) {
  std::string s = run.name;
  for (const std::string& o : run.more) s += " " + o;
  return s;
}

TEST(Witness, SeesTheHeapAndTheSystem) {
  const int64_t before = witness::outstanding_bytes(), mapped = witness::mapped_bytes();
  witness::clear_largest_allocation();
  void* volatile small = std::malloc(1000);  // volatile: an unused pair would be optimized away
  EXPECT_GE(witness::outstanding_bytes(), before + 1000);
  EXPECT_GE(witness::largest_allocation(), 1000);
  auto* volatile several = new std::array<char, 5000>;
  EXPECT_GE(witness::largest_allocation(), 5000);
  void* volatile grown = std::realloc(small, 3000);
  EXPECT_GE(witness::outstanding_bytes(), before + 8000);
  std::free(grown);
  delete several;
  EXPECT_EQ(witness::outstanding_bytes(), before);
  void* pages = mmap(nullptr, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_EQ(witness::mapped_bytes(), mapped + (1 << 20));
  munmap(pages, 1 << 20);
}

// ---- kernels

struct Seen {
  bool watching = false;
  int64_t calls = 0, largest = 0;
  int id = -1;  // of the operation that took most
} seen;

constexpr const char* kNames[] = {
#define OP(name) #name,
#include "reckon/ops/ops.def"
#undef OP
};

void watch(int id, Kernel kernel, const KernelArgs& args) {
  if (!seen.watching) return kernel(args);
  ++seen.calls;
  witness::clear_largest_allocation();
  kernel(args);
  if (witness::largest_allocation() > seen.largest) seen.largest = witness::largest_allocation(), seen.id = id;
}

// Libraries compile a product of a new shape once: the first steps are theirs.
TEST(SteadyState, NoKernelTakesMoreThanAFewBytes) {
  for (const Trial& run : runs())
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(text("{} threads {}", line(run), threads));
      const Threads set(threads);
      const Config c = config_of(run);
      const Ref<Device> device = watched::open_watched({"cpu", 3});
      watched::around = watch;
      TrainStep step(c, *device);
      const SyntheticBatches batches(c.model.vocab, 3);
      seen = {};
      for (int64_t i = 0; i < kWarm + 2; ++i) {
        seen.watching = i >= kWarm;
        step.run(i, batches);
      }
      seen.watching = false;
      EXPECT_GT(seen.calls, 20);
      EXPECT_LE(seen.largest, 4096) << (seen.id < 0 ? "" : kNames[seen.id]);
    }
}

TEST(SteadyState, AKernelThatAllocatesIsSeen) {
  const Ref<Device> device = watched::open_watched({"cpu", 2});
  watched::around = [](int id, Kernel, const KernelArgs& args) {
    watch(
        id,
        [](const KernelArgs&) {
          void* volatile stray = std::malloc(5000);
          std::free(stray);
        },
        args);
  };
  const Tensor x = full(*device, {{4}, DType::f32}, 1);
  seen = {};
  seen.watching = true;
  neg(x);
  seen.watching = false;
  EXPECT_GE(seen.largest, 5000);
  EXPECT_EQ(std::string(kNames[seen.id]), "neg");
  watched::around = watch;
}

// ---- the whole step

struct Books {
  int64_t outstanding, mapped;
  intptr_t data_end;
  bool operator==(const Books&) const = default;
};
#ifdef __SANITIZE_ADDRESS__
constexpr bool kMapsForItself = true;  // a sanitizer maps memory of its own while the program runs
#else
constexpr bool kMapsForItself = false;
#endif
Books books() { return {witness::outstanding_bytes(), kMapsForItself ? 0 : witness::mapped_bytes(), witness::program_break()}; }
std::string to_string(const Books& b) {
  return text("{} B of heap, {} B mapped, break at {}", b.outstanding, b.mapped, int64_t(b.data_end));
}
void PrintTo(const Books& b, std::ostream* out) { *out << to_string(b); }

void expect_steady(const Config& c, bool in_arena) {
  const Ref<Device> device = open_cpu(Mode::real);
  if (in_arena) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    Config evaluated = c;
    evaluated.data.path = "any.txt";  // so that the plan has an evaluation
    device->allocator().adopt(plan_run(evaluated, *meta, false).arena);
  }
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 3);
  Books warm{};
  for (int64_t i = 0; i < kSteps; ++i) {
    step.run(i, batches);
    if (!c.model.cruncher) step.evaluate(batches, 1);
    if (i + 1 == kWarm) warm = books();
  }
  // malloc may give the end of its heap back to the system, at a time of its own; it may not ask for more.
  const Books later = books();
  EXPECT_TRUE(later.outstanding == warm.outstanding && later.mapped <= warm.mapped && later.data_end <= warm.data_end)
      << to_string(later) << " after step " << kSteps << ", " << to_string(warm) << " after step " << kWarm;
}

TEST(SteadyState, TakesNothingFromTheHeapOrTheSystem) {
  for (const Trial& run : runs())
    for (const bool in_arena : {true, false}) {
      SCOPED_TRACE(text("{} arena={}", line(run), in_arena));
      expect_steady(config_of(run), in_arena);
    }
}

TEST(SteadyState, AStepThatKeepsSomethingIsSeen) {
  const Books before = books();
  auto* volatile kept = new char[100];
  EXPECT_NE(books(), before);
  delete[] kept;
  EXPECT_EQ(books(), before);
}
}  // namespace
}  // namespace small
