// The code of docs/modules.md: a model of one's own, trained for a few steps inside what its dry run said.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/nn/moe.h"
#include "reckon/train/optimizer.h"
#include "reckon/train/state_file.h"
#include "tests/folder.h"

namespace reckon::docs {
namespace {
struct MoEBlock : nn::Module {
  using Module::Module;
  nn::RmsNorm norm1{*this, "norm1", 32}, norm2{*this, "norm2", 32};
  nn::SelfAttention attn{*this, "attn", 32, {.heads = 4, .rope_theta = 1e4}};
  nn::MoE experts{*this, "experts", 32, 48, {.experts = 4, .top_k = 2}};
  nn::Dropout dropout{*this, "dropout", 0.1};

  /// x [B, T, C] -> the same; adds its load-balancing loss to `balance`.
  Tensor operator()(const Tensor& x, Tensor& balance) const {
    const Tensor y = add(x, attn(norm1(x)));
    const nn::MoE::Result r = experts(norm2(y));
    balance = balance.defined() ? add(balance, r.balance_loss) : r.balance_loss;
    return add(y, dropout(r.y));
  }
};

struct Model : nn::Module {
  using Module::Module;
  nn::Embedding embed{*this, "embed", 64, 32};
  nn::ModuleList<MoEBlock> blocks{*this, "blocks"};
  nn::RmsNorm norm{*this, "norm", 32};
  nn::TiedLinear head{*this, "head", embed.weight};

  Tensor loss(const Tensor& tokens, const Tensor& targets) const {
    Tensor x = embed(tokens), balance;
    for (size_t i = 0; i < blocks.size(); ++i) x = blocks[i](x, balance);
    return add(cross_entropy(head(norm(x)), targets), affine(balance, 0.01));
  }
};

// One batch, learnt by heart: the loss of each step, and the most bytes that were live.
struct Trained {
  std::vector<double> losses;
  int64_t peak = 0;
};
Trained train(Device& device, const std::string& file) {
  Parameters parameters;
  Model model(parameters);
  for (int i = 0; i < 2; ++i) model.blocks.add();
  model.materialize(device, {.lasting_gradients = false}, 7);
  const Optimizer optimizer(device, parameters, {.lr = 1e-2, .warmup_steps = 0});

  std::vector<int32_t> ids(4 * 16 + 1);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(philox(1, 0, i)[0] % 64);
  const Tensor tokens = from_values<int32_t>(device, {4, 16}, std::span(ids).first(64)),
               targets = from_values<int32_t>(device, {4, 16}, std::span(ids).last(64));
  Trained trained;
  for (int64_t step = 0; step < 30; ++step) {
    model.begin_micro_batch(7, step, 4 * step);  // what this step's masks are drawn by
    const Tensor loss = model.loss(tokens, targets);
    backward(loss);
    optimizer.write_scalars(step, 30);
    optimizer.step(loss);
    parameters.zero_grad();
    if (!device.is_meta()) trained.losses.push_back(loss.item());
  }
  if (!device.is_meta()) save_state(file, model.state_dict());
  trained.peak = device.allocator().ledger().peak;
  return trained;
}

TEST(ModulesPage, TheModelLearnsInsideWhatItsDryRunSaid) {
  const scratch::Folder folder;
  const Ref<Device> meta = open_cpu(Mode::meta), cpu = open_cpu(Mode::real);
  const Trained planned = train(*meta, ""), done = train(*cpu, folder / "model.safetensors");
  EXPECT_EQ(planned.peak, done.peak);
  EXPECT_EQ(meta->allocator().trace_hash(), cpu->allocator().trace_hash());
  EXPECT_LT(done.losses.back(), 0.7 * done.losses.front());

  Parameters parameters;
  Model model(parameters);
  for (int i = 0; i < 2; ++i) model.blocks.add();
  model.requires_grad_(false, "blocks.*");  // before materialize(): their gradients have no memory either
  model.materialize(*cpu, {}, 8);
  model.load_state_dict(load_state(folder / "model.safetensors", *cpu));
  model.eval();
  EXPECT_FALSE(model.blocks[0].dropout.training());
  EXPECT_FALSE(model.blocks[1].attn.qkv.weight.value.requires_grad());
  EXPECT_TRUE(model.norm.weight.value.requires_grad());
}
}  // namespace
}  // namespace reckon::docs
