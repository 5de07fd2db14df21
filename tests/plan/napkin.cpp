// Every number of the worked questions, to the digits that people quote; what common mistakes give; and what is refused.
#include "reckon/plan/napkin.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/plan/run_plan.h"

namespace reckon {
namespace {
using Kind = NapkinValue::Kind;

Ref<Device> open_meta() { return open_cpu(Mode::meta, DeviceProfile{}); }
NapkinAnswer ask(std::string_view topic, std::vector<std::string> arguments = {}) { return napkin(topic, arguments, open_meta); }
double napkin_of(const NapkinAnswer& a, std::string_view name) { return a.value(Kind::napkin, name); }
double exact_of(const NapkinAnswer& a, std::string_view name) { return a.value(Kind::exact, name); }
double mistake_of(const NapkinAnswer& a, std::string_view name) { return a.value(Kind::mistake, name); }

std::string refusal(std::string_view topic, std::vector<std::string> arguments) {
  try {
    ask(topic, arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage) << error.what();
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    return error.what();
  }
  ADD_FAILURE() << topic << " was answered";
  return "";
}

// ---- the worked questions. A tolerance is half of the last digit that is quoted.
TEST(Napkin, TrainingDays) {
  const NapkinAnswer a = ask("training-days");
  EXPECT_NEAR(napkin_of(a, "flops"), 6.3e24, 0.05e24);
  EXPECT_NEAR(napkin_of(a, "days"), 143.9, 0.05);
  EXPECT_NEAR(mistake_of(a, "days"), 143.9 / 2, 0.05);  // the first: the sparse peak
  bool rounded = false;
  for (const NapkinValue& v : a.values) rounded = rounded || (v.kind == Kind::mistake && std::abs(v.value - 146) < 0.5);
  EXPECT_TRUE(rounded) << "the rate rounded down to 5e17";
  // 700 W each, PUE 1.2, for that time.
  EXPECT_NEAR(napkin_of(a, "energy"), 1024 * 700 * 1.2 * 143.93 * 24 / 1e6, 1);
  EXPECT_NEAR(exact_of(a, "flops") / napkin_of(a, "flops"), 1.07, 0.005);
}

TEST(Napkin, TrainingDaysOfOnesOwn) {
  const NapkinAnswer a =
      ask("training-days", {"params=1B", "tokens=20e9", "gpus=8", "profile=A100 SXM 80GB", "mfu=0.4", "price_per_gpu_hour=2"});
  const double days = 6 * 1e9 * 20e9 / (8 * 312e12 * 0.4) / 86400;
  EXPECT_DOUBLE_EQ(napkin_of(a, "days"), days);
  EXPECT_DOUBLE_EQ(napkin_of(a, "price"), 8 * days * 24 * 2);
  EXPECT_THROW(exact_of(a, "days"), Error) << "no model was named, so nothing was counted";
}

TEST(Napkin, LargestModel) {
  const NapkinAnswer a = ask("largest-model");
  EXPECT_EQ(napkin_of(a, "bytes_per_parameter"), 16);
  EXPECT_EQ(napkin_of(a, "parameters"), 40e9);
  EXPECT_EQ(mistake_of(a, "parameters"), 160e9);
  EXPECT_NEAR(exact_of(a, "bytes_per_parameter"), 16, 0.001);
  EXPECT_EQ(napkin_of(ask("largest-model", {"optim.name=sgd"}), "bytes_per_parameter"), 8);
  EXPECT_NEAR(exact_of(ask("largest-model", {"optim.name=sgd"}), "bytes_per_parameter"), 8, 0.001);
  for (const char* name : {"optim.name=momentum", "optim.name=nesterov", "optim.name=rmsprop"})
    EXPECT_NEAR(exact_of(ask("largest-model", {name}), "bytes_per_parameter"), 12, 0.001);
  for (const char* name : {"optim.name=adam", "optim.name=lamb"}) EXPECT_NEAR(exact_of(ask("largest-model", {name}), "bytes_per_parameter"), 16, 0.001);
  const std::vector<std::string> all = {"optim.name=rmsprop", "optim.centered=true", "optim.rmsprop_momentum=0.9"};
  EXPECT_EQ(napkin_of(ask("largest-model", all), "bytes_per_parameter"), 20);
  EXPECT_NEAR(exact_of(ask("largest-model", all), "bytes_per_parameter"), 20, 0.001);
}

TEST(Napkin, TensorBytes) {
  EXPECT_EQ(napkin_of(ask("tensor-bytes"), "bytes"), 33'554'432);
  EXPECT_EQ(exact_of(ask("tensor-bytes"), "bytes"), 33'554'432);
  const NapkinAnswer two = ask("tensor-bytes", {"shape=32x32", "dtype=f32", "count=2"});
  EXPECT_EQ(napkin_of(two, "bytes"), 8192);
  EXPECT_EQ(exact_of(two, "bytes"), 8192);
  const NapkinAnswer odd = ask("tensor-bytes", {"shape=[3,5]", "dtype=u8"});
  EXPECT_EQ(exact_of(odd, "bytes"), 15);
  EXPECT_EQ(exact_of(odd, "blocks"), 64);
}

TEST(Napkin, MatmulFlops) {
  const NapkinAnswer a = ask("matmul-flops");
  EXPECT_EQ(napkin_of(a, "flops"), 8'796'093'022'208);
  EXPECT_EQ(exact_of(a, "flops"), 8'796'093'022'208);
  EXPECT_NEAR(mistake_of(a, "flops"), 8.8e15, 0.05e15);
}

TEST(Napkin, LinearStack) {
  const NapkinAnswer a = ask("linear-stack");
  const double BD2 = 64.0 * 1024 * 1024;
  EXPECT_EQ(napkin_of(a, "forward"), 4 * BD2);
  EXPECT_EQ(exact_of(a, "forward"), 4 * BD2);
  EXPECT_EQ(napkin_of(a, "backward"), 8 * BD2);
  EXPECT_EQ(exact_of(a, "backward"), 6 * BD2);
  EXPECT_EQ(napkin_of(a, "backward_needed"), 6 * BD2);
  EXPECT_EQ(exact_of(ask("linear-stack", {"layers=5", "b=3", "d=7"}), "backward"), (4 * 5 - 2) * 3 * 7 * 7);
}

TEST(Napkin, Gpt3) {
  EXPECT_NEAR(napkin_of(ask("transformer-params"), "parameters"), 1.74e11, 0.005e11);
  EXPECT_EQ(exact_of(ask("transformer-params"), "parameters"), 174'604'259'328.0);
  const NapkinAnswer flops = ask("training-flops");
  EXPECT_NEAR(exact_of(flops, "flops"), 3.14e23, 0.005e23);
  EXPECT_NEAR(napkin_of(flops, "flops"), 3.13e23, 0.005e23);
  EXPECT_NEAR(exact_of(flops, "years"), 10, 0.5);
  EXPECT_NEAR(napkin_of(ask("device-years"), "years"), 10, 0.5);
  EXPECT_NEAR(napkin_of(ask("device-years", {"flops=2e25"}), "years"), 640, 5);
  EXPECT_NEAR(napkin_of(ask("device-years", {"flops=1e26"}), "years"), 3200, 50);
}

TEST(Napkin, StepFlops) {
  const NapkinAnswer a = ask("step-flops");
  EXPECT_NEAR(napkin_of(a, "flops"), 4.2e18, 0.05e18);
  EXPECT_NEAR(exact_of(a, "flops"), 4.2e18, 0.05e18);
  EXPECT_EQ(mistake_of(a, "flops"), napkin_of(a, "flops") * 2048);
}

TEST(Napkin, FlopsRatio) {
  EXPECT_NEAR(napkin_of(ask("flops-ratio"), "ratio"), 20, 0.5);
  EXPECT_EQ(mistake_of(ask("flops-ratio"), "ratio"), 1);
}

TEST(Napkin, Mfu) {
  EXPECT_DOUBLE_EQ(napkin_of(ask("mfu"), "mfu"), 1);
  EXPECT_NEAR(mistake_of(ask("mfu"), "mfu"), 0.06, 0.005);
  EXPECT_NEAR(napkin_of(ask("mfu", {"achieved=82e12", "profile=h100-sxm", "dtype=bf16"}), "mfu"), 0.083, 0.0005);
}

TEST(Napkin, MfuBands) {
  const auto band = [](const char* tflops) {
    for (const NapkinValue& v : ask("mfu", {std::string("achieved=") + tflops + "T", "profile=a100-sxm-80gb", "dtype=bf16"}).values)
      if (v.name == "percent") return v.how;
    return std::string();
  };
  EXPECT_EQ(band("31.2"), "poor (below 20 %)");
  EXPECT_EQ(band("140"), "what to plan with (30-60 %)");
  EXPECT_EQ(band("170"), "very good (above 50 %)");
  EXPECT_NE(band("400").find("wrong"), std::string::npos);
}

TEST(Napkin, RidgePointAndIntensity) {
  EXPECT_NEAR(napkin_of(ask("ridge-point"), "ridge"), 295, 0.5);
  const NapkinAnswer a = ask("intensity", {"m=128", "n=256", "k=512"});
  const double bytes = 2.0 * (128 * 512 + 512 * 256 + 128 * 256);
  EXPECT_DOUBLE_EQ(napkin_of(a, "matmul"), 2.0 * 128 * 256 * 512 / bytes);
  EXPECT_DOUBLE_EQ(exact_of(a, "matmul"), napkin_of(a, "matmul"));
  EXPECT_DOUBLE_EQ(exact_of(a, "add"), 1.0 / 6);  // one FLOP for three bf16 elements
}

TEST(Napkin, WeightsBytes) {
  const NapkinAnswer a = ask("weights-bytes");
  EXPECT_EQ(napkin_of(a, "bytes"), 140e9);
  EXPECT_NEAR(mistake_of(a, "bytes"), 1.1e12, 0.05e12);
  EXPECT_NEAR(exact_of(a, "bytes"), 2 * 70'553'706'496.0, 64 * 1000);  // padding of fewer than 1000 tensors
}

TEST(Napkin, Cruncher) {
  const NapkinAnswer a = ask("cruncher");
  EXPECT_EQ(napkin_of(a, "parameters"), 36);
  EXPECT_EQ(napkin_of(a, "activations"), 16);
  EXPECT_EQ(napkin_of(a, "gradients"), 36);
  EXPECT_EQ(napkin_of(a, "states"), 36);
  EXPECT_EQ(napkin_of(a, "bytes"), 496);
  EXPECT_EQ(mistake_of(a, "bytes"), 512);
  EXPECT_NEAR(napkin_of(a, "share_parameters"), 29.0, 0.05);
  EXPECT_NEAR(napkin_of(a, "share_activations"), 12.9, 0.05);
  EXPECT_NEAR(napkin_of(a, "share_gradients"), 29.0, 0.05);
  EXPECT_NEAR(napkin_of(a, "share_states"), 29.0, 0.05);
  EXPECT_EQ(napkin_of(a, "flops"), 432);
  EXPECT_EQ(exact_of(a, "parameters"), 36);
  EXPECT_EQ(exact_of(a, "flops"), 368);
}

TEST(Napkin, MixedPrecision) {
  const NapkinAnswer a = ask("mixed-precision");
  for (const auto& [name, gigabytes] : {std::pair("weights", 16),
                                        {"master", 32},
                                        {"m_and_v", 64},
                                        {"gradients", 32},
                                        {"total", 144},
                                        {"zero_1", 60},
                                        {"zero_2", 32},
                                        {"zero_3", 18}})
    EXPECT_DOUBLE_EQ(napkin_of(a, name), gigabytes * 1e9) << name;
  EXPECT_NEAR(napkin_of(a, "with_buffers_low"), 1.1 * 144e9, 1);
  EXPECT_NEAR(exact_of(a, "total") / 8'030'261'248, 16, 0.001);
}

TEST(Napkin, Activations) {
  const NapkinAnswer a = ask("activations");
  EXPECT_EQ(napkin_of(a, "per_token"), 1'572'864);
  EXPECT_EQ(napkin_of(a, "checkpointed"), 311'296);
  EXPECT_EQ(napkin_of(a, "checkpointed"), 76 * 4096);
  EXPECT_NEAR(napkin_of(a, "checkpointed_all"), 623e9, 0.5e9);
  EXPECT_EQ(napkin_of(a, "best"), 229'376);
  EXPECT_EQ(mistake_of(a, "checkpointed"), 36 * 4096);
  EXPECT_NEAR(mistake_of(a, "checkpointed_all"), 300e6, 10e6);
  // The block keeps two norms' inputs and outputs, q k v, attention's output, gate and up, their product: more than 6 and than 11.
  EXPECT_GT(exact_of(a, "per_layer"), 11);
  EXPECT_LT(exact_of(a, "checkpointed"), exact_of(a, "per_token"));
}

TEST(Napkin, Scores) {
  const NapkinAnswer a = ask("scores");
  EXPECT_EQ(napkin_of(a, "crossover"), 768);
  const auto larger = [](int64_t n) {
    const NapkinAnswer at = ask("scores", {"n=" + std::to_string(n)});
    return napkin_of(at, "scores") > napkin_of(at, "rest");
  };
  EXPECT_FALSE(larger(768));
  EXPECT_TRUE(larger(769));
  EXPECT_GT(exact_of(a, "plain"), napkin_of(a, "scores"));
  EXPECT_EQ(exact_of(a, "fused"), 4096.0 * 4096 * 2 + 32 * 4096 * 4);  // y in bfloat16 and a float32 a row and head
}

TEST(Napkin, ActivationsGrowLinearlyAndStoredScoresQuadratically) {
  const NapkinAnswer a = ask("activation-growth", {"n=8192"});
  EXPECT_DOUBLE_EQ(exact_of(a, "fused"), 2);
  EXPECT_DOUBLE_EQ(exact_of(a, "fused_at_3n"), 3);
  EXPECT_NEAR(exact_of(a, "model"), 2, 0.01);
  EXPECT_NEAR(exact_of(a, "plain"), 4, 0.15);
}

TEST(Napkin, DModel) { EXPECT_NEAR(napkin_of(ask("d-model"), "d_model"), 4564, 0.5); }

TEST(Napkin, EightBillionFromTheShape) {
  const NapkinAnswer a = ask("transformer-params", {"d=4096", "layers=32", "model.preset=llama-3-8b"});
  EXPECT_NEAR(napkin_of(a, "parameters"), 6.44e9, 0.005e9);
  EXPECT_EQ(exact_of(a, "parameters"), 8'030'261'248);
  EXPECT_EQ(mistake_of(a, "parameters"), 8e9);
}

TEST(Napkin, Chinchilla) {
  const NapkinAnswer a = ask("chinchilla");
  EXPECT_EQ(napkin_of(a, "tokens"), 160e9);
  EXPECT_EQ(napkin_of(a, "steps"), 26'667);
}

TEST(Napkin, QuantizedBytes) {
  const NapkinAnswer a = ask("quantized-bytes");
  EXPECT_EQ(napkin_of(a, "bytes"), 8.5e9);
  EXPECT_EQ(mistake_of(a, "bytes"), 8e9);
  // 65 norms of 4096 in float32, everything else 34 B for 32.
  EXPECT_EQ(exact_of(a, "bytes"), (8'030'261'248 - 65 * 4096) / 32 * 34 + 65 * 4096 * 4);
}

TEST(Napkin, Recomputation) {
  const NapkinAnswer a = ask("recomputation");
  EXPECT_NEAR(napkin_of(a, "increase"), 33, 0.5);
  EXPECT_DOUBLE_EQ(napkin_of(a, "flops_recomputed") / napkin_of(a, "flops"), 8.0 / 6);
  EXPECT_DOUBLE_EQ(napkin_of(a, "forwards_but_last"), 2 - 1.0 / 12);
  EXPECT_DOUBLE_EQ(mistake_of(a, "forwards_but_last"), 1 + 1.0 / 12);
  EXPECT_DOUBLE_EQ(exact_of(a, "forwards"), 2);
  // The blocks' forward again is 2 x 84,934,656 a token and at least 2 L d (T + 1) of attention; without it a step executes at least the
  // 797,870,592 that are needed, and the scores of attention's backward once more.
  const double again = 2 * 84'934'656 + 2.0 * 12 * 768 * 1025, step = 797'870'592 + 12.0 * 768 * 1025;
  EXPECT_NEAR(exact_of(a, "increase"), 100.0 * again / step, 1.0);
  EXPECT_LT(exact_of(a, "activations_recomputed"), exact_of(a, "activations_selective"));
  EXPECT_LT(exact_of(a, "activations_selective"), exact_of(a, "activations"));
  EXPECT_LT(exact_of(a, "increase_selective"), 1);
}

TEST(Napkin, RecomputingCanBeFaster) {
  const NapkinAnswer a = ask("recompute-faster");
  EXPECT_GT(exact_of(a, "recomputed_flops"), exact_of(a, "stored_flops"));
  EXPECT_LT(exact_of(a, "recomputed_bytes"), exact_of(a, "stored_bytes"));
  EXPECT_LT(napkin_of(a, "recomputed_ms"), napkin_of(a, "stored_ms"));
  EXPECT_EQ(exact_of(a, "stored_flops"), 12.0 * 4096 * 4096 * 4096);      // six products of 2 n^2 d
  EXPECT_EQ(exact_of(a, "recomputed_flops"), 14.0 * 4096 * 4096 * 4096);  // and the scores once more
}

TEST(Napkin, SparsePeaksAreMistakes) {
  const NapkinAnswer a = ask("sparsity");
  EXPECT_EQ(napkin_of(a, "bf16"), 989.5e12);
  EXPECT_EQ(mistake_of(a, "bf16"), 1979e12);
  EXPECT_THROW(mistake_of(a, "fp32"), Error);
}

TEST(Napkin, GlobalBatch) {
  const NapkinAnswer large = ask("global-batch"), small = ask("global-batch", {"micro_batch=1", "grad_accum=1"});
  EXPECT_EQ(napkin_of(large, "global_batch"), 4.0 * 4096 * 8 * 64);
  const auto warns = [](const NapkinAnswer& a) { return a.notes.at(0).starts_with("warning"); };
  EXPECT_FALSE(warns(large));
  EXPECT_TRUE(warns(small));
  EXPECT_NE(small.notes[0].find("grad_accum to 4"), std::string::npos) << small.notes[0];
  EXPECT_FALSE(warns(ask("global-batch", {"micro_batch=1", "grad_accum=1", "params=124e6"})));
}

TEST(Napkin, Accumulation) {
  const NapkinAnswer a = ask("accumulation", {"k=4"});
  EXPECT_EQ(napkin_of(a, "loss_scale"), 0.25);
  EXPECT_EQ(napkin_of(a, "communicated"), 2.0 * 7 / 8 * 32e9);
  EXPECT_EQ(mistake_of(a, "communicated"), 4 * napkin_of(a, "communicated"));
  EXPECT_EQ(exact_of(a, "flops_ratio"), 1);
  EXPECT_LE(exact_of(a, "peak_accumulated"), exact_of(a, "peak_one") + 4 * 124'475'904 + 4096);  // gradients, and the running loss
  EXPECT_GT(exact_of(a, "peak_whole"), exact_of(a, "peak_accumulated") * 1.5);
}

TEST(Napkin, LargestMicroBatchIsTheLastThatFits) {
  const NapkinAnswer a = ask("largest-micro-batch", {"memory=2GB", "model.preset=smollm2-135m", "train.seq_len=128", "optim.name=sgd"});
  EXPECT_GE(exact_of(a, "micro_batch"), 1);
  EXPECT_LE(exact_of(a, "arena"), 2e9);
  EXPECT_GT(exact_of(a, "arena_next"), 2e9);
  const Ref<Device> meta = open_meta();
  const std::vector<std::string> keys{"model.preset=smollm2-135m", "train.seq_len=128", "train.precision=bf16", "optim.name=sgd",
                                      "train.micro_batch=" + std::to_string(int64_t(exact_of(a, "micro_batch")))};
  EXPECT_EQ(exact_of(a, "arena"), double(plan_run(load_config("", keys), *meta, false).arena.bytes));
  const NapkinAnswer none = ask("largest-micro-batch", {"memory=1GB"});
  EXPECT_EQ(exact_of(none, "micro_batch"), 0);
  EXPECT_EQ(none.notes.size(), 1u);
}

TEST(Napkin, LearningRate) {
  const NapkinAnswer a = ask("lr-scaling");
  EXPECT_DOUBLE_EQ(napkin_of(a, "linear"), 3e-4 * 8);
  EXPECT_DOUBLE_EQ(napkin_of(a, "square_root"), 3e-4 * std::sqrt(8.0));
}

TEST(Napkin, ConventionsOfARun) {
  const NapkinAnswer a = ask("conventions", {"step_seconds=0.1"});
  EXPECT_EQ(napkin_of(a, "nanogpt"), 855'166'464);
  EXPECT_EQ(exact_of(a, "exact"), 797'870'592);
  EXPECT_GT(exact_of(a, "matmul_share"), 99);
  const auto palm = std::find_if(a.values.begin(), a.values.end(), [](const NapkinValue& v) { return v.name == "palm"; });
  ASSERT_NE(palm, a.values.end());
  EXPECT_NE(palm->how.find("MFU 22.58 %"), std::string::npos) << palm->how;  // 859,885,056 x 8192 / 0.1 / 312e12
}

// ---- the whole table
TEST(Napkin, TableHasEveryTopicAndEveryExplanation) {
  const std::vector<NapkinAnswer> table = napkin_table(open_meta);
  const std::vector<NapkinTopicHelp> topics = napkin_topics();
  EXPECT_GE(table.size(), topics.size());
  for (const NapkinTopicHelp& topic : topics) {
    const bool answered = std::any_of(table.begin(), table.end(), [&](const NapkinAnswer& a) { return a.topic == topic.name; });
    EXPECT_TRUE(answered) << topic.name;
  }
  for (const NapkinAnswer& a : table) {
    EXPECT_FALSE(a.values.empty()) << a.command;
    bool compares = false;
    for (const NapkinValue& v : a.values) {
      EXPECT_TRUE(std::isfinite(v.value)) << a.command << " " << v.name;
      EXPECT_FALSE(v.how.empty()) << a.command << " " << v.name;
      EXPECT_FALSE(v.shown.empty()) << a.command << " " << v.name;
      compares = compares || v.kind == Kind::exact;
    }
    EXPECT_EQ(compares, !a.why.empty()) << a.command << ": what is compared is explained";
  }
}

TEST(Napkin, AnswersDoNotDependOnWhatWasAskedBefore) {
  const std::string first = to_text(ask("cruncher"));
  ask("recomputation");
  EXPECT_EQ(to_text(ask("cruncher")), first);
}

// ---- refusals
TEST(Napkin, RefusesUnknownTopicsAndArguments) {
  EXPECT_NE(refusal("matmul-flop", {}).find("did you mean 'matmul-flops'"), std::string::npos);
  EXPECT_NE(refusal("", {}).find("topics: training-days"), std::string::npos);
  EXPECT_NE(refusal("matmul-flops", {"x=1"}).find("it takes: b, d, k"), std::string::npos);
  EXPECT_NE(refusal("training-days", {"parms=1"}).find("did you mean 'params'"), std::string::npos);
  EXPECT_NE(refusal("matmul-flops", {"model.preset=tiny"}).find("no model"), std::string::npos);
  EXPECT_NE(refusal("cruncher", {"model.widht=3"}).find("model.widht"), std::string::npos);
  EXPECT_NE(refusal("cruncher", {"d=3"}).find("model.preset"), std::string::npos);
  EXPECT_NE(refusal("training-days", {"gpus=1", "gpus=2"}).find("twice"), std::string::npos);
  EXPECT_NE(refusal("training-days", {"model.preset=tiny", "model.preset=tiny"}).find("twice"), std::string::npos);
  EXPECT_NE(refusal("training-days", {"profile=h100"}).find("one of several"), std::string::npos);
  EXPECT_NE(refusal("training-days", {"dtype=fp64"}).find("fp32, tf32"), std::string::npos);
  EXPECT_NE(refusal("tensor-bytes", {"dtype=fp7"}).find("f32, f64"), std::string::npos);
  EXPECT_NE(refusal("quantized-bytes", {"format=q8"}).find("did you mean 'q8_0'"), std::string::npos);
  EXPECT_NE(refusal("mfu", {"profile=t4", "dtype=bf16"}).find("it has fp32, fp16, int8"), std::string::npos);
}

TEST(Napkin, RefusesBadNumbers) {
  for (const char* b : {"0", "-1", "nan", "inf", "1e400", "1.5", "1e300", "0x10", "12,5", "", "one", "9007199254740993", "1 B B"})
    refusal("matmul-flops", {std::string("b=") + b});
  for (const char* mfu : {"0", "1.01", "-0.5", "nan", "50%"}) refusal("training-days", {std::string("mfu=") + mfu});
  for (const char* shape : {"", "x", "1x", "2x-3", "1.5x2", "1x1x1x1x1x1x1x1x1", "4294967296x4294967296", "axb"})
    refusal("tensor-bytes", {std::string("shape=") + shape});
  for (const char* memory : {"80QB", "-1GB", "GB"}) refusal("largest-model", {std::string("memory=") + memory});
}

TEST(Napkin, ReportsOverflow) {
  EXPECT_NE(refusal("training-days", {"params=1e300", "tokens=1e300"}).find("beyond what a number can hold"), std::string::npos);
  EXPECT_NE(refusal("matmul-flops", {"b=4e12", "d=4e12", "k=4e12"}).find("63 bits"), std::string::npos);
  EXPECT_NE(refusal("linear-stack", {"b=9e15", "d=1e9"}).find("63 bits"), std::string::npos);
  EXPECT_NE(refusal("intensity", {"m=9e15", "n=9e15", "k=2"}).find("63 bits"), std::string::npos);
  refusal("scores", {"n=9e15"});
  refusal("activation-growth", {"n=1e8"});
  refusal("recompute-faster", {"n=1e9"});
  refusal("tensor-bytes", {"shape=4000000000x2000000000", "dtype=f64"});
  refusal("transformer-params", {"d=9e15"});
  refusal("d-model", {"params=1e30", "layers=1"});
  refusal("accumulation", {"k=257"});
  refusal("conventions", {"train.grad_accum=5000"});
  refusal("conventions", {"model.layers=513"});
  refusal("conventions", {"model.layers=512", "train.grad_accum=9"});
  refusal("activations", {"layers=1e12"});
  refusal("conventions", {"model.layers=512", "model.d_model=1048576", "model.heads=4096", "train.micro_batch=4194304"});
}

TEST(Napkin, TakesTheParametersOfANamedModel) {
  const NapkinAnswer a = ask("training-days", {"model.preset=gpt2-124m", "tokens=1e9"});
  EXPECT_EQ(napkin_of(a, "flops"), 6 * 124'439'808 * 1e9);
  EXPECT_EQ(a.arguments[0].second, "124439808");
  // The default length is cut to the model's positions: 797,870,592 FLOPs a token at T 1024.
  EXPECT_DOUBLE_EQ(exact_of(a, "flops"), 797'870'592 * 1e9);
  EXPECT_EQ(napkin_of(ask("weights-bytes", {"model.preset=gpt2-124m"}), "bytes"), 2 * 124'439'808);
  EXPECT_EQ(napkin_of(ask("training-days", {"model.preset=gpt2-124m", "params=1e6", "tokens=1e9"}), "flops"), 6e15);
}

TEST(Napkin, TakesSuffixes) {
  EXPECT_EQ(napkin_of(ask("chinchilla", {"params=8B"}), "tokens"), 160e9);
  EXPECT_EQ(napkin_of(ask("chinchilla", {"params=8000M"}), "tokens"), 160e9);
  EXPECT_EQ(napkin_of(ask("largest-model", {"memory=80GiB", "gpus=1"}), "parameters"), 80.0 * (1 << 30) / 16);
}

// ---- output
TEST(Napkin, TextHasALineForEachValue) {
  const NapkinAnswer a = ask("tensor-bytes");
  EXPECT_EQ(to_text(a),
            "$ reckon plan --napkin tensor-bytes\n"
            "How many bytes does a tensor take?\n"
            "  shape=1x4096x4096 dtype=bf16 count=1\n"
            "  napkin   bytes   33,554,432 B = 33.554 MB  1 x 16,777,216 elements x 2 B\n"
            "  exact    bytes   33,554,432 B = 33.554 MB  asked of the allocator on meta\n"
            "  exact    blocks  33,554,432 B = 33.554 MB  in blocks of a multiple of 64 B\n"
            "  why      nothing to round: the bytes are whole blocks\n");
}

TEST(Napkin, JsonHoldsTheSame) {
  JsonWriter writer;
  const NapkinAnswer a = ask("matmul-flops", {"b=2", "d=3", "k=5"});
  write_napkin(writer, a);
  const JsonDocument document(writer.str(), "napkin");
  const Json root = document.root();
  EXPECT_EQ(root.get("topic").string(), "matmul-flops");
  EXPECT_EQ(root.get("command").string(), "reckon plan --napkin matmul-flops b=2 d=3 k=5");
  EXPECT_EQ(root.get("arguments").get("b").string(), "2");
  EXPECT_EQ(root.get("values").size(), a.values.size());
  EXPECT_EQ(root.get("values").at(0).get("value").integer(), 60);
  EXPECT_EQ(root.get("values").at(0).get("kind").string(), "napkin");
  EXPECT_EQ(root.get("why").string(), a.why);
}
}  // namespace
}  // namespace reckon
