#include "reckon/tensor/dtype.h"

namespace reckon {
namespace {
struct Row {
  std::string_view name;
  int64_t bytes;
  bool floating;
  double epsilon;
};
constexpr Row kRows[kDTypes] = {{"f32", 4, true, 0x1p-23}, {"f64", 8, true, 0x1p-52}, {"bf16", 2, true, 0x1p-7}, {"f16", 2, true, 0x1p-10},
                                {"i32", 4, false, 0},      {"i64", 8, false, 0},      {"u8", 1, false, 0},       {"bool", 1, false, 0}};
const Row& row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }
}  // namespace

int64_t size_of(DType dtype) { return row(dtype).bytes; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
std::string to_string(DType dtype) { return std::string(row(dtype).name); }
bool is_float(DType dtype) { return row(dtype).floating; }
double epsilon(DType dtype) { return row(dtype).epsilon; }
DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }
}  // namespace reckon
