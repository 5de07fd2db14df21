// data/token_file: files of token ids, as others write them and as we do. Knows no text and no tokenizer.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "reckon/base/ref.h"
#include "reckon/io/files.h"

namespace reckon {

/// A one-dimensional file of token ids, told apart by its first bytes:
///   .npy (versions 1-3, C order; u16, u32, i32, i64),  llm.c's .bin (header 20240520 with u16, 20240801 with u32),
///   otherwise raw little-endian ids: u16 or u32 by the name's ending (.u16, .u32), else u16 if vocab <= 65536 (nanoGPT's .bin) and u32
///   above.
/// Reads with pread, not mmap: file pages never count as our memory, and a file cut short while in use is an error, not a SIGBUS (a size
/// check before each mapped access would leave a gap). Windows of 1025 ids, cached: as fast as mapped, twice as fast as mapped with both
/// guards.
class TokenFile : public RefCounted {
 public:
  /// vocab: every id must be below it; 0: no limit but int32. Throws Error: usage if the path is missing or not a regular file, corrupt if
  /// the file is empty, its header is malformed or refuses what is said above, or its size is not what its header says.
  static Ref<TokenFile> open(const std::string& path, int64_t vocab);

  int64_t size() const { return size_; }  // tokens
  const std::string& path() const { return file_.path(); }
  /// "npy u16", "raw u32", "llm.c u16".
  const std::string& format() const { return format_; }
  /// Tokens [first, first + into.size()). Throws Error: a range outside the file; usage for an id outside the vocabulary (names file, index,
  /// id, vocab and the largest id); corrupt for an id that no vocabulary has or a file that has become shorter. Allocates nothing; threads may share the object.
  void read(int64_t first, std::span<int32_t> into) const;
  /// Reads the whole file once to check every id.
  void check_ids() const;

 private:
  friend class TokenFileHeader;
  TokenFile(const std::string& path, int64_t vocab) : file_(path), vocab_(vocab) {}
  [[noreturn]] void fail_id(int64_t index, int64_t id) const;
  int64_t largest_id() const;
  template <class T>
  void convert(const unsigned char* bytes, int64_t first, std::span<int32_t> into) const;

  InputFile file_;
  int64_t vocab_;
  int64_t size_ = 0;
  int64_t data_offset_ = 0;  // bytes
  int width_ = 2;            // bytes of an id
  bool is_signed_ = false;
  std::string format_;
};

/// True if the file is to be read as token ids: by its first bytes, or by a name ending in .bin, .npy, .u16 or .u32. Anything else is text.
bool is_token_file(const std::string& path);

/// Writes a .npy of token ids: u16 if vocab <= 65536, else u32. The file appears under its name, whole and durable, on finish(); without it
/// nothing remains. Throws Error (failed) naming the path and the system's reason.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& path, int64_t vocab);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;
  /// Ids must be in [0, vocab).
  void append(std::span<const int32_t> ids);
  void finish();

 private:
  void write_at(int64_t offset, const void* data, size_t bytes);
  void flush();
  std::string header() const;
  std::string path_, temporary_;
  int64_t vocab_;
  int fd_ = -1;
  int64_t count_ = 0;
  int64_t written_ = 0;                // bytes in the file
  std::vector<unsigned char> buffer_;  // ids on their way
};
}  // namespace reckon
