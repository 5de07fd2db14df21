// The optimizer in a loop of one's own: steps without a trainer, learning rates, groups of parameters, state dictionaries.
#include <cmath>

#include "reckon/engine/backward.h"
#include "reckon/engine/compile.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
// Two linear layers on given data.
struct Net {
  explicit Net(const OptimConfig& config, DType dtype = DType::f32, Mode mode = Mode::real) : device(open_cpu(mode)) {
    parameters.declare("first.weight", {9, 7}, {Init::normal, 0.3, 1}, true);
    parameters.declare("first.bias", {9}, {Init::zeros}, false);
    parameters.declare("last.weight", {1, 9}, {Init::normal, 0.3, 1}, true);
    parameters.materialize(*device, {dtype, true}, 5);
    optimizer = std::make_unique<Optimizer>(*device, parameters, config);
  }
  Tensor loss() {
    const DType dtype = parameters.dtype();
    const Tensor x = empty(*device, {{12, 7}, dtype}), target = empty(*device, {{12, 1}, dtype});
    fill_normal_(x, 1);
    fill_normal_(target, 2);
    const Tensor hidden = tanh(linear(x, parameters.find("first.weight")->value, parameters.find("first.bias")->value));
    return mse_loss(linear(hidden, parameters.find("last.weight")->value), target);
  }
  void step() {
    parameters.zero_grad();
    backward(loss());
    optimizer->step();
  }
  std::map<std::string, std::string> values() {
    std::map<std::string, std::string> all;
    for (const Parameter& p : parameters.all()) all[p.name] = bytes_of(p.value);
    for (const auto& [name, tensor] : optimizer->planes()) all[name] = bytes_of(tensor);
    return all;
  }
  Ref<Device> device;
  Parameters parameters;
  std::unique_ptr<Optimizer> optimizer;
};

OptimConfig with_decay(OptimizerKind kind) {
  OptimConfig c = plain(kind);
  c.weight_decay = 0.1;
  if (kind == OptimizerKind::rmsprop) c.centered = true, c.rmsprop_momentum = 0.9;
  return c;
}

class Loop : public ::testing::TestWithParam<OptimizerKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Loop,
                         ::testing::Values(OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adagrad,
                                           OptimizerKind::rmsprop, OptimizerKind::adam, OptimizerKind::adamw, OptimizerKind::lamb,
                                           OptimizerKind::adamw8bit),
                         [](const auto& info) { return to_string(info.param); });

TEST_P(Loop, lowers_the_loss) {
  OptimConfig c = plain(GetParam());
  c.lr = 0.02;
  c.weight_decay = 0;
  Net net(c);
  const double before = net.loss().item();
  for (int i = 0; i < 200; ++i) net.step();
  EXPECT_LT(net.loss().item(), 0.8 * before);
  EXPECT_EQ(net.optimizer->steps(), 200);
}

// What the trainer does with a number of the step and a loss, with neither.
TEST_P(Loop, steps_as_the_trainer_does) {
  Net own(with_decay(GetParam())), numbered(with_decay(GetParam()));
  for (int i = 0; i < 5; ++i) {
    own.step();
    numbered.parameters.zero_grad();
    const Tensor loss = numbered.loss();
    backward(loss);
    numbered.optimizer->write_scalars(i, 5);
    numbered.optimizer->step(loss);
  }
  EXPECT_EQ(own.values(), numbered.values());
}

TEST_P(Loop, continues_from_a_state_dictionary) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    Net straight(with_decay(GetParam()), dtype), first(with_decay(GetParam()), dtype), second(with_decay(GetParam()), dtype);
    for (int i = 0; i < 6; ++i) straight.step();
    for (int i = 0; i < 3; ++i) first.step();
    second.step();  // another state, all of which is replaced
    second.optimizer->load_state_dict(first.optimizer->state_dict());
    for (const Parameter& p : first.parameters.all()) second.parameters.find(p.name)->value.write(p.value.raw(), p.value.spec().bytes());
    EXPECT_EQ(second.optimizer->steps(), 3);
    EXPECT_EQ(second.values(), first.values());
    for (int i = 0; i < 3; ++i) second.step();
    EXPECT_EQ(second.values(), straight.values()) << name_of(dtype);
  }
}

TEST(LoopState, has_names_shapes_and_the_planes_of_narrow_weights) {
  Net net(plain(OptimizerKind::adamw), DType::bf16);
  net.step();
  const Optimizer::StateDict list = net.optimizer->state_dict();
  const std::map<std::string, Tensor> dict(list.begin(), list.end());
  EXPECT_EQ(list.size(), 3u * 3 + 1);
  EXPECT_EQ(dict.size(), list.size());
  EXPECT_TRUE(std::equal(dict.begin(), dict.end(), list.begin(), [](const auto& a, const auto& b) { return a.first == b.first; }))
      << "sorted";
  EXPECT_EQ(dict.at("m.first.weight").spec(), (TensorSpec{{9, 7}, DType::f32}));
  EXPECT_EQ(dict.at("residual.last.weight").spec(), (TensorSpec{{1, 9}, DType::bf16}));
  EXPECT_EQ(dict.at("step").item(), 1);
}

TEST(LoopState, refuses_what_does_not_belong) {
  const auto error = [](Net& net, const Optimizer::StateDict& dict) -> std::string {
    try {
      net.optimizer->load_state_dict(dict);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  Net net(plain(OptimizerKind::adamw)), other(plain(OptimizerKind::momentum));
  net.step();
  const auto before = net.values();
  Optimizer::StateDict dict = net.optimizer->state_dict();
  EXPECT_EQ(error(net, dict), "");
  EXPECT_EQ(error(net, other.optimizer->state_dict()), "the state \"m.first.bias\" of the optimizer adamw is missing");
  EXPECT_EQ(error(other, {{"lr", zeros(*net.device, {{1}, DType::f32})}}),
            "the state \"momentum.first.bias\" of the optimizer momentum is missing");
  dict.emplace_back("lr", zeros(*net.device, {{1}, DType::f32}));
  EXPECT_EQ(error(net, dict), "the optimizer adamw has no state \"lr\"");
  dict.pop_back();
  const auto bias = std::find_if(dict.begin(), dict.end(), [](const auto& state) { return state.first == "v.first.bias"; });
  ASSERT_NE(bias, dict.end());
  bias->second = zeros(*net.device, {{8}, DType::f32});
  EXPECT_EQ(error(net, dict), "the state \"v.first.bias\" is f32[8], the optimizer's is f32[9]");
  dict.erase(bias);
  EXPECT_EQ(error(net, dict), "the state \"v.first.bias\" of the optimizer adamw is missing");
  EXPECT_EQ(net.values(), before) << "nothing changes before all is known to fit";
}

// The first of these read through a null pointer; of two of one name the first was taken; NaN became a number of steps.
TEST(LoopState, refuses_what_is_no_state) {
  Net net(plain(OptimizerKind::adamw)), meta(plain(OptimizerKind::adamw), DType::f32, Mode::meta);
  net.step();
  const auto before = net.values();
  const auto error = [&](const Optimizer::StateDict& dict) -> std::string {
    try {
      net.optimizer->load_state_dict(dict);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error(meta.optimizer->state_dict()), "the state \"m.first.bias\", f32[9], has no data: it is undefined, or on meta");
  EXPECT_EQ(error({{"m.first.bias", Tensor()}}), "the state \"m.first.bias\", undefined, has no data: it is undefined, or on meta");
  meta.optimizer->load_state_dict(net.optimizer->state_dict());
  Optimizer::StateDict dict = net.optimizer->state_dict();
  dict.push_back(dict.front());
  EXPECT_EQ(error(dict), "the state \"m.first.bias\" is there twice");
  for (const double step : {double(NAN), double(INFINITY), -1.0, 0.5, 0x1p54}) {
    dict = net.optimizer->state_dict();
    for (auto& [name, tensor] : dict) tensor = name == "step" ? full(*net.device, {Shape{}, DType::f64}, step) : affine(tensor, 2);
    EXPECT_NE(error(dict).find("which is no number of steps from 0 to 2^53"), std::string::npos) << step;
  }
  EXPECT_EQ(net.optimizer->steps(), 1);
  EXPECT_EQ(net.values(), before);
}

TEST(LoopRate, is_what_was_set_last) {
  Net set(plain(OptimizerKind::adamw)), made(plain(OptimizerKind::adamw));
  EXPECT_EQ(set.optimizer->lr(), 0.01);
  set.optimizer->set_lr(0);
  const auto before = set.values()["first.weight"];
  set.step();
  EXPECT_EQ(set.values()["first.weight"], before) << "a rate of 0 moves nothing";
  EXPECT_THROW(set.optimizer->set_lr(-1), Error);
  EXPECT_THROW(set.optimizer->set_lr(NAN), Error);
}

TEST(LoopClip, is_of_the_configuration) {
  OptimConfig clipped = plain(OptimizerKind::sgd);
  clipped.weight_decay = 0;
  clipped.clip_norm = 1e-3;
  Net net(clipped);
  const std::vector<double> before = net.parameters.find("first.weight")->value.to_vector();
  net.step();
  EXPECT_GT(net.optimizer->outcome().grad_norm, 1e-3);
  const std::vector<double> after = net.parameters.find("first.weight")->value.to_vector();
  double squares = 0;
  for (size_t i = 0; i < before.size(); ++i) squares += (after[i] - before[i]) * (after[i] - before[i]);
  EXPECT_LE(std::sqrt(squares), clipped.lr * clipped.clip_norm * (1 + 1e-3));
}

// A gradient that is not finite skips the step, as in the trainer; it counts.
TEST(LoopSkip, leaves_everything_as_it_was) {
  for (const OptimizerKind kind : {OptimizerKind::rmsprop, OptimizerKind::lamb, OptimizerKind::adam}) {
    Net net(with_decay(kind));
    net.step();
    const auto before = net.values();
    net.parameters.zero_grad();
    backward(mul(net.loss(), full(*net.device, {Shape{}, DType::f32}, INFINITY)));
    net.optimizer->step();
    EXPECT_FALSE(net.optimizer->outcome().updated);
    EXPECT_EQ(net.values(), before);
    EXPECT_EQ(net.optimizer->steps(), 2);
  }
}

// The rehearsals of a plan counted too: its bias corrections were those of later steps.
TEST_P(Loop, is_the_same_in_planned_and_compiled_steps) {
  Net eager(with_decay(GetParam())), in_plan(with_decay(GetParam())), in_compiled(with_decay(GetParam()));
  const auto body = [](Net& net) {
    return [&net](const Tensors&) {
      net.step();
      return Tensors{};
    };
  };
  PlannedStep plan = planned(*in_plan.device, body(in_plan));
  CompiledStep fused = compile(*in_compiled.device, body(in_compiled));
  dry_run(*eager.device, body(eager));
  for (int i = 0; i < 4; ++i) eager.step(), plan({}), fused({});
  EXPECT_EQ(in_plan.optimizer->steps(), 4);
  EXPECT_EQ(in_compiled.optimizer->steps(), 4);
  EXPECT_EQ(in_plan.values(), eager.values());
  EXPECT_EQ(in_compiled.values(), eager.values());
  Net meta(with_decay(GetParam()), DType::f32, Mode::meta);
  dry_run(*meta.device, body(meta));
  EXPECT_EQ(meta.optimizer->steps(), 1) << "on meta there is nothing but what is counted";
}

// ---- groups
// A parameter is stepped as by an optimizer that has its group's rate and decay for all.
TEST_P(Loop, steps_each_group_by_its_factors) {
  OptimConfig c = with_decay(GetParam()), fast = c, bare = c;
  c.groups = "first.* lr=4; last.weight weight_decay=0";
  fast.lr *= 4;
  bare.weight_decay = 0;
  Net grouped(c), of_first(fast), of_last(bare);
  for (Net* net : {&grouped, &of_first, &of_last}) net->step();  // one step: later gradients see the other parameters
  const auto values = grouped.values();
  for (const auto& [name, bytes] : values) EXPECT_EQ(bytes, (name.find("first") != name.npos ? of_first : of_last).values()[name]) << name;
}

TEST(Groups, cut_runs_only_where_they_differ) {
  const auto calls = [](const std::string& groups) {
    OptimConfig c = plain(OptimizerKind::adamw);
    c.groups = groups;
    Net net(c, DType::f32, Mode::meta);
    Meter meter;
    const MeterScope scope(meter);
    net.step();
    int64_t count = 0;
    for (const MeterRow& row : meter.rows()) count += std::string(row.op) == "adamw_step" ? row.calls : 0;
    return count;
  };
  EXPECT_EQ(calls(""), 2);
  EXPECT_EQ(calls("* lr=1"), 2);
  EXPECT_EQ(calls("first.* lr=0.5"), 3);
}

TEST(Groups, match_by_stars) {
  const auto matches_name = [](const char* pattern, const char* name) { return matches({pattern}, name); };
  EXPECT_TRUE(matches_name("*", ""));
  EXPECT_TRUE(matches_name("embed.weight", "embed.weight"));
  EXPECT_FALSE(matches_name("embed", "embed.weight"));
  EXPECT_TRUE(matches_name("blocks.*.weight", "blocks.3.attn.qkv.weight"));
  EXPECT_FALSE(matches_name("blocks.*.weight", "blocks.3.attn.qkv.bias"));
  EXPECT_TRUE(matches_name("*a*b*", "xxaxxaxxbx"));
  EXPECT_FALSE(matches_name("*ab", "abc"));
  EXPECT_TRUE(matches_name("*ab", "abab"));
  EXPECT_EQ(group_of({{"a*"}, {"*"}}, "b"), 1);
  EXPECT_EQ(group_of({{"a*"}, {"*"}}, "ab"), 0);
  EXPECT_EQ(group_of({{"a*"}}, "b"), -1);
}

TEST(Groups, are_read_from_text) {
  EXPECT_EQ(parse_groups("embed.* lr=0.5;  *.bias lr=2 weight_decay=0 ;"),
            (std::vector<ParameterGroup>{{"embed.*", 0.5, 1}, {"*.bias", 2, 0}}));
  EXPECT_EQ(parse_groups("a,lr=1e-1"), (std::vector<ParameterGroup>{{"a", 0.1, 1}}));
  EXPECT_TRUE(parse_groups(" ; ").empty());
  const auto error = [](const char* text) -> std::string {
    try {
      parse_groups(text);
    } catch (const Error& e) {
      EXPECT_EQ(e.exit_code(), 2);
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error("embed.*"), "optim.groups: \"embed.*\" is no group such as \"embed.* lr=0.1 weight_decay=0\"");
  EXPECT_EQ(error("lr=2 embed"), "optim.groups: \"lr=2 embed\" is no group such as \"embed.* lr=0.1 weight_decay=0\"");
  EXPECT_EQ(error("embed.* momentum=0"),
            "optim.groups: \"momentum=0\" in \"embed.* momentum=0\" is neither lr=FACTOR nor weight_decay=FACTOR");
  EXPECT_EQ(error("a lr=1 weight_decay=0 lr=2"), "optim.groups: \"a lr=1 weight_decay=0 lr=2\" gives lr twice");
  for (const char* bad : {"a lr=", "a lr=x", "a lr=-1", "a lr=1001", "a lr=nan", "a lr=1x"})
    EXPECT_NE(error(bad).find("is no factor from 0 to 1000"), std::string::npos) << bad;
}

TEST(Groups, that_match_nothing_are_refused) {
  OptimConfig c = plain(OptimizerKind::sgd);
  c.groups = "head.* lr=2";
  try {
    Net net(c);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_code(), 2);
    EXPECT_STREQ(e.what(),
                 "optim.groups: \"head.*\" matches no parameter; they have names like first.weight, and * stands for any characters");
  }
}

TEST(Groups, with_factors_out_of_range_are_refused) {
  Net net(plain(OptimizerKind::sgd));
  for (const double factor : {-2.0, 1001.0, double(NAN)}) {
    EXPECT_THROW(net.optimizer->set_groups({{"first.*", factor}}), Error) << factor;
    EXPECT_THROW(net.optimizer->set_groups({{"first.*", 1, factor}}), Error) << factor;
  }
}

TEST(LoopConfig, numbers_out_of_range_are_refused) {
  const auto refuses = [](const char* key, double OptimConfig::*field, double value) {
    OptimConfig c = plain(OptimizerKind::adamw);
    c.*field = value;
    try {
      Net net(c);
      ADD_FAILURE() << key << " = " << value << " was taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.exit_code(), 2);
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
    }
  };
  for (const double value : {-1.0, double(NAN)}) {
    refuses("optim.lr", &OptimConfig::lr, value);
    refuses("optim.weight_decay", &OptimConfig::weight_decay, value);
    refuses("optim.clip_norm", &OptimConfig::clip_norm, value);
  }
  refuses("optim.beta1", &OptimConfig::beta1, 1);
  refuses("optim.beta2", &OptimConfig::beta2, 2);
  refuses("optim.eps", &OptimConfig::eps, 0);
}

TEST(LoopConfig, parameters_without_values_are_refused) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters parameters;
  parameters.declare("w", {2}, {}, true);
  try {
    const Optimizer optimizer(*device, parameters, plain(OptimizerKind::sgd));
    FAIL() << "an optimizer of nothing";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "w has no value yet: call materialize() before an Optimizer is made");
  }
}

TEST(Groups, that_could_never_count_are_refused) {
  OptimConfig c = plain(OptimizerKind::sgd);
  c.groups = "*.weight lr=2; first.* lr=3; first.weight lr=4";
  try {
    Net net(c);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_code(), 2);
    EXPECT_STREQ(
        e.what(),
        "optim.groups: \"first.weight\" would never count: all that it matches are in groups before it; put it first, or leave it out");
  }
}

// With a least norm above 0, a tensor of zeros took steps of that norm instead of the rule's own.
TEST(LoopLamb, a_norm_of_zero_is_not_clamped) {
  OptimConfig low = plain(OptimizerKind::lamb), none = low;
  low.weight_decay = none.weight_decay = 0;
  low.phi_low = 5;
  Net a(low), b(none);
  a.step(), b.step();
  EXPECT_EQ(a.values()["first.bias"], b.values()["first.bias"]) << "which starts as zeros";
  EXPECT_NE(a.values()["first.weight"], b.values()["first.weight"]);
}
}  // namespace
}  // namespace small
