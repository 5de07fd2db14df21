// tests/golden: a golden file as doubles and configuration, and how a tensor is judged against one of it.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "reckon/io/safetensors.h"
#include "reckon/nn/parameters.h"
#include "reckon/ops/ops.h"
#include "reckon/train/config.h"

namespace golden {
using namespace reckon;

class File {
 public:
  explicit File(const std::string& name) : file_("tests/golden/" + name + ".safetensors") {}

  Shape shape(const std::string& name) const { return file_.entry(name).shape; }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  /// Any float tensor of the file.
  std::vector<double> values(const std::string& name) const {
    const TensorSpec spec = file_.entry(name).spec();
    std::vector<double> wide(size_t(spec.numel()));
    if (spec.dtype == DType::f64) {
      file_.read(name, spec, wide.data());
      return wide;
    }
    std::vector<float> narrow(wide.size());
    file_.read(name, {spec.shape, DType::f32}, narrow.data());
    std::copy(narrow.begin(), narrow.end(), wide.begin());
    return wide;
  }
  std::vector<int32_t> ids(const std::string& name) const {
    std::vector<int32_t> ids(size_t(shape(name).numel()));
    file_.read(name, {shape(name), DType::i32}, ids.data());
    return ids;
  }
  std::string setting(const std::string& key) const {
    for (const MetadataItem& item : file_.metadata())
      if (item.key == key) return item.value;
    ADD_FAILURE() << file_.path() << " has no setting " << key;
    return "";
  }
  /// The configuration in the file's metadata.
  Config config() const {
    std::vector<std::string> overrides;
    for (const MetadataItem& item : file_.metadata())
      if (item.key.find('.') != std::string::npos) overrides.push_back(item.key + "=" + item.value);
    return parse_config("", file_.path(), overrides);
  }

 private:
  SafetensorsFile file_;
};

inline double max_abs(const std::vector<double>& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::abs(v));
  return most;
}

/// Every element within `share` of the golden tensor's maximum.
inline void expect_close(const std::vector<double>& ours, const std::vector<double>& theirs, double share, const std::string& what) {
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  const double tolerance = share * max_abs(theirs);
  ASSERT_GT(tolerance, 0) << what << ": the golden tensor is all zeros, so nothing would be compared";
  size_t worst = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    ASSERT_TRUE(std::isfinite(ours[i])) << what << "[" << i << "]";
    if (std::abs(ours[i] - theirs[i]) > std::abs(ours[worst] - theirs[worst])) worst = i;
  }
  EXPECT_LE(std::abs(ours[worst] - theirs[worst]), tolerance) << what << "[" << worst << "]: " << ours[worst] << " against " << theirs[worst];
}

inline void store(const Tensor& tensor, const std::vector<double>& values) {
  ASSERT_EQ(size_t(tensor.numel()), values.size());
  if (tensor.dtype() == DType::f64) return tensor.write(values.data(), int64_t(values.size() * sizeof(double)));
  ASSERT_EQ(tensor.dtype(), DType::f32);
  const std::vector<float> narrow(values.begin(), values.end());
  tensor.write(narrow.data(), int64_t(narrow.size() * sizeof(float)));
}
}  // namespace golden
