#include "reckon/train/state_file.h"

#include "reckon/io/safetensors.h"

namespace reckon {
namespace {
void read_tensor(void* tensor, int64_t offset, std::span<std::byte> out) {
  const Tensor& t = *static_cast<const Tensor*>(tensor);
  t.device().copy_out(out.data(), static_cast<const std::byte*>(t.raw()) + offset, out.size());
}
void write_tensor(void* tensor, int64_t offset, std::span<const std::byte> bytes) {
  const Tensor& t = *static_cast<const Tensor*>(tensor);
  t.device().copy_in(static_cast<std::byte*>(t.raw()) + offset, bytes.data(), bytes.size());
}
}  // namespace

void save_state(const std::string& path, const nn::StateDict& state) {
  std::vector<Tensor> whole;
  for (const nn::NamedTensor& t : state) whole.push_back(contiguous(t.tensor));
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < state.size(); ++i)
    tensors.push_back({.name = state[i].name, .spec = whole[i].spec(), .source = read_tensor, .context = &whole[i]});
  write_safetensors(path, tensors);
}

nn::StateDict load_state(const std::string& path, Device& device) {
  check(!device.is_meta(), "a state is read into memory, and meta has none");
  const SafetensorsFile file(path);
  nn::StateDict state;
  for (const SafetensorsEntry& entry : file.entries()) {
    state.push_back({entry.name, empty(device, entry.spec())});
    file.read(entry.name, entry.spec(), write_tensor, &state.back().tensor);
  }
  return state;
}
}  // namespace reckon
