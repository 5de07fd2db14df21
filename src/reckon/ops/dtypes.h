// ops/dtypes: how operations choose the dtype of their result, and the arithmetic of whole numbers. docs/dtypes.md has the rules.
#pragma once
#include "reckon/tensor/dtype_info.h"
#include "reckon/tensor/tensor.h"

namespace reckon {

/// The dtype in which the two-operand operations (add, sub, mul, div, pow, maximum, minimum, floor_divide, remainder, comparisons, where)
/// compute with a and b, by torch.result_type: promote(), but a tensor without axes only widens one with axes if it is of a higher kind
/// (bool < whole numbers < floats). Throws Error where promote() does.
DType result_dtype(const Tensor& a, const Tensor& b);
/// The same for an operation, which the Error names. Throws Error for undefined tensors too.
DType result_dtype(const char* operation, const Tensor& a, const Tensor& b);

/// x itself if it is of a floating-point type, else in f32: what exp, sqrt, sigmoid and their like do with whole numbers.
Tensor to_floats(const Tensor& x);

/// Throws Error, naming the operation, if a whole-number type or bool does not hold the value exactly.
void check_holds(const char* operation, DType dtype, double value);

/// Throws Error, naming the operation, if x is of 8-bit floats, which nothing is computed in.
void check_computes(const char* operation, const Tensor& x);
/// The same, and if x is of whole numbers or bool, which have no room for what a mean or variance gives.
void check_has_fractions(const char* operation, const Tensor& x);

/// Ids for embedding, gather and the losses, which read i32: i64 ones are cast, after what lies beyond i32 was moved to its ends, so that
/// no id that is out of range becomes one that is not. Tensors of other dtypes are left to the operation.
Tensor to_ids(const Tensor& ids);

/// floor(a / b), broadcast, of numbers: towards minus infinity, as in Python. A whole number divided by 0 is 0. Has no gradient: it is 0
/// wherever there is one.
Tensor floor_divide(const Tensor& a, const Tensor& b);
/// a - floor_divide(a, b) * b: has the sign of b. Of a whole number by 0 it is a.
Tensor remainder(const Tensor& a, const Tensor& b);

/// Whole numbers in [low, high), equally likely to one in 2^32, into a tensor of any type but the 8-bit floats that
/// holds them; element i is a function of
/// (key, i) only. Throws Error if x's dtype does not hold the range exactly, or for more than 2^32 values.
void fill_integers_(const Tensor& x, uint64_t key, int64_t low, int64_t high);
/// 1 with this probability, else 0, likewise; x of any type but the 8-bit floats.
void fill_bernoulli_(const Tensor& x, uint64_t key, double probability);

// What C++ writes between tensors, and tensors and numbers. A number does not widen: x + 0.5 has x's dtype, f32 for whole numbers if 0.5
// is none.
inline namespace operators {
Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& a);
}  // namespace operators
}  // namespace reckon
