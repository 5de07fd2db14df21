// cli/inspect: reckon inspect PATH [--json]: a run directory, a checkpoint, a safetensors file, a token file or a tokenizer.
#include <algorithm>
#include <cstdio>

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
    std::printf("%-*s  %-5s %-18s %s\n", int(width), printable_line(e.name).c_str(), std::string(e.dtype).c_str(), to_string(e.shape).c_str(), human_bytes(e.bytes).c_str());
  for (const MetadataItem& m : file.metadata()) std::printf("%s: %s\n", printable_line(m.key).c_str(), printable_line(m.value).c_str());
  std::printf("%zu tensors, %s elements, %s\n", file.entries().size(), with_commas(elements).c_str(), human_bytes(bytes).c_str());
}

void inspect_checkpoint(const std::string& path, bool json) {
  const CheckpointReader reader(path);
  const CheckpointState& s = reader.state();
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("step").integer(s.step).key("seed").integer(s.seed).key("data_position").integer(s.data_position);
    j.key("files").begin_array();
    for (const std::string& file : reader.files()) j.string(file);
    j.end_array().key("verified").boolean(true).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  std::printf("checkpoint after step %s, seed %lld, %s samples drawn; every byte verified\n", with_commas(s.step).c_str(), static_cast<long long>(s.seed),
              with_commas(s.data_position).c_str());
  for (const std::string& file : reader.files()) {
    std::printf("\n%s\n", file.c_str());
    if (file.ends_with(".safetensors")) inspect_safetensors(join_path(path, file), false);
  }
}

void inspect_run(const std::string& path, bool json) {
  const std::vector<CheckpointInfo> checkpoints = list_checkpoints(path);
  const Config config = load_config(join_path(path, "config.toml"), {});
  if (json) {
    JsonWriter j(true);
    j.begin_object().key("path").string(printable_line(path)).key("preset").string(config.model.preset);
    j.key("parameters").integer(parameter_count(config.model)).key("steps").integer(config.train.steps).key("checkpoints").begin_array();
    for (const CheckpointInfo& c : checkpoints) j.begin_object().key("step").integer(c.step).key("path").string(printable_line(c.path)).end_object();
    j.end_array().end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  const ModelConfig& m = config.model;
  std::printf("run of %s: %lld layers, d_model %lld, %lld heads (%lld kv), vocab %lld, %s parameters; %s steps planned\n", m.preset.c_str(), static_cast<long long>(m.layers),
              static_cast<long long>(m.d_model), static_cast<long long>(m.heads), static_cast<long long>(m.kv_heads), static_cast<long long>(m.vocab),
              with_commas(parameter_count(m)).c_str(), with_commas(config.train.steps).c_str());
  for (const CheckpointInfo& c : checkpoints) std::printf("checkpoint after step %s: %s\n", with_commas(c.step).c_str(), c.path.c_str());
  if (checkpoints.empty()) std::printf("no checkpoint yet\n");
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
  std::printf("%s tokenizer, %zu tokens, fingerprint %s\nlongest: ", std::string(t->kind()).c_str(), t->vocab_size(), t->fingerprint().c_str());
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
    j.begin_object().key("path").string(printable_line(path)).key("format").string(file->format()).key("tokens").integer(file->size()).end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return;
  }
  std::printf("%s, %s tokens:", file->format().c_str(), with_commas(file->size()).c_str());
  for (const int32_t id : ids) std::printf(" %d", id);
  std::printf(" ...\n");
}
}  // namespace

int run_inspect(const CommandLine& line) {
  check_as(Failure::usage, line.words.size() == 1, "inspect takes one path: a run directory, checkpoint, .safetensors, tokenizer.json or token file");
  const std::string& path = line.words[0];
  check_as(Failure::usage, path_exists(path), "{} does not exist", printable_line(path));
  if (is_directory(path)) {
    if (path_exists(join_path(path, kStateFile))) {
      inspect_checkpoint(path, line.json);
    } else if (path_exists(join_path(path, "config.toml"))) {
      inspect_run(path, line.json);
    } else {
      fail_as(Failure::usage, "{} is neither a run directory (config.toml) nor a checkpoint (state.json)", printable_line(path));
    }
  } else if (path.ends_with(".safetensors")) {
    inspect_safetensors(path, line.json);
  } else if (path.ends_with(".json")) {
    inspect_tokenizer(path, line.json);
  } else {
    check_as(Failure::usage, is_token_file(path), "{} is no .safetensors, .json or token file (.npy, .bin, .u16, .u32)", printable_line(path));
    inspect_tokens(path, line.json);
  }
  return 0;
}
}  // namespace reckon
