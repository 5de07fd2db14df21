// tensor/dtype_info: what a dtype can hold, and the dtype that two of them meet in. It knows no tensors.
#pragma once
#include "reckon/tensor/dtype.h"

namespace reckon {

/// Limits of a floating-point type, the 8-bit ones included; as numpy.finfo and torch.finfo.
struct FloatInfo {
  DType dtype;
  int bits;                   // of one element
  double eps;                 // from 1 to the next larger value
  double max, min;            // largest and lowest finite value
  double smallest_normal;     // also "tiny"
  double smallest_subnormal;  // the smallest value above 0
  bool has_infinity;          // f8e4m3fn has none: what is too large becomes NaN
};
/// Throws Error for an integer type.
FloatInfo finfo(DType dtype);

/// Limits of a whole-number type; bool holds 0 and 1. As numpy.iinfo and torch.iinfo.
struct IntegerInfo {
  DType dtype;
  int bits;
  int64_t min, max;
};
/// Throws Error for a floating-point type.
IntegerInfo iinfo(DType dtype);

/// i32, i64 and u8; bool is none.
bool is_integer(DType dtype);

/// Where two operands of these types meet: the wider of bool < u8 < i32 < i64; a float with anything that is not one stays what it is; of
/// two floats the wider, f32 for bf16 and f16, neither of which holds the other. The rules of torch.promote_types. Throws Error for two
/// different types of which one is an 8-bit float: those are for storage.
DType promote(DType a, DType b);
}  // namespace reckon
