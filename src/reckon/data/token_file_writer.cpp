// data/token_file_writer: our own token files. The number of tokens is known last, so the header has a fixed size and is written again.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/data/token_file.h"

namespace reckon {
namespace {
constexpr size_t kHeaderBytes = 128, kBufferBytes = size_t(1) << 16;
constexpr int64_t kMaxU16Vocab = 65536;
}  // namespace

TokenFileWriter::TokenFileWriter(const std::string& path, int64_t vocab) : path_(path), vocab_(vocab) {
  static std::atomic<unsigned> serial{0};
  check(vocab > 0 && vocab <= INT32_MAX, "a vocabulary of {} is not possible", vocab);
  do {
    temporary_ = text("{}.tmp-{}-{}", path, int64_t(::getpid()), ++serial);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);  // a leftover of a crashed process with our id
  if (fd_ < 0) fail_errno("create", path_, errno);
  buffer_.reserve(kBufferBytes);
  try {
    write_at(0, header().data(), kHeaderBytes);
  } catch (...) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
    throw;
  }
  written_ = int64_t(kHeaderBytes);
}

TokenFileWriter::~TokenFileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

std::string TokenFileWriter::header() const {
  std::string header("\x93NUMPY\x01\x00\x76\x00", 10);  // version 1.0, 118 bytes of dictionary
  header += std::string("{'descr': '<u") + (vocab_ <= kMaxU16Vocab ? "2" : "4") + "', 'fortran_order': False, 'shape': (" +
            std::to_string(count_) + ",), }";
  header.resize(kHeaderBytes - 1, ' ');
  return header + '\n';
}

void TokenFileWriter::write_at(int64_t offset, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, from, bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("write", path_, errno);
    from += n;
    offset += n;
    bytes -= size_t(n);
  }
}

void TokenFileWriter::flush() {
  write_at(written_, buffer_.data(), buffer_.size());
  written_ += int64_t(buffer_.size());
  buffer_.clear();
}

void TokenFileWriter::append(std::span<const int32_t> ids) {
  const int width = vocab_ <= kMaxU16Vocab ? 2 : 4;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_) fail("token {} is id {}, outside the vocabulary of {} that {} is written for", count_, id, vocab_, path_);
    for (int byte = 0; byte < width; ++byte) buffer_.push_back(uint8_t(uint32_t(id) >> 8 * byte));
    ++count_;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void TokenFileWriter::finish() {
  RECKON_ASSERT(fd_ >= 0);
  flush();
  write_at(0, header().data(), kHeaderBytes);
  if (::fsync(fd_) != 0) fail_errno("write", path_, errno);
  rename_path(temporary_, path_);
  ::close(fd_);
  fd_ = -1;
}
}  // namespace reckon
