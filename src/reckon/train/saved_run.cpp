#include "reckon/train/saved_run.h"

#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/train/config_table.h"
#include "reckon/train/report.h"

namespace reckon {

std::string continuation_fingerprint(const Config& config) {
  Config shared = config;
  shared.train.steps = shared.train.stop_after = 0;
  shared.eval = {};
  shared.checkpoint = {};
  shared.memory = {};
  if (!is_chunked(shared.train)) {  // whatever is computed again has the same bits; in chunks it may be added in another order
    shared.train.recompute = Recompute::none;
    shared.train.recompute_blocks.clear();
  }
  shared.run_dir = "";
  shared.data.path = "";  // a file may move; the checkpoint has a fingerprint of its tokens
  std::string text = to_toml(shared);
  // The learning rate of a step may follow the number of all steps.
  const ScheduleKind schedule = config.optim.schedule;
  if (schedule != ScheduleKind::constant && schedule != ScheduleKind::inverse_sqrt) text += reckon::text("steps {}\n", config.train.steps);
  return hash_of(text);
}

namespace {
// What the fingerprint covers and the configuration saved with the run has otherwise: "train.seq_len was 16, is 32"; "" if that is gone.
std::string changed_keys(const Config& now) {
  Config before;
  try {
    before = load_config(join_path(now.run_dir, "config.toml"), {});
  } catch (const Error&) {
    return "";
  }
  const std::string saved = continuation_fingerprint(before);
  std::string list;
  for (const ConfigKey& key : config_table()) {
    if (value_text(before, key) == value_text(now, key)) continue;
    // A key counts if it alone changes the fingerprint.
    Config changed = before;
    copy_value(changed, now, key);
    if (continuation_fingerprint(changed) != saved)
      list += text("{}{} was {}, is {}", list.empty() ? "" : "; ", key.name, value_text(before, key), value_text(now, key));
  }
  return list;
}

constexpr std::string_view kDataKey = "data_fingerprint";

// One tensor of a checkpoint: a parameter's part of a flat bucket.
struct Entry {
  std::string name;
  Tensor tensor;
};
std::vector<Entry> model_entries(Parameters& parameters) {
  std::vector<Entry> entries;
  for (const Parameter& p : parameters.all()) entries.push_back({p.name, p.value});
  return entries;
}
std::vector<Entry> optimizer_entries(TrainStep& step) {
  std::vector<Entry> entries;
  if (step.config().train.precision == Precision::fp16) entries.push_back({"loss_scale", step.optimizer().scale_state()});
  for (const NamedFloat8State& layer : step.float8_states()) {  // amax is 0 between steps
    entries.push_back({"fp8_scales." + layer.name, layer.state.scales});
    entries.push_back({"fp8_amax_history." + layer.name, layer.state.history});
  }
  for (auto& [name, tensor] : step.optimizer().planes()) entries.push_back({name, tensor});
  return entries;
}
void copy_out(void* context, int64_t offset, std::span<std::byte> out) {
  const Tensor& tensor = *static_cast<const Tensor*>(context);
  tensor.device().copy_out(out.data(), static_cast<const std::byte*>(tensor.raw()) + offset, out.size());
}
void add_entries(CheckpointWriter& writer, std::string_view file, std::vector<Entry>& entries) {
  std::vector<TensorToWrite> list;
  for (Entry& e : entries) list.push_back({e.name, e.tensor.spec(), nullptr, copy_out, &e.tensor});
  writer.add_safetensors(file, list);
}
void copy_in(void* context, int64_t offset, std::span<const std::byte> bytes) {
  const Tensor& tensor = *static_cast<const Tensor*>(context);
  tensor.device().copy_in(static_cast<std::byte*>(tensor.raw()) + offset, bytes.data(), bytes.size());
}
void read_entries(const SafetensorsFile& file, std::vector<Entry>& entries) {
  check_as(Failure::corrupt, file.entries().size() == entries.size(), "{}: holds {}, the model and optimizer have {}", file.path(), counted(int64_t(file.entries().size()), "tensor"),
           entries.size());
  for (Entry& e : entries) {
    e.tensor.storage().bump_version();
    file.read(e.name, e.tensor.spec(), copy_in, &e.tensor);
  }
}
}  // namespace

std::string save_checkpoint(TrainStep& step, int64_t steps_done, const std::string& data) {
  SegmentScope segment(step.device().allocator(), "save");
  const PhaseScope phase(step.device(), Phase::save);
  const Config& config = step.config();
  if (step.device().is_meta()) {
    segment.end();
    return "";
  }
  CheckpointWriter writer(config.run_dir, steps_done);
  std::vector<Entry> model = model_entries(step.parameters()), optimizer = optimizer_entries(step);
  add_entries(writer, kModelFile, model);
  add_entries(writer, kOptimizerFile, optimizer);
  CheckpointState state;
  state.step = steps_done;
  state.seed = config.seed;
  state.data_position = steps_done * config.train.grad_accum * config.train.micro_batch;
  state.config_fingerprint = continuation_fingerprint(config);
  if (!data.empty()) state.extra.push_back({std::string(kDataKey), data});
  std::string path = writer.commit(state, config.checkpoint.keep);
  segment.end();
  return path;
}

int64_t load_checkpoint(TrainStep& step, const CheckpointReader& reader, const std::string& data) {
  const PhaseScope phase(step.device(), Phase::init);
  if (reader.state().config_fingerprint != continuation_fingerprint(step.config())) {
    const std::string changes = changed_keys(step.config()), toml = join_path(step.config().run_dir, "config.toml");
    check_as(Failure::usage, !changes.empty() || !path_exists(toml),
             "{} was made by another version of this program: the keys of a configuration changed since, none that {} has differs; go on "
             "with that "
             "version, or start a new run",
             reader.path(), toml);
    fail_as(Failure::usage,
            "{} was made with another configuration{}{}: leave that as it was, or start a new run (eval.*, checkpoint.*, memory.*, "
            "train.recompute*, paths and, with optim.schedule=constant or inverse_sqrt, train.steps may change)",
            reader.path(), changes.empty() ? "" : ": ", changes);
  }
  for (const MetadataItem& item : reader.state().extra)
    check_as(Failure::usage, item.key != kDataKey || item.value == data, "{} was trained on other tokens than data.path={} holds now; restore the file, or start a new run",
             reader.path(), step.config().data.path);
  std::vector<Entry> model = model_entries(step.parameters()), optimizer = optimizer_entries(step);
  read_entries(reader.open_safetensors(kModelFile), model);
  read_entries(reader.open_safetensors(kOptimizerFile), optimizer);
  return reader.state().step;
}

LoadedModel load_model(const std::string& run_dir, std::span<const std::string> overrides, Device& device) {
  check_as(Failure::usage, is_directory(run_dir), "run.dir {} is not a directory; train first, or name another with run.dir=DIR", run_dir);
  const std::string latest = latest_checkpoint(run_dir);
  check_as(Failure::usage, !latest.empty(), "run.dir {} holds no checkpoint; train first, or name another with run.dir=DIR", run_dir);
  LoadedModel loaded;
  const Config saved_config = load_config(join_path(run_dir, "config.toml"), {});
  loaded.config = load_config(join_path(run_dir, "config.toml"), overrides);
  check_as(Failure::usage, loaded.config.model == saved_config.model && loaded.config.train.precision == saved_config.train.precision,
           "a trained model cannot be changed: leave model.* and train.precision out");
  loaded.config.run_dir = run_dir;
  device.allocator().set_budget(loaded.config.memory.budget_bytes > 0 ? loaded.config.memory.budget_bytes : available_memory_bytes());
  const CheckpointReader reader(latest, kModelFile);  // who reads a model needs no optimizer
  loaded.checkpoint = latest;
  loaded.steps = reader.state().step;
  check_as(Failure::usage, !loaded.config.model.cruncher, "preset cruncher has no text to evaluate or generate");
  loaded.decoder = std::make_unique<Decoder>(loaded.config.model);
  loaded.decoder->set_fused_kernels(loaded.config.train.fused_kernels);
  loaded.decoder->set_plain_attention(loaded.config.train.attention == AttentionKind::plain);
  const PhaseScope phase(device, Phase::init);
  loaded.decoder->parameters().materialize(device, {dtype_of(loaded.config.train.precision), false}, 0);
  std::vector<Entry> model = model_entries(loaded.decoder->parameters());
  read_entries(reader.open_safetensors(kModelFile), model);
  const std::string saved = join_path(run_dir, kRunTokenizer);
  check_as(Failure::corrupt, path_exists(saved) || saved_config.data.tokenizer == "bytes", "{} is missing: the run was trained with data.tokenizer={}", saved,
           saved_config.data.tokenizer);
  loaded.tokenizer = path_exists(saved) ? Tokenizer::load(saved) : Tokenizer::bytes();
  return loaded;
}
}  // namespace reckon
