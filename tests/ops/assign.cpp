// Writes into views: which elements change and which do not, what autograd, plans and traces know of it, and what is refused.
#include "reckon/ops/assign.h"

#include <functional>

#include "reckon/engine/compile.h"
#include "reckon/engine/planned.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/rows.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Assign : public OnCpu {
 protected:
  Tensor counted(const Shape& shape, DType dtype = DType::f64) {
    return cast(reshape(arange(*device_, shape.numel(), DType::f64), shape), dtype);
  }
};

TEST_F(Assign, WritesTheElementsOfAViewAndNoOthers) {
  const Tensor x = counted({3, 4});
  fill_(index(x, {ellipsis, Slice{1, 4, 2}}), -1);
  EXPECT_THAT(x.to_vector(), ElementsAre(0, -1, 2, -1, 4, -1, 6, -1, 8, -1, 10, -1));
  copy_(index(x, {Slice{{}, {}, -2}, 0}), from_values<double>(*device_, {2}, Values{70, 80}));
  EXPECT_THAT(x.to_vector(), ElementsAre(80, -1, 2, -1, 4, -1, 6, -1, 70, -1, 10, -1));
  copy_(transpose(x), counted({4, 1}));  // one number a column of x
  EXPECT_THAT(x.to_vector(), ElementsAre(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
  fill_(slice(x, 0, 1, 1), 9);  // no element
  copy_(select(x, 0, 1), scalar(5));
  EXPECT_THAT(x.to_vector(), ElementsAre(0, 1, 2, 3, 5, 5, 5, 5, 0, 1, 2, 3));
}

// All sizes and strides around the chunks of the kernels, every element of the storage against a plain loop.
TEST_F(Assign, IntoAnyStridesAndTypes) {
  for (const DType to : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::u8})
    for (const DType from : {DType::f64, DType::f32, DType::f16, DType::i32, DType::boolean})
      for (const int64_t rows : {1, 17})
        for (const int64_t width : {1, 5, 513})
          for (const int64_t step : {1, 2, -3}) {
            const Tensor whole = full(*device_, {{rows + 1, 3 * width}, to}, 7);
            const int64_t reach = (width - 1) * (step < 0 ? -step : step), first = step < 0 ? reach : 0;
            Layout place(Shape{rows, width});
            place.strides[0] = 3 * width, place.strides[1] = step, place.offset = first;
            const Tensor source = cast(cast(counted({rows, width}), DType::boolean), from);
            copy_(whole.alias(place), transpose(call(op::contiguous, {transpose(source)})[0]));
            Values want(size_t((rows + 1) * 3 * width), 7);
            for (int64_t i = 0; i < rows; ++i)
              for (int64_t j = 0; j < width; ++j) want[size_t(i * 3 * width + first + j * step)] = i + j > 0;
            ASSERT_EQ(whole.to_vector(), want) << name_of(from) << " to " << name_of(to) << " " << rows << " x " << width << " by " << step;
            fill_(whole.alias(place), 2);
            for (int64_t i = 0; i < rows; ++i)
              for (int64_t j = 0; j < width; ++j) want[size_t(i * 3 * width + first + j * step)] = 2;
            ASSERT_EQ(whole.to_vector(), want) << name_of(to) << " " << rows << " x " << width << " by " << step;
          }
}

TEST_F(Assign, RoundsAsACastDoes) {
  const Tensor source = tensor({4}, {1.0 / 3, -2.75, 400, 300});
  for (const DType to : {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8, DType::boolean, DType::f8e4m3fn, DType::f8e5m2}) {
    const Tensor whole = zeros(*device_, {{4, 2}, to});
    copy_(select(whole, 1, 1), source);
    EXPECT_EQ(select(whole, 1, 1).to_vector(), cast(source, to).to_vector()) << name_of(to);
    EXPECT_THAT(select(whole, 1, 0).to_vector(), ElementsAre(0, 0, 0, 0)) << name_of(to);
  }
}

TEST_F(Assign, OverlappingSourcesAreCopiedFirst) {
  const Tensor x = counted({6});
  copy_(slice(x, 0, 1, 6), slice(x, 0, 0, 5));
  EXPECT_THAT(x.to_vector(), ElementsAre(0, 0, 1, 2, 3, 4));
  copy_(x, flip(x));
  EXPECT_THAT(x.to_vector(), ElementsAre(4, 3, 2, 1, 0, 0));
  Meter meter;
  {
    const MeterScope scope(meter);
    copy_(slice(x, 0, 0, 3), slice(x, 0, 3, 6));  // side by side: nothing to copy first
  }
  EXPECT_THAT(x.to_vector(), ElementsAre(1, 0, 0, 1, 0, 0));
  for (const MeterRow& row : meter.rows()) EXPECT_STRNE(row.op, "contiguous");
}

TEST_F(Assign, IsOneCallThatMovesWhatItWritesAndReads) {
  const Tensor x = zeros(*device_, {{8, 4}, DType::f32}), y = ones(*device_, {{4}, DType::bf16}), column = slice(x, 1, 1, 3);
  Meter meter;
  {
    const MeterScope scope(meter);
    copy_(x, y);
    fill_(column, 3);
  }
  ASSERT_EQ(meter.rows().size(), 2u);
  EXPECT_STREQ(meter.rows()[0].op, "copy_");
  EXPECT_EQ(meter.rows()[0].bytes, 8 * 4 * 4 + 4 * 2);
  EXPECT_STREQ(meter.rows()[1].op, "fill_");
  EXPECT_EQ(meter.rows()[1].bytes, 8 * 2 * 4);
  EXPECT_EQ(meter.total(), Flops{});
}

// Backward must not use what is no longer there.
TEST_F(Assign, CountsTheVersionUp) {
  const Tensor x = leaf({3}, {1, 2, 3}), kept = tensor({3}, {4, 5, 6});
  const uint64_t before = kept.version();
  const Tensor y = sum(mul(x, kept));
  fill_(slice(kept, 0, 0, 1), 0);
  EXPECT_EQ(kept.version(), before + 1);
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("was changed in place after it was kept for backward"));
  copy_(slice(kept, 0, 1, 3), scalar(1));
  EXPECT_EQ(kept.version(), before + 2);
}

TEST_F(Assign, RefusesWhatAGradientWouldNotSee) {
  const Tensor w = leaf({2, 2}, {1, 2, 3, 4}), y = square(w), plain = zeros(*device_, w.spec());
  EXPECT_THAT(error_of([&] { fill_(w, 0); }), HasSubstr("fill_: f64[2, 2] is a leaf that requires a gradient"));
  EXPECT_THAT(error_of([&] { copy_(w, plain); }), HasSubstr("copy_: f64[2, 2] is a leaf that requires a gradient"));
  EXPECT_THAT(error_of([&] { fill_(select(w, 0, 1), 0); }), HasSubstr("fill_: f64[2] is the result of a recorded operation"));
  EXPECT_THAT(error_of([&] { fill_(y, 0); }), HasSubstr("under NoGrad"));
  EXPECT_THAT(error_of([&] { copy_(plain, y); }), HasSubstr("copy_: the source f64[2, 2] requires a gradient"));
  EXPECT_THAT(w.to_vector(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(plain.to_vector(), ElementsAre(0, 0, 0, 0));
  copy_(plain, y.detached());
  EXPECT_THAT(plain.to_vector(), ElementsAre(1, 4, 9, 16));
  {
    const NoGrad guard;
    fill_(select(w, 0, 1), 0);
    copy_(select(w, 1, 0), square(index(w, {0, 0})));
  }
  EXPECT_THAT(w.to_vector(), ElementsAre(1, 2, 1, 0)) << "row 0 is (1, 2), row 1 was zeroed, and column 0 took 1 twice";
  EXPECT_TRUE(w.requires_grad() && w.is_leaf());
}

TEST_F(Assign, RefusesWhatHasNoPlaceOfItsOwn) {
  const Tensor row = counted({1, 3});
  EXPECT_THAT(error_of([&] {
                fill_(expand(row, {2, 3}), 0);
              }),
              HasSubstr("fill_: axis 0 of f64[2, 3] is expanded (stride 0), its 2 places"));
  EXPECT_THAT(error_of([&] { copy_(expand(row, {4, 1, 3}), row); }), HasSubstr("copy_: axis 0 of f64[4, 1, 3] is expanded"));
  fill_(expand(row, {1, 1, 3}), 4);  // every place is its own
  EXPECT_THAT(row.to_vector(), ElementsAre(4, 4, 4));
  EXPECT_THAT(error_of([&] { copy_(row, counted({2, 3})); }), HasSubstr("copy_: the source [2, 3] does not broadcast to [1, 3]"));
  EXPECT_THAT(error_of([&] { copy_(row, counted({1, 1, 3})); }), HasSubstr("does not broadcast to [1, 3]"));
  EXPECT_THAT(error_of([&] { fill_(zeros(*device_, {{2}, DType::u8}), 256); }), HasSubstr("fill_: u8 does not hold 256"));
  EXPECT_THAT(error_of([&] { fill_(zeros(*device_, {{2}, DType::i32}), 0.5); }), HasSubstr("fill_: i32 does not hold 0.5"));
  EXPECT_THAT(error_of([&] { fill_(Tensor(), 1); }), HasSubstr("fill_: the tensor to write is undefined"));
  EXPECT_THAT(error_of([&] { copy_(row, Tensor()); }), HasSubstr("copy_: the source is undefined"));
  EXPECT_THAT(error_of([&] { copy_(row, zeros(*open_cpu(Mode::meta), row.spec())); }), HasSubstr("two devices"));
}

// The same allocations on meta, inside a plan and in a compiled step, whose waiting calls are made before what they read is written.
TEST_F(Assign, IsPlannedAndTraced) {
  const auto step = [](const Tensors& in) {
    const Tensor y = add(in[0], in[1]);
    copy_(slice(in[0], 1, 0, 2), flip(slice(in[0], 1, 1, 3)));
    fill_(select(in[0], 0, 1), 2);
    return Tensors{sum(mul(y, in[0]))};
  };
  const Values start{1, 2, 3, 4, 5, 6};
  const auto inputs = [&](Device& device) {
    return Tensors{from_values<double>(device, {2, 3}, start), ones(device, {{2, 3}, DType::f64})};
  };
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensors plain_in = inputs(*device_), meta_in = inputs(*meta);
  const double want = step(plain_in)[0].item();
  EXPECT_EQ(want, 2 * 6 + 3 * 5 + 4 * 3 + 2 * (5 + 6 + 7)) << "flipped, the last two columns are (6, 5) and (3, 2)";
  step(meta_in);
  EXPECT_EQ(device_->allocator().trace_hash(), meta->allocator().trace_hash());
  const Tensors in = inputs(*device_);
  CompiledStep compiled = compile(*device_, step);
  PlannedStep planned_step = planned(*device_, step);
  for (int run = 0; run < 3; ++run) {
    in[0].write(start.data(), 6 * 8);
    EXPECT_EQ(planned_step(in)[0].item(), want) << run;
    in[0].write(start.data(), 6 * 8);
    EXPECT_EQ(compiled(in)[0].item(), want) << run;
  }
  EXPECT_EQ(compiled.fallbacks(), 0) << compiled.last_difference();
}
}  // namespace
}  // namespace reckon
