// Einsums: a product that is one matrix product costs exactly that, and several operands meet in the cheapest order.
#include <algorithm>

#include "reckon/base/philox.h"
#include "reckon/ops/einops.h"
#include "reckon/ops/einsum_order.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class Einsum : public OnCpu {
 protected:
  Tensor normal(const Shape& shape, DType dtype = DType::f64) {
    const Tensor x = empty(*device_, {shape, dtype});
    fill_normal_(x, ++key_);
    return x;
  }
  // The operations that are no views, in their order.
  static std::vector<std::string> work(const Composition& plan) {
    std::vector<std::string> names;
    for (const Composition::Step& s : plan.steps())
      if (!s.is_view()) names.push_back(s.row->name);
    return names;
  }
  using Work = std::vector<std::string>;
  uint64_t key_ = 0;
};

// The sum was cast back: 200 + 200 was 144.
TEST_F(Einsum, ASumOfOneOperandOfWholeNumbersIsI64) {
  const Tensor bytes = from_values<uint8_t>(*device_, {2}, std::vector<uint8_t>{200, 200});
  const Tensor total = einsum("i ->", {bytes});
  EXPECT_EQ(total.dtype(), DType::i64);
  EXPECT_EQ(total.item(), 400);
  EXPECT_EQ(einsum("i ->", {cast(bytes, DType::boolean)}).item(), 2);
  EXPECT_EQ(einsum("i -> i", {bytes}).dtype(), DType::u8) << "nothing is summed";
  const Tensor product = einsum("i, j -> j", {bytes, from_values<uint8_t>(*device_, {1}, std::vector<uint8_t>{1})});
  EXPECT_EQ(product.dtype(), DType::u8);
  EXPECT_EQ(product.item(), 400 % 256) << "several wrap in their dtype";
}

TEST_F(Einsum, OneMatrixProductCostsOneMatrixProduct) {
  struct Product {
    const char* pattern;
    std::vector<Shape> shapes;
    int64_t flops;
  };
  const Product products[] = {
      {"ij,jk->ik", {{3, 4}, {4, 5}}, 2 * 3 * 4 * 5},
      {"ij,jk->ki", {{3, 4}, {4, 5}}, 2 * 3 * 4 * 5},
      {"ij,kj->ik", {{3, 4}, {5, 4}}, 2 * 3 * 4 * 5},
      {"ji,jk->ik", {{4, 3}, {4, 5}}, 2 * 3 * 4 * 5},
      {"ji,kj->ki", {{4, 3}, {5, 4}}, 2 * 3 * 4 * 5},
      {"bij,bjk->bik", {{2, 3, 4}, {2, 4, 5}}, 2 * 2 * 3 * 4 * 5},
      {"bhqd,bhkd->bhqk", {{2, 3, 4, 5}, {2, 3, 6, 5}}, 2 * 6 * 4 * 5 * 6},
      {"b i k, b k j -> b i j", {{2, 3, 4}, {2, 4, 5}}, 2 * 2 * 3 * 4 * 5},
      {"bij,jk->bik", {{2, 3, 4}, {4, 5}}, 2 * 2 * 3 * 4 * 5},
      {"... i, o i -> ... o", {{2, 3, 4}, {5, 4}}, 2 * 2 * 3 * 4 * 5},
      {"ij,bjk->bik", {{3, 4}, {2, 4, 5}}, 2 * 2 * 3 * 4 * 5},
      {"bhij,hjk->bhik", {{2, 3, 4, 5}, {3, 5, 6}}, 2 * 6 * 4 * 5 * 6},
      {"...ij,...jk->...ik", {{2, 1, 3, 4}, {5, 4, 2}}, 2 * 10 * 3 * 4 * 2},
      {"abc,bcd->ad", {{2, 3, 4}, {3, 4, 5}}, 2 * 2 * 12 * 5},
      {"i,i", {{7}, {7}}, 2 * 7},
      {"ij,j->i", {{3, 4}, {4}}, 2 * 12},
      {"ij,i->j", {{3, 4}, {3}}, 2 * 12},
      {"ij,ij->", {{3, 4}, {3, 4}}, 2 * 12},
      {"bij,bij->b", {{2, 3, 4}, {2, 3, 4}}, 2 * 24},
  };
  for (const Product& p : products) {
    const Tensors operands{normal(p.shapes[0]), normal(p.shapes[1])};
    const Composition plan = plan_einsum(runtime(p.pattern), operands);
    EXPECT_EQ(work(plan), Work{"matmul"}) << p.pattern << ": " << to_string(plan);
    EXPECT_EQ(plan.flops().matmul, p.flops) << p.pattern;
    EXPECT_EQ(plan.flops().vector, 0) << p.pattern;
    EXPECT_EQ(plan.copied_bytes(), 0) << p.pattern;
    const int64_t before = device_->allocator().ledger().allocations;
    const Tensor y = plan.run(operands);
    EXPECT_LE(device_->allocator().ledger().allocations - before, 2) << p.pattern << ": the product and its workspace";
  }
  EXPECT_EQ(plan_einsum("ij,jk->ik", {normal({3, 4}), normal({4, 5})}).steps().size(), 1u);
}

TEST_F(Einsum, ResultsLieAsTheyAreWantedWhereThatIsFree) {
  const Tensor a = normal({3, 4}), b = normal({4, 5});
  EXPECT_TRUE(einsum("ij,jk->ki", {a, b}).is_contiguous());
  EXPECT_TRUE(einsum("ij,jk->ik", {a, b}).is_contiguous());
  EXPECT_TRUE(einsum("bij,jk->bik", {normal({2, 3, 4}), b}).is_contiguous());
}

TEST_F(Einsum, CopiesOnlyWhatIsNoMatrixAsItLies) {
  // Heads lie inside of tokens: each operand is copied once, and the result not at all.
  const Tensors attention{normal({2, 3, 2, 4}), normal({2, 5, 2, 4})};
  const Composition plan = plan_einsum("bqhd,bkhd->bhqk", attention);
  EXPECT_EQ(work(plan), (Work{"contiguous", "contiguous", "matmul"})) << to_string(plan);
  EXPECT_EQ(plan.copied_bytes(), (48 + 80) * 8);
}

TEST_F(Einsum, ProductsOfElementsAreNoMatrixProducts) {
  const Tensor a = normal({3, 4}), b = normal({4, 3}), v = normal({5});
  EXPECT_EQ(work(plan_einsum("ij,ji->ij", {a, b})), Work{"mul"});
  EXPECT_EQ(work(plan_einsum("ij,k->kij", {a, v})), Work{"mul"});
  EXPECT_EQ(work(plan_einsum("i->", {v})), Work{"sum"});
  EXPECT_EQ(work(plan_einsum("ij,k->k", {a, v})), (Work{"sum", "mul"}));
  const Tensor square = normal({6, 6});
  EXPECT_TRUE(plan_einsum("ii->i", {square}).is_view());
  EXPECT_EQ(work(plan_einsum("ii", {square})), Work{"sum"});
  EXPECT_EQ(plan_einsum("ii", {square}).flops().vector, 6) << "the trace adds the diagonal, not the matrix";
}

TEST_F(Einsum, WholeNumbersKeepTheirTypeInProducts) {
  const Tensor n = reshape(arange(*device_, 9), {3, 3});
  EXPECT_THAT(einsum("ii->i", {n}).to_vector(), ElementsAre(0, 4, 8));
  EXPECT_THAT(einsum("i,i->i", {select(n, 0, 1), select(n, 0, 2)}).to_vector(), ElementsAre(18, 28, 40));
  const Tensor m = cast(n, DType::i32), v = cast(arange(*device_, 3), DType::i32);
  for (const auto& [pattern, want] : {std::pair<const char*, Values>{"ij,jk->ik", {15, 18, 21, 42, 54, 66, 69, 90, 111}},
                                      std::pair<const char*, Values>{"ij,jk->ki", {15, 42, 69, 18, 54, 90, 21, 66, 111}}}) {
    const Tensor y = einsum(runtime(pattern), {m, m});
    EXPECT_EQ(y.dtype(), DType::i32) << pattern;
    EXPECT_EQ(y.to_vector(), want) << pattern;
  }
  const Tensor trace = einsum("ii", {m}), scaled = einsum("ij,k->k", {m, v});
  EXPECT_EQ(trace.dtype(), DType::i64) << "a sum of one operand";
  EXPECT_EQ(trace.item(), 12);
  EXPECT_EQ(scaled.dtype(), DType::i32);
  EXPECT_THAT(scaled.to_vector(), ElementsAre(0, 36, 72));
}

TEST_F(Einsum, AWordIsANameWhereOnlyThatFits) {
  const Tensor v = tensor({3}, {1, 2, 3}), m = tensor({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(einsum("index ->", {v}).item(), 6);
  EXPECT_THAT(einsum("batch, batch -> batch", {v, v}).to_vector(), ElementsAre(1, 4, 9));
  EXPECT_EQ(einsum("b1,b1->", {v, v}).item(), 14);
  EXPECT_THAT(einsum("ij, jk -> ik", {m, m}).to_vector(), ElementsAre(7, 10, 15, 22));
}

TEST_F(Einsum, AMatrixChainIsMultipliedFromItsCheapEnd) {
  const Tensor a = normal({50, 40}), b = normal({40, 30}), c = normal({30, 1});
  const Composition plan = plan_einsum("ij,jk,kl->il", {a, b, c});
  EXPECT_EQ(plan.flops().matmul, 2 * (40 * 30 * 1 + 50 * 40 * 1));
  const Values want = matmul(a, matmul(b, c)).to_vector(), got = plan.run({a, b, c}).to_vector();
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-15 * 50 * 40 * 30);
}

// The least FLOPs over all orders, by trying them all.
double least_flops(std::vector<Labels> terms, Labels out, const std::vector<int64_t>& extents) {
  if (terms.size() == 1) return 0;
  double least = -1;
  for (size_t a = 0; a < terms.size(); ++a)
    for (size_t b = a + 1; b < terms.size(); ++b) {
      std::vector<Labels> rest;
      Labels others = out;
      for (size_t c = 0; c < terms.size(); ++c) {
        if (c == a || c == b) continue;
        rest.push_back(terms[c]);
        others |= terms[c];
      }
      const Labels kept = (terms[a] | terms[b]) & others;
      rest.push_back(kept);
      const double flops = contraction_flops(terms[a], terms[b], kept, extents) + least_flops(rest, out, extents);
      if (least < 0 || flops < least) least = flops;
    }
  return least;
}
double flops_of(const std::vector<std::pair<int, int>>& order, std::vector<Labels> terms, Labels out, const std::vector<int64_t>& extents) {
  double flops = 0;
  std::vector<bool> used(terms.size(), false);
  for (const auto& [a, b] : order) {
    EXPECT_FALSE(used[size_t(a)] || used[size_t(b)]);
    used[size_t(a)] = used[size_t(b)] = true;
    Labels others = out;
    for (size_t c = 0; c < terms.size(); ++c)
      if (!used[c]) others |= terms[c];
    const Labels kept = (terms[size_t(a)] | terms[size_t(b)]) & others;
    flops += contraction_flops(terms[size_t(a)], terms[size_t(b)], kept, extents);
    terms.push_back(kept);
    used.push_back(false);
  }
  return flops;
}

TEST(EinsumOrder, IsTheCheapestOfAll) {
  for (uint64_t n = 0; n < 60; ++n) {
    uint64_t draws = 0;
    const auto below = [&](uint32_t bound) { return philox(mix_key(11, n), 0, draws++)[0] % bound; };
    std::vector<int64_t> extents;
    for (int i = 0; i < 8; ++i) extents.push_back(2 + below(9));
    std::vector<Labels> terms(2 + n % 4);
    const Labels out = below(256);
    for (Labels& t : terms) t = below(256) & below(256);
    // What one operand alone has is summed before: it is in the output or in another.
    for (size_t i = 0; i < terms.size(); ++i) {
      Labels others = out;
      for (size_t k = 0; k < terms.size(); ++k)
        if (k != i) others |= terms[k];
      terms[i] &= others;
    }
    const auto order = contraction_order(terms, out, extents);
    ASSERT_EQ(order.size(), terms.size() - 1);
    EXPECT_EQ(flops_of(order, terms, out, extents), least_flops(terms, out, extents)) << n;
  }
}

TEST(EinsumOrder, IsGreedyBeyondSixOperandsAndComplete) {
  std::vector<Labels> chain;
  for (int i = 0; i < 20; ++i) chain.push_back(Labels(3) << i);
  const std::vector<int64_t> extents(21, 4);
  const Labels out = 1 | Labels(1) << 20;
  const auto order = contraction_order(chain, out, extents);
  EXPECT_EQ(order.size(), 19u);
  EXPECT_EQ(flops_of(order, chain, out, extents), 19 * 2 * 64) << "every order of a chain of equal matrices costs the same";
}

TEST_F(Einsum, SevenOperandsMeetGreedily) {
  Tensors operands;
  for (int i = 0; i < 7; ++i) operands.push_back(normal({2, 2}));
  Tensor want = operands[0];
  for (int i = 1; i < 7; ++i) want = matmul(want, operands[size_t(i)]);
  const Values expected = want.to_vector(), got = einsum("ab,bc,cd,de,ef,fg,gh->ah", operands).to_vector();
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-11);
}

TEST_F(Einsum, ThePlanChargesWhatTheMeterSees) {
  const Tensors operands{normal({3, 4, 4}), normal({5, 4}), normal({3, 5, 6})};
  const Composition plan = plan_einsum("bii,ki,bkl->bl", operands);
  Meter meter;
  {
    const MeterScope scope(meter);
    plan.run(operands);
  }
  EXPECT_EQ(meter.total(), plan.flops());
}

TEST_F(Einsum, ATensorMayStandTwice) {
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4});
  const Tensor y = einsum("ij,kj->ik", {x, x});
  EXPECT_THAT(y.to_vector(), ElementsAre(5, 11, 11, 25));
  backward(sum(y));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(8, 12, 8, 12));
}
}  // namespace
}  // namespace reckon
