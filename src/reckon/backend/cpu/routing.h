// backend/cpu/routing: the choice of experts, and rows to and from them. Every place that is read from memory is checked before it is used.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Choices of one token that fit on a stack; more than any model has.
inline constexpr int64_t kMostChoices = 64;

/// See ops/routing.h for the shapes and the order in which places are given.
struct Route {
  DType dtype = DType::f32;
  int64_t tokens = 0, experts = 0, k = 0, capacity = 0;
  const void* probabilities = nullptr;  // [tokens, experts]
  int32_t* chosen = nullptr;            // [tokens, k]
  int32_t* slots = nullptr;             // [tokens, k]
  int32_t* rows = nullptr;              // [experts, capacity]
  int32_t* load = nullptr;              // [experts]
  int32_t* dropped = nullptr;           // [1]
};
void route(const Route& args);

/// y[n, j] = x[n, ids[n, j]], NaN for an id outside of [0, experts).
void pick(DType dtype, const void* x, const int32_t* ids, void* y, int64_t tokens, int64_t experts, int64_t k);
/// dx = 0, then dx[n, ids[n, j]] += dy[n, j] in the order of j; ids outside are left out.
void pick_back(DType dtype, const void* dy, const int32_t* ids, void* dx, int64_t tokens, int64_t experts, int64_t k);

/// Tokens' rows [tokens, cols] and experts' rows [places, cols]. Slots and rows that point nowhere count as empty.
struct Exchange {
  DType dtype = DType::f32;
  int64_t tokens = 0, k = 0, places = 0, cols = 0;
  const int32_t* slots = nullptr;  // [tokens, k]
  const int32_t* rows = nullptr;   // [places]
  const void* weights = nullptr;   // [tokens, k]; null: 1
  const void* x = nullptr;         // what is moved
  void* y = nullptr;
};
/// y[place] = weights[rows[place]] * x[rows[place] / k], or 0.
void dispatch_rows(const Exchange& args);
/// y[n] = sum over j of weights[n, j] * x[slots[n, j]], in float32 or float64, rounded once.
void combine_rows(const Exchange& args);
/// y[n, j] = sum over c of x[n, c] * other[slots[n, j], c], or 0.
void dot_rows(const Exchange& args, const void* other);
}  // namespace reckon::cpu
