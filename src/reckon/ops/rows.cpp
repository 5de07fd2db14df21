#include "reckon/ops/rows.h"

#include <span>

#include "reckon/ops/axes.h"

namespace reckon {
std::span<const OpDef* const> all_ops() {
  static const OpDef* const rows[] = {
#define OP(name) &op::name,
#include "reckon/ops/ops.def"
#undef OP
      &op::reshape, &op::permute, &op::slice, &op::expand, &op::diagonal};
  return rows;
}
}  // namespace reckon
