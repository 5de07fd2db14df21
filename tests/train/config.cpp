#include <cmath>
#include <map>
#include <set>

#include "reckon/base/philox.h"
#include "reckon/train/config_table.h"
#include "tests/train/config_check.h"

using namespace reckon;

namespace {
// A value other than the default for every key, as an argument spells it.
const std::map<std::string, std::string> kSamples = {
    {"device", "cpu"},  // the only one
    {"seed", "9223372036854775807"},
    {"model.preset", "qwen3-0.6b"},
    {"model.layers", "7"},
    {"model.d_model", "192"},
    {"model.heads", "8"},
    {"model.kv_heads", "2"},
    {"model.head_dim", "48"},
    {"model.d_ff", "333"},
    {"model.vocab", "50257"},
    {"model.max_seq_len", "4096"},
    {"model.norm", "rms_norm"},
    {"model.norm_eps", "1e-6"},
    {"model.position", "rope"},
    {"model.rope_theta", "5e5"},
    {"model.mlp", "swiglu"},
    {"model.qkv_bias", "false"},
    {"model.proj_bias", "false"},
    {"model.mlp_bias", "false"},
    {"model.norm_bias", "false"},
    {"model.qk_norm", "true"},
    {"model.sliding_window", "7"},
    {"model.tied_head", "false"},
    {"model.init", "trunc_normal"},
    {"model.init_std", "0.041666666666666664"},
    {"model.residual_scaling", "false"},
    {"model.dropout", "0.1"},
    {"train.micro_batch", "3"},
    {"train.seq_len", "64"},
    {"train.grad_accum", "16"},
    {"train.steps", "100000"},
    {"train.stop_after", "50"},
    {"train.precision", "bf16"},
    {"train.master_weights", "false"},
    {"train.loss_scale", "1024"},
    {"train.loss_scale_start", "256"},
    {"train.loss_scale_interval", "100"},
    {"train.fp8_amax_history", "4"},
    {"train.recompute", "full"},
    {"train.attention", "plain"},
    {"train.sequence_chunk", "16"},
    {"train.fused_kernels", "false"},
    {"train.fused_loss", "false"},
    {"train.recompute_blocks", "full:1,none:3"},
    {"optim.name", "adagrad"},
    {"optim.lr", "3e-4"},
    {"optim.beta1", "0.8"},
    {"optim.beta2", "0.999"},
    {"optim.eps", "1e-12"},
    {"optim.weight_decay", "0"},
    {"optim.weight_decay_kind", "decoupled"},
    {"optim.momentum", "0.95"},
    {"optim.alpha", "0.9"},
    {"optim.centered", "true"},
    {"optim.rmsprop_momentum", "0.5"},
    {"optim.phi_low", "0.01"},
    {"optim.phi_high", "1"},
    {"optim.clip_norm", "0"},
    {"optim.schedule", "constant"},
    {"optim.warmup_steps", "0"},
    {"optim.min_lr_ratio", "0.30000000000000004"},
    {"optim.decay_fraction", "0.2"},
    {"optim.lr_scaling", "sqrt"},
    {"optim.base_batch_tokens", "32768"},
    {"optim.groups", "embed.* lr=0.1; *.bias lr=2 weight_decay=0"},
    {"data.path", "texts/kjv \"1611\".txt"},
    {"data.tokenizer", "bpe:4096"},
    {"data.validation_fraction", "0"},
    {"data.order", "sequential"},
    {"data.documents", "separate"},
    {"data.separator", "10"},
    {"eval.every", "25"},
    {"eval.batches", "4"},
    {"checkpoint.every", "10"},
    {"checkpoint.keep", "0"},
    {"memory.budget", "4GiB"},
    {"run.dir", "runs/2024"},
};
}  // namespace

TEST(Config, DefaultsAreThePresetTinyAndValid) {
  EXPECT_EQ(parse(""), Config());
  EXPECT_EQ(load_config("", {}), Config());
  EXPECT_EQ(refusal(Config()), "");
}

TEST(Config, EveryKeyTakesAnArgumentAndRoundTrips) {
  for (const ConfigKey& key : config_table()) {
    ASSERT_TRUE(kSamples.contains(key.name)) << "give kSamples a value for the new key " << key.name;
    const Config changed = parse("", {std::string(key.name) + "=" + kSamples.at(key.name)});
    EXPECT_EQ(value_text(changed, key) == value_text(Config(), key), key.words.size() == 1) << key.name;
    EXPECT_EQ(parse(to_toml(changed)), changed) << key.name << "\n" << to_toml(changed);
  }
  EXPECT_EQ(kSamples.size(), config_table().size());
}

TEST(Config, EveryKeyChangesItsOwnFieldOnly) {
  const std::set<std::string> leaders = {"model.preset", "model.d_model", "model.heads"};  // other sizes follow these
  for (const ConfigKey& key : config_table()) {
    if (leaders.contains(key.name)) continue;
    const Config changed = parse("", {std::string(key.name) + "=" + kSamples.at(key.name)});
    for (const ConfigKey& other : config_table()) {
      if (other.name == key.name) continue;
      EXPECT_EQ(value_text(changed, other), value_text(Config(), other)) << key.name << " changed " << other.name;
    }
  }
}

TEST(Config, ReadsTheFieldsThatTheyName) {
  const Config c = parse("seed = 7\n[train]\nmicro_batch = 2\nprecision = 'bf16'\n[optim]\nlr = 1\nname = \"sgd\"\n[run]\ndir = 'a/b'\n",
                         {"model.norm=rms_norm", "data.path=x.txt", "memory.budget=512MiB", "model.tied_head=false"});
  EXPECT_EQ(c.seed, 7);
  EXPECT_EQ(c.train.micro_batch, 2);
  EXPECT_EQ(c.train.precision, Precision::bf16);
  EXPECT_EQ(c.optim.lr, 1.0);
  EXPECT_EQ(c.optim.name, OptimizerKind::sgd);
  EXPECT_EQ(c.run_dir, "a/b");
  EXPECT_EQ(c.model.norm, NormKind::rms_norm);
  EXPECT_EQ(c.data.path, "x.txt");
  EXPECT_EQ(c.memory.budget_bytes, int64_t(512) << 20);
  EXPECT_FALSE(c.model.tied_head);
}

TEST(Config, LossScaleIsAWordOrANumber) {
  EXPECT_EQ(parse("", {"train.loss_scale=512"}).train.loss_scale, 512);
  EXPECT_EQ(parse("", {"train.loss_scale=512", "train.loss_scale=dynamic"}).train.loss_scale, 0);
  EXPECT_EQ(parse("[train]\nloss_scale = 'dynamic'\n").train.loss_scale, 0);
  EXPECT_NE(to_toml(Config()).find("loss_scale = \"dynamic\"\n"), std::string::npos);
  EXPECT_NE(to_toml(parse("", {"train.loss_scale=512"})).find("loss_scale = 512.0\n"), std::string::npos);
}

TEST(Config, PresetsRoundTrip) {
  for (const std::string& name : model_preset_names()) {
    const Config c = parse("", {"model.preset=" + name});
    EXPECT_EQ(c.model, model_preset(name));
    EXPECT_EQ(parse(to_toml(c)), c);
  }
}

TEST(Config, PresetComesFirstWhereverItIsNamed) {
  EXPECT_EQ(parse("", {"model.layers=2", "model.preset=gpt2-124m"}).model.layers, 2);
  const Config c = parse("[model]\nlayers = 3\npreset = 'gpt2-355m'\n", {"model.preset=llama-3-8b"});
  EXPECT_EQ(c.model.layers, 3);
  EXPECT_EQ(c.model.d_model, 4096);
  EXPECT_EQ(c.model.preset, "llama-3-8b");
}

TEST(Config, ArgumentsWinInOrder) {
  EXPECT_EQ(parse("[train]\nsteps = 5\n", {"train.steps=6"}).train.steps, 6);
  EXPECT_EQ(parse("", {"train.steps=6", "train.steps=7"}).train.steps, 7);
}

TEST(Config, ArgumentsAreTomlOrPlainText) {
  EXPECT_EQ(parse("", {"run.dir=\"a b\""}).run_dir, "a b");
  EXPECT_EQ(parse("", {"run.dir='a b'"}).run_dir, "a b");
  EXPECT_EQ(parse("", {"run.dir=a b"}).run_dir, "a b");
  EXPECT_EQ(parse("", {"run.dir=2024"}).run_dir, "2024");
  EXPECT_EQ(parse("", {"run.dir=2024-01-01"}).run_dir, "2024-01-01");
  EXPECT_EQ(parse("", {"run.dir=true"}).run_dir, "true");
  EXPECT_EQ(parse("", {"run.dir=[x]"}).run_dir, "[x]");
  EXPECT_EQ(parse("", {"run.dir=a=b"}).run_dir, "a=b");
  EXPECT_EQ(parse("", {"run.dir=a#b"}).run_dir, "a#b");
  EXPECT_EQ(parse("", {"run.dir=\"half"}).run_dir, "\"half");
  EXPECT_EQ(parse("", {"data.path="}).data.path, "");
  EXPECT_EQ(parse("", {"train.precision=\"bf16\""}).train.precision, Precision::bf16);
  EXPECT_EQ(parse("", {"train.steps=1_000"}).train.steps, 1000);
  EXPECT_EQ(parse("", {"train.steps=0x10"}).train.steps, 16);
  EXPECT_EQ(parse("", {"train.steps= 5 "}).train.steps, 5);
}

TEST(Config, ArgumentsHoldOneValueOnly) {
  for (const char* value : {"5,6", "5,", "5 # five", "5]#", "5]\nx=[6", "5\nseed=3", "{a=1}", "[5]", "", "[[[[[[[[[[[[[[[[[[[[[[[["})
    expect_contains(argument_error(std::string("train.steps=") + value), "train.steps expects an integer from 1 to 1000000000, got ");
}

TEST(Config, BudgetsHaveUnits) {
  const std::map<std::string, int64_t> sizes = {
      {"4294967296", int64_t(4) << 30},
      {"4GiB", int64_t(4) << 30},
      {"4 GiB", int64_t(4) << 30},
      {"4GB", 4'000'000'000},
      {"512MiB", int64_t(512) << 20},
      {"1.5GiB", 1'610'612'736},
      {"0.1KB", 100},
      {"7B", 7},
      {"2TiB", int64_t(2) << 40},
      {"0", 0},
      {"0.3333333333KiB", 341},
      {"8191PiB", int64_t(8191) << 50},
  };
  for (const auto& [text, bytes] : sizes) EXPECT_EQ(parse("", {"memory.budget=" + text}).memory.budget_bytes, bytes) << text;
  EXPECT_EQ(parse("[memory]\nbudget = '2GB'\n").memory.budget_bytes, 2'000'000'000);
  EXPECT_EQ(parse("[memory]\nbudget = 64\n").memory.budget_bytes, 64);
  for (const char* bad : {"4G", "4gib", "GiB", "4GiB!", "1.5", "-4GiB", "", "4e9", "1..5GB", "5.GB", "true", ".5 GiB x"})
    expect_contains(argument_error(std::string("memory.budget=") + bad), "memory.budget expects bytes such as 4294967296, \"4GiB\" (2^30)");
  EXPECT_EQ(argument_error("memory.budget=-1"),
            "argument 'memory.budget=-1': memory.budget expects bytes such as 4294967296, \"4GiB\" (2^30) or \"4GB\" (10^9), got -1");
  expect_contains(argument_error("memory.budget=8192PiB"), ", which is above 2^63 - 1");
  expect_contains(argument_error("memory.budget=99999999999999999999GiB"), ", which is above 2^63 - 1");
}

TEST(ConfigSizes, FollowWidthAndHeads) {
  const ModelConfig wide = parse("", {"model.preset=gpt2-124m", "model.d_model=1152"}).model;
  EXPECT_EQ(wide.head_dim, 96);
  EXPECT_EQ(wide.d_ff, 4608);
  EXPECT_EQ(wide.kv_heads, 12);
  const ModelConfig many = parse("", {"model.heads=8"}).model;
  EXPECT_EQ(many.kv_heads, 8);
  EXPECT_EQ(many.head_dim, 16);
  EXPECT_EQ(many.d_ff, 512);
  const ModelConfig grouped = parse("", {"model.preset=llama-3-8b", "model.d_model=2048", "model.heads=16"}).model;
  EXPECT_EQ(grouped.kv_heads, 8);
  EXPECT_EQ(grouped.head_dim, 128);
  EXPECT_EQ(grouped.d_ff, 7168);
  // 1536 / 576 * 100 = 266.7, up to a multiple of 32.
  EXPECT_EQ(parse("", {"model.preset=smollm2-135m", "model.d_model=100", "model.heads=5", "model.kv_heads=1"}).model.d_ff, 288);
  const ModelConfig odd = parse("", {"model.d_model=100"}).model;
  EXPECT_EQ(odd.head_dim, 25);
  EXPECT_EQ(odd.d_ff, 400);
}

TEST(ConfigSizes, NamedOnesAndUnchangedOnesStay) {
  const ModelConfig named = parse("[model]\nhead_dim = 32\nd_ff = 500\n", {"model.d_model=256", "model.heads=4"}).model;
  EXPECT_EQ(named.head_dim, 32);
  EXPECT_EQ(named.d_ff, 500);
  EXPECT_EQ(parse("", {"model.preset=qwen3-0.6b", "model.d_model=1024", "model.layers=2"}).model.head_dim, 128);
  const Config cruncher = parse("", {"model.preset=cruncher", "model.d_model=7", "model.layers=3"});
  EXPECT_EQ(parameter_count(cruncher.model), 3 * 49 + 7);
  EXPECT_EQ(cruncher.model.head_dim, model_preset("cruncher").head_dim);
}

TEST(ConfigSizes, SayWhatMustBeSet) {
  EXPECT_EQ(argument_error("model.d_model=130"),
            "model.d_model = 130 is not a multiple of model.heads = 4: change one of them, or set model.head_dim");
  EXPECT_EQ(usage_error([] {
              parse("", {"model.preset=llama-3-8b", "model.heads=4"});
            }),
            "model.heads = 4 is not a multiple of model.kv_heads = 8 of the preset llama-3-8b: set model.kv_heads too");
  expect_contains(argument_error("model.d_model=4096"), "gives model.head_dim = 1024, above its limit of 256");
  expect_contains(usage_error([] { parse("", {"model.position=rope", "model.d_model=100"}); }), "model.head_dim = 25 is odd");
}

TEST(Config, ValidateJudgesConfigurationsMadeInCode) {
  Config c;
  c.train.micro_batch = 0;
  EXPECT_EQ(refusal(c), "train.micro_batch expects an integer from 1 to 1048576, got 0");
  c = Config();
  c.optim.lr = std::nan("");
  expect_contains(refusal(c), "optim.lr expects a number from 0 to 1000, got nan");
  c = Config();
  c.device = "cuda";
  EXPECT_EQ(refusal(c), "device expects cpu, got \"cuda\"");
  c = Config();
  c.train.precision = Precision(9);
  expect_contains(refusal(c), "train.precision expects fp32, bf16, fp16 or fp8");
  c = Config();
  c.train.precision = Precision::fp16;
  EXPECT_EQ(refusal(c), "");
  c.train.master_weights = false;
  expect_contains(refusal(c), "train.master_weights = false needs train.precision=bf16 or fp8, not fp16");
  c = Config();
  c.model.cruncher = true;
  expect_contains(refusal(c), "cruncher");
  c = Config();
  c.run_dir = std::string("a\0b", 3);
  expect_contains(refusal(c), "control character");
}

namespace {
// Draws for the property below: one stream, so that a failure is named by its index.
struct Draws {
  uint64_t key, counter = 0;
  uint64_t next() {
    const auto words = philox(key, 0, counter++);
    return uint64_t(words[0]) << 32 | words[1];
  }
  double uniform() { return double(next() >> 11) * 0x1p-53; }
};

int64_t random_integer(Draws& draws, int64_t least, int64_t most) {
  const int bits = int(draws.next() % (most < 1 << 14 || draws.next() % 4 == 0 ? 63 : 9));  // mostly small, so that combinations fit
  const uint64_t value = uint64_t(least) + (draws.next() & ((uint64_t(1) << bits) | ((uint64_t(1) << bits) - 1)));
  return value > uint64_t(most) ? most : int64_t(value);
}

double random_number(Draws& draws, const ConfigKey& key) {
  const double log_low = std::log(std::max(key.low, 1e-30)), log_high = std::log(key.high);
  const double value =
      draws.next() % 2 ? key.low + draws.uniform() * (key.high - key.low) : std::exp(log_low + draws.uniform() * (log_high - log_low));
  return std::min(std::max(value, key.low), key.below_high ? std::nextafter(key.high, 0) : key.high);
}

std::string random_string(Draws& draws) {
  static const char* const kPieces[] = {"a", "/",    "\"",         "\\", "'",       " ", "#", "=",
                                        "é", "日本", "\U0001F600", ".",  "\\u0041", "]", "5", "\"\"\""};
  std::string value = "x";
  for (uint64_t n = draws.next() % 12; n > 0; --n) value += kPieces[draws.next() % std::size(kPieces)];
  return value;
}

Config random_config(Draws& draws) {
  Config c;
  for (const ConfigKey& key : config_table()) {
    void* field = key.field(c);
    switch (key.type) {
      case KeyType::integer:
      case KeyType::bytes:
        *static_cast<int64_t*>(field) = random_integer(draws, key.least, key.most);
        break;
      case KeyType::number:
        *static_cast<double*>(field) = random_number(draws, key);
        break;
      case KeyType::boolean:
        *static_cast<bool*>(field) = draws.next() % 2;
        break;
      case KeyType::word:
        *static_cast<uint8_t*>(field) = uint8_t(draws.next() % key.words.size());
        break;
      case KeyType::choice:
        *static_cast<std::string*>(field) = key.words[draws.next() % key.words.size()];
        break;
      case KeyType::preset:
        *static_cast<std::string*>(field) = model_preset_names()[draws.next() % model_preset_names().size()];
        break;
      case KeyType::text:
      case KeyType::tokenizer:
        *static_cast<std::string*>(field) = random_string(draws);
        break;
    }
  }
  c.model.cruncher = c.model.preset == "cruncher";
  if (draws.next() % 2) c.model.kv_heads = c.model.heads;
  if (draws.next() % 4) c.train.sequence_chunk = 0;  // many values are refused
  if (draws.next() % 4) c.data.separator = -1;
  if (draws.next() % 4) c.optim.weight_decay_kind = DecayKind::automatic;
  if (c.optim.phi_low > c.optim.phi_high) std::swap(c.optim.phi_low, c.optim.phi_high);
  c.optim.groups = draws.next() % 2 ? "" : text("blocks.*.é\" lr={}; * weight_decay=0", draws.uniform());
  c.train.recompute_blocks = draws.next() % 8 ? "" : text("selective, full:{}", c.model.layers - 1);
  return c;
}
}  // namespace

TEST(Config, RandomValidConfigurationsRoundTripExactly) {
  Draws draws{2024};
  int valid = 0;
  for (int i = 0; i < 4000; ++i) {
    const Config c = random_config(draws);
    if (!refusal(c).empty()) continue;
    ++valid;
    const std::string toml = to_toml(c);
    ASSERT_EQ(parse(toml), c) << "draw " << i << "\n" << toml;
    ASSERT_EQ(to_toml(parse(toml)), toml) << "draw " << i;
  }
  EXPECT_GT(valid, 400);
}

TEST(Config, DamagedTextNeverCrashes) {
  Draws draws{7};
  const std::string whole = to_toml(Config());
  static const char kBytes[] =
      "[]{}=.\"'#,\n\\ \0\xff"
      "0a-";
  for (int i = 0; i < 3000; ++i) {
    std::string toml = whole.substr(0, draws.next() % whole.size());
    for (uint64_t n = draws.next() % 8; n > 0 && !toml.empty(); --n)
      toml[draws.next() % toml.size()] = kBytes[draws.next() % (sizeof kBytes - 1)];
    const std::string message = file_error(toml);
    EXPECT_LT(message.size(), 1000u) << message;
  }
}

TEST(Config, HelpHasARowForEveryKey) {
  const std::vector<KeyHelp> rows = config_keys();
  ASSERT_EQ(rows.size(), config_table().size());
  std::set<std::string> names;
  for (const KeyHelp& row : rows) {
    EXPECT_TRUE(names.insert(row.key).second) << row.key << " has two rows";
    EXPECT_FALSE(row.type.empty() || row.default_value.empty() || row.help.empty()) << row.key;
    EXPECT_TRUE(row.help.ends_with('.')) << row.key;
    expect_contains(to_toml(Config()), row.key.substr(row.key.find('.') + 1) + " = " + row.default_value + "\n");
  }
}
