// What the programs of docs/tour share: SHOW runs a line and prints it with its cost; sections, one for each listing, come apart by an
// empty line. No program prints what depends on time, threads or instruction set, and each ends with an error where something said does not
// hold.
#pragma once
#include <cmath>
#include <cstdio>
#include <initializer_list>
#include <optional>

#include "reckon/base/text.h"
#include "reckon/reckon.h"

/// Runs the line, then prints it and what it cost. What the line declares can be used after it: SHOW(cpu, Tensor y = exp(x));
#define SHOW(device, ...)          \
  tour::running().emplace(device); \
  __VA_ARGS__;                     \
  tour::print_cost(#__VA_ARGS__)

namespace tour {
using namespace reckon;

inline std::optional<CostScope>& running() {
  static std::optional<CostScope> scope;
  return scope;
}

/// Prints a line with {} placeholders.
template <class... Args>
void say(std::string_view format, const Args&... args) {
  std::printf("%s\n", text(format, args...).c_str());
}

inline void print_cost(std::string_view line) {
  const std::string cost = to_string(running()->take());
  running().reset();
  for (const std::string_view word : {"const ", "double ", "Tensor ", "Tensors "})
    if (line.starts_with(word)) line.remove_prefix(word.size());
  say("{}  |  {}", line, cost);
}

/// What an error says; an error if there is none.
template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  fail("what should be refused was done");
}

/// "[3, 2], strides (1, 3), offset 0".
inline std::string layout_of(const Tensor& x) {
  std::string strides;
  for (int axis = 0; axis < x.rank(); ++axis) strides += (axis ? ", " : "") + std::to_string(x.stride(axis));
  return text("{}, strides ({}), offset {}", x.shape(), strides, x.layout().offset);
}

/// The largest difference between two tensors of one shape, relative to the largest value of the second.
inline double relative_difference(const Tensor& a, const Tensor& b) {
  return max(abs(sub(a.detached(), b.detached()))).item() / max(abs(b.detached())).item();
}

/// A new tensor of numbers with mean 0 and standard deviation `std`; its elements are functions of the key alone.
inline Tensor normal(Device& device, const Shape& shape, uint64_t key, double std = 1, DType dtype = DType::f32) {
  Tensor x = empty(device, {shape, dtype});
  fill_normal_(x, key, 0, std);
  return x;
}

/// The sections of a program, on the CPU or without data. Two lanes on every machine: what they need is part of a peak.
inline int run(std::initializer_list<void (*)(Device&)> sections, Mode mode = Mode::real) {
  try {
    const Ref<Device> device = open_cpu(mode, {.lanes = 2});
    bool first = true;
    for (const auto section : sections) {
      if (!first) std::printf("\n");
      section(*device);
      first = false;
    }
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
}  // namespace tour
