// tests/train: models small enough to train in milliseconds, of every architecture, and every byte that a step leaves behind.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/ops/training.h"
#include "reckon/train/step.h"
#include "tests/folder.h"

namespace small {
using namespace reckon;
using scratch::Folder;
using scratch::get;
using Overrides = std::vector<std::string>;

/// Odd sizes, so that the last block of every kernel's partition is a short one.
inline Overrides architecture(const std::string& name) {
  if (name == "cruncher") return {"model.preset=cruncher", "model.layers=3", "model.d_model=19", "model.init_std=0.3"};
  Overrides o = {"model.layers=2", "model.d_model=72", "model.vocab=131", "model.d_ff=200", "model.max_seq_len=64", "model.init_std=0.1"};
  const Overrides llama = {"model.norm=rms_norm", "model.position=rope", "model.mlp=swiglu", "model.qkv_bias=false", "model.proj_bias=false", "model.mlp_bias=false",
                           "model.heads=6", "model.kv_heads=2", "model.head_dim=18", "model.tied_head=false"};
  if (name == "gpt2") return o.insert(o.end(), {"model.heads=6", "model.head_dim=12"}), o;
  o.insert(o.end(), llama.begin(), llama.end());
  if (name == "qwen") o.insert(o.end(), {"model.qk_norm=true", "model.qkv_bias=true", "model.tied_head=true"});
  return o;
}

inline Config config(const std::string& name, const Overrides& more = {}) {
  Overrides o = architecture(name);
  o.insert(o.end(), {"train.micro_batch=3", "train.seq_len=37", "train.steps=8", "optim.warmup_steps=2", "optim.lr=0.01"});
  o.insert(o.end(), more.begin(), more.end());
  return parse_config("", "test", o);
}

inline std::string bytes_of(const Tensor& tensor) {
  std::string bytes(size_t(tensor.spec().bytes()), '\0');
  tensor.device().copy_out(bytes.data(), tensor.raw(), bytes.size());
  return bytes;
}

/// Name -> bytes of all that a checkpoint keeps: parameter values, residual planes, master weights, optimizer states, scales of float8.
using State = std::map<std::string, std::string>;
inline State state_of(TrainStep& step) {
  State state;
  std::vector<Bucket>& buckets = step.parameters().buckets();
  for (size_t i = 0; i < buckets.size(); ++i) {
    state[text("values {}", i)] = bytes_of(buckets[i].values);
    if (buckets[i].residual.defined()) state[text("residual {}", i)] = bytes_of(buckets[i].residual);
    if (buckets[i].master.defined()) state[text("master {}", i)] = bytes_of(buckets[i].master);
    for (const Optimizer::State& s : step.optimizer().states())
      if (s.buckets[i].defined()) state[text("{} {}", s.name, i)] = bytes_of(s.buckets[i]);
  }
  for (const NamedFloat8State& layer : step.float8_states()) {
    state["fp8_scales " + layer.name] = bytes_of(layer.state.scales);
    state["fp8_amax_history " + layer.name] = bytes_of(layer.state.history);
  }
  return state;
}

/// Byte for byte; names what differs.
inline void expect_same(const State& a, const State& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, bytes] : a) {
    const auto other = b.find(name);
    ASSERT_NE(other, b.end()) << name;
    ASSERT_EQ(bytes.size(), other->second.size()) << name;
    if (bytes == other->second) continue;
    const size_t at = size_t(std::mismatch(bytes.begin(), bytes.end(), other->second.begin()).first - bytes.begin());
    ADD_FAILURE() << name << " differs first at byte " << at << " of " << bytes.size();
  }
}

struct Trained {
  State state;
  std::vector<double> losses, norms;
};
/// `steps` optimizer steps from the start.
inline Trained trained(const Config& c, int64_t steps, const DeviceProfile& profile = local_cpu_profile()) {
  const Ref<Device> device = open_cpu(Mode::real, profile);
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 3);
  Trained result;
  for (int64_t i = 0; i < steps; ++i) {
    const TrainStep::Result r = step.run(i, batches);
    EXPECT_TRUE(r.updated);
    result.losses.push_back(r.loss);
    result.norms.push_back(r.grad_norm);
  }
  result.state = state_of(step);
  return result;
}

/// Sets the number of threads and puts the old one back.
class Threads {
 public:
  explicit Threads(int count) : before_(thread_count()) { set_thread_count(count); }
  ~Threads() { set_thread_count(before_); }
  Threads(const Threads&) = delete;

 private:
  int before_;
};
/// An optimizer without schedule and clipping.
inline OptimConfig plain(OptimizerKind kind) {
  OptimConfig c;
  c.name = kind;
  c.lr = 0.01;
  c.schedule = ScheduleKind::constant;
  c.warmup_steps = 0;
  c.clip_norm = 0;
  return c;
}
}  // namespace small
