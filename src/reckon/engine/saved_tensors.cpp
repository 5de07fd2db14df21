#include "reckon/engine/saved_tensors.h"

namespace reckon {
int64_t detail::packed_bytes(const Tensor& packed) { return packed.spec().bytes(); }

void detail::check_unchanged(const Tensor& packed, uint64_t version) {
  check(packed.version() == version,
        "saved tensor hooks: {}, which pack gave, was changed in place after it was kept for backward (version {}, now {})", packed,
        version, packed.version());
}
}  // namespace reckon
