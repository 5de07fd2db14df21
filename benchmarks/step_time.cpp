// Predicted and measured step times: calibrates, predicts and measures in alternation, round by round, so that all of them meet the same
// machine. A measurement is the fastest step of all rounds, as every value of the calibration is. The configurations are none of the
// calibration's. The development set is for working on the time model; only the other one says how good it is. benchmarks/step_time builds
// and runs this: step_time [--rounds N] [--development]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "reckon/backend/cpu/device.h"
#include "reckon/plan/calibration.h"
#include "reckon/plan/time_model.h"

using namespace reckon;

namespace {
const char kLlama[] =
    "model.norm=rms_norm model.position=rope model.mlp=swiglu model.qkv_bias=false model.proj_bias=false model.mlp_bias=false ";

struct Case {
  const char* name;
  bool llama;
  const char* keys;
};
const Case kDevelopment[] = {
    {"gpt d128", false, "train.seq_len=128"},
    {"gpt d384 bf16", false,
     "model.layers=3 model.d_model=384 model.heads=6 model.kv_heads=6 model.head_dim=64 model.d_ff=1536 train.seq_len=256 "
     "train.precision=bf16"},
    {"gpt d384", false,
     "model.layers=3 model.d_model=384 model.heads=6 model.kv_heads=6 model.head_dim=64 model.d_ff=1536 train.seq_len=256"},
    {"gpt d768 V8192", false,
     "model.layers=2 model.d_model=768 model.heads=12 model.kv_heads=12 model.head_dim=64 model.d_ff=3072 train.seq_len=256 "
     "train.micro_batch=4 model.vocab=8192"},
    {"llama d256 F700", true,
     "model.layers=3 model.d_model=256 model.heads=4 model.kv_heads=2 model.head_dim=64 model.d_ff=700 train.micro_batch=6 "
     "model.tied_head=false"},
    {"qwen d512 T512 bf16", true,
     "model.layers=2 model.d_model=512 model.heads=8 model.kv_heads=2 model.head_dim=64 model.d_ff=1408 train.seq_len=512 "
     "train.micro_batch=2 model.vocab=2000 model.max_seq_len=512 model.qk_norm=true train.precision=bf16"},
    {"gpt d64 B2 T64", false,
     "model.layers=1 model.d_model=64 model.heads=2 model.kv_heads=2 model.d_ff=128 train.seq_len=64 train.micro_batch=2"},
    {"cruncher d512 B64", false, "model.preset=cruncher model.layers=4 model.d_model=512 train.micro_batch=64"},
    {"gpt d192 recompute 2x", false,
     "model.layers=4 model.d_model=192 model.heads=6 model.kv_heads=6 train.recompute=full train.grad_accum=2 optim.name=momentum"},
    {"llama d640 bf16", true,
     "model.layers=2 model.d_model=640 model.heads=10 model.kv_heads=2 model.head_dim=64 model.d_ff=1728 model.vocab=6000 "
     "train.seq_len=200 train.micro_batch=5 train.precision=bf16"},
};
const Case kValidation[] = {
    {"small", false,
     "model.layers=6 model.d_model=384 model.heads=6 model.kv_heads=6 model.head_dim=64 model.d_ff=1536 train.micro_batch=8 "
     "train.seq_len=256"},
    {"small bf16", false,
     "model.layers=6 model.d_model=384 model.heads=6 model.kv_heads=6 model.head_dim=64 model.d_ff=1536 train.micro_batch=8 "
     "train.seq_len=256 train.precision=bf16"},
    {"tiny", false, "train.micro_batch=8 train.seq_len=100"},
    {"tiny bf16 sgd", false, "train.precision=bf16 optim.name=sgd train.micro_batch=12"},
    {"deep and narrow", false, "model.layers=16 model.d_model=96 model.heads=3 model.kv_heads=3 model.d_ff=384 train.micro_batch=4"},
    {"deep, recomputed", false,
     "model.layers=12 model.d_model=160 model.heads=5 model.kv_heads=5 model.d_ff=640 train.micro_batch=6 train.recompute=full"},
    {"wide, few rows", false,
     "model.layers=2 model.d_model=896 model.heads=14 model.kv_heads=14 model.head_dim=64 model.d_ff=3584 train.micro_batch=1 "
     "train.seq_len=96"},
    {"wide bf16", false,
     "model.layers=2 model.d_model=1280 model.heads=20 model.kv_heads=20 model.head_dim=64 model.d_ff=5120 train.micro_batch=2 "
     "train.seq_len=256 train.precision=bf16"},
    {"llama, heads 4:1", true,
     "model.layers=4 model.d_model=288 model.heads=8 model.kv_heads=2 model.head_dim=36 model.d_ff=768 model.vocab=3000 "
     "train.micro_batch=4 train.seq_len=192"},
    {"llama, heads 8:1 bf16", true,
     "model.layers=3 model.d_model=512 model.heads=8 model.kv_heads=1 model.head_dim=64 model.d_ff=1376 model.vocab=1000 "
     "train.micro_batch=6 train.seq_len=256 train.precision=bf16"},
    {"qwen", true,
     "model.layers=3 model.d_model=448 model.heads=7 model.kv_heads=1 model.head_dim=64 model.d_ff=1200 model.vocab=5000 "
     "model.qk_norm=true model.qkv_bias=true train.micro_batch=3 train.seq_len=256"},
    {"qwen bf16, heads of 128", true,
     "model.layers=2 model.d_model=768 model.heads=8 model.kv_heads=4 model.head_dim=128 model.d_ff=2304 model.vocab=4000 "
     "model.qk_norm=true train.micro_batch=4 train.seq_len=320 model.max_seq_len=512 train.precision=bf16"},
    {"long sequences", true,
     "model.layers=2 model.d_model=256 model.heads=8 model.kv_heads=8 model.head_dim=32 model.d_ff=688 train.micro_batch=2 "
     "train.seq_len=1024 model.max_seq_len=1024"},
    {"long sequences bf16", true,
     "model.layers=3 model.d_model=384 model.heads=6 model.kv_heads=3 model.head_dim=64 model.d_ff=1024 train.micro_batch=2 "
     "train.seq_len=1536 model.max_seq_len=2048 train.precision=bf16"},
    {"short sequences", false,
     "model.layers=4 model.d_model=256 model.heads=4 model.kv_heads=4 model.head_dim=64 model.d_ff=1024 train.micro_batch=48 "
     "train.seq_len=24"},
    {"large vocabulary", false,
     "model.layers=1 model.d_model=256 model.heads=4 model.kv_heads=4 model.head_dim=64 model.d_ff=1024 model.vocab=32000 "
     "train.micro_batch=4 train.seq_len=128"},
    {"large vocabulary bf16", true,
     "model.layers=2 model.d_model=384 model.heads=6 model.kv_heads=2 model.head_dim=64 model.d_ff=1024 model.vocab=24000 "
     "model.tied_head=false train.micro_batch=4 train.seq_len=128 train.precision=bf16"},
    {"accumulation 4x", false,
     "model.layers=4 model.d_model=224 model.heads=7 model.kv_heads=7 model.d_ff=896 train.micro_batch=2 train.grad_accum=4"},
    {"accumulation 3x bf16", true,
     "model.layers=3 model.d_model=352 model.heads=11 model.kv_heads=11 model.d_ff=960 train.micro_batch=3 train.grad_accum=3 "
     "train.precision=bf16 optim.name=momentum"},
    {"adagrad, layer norm, no bias", false,
     "model.layers=3 model.d_model=320 model.heads=10 model.kv_heads=10 model.d_ff=1000 model.norm_bias=false model.qkv_bias=false "
     "model.mlp_bias=false optim.name=adagrad"},
    {"gelu and rope bf16", false,
     "model.layers=3 model.d_model=544 model.heads=8 model.kv_heads=8 model.head_dim=68 model.d_ff=2176 model.position=rope "
     "train.micro_batch=5 train.precision=bf16"},
    {"swiglu, learned positions", false,
     "model.layers=3 model.d_model=416 model.heads=13 model.kv_heads=13 model.mlp=swiglu model.d_ff=1120 train.micro_batch=5 "
     "optim.name=sgd"},
    {"one sequence", true,
     "model.layers=4 model.d_model=512 model.heads=8 model.kv_heads=8 model.head_dim=64 model.d_ff=1408 train.micro_batch=1 "
     "train.seq_len=512 model.max_seq_len=512"},
    {"cruncher", false, "model.preset=cruncher model.layers=6 model.d_model=768 train.micro_batch=128"},
    {"cruncher bf16", false,
     "model.preset=cruncher model.layers=8 model.d_model=384 train.micro_batch=256 train.precision=bf16 optim.name=momentum"},
    {"gpt2-124m, two layers", false, "model.preset=gpt2-124m model.layers=2 train.micro_batch=2 train.seq_len=256"},
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Measured {
  const Case* from;
  Config config;
  double best = 1e300;
};

Config config_of(const Case& c) {
  std::vector<std::string> overrides;
  std::istringstream words((c.llama ? kLlama : "") + std::string(c.keys));
  for (std::string word; words >> word;) overrides.push_back(word);
  return parse_config("", c.name, overrides);
}

RunPlan plan_of(const Config& config) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(config, *meta, false);
}

// As `train` runs: on a device of its own, inside its planned arena. Steps for half a second, but at least two.
void measure(Measured& m) {
  const RunPlan plan = plan_of(m.config);
  const Ref<Device> device = open_cpu(Mode::real);
  device->allocator().adopt(plan.arena);
  TrainStep step(m.config, *device);
  const SyntheticBatches batches(std::max<int64_t>(m.config.model.vocab, 1), 1);
  step.run(0, batches);
  step.run(1, batches);
  const double start = now();
  for (int64_t i = 2; i < 4 || now() - start < 0.5; ++i) {
    const double before = now();
    step.run(i, batches);
    m.best = std::min(m.best, now() - before);
  }
}

int print_errors(const std::vector<Measured>& cases, const MachineProfile& profile) {
  std::vector<double> errors;
  std::printf("%-30s %12s %12s %8s\n", "step, ms", "predicted", "measured", "error");
  for (const Measured& m : cases) {
    const StepTime step = predict_step(plan_of(m.config), profile);
    if (!step.seconds) {
      std::printf("%-30s no time for %s\n", m.from->name, step.unknown.c_str());
      return 1;
    }
    const double error = *step.seconds / m.best - 1;
    errors.push_back(std::abs(error));
    std::printf("%-30s %12.3f %12.3f %+7.1f%%\n", m.from->name, *step.seconds * 1e3, m.best * 1e3, error * 100);
  }
  std::sort(errors.begin(), errors.end());
  const size_t n = errors.size();
  const double median = n % 2 ? errors[n / 2] : (errors[n / 2 - 1] + errors[n / 2]) / 2;
  std::printf("%zu configurations: median error %.1f %%, 90th percentile %.1f %%, largest %.1f %%\n", n, median * 100,
              errors[size_t(std::ceil(0.9 * double(n))) - 1] * 100, errors.back() * 100);
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  int rounds = 5;
  bool development = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--development") {
      development = true;
    } else if (word == "--rounds" && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      rounds = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: step_time [--rounds N] [--development]\n");
      return 2;
    }
  }
  std::vector<Measured> cases;
  for (const Case& c : development ? std::span<const Case>(kDevelopment) : std::span<const Case>(kValidation))
    cases.push_back({&c, config_of(c)});
  MachineProfile profile{.cpu = local_cpu_name()};
  const Ref<Device> device = open_cpu(Mode::real);
  profile.lanes = device->profile().lanes;
  profile.f32_flops_per_second = profile.bf16_flops_per_second = profile.copy_bytes_per_second = 1;  // only classes of calls depend on them
  Calibration calibration(*device);
  for (int round = 0; round < rounds; ++round) {
    std::fprintf(stderr, "round %d of %d\n", round + 1, rounds);
    calibration.round();
    for (Measured& m : cases) measure(m);
  }
  calibration.finish(profile);
  return print_errors(cases, profile);
}
