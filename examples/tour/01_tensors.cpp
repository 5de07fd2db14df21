// Page 1 of the tour, docs/tour/01-tensors.md: storage, strides, views, types, broadcasting.
#include "tour.h"

using namespace tour;

void views(Device& cpu) {
  SHOW(cpu, Tensor x = reshape(arange(cpu, 12, DType::f32), {3, 4}));
  SHOW(cpu, Tensor turned = transpose(x));
  SHOW(cpu, Tensor column = select(x, 1, 2));
  SHOW(cpu, Tensor part = index(x, {Slice{1}, Slice{.step = -2}}));
  say("x       {}", layout_of(x));
  say("turned  {}", layout_of(turned));
  say("column  {}", layout_of(column));
  say("part    {}", layout_of(part));
  say("{}", to_text(part));
  for (const Tensor& view : {turned, column, part}) check(view.same_storage(x), "a view has the storage of its tensor");
}

void refused(Device& cpu) {
  const Tensor x = reshape(arange(cpu, 6, DType::f32), {2, 3}), turned = transpose(x);
  say("{}", refusal([&] { view(turned, {6}); }));
  SHOW(cpu, Tensor copy = contiguous(turned));
  SHOW(cpu, Tensor flat = view(copy, {6}));
  SHOW(cpu, Tensor same = reshape(turned, {6}));
  say("{}", to_text(flat));
  check(reshape(x, {6}).same_storage(x), "reshape is a view where it can be one");
  check(!same.same_storage(x) && same.to_vector() == flat.to_vector(), "and a copy where it cannot");
}

void writing(Device& cpu) {
  const Tensor x = zeros(cpu, {{2, 3}, DType::f32}), row = select(x, 0, 1), turned = transpose(x);
  const float values[] = {7, 8, 9};
  SHOW(cpu, row.write(values, sizeof values));
  say("{}", to_text(x));
  say("{}", to_text(turned));
  SHOW(cpu, copy_(select(turned, 1, 0), slice(row, 0, 0, 1)));
  SHOW(cpu, fill_(index(turned, {Slice{1}, 0}), 0.5));
  say("{}", to_text(x));
}

void types(Device& cpu) {
  SHOW(cpu, Tensor whole = arange(cpu, 4, DType::i64, 1));
  SHOW(cpu, Tensor root = sqrt(whole));
  SHOW(cpu, Tensor narrow = cast(root, DType::bf16));
  say("{}", to_text(root, {.precision = 4}));
  say("{}", to_text(narrow));
  say("{} + {} is {}", whole.dtype(), narrow.dtype(), (whole + narrow).dtype());
  check(root.dtype() == DType::f32, "whole numbers have roots in float32");
  check(relative_difference(root * root, cast(whole, DType::f32)) < 1e-6, "which are roots");
}

void broadcasting(Device& cpu) {
  const Tensor tens = arange(cpu, 3, DType::f32, 0, 10), units = arange(cpu, 4, DType::f32);
  SHOW(cpu, Tensor table = unsqueeze(tens, 1) + units);
  SHOW(cpu, Tensor lower = tril(table));
  say("{}", to_text(lower));
  const Tensor batch = normal(cpu, {8, 16, 32}, 1), weight = normal(cpu, {32, 64}, 2);
  SHOW(cpu, Tensor y = matmul(batch, weight));
  say("y is {}", y);
  say("{}", refusal([&] { tens + units; }));
}

int main() { return run({views, refused, writing, types, broadcasting}); }
