// tests/engine/support: a device, tensors from lists, and what they hold.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/ops.h"

namespace reckon {

class OnCpu : public testing::Test {
 protected:
  Tensor tensor(const Shape& shape, const std::vector<double>& values) { return from_values<double>(*device_, shape, values); }
  Tensor leaf(const Shape& shape, const std::vector<double>& values) { return Tensor(tensor(shape, values)).set_requires_grad(); }
  Tensor scalar(double value) { return tensor({}, {value}); }
  Tensor scalar_leaf(double value) { return leaf({}, {value}); }
  int64_t live() const { return device_->allocator().ledger().live; }
  int64_t live(Category category) const { return device_->allocator().ledger().live_by_category[size_t(category)]; }

  Ref<Device> device_ = open_cpu(Mode::real);
};

/// The message of the Error that f throws; "" if it throws none.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

using Values = std::vector<double>;
using testing::ElementsAre;
using testing::HasSubstr;
}  // namespace reckon
