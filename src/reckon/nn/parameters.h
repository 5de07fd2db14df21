// nn/parameters: what a model learns: declared by its modules, stored in flat buckets, one per group, in module order.
#pragma once
#include <deque>

#include "reckon/nn/model_config.h"
#include "reckon/ops/ops.h"

namespace reckon {

/// How a parameter starts.
struct Init {
  enum Kind : uint8_t { zeros, ones, normal, xavier, kaiming, trunc_normal } kind = zeros;
  double std = 0.02;  // normal, trunc_normal (cut at +-3 std)
  double gain = 1;    // multiplies the standard deviation, whatever the kind
};
/// The standard deviation of a [fan_out, fan_in] matrix: xavier sqrt(2 / (in + out)), kaiming sqrt(2 / in), else init.std; times gain.
double init_std(const Init& init, int64_t fan_out, int64_t fan_in);

struct Parameter {
  std::string name;
  Shape shape;
  Init init;
  bool decay;    // weight decay applies: matrices and embeddings, not norms and biases
  Tensor value;  // view of a bucket, set by materialize()
  int bucket = -1;
  int64_t offset = 0;   // elements from the start of the bucket
  int64_t padded = 0;   // elements it takes of the bucket
  bool frozen = false;  // set before materialize(): it wants no gradient, and there is no memory for one
};

/// Parameters of one group in one block of memory. Optimizers step whole buckets.
struct Bucket {
  bool decay;
  bool quantized = false;  // each parameter is whole blocks of kStateBlock elements, for optimizer states of 8 bits
  int64_t numel = 0;       // padded
  Tensor values;           // [numel] f32, f64, bf16 or f16: what the model computes with
  Tensor residual;         // [numel] 16-bit words: with bf16 values the exact f32 master weights; else, or if not wanted, undefined
  Tensor master;           // [numel] f32: the exact weights that f16 values are rounded from; else undefined
  Tensor gradients;        // [numel] f32 (f64 for f64); undefined without training or if they do not last
};

/// Each parameter starts at a multiple of this many elements, so that bf16 ones are aligned to a block too.
inline constexpr int64_t kParameterAlignment = 32;

struct StorageOptions {
  DType dtype = DType::f32;       // f32, f64, bf16 with a residual plane, or f16 with float32 master weights
  bool training = true;           // allocate gradients (and the residual plane or master weights)
  bool master = true;             // with bf16: the residual plane; without, optimizers round the values stochastically
  int64_t quantized_from = 0;     // parameters of so many elements or more lie in quantized buckets of their own; 0: none do
  bool lasting_gradients = true;  // false: a module's gradients have memory from its backward pass to zero_grad()
};

namespace detail {
struct GradientPiece;
}

class Parameters {
 public:
  Parameters();
  ~Parameters();
  Parameters(const Parameters&) = delete;
  /// Declares one; the reference stays valid. The module path of the context does not matter, `name` is the whole name.
  Parameter& declare(std::string name, const Shape& shape, const Init& init, bool decay);
  /// Allocates the buckets and fills every parameter; its values depend on (seed, name, element) only. Call once, after all are declared.
  /// If some are frozen, the gradients of the others do not last, whatever the options say.
  void materialize(Device& device, const StorageOptions& options, uint64_t seed);

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  std::vector<Bucket>& buckets() { return buckets_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  /// Null if there is none.
  Parameter* find(std::string_view name);
  /// Throws Error, which says which name is nearest.
  Parameter& at(std::string_view name);
  /// Learned scalars, without padding.
  int64_t count() const;
  /// What the model computes with. Throws Error before materialize().
  DType dtype() const;
  /// What gradients are accumulated in. Throws Error before materialize().
  DType gradient_dtype() const { return dtype() == DType::f64 ? DType::f64 : DType::f32; }
  /// Bytes of all gradients at once; 0 without training.
  int64_t gradient_bytes() const;
  /// Ranges of the flat buckets whose parameters have gradients, as long as one block of memory holds them, and those gradients.
  struct GradientRun {
    size_t bucket;
    int64_t begin, end;  // elements of the bucket, with the padding after the last parameter
    Tensor gradients;    // [end - begin]
  };
  std::vector<GradientRun> gradient_runs() const;
  /// Marks every gradient empty: the next contribution overwrites it, and the optimizer leaves alone what stays empty. Gradients that do
  /// not last give their memory back.
  void zero_grad();
  /// Marks every gradient filled: for whoever writes the buckets' gradients directly.
  void mark_gradients_filled();
  /// The same range of a flat bucket tensor (values, gradients, optimizer state, residual, master) in the parameter's shape.
  static Tensor view_of(const Tensor& flat, const Parameter& parameter);

 private:
  void lay_out(int64_t quantized_from);
  void make_slots(bool lasting);
  void fill(Parameter& parameter, uint64_t seed);
  std::deque<Parameter> parameters_;
  std::vector<Parameter*> by_name_;  // sorted
  std::vector<Bucket> buckets_;
  std::vector<Ref<detail::GradientPiece>> pieces_;  // of gradients that do not last, in order of buckets and offsets
};
}  // namespace reckon
