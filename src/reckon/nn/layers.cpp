#include "reckon/nn/layers.h"

#include "reckon/ops/dropout.h"

namespace reckon::nn {
namespace {
Tensor value_of(const Parameter* p) { return p ? p->value : Tensor(); }
}  // namespace

Linear::Linear(Module& parent, std::string_view name, int64_t in, int64_t out, bool with_bias, Init init)
    : Layer(parent, name), weight(parameter("weight", {out, in}, init, true)) {
  if (with_bias) bias = &parameter("bias", {out}, {Init::zeros}, false);
}
Tensor Linear::forward(Tensor x) const { return linear(x, weight.value, value_of(bias)); }

namespace {
Conv2dOptions checked(const Conv2dOptions& o, int64_t in, int64_t out, const KernelSize& kernel, const std::string& path) {
  check(in >= 1 && out >= 1 && kernel.height >= 1 && kernel.width >= 1, "{}: {} filters of {} x {} over {} channels have no weights", path,
        out, kernel.height, kernel.width, in);
  check(o.groups >= 1 && in % o.groups == 0 && out % o.groups == 0, "{}: {} groups do not divide both {} channels and {} filters", path,
        o.groups, in, out);
  return o;
}
}  // namespace

Conv2d::Conv2d(Module& parent, std::string_view name, int64_t in, int64_t out, KernelSize kernel, const Conv2dOptions& how, bool with_bias,
               Init init)
    : Layer(parent, name),
      options(checked(how, in, out, kernel, path())),
      weight(parameter("weight", {out, in / options.groups, kernel.height, kernel.width}, init, true)) {
  if (with_bias) bias = &parameter("bias", {out}, {Init::zeros}, false);
}
Tensor Conv2d::forward(Tensor x) const { return conv2d(x, weight.value, value_of(bias), options); }

Tensor TiedLinear::forward(Tensor x) const { return linear(x, weight.value); }

Embedding::Embedding(Module& parent, std::string_view name, int64_t rows, int64_t width, Init init)
    : Layer(parent, name), weight(parameter("weight", {rows, width}, init, true)) {}
Tensor Embedding::forward(Tensor ids) const { return embedding(weight.value, ids); }

LayerNorm::LayerNorm(Module& parent, std::string_view name, int64_t width, bool with_bias, double epsilon)
    : Layer(parent, name), weight(parameter("weight", {width}, {Init::ones}, false)), eps(epsilon) {
  if (with_bias) bias = &parameter("bias", {width}, {Init::zeros}, false);
}
Tensor LayerNorm::forward(Tensor x) const { return layer_norm(x, weight.value, value_of(bias), eps); }

RmsNorm::RmsNorm(Module& parent, std::string_view name, int64_t width, double epsilon)
    : Layer(parent, name), weight(parameter("weight", {width}, {Init::ones}, false)), eps(epsilon) {}
Tensor RmsNorm::forward(Tensor x) const { return rms_norm(x, weight.value, eps); }

Dropout::Dropout(Module& parent, std::string_view name, double probability)
    : Layer(parent, name), p(probability), site_(dropout_site(path())) {
  check(p >= 0 && p < 1, "{}: the probability of dropping must be at least 0 and below 1, got {}", path(), p);
  if (p > 0) needs_draws();
}
Tensor Dropout::forward(Tensor x) const {
  if (!training() || p == 0) return x;
  return dropout(std::move(x), p, draws(), site_);
}

FeedForward::FeedForward(Module& parent, std::string_view name, int64_t width, int64_t inner, MlpKind mlp, bool with_bias)
    : Layer(parent, name),
      kind(mlp),
      up(*this, mlp == MlpKind::swiglu ? "gate_up" : "up", width, mlp == MlpKind::swiglu ? 2 * inner : inner, with_bias),
      down(*this, "down", inner, width, with_bias) {}
Tensor FeedForward::forward(Tensor x) const {
  x = up(std::move(x));
  return down(kind == MlpKind::swiglu ? swiglu(x) : gelu(x));
}

namespace {
AttentionOptions resolved(AttentionOptions o, int64_t width, const std::string& path) {
  if (o.kv_heads == 0) o.kv_heads = o.heads;
  check(o.heads >= 1 && o.kv_heads >= 1 && o.heads % o.kv_heads == 0, "{}: {} heads are not a multiple of {} key-value heads", path,
        o.heads, o.kv_heads);
  check(o.head_dim > 0 || width % o.heads == 0, "{}: width {} is not a multiple of {} heads: say head_dim", path, width, o.heads);
  if (o.head_dim == 0) o.head_dim = width / o.heads;
  return o;
}
}  // namespace

SelfAttention::SelfAttention(Module& parent, std::string_view name, int64_t width, const AttentionOptions& how)
    : Layer(parent, name),
      options(resolved(how, width, path())),
      qkv(*this, "qkv", width, (options.heads + 2 * options.kv_heads) * options.head_dim, options.bias),
      proj(*this, "proj", options.heads * options.head_dim, width, options.bias) {}
Tensor SelfAttention::forward(Tensor x) const {
  const AttentionOptions& o = options;
  x = qkv(std::move(x));
  if (o.rope_theta > 0) x = rope(std::move(x), o.heads + o.kv_heads, o.head_dim, o.rope_theta);
  return proj(attention(x, o.heads, o.kv_heads, o.head_dim, o.causal, 0, o.window));
}
}  // namespace reckon::nn
