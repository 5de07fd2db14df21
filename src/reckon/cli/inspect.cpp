// cli/inspect: reckon inspect PATH [--json]: what a file or folder that this program writes or reads holds.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/data/token_file.h"
#include "reckon/io/checkpoint.h"
#include "reckon/io/files.h"
#include "reckon/io/json.h"
#include "reckon/io/tokenizer.h"

namespace reckon {
namespace {

void inspect_safetensors(const std::string& path, bool json) {
  const SafetensorsFile file(path);
  int64_t elements = 0, bytes = 0;
  for (const SafetensorsEntry& e : file.entries()) {
    elements += e.shape.numel();
    bytes += e.bytes;
  }
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("tensors").begin_array();
    for (const SafetensorsEntry& e : file.entries()) {
      j.begin_object().key("name").string(e.name).key("dtype").string(e.dtype).key("shape").begin_array();
      for (const int64_t extent : e.shape) j.integer(extent);
      j.end_array().key("bytes").integer(e.bytes).end_object();
    }
    j.end_array().key("elements").integer(elements).key("bytes").integer(bytes).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  size_t width = 4;
  for (const SafetensorsEntry& e : file.entries()) width = std::max(width, printable_line(e.name).size());
  for (const SafetensorsEntry& e : file.entries())
    std::printf("%-*s  %-5s %-18s %s\n", int(width), printable_line(e.name).c_str(), std::string(e.dtype).c_str(),
                to_string(e.shape).c_str(), human_bytes(e.bytes).c_str());
  for (const MetadataItem& m : file.metadata()) std::printf("%s: %s\n", printable_line(m.key).c_str(), printable_line(m.value).c_str());
  std::printf("%s, %s, %s\n", counted(int64_t(file.entries().size()), "tensor").c_str(), counted(elements, "element").c_str(),
              human_bytes(bytes).c_str());
}

void inspect_checkpoint(const std::string& path, bool json) {
  const CheckpointReader reader(path);
  const CheckpointState& s = reader.state();
  if (json) {
    JsonWriter j(true);
    j.begin_object()
        .key("path")
        .string(printable_line(path))
        .key("step")
        .integer(s.step)
        .key("seed")
        .integer(s.seed)
        .key("data_position")
        .integer(s.data_position);
    j.key("files").begin_array();
    for (const std::string& file : reader.files()) j.string(file);
    j.end_array().key("verified").boolean(true).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  std::printf("checkpoint after step %s, seed %lld, %s drawn; every byte verified\n", with_commas(s.step).c_str(),
              static_cast<long long>(s.seed), counted(s.data_position, "sample").c_str());
  for (const std::string& file : reader.files()) {
    std::printf("\n%s\n", file.c_str());
    if (file.ends_with(".safetensors")) inspect_safetensors(join_path(path, file), false);
  }
}

void print_config(const char* what, const Config& config) {
  const ModelConfig& m = config.model;
  std::printf("%s of %s: %s, d_model %lld, %lld heads (%lld kv), vocab %lld, %s; %s planned\n", what, m.preset.c_str(),
              counted(m.layers, "layer").c_str(), static_cast<long long>(m.d_model), static_cast<long long>(m.heads),
              static_cast<long long>(m.kv_heads), static_cast<long long>(m.vocab), counted(parameter_count(m), "parameter").c_str(),
              counted(config.train.steps, "step").c_str());
}

void inspect_run(const std::string& path, bool json) {
  const std::vector<CheckpointInfo> checkpoints = list_checkpoints(path);
  const Config config = load_config(join_path(path, "config.toml"), {});
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("preset").string(config.model.preset);
    j.key("parameters").integer(parameter_count(config.model)).key("steps").integer(config.train.steps).key("checkpoints").begin_array();
    for (const CheckpointInfo& c : checkpoints)
      j.begin_object().key("step").integer(c.step).key("path").string(printable_line(c.path)).end_object();
    j.end_array().end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  print_config("run", config);
  for (const CheckpointInfo& c : checkpoints) std::printf("checkpoint after step %s: %s\n", with_commas(c.step).c_str(), c.path.c_str());
  if (checkpoints.empty()) std::printf("no checkpoint yet\n");
}

void inspect_config(const std::string& path, bool json) {
  const Config config = load_config(path, {});
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("preset").string(config.model.preset);
    j.key("parameters")
        .integer(parameter_count(config.model))
        .key("steps")
        .integer(config.train.steps)
        .key("resolved")
        .string(to_toml(config))
        .end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  print_config("configuration", config);
  std::printf("every key, resolved:\n\n%s", to_toml(config).c_str());
}

// The value at a dotted path, or null where there is none.
std::optional<double> number_at(Json value, std::string_view path) {
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (!value.is_object() || !value.has(name)) return {};
    value = value.get(name);
  }
  return value.is_null() ? std::nullopt : std::optional(value.number());
}

void print_summary(const Json& summary) {
  struct Line {
    const char *title, *path;
    enum { count, bytes, real, share } as;
  };
  constexpr Line kLines[] = {{"parameters", "model.parameters", Line::count},       {"peak memory", "memory.peak_bytes", Line::bytes},
                             {"FLOPs a step", "flops.model_per_step", Line::count}, {"seconds a step", "step_seconds", Line::real},
                             {"tokens a second", "tokens_per_second", Line::count}, {"MFU", "mfu", Line::share},
                             {"loss, training", "loss.train", Line::real},          {"loss, validation", "loss.validation", Line::real},
                             {"bits per byte", "loss.bits_per_byte", Line::real}};
  const auto shown = [](const Line& line, const std::optional<double>& v) {
    if (!v) return std::string("-");
    if (line.as == Line::count) return with_commas(std::llround(*v));
    if (line.as == Line::bytes) return human_bytes(std::llround(*v));
    return line.as == Line::share ? text("{:.1f} %", *v * 100) : text("{:.4f}", *v);
  };
  std::printf("summary of a run   %18s %18s\n", "predicted", "measured");
  for (const Line& line : kLines)
    std::printf("%-18s %18s %18s\n", line.title, shown(line, number_at(summary.get("predicted"), line.path)).c_str(),
                shown(line, number_at(summary.get("measured"), line.path)).c_str());
}

void inspect_tokenizer(const std::string& path, bool json) {
  const Ref<Tokenizer> t = Tokenizer::load(path);
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("kind").string(t->kind()).key("vocab").integer(int64_t(t->vocab_size()));
    j.key("fingerprint").string(t->fingerprint()).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  std::printf("%s tokenizer, %s, fingerprint %s\nlongest: ", std::string(t->kind()).c_str(),
              counted(int64_t(t->vocab_size()), "token").c_str(), t->fingerprint().c_str());
  std::vector<int32_t> ids(t->vocab_size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return t->token(a).size() > t->token(b).size(); });
  for (size_t i = 0; i < std::min<size_t>(8, ids.size()); ++i) std::printf("'%s' ", printable_line(t->token(ids[i]), 40).c_str());
  std::printf("\n");
}

void inspect_tokens(const std::string& path, bool json) {
  const Ref<TokenFile> file = TokenFile::open(path, 0);
  std::vector<int32_t> ids(size_t(std::min<int64_t>(16, file->size())));
  file->read(0, ids);
  if (json) {
    JsonWriter j(true);
    j.begin_object()
        .key("path")
        .string(printable_line(path))
        .key("format")
        .string(file->format())
        .key("tokens")
        .integer(file->size())
        .end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  std::printf("%s, %s:", file->format().c_str(), counted(file->size(), "token").c_str());
  for (const int32_t id : ids) std::printf(" %d", id);
  std::printf("%s\n", int64_t(ids.size()) < file->size() ? " ..." : "");
}

constexpr const char* kReads =
    "inspect reads a run directory, a checkpoint, .safetensors, token files (.npy, .bin, .u16, .u32), tokenizer.json, config.toml and "
    "summary.json";

// Files of JSON say by their contents what they are.
void inspect_json(const std::string& path, bool json) {
  constexpr int64_t kMaxBytes = int64_t(256) << 20;
  const std::string bytes = read_file(path, kMaxBytes);
  const JsonDocument document(bytes, path);
  const Json root = document.root();
  const auto has = [&](const char* key) { return root.is_object() && root.has(key); };
  if (has("model")) {
    inspect_tokenizer(path, json);
  } else if (has("predicted") && has("measured")) {
    json ? void(std::fputs(bytes.c_str(), stdout)) : print_summary(root);
  } else if (has("config_fingerprint") && has("files")) {
    inspect_checkpoint(parent_path(path), json);  // the state is worth what the files that it lists are
  } else {
    fail_as(Failure::usage, "{} is neither a tokenizer nor a summary nor the state of a checkpoint; {}", printable_line(path), kReads);
  }
}
}  // namespace

int run_inspect(const CommandLine& line) {
  check_as(Failure::usage, line.words.size() == 1, "inspect takes one path; {}", kReads);
  const std::string& path = line.words[0];
  check_as(Failure::usage, path_exists(path), "{} does not exist", printable_line(path));
  if (is_directory(path)) {
    if (path_exists(join_path(path, kStateFile))) {
      inspect_checkpoint(path, line.json);
    } else {
      check_as(Failure::usage, path_exists(join_path(path, "config.toml")),
               "{} is neither a run directory (config.toml) nor a checkpoint (state.json)", printable_line(path));
      inspect_run(path, line.json);
    }
  } else if (path.ends_with(".safetensors")) {
    inspect_safetensors(path, line.json);
  } else if (path.ends_with(".json")) {
    inspect_json(path, line.json);
  } else if (path.ends_with(".toml")) {
    inspect_config(path, line.json);
  } else {
    check_as(Failure::usage, is_token_file(path), "{} is nothing that inspect knows; {}", printable_line(path), kReads);
    inspect_tokens(path, line.json);
  }
  return 0;
}
}  // namespace reckon
