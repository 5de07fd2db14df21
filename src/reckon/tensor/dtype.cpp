#include "reckon/tensor/dtype.h"

namespace reckon {
namespace {
enum class Kind : uint8_t { whole, floating, storage };
struct Row {
  std::string_view name;
  int64_t bytes;
  Kind kind;
  double epsilon, largest;
};
constexpr Row kRows[kDTypes] = {
    {"f32", 4, Kind::floating, 0x1p-23, 0x1.FFFFFEp127},
    {"f64", 8, Kind::floating, 0x1p-52, 0x1.FFFFFFFFFFFFFp1023},
    {"bf16", 2, Kind::floating, 0x1p-7, 0x1.FEp127},
    {"f16", 2, Kind::floating, 0x1p-10, 65504},
    {"i32", 4, Kind::whole, 0, 0},
    {"i64", 8, Kind::whole, 0, 0},
    {"u8", 1, Kind::whole, 0, 0},
    {"bool", 1, Kind::whole, 0, 0},
    {"f8e4m3fn", 1, Kind::storage, 0x1p-3, 448},
    {"f8e5m2", 1, Kind::storage, 0x1p-2, 57344},
};
const Row& row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }
}  // namespace

int64_t size_of(DType dtype) { return row(dtype).bytes; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
std::string to_string(DType dtype) { return std::string(row(dtype).name); }
bool is_float(DType dtype) { return row(dtype).kind == Kind::floating; }
bool is_float8(DType dtype) { return row(dtype).kind == Kind::storage; }
double largest_finite(DType dtype) { return row(dtype).largest; }
double epsilon(DType dtype) { return row(dtype).epsilon; }
DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }
}  // namespace reckon
