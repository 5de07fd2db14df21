// engine/function: differentiable functions that users write themselves: a forward pass and its gradient rule.
#pragma once
#include "reckon/engine/node.h"

namespace reckon {
class FunctionContext;

namespace detail {
struct FunctionBody : NodePayload {
  // What was saved: an input, an output, or another tensor, by number.
  enum class Kind : uint8_t { input, output, other };
  struct Saved {
    Kind kind;
    size_t index;
  };
  std::vector<Saved> saved;
  bool once_differentiable = false;
  DType autocast = DType::f32;  // the type that forward cast to, for backward
  virtual Tensors forward(FunctionContext& c, const Tensors& in) = 0;
  virtual Tensors backward(FunctionContext& c, const Tensors& dy) = 0;
};
Tensors apply_function(const OpDef& row, Ref<FunctionBody> body, const Tensors& in);
void plan_function(Plan& p);
Tensors vjp_function(Vjp& v);
}  // namespace detail

/// What forward and backward of a user's function are given.
class FunctionContext {
 public:
  /// forward: these are for backward; inputs, outputs, or what was made on the way (which then passes no gradient on: see below).
  void save_for_backward(const Tensors& tensors) { to_save_ = tensors; }
  /// forward: these outputs carry no gradient; their place in backward's dy is undefined. Outputs that are not floating-point carry none
  /// anyhow.
  void mark_non_differentiable(const Tensors& outputs) { detached_ = outputs; }
  /// forward and backward: if the gradient of input i will be, or is, wanted.
  bool needs_input_grad(int i) const { return needs_ >> i & 1u; }
  /// backward: what was saved, in its order. Throws Error if one of them was changed in place since, or if a gradient of the gradient
  /// would have to pass through something that is neither input nor output.
  const Tensors& saved();

 private:
  friend Tensors detail::apply_function(const OpDef&, Ref<detail::FunctionBody>, const Tensors&);
  friend Tensors detail::vjp_function(Vjp&);
  uint32_t needs_ = 0;
  Tensors to_save_, detached_, saved_;
  Vjp* vjp_ = nullptr;
  bool is_loaded_ = false;
};

namespace detail {
inline Tensors listed(Tensor t) {
  Tensors list;
  list.push_back(std::move(t));
  return list;
}
inline Tensors listed(Tensors list) { return list; }
void check_arity(const char* name, size_t given, size_t wanted);

template <class F>
constexpr const char* function_name() {
  if constexpr (requires { F::name; })
    return F::name;
  else
    return "function";
}
template <class F>
inline const OpDef kFunctionRow{-1, function_name<F>(), plan_function, vjp_function};

// kInputs: forward takes that many tensors; -1: a list.
template <class F, int kInputs>
struct UserFunction final : FunctionBody {
  F function;
  explicit UserFunction(F f) : function(std::move(f)) {
    if constexpr (requires { F::once_differentiable; }) once_differentiable = F::once_differentiable;
  }
  Tensors forward(FunctionContext& c, const Tensors& in) override {
    if constexpr (kInputs < 0) {
      return listed(function.forward(c, in));
    } else {
      return [&]<size_t... i>(std::index_sequence<i...>) { return listed(function.forward(c, in[i]...)); }
      (std::make_index_sequence<size_t(kInputs)>());
    }
  }
  Tensors backward(FunctionContext& c, const Tensors& dy) override {
    if constexpr (requires { function.backward(c, dy); }) {
      return listed(function.backward(c, dy));
    } else if constexpr (requires { function.backward(c, dy[0]); }) {
      check_arity(function_name<F>(), dy.size(), 1);
      return listed(function.backward(c, dy[0]));
    } else if constexpr (requires { function.backward(c, dy[0], dy[1]); }) {
      check_arity(function_name<F>(), dy.size(), 2);
      return listed(function.backward(c, dy[0], dy[1]));
    } else {
      check_arity(function_name<F>(), dy.size(), 3);
      return listed(function.backward(c, dy[0], dy[1], dy[2]));
    }
  }
};
}  // namespace detail

/// Calls a function whose gradient rule is the user's, as torch.autograd.Function is:
///   struct F {
///     static constexpr const char* name = "f";                        // optional, for errors and graphs
///     static constexpr bool once_differentiable = true;               // optional: backward is no differentiable function itself
///     Tensor forward(FunctionContext& c, const Tensor& x, ...);       // or Tensors; or takes one const Tensors&
///     Tensors backward(FunctionContext& c, const Tensor& dy, ...);    // or takes one const Tensors&, one dy an output
///   };
///   Tensor y = apply_function(F{...}, x, w);
/// forward is not recorded. backward gives one gradient an input, undefined for none, in shape and dtype of the input; a dy is zeros where
/// nothing arrived. Inside Autocast forward's operations are autocast, and so are backward's, whose gradients are cast to their inputs'
/// types. What is not a tensor stays in the object, which lives as long as the graph needs it; tensors go through save_for_backward. Under
/// create_graph backward is recorded, and so can be differentiated again, unless it is once_differentiable: then the second derivative is
/// an Error, where it is asked for. Works on meta and inside checkpoint(), which makes the object again.
template <class F, class... In>
auto apply_function(F function, const In&... in) {
  static_assert(sizeof...(In) > 0, "a function needs an input: it says on which device and whether a gradient is wanted");
  constexpr bool kIsList = sizeof...(In) == 1 && (std::is_same_v<In, Tensors> && ...);
  using Result = decltype(function.forward(std::declval<FunctionContext&>(), in...));
  const Ref<detail::FunctionBody> body(new detail::UserFunction < F, kIsList ? -1 : int(sizeof...(In)) > (std::move(function)));
  Tensors list;
  if constexpr (kIsList)
    list = (in, ...);
  else
    list = {in...};
  Tensors out = detail::apply_function(detail::kFunctionRow<F>, body, list);
  if constexpr (std::is_same_v<Result, Tensor>)
    return Tensor(std::move(out[0]));
  else
    return out;
}
}  // namespace reckon
