#include "reckon/base/error.h"
#include "reckon/plan/calibration.h"

namespace reckon {
namespace {
using Overrides = std::vector<std::string>;

struct Size {
  int layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, micro_batch, seq_len, grad_accum;
  bool recompute;
};
// Wide inside or wide outside: tensors beyond every cache at little matrix work.
constexpr Size kSizes[] = {
    {2, 64, 2, 1, 32, 256, 64, 2, 32, 1, false},      {2, 128, 4, 2, 32, 512, 512, 4, 128, 1, true},
    {2, 320, 5, 5, 64, 1280, 1024, 4, 128, 2, false}, {1, 256, 4, 2, 32, 2048, 4096, 4, 512, 1, false},
    {1, 1024, 2, 1, 32, 64, 128, 16, 256, 1, true},
};

constexpr const char* kOptimizers[] = {"sgd", "momentum", "adagrad", "adamw", "adamw8bit"};
// Less in use, so that two sizes must do.
constexpr const char* kOtherOptimizers[] = {"nesterov", "rmsprop", "adam", "lamb"};

Overrides decoder(const Size& s, bool gpt2) {
  Overrides o = {text("model.layers={}", s.layers),
                 text("model.d_model={}", s.d_model),
                 text("model.heads={}", s.heads),
                 text("model.head_dim={}", s.head_dim),
                 text("model.kv_heads={}", gpt2 ? s.heads : s.kv_heads),
                 text("model.d_ff={}", s.d_ff),
                 text("model.vocab={}", s.vocab),
                 text("model.max_seq_len={}", s.seq_len),
                 text("train.micro_batch={}", s.micro_batch),
                 text("train.seq_len={}", s.seq_len),
                 text("train.grad_accum={}", s.grad_accum)};
  if (s.recompute) o.push_back("train.recompute=full");
  if (gpt2) return o.push_back("model.dropout=0.1"), o;
  const Overrides llama = {"model.norm=rms_norm",  "model.position=rope",   "model.mlp=swiglu",
                           "model.qkv_bias=false", "model.proj_bias=false", "model.mlp_bias=false",
                           "model.qk_norm=true",   "model.tied_head=false", "train.fused_loss=false"};
  o.insert(o.end(), llama.begin(), llama.end());
  return o;
}

Overrides with(Overrides o, const char* more) {
  o.emplace_back(more);
  return o;
}
// The same small models where sequences pass in chunks, with plain attention, or without fused kernels.
void add_attention(std::vector<Overrides>& models, const Size& size) {
  for (const bool gpt2 : {true, false})
    for (const char* more : {"train.sequence_chunk=64", "train.attention=plain", "train.fused_kernels=false"})
      models.push_back(with(decoder(size, gpt2), more));
}

Overrides cruncher(int d_model, const char* optimizer) {
  return {"model.preset=cruncher", "model.layers=3", text("model.d_model={}", d_model), "train.micro_batch=16",
          text("optim.name={}", optimizer)};
}
}  // namespace

std::vector<Overrides> calibration_models() {
  std::vector<Overrides> models;
  for (const Size& size : kSizes)
    for (const bool gpt2 : {true, false}) models.push_back(decoder(size, gpt2));
  add_attention(models, kSizes[2]);
  for (const int d_model : {64, 192, 448, 1024})
    for (const char* optimizer : kOptimizers) models.push_back(cruncher(d_model, optimizer));
  for (const int d_model : {192, 1024})
    for (const char* optimizer : kOtherOptimizers) models.push_back(cruncher(d_model, optimizer));
  const size_t count = models.size();
  for (size_t i = 0; i < count; ++i) {
    models.push_back(models[i]);
    models.back().push_back("train.precision=bf16");
  }
  // float16 is there to save memory, not time: its calls are measured in few sizes.
  const size_t wide = models.size();
  for (const size_t size : {size_t(0), size_t(1), size_t(2)})
    for (const bool gpt2 : {true, false}) models.push_back(decoder(kSizes[size], gpt2));
  add_attention(models, kSizes[1]);
  for (const char* optimizer : kOptimizers) models.push_back(cruncher(448, optimizer));
  for (const char* optimizer : kOtherOptimizers) models.push_back(cruncher(448, optimizer));
  for (size_t i = wide; i < models.size(); ++i) models[i].push_back("train.precision=fp16");
  // So is float8 on a CPU; all but the linear layers of the blocks is bfloat16.
  for (const size_t size : {size_t(0), size_t(1), size_t(2)}) {
    models.push_back(decoder(kSizes[size], true));
    models.back().push_back("train.precision=fp8");
  }
  return models;
}
}  // namespace reckon
