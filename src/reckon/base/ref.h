// base/ref: an intrusive reference count and its handle. Light enough for every header.
#pragma once
#include <cstdint>
#include <utility>

namespace reckon {

/// Base of shared objects. The count is atomic; the objects themselves are not.
class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;
  virtual ~RefCounted() = default;

  // Named apart from anything a derived class may call its own: Ref<Derived> must reach these.
  void retain_reference() const { __atomic_fetch_add(&count_, 1, __ATOMIC_RELAXED); }
  void drop_reference() const {
    if (__atomic_fetch_sub(&count_, 1, __ATOMIC_ACQ_REL) == 1) delete this;
  }
  uint32_t use_count() const { return __atomic_load_n(&count_, __ATOMIC_ACQUIRE); }

 private:
  mutable uint32_t count_ = 0;
};

/// Owning handle to a RefCounted object; empty by default.
template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) {
    if (object_) object_->retain_reference();
  }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <class U>
  Ref(const Ref<U>& other) : Ref(static_cast<T*>(other.get())) {}
  ~Ref() {
    if (object_) object_->drop_reference();
  }
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Ref&) const = default;

 private:
  T* object_ = nullptr;
};
}  // namespace reckon
