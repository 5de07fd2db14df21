// ops/routing: each way between tokens and experts is the gradient of the other, so all of them can be differentiated any number of times.
#include "reckon/ops/routing.h"

#include <limits>

#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
constexpr int64_t kMostPlaces = std::numeric_limits<int32_t>::max();

// in: probabilities [N, E] -> experts, slots [N, k], rows [E, R], load [E], dropped [1]
void plan_route(Plan& p) {
  const auto r = p.params.as<RouteParams>();
  const Shape& x = p.in[0].shape;
  check(is_float(p.in[0].dtype) && x.rank() == 2, "probabilities must be a floating-point [tokens, experts], got {}", p.in[0]);
  check(x[0] >= 1 && x[1] >= 1, "wants at least one token and one expert, got {}", p.in[0]);
  check(r.k >= 1 && r.k <= x[1] && r.k <= kMaxChoices, "cannot choose the {} best of {} experts; at most {} are chosen", r.k, x[1],
        kMaxChoices);
  check(r.capacity >= 1, "an expert has room for at least one token, not {}", r.capacity);
  check(checked_multiply(x[0], r.k) <= kMostPlaces && checked_multiply(x[1], r.capacity) <= kMostPlaces,
        "{} tokens x {} choices, or {} experts x {} places, are more than 2^31 - 1", x[0], r.k, x[1], r.capacity);
  p.output({x[0], r.k}, DType::i32);
  p.output({x[0], r.k}, DType::i32);
  p.output({x[1], r.capacity}, DType::i32);
  p.output({x[1]}, DType::i32);
  p.output({1}, DType::i32);
  p.vector_flops({r.k, p.in[0].numel()});  // a comparison for each expert and choice
}

void check_choices(const TensorSpec& t, const char* what) {
  check(t.dtype == DType::i32 && t.shape.rank() == 2, "{} must be i32 [tokens, choices], got {}", what, t);
  check(t.shape[1] >= 1 && t.shape[1] <= kMaxChoices, "{} have {} choices of each token, outside of 1 to {}", what, t.shape[1],
        kMaxChoices);
}
// in: x [N, E], experts [N, k] -> y [N, k]
void plan_pick(Plan& p) {
  check_choices(p.in[1], "experts");
  check(is_float(p.in[0].dtype) && p.in[0].shape.rank() == 2 && p.in[0].shape[0] == p.in[1].shape[0], "x {} does not match experts {}",
        p.in[0], p.in[1]);
  p.output(p.in[1].shape, p.in[0].dtype);
  p.bytes_moved = checked_sum({p.out[0].bytes(), p.out[0].bytes(), p.in[1].bytes()});
}
// in: dy [N, k], experts [N, k] -> dx [N, E]
void plan_pick_back(Plan& p) {
  check_choices(p.in[1], "experts");
  check(is_float(p.in[0].dtype) && p.in[0].shape == p.in[1].shape, "dy {} does not match experts {}", p.in[0], p.in[1]);
  p.output({p.in[0].shape[0], p.params.as<PickParams>().experts}, p.in[0].dtype);
  p.flops.vector = p.in[0].numel();
}
Tensors vjp_pick(Vjp& v) {
  const PickParams experts{v.node.in_specs()[0].shape[1]};
  return {call(op::pick_experts_back, tensors(std::move(v.dy[0]), v.in(1)), experts)[0], Tensor()};
}
Tensors vjp_pick_back(Vjp& v) { return {pick_experts(v.dy[0], v.in(1)), Tensor()}; }

// slots [N, k], rows [E, R] and, if there are weights [N, k] as well, their dtype.
void check_routing(const Plan& p, size_t slots, DType dtype) {
  check_choices(p.in[slots], "slots");
  check(p.in[slots + 1].dtype == DType::i32 && p.in[slots + 1].shape.rank() == 2, "rows must be i32 [experts, places], got {}",
        p.in[slots + 1]);
  if (p.in.size() > slots + 2)
    check(p.in[slots + 2] == TensorSpec{p.in[slots].shape, dtype}, "weights {} are not {}", p.in[slots + 2],
          TensorSpec{p.in[slots].shape, dtype});
}
void check_tokens(const TensorSpec& x, const TensorSpec& slots) {
  check(is_float(x.dtype) && x.shape.rank() == 2 && x.shape[0] == slots.shape[0], "x {} is not a floating-point [{}, C]", x,
        slots.shape[0]);
}
void check_places(const TensorSpec& y, const TensorSpec& rows) {
  check(is_float(y.dtype) && y.shape.rank() == 3 && y.shape.first(2) == rows.shape, "y {} is not a floating-point [{}, {}, C]", y,
        rows.shape[0], rows.shape[1]);
}
// in: x [N, C], slots, rows (, weights) -> [E, R, C]
void plan_dispatch(Plan& p) {
  check_routing(p, 1, p.in[0].dtype);
  check_tokens(p.in[0], p.in[1]);
  p.output(p.in[2].shape.appended(p.in[0].shape[1]), p.in[0].dtype);
  if (p.in.size() > 3) p.vector_flops({p.in[1].numel(), p.in[0].shape[1]});
}
// in: y [E, R, C], slots, rows (, weights) -> [N, C]
void plan_combine(Plan& p) {
  check_routing(p, 1, p.in[0].dtype);
  check_places(p.in[0], p.in[2]);
  const int64_t C = p.in[0].shape[2];
  p.output({p.in[1].shape[0], C}, p.in[0].dtype);
  p.vector_flops({p.in.size() > 3 ? 2 : 1, p.in[1].numel(), C});
}
// in: x [N, C], slots, rows, y [E, R, C] -> [N, k]: a token's row times each of its expert's rows
void plan_weights_back(Plan& p) {
  check_choices(p.in[1], "slots");
  check_tokens(p.in[0], p.in[1]);
  check_places(p.in[3], p.in[2]);
  check(p.in[0].dtype == p.in[3].dtype && p.in[0].shape[1] == p.in[3].shape[2], "x {} does not match y {}", p.in[0], p.in[3]);
  p.output(p.in[1].shape, p.in[0].dtype);
  p.vector_flops({2, p.in[1].numel(), p.in[0].shape[1]});
}

Tensor move_rows(const OpDef& row, const Tensor& x, const Tensor& slots, const Tensor& rows, const Tensor& weights) {
  return call(row, weights.defined() ? tensors(x, slots, rows, weights) : tensors(x, slots, rows))[0];
}
Tensor dot_rows(const Tensor& x, const Tensor& slots, const Tensor& rows, const Tensor& y) {
  return call(op::moe_weights_back, tensors(x, slots, rows, y))[0];
}
Tensors vjp_moved(Vjp& v, const OpDef& back, bool dispatched) {
  const bool weighted = v.node.in_specs().size() > 3;
  const Tensor slots = v.in(1), rows = v.in(2), dy = v.dy[0];
  Tensors dx(v.node.in_specs().size());
  if (weighted && v.needs_in(3)) {
    const Tensor x = v.in(0);
    dx[3] = dispatched ? dot_rows(x, slots, rows, dy) : dot_rows(dy, slots, rows, x);
  }
  if (v.needs_in(0)) dx[0] = move_rows(back, dy, slots, rows, weighted ? v.in(3) : Tensor());
  return dx;
}
Tensors vjp_dispatch(Vjp& v) { return vjp_moved(v, op::moe_combine, true); }
Tensors vjp_combine(Vjp& v) { return vjp_moved(v, op::moe_dispatch, false); }
Tensors vjp_weights_back(Vjp& v) {
  const Tensor slots = v.in(1), rows = v.in(2), dw = v.dy[0];
  Tensors dx(4);
  if (v.needs_in(3)) dx[3] = move_rows(op::moe_dispatch, v.in(0), slots, rows, dw);
  if (v.needs_in(0)) dx[0] = move_rows(op::moe_combine, v.in(3), slots, rows, dw);
  return dx;
}
}  // namespace

const OpDef op::route_top_k{k_route_top_k, "route_top_k", plan_route, nullptr, {}, {.detached_outputs = 0b11111}};
const OpDef op::pick_experts{k_pick_experts, "pick_experts", plan_pick, vjp_pick, {.in = 0b10}};
const OpDef op::pick_experts_back{k_pick_experts_back, "pick_experts_back", plan_pick_back, vjp_pick_back, {.in = 0b10}};
const OpDef op::moe_dispatch{k_moe_dispatch, "moe_dispatch", plan_dispatch, vjp_dispatch, {.in = 0b1111}, {.autocast = AutocastPolicy::widest}};
const OpDef op::moe_combine{k_moe_combine, "moe_combine", plan_combine, vjp_combine, {.in = 0b1111}, {.autocast = AutocastPolicy::widest}};
const OpDef op::moe_weights_back{k_moe_weights_back, "moe_weights_back", plan_weights_back, vjp_weights_back, {.in = 0b1111}};

Routing route_top_k(const Tensor& probabilities, int64_t k, int64_t capacity) {
  const Tensors out = call(op::route_top_k, tensors(probabilities), RouteParams{k, capacity});
  return {out[0], out[1], out[2], out[3], out[4]};
}
Tensor pick_experts(const Tensor& x, const Tensor& experts) { return call(op::pick_experts, tensors(x, experts))[0]; }
Tensor moe_dispatch(const Tensor& x, const Routing& r, const Tensor& weights) {
  return move_rows(op::moe_dispatch, x, r.slots, r.rows, weights);
}
Tensor moe_combine(const Tensor& y, const Routing& r, const Tensor& weights) {
  return move_rows(op::moe_combine, y, r.slots, r.rows, weights);
}
}  // namespace reckon
