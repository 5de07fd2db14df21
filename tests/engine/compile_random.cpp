// Random steps: graphs of element-wise calls with sums, views, products and a backward pass between them, some results returned, held or
// kept for backward. Compiled, each gives the bits of the eager step in the planned memory.
#include "tests/engine/compile_support.h"

namespace reckon {
namespace {
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 2 + 1) {}
  int64_t below(int64_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return int64_t((state_ >> 33) % uint64_t(n));
  }
  bool chance(int percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

struct Instruction {
  int64_t kind, a, b, c;
  bool returned;
  std::vector<size_t> dropped;  // values that nobody reads any more
};
// Values 0..2 are inputs of the step, 3..4 leaves of full shape and of a row.
struct Program {
  Shape shape;
  DType dtype;
  bool with_backward;
  std::vector<Instruction> code;
};

Program make_program(uint64_t seed) {
  Dice dice(seed);
  const Shape shapes[] = {
      {1 + dice.below(40), 2 + dice.below(90)}, {3, 1 + dice.below(9), 33}, {2 + dice.below(5000)}, {2100, 5}, {1, 1300}};
  const DType dtypes[] = {DType::f32, DType::f32, DType::bf16, DType::f16, DType::f64};
  Program p{shapes[dice.below(5)], dtypes[dice.below(5)], dice.chance(50), {}};
  const int64_t count = 3 + dice.below(20);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t known = 5 + i;
    // Recent values more often than old ones: chains.
    const auto pick = [&] { return dice.chance(70) ? known - 1 - dice.below(std::min<int64_t>(3, known)) : dice.below(known); };
    p.code.push_back({dice.below(24), pick(), pick(), pick(), dice.chance(10), {}});
  }
  p.code.back().returned = true;
  for (int64_t value = 5; value < 5 + count; ++value) {
    size_t last = size_t(value - 5);
    for (size_t i = last; i < p.code.size(); ++i)
      if (p.code[i].a == value || p.code[i].b == value || p.code[i].c == value) last = i;
    if (dice.chance(75)) p.code[last].dropped.push_back(size_t(value));  // others are held to the end
  }
  return p;
}

Tensor apply(const Instruction& i, const std::vector<Tensor>& v, DType dtype) {
  const Tensor &a = v[size_t(i.a)], &b = v[size_t(i.b)], &c = v[size_t(i.c)];
  switch (i.kind) {
    case 0:
      return add(a, b);
    case 1:
      return sub(a, b);
    case 2:
      return mul(a, b);
    case 3:
      return maximum(a, b);
    case 4:
      return minimum(a, affine(b, 0.5));
    case 5:
      return div(a, affine(square(b), 1, 1));
    case 6:
      return exp(affine(a, -0.1));
    case 7:
      return tanh(a);
    case 8:
      return sigmoid(a);
    case 9:
      return relu(a);
    case 10:
      return gelu(a);
    case 11:
      return silu(a);
    case 12:
      return where(less(a, b), b, c);
    case 13:
      return where(equal(a, c), a, affine(b, 0.25));
    case 14:
      return cast(cast(a, DType::f32), dtype);
    case 15:
      return cast(tanh(cast(a, DType::bf16)), dtype);
    case 16:
      return abs(neg(a));
    case 17:
      return sqrt(affine(square(a), 1, 1));
    case 18:
      return mul(a, sum(b, {-1}, true));
    case 19:
      return sub(a, mean(b));
    case 20:
      return mul(b, rsqrt(affine(mean(square(a), {-1}, true), 1, 0.1)));
    case 21:
      return log(affine(abs(a), 1, 0.5));
    case 22:
      return contiguous(expand(slice(a, 0, 0, 1), a.shape()));
    default:
      return reciprocal(affine(exp(a), 1, 1));
  }
}

Tensors run_program(const Program& p, const Tensors& leaves, const Tensors& in) {
  for (Tensor leaf : leaves) leaf.zero_grad();
  std::vector<Tensor> v(in.begin(), in.end());
  v.insert(v.end(), leaves.begin(), leaves.end());
  Tensors out;
  Tensor loss;
  for (const Instruction& i : p.code) {
    Tensor y = apply(i, v, p.dtype);
    if (y.shape() == p.shape) {
      v.push_back(y);
    } else {
      v.push_back(add(in[0], y));  // of rows: back to the full shape
    }
    if (i.returned) {
      out.push_back(v.back().detached());
      const Tensor part = mean(cast(v.back(), DType::f32));
      loss = loss.defined() ? add(loss, part) : part;
    }
    y = {};
    for (const size_t dropped : i.dropped) v[dropped] = {};
  }
  if (p.with_backward && loss.requires_grad()) backward(loss);
  out.push_back(loss.detached());
  return out;
}

TEST(CompileRandom, GivesTheBitsOfTheEagerStepInThePlannedMemory) {
  int64_t groups = 0, unstored = 0;
  for (uint64_t seed = 1; seed <= 250; ++seed) {
    SCOPED_TRACE(seed);
    const Program p = make_program(seed);
    const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), Guard(seed % 3));
    const std::vector<Shape> shapes = {p.shape, {p.shape.last()}};
    const Tensors mine = leaves(*device, shapes, p.dtype), eager = leaves(*device, shapes, p.dtype);
    const Tensors in = {normal(*device, p.shape, 1, p.dtype), normal(*device, {p.shape.last()}, 2, p.dtype),
                        normal(*device, {1}, 3, p.dtype)};
    CompiledStep step = compile(*device, [&](const Tensors& given) { return run_program(p, mine, given); });
    const std::vector<Bytes> want = bytes_of(run_program(p, eager, in));
    EXPECT_EQ(bytes_of(step(in)), want);
    EXPECT_EQ(gradients(mine), gradients(eager));
    expect_planned(*device, step, in);
    EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
    const CompiledPlan& plan = step.plan(in);
    EXPECT_LE(plan.run.placement.bytes, plan.unfused.placement.bytes + workspace_of(plan.run));
    EXPECT_EQ(plan.run.flops, plan.unfused.flops);
    for (const FusedGroup& g : plan.groups) unstored += g.unstored;
    groups += int64_t(plan.groups.size());
  }
  EXPECT_GT(groups, 500);
  EXPECT_GT(unstored, 1 << 20);
}
}  // namespace
}  // namespace reckon
