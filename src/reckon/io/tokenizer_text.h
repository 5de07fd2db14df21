// io/tokenizer_text: a large text file through a small window. Knows bytes only.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "reckon/io/files.h"

namespace reckon {

/// Reads a file front to back: more() shows all bytes that have been read and not yet consumed. Takes the file's length when it was opened.
class TextReader {
 public:
  explicit TextReader(const std::string& path, size_t window_bytes = size_t(8) << 20) : file_(path), window_bytes_(window_bytes) {}
  /// Reads another window (twice as much as is pending, if that is more) and shows what is pending now; valid until the next call.
  std::string_view more();
  bool at_end() const { return read_ == file_.size(); }
  void consume(size_t bytes);
  const InputFile& file() const { return file_; }

 private:
  InputFile file_;
  size_t window_bytes_;
  std::string pending_;
  int64_t read_ = 0;
};
}  // namespace reckon
