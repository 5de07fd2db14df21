#include "reckon/backend/cpu/device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "reckon/backend/cpu/fused.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {

// One long range of addresses, made usable from the front as the allocator asks. Nothing is given back before the end: a page that was
// touched once stays, because first touches are what is slow.
class MappedMemory final : public RawMemory {
 public:
  MappedMemory() {
    // Addresses cost nothing; take fewer where the system limits them.
    for (reserved_ = int64_t(1) << 40; reserved_ >= kStep; reserved_ /= 2) {
      void* range = mmap(nullptr, size_t(reserved_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (range != MAP_FAILED) {
        base_ = static_cast<std::byte*>(range);
        return;
      }
    }
    fail_as(Failure::memory, "the system refuses to reserve addresses: {}", std::strerror(errno));
  }
  ~MappedMemory() override { munmap(base_, size_t(reserved_)); }

  void grow(int64_t bytes) override { open((bytes + kStep - 1) / kStep * kStep, bytes); }
  void grow_exactly(int64_t bytes) override { open((bytes + kPage - 1) / kPage * kPage, bytes); }
  void protect(int64_t offset, int64_t bytes, bool accessible) override {
    check_as(Failure::memory, offset + bytes <= reserved_, "out of memory: {} are needed, the system lets this process address {}",
             human_bytes(offset + bytes), human_bytes(reserved_));
    if (!accessible) madvise(base_ + offset, size_t(bytes), MADV_DONTNEED);
    // Apart from the check: arguments are evaluated in any order, errno before the call that sets it.
    const bool done = mprotect(base_ + offset, size_t(bytes), accessible ? PROT_READ | PROT_WRITE : PROT_NONE) == 0;
    check_as(Failure::memory, done, "the system refuses to protect {} ({})", human_bytes(bytes), std::strerror(errno));
  }
  std::byte* base() const override { return base_; }
  int64_t reserved() const override { return reserved_; }

 private:
  // Makes [0, end) usable, of which `bytes` are asked for.
  void open(int64_t end, int64_t bytes) {
    if (end <= usable_) return;
    check_as(Failure::memory, end <= reserved_, "out of memory: {} are needed, the system lets this process address {}", human_bytes(bytes),
             human_bytes(reserved_));
    const bool opened = mprotect(base_ + usable_, size_t(end - usable_), PROT_READ | PROT_WRITE) == 0;
    check_as(Failure::memory, opened, "out of memory: the system refuses {} ({})", human_bytes(bytes), std::strerror(errno));
    madvise(base_ + usable_, size_t(end - usable_), MADV_HUGEPAGE);  // a wish; without it the pages are small
    usable_ = end;
  }

  static constexpr int64_t kStep = 32 << 20;  // a multiple of the huge page
  static constexpr int64_t kPage = 4096;
  std::byte* base_ = nullptr;
  int64_t reserved_ = 0, usable_ = 0;
};

// Offsets without bytes.
class NoMemory final : public RawMemory {
 public:
  void grow(int64_t) override {}
  std::byte* base() const override { return nullptr; }
};

// An empty tensor has no address, and memcpy wants one even for nothing.
void copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

class CpuDevice final : public Device {
 public:
  CpuDevice(const DeviceProfile& profile, Mode mode, Guard guard)
      : Device(profile, mode, mode == Mode::meta ? static_cast<RawMemory*>(new NoMemory) : new MappedMemory, cpu::kernel_table()) {
    if (mode == Mode::real) allocator().set_guard(guard);
  }
  void copy_in(void* device, const void* host, size_t bytes) override { copy(device, host, bytes); }
  void copy_out(void* host, const void* device, size_t bytes) override { copy(host, device, bytes); }
  const KernelRow* fused_kernel() const override { return &kFused; }
  Ref<Device> open_meta() const override { return open_cpu(Mode::meta, profile()); }
  void synchronize() override {}
  int64_t count_nonfinite(const void* data, DType dtype, int64_t count) override { return cpu::count_nonfinite(dtype, data, count); }

 private:
  static constexpr KernelRow kFused{cpu::run_fused, cpu::book_fused};
};
}  // namespace

DeviceProfile local_cpu_profile() { return {"cpu", std::max(2, core_count())}; }

Ref<Device> open_cpu(Mode mode, const DeviceProfile& profile, Guard guard) { return Ref<Device>(new CpuDevice(profile, mode, guard)); }
}  // namespace reckon
