// The listings of docs/einops.md: what it claims is checked here, and tests/docs/quotes.cpp compares the text.
#include "reckon/ops/packing.h"
#include "reckon/ops/shaped.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class EinopsDocument : public OnCpu {
 protected:
  Tensor filled(const Shape& shape) {
    const Tensor x = empty(*device_, {shape, DType::f32});
    fill_uniform_(x, 1);
    return x;
  }
};

TEST_F(EinopsDocument, Arranging) {
  const Tensor images = filled({6, 8, 8, 3}), image = filled({8, 8});
  // clang-format off
  rearrange(images, "b h w c -> b c h w");                        // [6, 3, 8, 8]   a view
  rearrange(images, "b h w c -> (b h) w c");                      // [48, 8, 3]     a view: rows of neighbours are neighbours
  rearrange(images, "b h w c -> h (b w) c");                      // [8, 48, 3]     a copy
  rearrange(images, "b (h 1) ... -> b ... h");                    // [6, 8, 3, 8]   a view
  reduce(images, "b (h 2) (w 2) c -> b h w c", Reducer::max);     // [6, 4, 4, 3]   max pooling
  reduce(images, "b h w c -> b 1 1 c", Reducer::mean);            // [6, 1, 1, 3]
  repeat(image, "h w -> h w c", {{"c", 3}});                      // [8, 8, 3]      a view of stride 0
  repeat(image, "h w -> (h 2) (w r)", {{"r", 2}});                // [16, 16]       a copy
  // clang-format on
  EXPECT_TRUE(plan_rearrange(images, "b h w c -> b c h w").is_view());
  EXPECT_TRUE(plan_rearrange(images, "b h w c -> (b h) w c").is_view());
  EXPECT_FALSE(plan_rearrange(images, "b h w c -> h (b w) c").is_view());
  EXPECT_EQ(rearrange(images, "b (h 1) ... -> b ... h").shape(), (Shape{6, 8, 3, 8}));
  EXPECT_EQ(reduce(images, "b (h 2) (w 2) c -> b h w c", Reducer::max).shape(), (Shape{6, 4, 4, 3}));
  EXPECT_TRUE(plan_repeat(image, "h w -> h w c", {{"c", 3}}).is_view());
  EXPECT_EQ(repeat(image, "h w -> (h 2) (w r)", {{"r", 2}}).shape(), (Shape{16, 16}));
}

TEST_F(EinopsDocument, Packing) {
  const Tensor class_token = filled({2, 8}), patches = filled({2, 3, 4, 8});
  // clang-format off
  const Packed tokens = pack({class_token, patches}, "b * c");          // [2, 1 + 12, 8]   a copy
  const Tensors parts = unpack(tokens.tensor, tokens.shapes, "b * c");  // [2, 8] and [2, 3, 4, 8]   views
  unpack(tokens.tensor, {{}, {-1}}, "b * c");                           // [2, 8] and [2, 12, 8]: -1 is what is left
  // clang-format on
  EXPECT_EQ(tokens.tensor.shape(), (Shape{2, 13, 8}));
  EXPECT_EQ(parts.at(1).to_vector(), patches.to_vector());
  EXPECT_EQ(unpack(tokens.tensor, {{}, {-1}}, "b * c").at(1).shape(), (Shape{2, 12, 8}));
}

TEST_F(EinopsDocument, Costs) {
  const Tensor images = filled({6, 8, 8, 3});
  const Composition plan = plan_rearrange(images, "b h w c -> h (b w) c");
  // permute [6, 8, 8, 3] -> [8, 6, 8, 3]: view; contiguous [8, 6, 8, 3]: copies 4608 B; reshape [8, 6, 8, 3] -> [8, 48, 3]: view
  const std::string steps = to_string(plan);
  plan.is_view();       // false
  plan.copied_bytes();  // 4608
  EXPECT_EQ(steps,
            "permute [6, 8, 8, 3] -> [8, 6, 8, 3]: view; contiguous [8, 6, 8, 3]: copies 4608 B; reshape [8, 6, 8, 3] -> [8, 48, 3]: view");
  EXPECT_FALSE(plan.is_view());
  EXPECT_EQ(plan.copied_bytes(), 4608);
}

TEST_F(EinopsDocument, Sums) {
  const Tensor q = filled({2, 4, 5, 8}), k = filled({2, 4, 7, 8}), square = filled({3, 3});
  einsum("b head query dim, b head key dim -> b head query key", {q, k});  // one matrix product, no copy
  einsum("bhqd,bhkd->bhqk", {q, k});                                       // the same
  einsum("...qd,...kd->...qk", {q, k});                                    // the same
  einsum("ii->i", {square});                                               // the diagonal: a view
  einsum("ii", {square});                                                  // the trace
  for (const char* pattern : {"b head query dim, b head key dim -> b head query key", "bhqd,bhkd->bhqk", "...qd,...kd->...qk"})
    EXPECT_EQ(to_string(plan_einsum(runtime(pattern), {q, k})),
              "reshape [2, 4, 5, 8] -> [8, 5, 8]: view; reshape [2, 4, 7, 8] -> [8, 7, 8]: view; matmul [8, 5, 8] [8, 7, 8] -> [8, 5, 7]: "
              "4480 FLOPs; "
              "reshape [8, 5, 7] -> [2, 4, 5, 7]: view");
  EXPECT_TRUE(plan_einsum("ii->i", {square}).is_view());
}

Tensor scores(const Tensor& q, const Tensor& k) {
  Dims dims;
  shaped(q, "batch heads query dim", dims);
  shaped(k, "batch heads key dim", dims);
  return shaped(einsum("b h q d, b h k d -> b h q k", {q, k}), "float[batch heads query key]", dims);
}

TEST_F(EinopsDocument, Shapes) {
  EXPECT_EQ(scores(filled({2, 4, 5, 8}), filled({2, 4, 7, 8})).shape(), (Shape{2, 4, 5, 7}));
  EXPECT_THAT(error_of([&] {
                scores(filled({2, 4, 5, 8}), filled({2, 4, 7, 6}));
              }),
              testing::MatchesRegex(
                  "shaped: axis 3, 'dim', has length 6, but it is 8 since einops.cpp:[0-9]+ \\(\"batch heads query dim\" of f32\\[2, 4, 5, "
                  "8\\]\\), in \"batch heads key dim\" for f32\\[2, 4, 7, 6\\]"));
}
}  // namespace
}  // namespace reckon
