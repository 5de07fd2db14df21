#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "reckon/train/config_table.h"
#include "tests/train/config_check.h"

using namespace reckon;

namespace {
// A file of this test alone, removed at its end.
struct TemporaryFile {
  std::string path = testing::TempDir() + "reckon_config_" + std::to_string(getpid()) + ".toml";
  explicit TemporaryFile(const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
  ~TemporaryFile() { std::remove(path.c_str()); }
};
}  // namespace

TEST(ConfigErrors, UnknownKeysNameTheNearest) {
  EXPECT_EQ(file_error("# one\n\n[train]\nmicro_bach = 4\n"),
            "config.toml:4: unknown key 'train.micro_bach', did you mean 'train.micro_batch'?");
  EXPECT_EQ(file_error("[trian]\nsteps = 4\n"), "config.toml:2: unknown key 'trian.steps', did you mean 'train.steps'?");
  EXPECT_EQ(file_error("[trian]\n"), "config.toml:1: unknown table 'trian'");
  EXPECT_EQ(argument_error("lr=1"), "argument 'lr=1': unknown key 'lr', did you mean 'optim.lr'?");
  EXPECT_EQ(argument_error("train.lr=1"), "argument 'train.lr=1': unknown key 'train.lr', did you mean 'optim.lr'?");
  EXPECT_EQ(argument_error("train.batch_size=8"),
            "argument 'train.batch_size=8': unknown key 'train.batch_size', did you mean 'train.micro_batch'?");
  EXPECT_EQ(argument_error("zebra.crossing=1"), "argument 'zebra.crossing=1': unknown key 'zebra.crossing'");
  EXPECT_EQ(argument_error("train.steps.x=1"), "argument 'train.steps.x=1': unknown key 'train.steps.x', did you mean 'train.steps'?");
  expect_contains(argument_error("a\nb\x1b[31m=1"), "unknown key 'a\\nb\\x1B[31m'");
  expect_contains(file_error(std::string(5000, 'k') + " = 1\n"), "...'");
}

TEST(ConfigErrors, AWordFindsTheKeysItMayMean) {
  using Keys = std::vector<std::string>;
  EXPECT_EQ(keys_named("seed"), Keys{"seed"});
  EXPECT_EQ(keys_named("train.steps"), Keys{"train.steps"});
  EXPECT_EQ(keys_named("steps"), Keys{"train.steps"});
  EXPECT_EQ(keys_named("grad-accum"), Keys{"train.grad_accum"});
  EXPECT_EQ(keys_named("batch-size"), Keys{"train.micro_batch"});
  EXPECT_EQ(keys_named("every"), (Keys{"eval.every", "checkpoint.every"}));
  EXPECT_EQ(keys_named("zebra"), Keys{});
  EXPECT_EQ(keys_named(""), Keys{});
  EXPECT_EQ(nearest_key("warmup-step"), "optim.warmup_steps");
  EXPECT_EQ(nearest_key("lerning-rate"), "optim.lr");
  EXPECT_EQ(nearest_key("zebra-crossing"), "");
  EXPECT_EQ(nearest_key("x"), "");
  EXPECT_EQ(argument_error("every=5"), "argument 'every=5': unknown key 'every', did you mean 'eval.every' or 'checkpoint.every'?");
}

TEST(ConfigErrors, SuggestionsAreKeys) {
  for (const char* word :
       {"batch_size", "block_size", "learning_rate", "n_layer", "hidden_size", "vocab_size", "max_iters", "dtype", "out_dir"}) {
    const std::string message = argument_error(std::string(word) + "=1");
    const size_t open = message.find("did you mean '");
    ASSERT_NE(open, std::string::npos) << message;
    const std::string key = message.substr(open + 14, message.find('\'', open + 14) - open - 14);
    EXPECT_TRUE(find_key(key)) << message;
  }
}

TEST(ConfigErrors, WrongTypesNameBoth) {
  EXPECT_EQ(file_error("[train]\nsteps = \"eight\"\n"),
            "config.toml:2: train.steps expects an integer from 1 to 1000000000, got \"eight\"");
  EXPECT_EQ(file_error("train.steps = 10.0\n"), "config.toml:1: train.steps expects an integer from 1 to 1000000000, got 10.0");
  EXPECT_EQ(file_error("train.steps = true\n"), "config.toml:1: train.steps expects an integer from 1 to 1000000000, got true");
  EXPECT_EQ(file_error("train.steps = [1]\n"), "config.toml:1: train.steps expects an integer from 1 to 1000000000, got an array");
  EXPECT_EQ(file_error("train.steps = 1979-05-27\n"),
            "config.toml:1: train.steps expects an integer from 1 to 1000000000, got a date or time");
  EXPECT_EQ(file_error("train.steps = {}\n"), "config.toml:1: train.steps expects an integer from 1 to 1000000000, got a table");
  EXPECT_EQ(file_error("[train.steps]\n"), "config.toml:1: train.steps expects an integer from 1 to 1000000000, got a table");
  EXPECT_EQ(file_error("optim.lr = 'fast'\n"), "config.toml:1: optim.lr expects a number from 0 to 1000, got \"fast\"");
  EXPECT_EQ(file_error("model.tied_head = 1\n"), "config.toml:1: model.tied_head expects true or false, got 1");
  EXPECT_EQ(file_error("run.dir = 5\n"), "config.toml:1: run.dir expects a string, got 5");
  EXPECT_EQ(file_error("model.preset = 5\n"), "config.toml:1: model.preset expects a string, got 5");
  EXPECT_EQ(file_error("train.precision = 16\n"), "config.toml:1: train.precision expects fp32, bf16, fp16 or fp8, got 16");
  EXPECT_EQ(file_error("train.precision = 'bf61'\n"),
            "config.toml:1: train.precision expects fp32, bf16, fp16 or fp8, got \"bf61\", did you mean \"bf16\"?");
  EXPECT_EQ(argument_error("train.steps=abc"),
            "argument 'train.steps=abc': train.steps expects an integer from 1 to 1000000000, got \"abc\"");
  EXPECT_EQ(argument_error("optim.name=lion"),
            "argument 'optim.name=lion': optim.name expects sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lamb or adamw8bit, got \"lion\"");
  EXPECT_EQ(file_error("model = 'gpt2-124m'\n"), "config.toml:1: 'model' is a table of keys such as model.preset, got \"gpt2-124m\"");
  EXPECT_EQ(file_error("[[train]]\nsteps = 5\n"), "config.toml:1: 'train' is a table of keys such as train.micro_batch, got an array");
  EXPECT_EQ(argument_error("train={steps=5}"),
            "argument 'train={steps=5}': 'train' is a table of keys such as train.micro_batch, got a table");
  EXPECT_EQ(file_error("[train]\n"), "");
}

TEST(ConfigErrors, RangesNameTheLimit) {
  for (const ConfigKey& key : config_table()) {
    const std::string name = key.name;
    if (key.type == KeyType::integer || key.type == KeyType::bytes) {
      const std::string range = key.type == KeyType::bytes ? "bytes such as 4294967296, \"4GiB\" (2^30) or \"4GB\" (10^9)"
                                : key.most == INT64_MAX    ? text("an integer of at least {}", key.least)
                                                           : text("an integer from {} to {}", key.least, key.most);
      const int64_t low = key.least - 1;
      EXPECT_EQ(argument_error(text("{}={}", name, low)), text("argument '{}={}': {} expects {}, got {}", name, low, name, range, low));
      if (key.most == INT64_MAX) continue;
      const int64_t high = key.most + 1;
      EXPECT_EQ(argument_error(text("{}={}", name, high)), text("argument '{}={}': {} expects {}, got {}", name, high, name, range, high));
    } else if (key.type == KeyType::number) {
      const std::string range = text("{} expects {}a number from {} to {}{}", name, key.zero ? text("{} or ", key.zero) : "", key.low,
                                     key.below_high ? "below " : "", key.high);
      for (const char* bad : {"nan", "inf", "-inf", "1e300"}) {
        const char* shown = bad == std::string("1e300") ? "1e+300" : bad;
        expect_contains(argument_error(name + "=" + bad), text("{}, got {}", range, shown));
      }
      expect_contains(argument_error(name + "=-1"), range + ", got -1");
      if (key.below_high) expect_contains(argument_error(text("{}={}", name, key.high)), text("{}, got {}", range, key.high));
    }
  }
  EXPECT_EQ(file_error("[data]\nvalidation_fraction = 0.95\n"),
            "config.toml:2: data.validation_fraction expects a number from 0 to 0.9, got 0.95");
}

TEST(ConfigErrors, AWordThatStandsForZeroIsNoNumber) {
  EXPECT_EQ(argument_error("train.loss_scale=0"),
            "argument 'train.loss_scale=0': train.loss_scale expects dynamic or a number from 1 to 16777216, got 0");
  EXPECT_EQ(file_error("train.loss_scale = 'static'\n"),
            "config.toml:1: train.loss_scale expects dynamic or a number from 1 to 16777216, got \"static\"");
  expect_contains(argument_error("train.loss_scale=0.5"), "got 0.5");
  expect_contains(argument_error("optim.lr=dynamic"), "optim.lr expects a number from 0 to 1000");
}

TEST(ConfigErrors, IntegersBeyond64Bits) {
  EXPECT_EQ(argument_error("train.steps=99999999999999999999"),
            "argument 'train.steps=99999999999999999999': train.steps expects an integer from 1 to 1000000000, got 99999999999999999999");
  expect_contains(argument_error("seed=9223372036854775808"),
                  "seed expects an integer of at least 0, got 9223372036854775808, which is above 2^63 - 1");
  expect_contains(argument_error("seed=-9223372036854775808"), "seed expects an integer of at least 0, got -9223372036854775808");
  expect_contains(argument_error("memory.budget=9000PiB"), "memory.budget expects bytes such as");
  expect_contains(file_error("[train]\nsteps = 99999999999999999999\n"), "config.toml:2:");
  expect_contains(file_error("[train]\nsteps = 99999999999999999999\n"), "is not representable in 64 bits");
}

TEST(ConfigErrors, SyntaxNamesLineAndColumn) {
  expect_contains(file_error("seed = 1\n[train\nsteps = 5\n"), "config.toml:2:7: not valid TOML: ");
  expect_contains(file_error("seed = \n"), "config.toml:1:");
  expect_contains(file_error("seed = 1\n\n[=]\nrun.dir = 'x'\n[["), "config.toml:3: not valid TOML: a key must begin with a letter");
  expect_contains(file_error("seed = 1\nl\u00e4nge = 2\n"), "config.toml:2: not valid TOML: a character that is not ASCII stands outside");
  expect_contains(file_error("seed = 1\n\u00a0\n"), "config.toml:2: not valid TOML: a character that is not ASCII");
  expect_contains(file_error("\nrun.dir = \"\"\"a\"\"\"\n"), "config.toml:2: strings of several lines are not used here");
  EXPECT_EQ(file_error("# \u00e4 ' \"\"\"\nrun.dir = '\u00e4' # \u00e4\ndata.path = \"a\\\"\u00e4\"\n"), "");
  expect_contains(file_error("[="), "config.toml:1: not valid TOML: a key must begin with a letter");
  expect_contains(file_error("run.dir = \"open\nseed = 1\n"), "config.toml:1: not valid TOML: a quotation mark is not closed");
  expect_contains(file_error("run.dir = \"open\\"), "config.toml:1: not valid TOML: a quotation mark is not closed");
  expect_contains(file_error("seed = 0'\u00e4'\n"), "config.toml:1: not valid TOML: a quotation mark must follow a space");
  expect_contains(file_error("run.dir = \"\xff\"\n"), "utf-8");
  expect_contains(file_error(std::string("seed = 1\0", 9)), "not valid TOML");
  expect_contains(file_error(std::string("\x7f"
                                         "ELF\x02\x01\x01\0\0",
                                         9)),
                  "not valid TOML");
  for (const char* argument : {"", "=", "=5", "train.steps", "--steps"})
    EXPECT_EQ(argument_error(argument), text("argument '{}' is not of the form key.path=value, such as train.steps=100", argument));
}

TEST(ConfigErrors, DuplicateKeys) {
  expect_contains(file_error("seed = 1\nseed = 2\n"), "config.toml:2:");
  expect_contains(file_error("seed = 1\nseed = 2\n"), "cannot redefine existing integer 'seed'");
  expect_contains(file_error("[train]\nsteps = 1\n[train]\nseq_len = 2\n"), "cannot redefine existing table 'train'");
  EXPECT_EQ(file_error("\"train.steps\" = 5\n[train]\nsteps = 6\n"), "config.toml:3: key 'train.steps' was given in line 1 already");
}

TEST(ConfigErrors, ValuesOfLaterVersionsSayWhatIsAvailable) {
  EXPECT_EQ(argument_error("device=cuda"), "argument 'device=cuda': device = \"cuda\" is not available in this version; available: cpu");
  EXPECT_EQ(file_error("\ndevice = 'cuda'\n"), "config.toml:2: device = \"cuda\" is not available in this version; available: cpu");
  for (const char* argument : {"device=cuda", "parallel.zero=1", "parallel.world=8", "parallel.reproducible=true", "offload.optimizer=true"})
    expect_contains(argument_error(argument), "is not available in this version; available: ");
  EXPECT_EQ(file_error("[parallel]\nzero = 3\n"),
            "config.toml:2: parallel.zero is not available in this version; available: one process on one device, without parallel.* keys");
}

TEST(ConfigErrors, Strings) {
  EXPECT_EQ(argument_error("run.dir="), "argument 'run.dir=': run.dir must not be empty");
  expect_contains(argument_error("run.dir=a\nb"), "run.dir has a control character or is not valid UTF-8: \"a\\nb\"");
  expect_contains(argument_error("run.dir=\xff"), "run.dir has a control character or is not valid UTF-8: \"\\xFF\"");
  expect_contains(file_error("run.dir = \"a\\u0000b\"\n"), "control character");
  expect_contains(argument_error("run.dir=" + std::string(5000, 'x')), "run.dir is longer than 4096 bytes");
  EXPECT_EQ(parse("", {"run.dir=läufe/α"}).run_dir, "läufe/α");
  expect_contains(argument_error("model.preset=gpt2"), "argument 'model.preset=gpt2': unknown model.preset 'gpt2'");
  expect_contains(file_error("\n[model]\npreset = 'tinny'\n"), "config.toml:3: unknown model.preset 'tinny', did you mean 'tiny'?");
}

TEST(ConfigErrors, Tokenizers) {
  EXPECT_EQ(parse("", {"data.tokenizer=tokenizer.json"}).data.tokenizer, "tokenizer.json");
  for (const char* bad : {"bpe:", "bpe:x", "bpe:-5", "bpe:4096.0", "bpe:999999999"})
    expect_contains(argument_error(std::string("data.tokenizer=") + bad), "data.tokenizer expects bpe:N with a number N");
  expect_contains(argument_error("data.tokenizer=bpe:256"), "N of bpe:N must be from 257 to 16777216, got 256");
  expect_contains(argument_error("data.tokenizer="), "must not be empty");
  EXPECT_EQ(usage_error([] {
              parse("", {"data.tokenizer=bpe:4096", "data.path=x.txt"});
            }),
            "data.tokenizer = \"bpe:4096\" makes more tokens than model.vocab = 256: set model.vocab=4096");
  EXPECT_EQ(parse("", {"data.tokenizer=bpe:4096", "data.path=x.txt", "model.vocab=4096"}).model.vocab, 4096);
}

TEST(ConfigErrors, ImpossibleCombinationsNameBothKeys) {
  const std::string message = argument_error("train.seq_len=512");
  expect_contains(message, "train.seq_len = 512 is above model.max_seq_len = 256");
  EXPECT_EQ(parse("", {"train.seq_len=512", "model.position=rope"}).train.seq_len, 512);
  EXPECT_EQ(parse("", {"train.seq_len=512", "model.max_seq_len=512"}).train.seq_len, 512);
  EXPECT_EQ(parse("", {"train.seq_len=512", "model.preset=cruncher"}).train.seq_len, 512);
  EXPECT_EQ(parse("", {"optim.warmup_steps=1000", "train.steps=10"}).optim.warmup_steps, 1000);
  expect_contains(usage_error([] {
                    parse("", {"model.position=rope", "train.seq_len=16777216", "train.micro_batch=257"});
                  }),
                  "train.micro_batch = 257 times train.seq_len = 16777216 is above the limit");
  EXPECT_EQ(usage_error([] { parse("", {"optim.name=adam", "optim.weight_decay_kind=decoupled"}); }),
            "optim.weight_decay_kind = decoupled and optim.name = adam exclude each other: that is optim.name=adamw");
  EXPECT_EQ(usage_error([] { parse("", {"optim.name=adamw8bit", "optim.weight_decay_kind=coupled"}); }),
            "optim.weight_decay_kind = coupled and optim.name = adamw8bit exclude each other: that is optim.name=adam");
  expect_contains(usage_error([] { parse("", {"optim.name=lamb", "optim.weight_decay_kind=decoupled"}); }), "and optim.name = lamb exclude each other");
  EXPECT_EQ(usage_error([] { parse("", {"optim.phi_low=11"}); }), "optim.phi_low = 11 is above optim.phi_high = 10");
  EXPECT_EQ(usage_error([] { parse("", {"optim.groups=embed.*"}); }),
            "optim.groups: \"embed.*\" is no group such as \"embed.* lr=0.1 weight_decay=0\"");
  expect_contains(argument_error("model.kv_heads=3"), "model.heads = 4 is not a multiple of model.kv_heads = 3");
}

TEST(ConfigErrors, FilesThatAreNoConfiguration) {
  const auto load_error = [](const std::string& path) { return usage_error([&] { load_config(path, {}); }); };
  expect_contains(load_error("/nonexistent/config.toml"),
                  "cannot open the configuration /nonexistent/config.toml: No such file or directory");
  expect_contains(load_error(testing::TempDir()), "is a directory");
  expect_contains(load_error("/dev/zero"), "/dev/zero is larger than 256.00 KiB: it is not a configuration file");
  const TemporaryFile good("\xef\xbb\xbf# with a byte order mark and Windows lines\r\n[train]\r\nsteps = 9\r\n");
  EXPECT_EQ(load_config(good.path, Arguments{"seed=4"}).train.steps, 9);
}

TEST(ConfigErrors, AHundredMegabytesAreNotRead) {
  const TemporaryFile large("");
  ASSERT_EQ(truncate(large.path.c_str(), 100'000'000), 0);
  expect_contains(usage_error([&] { load_config(large.path, {}); }), "is larger than 256.00 KiB: it is not a configuration file");
}

TEST(ConfigErrors, DeepNestingIsAMessageNotACrash) {
  const auto repeated = [](const char* piece, int count) {
    std::string all;
    for (int i = 0; i < count; ++i) all += piece;
    return all;
  };
  expect_contains(file_error("seed = " + repeated("[", 100'000)), "nested");
  expect_contains(file_error("seed = " + repeated("{a = ", 100'000)), "nested");
  expect_contains(file_error("\n" + repeated("a.", 100'000) + "a = 1\n"), "config.toml:2: more than 250 dots in a line");
  expect_contains(file_error("[" + repeated("a.", 100'000) + "a]\n"), "more than 250 dots in a line");
  // The deepest document that gets through: inline tables of long dotted keys, in arrays that begin new lines.
  const auto nested = [&](int levels) {
    return "seed = " + repeated(("[\n{" + repeated("a.", 249) + "a = ").c_str(), levels) + "1" + repeated("}\n]", levels) + "\n";
  };
  EXPECT_EQ(file_error(nested(7)), "config.toml:1: seed expects an integer of at least 0, got an array");
  expect_contains(file_error(nested(40)), "nested");
  expect_contains(file_error(repeated("a.", 249) + "a = 1\n"), "unknown key 'a.a.");
  EXPECT_EQ(file_error("# " + repeated(".", 1000) + "\n"), "");
  expect_contains(argument_error("seed=" + repeated("[", 100'000)), "seed expects an integer");
  expect_contains(argument_error("seed={" + repeated("a.", 100'000) + "a=1}"), "seed expects an integer");
  expect_contains(argument_error(repeated("a.", 100'000) + "a=1"), "unknown key 'a.a.");
}
