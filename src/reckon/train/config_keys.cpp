// train/config_keys: the rows of the table. Whoever adds a key adds one row here and one field in config.h.
#include <limits>

#include "reckon/train/config_table.h"

namespace reckon {
namespace {
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxSteps = 1'000'000'000;
constexpr int64_t kMaxCount = 1 << 20;
constexpr int64_t kMaxAmaxHistory = 65536;
constexpr double kMaxLossScale = 16777216;  // 2^24: times the largest float16 far below the largest float32

constexpr std::string_view kPrecisionWords[] = {"fp32", "bf16", "fp16", "fp8"};
constexpr std::string_view kRecomputeWords[] = {"none", "selective", "full", "sqrt", "auto"};
constexpr std::string_view kDocumentWords[] = {"joined", "separate"};
constexpr std::string_view kAttentionWords[] = {"flash", "plain"};
constexpr std::string_view kOptimizerWords[] = {"sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lamb", "adamw8bit"};
constexpr std::string_view kDecayWords[] = {"auto", "decoupled", "coupled"};
constexpr std::string_view kScheduleWords[] = {"constant", "cosine", "linear", "wsd", "inverse_sqrt"};
constexpr std::string_view kScalingWords[] = {"none", "linear", "sqrt"};
constexpr std::string_view kOrderWords[] = {"random", "sequential"};
constexpr std::string_view kDeviceWords[] = {"cpu"}, kLaterDevices[] = {"cuda"};

using Field = void* (*)(Config&);
using Words = std::span<const std::string_view>;

constexpr ConfigKey plain(const char* name, KeyType type, Field field, const char* help) {
  return {.name = name, .type = type, .field = field, .help = help};
}
constexpr ConfigKey boolean(const char* name, Field field, const char* help) { return plain(name, KeyType::boolean, field, help); }
constexpr ConfigKey integer(const char* name, Field field, int64_t least, int64_t most, const char* help, KeyType type = KeyType::integer) {
  return {.name = name, .type = type, .field = field, .help = help, .least = least, .most = most};
}
constexpr ConfigKey number(const char* name, Field field, double low, double high, const char* help) {
  return {.name = name, .type = KeyType::number, .field = field, .help = help, .low = low, .high = high};
}
constexpr ConfigKey below(const char* name, Field field, double low, double high, const char* help) {
  return {.name = name, .type = KeyType::number, .field = field, .help = help, .low = low, .high = high, .below_high = true};
}
constexpr ConfigKey word(const char* name, Field field, Words words, Words later, const char* help, KeyType type = KeyType::word) {
  return {.name = name, .type = type, .field = field, .help = help, .words = words, .later = later};
}

// The address of a field, without a word about its type: the row says that.
#define FIELD(member) [](Config& c) -> void* { return &c.member; }

}  // namespace

std::span<const ConfigKey> config_table() {
  static const ConfigKey keys[] = {
      word("device", FIELD(device), kDeviceWords, kLaterDevices, "Where tensors live and kernels run.", KeyType::choice),
      integer("seed", FIELD(seed), 0, kAny,
              "Key of every random draw: initialization, sample order, sampling. The same seed gives the same bytes."),

      plain("model.preset", KeyType::preset, FIELD(model.preset),
            "A model by name; applied before every other model key, wherever it is named."),
      integer("model.layers", FIELD(model.layers), 1, kMaxLayers, "Transformer blocks; for the cruncher, its square layers."),
      integer("model.d_model", FIELD(model.d_model), 1, kMaxWidth, "Width of the residual stream."),
      integer("model.heads", FIELD(model.heads), 1, kMaxHeads, "Query heads."),
      integer(
          "model.kv_heads", FIELD(model.kv_heads), 1, kMaxHeads,
          "Key-value heads; must divide model.heads. If only model.heads is changed: follows it where the preset has equally many of both, "
          "else keeps the preset's number."),
      integer(
          "model.head_dim", FIELD(model.head_dim), 1, kMaxHeadDim,
          "Width of one head; even with RoPE. If only model.d_model or model.heads is changed: model.d_model / model.heads, which must be "
          "whole."),
      integer("model.d_ff", FIELD(model.d_ff), 1, kMaxInnerWidth,
              "Inner width of the MLP. If only model.d_model is changed: in the preset's ratio to it; where that is not a whole ratio "
              "(SwiGLU), "
              "rounded up to a multiple of 32."),
      integer("model.vocab", FIELD(model.vocab), 1, kMaxVocab, "Rows of the embedding; at least the tokenizer's size."),
      integer("model.max_seq_len", FIELD(model.max_seq_len), 1, kMaxSeqLen,
              "Longest sequence of generation (the KV cache); with learned positions also the rows of their table, so of training."),
      word("model.norm", FIELD(model.norm), words_of(NormKind()), {}, "Normalization layer."),
      number("model.norm_eps", FIELD(model.norm_eps), kMinNormEps, kMaxNormEps, "Added to the variance or mean square before the root."),
      word("model.position", FIELD(model.position), words_of(PositionKind()), {},
           "A learned table, or rotary embedding of queries and keys."),
      number("model.rope_theta", FIELD(model.rope_theta), kMinRopeTheta, kMaxRopeTheta, "Base of the rotary wavelengths."),
      word("model.mlp", FIELD(model.mlp), words_of(MlpKind()), {}, "Two matrices around GELU, or three with the SwiGLU gate."),
      boolean("model.qkv_bias", FIELD(model.qkv_bias), "Bias on the query, key and value projections."),
      boolean("model.proj_bias", FIELD(model.proj_bias), "Bias on the attention's output projection."),
      boolean("model.mlp_bias", FIELD(model.mlp_bias), "Bias on the MLP's matrices."),
      boolean("model.norm_bias", FIELD(model.norm_bias), "Bias of layer_norm; rms_norm has none."),
      boolean("model.qk_norm", FIELD(model.qk_norm), "RMSNorm over each head's queries and keys, before RoPE (Qwen3)."),
      integer("model.sliding_window", FIELD(model.sliding_window), 0, kMaxSeqLen,
              "Tokens that attention sees, the own included (Mistral); 0: all before it."),
      boolean("model.tied_head", FIELD(model.tied_head), "The output head is the embedding matrix."),
      word("model.init", FIELD(model.init), words_of(InitKind()), {}, "Distribution of the initial weights."),
      number("model.init_std", FIELD(model.init_std), 0, kMaxInitStd, "Standard deviation for normal and trunc_normal (cut at 3 of them)."),
      boolean("model.residual_scaling", FIELD(model.residual_scaling),
              "Initial projections into the residual stream are divided by sqrt(2 model.layers), as in GPT-2."),
      below("model.dropout", FIELD(model.dropout), 0, 1,
            "Share that training drops of the embedding and of what attention and MLP add to the residual stream, by masks that are drawn again "
            "in backward and stored nowhere; attention's probabilities are left alone. None in evaluation and generation."),

      integer("train.micro_batch", FIELD(train.micro_batch), 1, kMaxCount, "Sequences of a micro-batch."),
      integer("train.seq_len", FIELD(train.seq_len), 1, kMaxSeqLen,
              "Tokens of a sequence; with learned positions at most model.max_seq_len."),
      integer("train.grad_accum", FIELD(train.grad_accum), 1, kMaxCount, "Micro-batches of one optimizer step."),
      integer("train.steps", FIELD(train.steps), 1, kMaxSteps, "Optimizer steps of the whole run; the schedule ends here."),
      integer("train.stop_after", FIELD(train.stop_after), 0, kMaxSteps,
              "Save and stop after this step, as an interruption would; 0: never."),
      word("train.precision", FIELD(train.precision), kPrecisionWords, {},
           "Number format of parameters and activations; bf16 and fp16 keep exact float32 master weights, 2 and 4 bytes a parameter beside "
           "the 16-bit ones. On a CPU fp16 saves memory, not time: its products are computed in float32. fp8 is bf16 whose blocks' linear "
           "layers multiply 8-bit floats: emulated on a CPU, by bf16 products of the same values, so that it saves memory and costs time."),
      boolean("train.master_weights", FIELD(train.master_weights),
              "bf16, fp8: keep the 16 bits that make each weight an exact float32. false: 2 bytes a parameter less, and every update is "
              "rounded "
              "to bfloat16 stochastically, by draws that depend on seed, step and weight alone."),
      {.name = "train.loss_scale",
       .type = KeyType::number,
       .field = FIELD(train.loss_scale),
       .help =
           "fp16: factor on the loss that keeps small gradients above the smallest float16. dynamic: halves, and the step is skipped, when "
           "gradients overflow, and doubles after train.loss_scale_interval steps without; skipped steps count.",
       .low = 1,
       .high = kMaxLossScale,
       .zero = "dynamic"},
      number("train.loss_scale_start", FIELD(train.loss_scale_start), 1, kMaxLossScale,
             "fp16 with a dynamic loss scale: its value in the first step."),
      integer("train.loss_scale_interval", FIELD(train.loss_scale_interval), 1, kMaxSteps,
              "fp16 with a dynamic loss scale: steps without overflow after which it doubles."),
      integer("train.fp8_amax_history", FIELD(train.fp8_amax_history), 1, kMaxAmaxHistory,
              "fp8: the scale of each tensor keeps the largest magnitude of so many steps finite."),
      word("train.recompute", FIELD(train.recompute), kRecomputeWords, {},
           "What backward computes again instead of keeping. selective: what norms, activations and QK-norm make. full: every block, from "
           "its input. sqrt: segments of about sqrt(model.layers) blocks, which keep less between the passes and more while one works. "
           "auto: "
           "for each block none, selective or full, so that the run fits memory.budget in the least time."),
      {.name = "train.recompute_blocks",
       .type = KeyType::text,
       .field = FIELD(train.recompute_blocks),
       .help = "The same block by block, from the first on: none, selective or full, each with a number of blocks, as in "
               "\"full:3,none:9\"; segment:N runs N blocks again as one. Empty: train.recompute for all; auto puts here what it chose.",
       .may_be_empty = true},
      word("train.attention", FIELD(train.attention), kAttentionWords, {},
           "flash: by tiles, with memory linear in train.seq_len. plain: by products with the scores of all pairs of tokens in memory, and "
           "a "
           "mask; the same numbers but for rounding, to show what flash saves."),
      integer(
          "train.sequence_chunk", FIELD(train.sequence_chunk), 0, kMaxSeqLen,
          "Tokens of each sequence that pass at a time, for sequences whose activations do not fit; 0: whole sequences. Keys, values and "
          "their gradients are held for whole sequences, all else for one chunk; all chunks but the last pass forward twice. With "
          "train.recompute=full blocks take turns, and the least is held: the inputs of all blocks, and keys and values of one."),
      boolean("train.fused_kernels", FIELD(train.fused_kernels),
              "Norms, activations and residual sums in one operation each. false: composed of element-wise operations with every result in "
              "memory, the same numbers but for rounding, to show what fusion saves."),
      boolean("train.fused_loss", FIELD(train.fused_loss),
              "Head, loss and the head's gradients in one operation, which makes the logits some hundred tokens at a time."),

      word("optim.name", FIELD(optim.name), kOptimizerWords, {},
           "Optimizer. nesterov: momentum that looks ahead. rmsprop: see optim.alpha, centered and rmsprop_momentum. adam: adamw whose "
           "weight decay is a term of the gradient. lamb: adamw's step of each parameter tensor, scaled by the ratio of the tensor's norm "
           "to "
           "the step's. adamw8bit: adamw with moments of 8 bits, in blocks of 256 with a float32 scale each, for parameters of 4096 "
           "elements and more: 2.03 instead of 8 bytes each."),
      number("optim.lr", FIELD(optim.lr), 0, 1e3, "Learning rate after the warm-up, before optim.lr_scaling."),
      below("optim.beta1", FIELD(optim.beta1), 0, 1, "adam, adamw, lamb, adamw8bit: decay of the first moment."),
      below("optim.beta2", FIELD(optim.beta2), 0, 1, "adam, adamw, lamb, adamw8bit: decay of the second moment."),
      number("optim.eps", FIELD(optim.eps), 1e-30, 1,
             "adam, adamw, lamb, adamw8bit, adagrad, rmsprop: added to the root of the second moment."),
      number("optim.weight_decay", FIELD(optim.weight_decay), 0, 100, "Decay of matrices and embeddings; never of norms and biases."),
      word(
          "optim.weight_decay_kind", FIELD(optim.weight_decay_kind), kDecayWords, {},
          "decoupled: weights shrink by lr * weight_decay a step. coupled: weight_decay times the weight is added to the gradient (L2), as "
          "PyTorch does for all but adamw. auto: coupled for adam, a term of the scaled step for lamb, decoupled for the others. adam is "
          "never decoupled (that is adamw), adamw, adamw8bit and lamb are never coupled."),
      below("optim.momentum", FIELD(optim.momentum), 0, 1, "momentum, nesterov: share of the last step's velocity that is kept."),
      below("optim.alpha", FIELD(optim.alpha), 0, 1, "rmsprop: decay of the mean square of the gradient."),
      boolean("optim.centered", FIELD(optim.centered),
              "rmsprop: divide by the root of the gradient's variance instead of its mean square; 4 bytes a parameter more."),
      below("optim.rmsprop_momentum", FIELD(optim.rmsprop_momentum), 0, 1,
            "rmsprop: share of the last step's velocity that is kept; 0: no velocity, and 4 bytes a parameter less."),
      number("optim.phi_low", FIELD(optim.phi_low), 0, 1e9,
             "lamb: least norm of a parameter tensor in its trust ratio. Where a norm is 0 the ratio is 1."),
      number("optim.phi_high", FIELD(optim.phi_high), 0, 1e9, "lamb: largest norm of a parameter tensor in its trust ratio."),
      number("optim.clip_norm", FIELD(optim.clip_norm), 0, 1e9, "Largest global norm of the gradient; 0: no clipping."),
      word("optim.schedule", FIELD(optim.schedule), kScheduleWords, {},
           "Course of the learning rate after the warm-up. cosine, linear: down to optim.min_lr_ratio at the end of the run. wsd: "
           "constant, and "
           "linear in the last optim.decay_fraction of the steps. inverse_sqrt: with the root of the step."),
      integer("optim.warmup_steps", FIELD(optim.warmup_steps), 0, kMaxSteps,
              "Steps of the linear warm-up. May exceed train.steps: the run then ends within the warm-up."),
      number("optim.min_lr_ratio", FIELD(optim.min_lr_ratio), 0, 1,
             "cosine, linear, wsd: final learning rate as a share of the largest; inverse_sqrt: the least."),
      number("optim.decay_fraction", FIELD(optim.decay_fraction), 0, 1, "wsd: share of train.steps in which the learning rate falls."),
      word(
          "optim.lr_scaling", FIELD(optim.lr_scaling), kScalingWords, {},
          "How optim.lr follows the tokens of a step, as a multiple of optim.base_batch_tokens. linear: by the multiple, for sgd. sqrt: by "
          "its root, for adam and its kin."),
      integer("optim.base_batch_tokens", FIELD(optim.base_batch_tokens), 1, kAny,
              "Tokens of the step that optim.lr was found with, for optim.lr_scaling; samples for the cruncher."),
      {.name = "optim.groups",
       .type = KeyType::text,
       .field = FIELD(optim.groups),
       .help = "Parameters by name with factors on learning rate and weight decay, as in \"embed.* lr=0.1; *.bias lr=2 weight_decay=0\"; * "
               "stands for any characters, the first pattern that matches counts. Norms and biases have no decay to multiply.",
       .may_be_empty = true},

      {.name = "data.path",
       .type = KeyType::text,
       .field = FIELD(data.path),
       .help = "A text file or a token file; empty: synthetic tokens.",
       .may_be_empty = true},
      plain("data.tokenizer", KeyType::tokenizer, FIELD(data.tokenizer),
            "bytes; bpe:N for a byte-pair tokenizer of N tokens trained on the text; or a tokenizer's path."),
      number("data.validation_fraction", FIELD(data.validation_fraction), 0, 0.9, "Share of the data held out, taken from its tail."),
      word("data.order", FIELD(data.order), kOrderWords, {}, "Order of the training sequences."),
      word("data.documents", FIELD(data.documents), kDocumentWords, {},
           "joined: a token sees all before it in its sequence. separate: only those of its own document, and learned positions begin anew "
           "with each; a document ends with data.separator."),
      integer("data.separator", FIELD(data.separator), -1, kMaxVocab - 1,
              "Token that is the last of each document, with data.documents=separate; -1: the tokenizer's end-of-text token."),

      integer("eval.every", FIELD(eval.every), 0, kMaxSteps, "Steps between evaluations; 0: at the end only."),
      integer("eval.batches", FIELD(eval.batches), 1, kMaxCount, "Micro-batches of one evaluation."),

      integer("checkpoint.every", FIELD(checkpoint.every), 0, kMaxSteps,
              "Steps between checkpoints; 0: at the end only. The last step always saves."),
      integer("checkpoint.keep", FIELD(checkpoint.keep), 0, kMaxCount, "Newest checkpoints that are kept; 0: all."),

      integer("memory.budget", FIELD(memory.budget_bytes), 0, kAny,
              "Most memory the run's tensors may take, in bytes or as \"4GiB\" (2^30) or \"4GB\" (10^9); 0: what is available.",
              KeyType::bytes),

      plain("run.dir", KeyType::text, FIELD(run_dir), "Folder of the run: configuration, metrics, report, checkpoints."),
  };
  return keys;
}
#undef FIELD

std::span<const std::string_view> words_of(Precision) { return kPrecisionWords; }
std::span<const std::string_view> words_of(Recompute) { return kRecomputeWords; }
std::span<const std::string_view> words_of(DocumentUse) { return kDocumentWords; }
std::span<const std::string_view> words_of(AttentionKind) { return kAttentionWords; }
std::span<const std::string_view> words_of(OptimizerKind) { return kOptimizerWords; }
std::span<const std::string_view> words_of(DecayKind) { return kDecayWords; }
std::span<const std::string_view> words_of(ScheduleKind) { return kScheduleWords; }
std::span<const std::string_view> words_of(LrScaling) { return kScalingWords; }
std::span<const std::string_view> words_of(SampleOrder) { return kOrderWords; }
DType dtype_of(Precision value) { return value == Precision::fp32 ? DType::f32 : value == Precision::fp16 ? DType::f16 : DType::bf16; }
std::string to_string(Precision value) { return std::string(kPrecisionWords[size_t(value)]); }
std::string to_string(Recompute value) { return std::string(kRecomputeWords[size_t(value)]); }
std::string to_string(DocumentUse value) { return std::string(kDocumentWords[size_t(value)]); }
std::string to_string(AttentionKind value) { return std::string(kAttentionWords[size_t(value)]); }
std::string to_string(OptimizerKind value) { return std::string(kOptimizerWords[size_t(value)]); }
std::string to_string(DecayKind value) { return std::string(kDecayWords[size_t(value)]); }
std::string to_string(LrScaling value) { return std::string(kScalingWords[size_t(value)]); }
std::string to_string(ScheduleKind value) { return std::string(kScheduleWords[size_t(value)]); }
std::string to_string(SampleOrder value) { return std::string(kOrderWords[size_t(value)]); }
}  // namespace reckon
