// tests/backend/attention_chunked: whole sequences by chunks, as the decoder does it: keys and values first, then backward from the last.
#pragma once
#include "reckon/backend/cpu/attention_chunk.h"
#include "reckon/backend/cpu/kv_cache.h"
#include "tests/backend/attention_reference.h"

namespace reckon::test {

inline cpu::AttentionShape with_tokens(cpu::AttentionShape s, int64_t tokens) {
  s.tokens = tokens;
  return s;
}

/// The buffers of a Call, filled a chunk at a time. Batches of chunks are copied out of, and into, those of whole sequences.
struct Chunked {
  Call whole;
  Array k, v, dk, dv;
  Chunked(const cpu::AttentionShape& s, int lanes)
      : whole(s, lanes),
        k(s.dtype, s.batch * s.kv_heads * s.tokens * s.head_dim),
        v(s.dtype, k.count()),
        dk(statistics_dtype(s.dtype), s.batch * s.kv_heads * s.tokens * ((s.head_dim + 15) / 16 * 16)),
        dv(dk.dtype(), dk.count()) {
    for (Array* sums : {&dk, &dv}) std::memset(sums->data(), 0, size_t(sums->count() * size_of(sums->dtype())));
  }

  /// The chunks, the last first.
  std::vector<cpu::AttentionChunk> parts(int64_t chunk) const {
    std::vector<cpu::AttentionChunk> all;
    for (int64_t first = 0; first < whole.shape.tokens; first += chunk)
      all.insert(all.begin(), {with_tokens(whole.shape, std::min(chunk, whole.shape.tokens - first)), first, whole.shape.tokens});
    return all;
  }
  // Rows [first, first + C) of [outer, T, width], or back.
  void copy(const cpu::AttentionChunk& part, const Array& of, Array& cut, int64_t outer, int64_t width, bool back = false) const {
    const int64_t T = whole.shape.tokens, C = part.attention.tokens, bytes = width * size_of(of.dtype());
    for (int64_t o = 0; o < outer; ++o) {
      char* one = static_cast<char*>(const_cast<Array&>(of).data()) + (o * T + part.first) * bytes;
      char* other = static_cast<char*>(cut.data()) + o * C * bytes;
      back ? std::memcpy(one, other, size_t(C * bytes)) : std::memcpy(other, one, size_t(C * bytes));
    }
  }
  // The part with the documents of its own rows, if there are any, in `cut`.
  cpu::AttentionChunk with_documents(cpu::AttentionChunk part, std::vector<int32_t>& cut) const {
    if (!whole.shape.documents) return part;
    for (int64_t b = 0; b < whole.shape.batch; ++b)
      for (int64_t t = 0; t < part.attention.tokens; ++t) cut.push_back(whole.shape.documents[b * whole.shape.tokens + part.first + t]);
    part.attention.documents = cut.data();
    return part;
  }
  void forward_of(cpu::AttentionChunk part) {
    std::vector<int32_t> cut;
    part = with_documents(part, cut);
    const cpu::AttentionShape& s = part.attention;
    Call c(s, whole.lanes);
    copy(part, whole.qkv, c.qkv, s.batch, row());
    cpu::kv_append(s, part.total, c.qkv.data(), k.data(), v.data(), &part.first);
    Buffer workspace(cpu::attention_chunk_workspace(part, whole.lanes));
    cpu::attention_chunk_forward(part, c.qkv.data(), k.data(), v.data(), c.out.data(), c.lse.data(), workspace.data(), whole.lanes);
    copy(part, whole.out, c.out, s.batch, s.heads * s.head_dim, true);
    copy(part, whole.lse, c.lse, s.batch * s.heads, 1, true);
  }
  void backward_of(cpu::AttentionChunk part) {
    std::vector<int32_t> cut;
    part = with_documents(part, cut);
    const cpu::AttentionShape& s = part.attention;
    Call c(s, whole.lanes);
    copy(part, whole.qkv, c.qkv, s.batch, row());
    copy(part, whole.out, c.out, s.batch, s.heads * s.head_dim);
    copy(part, whole.dout, c.dout, s.batch, s.heads * s.head_dim);
    copy(part, whole.lse, c.lse, s.batch * s.heads, 1);
    Buffer workspace(cpu::attention_chunk_back_workspace(part, whole.lanes));
    cpu::attention_chunk_backward(part, c.dout.data(), c.qkv.data(), k.data(), v.data(), c.out.data(), c.lse.data(), dk.data(), dv.data(),
                                  c.dqkv.data(), workspace.data(), whole.lanes);
    copy(part, whole.dqkv, c.dqkv, s.batch, row(), true);
  }
  void forward(int64_t chunk) {
    const std::vector<cpu::AttentionChunk> all = parts(chunk);
    for (size_t i = all.size(); i-- > 0;) forward_of(all[i]);
  }
  void backward(int64_t chunk) {
    for (const cpu::AttentionChunk& part : parts(chunk)) backward_of(part);
  }
  int64_t row() const { return (whole.shape.heads + 2 * whole.shape.kv_heads) * whole.shape.head_dim; }
};
}  // namespace reckon::test
