#include "reckon/io/tokenizer_text.h"

#include <algorithm>
#include <span>

#include "reckon/base/error.h"

namespace reckon {

std::string_view TextReader::more() {
  // Doubling keeps the search for a place to cut linear where there is none for long.
  const int64_t wanted = int64_t(std::max(window_bytes_, pending_.size()));
  const size_t bytes = size_t(std::min(wanted, file_.size() - read_));
  const size_t before = pending_.size();
  pending_.resize(before + bytes);
  file_.read(read_, std::as_writable_bytes(std::span(pending_).subspan(before)));
  read_ += int64_t(bytes);
  return pending_;
}

void TextReader::consume(size_t bytes) {
  RECKON_ASSERT(bytes <= pending_.size());
  pending_.erase(0, bytes);
}
}  // namespace reckon
