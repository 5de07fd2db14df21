// tensor/tensor: a handle on strided storage. It knows nothing of operations; what made it is an opaque grad_fn that the engine reads.
#pragma once
#include <vector>

#include "reckon/base/error.h"
#include "reckon/tensor/device.h"

namespace reckon {

class Tensor;
using Tensors = std::vector<Tensor>;

/// One block of device memory. Views share it; the version counts in-place changes.
class Storage : public RefCounted {
 public:
  Storage(Device& device, int64_t bytes, Category category, uint32_t module, const char* op);
  /// One without memory, of a result that exists only inside a fused group (engine/fuser.h).
  explicit Storage(Device& device) : device_(&device), data_(nullptr) {}
  ~Storage() override;

  Device& device() const { return *device_; }
  const Block& block() const { return block_; }
  std::byte* data() const { return data_; }  // null on meta
  uint64_t version() const { return version_; }
  void bump_version() { ++version_; }
  bool has_memory() const { return block_.serial >= 0; }
  /// Gives memory to one that has none.
  void take_memory(int64_t bytes, Category category, uint32_t module, const char* op);

 private:
  Ref<Device> device_;
  Block block_;
  std::byte* data_;
  uint64_t version_ = 0;
};

/// Extents and strides (in elements) of a view of a storage.
struct Layout {
  Shape shape;
  int64_t strides[kMaxRank] = {};
  int64_t offset = 0;  // elements from the start of the storage

  Layout() = default;
  explicit Layout(const Shape& shape);  // contiguous, row-major
  bool is_contiguous() const;
  /// The innermost axis has stride 1 (or at most one element).
  bool inner_contiguous() const;
};

/// Where gradients are accumulated that have no memory until the first contribution comes.
struct SlotSource : RefCounted {
  /// Gives every leaf whose slot this is and that has none a place.
  virtual void provide() = 0;
};

struct TensorState : RefCounted {
  Ref<Storage> storage;
  Layout layout;
  DType dtype = DType::f32;
  // Automatic differentiation, kept by the engine.
  bool requires_grad = false;
  bool grad_is_slot = false;  // grad is a fixed place, kept when it is emptied, or comes from slot_source
  bool grad_filled = false;   // false: the next contribution overwrites grad (zero_grad with set_to_none)
  int output_index = 0;       // which output of grad_fn this is
  Ref<RefCounted> grad_fn;    // the Node that made it, or null for a leaf
  Ref<TensorState> grad;      // of a leaf; a parameter's is a slot of a gradient bucket
  Ref<SlotSource> slot_source;
  Ref<RefCounted> hooks;                // of a leaf: what is called with its gradient
  Ref<RefCounted> retained;             // of a result: a RetainedGradient

  /// To be called before grad or grad_filled change: a rehearsal puts them back.
  void note_gradient();
};

/// The gradient of a result that somebody asked to keep: the result and the node that made it share this place.
struct RetainedGradient : RefCounted {
  Ref<TensorState> grad;
};

/// Gradients as they were before a rehearsal.
struct GradientJournal {
  struct Entry {
    Ref<TensorState> tensor;
    Ref<TensorState> grad;
    bool filled;
  };
  std::vector<Entry> entries;
  void undo();
};

/// Handle; copies share everything. A default-constructed tensor is undefined.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorState> state) : state_(std::move(state)) {}
  /// A new contiguous tensor with its own storage, contents undefined.
  Tensor(Device& device, const TensorSpec& spec, Category category, uint32_t module, const char* op);
  /// The same over a storage that exists.
  Tensor(Ref<Storage> storage, const TensorSpec& spec);
  /// A view of the same storage with another layout, outside of autograd.
  Tensor alias(const Layout& layout) const;
  Tensor alias(const Layout& layout, DType dtype) const;

  bool defined() const { return bool(state_); }
  const Shape& shape() const { return state().layout.shape; }
  const Layout& layout() const { return state().layout; }
  DType dtype() const { return state().dtype; }
  TensorSpec spec() const { return {shape(), dtype()}; }
  Device& device() const { return state().storage->device(); }
  int rank() const { return shape().rank(); }
  int64_t numel() const { return shape().numel(); }
  /// Elements between neighbours along an axis; negative axes count from the end.
  int64_t stride(int axis) const { return layout().strides[shape().resolve(axis)]; }
  bool is_contiguous() const { return layout().is_contiguous(); }
  bool same_storage(const Tensor& other) const { return state().storage == other.state().storage; }
  uint64_t version() const { return state().storage->version(); }
  Storage& storage() const { return *state().storage; }

  /// Address of element 0 for kernels; null on meta.
  void* raw() const;
  /// Address of element 0, typed. Throws Error on meta and if T is not the dtype's type.
  template <class T>
  T* data() const;
  /// The single element as a double; throws Error on meta or if there is not exactly one.
  double item() const;
  /// All elements in order as doubles, copied to the host. Throws Error on meta.
  std::vector<double> to_vector() const;
  /// Overwrites a contiguous tensor from host memory of the same dtype and size; bumps the version. Does nothing on meta.
  void write(const void* host, int64_t bytes) const;

  bool requires_grad() const { return state().requires_grad; }
  /// Marks a leaf as wanting a gradient. Throws Error for integers and for results of operations.
  Tensor& set_requires_grad(bool on = true);
  bool is_leaf() const { return !state().grad_fn; }
  const Ref<RefCounted>& grad_fn() const { return state().grad_fn; }
  /// The accumulated gradient of a leaf, or of a result whose gradient is retained; undefined before the first contribution.
  Tensor grad() const;
  /// Fixes where this leaf's gradient is accumulated: same shape, float; empty until the first contribution.
  void set_grad_slot(const Tensor& slot);
  /// As above, with a place that is made for the first contribution and let go by zero_grad().
  void set_grad_slot(Ref<SlotSource> source);
  /// The slot, made if it has no place yet; undefined without one.
  Tensor grad_slot() const;
  /// set_to_none: the memory of a fixed slot stays, its next contribution overwrites it; any other gradient is dropped.
  void zero_grad();
  /// The same storage, outside the graph.
  Tensor detached() const;

  TensorState& state() const {
    if (!state_) [[unlikely]] fail_undefined();
    return *state_;
  }
  const Ref<TensorState>& ref() const { return state_; }

 private:
  [[noreturn]] static void fail_undefined();
  void check_readable(DType wanted) const;
  Ref<TensorState> state_;
};

/// "f32[2, 3]", or "undefined".
std::string to_string(const Tensor& tensor);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::boolean;
};

template <>
struct DTypeOf<float8_e4m3fn> {
  static constexpr DType value = DType::f8e4m3fn;
};
template <>
struct DTypeOf<float8_e5m2> {
  static constexpr DType value = DType::f8e5m2;
};

template <class T>
T* Tensor::data() const {
  check_readable(DTypeOf<T>::value);
  return static_cast<T*>(raw());
}
}  // namespace reckon
