// engine/saved_tensors: what nodes keep for backward may be kept in another form: compressed, or somewhere else.
#pragma once
#include "reckon/engine/context.h"
#include "reckon/engine/node.h"

namespace reckon {
namespace detail {
struct SavedTensorPacker : RefCounted {
  virtual Ref<PackedTensor> pack(const Tensor& tensor) = 0;
};
int64_t packed_bytes(const Tensor& packed);
void check_unchanged(const Tensor& packed, uint64_t version);

template <class Pack, class Unpack>
struct Packer final : SavedTensorPacker {
  using Packed = std::invoke_result_t<Pack&, const Tensor&>;
  static constexpr bool kIsTensor = std::is_same_v<Packed, Tensor>;
  struct Held final : PackedTensor {
    Ref<Packer> packer;
    Packed packed;
    uint64_t version = 0;
    Held(Ref<Packer> p, Packed value) : packer(std::move(p)), packed(std::move(value)) {
      if constexpr (kIsTensor) version = packed.version();
    }
    Tensor unpack() const override {
      if constexpr (kIsTensor) check_unchanged(packed, version);
      return packer->unpack_(packed);
    }
    int64_t bytes() const override {
      if constexpr (kIsTensor) return packed_bytes(packed);
      return 0;
    }
  };
  Pack pack_;
  Unpack unpack_;
  Packer(Pack pack, Unpack unpack) : pack_(std::move(pack)), unpack_(std::move(unpack)) {}
  Ref<PackedTensor> pack(const Tensor& tensor) override {
    Packed packed = pack_(tensor);
    if constexpr (kIsTensor) check(packed.defined(), "saved tensor hooks: pack gave an undefined tensor for {}", tensor);
    return Ref<PackedTensor>(new Held(Ref<Packer>(this), std::move(packed)));
  }
};
}  // namespace detail

/// While it lives, each tensor that a node keeps is given to pack(tensor), whose result (a tensor, or anything that can be moved) is kept
/// in its place, and unpack(result) gives it back where backward asks for it: same shape, dtype and device, perhaps other values. Neither
/// is recorded. A tensor that two nodes keep is packed twice; leaves that require a gradient live anyhow and are kept as they are. pack may
/// return what it was given. Functions must not hold the tensors that they see. Throws Error where unpack gives something else.
class SavedTensorHooks {
 public:
  template <class Pack, class Unpack>
  SavedTensorHooks(Pack pack, Unpack unpack)
      : packer_(new detail::Packer<Pack, Unpack>(std::move(pack), std::move(unpack))), restore_(context().packer, packer_.get()) {}

 private:
  Ref<detail::SavedTensorPacker> packer_;
  detail::Restore<detail::SavedTensorPacker*> restore_;
};
}  // namespace reckon
