// tests/backend/rows_support: typed buffers, a simple random stream, and runs of one check on every instruction set and thread count.
#pragma once
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

inline const DType kFloats[] = {DType::f32, DType::f64, DType::bf16, DType::f16};

/// n elements of a float or integer dtype, read and written as doubles; 64 guard bytes behind them must stay as they were.
class Buffer {
 public:
  Buffer(DType dtype, int64_t n, double value = 0) : dtype_(dtype), n_(n), bytes_(size_t(n * size_of(dtype)) + 64, 0xA5) {
    for (int64_t i = 0; i < n; ++i) set(i, value);
  }
  ~Buffer() {
    const bool intact = std::all_of(bytes_.begin() + n_ * size_of(dtype_), bytes_.end(), [](uint8_t byte) { return byte == 0xA5; });
    EXPECT_TRUE(intact) << "wrote behind the end of a buffer of " << n_ << " " << name_of(dtype_);
  }
  Buffer(const Buffer&) = default;
  Buffer& operator=(const Buffer&) = default;
  DType dtype() const { return dtype_; }
  int64_t size() const { return n_; }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }
  double operator[](int64_t i) const {
    const void* p = bytes_.data();
    switch (dtype_) {
      case DType::i32:
        return static_cast<const int32_t*>(p)[i];
      case DType::i64:
        return double(static_cast<const int64_t*>(p)[i]);
      case DType::u8:
      case DType::boolean:
        return static_cast<const uint8_t*>(p)[i];
      default:
        return load_float(dtype_, p, i);
    }
  }
  void set(int64_t i, double value) {
    void* p = bytes_.data();
    switch (dtype_) {
      case DType::i32:
        static_cast<int32_t*>(p)[i] = int32_t(value);
        break;
      case DType::i64:
        static_cast<int64_t*>(p)[i] = int64_t(value);
        break;
      case DType::u8:
      case DType::boolean:
        static_cast<uint8_t*>(p)[i] = uint8_t(value);
        break;
      default:
        store_float(dtype_, p, i, value);
    }
  }
  bool same_bytes(const Buffer& other) const { return bytes_ == other.bytes_; }

 private:
  DType dtype_;
  int64_t n_;
  std::vector<uint8_t> bytes_;
};

/// Uniform in [low, high), rounded to the dtype; the stream is named by the seed.
inline Buffer uniform(DType dtype, int64_t n, uint64_t seed, double low = -1, double high = 1) {
  Buffer b(dtype, n);
  for (int64_t i = 0; i < n; ++i) b.set(i, low + (high - low) * double(mix_key(seed, uint64_t(i)) >> 11) * 0x1p-53);
  return b;
}

/// Runs the check for each instruction set that this machine and build have. On one thread: thousands of tiny parallel regions would take
/// longer than the kernels, and expect_same_on_any_threads says that more threads change nothing.
template <class Check>
void on_every_target(Check check) {
  const int before = thread_count();
  set_thread_count(1);
  for (const int64_t target : {int64_t(HWY_AVX3), int64_t(HWY_AVX2), int64_t(HWY_STATIC_TARGET)}) {
    hwy::SetSupportedTargetsForTest(0);
    if (target != int64_t(HWY_STATIC_TARGET) && (hwy::SupportedTargets() & target) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  set_thread_count(before);
}

/// run() -> std::vector<Buffer>, the outputs; they must be the same bytes with 1, 2 and 5 threads.
template <class Run>
void expect_same_on_any_threads(Run run) {
  const int before = thread_count();
  set_thread_count(1);
  const std::vector<Buffer> one = run();
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    const std::vector<Buffer> more = run();
    for (size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(one[i].same_bytes(more[i])) << "output " << i << " differs with " << threads << " threads";
  }
  set_thread_count(before);
}

/// Largest error of got against want, where each may differ by half a unit of the dtype's rounding of want plus `tolerance`.
/// Fails with the first element that is off; NaN matches NaN and an infinity itself.
inline void expect_near(const Buffer& got, const std::vector<double>& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), int64_t(want.size())) << what;
  const double half_unit = epsilon(got.dtype()) / 2;
  for (int64_t i = 0; i < got.size(); ++i) {
    const double w = want[size_t(i)], g = got[i];
    if (std::isnan(w) && std::isnan(g)) continue;
    if (w == g) continue;
    ASSERT_LE(std::abs(g - w), tolerance + half_unit * std::abs(w)) << what << ", element " << i << ": got " << g << ", want " << w;
  }
}

inline double max_abs(const std::vector<double>& v) {
  double most = 0;
  for (const double value : v) most = std::max(most, std::abs(value));
  return most;
}

inline std::vector<double> values(const Buffer& b) {
  std::vector<double> v(size_t(b.size()));
  for (int64_t i = 0; i < b.size(); ++i) v[size_t(i)] = b[i];
  return v;
}
}  // namespace reckon::cpu
