#include <cmath>

#include "reckon/ops/rows.h"
#include "reckon/plan/calibration.h"

namespace reckon {
namespace {
using Extents = std::vector<int64_t>;

// rows, out, in. Not the powers of two, where caches are at their worst; wide outputs are vocabularies.
Extents linear_axis(size_t axis) {
  if (axis == 0) return {8, 32, 128, 384, 1024};
  return axis == 1 ? Extents{16, 64, 192, 512, 1536, 6144} : Extents{16, 64, 192, 512, 1536};
}
// of a linear layer in float8, which on a CPU is there to save memory, not time
Extents float8_axis(size_t axis) { return axis == 0 ? Extents{32, 512} : Extents{64, 768}; }
// of a head and its loss: all three products
Extents head_axis(size_t axis) {
  const Extents axes[] = {{8, 64, 512}, {64, 512, 6144}, {64, 256, 1024}};
  return axes[axis];
}
// groups (sequences times key heads), query heads of a key head, tokens, head width
Extents attention_axis(size_t axis) {
  const Extents axes[] = {{1, 2, 8}, {1, 4}, {32, 128, 512}, {32, 64, 128}};
  return axes[axis];
}

// float16 is there to save memory, not time: every second point will do.
Extents thinned(const Extents& axis) {
  Extents some;
  for (size_t i = 0; i<axis.size(); i += axis.size()> 2 ? 2 : 1) some.push_back(axis[i]);
  return some;
}

GridPoint linear_point(const OpDef& op, DType dtype, const Extents& e) {
  const TensorSpec x{{e[0], e[2]}, dtype}, w{{e[1], e[2]}, dtype}, dy{{e[0], e[1]}, dtype}, slot{{e[1], e[2]}, DType::f32};
  if (&op == &op::linear) return {&op, {}, {x, w}};
  if (&op == &op::linear_back_x) return {&op, {}, {dy, w}};
  return {&op, LinearParams{false, DType::f32}, {dy, x, slot}};
}

GridPoint float8_point(const OpDef& op, DType dtype, const Extents& e) {
  const TensorSpec x{{e[0], e[2]}, dtype}, w{{e[1], e[2]}, dtype}, dy{{e[0], e[1]}, DType::f8e5m2}, codes{{e[0], e[2]}, DType::f8e4m3fn},
      slot{{e[1], e[2]}, DType::f32}, three{{3}, DType::f32}, of_dy{{2}, DType::f32}, stats{{4}, DType::f32};
  if (&op == &op::linear_fp8_back_x) return {&op, {}, {dy, w, of_dy, stats}};
  if (&op == &op::linear_fp8_back_w) return {&op, LinearParams{false, DType::f32}, {dy, codes, of_dy, stats, slot}};
  return {&op, {}, {x, w, three, three}};
}

GridPoint head_point(const OpDef& op, DType dtype, const Extents& e) {
  const TensorSpec x{{e[0], e[2]}, dtype}, w{{e[1], e[2]}, dtype}, slot{{e[1], e[2]}, DType::f32};
  return {&op, Params(LossParams{}, 0b11), {x, w, {{e[0]}, DType::i32}, {Shape{}, DType::f32}, slot}};
}

GridPoint attention_point(const OpDef& op, DType dtype, const Extents& e) {
  const AttentionParams p{1 / std::sqrt(double(e[3])), int32_t(e[1]), 1, int32_t(e[3]), true};
  const TensorSpec qkv{{e[0], e[2], (e[1] + 2) * e[3]}, dtype}, out{{e[0], e[2], e[1] * e[3]}, dtype}, lse{{e[0], e[1], e[2]}, DType::f32};
  if (&op == &op::attention) return {&op, p, {qkv}};
  return {&op, p, {out, qkv, out, lse}};
}

void add_table(Grid& grid, const OpDef& op, DType dtype, size_t axes, Extents (*axis_of)(size_t),
               GridPoint (*point_of)(const OpDef&, DType, const Extents&)) {
  // The gradient of a float8 layer's weight has nothing wider in it than its slot.
  TimeTable table{.key = std::string(op.name) + " " + to_string(&op == &op::linear_fp8_back_w ? DType::f32 : dtype)};
  std::vector<Extents> values;
  size_t points = 1;
  for (size_t axis = 0; axis < axes; ++axis) {
    values.push_back(dtype == DType::f16 ? thinned(axis_of(axis)) : axis_of(axis));
    table.axes.emplace_back(values.back().begin(), values.back().end());
    points *= values.back().size();
  }
  table.seconds.resize(points);
  for (size_t index = 0; index < points; ++index) {
    Extents e(axes);
    size_t rest = index;
    for (size_t axis = axes; axis-- > 0; rest /= values[axis].size()) e[axis] = values[axis][rest % values[axis].size()];
    GridPoint point = point_of(op, dtype, e);
    point.table = grid.tables.size();
    point.index = index;
    grid.points.push_back(std::move(point));
  }
  grid.tables.push_back(std::move(table));
}
}  // namespace

Grid calibration_grid() {
  Grid grid;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const OpDef* op : {&op::linear, &op::linear_back_x, &op::linear_back_w}) add_table(grid, *op, dtype, 3, linear_axis, linear_point);
    add_table(grid, op::linear_cross_entropy_step, dtype, 3, head_axis, head_point);
    for (const OpDef* op : {&op::attention, &op::attention_back}) add_table(grid, *op, dtype, 4, attention_axis, attention_point);
  }
  for (const OpDef* op : {&op::linear_fp8, &op::linear_fp8_again, &op::linear_fp8_back_x, &op::linear_fp8_back_w})
    add_table(grid, *op, DType::bf16, 3, float8_axis, float8_point);
  return grid;
}
}  // namespace reckon
