// backend/cpu/random_whole: keyed fills with whole numbers, one word of Philox an element.
#include <type_traits>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/random.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"

namespace reckon::cpu {
namespace {
// draw(word) for each element, where four neighbours share one call of Philox.
template <class T, class Draw>
void fill_from_words(void* data, int64_t n, uint64_t key, int64_t first, Draw draw) {
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    std::array<uint32_t, 4> words{};
    int64_t block = -1;
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(10);
      const int64_t at = first + i;
      if (at / 4 != block) {
        block = at / 4;
        words = philox(key, 0, uint64_t(block));
      }
      const int64_t value = draw(words[size_t(at % 4)]);
      if constexpr (std::is_class_v<T>) {
        static_cast<T*>(data)[i] = T(float(value));
      } else {
        static_cast<T*>(data)[i] = T(value);
      }
    }
  });
}

template <class Draw>
void fill_any(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, Draw draw) {
  switch (dtype) {
    case DType::f32:
      return fill_from_words<float>(data, n, key, first, draw);
    case DType::f64:
      return fill_from_words<double>(data, n, key, first, draw);
    case DType::bf16:
      return fill_from_words<bfloat16>(data, n, key, first, draw);
    case DType::f16:
      return fill_from_words<float16>(data, n, key, first, draw);
    case DType::i32:
      return fill_from_words<int32_t>(data, n, key, first, draw);
    case DType::i64:
      return fill_from_words<int64_t>(data, n, key, first, draw);
    case DType::u8:
    case DType::boolean:
      return fill_from_words<uint8_t>(data, n, key, first, draw);
    case DType::f8e4m3fn:
      return fill_from_words<float8_e4m3fn>(data, n, key, first, draw);
    case DType::f8e5m2:
      return fill_from_words<float8_e5m2>(data, n, key, first, draw);
  }
}
}  // namespace

void fill_integers(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, int64_t low, int64_t high) {
  const uint64_t count = uint64_t(high) - uint64_t(low);
  fill_any(dtype, data, n, key, first, [=](uint32_t word) { return low + int64_t((uint64_t(word) * count) >> 32); });
}

void fill_bernoulli(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double probability) {
  const double limit = probability * 0x1p32;  // 2^32 for 1: every word is below
  fill_any(dtype, data, n, key, first, [=](uint32_t word) { return int64_t(double(word) < limit); });
}
}  // namespace reckon::cpu
