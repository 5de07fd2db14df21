// tests/onnx/operators_elementwise: operators on elements, their types and their choice.
#include "reckon/ops/dtypes.h"
#include "reckon/ops/unary.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
using Binary = Tensor (*)(const Tensor&, const Tensor&);

Tensor like(const Tensor& x, double value) { return full(x.device(), {Shape{}, x.dtype()}, value); }

template <Binary kFunction>
Tensors two(const Call& c) {
  return {kFunction(c[0], c[1])};
}
template <Tensor (*kFunction)(const Tensor&)>
Tensors one(const Call& c) {
  return {kFunction(c[0])};
}
// Any number of inputs, from the left.
template <Binary kFunction>
Tensor chain(const Call& c) {
  Tensor y = c[0];
  for (size_t i = 1; i < c.in.size(); ++i) y = kFunction(y, c[i]);
  return y;
}
Tensor sum_of(const Tensor& a, const Tensor& b) { return add(a, b); }

Tensors divide(const Call& c) {
  return {is_float(c[0].dtype()) ? div(c[0], c[1]) : floor_divide(c[0], c[1])};
}  // whole ones have no sign here
Tensors power(const Call& c) { return {cast(pow(c[0], c[1]), c[0].dtype())}; }
Tensors modulo(const Call& c) {
  const Tensor rest = remainder(c[0], c[1]);
  if (c.whole("fmod", 0) == 0) return {rest};
  // C's rest has the sign of what is divided.
  const Tensor shift = where(equal(mul(sign(rest), sign(c[0])), like(rest, -1)), c[1], like(c[1], 0));
  return {sub(rest, shift)};
}
Tensors clip(const Call& c) {
  Tensor y = c[0];
  if (c.has(1)) y = maximum(y, c[1]);
  if (c.has(2)) y = minimum(y, c[2]);
  return {y};
}
Tensors parametric_relu(const Call& c) { return {where(less(c[0], like(c[0], 0)), mul(c[0], c[1]), c[0])}; }
Tensors celu(const Call& c) {
  const double alpha = c.number("alpha", 1);
  return {where(less(c[0], like(c[0], 0)), affine(expm1(affine(c[0], 1 / alpha)), alpha), c[0])};
}
Tensors selu(const Call& c) {
  const double alpha = c.number("alpha", 1.67326319217681884765625), gamma = c.number("gamma", 1.05070102214813232421875);
  return {affine(elu(c[0], alpha), gamma)};
}
Tensors thresholded_relu(const Call& c) { return {where(less(like(c[0], c.number("alpha", 1)), c[0]), c[0], like(c[0], 0))}; }
Tensors shrink(const Call& c) {
  const double bias = c.number("bias", 0), bound = c.number("lambd", 0.5);
  return {where(less(c[0], like(c[0], -bound)), affine(c[0], 1, bias),
                where(less(like(c[0], bound), c[0]), affine(c[0], 1, -bias), like(c[0], 0)))};
}
Tensors is_infinite(const Call& c) {
  Tensor found = isinf(c[0]);
  if (!c.whole("detect_negative", 1)) found = logical_and(found, less(like(c[0], 0), c[0]));
  if (!c.whole("detect_positive", 1)) found = logical_and(found, less(c[0], like(c[0], 0)));
  return {found};
}
Tensors cast_to(const Call& c) {
  const int type = int(c.whole("to", 0));
  if (!dtype_of(type)) throw NotApplicable{"type " + element_name(type)};
  return {cast(c[0], *dtype_of(type))};
}
}  // namespace

void add_elementwise(OperatorTable& t) {
  t["Abs"] = one<abs>;
  t["Add"] = two<sum_of>;
  t["And"] = two<logical_and>;
  t["Cast"] = cast_to;
  t["CastLike"] = [](const Call& c) { return Tensors{cast(c[0], c[1].dtype())}; };
  t["Ceil"] = one<ceil>;
  t["Celu"] = celu;
  t["Clip"] = clip;
  t["Cos"] = one<cos>;
  t["Div"] = divide;
  t["Elu"] = [](const Call& c) { return Tensors{elu(c[0], c.number("alpha", 1))}; };
  t["Equal"] = two<equal>;
  t["Erf"] = one<erf>;
  t["Exp"] = one<exp>;
  t["Floor"] = one<floor>;
  t["Greater"] = two<greater>;
  t["GreaterOrEqual"] = two<greater_equal>;
  t["HardSigmoid"] = [](const Call& c) { return Tensors{hard_sigmoid(c[0], c.number("alpha", 0.2), c.number("beta", 0.5))}; };
  t["HardSwish"] = [](const Call& c) { return Tensors{mul(c[0], hard_sigmoid(c[0]))}; };
  t["Identity"] = [](const Call& c) { return Tensors{c[0]}; };
  t["IsInf"] = is_infinite;
  t["IsNaN"] = one<isnan>;
  t["LeakyRelu"] = [](const Call& c) { return Tensors{leaky_relu(c[0], c.number("alpha", 0.01))}; };
  t["Less"] = two<less>;
  t["LessOrEqual"] = two<less_equal>;
  t["Log"] = one<log>;
  t["Max"] = [](const Call& c) { return Tensors{chain<maximum>(c)}; };
  t["Mean"] = [](const Call& c) { return Tensors{affine(chain<sum_of>(c), 1.0 / double(c.in.size()))}; };
  t["Min"] = [](const Call& c) { return Tensors{chain<minimum>(c)}; };
  t["Mod"] = modulo;
  t["Mul"] = two<mul>;
  t["Neg"] = one<neg>;
  t["Not"] = one<logical_not>;
  t["Or"] = two<logical_or>;
  t["PRelu"] = parametric_relu;
  t["Pow"] = power;
  t["Reciprocal"] = one<reciprocal>;
  t["Relu"] = one<relu>;
  t["Round"] = one<round>;
  t["Selu"] = selu;
  t["Shrink"] = shrink;
  t["Sigmoid"] = one<sigmoid>;
  t["Sign"] = one<sign>;
  t["Sin"] = one<sin>;
  t["Softplus"] = [](const Call& c) { return Tensors{softplus(c[0])}; };
  t["Softsign"] = [](const Call& c) { return Tensors{div(c[0], affine(abs(c[0]), 1, 1))}; };
  t["Sqrt"] = one<sqrt>;
  t["Sub"] = two<sub>;
  t["Sum"] = [](const Call& c) { return Tensors{chain<sum_of>(c)}; };
  t["Tan"] = [](const Call& c) { return Tensors{div(sin(c[0]), cos(c[0]))}; };
  t["Tanh"] = one<tanh>;
  t["ThresholdedRelu"] = thresholded_relu;
  t["Where"] = [](const Call& c) { return Tensors{where(c[0], c[1], c[2])}; };
  t["Xor"] = two<logical_xor>;
}
}  // namespace reckon::onnx
