// backend/cpu/rows_plain: one loop an operation, in double or in the integer type itself; the compiler vectorizes what it can.
#include "reckon/backend/cpu/rows_plain.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "reckon/backend/cpu/count.h"
#include "reckon/base/error.h"

namespace reckon::cpu {
// The quotient of what fmod leaves is whole up to rounding, which the last step takes away.
double floor_divide_of(double a, double b) {
  if (b == 0) return a / b;
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}
double remainder_of(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

namespace {
template <class T, class F>
void each1(const Loop& loop, const void* x, void* y, int64_t begin, int64_t end, F f) {
  const int64_t sy = loop.inner_stride(0), sx = loop.inner_stride(1);
  walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
    const T* from = static_cast<const T*>(x) + at[1];
    T* to = static_cast<T*>(y) + at[0];
    for (int64_t i = 0; i < n; ++i) {
      RECKON_COUNT_VECTOR(1);
      to[i * sy] = f(from[i * sx]);
    }
  });
}

template <class T, class Out, class F>
void each2(const Loop& loop, const void* a, const void* b, void* out, int64_t begin, int64_t end, F f) {
  const int64_t so = loop.inner_stride(0), sa = loop.inner_stride(1), sb = loop.inner_stride(2);
  walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
    const T *u = static_cast<const T*>(a) + at[1], *v = static_cast<const T*>(b) + at[2];
    Out* to = static_cast<Out*>(out) + at[0];
    for (int64_t i = 0; i < n; ++i) {
      RECKON_COUNT_VECTOR(1);
      to[i * so] = f(u[i * sa], v[i * sb]);
    }
  });
}

double max_f64(double a, double b) { return std::isnan(a) || a > b ? a : b; }
double min_f64(double a, double b) { return std::isnan(a) || a < b ? a : b; }

void binary_f64(Binary op, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (op) {
    case Binary::add:
      return each2<double, double>(l, a, b, out, begin, end, [](double u, double v) { return u + v; });
    case Binary::sub:
      return each2<double, double>(l, a, b, out, begin, end, [](double u, double v) { return u - v; });
    case Binary::mul:
      return each2<double, double>(l, a, b, out, begin, end, [](double u, double v) { return u * v; });
    case Binary::div:
      return each2<double, double>(l, a, b, out, begin, end, [](double u, double v) { return u / v; });
    case Binary::max:
      return each2<double, double>(l, a, b, out, begin, end, max_f64);
    case Binary::min:
      return each2<double, double>(l, a, b, out, begin, end, min_f64);
    case Binary::pow:
      return each2<double, double>(l, a, b, out, begin, end, [](double u, double v) { return std::pow(u, v); });
    case Binary::floor_divide:
      return each2<double, double>(l, a, b, out, begin, end, floor_divide_of);
    case Binary::remainder:
      return each2<double, double>(l, a, b, out, begin, end, remainder_of);
  }
}

// The quotient that rounds towards minus infinity; the smallest number by -1 wraps to itself.
template <class T, class U>
T floor_divide_whole(T a, T b) {
  if (b == 0) return 0;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return T(U(0) - U(a));
  const T quotient = T(a / b);
  return T(quotient - (a % b != 0 && (a < 0) != (b < 0)));
}
template <class T, class U>
T remainder_whole(T a, T b) {
  return T(U(a) - U(floor_divide_whole<T, U>(a, b)) * U(b));
}
template <class T, class U>
T power_whole(T a, T b) {
  if constexpr (std::is_signed_v<T>)
    if (b < 0) return a == 1 ? T(1) : a == -1 ? T(b % 2 ? -1 : 1) : T(0);
  U power = 1, square = U(a);
  for (U left = U(b); left > 0; left = U(left / 2), square = U(square * square))
    if (left % 2) power = U(power * square);
  return T(power);
}

// Unsigned arithmetic wraps where signed overflow would be undefined. U is at least as wide as int, or products would be signed again.
template <class T, class U>
void binary_whole(Binary op, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (op) {
    case Binary::add:
      return each2<T, T>(l, a, b, out, begin, end, [](T u, T v) { return T(U(u) + U(v)); });
    case Binary::sub:
      return each2<T, T>(l, a, b, out, begin, end, [](T u, T v) { return T(U(u) - U(v)); });
    case Binary::mul:
      return each2<T, T>(l, a, b, out, begin, end, [](T u, T v) { return T(U(u) * U(v)); });
    case Binary::max:
      return each2<T, T>(l, a, b, out, begin, end, [](T u, T v) { return std::max(u, v); });
    case Binary::min:
      return each2<T, T>(l, a, b, out, begin, end, [](T u, T v) { return std::min(u, v); });
    case Binary::pow:
      return each2<T, T>(l, a, b, out, begin, end, power_whole<T, U>);
    case Binary::floor_divide:
      return each2<T, T>(l, a, b, out, begin, end, floor_divide_whole<T, U>);
    case Binary::remainder:
      return each2<T, T>(l, a, b, out, begin, end, remainder_whole<T, U>);
    case Binary::div:
      fail("binary: whole numbers have no quotients; the operation casts them to f32");
  }
}

void binary_bool(Binary op, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  if (op == Binary::add || op == Binary::max)
    return each2<uint8_t, uint8_t>(l, a, b, out, begin, end, [](uint8_t u, uint8_t v) { return uint8_t(u | v); });
  if (op == Binary::mul || op == Binary::min)
    return each2<uint8_t, uint8_t>(l, a, b, out, begin, end, [](uint8_t u, uint8_t v) { return uint8_t(u & v); });
  fail("binary: bool has no differences, quotients and powers");
}

template <class T, class U>
void unary_whole(Unary op, const Loop& l, const void* x, void* y, int64_t begin, int64_t end) {
  switch (op) {
    case Unary::neg:
      return each1<T>(l, x, y, begin, end, [](T v) { return T(U(0) - U(v)); });
    case Unary::square:
      return each1<T>(l, x, y, begin, end, [](T v) { return T(U(v) * U(v)); });
    case Unary::abs:
      return each1<T>(l, x, y, begin, end, [](T v) { return v < 0 ? T(U(0) - U(v)) : v; });
    default:
      fail("unary: whole numbers have no such function; the operation casts them to f32");
  }
}

// The two halves widen exactly, so comparing floats compares them.
float number(bfloat16 v) { return float(v); }
float number(float16 v) { return float(v); }
template <class T>
T number(T v) {
  return v;
}

template <class T>
void compare_as(Compare op, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (op) {
    case Compare::eq:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) == number(v); });
    case Compare::ne:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) != number(v); });
    case Compare::lt:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) < number(v); });
    case Compare::le:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) <= number(v); });
    case Compare::gt:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) > number(v); });
    case Compare::ge:
      return each2<T, uint8_t>(l, a, b, out, begin, end, [](T u, T v) { return number(u) >= number(v); });
  }
}

void unary_f64(Unary op, const Loop& loop, const void* x, void* y, int64_t begin, int64_t end) {
  switch (op) {
    case Unary::neg:
      return each1<double>(loop, x, y, begin, end, [](double v) { return -v; });
    case Unary::exp:
      return each1<double>(loop, x, y, begin, end, [](double v) { return std::exp(v); });
    case Unary::log:
      return each1<double>(loop, x, y, begin, end, [](double v) { return std::log(v); });
    case Unary::sqrt:
      return each1<double>(loop, x, y, begin, end, [](double v) { return std::sqrt(v); });
    case Unary::rsqrt:
      return each1<double>(loop, x, y, begin, end, [](double v) { return 1 / std::sqrt(v); });
    case Unary::square:
      return each1<double>(loop, x, y, begin, end, [](double v) { return v * v; });
    case Unary::reciprocal:
      return each1<double>(loop, x, y, begin, end, [](double v) { return 1 / v; });
    case Unary::abs:
      return each1<double>(loop, x, y, begin, end, [](double v) { return std::abs(v); });
  }
}

template <class T>
void where_part(const Loop& l, const void* condition, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  const int64_t so = l.inner_stride(0), sc = l.inner_stride(1), sa = l.inner_stride(2), sb = l.inner_stride(3);
  walk(l, begin, end, [&](int64_t n, const int64_t* at) {
    const uint8_t* c = static_cast<const uint8_t*>(condition) + at[1];
    const T *u = static_cast<const T*>(a) + at[2], *v = static_cast<const T*>(b) + at[3];
    T* to = static_cast<T*>(out) + at[0];
    for (int64_t i = 0; i < n; ++i) to[i * so] = c[i * sc] ? u[i * sa] : v[i * sb];
  });
}
}  // namespace

void unary_plain(Unary op, DType dtype, const Loop& loop, const void* x, void* y, int64_t begin, int64_t end) {
  switch (dtype) {
    case DType::f64:
      return unary_f64(op, loop, x, y, begin, end);
    case DType::i32:
      return unary_whole<int32_t, uint32_t>(op, loop, x, y, begin, end);
    case DType::i64:
      return unary_whole<int64_t, uint64_t>(op, loop, x, y, begin, end);
    default:
      return unary_whole<uint8_t, uint32_t>(op, loop, x, y, begin, end);
  }
}

void binary_plain(Binary op, DType dtype, const Loop& loop, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (dtype) {
    case DType::f64:
      return binary_f64(op, loop, a, b, out, begin, end);
    case DType::i32:
      return binary_whole<int32_t, uint32_t>(op, loop, a, b, out, begin, end);
    case DType::i64:
      return binary_whole<int64_t, uint64_t>(op, loop, a, b, out, begin, end);
    case DType::boolean:
      return binary_bool(op, loop, a, b, out, begin, end);
    default:
      return binary_whole<uint8_t, uint32_t>(op, loop, a, b, out, begin, end);
  }
}

void affine_whole(DType dtype, const void* x, int64_t alpha, int64_t beta, void* y, int64_t begin, int64_t end) {
  const auto run = [&]<class T>(T) {
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(2);
      static_cast<T*>(y)[i] = T(uint64_t(alpha) * uint64_t(static_cast<const T*>(x)[i]) + uint64_t(beta));
    }
  };
  if (dtype == DType::i32) return run(int32_t());
  if (dtype == DType::i64) return run(int64_t());
  run(uint8_t());
}

void compare_plain(Compare op, DType dtype, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (dtype) {
    case DType::f32:
      return compare_as<float>(op, l, a, b, out, begin, end);
    case DType::f64:
      return compare_as<double>(op, l, a, b, out, begin, end);
    case DType::bf16:
      return compare_as<bfloat16>(op, l, a, b, out, begin, end);
    case DType::f16:
      return compare_as<float16>(op, l, a, b, out, begin, end);
    case DType::i32:
      return compare_as<int32_t>(op, l, a, b, out, begin, end);
    case DType::i64:
      return compare_as<int64_t>(op, l, a, b, out, begin, end);
    default:
      return compare_as<uint8_t>(op, l, a, b, out, begin, end);
  }
}

void where_plain(int64_t element_bytes, const Loop& loop, const void* condition, const void* a, const void* b, void* out, int64_t begin,
                 int64_t end) {
  switch (element_bytes) {
    case 1:
      return where_part<uint8_t>(loop, condition, a, b, out, begin, end);
    case 2:
      return where_part<uint16_t>(loop, condition, a, b, out, begin, end);
    case 4:
      return where_part<uint32_t>(loop, condition, a, b, out, begin, end);
    default:
      return where_part<uint64_t>(loop, condition, a, b, out, begin, end);
  }
}
}  // namespace reckon::cpu
