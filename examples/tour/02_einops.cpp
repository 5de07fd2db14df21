// Page 2 of the tour, docs/tour/02-einops.md: axes by name.
#include "tour.h"

using namespace tour;

void rearranging(Device& cpu) {
  const Tensor x = normal(cpu, {2, 3, 8}, 1);  // batch, sequence, hidden
  SHOW(cpu, Tensor heads = rearrange(x, "b s (heads dim) -> b heads s dim", {{"heads", 2}}));
  SHOW(cpu, Tensor back = rearrange(heads, "b heads s dim -> b s (heads dim)"));
  SHOW(cpu, Tensor rows = rearrange(heads, "b heads s dim -> (b heads) (s dim)"));
  say("heads is {}", layout_of(heads));
  say("{}", to_string(plan_rearrange(heads, "b heads s dim -> (b heads) (s dim)")));
  check(heads.same_storage(x) && back.same_storage(x), "both ways are views");
  check(back.to_vector() == x.to_vector(), "there and back is where it was");
  check(!rows.same_storage(x), "axes that do not lie one in the other are merged by a copy");
}

void reducing(Device& cpu) {
  const Tensor images = normal(cpu, {4, 8, 8, 3}, 2), row = arange(cpu, 3, DType::f32);
  SHOW(cpu, Tensor pooled = reduce(images, "b (h 2) (w 2) c -> b h w c", Reducer::max));
  SHOW(cpu, Tensor average = reduce(images, "b h w c -> b c", Reducer::mean));
  SHOW(cpu, Tensor rows = repeat(row, "w -> h w", {{"h", 1000}}));
  SHOW(cpu, Tensor wide = repeat(row, "w -> (w 2)"));
  say("pooled is {}, average is {}, rows is {}", pooled, average, layout_of(rows));
  say("{}", to_text(wide));
  check(rows.same_storage(row), "a repeated axis has stride 0 and takes no memory");
}

void sums(Device& cpu) {
  const Tensor q = normal(cpu, {2, 4, 5, 8}, 3), k = normal(cpu, {2, 4, 7, 8}, 4);
  SHOW(cpu, Tensor named = einsum("b head query dim, b head key dim -> b head query key", {q, k}));
  SHOW(cpu, Tensor dots = einsum("... query dim, ... key dim -> ... query key", {q, k}));
  SHOW(cpu, Tensor plain = matmul(q, transpose(k)));
  check(named.to_vector() == plain.to_vector() && dots.to_vector() == plain.to_vector(), "three spellings of one product");
  say("{}", to_string(plan_einsum("... query dim, ... key dim -> ... query key", {q, k})));
}

Tensor scores(const Tensor& q, const Tensor& k) {
  Dims dims;
  shaped(q, "batch heads query dim", dims);
  shaped(k, "batch heads key dim", dims);
  return shaped(einsum("b h q d, b h k d -> b h q k", {q, k}), "f32[batch heads query key]", dims);
}
void written_down(Device& cpu) {
  const Tensor q = normal(cpu, {2, 4, 5, 8}, 3), k = normal(cpu, {2, 4, 7, 8}, 4), short_k = normal(cpu, {2, 4, 7, 6}, 5);
  SHOW(cpu, Tensor s = scores(q, k));
  say("s is {}", s);
  say("{}", refusal([&] { scores(q, short_k); }));
  say("{}", refusal([&] { rearrange(s, "b (h pair) q k -> b h (pair q) k", {{"pair", 3}}); }));
}

int main() { return run({rearranging, reducing, sums, written_down}); }
