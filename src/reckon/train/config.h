// train/config: every key of a run, its default, its limits and its help text. One table serves parsing, checking, printing and help.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/nn/model_config.h"
#include "reckon/tensor/dtype.h"

namespace reckon {

enum class Precision : uint8_t { fp32, bf16, fp16, fp8 };
enum class Recompute : uint8_t { none, selective, full, sqrt, automatic };
enum class DocumentUse : uint8_t { joined, separate };
enum class AttentionKind : uint8_t { flash, plain };
enum class OptimizerKind : uint8_t { sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lamb, adamw8bit };
enum class DecayKind : uint8_t { automatic, decoupled, coupled };
enum class ScheduleKind : uint8_t { constant, cosine, linear, wsd, inverse_sqrt };
enum class LrScaling : uint8_t { none, linear, sqrt };
enum class SampleOrder : uint8_t { random, sequential };

/// The words of an enumeration in the order of its values, as configurations spell them.
std::span<const std::string_view> words_of(Precision);
std::span<const std::string_view> words_of(Recompute);
std::span<const std::string_view> words_of(DocumentUse);
std::span<const std::string_view> words_of(AttentionKind);
std::span<const std::string_view> words_of(OptimizerKind);
std::span<const std::string_view> words_of(DecayKind);
std::span<const std::string_view> words_of(ScheduleKind);
std::span<const std::string_view> words_of(LrScaling);
std::span<const std::string_view> words_of(SampleOrder);
/// The configuration's word for the value: "bf16".
std::string to_string(Precision value);
std::string to_string(Recompute value);
std::string to_string(DocumentUse value);
std::string to_string(AttentionKind value);
std::string to_string(OptimizerKind value);
std::string to_string(DecayKind value);
std::string to_string(ScheduleKind value);
std::string to_string(LrScaling value);
std::string to_string(SampleOrder value);
/// What the model computes with: parameters and activations. Those of fp8 are bf16, but what its linear layers multiply.
DType dtype_of(Precision precision);

struct TrainConfig {
  int64_t micro_batch = 8;  // sequences per micro-batch
  int64_t seq_len = 128;    // tokens per sequence
  int64_t grad_accum = 1;   // micro-batches per optimizer step
  int64_t steps = 200;      // optimizer steps of the whole run
  int64_t stop_after = 0;   // save and stop after this step, exit 0 (0: never)
  Precision precision = Precision::fp32;
  bool master_weights = true;          // bf16, fp8: false rounds weights stochastically and keeps nothing below their 16 bits
  double loss_scale = 0;               // fp16: a fixed factor on the loss; 0: dynamic
  double loss_scale_start = 65536;     // fp16, dynamic: of the first step
  int64_t loss_scale_interval = 2000;  // fp16, dynamic: steps without overflow before it doubles
  int64_t fp8_amax_history = 16;       // fp8: steps whose largest magnitudes a scale follows
  Recompute recompute = Recompute::none;
  std::string recompute_blocks;  // a policy block by block, "full:3,none:9" (train/recompute.h); empty: recompute for all of them
  AttentionKind attention = AttentionKind::flash;
  int64_t sequence_chunk = 0;  // tokens of a sequence that pass at a time; 0, or no fewer than there are: all of them
  bool fused_kernels = true;   // norms, activations and residual sums in one operation each
  bool fused_loss = true;      // head and loss in one operation, without the logits
  bool operator==(const TrainConfig&) const = default;
};

/// True if sequences pass in more than one chunk.
inline bool is_chunked(const TrainConfig& train) { return train.sequence_chunk > 0 && train.sequence_chunk < train.seq_len; }

struct OptimConfig {
  OptimizerKind name = OptimizerKind::adamw;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // matrices and embeddings only: never norms and biases
  DecayKind weight_decay_kind = DecayKind::automatic;
  double momentum = 0.9;        // momentum, nesterov
  double alpha = 0.99;          // rmsprop: decay of the mean square
  bool centered = false;        // rmsprop: variance in place of the mean square
  double rmsprop_momentum = 0;  // rmsprop; 0: no velocity
  double phi_low = 0;           // lamb: bounds of a parameter's norm in its trust ratio
  double phi_high = 10;
  double clip_norm = 1.0;  // global gradient norm; 0: no clipping
  ScheduleKind schedule = ScheduleKind::cosine;
  int64_t warmup_steps = 20;
  double min_lr_ratio = 0.1;    // final learning rate / lr
  double decay_fraction = 0.1;  // wsd: share of all steps
  LrScaling lr_scaling = LrScaling::none;
  int64_t base_batch_tokens = 524288;  // tokens of a step that lr was found with, for lr_scaling
  std::string groups;                  // "embed.* lr=0.1; *.bias lr=2 weight_decay=0" (train/parameter_groups.h)
  bool operator==(const OptimConfig&) const = default;
};

struct DataConfig {
  std::string path;                   // a text file or a token file; empty: synthetic tokens
  std::string tokenizer = "bytes";    // bytes | bpe:N | a path
  double validation_fraction = 0.05;  // the tail of the data
  SampleOrder order = SampleOrder::random;
  DocumentUse documents = DocumentUse::joined;
  int64_t separator = -1;  // token that ends a document; -1: the tokenizer's end-of-text token
  bool operator==(const DataConfig&) const = default;
};

struct EvalConfig {
  int64_t every = 0;     // steps between evaluations (0: at the end only)
  int64_t batches = 20;  // micro-batches per evaluation
  bool operator==(const EvalConfig&) const = default;
};

struct CheckpointConfig {
  int64_t every = 0;  // steps between checkpoints (0: at the end only)
  int64_t keep = 2;   // newest checkpoints kept (0: all)
  bool operator==(const CheckpointConfig&) const = default;
};

struct MemoryConfig {
  int64_t budget_bytes = 0;  // 0: available memory
  bool operator==(const MemoryConfig&) const = default;
};

/// Everything a run is determined by.
struct Config {
  ModelConfig model;
  TrainConfig train;
  OptimConfig optim;
  DataConfig data;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  MemoryConfig memory;
  std::string device = "cpu";
  std::string run_dir = "runs/latest";  // key run.dir
  int64_t seed = 1;
  bool operator==(const Config&) const = default;
};

/// Builds a configuration: preset defaults, then the TOML file (if path is not empty), then `key.path=value` overrides in order.
/// model.preset is applied first, wherever it is named; sizes of the model that are not named anywhere follow model.d_model and model.heads
/// (the rule is in the help of model.head_dim, kv_heads and d_ff). Throws Error (usage) with file:line for unknown keys ("did you mean"),
/// wrong types, values out of range and impossible combinations; every mistake is one line.
Config load_config(const std::string& toml_path, std::span<const std::string> overrides);
/// The same from TOML already in memory; `source` names it in messages.
Config parse_config(std::string_view toml, std::string_view source, std::span<const std::string> overrides);
/// Throws Error (usage) if a value is out of its range or the combination is impossible. load_config has done this.
void validate(const Config& config);
/// The same of the optimizer alone: its numbers are in range, its weight decay is one that it has, groups are written as groups are.
void validate(const OptimConfig& config);
/// The whole configuration as TOML, every key resolved; load_config of it gives the same configuration.
std::string to_toml(const Config& config);
/// One row a key, in the order of to_toml: name, type with limits, default as TOML, help; for --help and the documentation.
struct KeyHelp {
  std::string key, type, default_value, help;
};
std::vector<KeyHelp> config_keys();
/// The keys that somebody may mean who says `word`: of that full name, else of that last component ("lr", "train.lr"), else the one that
/// other trainers call so ("batch-size"). Dashes count as underscores. Empty if there is none.
std::vector<std::string> keys_named(std::string_view word);
/// The one key whose name, last component or other name is spelt nearly so; "" if none is, or several are.
std::string nearest_key(std::string_view word);
}  // namespace reckon
