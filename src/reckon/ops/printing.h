// ops/printing: tensors as text, as NumPy prints arrays. Reads values and makes no operation, so that no plan or trace sees it.
#pragma once
#include <string>

#include "reckon/tensor/tensor.h"

namespace reckon {

struct TextOptions {
  int precision = 8;               // digits behind the point at most; less where fewer give the value back
  int64_t summarize_above = 1000;  // elements: of larger tensors each axis shows its ends alone
  int64_t edge = 3;                // elements at each end
  int width = 75;                  // columns after which a row goes on in the next line
  bool suffix = true;              // "  f32[2, 3]" behind the values
};
/// "[[1.  2.5]\n [3.  4. ]]  f32[2, 2]". A tensor on meta has no values: "f32[2, 2] on meta, without values"; an undefined one is
/// "undefined".
std::string to_text(const Tensor& tensor, const TextOptions& options = {});

template <class Stream>
auto operator<<(Stream& out, const Tensor& tensor) -> decltype(out << std::string()) {
  return out << to_text(tensor);
}
}  // namespace reckon
