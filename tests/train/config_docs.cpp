// docs/configuration.md is made from the table of keys and the presets; this keeps the two equal.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/train/config.h"

using namespace reckon;

namespace {
constexpr const char* kPath = "docs/configuration.md";

constexpr const char* kIntroduction = R"(# Configuration

Generated from the program's table of keys by `tests/train/config_docs.cpp`, which fails if this file differs. To write it anew:
`RECKON_REGENERATE=1 build/release/tests/test_train --gtest_filter=ConfigDocs.*`

`reckon COMMAND [CONFIG.toml] [key.path=value ...]`: every key has a default, so neither a file nor an argument is needed. The order is:
the preset named by `model.preset` (wherever it is named), then the file, then the arguments from left to right. An argument's value is
TOML if it reads as such (`optim.lr=3e-4`, `model.tied_head=false`) and otherwise a plain string (`train.precision=bf16`, `memory.budget=4GiB`).
A file is TOML of at most 256 KiB, with every string in one line.

```toml
seed = 7

[model]
preset = "gpt2-124m"
layers = 6

[train]
micro_batch = 4
seq_len = 256
precision = "bf16"
```

Sizes of the model that nobody names follow those that are changed against the preset: `model.head_dim` becomes `model.d_model` /
`model.heads` (which must be whole), `model.kv_heads` follows `model.heads` where the preset has equally many of both, and `model.d_ff`
keeps the preset's ratio to `model.d_model`, rounded up to a multiple of 32 where the ratio is not whole. A size that is named, in the
file or as an argument, is never changed.

A mistake ends the program with exit code 2 and one line that names the file and line or the argument, the key, the value and the limit.
Values of later versions (`cuda`, `parallel.*`, `offload.*`) are refused by name.
)";

std::string presets_table() {
  std::string out =
      "\n## Presets\n\n| preset | layers | d_model | heads | kv_heads | head_dim | d_ff | vocab | max_seq_len | tied head | parameters |\n";
  out += "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|\n";
  for (const std::string& name : model_preset_names()) {
    const ModelConfig c = model_preset(name);
    out += c.cruncher ? text("| `{}` | {} | {} | | | | | | | |", name, c.layers, c.d_model)
                      : text("| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} |", name, c.layers, c.d_model, c.heads, c.kv_heads,
                             c.head_dim, c.d_ff, c.vocab, c.max_seq_len, c.tied_head ? "yes" : "no");
    out += text(" {} |\n", with_commas(parameter_count(c)));
  }
  return out + "\n`cruncher` is a stack of square bias-free linear layers with a d_model -> 1 head; it ignores the keys left empty here.\n";
}

std::string keys_tables() {
  std::string out, open = "-";
  for (const KeyHelp& row : config_keys()) {
    const size_t dot = row.key.find('.');
    const std::string table = dot == std::string::npos ? "" : row.key.substr(0, dot);
    if (table != open)
      out += text("\n## {}\n\n| key | type | default | meaning |\n|---|---|---|---|\n", table.empty() ? "Top level" : table);
    open = table;
    out += text("| `{}` | {} | `{}` | {} |\n", row.key, row.type, row.default_value, row.help);
  }
  return out;
}

std::string configuration_page() { return kIntroduction + presets_table() + keys_tables(); }
}  // namespace

TEST(ConfigDocs, ConfigurationPageIsCurrent) {
  if (std::getenv("RECKON_REGENERATE")) {
    std::ofstream file(kPath, std::ios::binary);
    file << configuration_page();
    ASSERT_TRUE(file.flush()) << "cannot write " << kPath << "; run from the root of the repository";
  }
  std::ifstream file(kPath, std::ios::binary);
  ASSERT_TRUE(file) << "cannot read " << kPath << "; run from the root of the repository";
  std::stringstream committed;
  committed << file.rdbuf();
  EXPECT_TRUE(committed.str() == configuration_page()) << kPath
                                                       << " is not what the table of keys says; run\n  RECKON_REGENERATE=1 "
                                                          "build/release/tests/test_train --gtest_filter=ConfigDocs.*\nand commit it";
}

TEST(ConfigDocs, ExampleIsAValidConfiguration) {
  const std::string_view page = kIntroduction;
  const size_t begin = page.find("```toml\n") + 8;
  const Config c = parse_config(page.substr(begin, page.find("```", begin) - begin), "example", {});
  EXPECT_EQ(c.model.layers, 6);
  EXPECT_EQ(c.train.precision, Precision::bf16);
}
