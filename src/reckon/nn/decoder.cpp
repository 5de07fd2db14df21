#include "reckon/nn/decoder.h"

#include <cmath>
#include <numbers>

#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/dropout.h"

namespace reckon {
namespace {
Init matrix_init(const ModelConfig& c) {
  switch (c.init) {
    case InitKind::xavier: return {Init::xavier, 0, 1};
    case InitKind::kaiming: return {Init::kaiming, 0, 1};
    case InitKind::trunc_normal: return {Init::trunc_normal, c.init_std, 1};
    case InitKind::normal: break;
  }
  return {Init::normal, c.init_std, 1};
}
// Projections into the residual stream: their sum over 2 L branches keeps the variance of one. Radford et al. 2019.
Init residual_init(const ModelConfig& c) {
  Init init = matrix_init(c);
  if (c.residual_scaling) init.gain = 1 / std::sqrt(2.0 * double(std::max<int64_t>(c.layers, 1)));
  return init;
}
// Embeddings are tables, not maps: fan-in rules do not apply to them.
Init table_init(const ModelConfig& c) { return {c.init == InitKind::trunc_normal ? Init::trunc_normal : Init::normal, c.init_std, 1}; }

void give_float8(Device& device, int64_t window, Linear& layer, Float8States& states) {
  const std::string& weight = layer.weight->name;
  const std::string name = weight.substr(0, weight.rfind('.'));
  const ModuleScope module(name);
  const CategoryScope category(Category::optimizer);
  layer.float8 = &states.emplace_back(NamedFloat8State{name, Float8State::make(device, window)}).state;
}
}  // namespace

Linear::Linear(Parameters& p, const std::string& name, int64_t in, int64_t out, bool with_bias, const Init& init)
    : weight(&p.declare(name + ".weight", {out, in}, init, true)) {
  if (with_bias) bias = &p.declare(name + ".bias", {out}, {Init::zeros}, false);
}
Tensor Linear::operator()(const Tensor& x, bool x_is_kept) const {
  const Tensor b = bias ? bias->value : Tensor();
  // The first pass of a checkpointed segment only marks what its second one records: both must have the same values.
  const bool differentiated = context().grad_enabled || context().marking;
  return float8 && differentiated ? linear_fp8(x, weight->value, b, *float8, x_is_kept) : linear(x, weight->value, b);
}

Norm::Norm(Parameters& p, const std::string& name, const ModelConfig& c, int64_t width)
    : kind(c.norm), eps(c.norm_eps), weight(&p.declare(name + ".weight", {width}, {Init::ones}, false)) {
  if (kind == NormKind::layer_norm && c.norm_bias) bias = &p.declare(name + ".bias", {width}, {Init::zeros}, false);
}
namespace {
// LayerNorm and RMSNorm as element-wise operations and means; 16-bit x passes in float32, as a square may be beyond float16.
Tensor composed_norm(const Norm& norm, const Tensor& x) {
  const DType wide = statistics_dtype(x.dtype());
  const Tensor in = cast(x, wide), centered = norm.kind == NormKind::rms_norm ? in : sub(in, mean(in, {-1}, true));
  const Tensor rstd = rsqrt(affine(mean(square(centered), {-1}, true), 1, norm.eps));
  const Tensor y = mul(mul(centered, rstd), cast(norm.weight->value, wide));
  return cast(norm.bias ? add(y, cast(norm.bias->value, wide)) : y, x.dtype());
}
// The same activations as gelu() and swiglu().
Tensor composed_gelu(const Tensor& x) {
  const Tensor in = cast(x, statistics_dtype(x.dtype()));
  const Tensor inner = affine(mul(in, affine(square(in), 0.044715, 1)), std::sqrt(2 / std::numbers::pi));
  return cast(mul(affine(in, 0.5), affine(tanh(inner), 1, 1)), x.dtype());
}
Tensor composed_swiglu(const Tensor& x) {
  const int64_t F = x.shape().last() / 2;
  const Tensor in = cast(x, statistics_dtype(x.dtype())), gate = slice(in, -1, 0, F);
  return cast(mul(mul(gate, sigmoid(gate)), slice(in, -1, F, 2 * F)), x.dtype());
}
}  // namespace

SumAndNorm Norm::of_sum(Tensor x, Tensor residual) const {
  if (kind == NormKind::rms_norm) return add_rms_norm(std::move(x), std::move(residual), weight->value, eps);
  return add_layer_norm(std::move(x), std::move(residual), weight->value, bias ? bias->value : Tensor(), eps);
}
Tensor Norm::operator()(const Tensor& x) const {
  if (composed) return composed_norm(*this, x);
  return kind == NormKind::rms_norm ? rms_norm(x, weight->value, eps) : layer_norm(x, weight->value, bias ? bias->value : Tensor(), eps);
}

KvCache::KvCache(Device& device, const ModelConfig& c, int64_t B, int64_t max_tokens, DType dtype) {
  const CategoryScope scope(Category::cache);
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    k.push_back(zeros(device, {{B, c.kv_heads, max_tokens, c.head_dim}, dtype}));
    v.push_back(zeros(device, {{B, c.kv_heads, max_tokens, c.head_dim}, dtype}));
  }
  position = zeros(device, {{1}, DType::i64});
}

DecoderBlock::DecoderBlock(Parameters& p, const ModelConfig& c, int64_t index)
    : config_(c),
      index_(index),
      name_(text("blocks.{}", index)),
      norm1_(p, name_ + ".norm1", c, c.d_model),
      qkv_(p, name_ + ".attn.qkv", c.d_model, (c.heads + 2 * c.kv_heads) * c.head_dim, c.qkv_bias, matrix_init(c)),
      proj_(p, name_ + ".attn.proj", c.heads * c.head_dim, c.d_model, c.proj_bias, residual_init(c)),
      norm2_(p, name_ + ".norm2", c, c.d_model),
      up_(p, name_ + (c.mlp == MlpKind::swiglu ? ".mlp.gate_up" : ".mlp.up"), c.d_model, (c.mlp == MlpKind::swiglu ? 2 : 1) * c.d_ff, c.mlp_bias, matrix_init(c)),
      down_(p, name_ + ".mlp.down", c.d_ff, c.d_model, c.mlp_bias, residual_init(c)),
      attention_site_(dropout_site(name_ + ".attn.dropout")),
      mlp_site_(dropout_site(name_ + ".mlp.dropout")) {
  if (!c.qk_norm) return;
  q_norm_ = &p.declare(name_ + ".attn.q_norm.weight", {c.head_dim}, {Init::ones}, false);
  k_norm_ = &p.declare(name_ + ".attn.k_norm.weight", {c.head_dim}, {Init::ones}, false);
}

void DecoderBlock::use_float8(Device& device, int64_t window, Float8States& states) {
  for (Linear* layer : {&qkv_, &proj_, &up_, &down_}) give_float8(device, window, *layer, states);
}

Tensor DecoderBlock::operator()(Tensor x, const Attending& how, bool selective) const {
  const ModuleScope scope(name_);
  // Each branch ends before the sum, so that its own tensors are gone when the residual stream is written.
  Tensor branch = attend(x, how, selective), normalized;
  if (selective || norm2_.composed) {  // a sum that is kept and a norm that is made again are two operations
    x = add(std::move(x), std::move(branch));
    const ModuleScope norm("norm2");
    const Recomputed again(selective);
    normalized = norm2_(x);
  } else {
    const ModuleScope norm("norm2");
    SumAndNorm both = norm2_.of_sum(std::move(x), std::move(branch));
    x = std::move(both.sum), normalized = std::move(both.norm);
  }
  branch = feed_forward(std::move(normalized), how, selective);
  return add(std::move(x), std::move(branch));
}

Tensor DecoderBlock::packed_qkv(const Tensor& x, const Attending& how, bool selective) const {
  const ModelConfig& c = config_;
  Tensor y;
  {
    const ModuleScope scope("norm1");
    const Recomputed again(selective);
    y = norm1_(x);
  }
  const ModuleScope scope("attn");
  y = qkv_(y, selective);
  // RoPE alone is done in place: attention keeps what the product made. Behind QK-norm, which keeps its input, that is a second copy.
  const Recomputed again(selective && q_norm_);
  if (q_norm_) y = qk_norm(y, q_norm_->value, k_norm_->value, c.heads, c.kv_heads, c.head_dim, c.norm_eps);
  if (c.position == PositionKind::rope)
    y = rope(std::move(y), c.heads + c.kv_heads, c.head_dim, c.rope_theta, how.cache ? how.cache->position : Tensor(),
             how.chunk ? how.chunk->first : 0);
  return y;
}

void DecoderBlock::store_keys(const Tensor& x, ChunkedSequence& chunk) const {
  const ModuleScope scope(name_);
  const Tensor qkv = packed_qkv(x, {.chunk = &chunk}, false);
  const ModuleScope attn("attn");
  reckon::store_keys(qkv, chunk.layers[size_t(index_)], chunk.first, config_.heads, config_.kv_heads, config_.head_dim);
}

Tensor DecoderBlock::attend(const Tensor& x, const Attending& how, bool selective) const {
  const ModelConfig& c = config_;
  Tensor y = packed_qkv(x, how, selective);
  const ModuleScope scope("attn");
  if (const KvCache* cache = how.cache) {
    y = attention_with_cache(y, cache->k[size_t(index_)], cache->v[size_t(index_)], cache->position, c.heads, c.kv_heads, c.head_dim, 0, c.sliding_window);
  } else if (const ChunkedSequence* chunk = how.chunk) {
    const SequenceKeys& keys = chunk->layers[size_t(index_)];
    if (chunk->stores) reckon::store_keys(y.detached(), keys, chunk->first, c.heads, c.kv_heads, c.head_dim);
    y = attention_chunk(y, keys, chunk->first, c.heads, c.kv_heads, c.head_dim, 0, c.sliding_window, how.documents);
  } else {
    y = (how.plain ? attention_plain : attention)(y, c.heads, c.kv_heads, c.head_dim, true, 0, c.sliding_window, how.documents);
  }
  return dropped(proj_(y, !how.plain), attention_site_, how);  // any other attention keeps its output
}

Tensor DecoderBlock::dropped(Tensor branch, uint64_t site, const Attending& how) const {
  if (!draws_ || how.cache) return branch;
  return dropout(std::move(branch), config_.dropout, *draws_, site, how.chunk ? how.chunk->first * config_.d_model : 0);
}

void DecoderBlock::set_fused_kernels(bool on) { norm1_.composed = norm2_.composed = !on; }

Tensor DecoderBlock::activation(const Tensor& x) const {
  if (config_.mlp == MlpKind::swiglu) return norm2_.composed ? composed_swiglu(x) : swiglu(x);
  return norm2_.composed ? composed_gelu(x) : gelu(x);
}

Tensor DecoderBlock::feed_forward(Tensor y, const Attending& how, bool selective) const {
  const ModuleScope scope("mlp");
  y = up_(y, selective);
  {
    const Recomputed again(selective);
    y = activation(y);
  }
  return dropped(down_(y, selective), mlp_site_, how);
}

Decoder::Decoder(const ModelConfig& config) : config_(config) {
  validate(config_);
  check_as(Failure::usage, !config_.cruncher, "preset cruncher is not a decoder");
  embed_ = &parameters_.declare("embed.weight", {config_.vocab, config_.d_model}, table_init(config_), true);
  if (config_.position == PositionKind::learned)
    positions_ = &parameters_.declare("positions.weight", {config_.max_seq_len, config_.d_model}, table_init(config_), true);
  blocks_.reserve(size_t(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) blocks_.emplace_back(parameters_, config_, i);
  norm_ = &final_norm_.emplace_back(parameters_, "norm", config_, config_.d_model);
  if (!config_.tied_head) head_ = &parameters_.declare("head.weight", {config_.vocab, config_.d_model}, matrix_init(config_), true);
}

void Decoder::use_float8(Device& device, int64_t window) {
  check(float8_states_.empty(), "the model multiplies in float8 already");
  for (DecoderBlock& block : blocks_) block.use_float8(device, window, float8_states_);
}

void Decoder::set_fused_kernels(bool on) {
  for (DecoderBlock& block : blocks_) block.set_fused_kernels(on);
  norm_->composed = !on;
}

void Decoder::set_dropout(const Tensor& draws) {
  const bool on = draws.defined() && config_.dropout > 0;
  draws_ = on ? draws : Tensor();
  for (DecoderBlock& block : blocks_) block.set_dropout(on ? &draws_ : nullptr);
}

Tensor Decoder::embed(const Tensor& tokens, const Tensor& positions) const {
  const ModuleScope scope("embed");
  Tensor x = embedding(embed_->value, tokens);
  return positions_ ? add(std::move(x), embedding(positions_->value, positions)) : x;
}

// first: where the tokens begin in their sequences.
Tensor Decoder::embed_dropped(const Tensor& tokens, const Tensor& positions, int64_t first) const {
  Tensor x = embed(tokens, positions);
  if (!draws_.defined()) return x;
  const ModuleScope scope("embed");
  return dropout(std::move(x), config_.dropout, draws_, dropout_site("embed.dropout"), first * config_.d_model);
}

Tensor Decoder::normalized(const Tensor& x) const {
  const ModuleScope scope("norm");
  return (*norm_)(x);
}

Tensor Decoder::head(const Tensor& x) const {
  const ModuleScope scope("head");
  return linear(x, head_weight());
}

Tensor Decoder::run_blocks(Tensor x, const RecomputePolicy& recompute, const Attending& how) const {
  if (recompute.empty()) {
    for (const DecoderBlock& block : blocks_) x = block(std::move(x), how);
    return x;
  }
  size_t first = 0;
  for (const RecomputeRun& run : recompute) {
    const size_t end = first + size_t(run.blocks);
    check(run.blocks >= 1 && end <= blocks_.size(), "a policy of recomputation for more than the model's {} blocks", blocks_.size());
    const auto blocks = [this, first, end, how, selective = run.mode == BlockRecompute::selective](Tensor y) {
      for (size_t i = first; i < end; ++i) y = blocks_[i](std::move(y), how, selective);
      return y;
    };
    x = run.mode == BlockRecompute::full ? checkpoint([blocks](const Tensors& in) { return blocks(in[0]); }, tensors(std::move(x)))
                                         : blocks(std::move(x));
    first = end;
  }
  check(first == blocks_.size(), "a policy of recomputation for {} of the model's {} blocks", first, blocks_.size());
  return x;
}

// A document alone begins at position 0.
void Decoder::check_documents(const Documents& documents) const {
  check(documents.positions.defined() == (documents.first.defined() && positions_),
        "documents of a model with learned positions come with the position of each token; those of another do not");
}

Tensor Decoder::hidden(const Tensor& tokens, const RecomputePolicy& recompute, const Documents& documents) const {
  check(tokens.rank() == 2, "tokens must be [B, T], got {}", tokens);
  const int64_t T = tokens.shape()[1];
  check(!positions_ || T <= config_.max_seq_len, "{} tokens are longer than model.max_seq_len {}", T, config_.max_seq_len);
  check_documents(documents);
  Tensor x = embed_dropped(tokens,
                           !positions_                     ? Tensor()
                           : documents.positions.defined() ? documents.positions
                                                           : arange(tokens.device(), T, DType::i32),
                           0);
  return normalized(run_blocks(std::move(x), recompute, {.documents = documents.first, .plain = plain_attention_}));
}

Tensor Decoder::logits(const Tensor& tokens, const RecomputePolicy& recompute) const { return head(hidden(tokens, recompute)); }

Tensor Decoder::loss(const Tensor& tokens, const Tensor& targets, const RecomputePolicy& recompute, bool fused,
                     const Documents& documents) const {
  Tensor x = hidden(tokens, recompute, documents);
  if (fused) {
    const ModuleScope scope("head");
    return linear_cross_entropy(x, head_weight(), targets);
  }
  x = head(x);
  const ModuleScope scope("loss");
  return cross_entropy(std::move(x), targets);
}

Tensor Decoder::loss_and_backward(Tensor hidden, const Tensor& targets, const Tensor& seed, const CrossEntropyOptions& options) const {
  const Edge below = gradient_edge(hidden);
  check(below.wanted() || head_weight().requires_grad(), "no parameter requires a gradient");
  hidden = hidden.detached();  // the only handle, if the caller kept none: its storage takes the gradient
  LossAndGradient head;
  {
    const ModuleScope scope("head");
    head = linear_cross_entropy_step(std::move(hidden), head_weight(), targets, seed, options, below.wanted());
  }
  if (below.wanted()) backward(below, std::move(head.dx));
  return std::move(head.loss);
}

Tensor Decoder::next_logits(const Tensor& tokens, const Tensor& positions, KvCache& cache) const {
  Tensor x = embed(tokens, positions);
  for (const DecoderBlock& block : blocks_) x = block(std::move(x), {.cache = &cache});
  const int64_t T = tokens.shape()[1];
  return head(normalized(contiguous(slice(x, 1, T - 1, T))));
}

Cruncher::Cruncher(const ModelConfig& config) {
  validate(config);
  const Init init = matrix_init(config);
  for (int64_t i = 0; i < config.layers; ++i) layers_.emplace_back(parameters_, text("layers.{}", i), config.d_model, config.d_model, false, init);
  layers_.emplace_back(parameters_, "head", config.d_model, 1, false, init);
}

void Cruncher::use_float8(Device& device, int64_t window) {
  check(float8_states_.empty(), "the model multiplies in float8 already");
  for (size_t i = 0; i + 1 < layers_.size(); ++i) give_float8(device, window, layers_[i], float8_states_);
}

Tensor Cruncher::loss(const Tensor& x, const Tensor& y) const {
  Tensor z = x;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const ModuleScope scope(i + 1 < layers_.size() ? text("layers.{}", i) : "head");
    z = layers_[i](z);
  }
  const ModuleScope scope("loss");
  // float16 ends at 65504: squared errors, and the gradient of a scaled loss, lie beyond it.
  return z.dtype() == DType::f16 ? mse_loss(cast(z, DType::f32), cast(y, DType::f32)) : mse_loss(z, y);
}
}  // namespace reckon
