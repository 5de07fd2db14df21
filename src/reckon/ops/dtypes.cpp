#include "reckon/ops/dtypes.h"

#include <cmath>

#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
enum class Kind : uint8_t { boolean, whole, floating };
Kind kind_of(DType dtype) {
  if (dtype == DType::boolean) return Kind::boolean;
  return is_integer(dtype) ? Kind::whole : Kind::floating;
}
// Whole numbers up to this are exact.
int64_t exact_up_to(DType dtype) { return kind_of(dtype) == Kind::floating ? int64_t(2 / epsilon(dtype)) : iinfo(dtype).max; }
Tensor in_f32(const Tensor& x) { return size_of(x.dtype()) == 2 ? cast(x, DType::f32) : x; }
Tensor scalar_of(const Tensor& x, double value) { return full(x.device(), {Shape{}, x.dtype()}, value); }
}  // namespace

DType result_dtype(const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype()) return a.dtype();
  const DType both = promote(a.dtype(), b.dtype());
  if ((a.rank() == 0) == (b.rank() == 0)) return both;
  const Tensor &with_axes = a.rank() ? a : b, &scalar = a.rank() ? b : a;
  return kind_of(scalar.dtype()) > kind_of(with_axes.dtype()) ? both : with_axes.dtype();
}

DType result_dtype(const char* operation, const Tensor& a, const Tensor& b) {
  check(a.defined() && b.defined(), "{}: an input is undefined  (inputs: {} {})", operation, a, b);
  try {
    return result_dtype(a, b);
  } catch (const Error& error) {
    fail("{}: {}  (inputs: {} {})", operation, error.what(), a, b);
  }
}

Tensor to_floats(const Tensor& x) { return kind_of(x.dtype()) == Kind::floating ? x : cast(x, DType::f32); }

void check_holds(const char* operation, DType dtype, double value) {
  if (kind_of(dtype) == Kind::floating) return;
  const IntegerInfo info = iinfo(dtype);
  check(std::trunc(value) == value && value >= double(info.min) && value < double(info.max) + 1, "{}: {} does not hold {}", operation, dtype, value);
}

void check_computes(const char* operation, const Tensor& x) {
  check(!is_float8(x.dtype()), "{}: {} is for storage, and nothing is computed in it: cast it to bf16 or f32 first", operation, x);
}
void check_has_fractions(const char* operation, const Tensor& x) {
  check_computes(operation, x);
  check(is_float(x.dtype()), "{}: {} has no room for a {} of whole numbers; cast it to a float first", operation, x, operation);
}

Tensor to_ids(const Tensor& ids) {
  if (ids.dtype() != DType::i64) return ids;  // the operation says what it wants
  const IntegerInfo narrow = iinfo(DType::i32);
  return cast(minimum(maximum(ids, scalar_of(ids, double(narrow.min))), scalar_of(ids, double(narrow.max))), DType::i32);
}

void fill_integers_(const Tensor& x, uint64_t key, int64_t low, int64_t high) {
  check(low < high, "fill_integers_: wants low < high, got {} and {}", low, high);
  const int64_t most = exact_up_to(x.dtype()), least = kind_of(x.dtype()) == Kind::floating ? -most : iinfo(x.dtype()).min;
  check(low >= least && high - 1 <= most, "fill_integers_: {} holds whole numbers from {} to {}, not [{}, {})", x.dtype(), least, most, low,
        high);
  check(uint64_t(high) - uint64_t(low) <= uint64_t(1) << 32, "fill_integers_: [{}, {}) has more than 2^32 values", low, high);
  check(low >= -(int64_t(1) << 53) && high <= int64_t(1) << 53, "fill_integers_: [{}, {}) is beyond 2^53", low, high);
  call(op::random, {x}, RandomParams{RandomParams::integers, key, double(low), double(high)});
}
void fill_bernoulli_(const Tensor& x, uint64_t key, double probability) {
  check(probability >= 0 && probability <= 1, "fill_bernoulli_: a probability is in [0, 1], got {}", probability);
  call(op::random, {x}, RandomParams{RandomParams::bernoulli, key, probability, 0});
}

inline namespace operators {
Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b) { return affine(a, 1, b); }
Tensor operator-(const Tensor& a, double b) { return affine(a, 1, -b); }
Tensor operator*(const Tensor& a, double b) { return affine(a, b); }
// A quotient, not a product with 1 / b, which may round otherwise. 16 bits might not hold the number: it is divided in f32.
Tensor operator/(const Tensor& a, double b) {
  const Tensor x = to_floats(a), wide = in_f32(x);
  return cast(div(wide, scalar_of(wide, b)), x.dtype());
}
Tensor operator+(double a, const Tensor& b) { return affine(b, 1, a); }
Tensor operator-(double a, const Tensor& b) { return affine(b, -1, a); }
Tensor operator*(double a, const Tensor& b) { return affine(b, a); }
Tensor operator/(double a, const Tensor& b) {
  const Tensor x = to_floats(b), wide = in_f32(x);
  return cast(div(scalar_of(wide, a), wide), x.dtype());
}
Tensor operator-(const Tensor& a) { return neg(a); }
}  // namespace operators
}  // namespace reckon
