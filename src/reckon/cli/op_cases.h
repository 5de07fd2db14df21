// cli/op_cases: every public operation with sets of inputs and a reference in double. Tests and `reckon check` are derived from this table.
#pragma once
#include "reckon/cli/op_cases_real.h"
#include "reckon/ops/ops.h"

namespace reckon {

/// How an input lies in its storage. Where a shape has too few axes for it, the nearest that it has.
enum class Lay : uint8_t {
  plain,
  transposed,  // the last two axes swapped
  turned,      // the first and the last axis swapped
  stepped,     // every second element of the last axis
  padded,      // rows of a wider tensor: the last axis has stride 1
  shifted,     // contiguous, but not from the start of its storage
  expanded,    // the first axis repeated, stride 0
};

/// One input of a case: what it holds and how it lies.
struct CaseInput {
  enum class Hold : uint8_t {
    uniform,   // in [low, high)
    apart,     // uniform with sign, but at least 0.1 from 0: away from kinks there
    grid,      // random multiples of 0.1 plus `low`: two grids half a step apart never come near each other
    distinct,  // all different by 0.02 or more, around 0, in random order
    ids,       // whole numbers: low plus a uniform one in [0, high); i32 unless said otherwise
    targets,   // i32, as ids, every fourth one kIgnoredTarget
    mask,      // bool
    given,     // `values`, in `dtype`
  };
  Shape shape;
  Lay lay = Lay::plain;
  Hold hold = Hold::uniform;
  double low = -1, high = 1;
  bool follows = true;  // has the floating-point type that the case is run with; else `dtype`
  DType dtype = DType::f32;
  std::vector<double> values;  // of Hold::given

  CaseInput(const Shape& s, Lay l = Lay::plain) : shape(s), lay(l) {}
  CaseInput range(double from, double to) const;
  CaseInput held(Hold how, double from = -1, double to = 1) const;
  /// Fixed contents; with a dtype, of that type whatever the case is run with.
  static CaseInput of(const Shape& shape, std::vector<double> values);
  static CaseInput of(const Shape& shape, DType dtype, std::vector<double> values);
  static CaseInput ids(const Shape& shape, int64_t count);
  static CaseInput targets(const Shape& shape, int64_t count);
  static CaseInput mask(const Shape& shape, Lay lay = Lay::plain);
};
using CaseInputs = std::vector<CaseInput>;

/// What is done with the inputs, and what that should give.
struct CaseBody : RefCounted {
  virtual Tensors run(Device& device, DType dtype, const Tensors& in) const = 0;
  virtual Arrays reference(DType dtype, const Arrays& in) const = 0;
};

/// One operation on one set of inputs.
struct OpCase {
  std::string op;  // as the public function is called, without a trailing underscore
  int index = 0;   // among the cases of this operation
  CaseInputs inputs;
  Ref<CaseBody> body;
  bool differentiable = true;  // in every floating-point input, as far as the operation goes
  uint32_t dtypes = 0b1111;    // bit DType: the floating-point types it is run with
  bool runs_with(DType dtype) const { return dtypes >> int(dtype) & 1u; }
};
std::string to_string(const OpCase& c);

/// The whole table, grouped by operation.
const std::vector<OpCase>& op_cases();
/// The names in it, each once, in its order.
std::vector<std::string> case_ops();
/// Rows that no case can reach, with the reason; every other row of all_ops() is run by some case or its backward pass.
struct UncoveredRow {
  const char* op;
  const char* reason;
};
std::span<const UncoveredRow> uncovered_rows();

/// An input in memory: a contiguous tensor, and the view of it that the operation is given. Gradients are taken of the former.
struct BuiltInput {
  Tensor leaf, seen;
};
/// The same numbers on every device; the leaf requires a gradient if asked and of a floating-point type.
std::vector<BuiltInput> build_inputs(const OpCase& c, Device& device, DType dtype, bool requires_grad);
/// The views of fresh leaves through the layouts of the case's inputs.
Tensors see(const OpCase& c, const Tensors& leaves);
/// The leaf's contents, exact in `dtype`.
std::vector<double> leaf_values(const OpCase& c, size_t input, DType dtype);
/// A contiguous tensor of doubles, rounded to `dtype`.
Tensor tensor_of(Device& device, const Shape& shape, DType dtype, const std::vector<double>& values);
/// Uniform in [-1, 1), named by two numbers.
std::vector<double> random_values(int64_t count, uint64_t key, uint64_t stream);

// ---- For the files of the table.

/// Collects the cases of one operation.
class CaseList {
 public:
  explicit CaseList(std::vector<OpCase>& cases) : cases_(cases) {}
  /// The operation that the next cases are of.
  CaseList& op(const char* name, bool differentiable = true, uint32_t dtypes = 0b1111);
  /// run(Tensors) -> Tensor or Tensors; reference(Arrays) -> Array or Arrays. Either may also take the device or dtype first, see Body.
  template <class Run, class Reference>
  void add(CaseInputs inputs, Run run, Reference reference);

 private:
  void append(CaseInputs inputs, Ref<CaseBody> body);
  std::vector<OpCase>& cases_;
  std::string op_;
  bool differentiable_ = true;
  uint32_t dtypes_ = 0b1111;
  int index_ = 0;
};

void add_elementwise_cases(CaseList& list);
void add_whole_cases(CaseList& list);
void add_view_cases(CaseList& list);
void add_named_cases(CaseList& list);
void add_packing_cases(CaseList& list);
void add_reduce_cases(CaseList& list);
void add_matmul_cases(CaseList& list);
void add_float8_cases(CaseList& list);
void add_norm_cases(CaseList& list);
void add_transformer_cases(CaseList& list);
void add_loss_cases(CaseList& list);
void add_creation_cases(CaseList& list);
void add_training_cases(CaseList& list);
void add_joining_cases(CaseList& list);
void add_indexing_cases(CaseList& list);
void add_order_cases(CaseList& list);
void add_function_cases(CaseList& list);
void add_conv_cases(CaseList& list);
void add_module_cases(CaseList& list);

/// A shape in a layout; 24 of them with scalars, empty and size-1 axes, odd lengths, eight axes, and sizes around the chunks of kernels.
struct Arrangement {
  Shape shape;
  Lay lay;
};
std::span<const Arrangement> arrangements();
/// The same for operations on rows: at least one axis, and none but an empty batch empty.
std::span<const Arrangement> row_arrangements();
/// Pairs that broadcast.
struct ArrangedPair {
  Arrangement a, b;
};
std::span<const ArrangedPair> arranged_pairs();

namespace detail {
template <class F>
Tensors run_case(const F& f, Device& device, DType dtype, const Tensors& in) {
  if constexpr (std::is_invocable_r_v<Tensors, const F&, Device&, DType, const Tensors&>)
    return f(device, dtype, in);
  else if constexpr (std::is_invocable_r_v<Tensors, const F&, const Tensors&>)
    return f(in);
  else if constexpr (std::is_invocable_r_v<Tensor, const F&, Device&, DType, const Tensors&>)
    return {f(device, dtype, in)};
  else
    return {f(in)};
}
template <class F>
Arrays reference_case(const F& f, DType dtype, const Arrays& in) {
  if constexpr (std::is_invocable_r_v<Arrays, const F&, DType, const Arrays&>)
    return f(dtype, in);
  else if constexpr (std::is_invocable_r_v<Arrays, const F&, const Arrays&>)
    return f(in);
  else
    return {f(in)};
}
}  // namespace detail

template <class Run, class Reference>
void CaseList::add(CaseInputs inputs, Run run, Reference reference) {
  struct Body final : CaseBody {
    Run run_;
    Reference reference_;
    Body(Run r, Reference f) : run_(std::move(r)), reference_(std::move(f)) {}
    Tensors run(Device& device, DType dtype, const Tensors& in) const override { return detail::run_case(run_, device, dtype, in); }
    Arrays reference(DType dtype, const Arrays& in) const override { return detail::reference_case(reference_, dtype, in); }
  };
  append(std::move(inputs), Ref<CaseBody>(new Body(std::move(run), std::move(reference))));
}
}  // namespace reckon
