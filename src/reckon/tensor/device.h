// tensor/device: where tensors live. A device is an allocator, a table of kernels and a few services; meta is any device without data.
#pragma once
#include <cstddef>
#include <string>

#include "reckon/base/ref.h"
#include "reckon/memory/allocator.h"
#include "reckon/tensor/shape.h"

namespace reckon {

class Plan;              // engine/op.h
struct GradientJournal;  // tensor/tensor.h
struct KernelArgs;
using Kernel = void (*)(const KernelArgs&);

/// What a backend has for one operation. `book` (may be null) adds to a plan what depends on the kernel: its workspace, and the matrix
/// work it really executes (tiles) where that differs from what is needed. A pure function of the plan; called on meta too.
struct KernelRow {
  Kernel run = nullptr;
  void (*book)(Plan&) = nullptr;
};

/// Calls that were accepted and have not run yet (engine/fuser.h). Whoever touches data from outside of a kernel has them run first.
class PendingCalls {
 public:
  virtual void settle() = 0;

 protected:
  ~PendingCalls() = default;
};

enum class Mode : uint8_t { real, meta };

/// What a plan may know of a machine. Workspace sizes are functions of it, so a machine that is not here can be planned.
struct DeviceProfile {
  std::string name = "cpu";
  int lanes = 2;          // kernels that need scratch run on at most this many threads
  int vector_floats = 0;  // float32 values of a vector, for the work that kernels execute; never for a size. 0: as on this machine
};

class Device : public RefCounted {
 public:
  Device(DeviceProfile profile, Mode mode, RawMemory* memory, const KernelRow* kernels)
      : profile_(std::move(profile)), mode_(mode), memory_(memory), kernels_(kernels), allocator_(*memory) {}
  ~Device() override { delete memory_; }

  const DeviceProfile& profile() const { return profile_; }
  /// No data: meta, or any device while a rehearsal runs.
  bool is_meta() const { return mode_ == Mode::meta || allocator_.in_rehearsal(); }
  Allocator& allocator() { return allocator_; }
  /// Address of offset 0; null where there is no data.
  std::byte* base() const { return is_meta() ? nullptr : memory_->base(); }
  /// Bytes of addresses from base() on that belong to this device alone; 0 where there is no data.
  int64_t reserved_bytes() const { return is_meta() ? 0 : memory_->reserved(); }
  const KernelRow& kernel(int id) const { return kernels_[id]; }

  /// Where tensors of this device note their gradient before it changes, while a rehearsal runs; else null.
  GradientJournal* gradient_journal() const { return gradient_journal_; }
  void set_gradient_journal(GradientJournal* journal) { gradient_journal_ = journal; }

  PendingCalls* pending() const { return pending_; }
  void set_pending(PendingCalls* calls) { pending_ = calls; }
  /// Runs a group of element-wise calls in one pass (engine/fused.h); null: this backend does not, and nothing is fused.
  virtual const KernelRow* fused_kernel() const { return nullptr; }

  /// A fresh device of the same kind and profile, without data.
  virtual Ref<Device> open_meta() const = 0;
  /// Host to device and back; bytes may be 0. Not called on meta.
  virtual void copy_in(void* device, const void* host, size_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, size_t bytes) = 0;
  /// Returns when all kernels launched so far are done.
  virtual void synchronize() = 0;
  /// Number of NaN and infinite values among `count` contiguous elements.
  virtual int64_t count_nonfinite(const void* data, DType dtype, int64_t count) = 0;

 private:
  DeviceProfile profile_;
  Mode mode_;
  RawMemory* memory_;  // owned
  const KernelRow* kernels_;
  Allocator allocator_;
  GradientJournal* gradient_journal_ = nullptr;
  PendingCalls* pending_ = nullptr;
};
}  // namespace reckon
