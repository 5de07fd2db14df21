// tests: a CPU device whose every kernel runs through a function of the test, which sees the call from both sides.
#pragma once
#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "reckon/backend/cpu/device.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/engine/op.h"

namespace watched {
using namespace reckon;

/// Runs the kernel of operation `id`, and whatever it likes before and after.
using Around = void (*)(int id, Kernel kernel, const KernelArgs& args);
inline Around around = [](int, Kernel kernel, const KernelArgs& args) { kernel(args); };

template <int kId>
void run(const KernelArgs& args) {
  around(kId, cpu::kernel_table()[kId].run, args);
}
template <int... kIds>
const KernelRow* make_table(std::integer_sequence<int, kIds...>) {
  static const std::array<KernelRow, sizeof...(kIds)> rows = {KernelRow{run<kIds>, cpu::kernel_table()[kIds].book}...};
  return rows.data();
}
inline const KernelRow* table() { return make_table(std::make_integer_sequence<int, kKernelCount>()); }

/// Addresses for more than any test needs; pages come when they are touched.
class Pages final : public RawMemory {
 public:
  Pages()
      : base_(static_cast<std::byte*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    if (base_ == MAP_FAILED) std::abort();
  }
  ~Pages() override { munmap(base_, kBytes); }
  void grow(int64_t bytes) override { RECKON_ASSERT(bytes <= int64_t(kBytes)); }
  std::byte* base() const override { return base_; }

 private:
  static constexpr size_t kBytes = size_t(8) << 30;
  std::byte* base_;
};

class WatchedDevice final : public Device {
 public:
  explicit WatchedDevice(const DeviceProfile& profile) : Device(profile, Mode::real, new Pages, table()) {}
  Ref<Device> open_meta() const override { return open_cpu(Mode::meta, profile()); }
  void copy_in(void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void copy_out(void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
  int64_t count_nonfinite(const void* data, DType dtype, int64_t count) override { return cpu::count_nonfinite(dtype, data, count); }
};
inline Ref<Device> open_watched(const DeviceProfile& profile) { return Ref<Device>(new WatchedDevice(profile)); }
}  // namespace watched
