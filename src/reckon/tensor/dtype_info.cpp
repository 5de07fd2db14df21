#include "reckon/tensor/dtype_info.h"

#include <limits>

#include "reckon/base/error.h"

namespace reckon {
namespace {
// In the order of promotion; equal ranks meet in f32.
int rank_of(DType dtype) {
  switch (dtype) {
    case DType::boolean:
      return 0;
    case DType::u8:
      return 1;
    case DType::i32:
      return 2;
    case DType::i64:
      return 3;
    case DType::bf16:
    case DType::f16:
      return 4;
    case DType::f32:
      return 5;
    default:
      return 6;
  }
}
}  // namespace

bool is_integer(DType dtype) { return dtype == DType::i32 || dtype == DType::i64 || dtype == DType::u8; }

FloatInfo finfo(DType dtype) {
  check(is_float(dtype) || is_float8(dtype), "finfo: {} is no floating-point type; see iinfo", dtype);
  struct Smallest {
    double normal, subnormal;
  };
  const auto smallest = [&]() -> Smallest {
    switch (dtype) {
      case DType::f64:
        return {0x1p-1022, 0x1p-1074};
      case DType::bf16:
        return {0x1p-126, 0x1p-133};
      case DType::f16:
        return {0x1p-14, 0x1p-24};
      case DType::f8e4m3fn:
        return {0x1p-6, 0x1p-9};
      case DType::f8e5m2:
        return {0x1p-14, 0x1p-16};
      default:
        return {0x1p-126, 0x1p-149};
    }
  }();
  const double largest = largest_finite(dtype);
  return {dtype, int(8 * size_of(dtype)), epsilon(dtype), largest, -largest, smallest.normal, smallest.subnormal, dtype != DType::f8e4m3fn};
}

IntegerInfo iinfo(DType dtype) {
  switch (dtype) {
    case DType::boolean:
      return {dtype, 8, 0, 1};
    case DType::u8:
      return {dtype, 8, 0, 255};
    case DType::i32:
      return {dtype, 32, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};
    case DType::i64:
      return {dtype, 64, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()};
    default:
      fail("iinfo: {} is no whole-number type; see finfo", dtype);
  }
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  check(!is_float8(a) && !is_float8(b), "{} and {} do not meet: 8-bit floats are for storage, cast them to bf16 or f32 first", a, b);
  const int rank_a = rank_of(a), rank_b = rank_of(b);
  if (rank_a == rank_b) return DType::f32;
  return rank_a > rank_b ? a : b;
}
}  // namespace reckon
