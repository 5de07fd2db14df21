// A model's state through a file: the same bytes, by name, into another model of the same parts.
#include "reckon/train/state_file.h"

#include "reckon/nn/layers.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Net : nn::Module {
  using Module::Module;
  nn::FeedForward first{*this, "first", 8, 12};
  nn::RmsNorm norm{*this, "norm", 8};
};

TEST(StateFile, CarriesAModelsState) {
  const Folder folder;
  const std::string path = folder / "net.safetensors";
  const Ref<Device> device = open_cpu(Mode::real);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    Parameters a, b;
    Net saved(a), loaded(b);
    saved.materialize(*device, {.dtype = dtype}, 1);
    loaded.materialize(*device, {.dtype = dtype}, 2);
    save_state(path, saved.state_dict());
    loaded.load_state_dict(load_state(path, *device));
    const nn::StateDict one = saved.state_dict(), other = loaded.state_dict();
    ASSERT_EQ(one.size(), 5u);
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(one[i].name, other[i].name);
      EXPECT_EQ(bytes_of(contiguous(one[i].tensor)), bytes_of(contiguous(other[i].tensor))) << one[i].name;
    }
  }
  EXPECT_THROW(load_state(folder / "none.safetensors", *device), Error);
  const Ref<Device> meta = open_cpu(Mode::meta);
  EXPECT_THROW(load_state(path, *meta), Error);
}
}  // namespace
}  // namespace small
