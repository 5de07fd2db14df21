// nn/layers: modules that are ready to use: what one layer learns, and the operation that it is.
#pragma once
#include "reckon/nn/module.h"
#include "reckon/ops/conv.h"

namespace reckon::nn {

/// y = x w^T + b
class Linear : public Layer {
 public:
  Linear(Module& parent, std::string_view name, int64_t in, int64_t out, bool with_bias = true,
         Init init = {Init::kaiming, 0, 0.70710678118654752});
  Parameter& weight;          // [out, in]; the default starts at std 1 / sqrt(in), which keeps the variance of its input
  Parameter* bias = nullptr;  // [out]

 protected:
  Tensor forward(Tensor x) const override;
};

/// Height and width of a kernel; one number is both.
struct KernelSize {
  int64_t height, width;
  KernelSize(int64_t side) : height(side), width(side) {}
  KernelSize(int64_t h, int64_t w) : height(h), width(w) {}
};
/// conv2d() over x [B, in, H, W] as Conv2d(parent, "conv", 3, 16, {3, 5}, {.padding = {1, 2}}).
/// Throws Error unless the groups divide in and out.
class Conv2d : public Layer {
 public:
  Conv2d(Module& parent, std::string_view name, int64_t in, int64_t out, KernelSize kernel, const Conv2dOptions& how = {},
         bool with_bias = true, Init init = {Init::kaiming, 0, 0.70710678118654752});
  const Conv2dOptions options;
  Parameter& weight;          // [out, in / groups, height, width]; the default starts at std 1 / sqrt(in / groups height width)
  Parameter* bias = nullptr;  // [out]

 protected:
  Tensor forward(Tensor x) const override;
};

/// A linear layer without bias whose weight is another's, an embedding's: declared there, listed in both.
class TiedLinear : public Layer {
 public:
  TiedLinear(Module& parent, std::string_view name, Parameter& shared) : Layer(parent, name), weight(share(shared)) {}
  Parameter& weight;

 protected:
  Tensor forward(Tensor x) const override;
};

/// Rows of a table: ids i32 [...] -> [..., width].
class Embedding : public Layer {
 public:
  Embedding(Module& parent, std::string_view name, int64_t rows, int64_t width, Init init = {Init::normal, 0.02, 1});
  Parameter& weight;  // [rows, width]

 protected:
  Tensor forward(Tensor ids) const override;
};

class LayerNorm : public Layer {
 public:
  LayerNorm(Module& parent, std::string_view name, int64_t width, bool with_bias = true, double epsilon = 1e-5);
  Parameter& weight;          // [width]
  Parameter* bias = nullptr;  // [width]
  const double eps;

 protected:
  Tensor forward(Tensor x) const override;
};

class RmsNorm : public Layer {
 public:
  RmsNorm(Module& parent, std::string_view name, int64_t width, double epsilon = 1e-6);
  Parameter& weight;  // [width]
  const double eps;

 protected:
  Tensor forward(Tensor x) const override;
};

/// See dropout() in ops/dropout.h; the first axis of x is samples. The identity in evaluation.
class Dropout : public Layer {
 public:
  Dropout(Module& parent, std::string_view name, double probability);
  const double p;

 protected:
  Tensor forward(Tensor x) const override;

 private:
  uint64_t site_;
};

/// Two matrices around GELU, or three with the SwiGLU gate, of which the first two are one product.
class FeedForward : public Layer {
 public:
  FeedForward(Module& parent, std::string_view name, int64_t width, int64_t inner, MlpKind kind = MlpKind::gelu, bool with_bias = true);
  const MlpKind kind;
  Linear up;  // gelu: up [inner, width]; swiglu: gate_up [2 inner, width]
  Linear down;

 protected:
  Tensor forward(Tensor x) const override;
};

struct AttentionOptions {
  int64_t heads = 1;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: width / heads, which must be whole
  bool causal = true;
  bool bias = true;
  int64_t window = 0;     // see attention()
  double rope_theta = 0;  // 0: no rotary positions
};
/// Self-attention: one projection to queries, keys and values, attention(), one projection back. x [B, T, width].
class SelfAttention : public Layer {
 public:
  SelfAttention(Module& parent, std::string_view name, int64_t width, const AttentionOptions& options);
  const AttentionOptions options;  // with every size resolved
  Linear qkv;                      // [(heads + 2 kv_heads) head_dim, width]
  Linear proj;                     // [width, heads head_dim]

 protected:
  Tensor forward(Tensor x) const override;
};
}  // namespace reckon::nn
