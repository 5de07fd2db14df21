// nn/decoder_chunks: what the two ways to pass sequences in chunks share. Private to nn/decoder_chunks*.
#pragma once
#include "reckon/nn/decoder.h"

namespace reckon {

inline constexpr CrossEntropyOptions kSummed = {.reduction = Reduction::sum};

/// The first token of each chunk of tokens [B, T, ...]; the last one may be shorter. Throws Error for what cannot be cut.
std::vector<int64_t> chunk_starts(const Tensor& tokens, int64_t chunk, bool plain_attention);
/// The chunk [B, chunk, ...] that begins at `first`; of an undefined tensor nothing.
Tensor tokens_of_chunk(const Tensor& tokens, int64_t first, int64_t chunk);
/// Targets that are not ignored, which the mean is over: a scalar.
Tensor count_of(const Tensor& targets, DType dtype);
void add_to(Tensor& total, Tensor share);
}  // namespace reckon
