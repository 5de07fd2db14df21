// cli/main: the command line, the exit codes and the signals. Everything else is one file a command.
#include <CLI/CLI.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <new>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/train/trainer.h"

namespace reckon {
namespace {

struct CommandRow {
  const char* name;
  int (*run)(const CommandLine&);
  bool has_keys;
  const char* help;
  const char* example;
};
constexpr CommandRow kCommands[] = {
    {"train", run_train, true, "Train a model; continue a run with --resume.", "reckon train data.path=my.txt data.tokenizer=bpe:2048 model.vocab=2048 run.dir=runs/mine"},
    {"eval", run_eval, true, "Loss of a trained model on held-out data.", "reckon eval run.dir=runs/mine"},
    {"generate", run_generate, true, "Write text with a trained model.", "reckon generate run.dir=runs/mine --prompt 'In the beginning'"},
    {"tokenize", run_tokenize, true, "Train a tokenizer, or turn a text into a token file.", "reckon tokenize data.path=my.txt data.tokenizer=bpe:4096 --out my.npy"},
    {"inspect", run_inspect, false, "Show what a run, checkpoint, safetensors file, token file or tokenizer holds.", "reckon inspect runs/mine"},
    {"bench", run_bench, true, "Measure: `bench train` a training step on synthetic tokens (data.path is not read), `bench device` this machine's peaks.",
     "reckon bench train model.preset=gpt2-124m train.micro_batch=4 train.seq_len=256"},
    {"check", run_check, false, "Check the engine on this machine: kernels, gradients, dry run against real run.", "reckon check"},
};

// key.path=value, as against a file name: an identifier with dots before the first '='.
bool is_override(const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0) return false;
  return std::all_of(word.begin(), word.begin() + long(equals), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; });
}

void sort_words(std::vector<std::string> words, CommandLine& line) {
  for (std::string& word : words) {
    if (is_override(word)) {
      line.overrides.push_back(std::move(word));
    } else if (word.ends_with(".toml") && line.config_path.empty() && line.command != "inspect") {
      line.config_path = std::move(word);
    } else {
      line.words.push_back(std::move(word));
    }
  }
}

void add_flags(CLI::App& app, const std::string& command, CommandLine& line) {
  app.add_flag("--json", line.json, "Print one JSON document on stdout and nothing else there");
  app.add_option("--threads", line.threads, "Threads to use (default: all cores)")->check(CLI::Range(1, 4096));
  if (command == "train") {
    app.add_flag("--resume", line.resume, "Continue the run in run.dir, with the configuration saved there");
    app.add_flag("--overwrite", line.overwrite, "Start over although run.dir holds a run; its checkpoints are removed");
  }
  if (command == "bench") app.add_flag("--profile", line.profile, "Time, GFLOP/s and GB/s of each operation");
  if (command == "eval") app.add_option("--batches", line.batches, "Micro-batches to evaluate (default: all of the validation data)")->check(CLI::Range(int64_t(1), int64_t(1) << 32));
  if (command == "tokenize") app.add_option("--out", line.out, "File to write: .npy token file, or .json for the tokenizer itself");
  if (command == "generate") {
    app.add_option("--prompt", line.prompt, "Text to continue (default: a line break)");
    app.add_option("--tokens", line.tokens, "Tokens to write")->check(CLI::Range(int64_t(1), int64_t(1) << 32))->capture_default_str();
    app.add_option("--temperature", line.temperature, "0 takes the most likely token")->check(CLI::Range(0.0, 100.0))->capture_default_str();
    app.add_option("--top-k", line.top_k, "Only the k most likely tokens (0: all)")->check(CLI::Range(int64_t(0), int64_t(1) << 32))->capture_default_str();
    app.add_option("--top-p", line.top_p, "Only the most likely tokens that together reach this probability")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  }
}

// For commands that look at stop_requested(): the first Ctrl-C stops them in good order, the second ends at once.
void on_interrupt(int signal) {
  request_stop();
  std::signal(signal, SIG_DFL);
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Reckon trains language models and accounts for every byte and every FLOP.\nreckon COMMAND [CONFIG.toml] [key.path=value ...] [--flags]", "reckon");
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", std::string("reckon 0.1.0"));
  app.footer("`reckon COMMAND --help` lists a command's flags, and the keys of the configuration.\n"
             "Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 does not fit in memory, 4 corrupt input, 130 interrupted after saving.");
  CommandLine line;
  std::vector<std::string> words;
  for (const CommandRow& row : kCommands) {
    CLI::App* sub = app.add_subcommand(row.name, row.help);
    sub->add_option("words", words, row.has_keys ? "CONFIG.toml and key.path=value" : "PATH")->type_name("");
    add_flags(*sub, row.name, line);
    sub->footer(std::string("Example: ") + row.example + (row.has_keys ? "\n\n" + keys_help() : ""));
  }
  std::vector<std::string> names;
  for (const CommandRow& row : kCommands) names.push_back(row.name);
  if (argc > 1 && argv[1][0] != '-' && std::find(names.begin(), names.end(), argv[1]) == names.end())
    fail_as(Failure::usage, "unknown command '{}'{} (reckon --help lists them)", printable_line(argv[1]), did_you_mean(argv[1], names));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    fail_as(Failure::usage, "{}", error.what());
  }
  if (app.get_subcommands().empty()) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  }
  check_as(Failure::usage, std::isfinite(line.temperature) && std::isfinite(line.top_p), "--temperature and --top-p must be numbers");
  line.command = app.get_subcommands()[0]->get_name();
  sort_words(std::move(words), line);
  if (line.threads > 0) set_thread_count(line.threads);
  if (line.command == "train" || line.command == "eval" || line.command == "generate") {
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
  }
  for (const CommandRow& row : kCommands)
    if (line.command == row.name) return row.run(line);
  return int(Failure::usage);
}

}  // namespace
}  // namespace reckon

int main(int argc, char** argv) {
  using namespace reckon;
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, with a message
  std::signal(SIGPIPE, SIG_IGN);
  try {
    const int code = parse_and_run(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      std::fputs("reckon: standard output could not be written\n", stderr);
      return code != 0 ? code : 1;
    }
    return code;
  } catch (const Error& error) {
    std::fprintf(stderr, "reckon: %s\n", error.what());
    return error.exit_code();
  } catch (const std::bad_alloc&) {
    std::fputs("reckon: out of memory on the host\n", stderr);
    return int(Failure::memory);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reckon: %s\n", error.what());
    return 1;
  }
}
