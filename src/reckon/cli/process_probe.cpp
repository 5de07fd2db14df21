#include "reckon/cli/process_probe.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"
#include "reckon/io/json.h"
#include "reckon/plan/run_plan.h"

namespace reckon {
namespace {
constexpr int kPatience = 10'000;  // milliseconds; it takes tens, but machines stall
constexpr size_t kMaxAnswer = 1 << 16;

// The same operations, precision and optimizer, and so the same code; everything is small, so it takes no time.
Config narrow(Config config) {
  ModelConfig& m = config.model;
  m.layers = std::min<int64_t>(m.layers, 2);
  const bool shares_heads = m.kv_heads < m.heads;
  m.d_model = 64;
  if (!m.cruncher) {
    m.heads = 2;
    m.kv_heads = shares_heads ? 1 : 2;
    m.head_dim = 32;
    m.d_ff = 128;
    m.vocab = 512;
    m.max_seq_len = std::max<int64_t>(m.max_seq_len, 16);
  }
  if (!config.train.recompute_blocks.empty() || config.train.recompute == Recompute::automatic) config.train.recompute = Recompute::full;
  config.train.recompute_blocks.clear();  // of other blocks
  config.train.micro_batch = 2;
  config.train.sequence_chunk = is_chunked(config.train) ? 8 : 0;
  config.train.seq_len = 16;
  config.train.grad_accum = std::min<int64_t>(config.train.grad_accum, 2);
  config.train.steps = 2;
  config.train.stop_after = 0;
  config.optim.warmup_steps = 0;
  if (!config.optim.groups.empty()) config.optim.groups = "*.weight lr=1";  // what others match may not be there
  config.data = {.documents = config.data.documents, .separator = 0};
  config.memory = {};
  return config;
}

// A pipe's reading end, closed in programs that are started.
class Pipe {
 public:
  Pipe() {
    const bool made = pipe2(ends_, O_CLOEXEC) == 0;
    check(made, "no pipe: {}", std::strerror(errno));
  }
  ~Pipe() {
    close(ends_[0]);
    close_writer();
  }
  Pipe(const Pipe&) = delete;
  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }
  void close_writer() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  int ends_[2] = {-1, -1};
};

// Started by spawning, which copies no memory of this process. It is gone, one way or another, when this is.
class Child {
 public:
  Child(std::vector<std::string> arguments, int output) {
    std::vector<char*> words;
    for (std::string& a : arguments) words.push_back(a.data());
    words.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, output, 1);  // first: `output` may be 0 or 2 if those were closed
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    const int error = posix_spawn(&id_, "/proc/self/exe", &files, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    check(error == 0, "it cannot be started: {}", std::strerror(error));
  }
  ~Child() {
    if (id_ < 0) return;
    kill(id_, SIGKILL);
    wait();
  }
  Child(const Child&) = delete;
  // True if it ended well.
  bool wait() {
    int status = 0;
    while (waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    id_ = -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  pid_t id_ = -1;
};

int64_t milliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string read_answer(int fd) {
  std::string answer;
  const int64_t end = milliseconds() + kPatience;
  for (char part[4096];;) {
    pollfd waiting = {fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, int(std::max<int64_t>(0, end - milliseconds())));
    if (ready < 0 && errno == EINTR) continue;
    check(ready > 0, "it says nothing within {} seconds", kPatience / 1000);
    const ssize_t got = read(fd, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0 && answer.size() <= kMaxAnswer, "its answer cannot be read");
    if (got == 0) return answer;
    answer.append(part, size_t(got));
  }
}

ProcessMemory parse_answer(const std::string& answer) {
  constexpr int64_t kMaxBytes = int64_t(1) << 50;
  const JsonDocument document(answer, "the answer of the process that was started");
  ProcessMemory memory;
  for (int i = 0; i < kMemoryClasses; ++i) {
    const MemoryClass owner = MemoryClass(i);
    if (owner != MemoryClass::arena) memory[owner] = document.root().get(name_of(owner)).integer(0, kMaxBytes);
  }
  return memory;
}
}  // namespace

std::optional<ProcessMemory> probe_runtime(const Config& config) {
  try {
    Pipe pipe;
    Child child({"reckon", kProcessProbe, std::to_string(thread_count()), to_toml(narrow(config))}, pipe.writer());
    pipe.close_writer();
    const std::string answer = read_answer(pipe.reader());
    check(child.wait(), "it failed");
    return parse_answer(answer);
  } catch (const Error& error) {
    std::fprintf(stderr, "the process's memory is not predicted, which takes another process: %s\n", error.what());
    return {};
  }
}

int run_process_probe(const std::vector<std::string>& arguments) {
  check_as(Failure::usage, arguments.size() == 3, "{} is what a run asks another process of this program", kProcessProbe);
  set_thread_count(std::atoi(arguments[1].c_str()));
  const Config config = parse_config(arguments[2], kProcessProbe, {});
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  const TrainOutcome outcome = plan_and_train(config, *device, *meta, {.keep_files = false, .quiet = true});
  JsonWriter j;
  j.begin_object();
  for (int i = 0; i < kMemoryClasses; ++i) j.key(name_of(MemoryClass(i))).integer(outcome.process.measured.value()[MemoryClass(i)]);
  j.end_object();
  std::puts(j.str().c_str());
  return 0;
}
}  // namespace reckon
