// docs/autocast.md: its example runs, and its table is that of the rows. RECKON_REGENERATE=1 writes the table.
#include "reckon/engine/autocast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/io/files.h"
#include "reckon/nn/layers.h"
#include "reckon/ops/rows.h"
#include "reckon/train/optimizer.h"

namespace reckon::docs {
namespace {
constexpr const char* kPage = "docs/autocast.md";

struct Batch {
  Tensor x, targets;
};
struct Model : nn::Module {
  using Module::Module;
  nn::Linear up{*this, "up", 16, 32};
  nn::LayerNorm norm{*this, "norm", 32};
  nn::Linear down{*this, "down", 32, 8};
  Tensor loss(const Batch& b) const { return cross_entropy(down(gelu(norm(up(b.x)))), b.targets); }
};

double training_step(const Model& model, const Batch& batch, const Optimizer& optimizer) {
  Tensor loss;
  {
    const Autocast scope(DType::bf16);
    loss = model.loss(batch);
  }
  backward(loss);
  optimizer.step(loss);
  return loss.item();
}

TEST(AutocastPage, ItsExampleLearns) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  Parameters parameters;
  Model model(parameters);
  model.materialize(*cpu, {}, 3);
  const Optimizer optimizer(*cpu, parameters, {.lr = 1e-2, .warmup_steps = 0});
  const Batch batch{empty(*cpu, {{8, 16}, DType::f32}), arange(*cpu, 8, DType::i32)};
  fill_normal_(batch.x, 1);
  std::vector<double> losses;
  for (int64_t step = 0; step < 20; ++step) {
    optimizer.write_scalars(step, 20);
    losses.push_back(training_step(model, batch, optimizer));
    for (const Parameter& p : parameters.all()) EXPECT_EQ(p.value.grad().dtype(), DType::f32);
    parameters.zero_grad();
  }
  EXPECT_LT(losses.back(), 0.5 * losses.front());
}

// Gradients of products are float16: at this scale they are infinite at first, and the steps are skipped.
TEST(AutocastPage, Float16LearnsWithALossScale) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  Parameters parameters;
  Model model(parameters);
  model.materialize(*cpu, {}, 3);
  const Optimizer optimizer(*cpu, parameters, {.lr = 1e-2, .warmup_steps = 0}, {.start = 0x1p24, .growth_interval = 1000});
  const Batch batch{empty(*cpu, {{8, 16}, DType::f32}), arange(*cpu, 8, DType::i32)};
  fill_normal_(batch.x, 1);
  std::vector<double> losses;
  int skipped = 0;
  for (int64_t step = 0; step < 40; ++step) {
    optimizer.write_scalars(step, 40);
    Tensor loss;
    {
      const Autocast scope(DType::f16);
      loss = model.loss(batch);
    }
    backward(affine(loss, optimizer.loss_scale().item()));
    optimizer.step(loss);
    skipped += !optimizer.outcome().updated;
    losses.push_back(loss.item());
    parameters.zero_grad();
  }
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 20);
  EXPECT_LT(losses.back(), 0.5 * losses.front());
}

// ---- the table
struct Policy {
  const char* name;
  bool (*holds)(const OpTraits&);
};
template <AutocastPolicy kPolicy>
bool has(const OpTraits& t) {
  return !t.mutates && t.autocast == kPolicy;
}
const Policy kPolicies[] = {{"low", has<AutocastPolicy::low>},
                            {"wide", has<AutocastPolicy::wide>},
                            {"widest", has<AutocastPolicy::widest>},
                            {"none", has<AutocastPolicy::none>},
                            {"written", [](const OpTraits& t) { return t.mutates != 0; }}};

std::string names_of(const Policy& policy) {
  std::string names;
  for (const OpDef* row : all_ops())
    if (policy.holds(row->traits)) names += (names.empty() ? "`" : ", `") + std::string(row->name) + "`";
  return names;
}

// The cell with the operations of a policy: where it begins in the page, and its end.
std::pair<size_t, size_t> cell_of(const std::string& page, const char* policy) {
  const size_t line = page.find("\n| " + std::string(policy) + " |"), end = page.find(" |\n", line + 1);
  check(line != page.npos && end != page.npos, "{} has no line for the policy {}", kPage, policy);
  return {page.rfind("| ", end - 1) + 2, end};
}

TEST(AutocastPage, EveryRowIsInTheTable) {
  std::string page = read_file(kPage, 1 << 20);
  if (std::getenv("RECKON_REGENERATE")) {
    for (const Policy& policy : kPolicies) {
      const auto [begin, end] = cell_of(page, policy.name);
      page.replace(begin, end > begin ? end - begin : 0, names_of(policy));
    }
    write_file(kPage, page);
    return;
  }
  for (const Policy& policy : kPolicies) {
    const auto [begin, end] = cell_of(page, policy.name);
    const std::string listed = page.substr(begin, end - begin);
    for (const OpDef* row : all_ops()) {
      const bool is_listed = listed.find("`" + std::string(row->name) + "`") != listed.npos, is_one = policy.holds(row->traits);
      EXPECT_EQ(is_listed, is_one) << row->name << (is_one ? " has the policy " : " has another policy than ") << policy.name << " and is "
                                   << (is_listed ? "" : "not ") << "in its line of " << kPage
                                   << ": choose its policy, then run RECKON_REGENERATE=1 test_docs --gtest_filter=AutocastPage.*";
    }
    EXPECT_EQ(listed, names_of(policy)) << policy.name;
  }
}

TEST(AutocastPage, WhatWritesAnInputHasNoPolicy) {
  for (const OpDef* row : all_ops())
    if (row->traits.mutates) {
      EXPECT_EQ(row->traits.autocast, AutocastPolicy::none) << row->name;
    }
}
}  // namespace
}  // namespace reckon::docs
