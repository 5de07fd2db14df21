// ops/functional: derivatives of functions of tensors: products with the Jacobian, the Jacobian and the Hessian themselves, and checks of
// gradients by differences.
#pragma once
#include "reckon/engine/backward.h"

namespace reckon {

namespace detail {
/// A function that is called while this lives: of one to three tensors, or of a list; it gives a tensor or a list.
class TensorFunction {
 public:
  template <class F>
  explicit TensorFunction(F& f) : object_(&f), run_(run<F>) {}
  Tensors operator()(const Tensors& in) const { return run_(object_, in); }

 private:
  static Tensors listed(Tensor t) { return Tensors(1, std::move(t)); }
  static Tensors listed(Tensors t) { return t; }
  static void check_count(const Tensors& in, size_t count) {
    check(in.size() == count, "the function takes {} tensors, {} are given", count, in.size());
  }
  template <class F>
  static Tensors run(void* object, const Tensors& in) {
    F& f = *static_cast<F*>(object);
    if constexpr (std::is_invocable_v<F&, const Tensor&>) {
      check_count(in, 1);
      return listed(f(in[0]));
    } else if constexpr (std::is_invocable_v<F&, const Tensor&, const Tensor&>) {
      check_count(in, 2);
      return listed(f(in[0], in[1]));
    } else if constexpr (std::is_invocable_v<F&, const Tensor&, const Tensor&, const Tensor&>) {
      check_count(in, 3);
      return listed(f(in[0], in[1], in[2]));
    } else {
      return listed(f(in));
    }
  }
  void* object_;
  Tensors (*run_)(void*, const Tensors&);
};
}  // namespace detail

/// A function's results and, beside them, their derivatives.
struct ValuesAndDerivatives {
  Tensors values, derivatives;
};

namespace detail {
ValuesAndDerivatives jvp(const TensorFunction& f, const Tensors& primals, const Tensors& tangents);
ValuesAndDerivatives vjp(const TensorFunction& f, const Tensors& primals, const Tensors& cotangents);
Tensor jacobian(const TensorFunction& f, const Tensor& x);
Tensor hessian(const TensorFunction& f, const Tensor& x);
ValuesAndDerivatives hvp(const TensorFunction& f, const Tensor& x, const Tensor& v);
std::string gradcheck(const TensorFunction& f, const Tensors& inputs, bool second);
}  // namespace detail

// In all of these f is called on leaves of its own that share the data of what is given: what it is given elsewhere, and what it captures,
// counts as constant, and nobody's grad changes. Derivatives that do not depend on an input are zeros. Results are constants.

/// J t: how each result of f moves when its inputs move along the tangents; one an output. By two backward passes, of which the second runs
/// through the first: three matrix products for each product of f with a constant, five for one of two inputs, whatever the number of
/// inputs. f may use whatever has a gradient of its gradient. Throws Error where a tangent does not match its input.
template <class F>
ValuesAndDerivatives jvp(F f, const Tensors& primals, const Tensors& tangents) {
  return detail::jvp(detail::TensorFunction(f), primals, tangents);
}
/// J^T c: gradients of the results weighted by the cotangents (none: ones, of a scalar); one an input. A forward and a backward pass.
template <class F>
ValuesAndDerivatives vjp(F f, const Tensors& primals, const Tensors& cotangents = {}) {
  return detail::vjp(detail::TensorFunction(f), primals, cotangents);
}
/// All derivatives of f(x), one tensor: [shape of f(x)..., shape of x...], at most 8 axes. One backward pass an element of f(x).
template <class F>
Tensor jacobian(F f, const Tensor& x) {
  return detail::jacobian(detail::TensorFunction(f), x);
}
/// Second derivatives of a scalar f(x): [shape of x..., shape of x...]. A recorded backward pass, and one through it an element of x.
template <class F>
Tensor hessian(F f, const Tensor& x) {
  return detail::hessian(detail::TensorFunction(f), x);
}
/// f(x), a scalar, and its Hessian times v, without the Hessian: two backward passes, of which one runs through the other.
template <class F>
ValuesAndDerivatives hvp(F f, const Tensor& x, const Tensor& v) {
  return detail::hvp(detail::TensorFunction(f), x, v);
}

/// Gradients of f, weighted by random numbers, against differences of fourth order, for every element of the inputs (float64, on a device
/// with data): off by at most 1e-6 of the largest. What is wrong first, or "".
template <class F>
std::string gradcheck(F f, const Tensors& inputs) {
  return detail::gradcheck(detail::TensorFunction(f), inputs, false);
}
/// The same of the gradients' own gradients; the differences are of gradients that are not recorded.
template <class F>
std::string gradgradcheck(F f, const Tensors& inputs) {
  return detail::gradcheck(detail::TensorFunction(f), inputs, true);
}
}  // namespace reckon
