// cli/main: the table of commands and their flags, the exit codes and the signals. Everything else is one file a command.
#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/base/program.h"
#include "reckon/base/stop.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/flags.h"
#include "reckon/cli/process_probe.h"
#include "reckon/cli/usage.h"

namespace reckon {
namespace {
constexpr int64_t kMany = int64_t(1) << 32;
constexpr int kTerminated = 128 + SIGTERM;  // as a shell reports it; a run that saved exits 130 either way

constexpr CommandRow kCommands[] = {
    {"plan", run_plan, true, "What training takes, before it runs: bytes and FLOPs exactly, time, who holds the memory, what fits.",
     "reckon plan model.preset=gpt2-124m train.micro_batch=4 train.seq_len=256 memory.budget=4GiB",
     "device model.* train.* optim.* data.* eval.* checkpoint.* memory.*"},
    {"train", run_train, true, "Train a model; continue a run with --resume.",
     "reckon train data.path=my.txt data.tokenizer=bpe:2048 model.vocab=2048 run.dir=runs/mine"},
    {"eval", run_eval, true, "Loss of a trained model on held-out data.", "reckon eval run.dir=runs/mine",
     "run.dir data.path data.validation_fraction train.micro_batch train.seq_len memory.budget device", nullptr, true},
    {"generate", run_generate, true, "Write text with a trained model.", "reckon generate run.dir=runs/mine --prompt 'In the beginning'",
     "run.dir seed memory.budget device", nullptr, true},
    {"tokenize", run_tokenize, true, "Train a tokenizer, or turn a text into a token file.",
     "reckon tokenize data.path=my.txt data.tokenizer=bpe:4096 --out my.npy", "data.path data.tokenizer"},
    {"inspect", run_inspect, false, "Show what a run, checkpoint, safetensors file, token file or tokenizer holds.",
     "reckon inspect runs/mine", "", "PATH [--flags]"},
    {"report", run_report, true, "Write a run's report and trace again; with --out, those of a plan that nobody has run.",
     "reckon report model.preset=gpt2-124m memory.budget=4GiB --out plan.html"},
    {"bench train", run_bench_train, true,
     "Measure training steps on synthetic tokens (data.path is not read): tokens per second, MFU, memory. Writes no run.",
     "reckon bench train model.preset=gpt2-124m train.micro_batch=4 train.seq_len=256", "device seed model.* train.* optim.* memory.*"},
    {"bench device", run_bench_device, false,
     "Measure this machine's peaks, which MFU is a share of, and keep the best in the user's cache.", "reckon bench device", "",
     "[--flags]"},
    {"bench ops", run_bench_ops, false,
     "Measure operations, or all, on large tensors as shares of a copy's or a product's rate. Takes 3 GiB.", "reckon bench ops softmax add",
     "", "[OPERATION ...] [--flags]"},
    {"check", run_check, false, "Check the engine on this machine: kernels, gradients, dry run against real run.",
     "reckon check softmax linear", "", "[OPERATION ...] [--flags]"},
    {"check signals", run_check_signals, true,
     "Show mean and variance of every layer's output and gradient as a model starts: what its initialization does.",
     "reckon check signals model.init=xavier", "seed model.* train.micro_batch train.seq_len train.precision memory.budget"},
};

void add_flags(CLI::App& app, const std::string& command, CommandLine& line) {
  add_switch(app, "--json", line.json, "Print one JSON document on stdout and nothing else there");
  add_integer(app, "--threads", line.threads, 1, 4096, "N", "Threads to use (default: all cores)");
  if (command == "train") {
    add_switch(app, "--resume", line.resume, "Continue the run in run.dir, with the configuration saved there");
    add_switch(app, "--overwrite", line.overwrite, "Start over although run.dir holds a run; its checkpoints are removed");
  }
  if (command == "plan") {
    add_text(app, "--fit", line.fit, "GOAL", "The largest micro_batch or seq_len, or the fastest configuration, that fits into memory.budget");
    add_text(app, "--compare", line.compare, "'KEYS'", "Beside the same configuration with these changes: 'train.recompute=full optim.name=sgd'");
    add_text(app, "--why", line.why, "WHAT", "The terms behind a category (activation), an operation (gelu) or a module (blocks.0)");
    add_text(app, "--on", line.on, "DEVICE", "On a device by its data sheet: does it fit, how fast can a step be (h100-sxm, rtx-4090, ...)");
    add_switch(app, "--napkin", line.napkin, "Instead: answer a question, TOPIC name=value ...; without a topic all of them");
  }
  if (command == "bench train")
    add_switch(app, "--profile", line.profile, "Instead: one step, with time, GFLOP/s and GB/s of each operation");
  if (command == "eval")
    add_integer(app, "--batches", line.batches, 1, kMany, "N", "Micro-batches to evaluate (default: all of the validation data)");
  if (command == "check signals")
    add_text(app, "--layer", line.layer, "IN,OUT", "Instead: one linear layer of these widths, under every rule of initialization");
  if (command == "tokenize")
    add_text(app, "--out", line.out, "FILE", "File to write: .npy for the tokens, .json for the tokenizer itself (default: only count)");
  if (command == "report")
    add_text(app, "--out", line.out, "FILE", "Report of the plan of these keys, as FILE (default: of the run in run.dir, into it)");
  if (command == "generate") {
    add_text(app, "--prompt", line.prompt, "TEXT", "Text to continue (default: a line break)");
    add_integer(app, "--tokens", line.tokens, 1, kMany, "N", "Tokens to write (default: 200)");
    add_number(app, "--temperature", line.temperature, 0, 100, "X",
               "Above 1 bolder, below 1 safer; 0 takes the most likely token (default: 0.8)");
    add_integer(app, "--top-k", line.top_k, 0, kMany, "K", "Draw from the K most likely tokens only; 0: all (default)");
    add_number(app, "--top-p", line.top_p, 0, 1, "P", "Draw from the most likely tokens that together reach probability P (default: 1)");
  }
}

// Commands other than this one that have the flag.
std::vector<std::string> owners_of(const std::string& flag, const CommandRow& except) {
  std::vector<std::string> owners;
  for (const CommandRow& row : kCommands) {
    CLI::App app;
    CommandLine unused;
    add_flags(app, row.name, unused);
    if (&row != &except && app.get_option_no_throw(flag.substr(0, flag.find('=')))) owners.push_back(row.name);
  }
  return owners;
}

// key.path=value, as against a file name: an identifier with dots before the first '='.
bool is_override(const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos || equals == 0) return false;
  return std::all_of(word.begin(), word.begin() + long(equals),
                     [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.'; });
}

void sort_words(std::vector<std::string> words, const CommandRow& row, CommandLine& line) {
  for (std::string& word : words) {
    if (row.has_keys && is_override(word)) {
      line.overrides.push_back(std::move(word));
    } else if (row.has_keys && word.ends_with(".toml") && line.config_path.empty()) {
      line.config_path = std::move(word);
    } else {
      if (line.words.empty()) line.first_word_means = keys_meant(row, word);
      line.words.push_back(std::move(word));
    }
  }
}

// The first Ctrl-C ends a command in good order (base/stop.h), the second at once.
void on_interrupt(int signal) {
  request_stop(signal);
  std::signal(signal, SIG_DFL);
}

int run_command(const CommandRow& row, const std::vector<std::string>& arguments, bool help) {
  CLI::App app;
  CommandLine line;
  line.command = row.name;
  add_flags(app, row.name, line);
  std::vector<std::string> words;
  const std::vector<std::string> unknown = help ? std::vector<std::string>() : read_flags(app, arguments, words, help);
  if (help) {
    std::fputs(command_help(row, app).c_str(), stdout);
    return 0;
  }
  if (!unknown.empty()) fail_unknown_flag(row, app, unknown[0], arguments, owners_of(unknown[0], row));
  sort_words(std::move(words), row, line);
  if (line.threads > 0) set_thread_count(int(line.threads));
  return row.run(line);
}

int parse_and_run(std::vector<std::string> arguments) {
  const std::string first = arguments.empty() ? "help" : arguments[0];
  if (first == "--version") {
    std::puts("reckon 0.1.0");
    return 0;
  }
  if (first == kProcessProbe) return run_process_probe(arguments);
  const bool help = first == "help" || first == "--help" || first == "-h";
  if (help && arguments.size() < 2) {
    std::fputs(program_help(kCommands).c_str(), stdout);
    return 0;
  }
  if (help) arguments.erase(arguments.begin());
  check_as(Failure::usage, !arguments[0].starts_with('-'), "{} stands before the command: write {} COMMAND {}",
           printable_line(arguments[0]), program_name(), printable_line(arguments[0]));
  const bool asks = help || std::find(arguments.begin(), arguments.end(), "--help") != arguments.end() ||
                    std::find(arguments.begin(), arguments.end(), "-h") != arguments.end();
  const CommandRow* row = find_command(kCommands, arguments, asks);
  if (row) return run_command(*row, arguments, help);
  std::fputs(program_help(kCommands, arguments[0]).c_str(), stdout);
  return 0;
}

// Waiting threads spin 300,000 rounds by default, on a core that another program may need: measured on two cores, one competitor then
// costs a third of the speed more than with 10,000, and many cost more than half of it. Alone, 10,000 cost about one percent.
// The OpenMP library reads the environment when it is loaded, so the program starts anew.
void limit_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0 || setenv("GOMP_SPINCOUNT", "10000", 0) != 0) return;
  path[length] = '\0';
  ::execv(path, argv);  // comes back only if it fails; then the default serves
}

}  // namespace
}  // namespace reckon

int main(int argc, char** argv) {
  using namespace reckon;
  limit_spinning(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, with a message
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  set_program_name(argv[0]);
  mallopt(M_ARENA_MAX, 1);  // kernels do not allocate, so threads do not compete; and what a text took can be given back
  try {
    const int code = parse_and_run({argv + std::min(argc, 1), argv + argc});
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      if (errno != EPIPE) std::fputs("reckon: standard output could not be written\n", stderr);  // `| head` has what it wanted
      return code != 0 ? code : 1;
    }
    return code;
  } catch (const Error& error) {
    if (!error.details().empty()) std::fprintf(stderr, "%s\n", error.details().c_str());
    std::fprintf(stderr, "reckon: %s\n", error.what());
    return error.kind() == Failure::interrupted && stop_signal() == SIGTERM ? kTerminated : error.exit_code();
  } catch (const std::bad_alloc&) {
    std::fputs("reckon: out of memory on the host\n", stderr);
    return int(Failure::memory);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reckon: %s\n", error.what());
    return 1;
  }
}
