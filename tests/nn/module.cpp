// Modules: names, state, modes, freezing and hooks; and that a model of ready layers is the operations that it stands for.
#include "reckon/nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/meter.h"
#include "reckon/nn/layers.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/training.h"

namespace reckon {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;

struct Mlp : nn::Module {
  using Module::Module;
  nn::Linear up{*this, "up", 6, 10}, down{*this, "down", 10, 6};
  Tensor operator()(const Tensor& x) const { return down(gelu(up(x))); }
};
struct Net : nn::Module {
  using Module::Module;
  nn::Embedding table{*this, "table", 7, 6};
  nn::ModuleList<Mlp> blocks{*this, "blocks"};
  nn::RmsNorm norm{*this, "norm", 6};
  nn::TiedLinear head{*this, "head", table.weight};
  Tensor operator()(const Tensor& ids) const {
    Tensor x = table(ids);
    for (size_t i = 0; i < blocks.size(); ++i) x = add(x, blocks[i](x));
    return head(norm(x));
  }
};

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
std::vector<std::string> names_of(const nn::Module& m) {
  std::vector<std::string> names;
  for (const auto& p : m.named_parameters()) names.push_back(p.name);
  return names;
}

class Modules : public testing::Test {
 protected:
  Modules() { grow(net_); }
  static void grow(Net& net) { net.blocks.add(), net.blocks.add(); }
  Tensor ids() {
    const std::vector<int32_t> some = {1, 5, 0, 6, 3, 3};
    return from_values<int32_t>(*device_, {2, 3}, some);
  }
  Tensor random(const Shape& shape, uint64_t key = 1) {
    const Tensor t = empty(*device_, {shape, DType::f32});
    fill_normal_(t, key);
    return t;
  }
  Ref<Device> device_ = open_cpu(Mode::real);
  Parameters parameters_;
  Net net_{parameters_};
};

TEST_F(Modules, NameTheirPartsByDottedPaths) {
  EXPECT_THAT(names_of(net_),
              ElementsAre("table.weight", "blocks.0.up.weight", "blocks.0.up.bias", "blocks.0.down.weight", "blocks.0.down.bias",
                          "blocks.1.up.weight", "blocks.1.up.bias", "blocks.1.down.weight", "blocks.1.down.bias", "norm.weight"));
  EXPECT_THAT(names_of(net_.blocks[1]), ElementsAre("up.weight", "up.bias", "down.weight", "down.bias"));
  EXPECT_THAT(names_of(net_.head), ElementsAre("table.weight")) << "shared, by the name it was declared with";
  std::vector<std::string> modules;
  for (const auto& m : net_.named_modules()) modules.push_back(m.name);
  EXPECT_THAT(modules, ElementsAre("", "table", "blocks", "blocks.0", "blocks.0.up", "blocks.0.down", "blocks.1", "blocks.1.up",
                                   "blocks.1.down", "norm", "head"));
  EXPECT_EQ(net_.blocks[1].down.path(), "blocks.1.down");
  EXPECT_EQ(net_.parameter_count(), 7 * 6 + 2 * (6 * 10 + 10 + 10 * 6 + 6) + 6);
  EXPECT_EQ(net_.parameter_count(), parameters_.count());
  int visited = 0;
  net_.apply([&](nn::Module&) { ++visited; });
  EXPECT_EQ(visited, 11);
}

TEST_F(Modules, RefuseNamesThatMeanTwoThings) {
  struct Twice : nn::Module {
    using Module::Module;
    nn::RmsNorm a{*this, "norm", 3}, b{*this, "norm", 3};
  };
  Parameters p;
  EXPECT_THAT(error_of([&] { Twice twice(p); }), HasSubstr("'' has two parts called 'norm'"));
  for (const char* name : {"", "a.b"}) {
    Parameters q;
    nn::Sequential root(q);
    EXPECT_THAT(error_of([&] { nn::RmsNorm norm(root, name, 3); }), HasSubstr("at least one letter and no dot"));
  }
}

// The same numbers as the operations, at the module's path in every book.
TEST_F(Modules, AreTheOperationsTheyStandFor) {
  net_.materialize(*device_, {}, 3);
  Meter meter;
  Tensor y;
  {
    const MeterScope scope(meter);
    y = net_(ids());
  }
  Tensor x = embedding(net_.table.weight.value, ids());
  for (const Mlp* m : {&net_.blocks[0], &net_.blocks[1]})
    x = add(x, linear(gelu(linear(x, m->up.weight.value, m->up.bias->value)), m->down.weight.value, m->down.bias->value));
  x = linear(rms_norm(x, net_.norm.weight.value, 1e-6), net_.table.weight.value);
  EXPECT_EQ(y.to_vector(), x.to_vector());
  std::vector<std::string> paths;
  for (const MeterRow& row : meter.rows())
    if (row.op == std::string_view("linear")) paths.push_back(module_path(row.module));
  EXPECT_THAT(paths, ElementsAre("blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"));
}

TEST_F(Modules, AStateIsLookedUpByName) {
  net_.materialize(*device_, {}, 3);
  const nn::StateDict state = net_.state_dict();
  EXPECT_TRUE(state["blocks.1.up.bias"].same_storage(net_.blocks[1].up.bias->value));
  EXPECT_EQ(state.at("norm.weight").shape(), Shape{6});
  EXPECT_EQ(state[0].name, "table.weight");
  EXPECT_EQ(state.at(1).name, "blocks.0.up.weight");
  EXPECT_EQ(error_of([&] { state.at("block.0.up.weight"); }), "the state has no 'block.0.up.weight', did you mean 'blocks.0.up.weight'?");
  EXPECT_THAT(error_of([&] { state["bias"]; }), HasSubstr("the state has no 'bias': it has table.weight, blocks.0.up.weight, "));
  EXPECT_THAT(error_of([&] { state["bias"]; }), HasSubstr(" and 2 more"));
  EXPECT_EQ(error_of([&] { nn::StateDict()["x"]; }), "the state has no 'x': it is empty");
}

TEST_F(Modules, AConvolutionIsItsOperation) {
  Parameters p;
  struct Filters : nn::Module {
    using Module::Module;
    nn::Conv2d first{*this, "first", 4, 6, {3, 2}, {.stride = {2, 1}, .padding = {1, 0}, .groups = 2}},
        second{*this, "second", 6, 3, 1, {}, false};
  };
  Filters net(p);
  EXPECT_THAT(names_of(net), ElementsAre("first.weight", "first.bias", "second.weight"));
  EXPECT_EQ(net.first.weight.shape, (Shape{6, 2, 3, 2}));
  EXPECT_TRUE(net.first.weight.decay);
  EXPECT_FALSE(net.first.bias->decay);
  EXPECT_EQ(net.second.bias, nullptr);
  net.materialize(*device_, {}, 5);
  fill_normal_(net.first.bias->value.detached(), 9);
  const Tensor x = random({2, 4, 7, 6});
  const Tensor y = net.second(net.first(x));
  const Tensor h = conv2d(x, net.first.weight.value, net.first.bias->value, net.first.options);
  EXPECT_EQ(h.shape(), (Shape{2, 6, 4, 5}));
  EXPECT_EQ(y.to_vector(), conv2d(h, net.second.weight.value).to_vector());
  backward(sum(square(y)));
  for (const auto& named : net.named_parameters()) EXPECT_TRUE(named.parameter->value.grad().defined()) << named.name;

  const nn::StateDict state = net.state_dict();
  EXPECT_EQ(state["first.weight"].shape(), (Shape{6, 2, 3, 2}));
  Parameters q;
  Filters other(q);
  other.materialize(*device_, {}, 6);
  EXPECT_NE(other.first.weight.value.to_vector(), net.first.weight.value.to_vector());
  other.load_state_dict(state);
  EXPECT_EQ(other.second(other.first(x)).to_vector(), y.to_vector());
  // On meta the same memory.
  const Ref<Device> meta = open_cpu(Mode::meta), real = open_cpu(Mode::real);
  for (const Ref<Device>& device : {meta, real}) {
    Parameters r;
    Filters fresh(r);
    fresh.materialize(*device, {}, 5);
    backward(sum(square(fresh.second(fresh.first(zeros(*device, {{2, 4, 7, 6}, DType::f32}))))));
  }
  EXPECT_EQ(meta->allocator().trace_hash(), real->allocator().trace_hash());
}

TEST_F(Modules, AConvolutionRefusesWhatHasNoWeights) {
  const auto refusal = [](int64_t in, int64_t out, nn::KernelSize kernel, int64_t groups) {
    Parameters p;
    nn::Sequential root(p);
    return error_of([&] { root.add<nn::Conv2d>(in, out, kernel, Conv2dOptions{.groups = groups}); });
  };
  EXPECT_EQ(refusal(4, 6, 3, 2), "");
  EXPECT_EQ(refusal(4, 5, 3, 2), "0: 2 groups do not divide both 4 channels and 5 filters");
  EXPECT_EQ(refusal(5, 4, 3, 2), "0: 2 groups do not divide both 5 channels and 4 filters");
  EXPECT_EQ(refusal(4, 6, 3, 0), "0: 0 groups do not divide both 4 channels and 6 filters");
  EXPECT_EQ(refusal(4, 6, {3, 0}, 1), "0: 6 filters of 3 x 0 over 4 channels have no weights");
}

TEST_F(Modules, OfEveryKindAreTheirOperations) {
  Parameters p;
  struct All : nn::Module {
    using Module::Module;
    nn::LayerNorm layer_norm{*this, "layer_norm", 12}, plain{*this, "plain", 12, false};
    nn::FeedForward gelu{*this, "gelu", 12, 20}, swiglu{*this, "swiglu", 12, 20, MlpKind::swiglu, false};
    nn::SelfAttention attention{*this, "attention", 12, {.heads = 2, .kv_heads = 1, .rope_theta = 1e4}};
    nn::Sequential chain{*this, "chain"};
  };
  All all(p);
  all.chain.add<nn::Linear>(12, 5, false);
  all.chain.add(relu).add(square);
  all.chain.add<nn::RmsNorm>(5);
  EXPECT_THAT(names_of(all.chain), ElementsAre("0.weight", "3.weight"));
  EXPECT_THAT(names_of(all.swiglu), ElementsAre("gate_up.weight", "down.weight"));
  all.materialize(*device_, {}, 4);
  const Tensor x = random({2, 5, 12});
  const auto v = [&](const char* name) { return p.find(name)->value; };
  EXPECT_EQ(all.layer_norm(x).to_vector(), layer_norm(x, v("layer_norm.weight"), v("layer_norm.bias")).to_vector());
  EXPECT_EQ(all.plain(x).to_vector(), layer_norm(x, v("plain.weight"), {}).to_vector());
  EXPECT_EQ(all.gelu(x).to_vector(),
            linear(gelu(linear(x, v("gelu.up.weight"), v("gelu.up.bias"))), v("gelu.down.weight"), v("gelu.down.bias")).to_vector());
  EXPECT_EQ(all.swiglu(x).to_vector(), linear(swiglu(linear(x, v("swiglu.gate_up.weight"))), v("swiglu.down.weight")).to_vector());
  const Tensor qkv = rope(linear(x, v("attention.qkv.weight"), v("attention.qkv.bias")), 3, 6, 1e4);
  EXPECT_EQ(all.attention(x).to_vector(),
            linear(attention(qkv, 2, 1, 6), v("attention.proj.weight"), v("attention.proj.bias")).to_vector());
  EXPECT_EQ(all.chain(x).to_vector(), rms_norm(square(relu(linear(x, v("chain.0.weight")))), v("chain.3.weight")).to_vector());
}

// ---- state
TEST_F(Modules, GiveAndTakeTheirState) {
  net_.materialize(*device_, {}, 3);
  Parameters p;
  Net other(p);
  grow(other);
  other.materialize(*device_, {}, 4);
  const nn::StateDict state = net_.state_dict();
  ASSERT_EQ(state.size(), 10u);
  EXPECT_EQ(state[0].name, "table.weight");
  EXPECT_FALSE(state[0].tensor.requires_grad());
  EXPECT_NE(net_(ids()).to_vector(), other(ids()).to_vector());
  const auto report = other.load_state_dict(state);
  EXPECT_TRUE(report.missing.empty() && report.unexpected.empty());
  EXPECT_EQ(net_(ids()).to_vector(), other(ids()).to_vector());
  // A part, by names from there on.
  fill_normal_(net_.blocks[1].up.weight.value.detached(), 9);
  other.blocks[0].load_state_dict(net_.blocks[1].state_dict());
  EXPECT_EQ(other.blocks[0].up.weight.value.to_vector(), net_.blocks[1].up.weight.value.to_vector());
}

TEST_F(Modules, NameEveryMistakeOfAState) {
  net_.materialize(*device_, {}, 3);
  nn::StateDict state = net_.state_dict();
  state[1].tensor = random({6, 10});
  state[9].name = "norm.wait";
  state.erase(state.begin() + 2);
  const std::vector<double> before = net_.table.weight.value.to_vector();
  state[0].tensor = random({7, 6}, 8);
  const std::string message = error_of([&] { net_.load_state_dict(state); });
  EXPECT_THAT(message, HasSubstr("missing: blocks.0.up.bias, norm.weight"));
  EXPECT_THAT(message, HasSubstr("unexpected: norm.wait"));
  EXPECT_THAT(message, HasSubstr("wrong shape: blocks.0.up.weight is f32[10, 6], the state has f32[6, 10]"));
  EXPECT_EQ(net_.table.weight.value.to_vector(), before) << "nothing may be copied of a state that does not fit";
  state[1].tensor = random({10, 6});
  const auto report = net_.load_state_dict(state, false);
  EXPECT_THAT(report.missing, ElementsAre("blocks.0.up.bias", "norm.weight"));
  EXPECT_THAT(report.unexpected, ElementsAre("norm.wait"));
  EXPECT_EQ(net_.table.weight.value.to_vector(), state[0].tensor.to_vector());
  state.push_back(state[0]);
  EXPECT_THAT(error_of([&] { net_.load_state_dict(state, false); }), HasSubstr("holds table.weight twice"));
}

// 16-bit models take float32 values: bf16 with its residual plane, and fp16 with its master weights, keep every bit.
TEST_F(Modules, LoadIntoEveryStorage) {
  net_.materialize(*device_, {}, 3);
  for (const DType dtype : {DType::bf16, DType::f16, DType::f64}) {
    Parameters p;
    Net other(p);
    grow(other);
    other.materialize(*device_, {.dtype = dtype}, 4);
    other.load_state_dict(net_.state_dict());
    for (const auto& [name, parameter] : other.named_parameters()) {
      const std::vector<double> exact = parameters_.find(name)->value.to_vector(), got = parameter->value.to_vector();
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], exact[i], epsilon(dtype) * std::abs(exact[i])) << name;
      const Bucket& b = p.buckets()[size_t(parameter->bucket)];
      if (b.master.defined()) {
        EXPECT_EQ(Parameters::view_of(b.master, *parameter).to_vector(), exact);
      }
      if (!b.residual.defined()) continue;
      const NoGrad guard;
      const Tensor whole = empty(*device_, {parameter->shape, DType::f32});
      join_master_(whole, parameter->value, Parameters::view_of(b.residual, *parameter));
      EXPECT_EQ(whole.to_vector(), exact) << name;
    }
  }
}

const TensorSpec kThree{{3}, DType::f32}, kTwo{{2}, DType::f32};
TEST_F(Modules, HoldBuffers) {
  struct Counter : nn::Module {
    using Module::Module;
    nn::Buffer &mean = buffer("mean", kThree, 2), &scratch = buffer("scratch", kTwo, 0, false);
  };
  struct Whole : nn::Module {
    using Module::Module;
    Counter counter{*this, "counter"};
    nn::Linear layer{*this, "layer", 2, 2};
  };
  Parameters p, q;
  Whole a(p), b(q);
  a.materialize(*device_);
  b.materialize(*device_);
  EXPECT_EQ(a.counter.mean.value.to_vector(), std::vector<double>({2, 2, 2}));
  fill_uniform_(a.counter.mean.value, 7);
  const nn::StateDict state = a.state_dict();
  ASSERT_EQ(state.size(), 3u);
  EXPECT_EQ(state[2].name, "counter.mean");
  b.load_state_dict(state);
  EXPECT_EQ(b.counter.mean.value.to_vector(), a.counter.mean.value.to_vector());
  EXPECT_EQ(a.named_buffers().size(), 2u);
}

// ---- freezing: by the books of the device and of the meter
struct Cost {
  int64_t gradient_bytes = 0;
  Flops backward;
};
Cost cost_of(bool frozen_first, const char* pattern, bool lasting = true) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  Parameters p;
  Mlp mlp(p);
  if (frozen_first && pattern) mlp.requires_grad_(false, pattern);
  mlp.materialize(*meta, {.lasting_gradients = lasting}, 1);
  if (!frozen_first && pattern) mlp.requires_grad_(false, pattern);
  const Tensor y = mlp(empty(*meta, {{4, 6}, DType::f32}));
  const Tensor dy = empty(*meta, y.spec());
  Meter meter;
  Cost cost;
  {
    const MeterScope scope(meter);
    if (y.requires_grad()) backward(y, dy);
  }
  cost.backward = meter.total();
  cost.gradient_bytes = meta->allocator().ledger().live_by_category[size_t(Category::gradient)];
  return cost;
}
int64_t rounded(int64_t elements) { return (elements * 4 + 63) / 64 * 64; }

TEST_F(Modules, FrozenParametersCostNoGradientBytesAndNoWork) {
  const int64_t product = 2 * 4 * 6 * 10;
  const Cost all = cost_of(true, nullptr, false);
  EXPECT_EQ(all.gradient_bytes, 2 * rounded(64) + 2 * rounded(32))
      << "up and down are parts of their own; each starts at a multiple of 32 elements";
  EXPECT_EQ(all.backward.model, 3 * product) << "both weights, and the input of the second layer";
  const Cost down = cost_of(true, "down.*");
  EXPECT_EQ(down.gradient_bytes, rounded(64) + rounded(32));
  EXPECT_EQ(down.backward.model, 2 * product) << "the first weight, and the way to it";
  const Cost up = cost_of(true, "up.*");
  EXPECT_EQ(up.gradient_bytes, rounded(64) + rounded(32));
  EXPECT_EQ(up.backward.model, product) << "backward ends where nothing wants a gradient";
  EXPECT_LT(up.backward.vector, all.backward.vector);
  EXPECT_EQ(cost_of(true, "*weight").gradient_bytes, 2 * rounded(32)) << "biases alone";
  const Cost none = cost_of(true, "*");
  EXPECT_EQ(none.gradient_bytes, 0);
  EXPECT_EQ(none.backward, Flops());
  // Frozen later: no work; the memory is that of its part, if something else of it has a gradient.
  EXPECT_EQ(cost_of(false, "up.*", false).backward, up.backward);
  EXPECT_EQ(cost_of(false, "up.*", false).gradient_bytes, up.gradient_bytes);
}

TEST_F(Modules, FreezeByPatternAndThaw) {
  net_.materialize(*device_, {}, 3);
  EXPECT_EQ(net_.requires_grad_(false, "blocks.*.weight"), 4);
  EXPECT_FALSE(net_.blocks[1].down.weight.value.requires_grad());
  EXPECT_TRUE(net_.blocks[1].down.bias->value.requires_grad());
  backward(sum(net_(ids())));
  EXPECT_FALSE(net_.blocks[0].up.weight.value.grad().defined());
  EXPECT_TRUE(net_.blocks[0].up.bias->value.grad().defined());
  EXPECT_EQ(net_.requires_grad_(true), 10);
  net_.registry().zero_grad();
  backward(sum(net_(ids())));
  EXPECT_TRUE(net_.blocks[0].up.weight.value.grad().defined());
  EXPECT_EQ(net_.blocks[0].requires_grad_(false, "up.*"), 2);
  EXPECT_THAT(error_of([&] { net_.requires_grad_(false, "blocks.7.*"); }), HasSubstr("no parameter of '' matches 'blocks.7.*'"));
  Parameters p;
  Mlp mlp(p);
  mlp.requires_grad_(false, "up.weight");
  mlp.materialize(*device_);
  EXPECT_THAT(error_of([&] { mlp.requires_grad_(true); }), HasSubstr("up.weight was frozen when memory was laid out"));
  // The others learn as if it were not there.
  backward(sum(mlp(random({3, 6}))));
  EXPECT_FALSE(mlp.up.weight.value.grad().defined());
  EXPECT_EQ(p.gradient_runs().size(), 3u);
}

// ---- dropout and modes
struct Dropping : nn::Module {
  using Module::Module;
  nn::Dropout first{*this, "first", 0.5};
  nn::Sequential inner{*this, "inner"};
};
TEST_F(Modules, DropInTrainingOnly) {
  Parameters p;
  Dropping model(p);
  const nn::Dropout& second = model.inner.add<nn::Dropout>(0.5);
  model.materialize(*device_);
  const Tensor x = random({4, 200});
  EXPECT_THAT(error_of([&] { model.first(x); }), HasSubstr("'first' drops in training and was not told what to draw by"));
  model.eval();
  EXPECT_FALSE(second.training());
  EXPECT_EQ(model.first(x).to_vector(), x.to_vector());
  model.train();
  model.begin_micro_batch(1, 2, 3);
  const std::vector<double> once = model.first(x).to_vector();
  EXPECT_NE(once, x.to_vector());
  EXPECT_EQ(model.first(x).to_vector(), once);
  EXPECT_NE(second(x).to_vector(), once) << "another place, another mask";
  const Tensor by = make_dropout_draws(*device_);
  write_dropout_draws(by, 1, 2, 3);
  EXPECT_EQ(dropout(x, 0.5, by, dropout_site("first")).to_vector(), once);
  model.inner.eval();
  EXPECT_TRUE(model.first.training() && !second.training());
  model.begin_micro_batch(1, 3, 3);
  EXPECT_NE(model.first(x).to_vector(), once);
  EXPECT_THROW(nn::Dropout(model, "third", 1.0), Error);
}

// ---- hooks
struct Seen {
  std::vector<std::string> calls;
  double scale = 1;
};
Tensor note(const nn::Module& m, const Tensor& x, void* user) {
  static_cast<Seen*>(user)->calls.push_back(text("{} {}", m.path(), x.shape()));
  return {};
}
Tensor scale(const nn::Module&, const Tensor& x, void* user) { return affine(x, static_cast<Seen*>(user)->scale); }

TEST_F(Modules, HooksSeeAndReplaceWhatPasses) {
  Parameters p;
  Mlp mlp(p);
  mlp.materialize(*device_, {}, 2);
  const Tensor x = random({3, 6});
  const Tensor plain = mlp(x);
  Seen seen;
  mlp.up.add_forward_pre_hook(note, &seen);
  mlp.up.add_forward_hook(note, &seen);
  const int gradient = mlp.up.add_gradient_hook(note, &seen);
  const Tensor same = mlp(x);
  EXPECT_EQ(same.to_vector(), plain.to_vector());
  backward(sum(same));
  EXPECT_THAT(seen.calls, ElementsAre("up [3, 6]", "up [3, 10]", "up [3, 10]"));
  const std::vector<double> dw = mlp.up.weight.value.grad().to_vector(), dw2 = mlp.down.weight.value.grad().to_vector();
  // Replaced: the input of the second layer doubled, and the gradient of the first one's output tripled.
  mlp.up.remove_hook(gradient);
  EXPECT_THAT(error_of([&] { mlp.up.remove_hook(gradient); }), HasSubstr("'up' has no hook"));
  Seen twice{{}, 2}, thrice{{}, 3};
  const int doubled = mlp.down.add_forward_pre_hook(scale, &twice);
  EXPECT_NE(mlp(x).to_vector(), plain.to_vector());
  mlp.down.remove_hook(doubled);
  mlp.up.add_gradient_hook(scale, &thrice);
  p.zero_grad();
  backward(sum(mlp(x)));
  std::vector<double> tripled = mlp.up.weight.value.grad().to_vector();
  double most = 0;
  for (const double g : dw) most = std::max(most, std::abs(g));
  // Sums over three rows of products that are rounded anew.
  for (size_t i = 0; i < dw.size(); ++i) EXPECT_NEAR(tripled[i], 3 * dw[i], 4 * epsilon(DType::f32) * std::sqrt(3.0) * 3 * most);
  EXPECT_EQ(mlp.down.weight.value.grad().to_vector(), dw2) << "which lies above";
}

// Dropout in evaluation gives its input: the hook stood on the node before it, and saw what came past the layer too.
TEST_F(Modules, AGradientHookOfALayerThatGivesItsInputSeesItsOwnGradient) {
  struct Model : nn::Module {
    using Module::Module;
    nn::Dropout drop{*this, "drop", 0.5};
  };
  Parameters p;
  Model model(p);
  model.materialize(*device_);
  model.eval();
  Seen seen, thrice{{}, 3};
  model.drop.add_gradient_hook(
      [](const nn::Module&, const Tensor& dy, void* user) {
        static_cast<Seen*>(user)->calls.push_back(text("{}", dy.to_vector()[0]));
        return Tensor();
      },
      &seen);
  model.drop.add_gradient_hook(scale, &thrice);
  const Tensor x = Tensor(ones(*device_, {{2}, DType::f32})).set_requires_grad();
  for (const bool is_leaf : {false, true}) {
    Tensor(x).zero_grad();
    const Tensor h = is_leaf ? x : affine(x, 2);
    const Tensor y = model.drop(h);
    EXPECT_TRUE(y.same_storage(h));
    backward(sum(add(affine(y, 5), h)));
    EXPECT_THAT(x.grad().to_vector(), is_leaf ? ElementsAre(16, 16) : ElementsAre(32, 32));
  }
  EXPECT_THAT(seen.calls, ElementsAre("5", "5"));
  const NoGrad guard;
  EXPECT_FALSE(node_of(model.drop(x)));
}

// The node held the address of the module's hook.
TEST_F(Modules, BackwardMayComeAfterTheModule) {
  Seen seen;
  Tensor loss;
  Parameters p;
  {
    Mlp mlp(p);
    mlp.materialize(*device_, {}, 2);
    mlp.up.add_gradient_hook(note, &seen);
    loss = sum(mlp(random({3, 6})));
  }
  backward(loss);
  EXPECT_TRUE(seen.calls.empty());
}

TEST_F(Modules, ThawingChecksBeforeItChanges) {
  Parameters p;
  Mlp mlp(p);
  mlp.down.requires_grad_(false);
  mlp.materialize(*device_, {}, 2);
  mlp.up.requires_grad_(false);
  EXPECT_THAT(error_of([&] { mlp.requires_grad_(true); }), HasSubstr("was frozen when memory was laid out"));
  EXPECT_FALSE(mlp.up.weight.value.requires_grad()) << "as before";
}
}  // namespace
}  // namespace reckon
