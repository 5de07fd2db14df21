#include "reckon/tensor/tensor.h"

#include <algorithm>
#include <cstdlib>

namespace reckon {

Storage::Storage(Device& device, int64_t bytes, Category category, uint32_t module, const char* op)
    : Storage(device) {
  take_memory(bytes, category, module, op);
}
Storage::~Storage() {
  if (has_memory()) device_->allocator().free(block_);
}
void Storage::take_memory(int64_t bytes, Category category, uint32_t module, const char* op) {
  RECKON_ASSERT(!has_memory());
  block_ = device_->allocator().allocate(bytes, category, module, op);
  data_ = device_->base() ? device_->base() + block_.offset : nullptr;
}

Layout::Layout(const Shape& s) : shape(s) {
  int64_t stride = 1;
  for (int axis = s.rank() - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= std::max<int64_t>(s[axis], 1);
  }
}

bool Layout::is_contiguous() const {
  if (shape.numel() == 0) return true;
  int64_t expected = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && strides[axis] != expected) return false;
    expected *= shape[axis];
  }
  return true;
}

bool Layout::inner_contiguous() const { return shape.rank() == 0 || shape.last() <= 1 || strides[shape.rank() - 1] == 1; }

Tensor::Tensor(Device& device, const TensorSpec& spec, Category category, uint32_t module, const char* op)
    : Tensor(Ref<Storage>(new Storage(device, spec.bytes(), category, module, op)), spec) {}
Tensor::Tensor(Ref<Storage> storage, const TensorSpec& spec) : state_(new TensorState) {
  state_->storage = std::move(storage);
  state_->layout = Layout(spec.shape);
  state_->dtype = spec.dtype;
}

Tensor Tensor::alias(const Layout& layout) const { return alias(layout, dtype()); }
Tensor Tensor::alias(const Layout& layout, DType dtype) const {
  Ref<TensorState> view(new TensorState);
  view->storage = state().storage;
  view->layout = layout;
  view->dtype = dtype;
  return Tensor(view);
}

namespace {
void settle(Device& device) {
  if (PendingCalls* calls = device.pending()) calls->settle();
}
}  // namespace

void* Tensor::raw() const {
  settle(device());
  std::byte* start = state().storage->data();
  return start ? start + layout().offset * size_of(dtype()) : nullptr;
}

void Tensor::fail_undefined() { fail("the tensor is undefined: it was never given a value, was moved from, or is a gradient that is not there"); }
void Tensor::check_readable(DType wanted) const {
  check(!device().is_meta(), "a tensor on meta has no data: a step must not branch on values");
  check(dtype() == wanted, "the tensor holds {}, not {}", dtype(), wanted);
}

namespace {
double load(const void* address, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::f32:
      return static_cast<const float*>(address)[at];
    case DType::f64:
      return static_cast<const double*>(address)[at];
    case DType::bf16:
      return double(float(static_cast<const bfloat16*>(address)[at]));
    case DType::f16:
      return double(float(static_cast<const float16*>(address)[at]));
    case DType::i32:
      return static_cast<const int32_t*>(address)[at];
    case DType::i64:
      return double(static_cast<const int64_t*>(address)[at]);
    case DType::u8:
      return static_cast<const uint8_t*>(address)[at];
    case DType::boolean:
      return static_cast<const uint8_t*>(address)[at] != 0;
    case DType::f8e4m3fn:
      return double(float(static_cast<const float8_e4m3fn*>(address)[at]));
    case DType::f8e5m2:
      return double(float(static_cast<const float8_e5m2*>(address)[at]));
  }
  return 0;
}
}  // namespace

double Tensor::item() const {
  check(numel() == 1, "item() wants exactly one element, the tensor is {}", *this);
  return to_vector()[0];
}

std::vector<double> Tensor::to_vector() const {
  check_readable(dtype());
  std::vector<double> values;
  values.reserve(size_t(numel()));
  if (numel() == 0) return values;
  device().synchronize();
  // The span of storage that the layout reaches, copied once, then walked.
  const Layout& l = layout();
  int64_t reach = 1, before = 0;  // elements, and those of them before element 0: a view may go backwards
  for (int axis = 0; axis < rank(); ++axis) {
    const int64_t span = (shape()[axis] - 1) * l.strides[axis];
    reach += std::abs(span);
    before += std::max<int64_t>(-span, 0);
  }
  std::vector<std::byte> host(size_t(reach * size_of(dtype())));
  device().copy_out(host.data(), static_cast<const std::byte*>(raw()) - before * size_of(dtype()), host.size());
  int64_t index[kMaxRank] = {};
  for (int64_t n = 0; n < numel(); ++n) {
    int64_t at = before;
    for (int axis = 0; axis < rank(); ++axis) at += index[axis] * l.strides[axis];
    values.push_back(load(host.data(), dtype(), at));
    for (int axis = rank() - 1; axis >= 0 && ++index[axis] == shape()[axis]; --axis) index[axis] = 0;
  }
  return values;
}

void Tensor::write(const void* host, int64_t bytes) const {
  check(is_contiguous() && bytes == spec().bytes(), "write wants {} contiguous bytes for {}, got {}", spec().bytes(), *this, bytes);
  settle(device());
  state().storage->bump_version();
  if (!device().is_meta()) device().copy_in(raw(), host, size_t(bytes));
}

Tensor& Tensor::set_requires_grad(bool on) {
  check(!on || is_float(dtype()), "only floating-point tensors have gradients, this one is {}", *this);
  check(is_leaf() || on, "requires_grad can only be switched off on leaves; use detached()");
  state().requires_grad = on || !is_leaf();
  return *this;
}

Tensor Tensor::grad() const {
  if (state().retained) return Tensor(static_cast<RetainedGradient&>(*state().retained).grad);
  return state().grad_filled ? Tensor(state().grad) : Tensor();
}

void TensorState::note_gradient() {
  // What the rehearsal made itself is gone after it: nothing to put back, and the journal would hold it until then.
  if (storage->block().rehearsal != 0 || (grad && grad->storage->block().rehearsal != 0)) return;
  if (GradientJournal* journal = storage->device().gradient_journal())
    journal->entries.push_back({Ref<TensorState>(this), grad, grad_filled});
}
void GradientJournal::undo() {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    entry->tensor->grad = entry->grad;
    entry->tensor->grad_filled = entry->filled;
  }
  entries.clear();
}

void Tensor::set_grad_slot(const Tensor& slot) {
  check(slot.shape() == shape() && is_float(slot.dtype()), "gradient slot {} does not fit {}", slot, *this);
  state().note_gradient();
  state().grad = slot.ref();
  state().slot_source = {};
  state().grad_is_slot = true;
  state().grad_filled = false;
}

void Tensor::set_grad_slot(Ref<SlotSource> source) {
  state().note_gradient();
  state().grad = {};
  state().slot_source = std::move(source);
  state().grad_is_slot = true;
  state().grad_filled = false;
}

Tensor Tensor::grad_slot() const {
  if (!state().grad_is_slot) return {};
  if (!state().grad) state().slot_source->provide();
  return Tensor(state().grad);
}

void Tensor::zero_grad() {
  if (state().retained) static_cast<RetainedGradient&>(*state().retained).grad = {};
  state().note_gradient();
  state().grad_filled = false;
  if (!state().grad_is_slot || state().slot_source) state().grad = {};
}

Tensor Tensor::detached() const { return alias(layout()); }

std::string to_string(const Tensor& tensor) { return tensor.defined() ? to_string(tensor.spec()) : "undefined"; }
}  // namespace reckon
