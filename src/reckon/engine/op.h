// engine/op: what an operation is: a row with a plan, a gradient rule and a few fields. The engine knows no operation by name but four.
#pragma once
#include <cstring>
#include <type_traits>

#include "reckon/tensor/tensor.h"

namespace reckon {

struct OpDef;
class Node;
struct Vjp;

/// Everything an operation is told besides its tensors: one trivially copyable struct of at most 88 bytes, and the wanted gradients.
struct Params {
  alignas(8) unsigned char bytes[88] = {};
  uint32_t needs = ~0u;  // a backward operation computes only the input gradients whose bits are set

  Params() = default;
  template <class T>
    requires(!std::is_same_v<T, Params>)
  Params(const T& value, uint32_t wanted = ~0u) : needs(wanted) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof bytes && alignof(T) <= 8);
    T padless = value;
#ifndef __CUDACC__
    __builtin_clear_padding(&padless);  // or equal parameters would differ in bytes that nobody wrote
#endif
    std::memcpy(bytes, &padless, sizeof padless);
  }
  template <class T>
  T as() const {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof bytes);
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  bool operator==(const Params& o) const { return needs == o.needs && std::memcmp(bytes, o.bytes, sizeof bytes) == 0; }
};

/// Work of one call. matmul: 2 per multiply-add executed; model: the part of it that is mathematically needed (masked-out tiles are not);
/// vector: everything else, by the table in docs/flops.md.
struct Flops {
  int64_t matmul = 0;
  int64_t vector = 0;
  int64_t model = 0;
  Flops& operator+=(const Flops& o);
  bool operator==(const Flops&) const = default;
};

/// The whole truth of one call, found before memory is taken. The same on every device and on meta.
class Plan {
 public:
  std::vector<TensorSpec> in;
  std::vector<TensorSpec> out;
  const Params& params;
  const DeviceProfile& profile;
  Flops flops;
  int64_t workspace = 0;     // bytes of scratch, granted to the kernel
  int64_t bytes_moved = -1;  // minimum memory traffic; -1: inputs and outputs once each

  Plan(const Params& p, const DeviceProfile& d) : params(p), profile(d) {}
  void output(const TensorSpec& spec) { out.push_back(spec); }
  void output(const Shape& shape, DType dtype) { out.push_back({shape, dtype}); }
  /// True if the gradient of input i is wanted (backward operations).
  bool needs(int i) const { return params.needs >> i & 1u; }
  /// Matrix work that is needed, as a product of these factors; a backend whose tiles compute more books that. Throws Error (usage)
  /// beyond 2^63 - 1.
  void matmul_flops(std::initializer_list<int64_t> factors) { flops.matmul = flops.model = checked_product(factors); }
  /// All other work, likewise.
  void vector_flops(std::initializer_list<int64_t> factors) { flops.vector = checked_product(factors); }
};

/// What a kernel gets. It never allocates: outputs and workspace exist already.
struct KernelArgs {
  const Tensors& in;
  Tensors& out;
  const Params& params;
  void* workspace;
  int64_t workspace_bytes;
  int lanes;  // of the device profile: at most this many threads may use the workspace
  template <class T>
  T as() const { return params.as<T>(); }
  bool needs(int i) const { return params.needs >> i & 1u; }
};

using PlanFunction = void (*)(Plan&);
using VjpFunction = Tensors (*)(Vjp&);  // dy -> dx, see Vjp in engine/node.h
using ViewFunction = Layout (*)(const Layout& in, const Params&);
using AxesFunction = uint32_t (*)(const Params&);

/// Which tensors backward needs; everything else is released as soon as its owner lets go.
struct Keep {
  uint32_t in = 0, out = 0;
};

/// What Autocast does with the floats among the inputs of an operation (engine/autocast.h). f64 is never cast down, nor anything beside it.
enum class AutocastPolicy : uint8_t {
  none,    // it computes in what it is given
  low,     // cast to the scope's 16-bit float: products
  wide,    // 16-bit floats are cast to f32: sums, exponentials, norms, losses
  widest,  // cast to the widest of them: what joins several tensors
};

/// What else holds of an operation; every field has a default.
struct OpTraits {
  ViewFunction view = nullptr;     // output 0 is a view of input 0 with this layout; no kernel runs
  uint32_t mutates = 0;            // inputs that are written
  uint32_t reuse = 0;              // inputs whose storage output 0 may take over when nobody else holds it (same bytes)
  uint32_t any_stride = 0;         // inputs accepted with any strides; others are made contiguous first, visibly
  uint32_t inner_contiguous = 0;   // inputs accepted if their last axis has stride 1
  uint32_t detached_outputs = 0;   // outputs that carry no gradient (statistics, indices)
  bool pointwise = false;          // element i of output 0 depends on element i of each input, broadcast: may join a fused group
  AxesFunction sums = nullptr;     // output 0 is input 0 summed over the axes whose bits are set: may end a fused group
  Kernel own_kernel = nullptr;     // a row of a user or of dist brings its own kernel
  VjpFunction fallback = nullptr;  // the rule while backward itself is recorded, made of operations that have rules; null: vjp serves
  bool float8 = false;             // takes 8-bit floats, which are there to be stored and are refused elsewhere
  AutocastPolicy autocast = AutocastPolicy::none;  // of a row that writes an input, nothing is cast
};

/// One operation. Rows are constants; a new property is a field with a default, never a virtual function.
struct OpDef {
  int id;                          // index in a backend's kernel table; -1 if the row has no built-in kernel
  const char* name;
  PlanFunction plan;
  VjpFunction vjp = nullptr;       // null: no gradient rule; asking for one throws unless every output is detached
  Keep keep = {};
  OpTraits traits = {};
};
}  // namespace reckon
