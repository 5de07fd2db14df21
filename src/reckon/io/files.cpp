// io/files: reading and writing of single files over POSIX calls.
#include "reckon/io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "reckon/base/error.h"
#include "reckon/base/stop.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
// Small enough to stay in the cache between hashing and writing.
constexpr size_t kChunkBytes = size_t(1) << 20;

bool out_of_space(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

std::string hidden_name_beside(const std::string& path) {
  static std::atomic<unsigned> serial{0};
  const size_t slash = path.rfind('/');
  const std::string name = slash == path.npos ? path : path.substr(slash + 1);
  const std::string hidden = text(".{}.tmp-{}-{}", name, int64_t(::getpid()), serial.fetch_add(1));
  return slash == path.npos ? hidden : path.substr(0, slash + 1) + hidden;
}
}  // namespace

void fail_errno(std::string_view action, std::string_view path, int error) {
  fail("cannot {} {}: {}", action, path, std::string(std::strerror(error)));
}

InputFile::InputFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a pipe nobody writes to must not wait; it means nothing for regular files.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) fail_as(Failure::usage, "there is no file {}", path);
    fail_errno("open", path, error);
  }
  struct stat status;
  if (::fstat(fd_, &status) != 0) {
    const int error = errno;
    ::close(fd_);
    fail_errno("examine", path, error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd_);
    fail_as(Failure::usage, "{} is {}, not a regular file", path, S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe");
  }
  size_ = status.st_size;
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(std::exchange(other.size_, 0)) {}

InputFile InputFile::duplicate() const {
  InputFile copy;
  copy.path_ = path_;
  copy.size_ = size_;
  copy.fd_ = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy.fd_ < 0) fail_errno("open", path_, errno);
  return copy;
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void InputFile::read(int64_t offset, std::span<std::byte> out) const {
  stop_point();
  check(offset >= 0, "cannot read {} at byte {}", path_, offset);
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), std::min(out.size(), size_t(1) << 30), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno("read", path_, errno);
    if (got == 0) {
      struct stat status;
      const int64_t now = ::fstat(fd_, &status) == 0 ? int64_t(status.st_size) : offset;
      fail_as(Failure::corrupt, "{}: ends at byte {}, but {} bytes from byte {} on are needed{}", path_, now, out.size(), offset,
              now < size_ ? text("; it held {} bytes when it was opened: something is changing it", size_) : "");
    }
    offset += got;
    out = out.subspan(size_t(got));
  }
}

std::string InputFile::hash() const {
  Hash128 hash;
  std::vector<std::byte> chunk(std::min<size_t>(kChunkBytes, size_t(size_)));
  for (int64_t at = 0; at < size_; at += int64_t(chunk.size())) {
    const std::span part = std::span(chunk).first(std::min<size_t>(chunk.size(), size_t(size_ - at)));
    read(at, part);
    hash.update(part);
  }
  return hash.hex();
}

FileWriter::FileWriter(const std::string& path, Place place, int64_t expected_bytes)
    : path_(path), written_path_(place == Place::atomic ? hidden_name_beside(path) : path), place_(place), expected_(expected_bytes) {
  fd_ = ::open(written_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno("create", place == Place::atomic ? path_ : written_path_, errno);
  // Not posix_fallocate, which would write zeros where the file system cannot reserve.
  if (expected_ > 0) {
    while (::fallocate(fd_, 0, 0, expected_) != 0) {
      const int error = errno;
      if (error == EINTR) continue;
      if (out_of_space(error)) fail_write(error, expected_);
      break;  // cannot reserve here: write() will find a full disk
    }
  }
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) remove_file();
}

void FileWriter::remove_file() {
  ::close(std::exchange(fd_, -1));
  ::unlink(written_path_.c_str());
}

// Frees what was taken before asking how much is free, and tells what the file as a whole needs.
void FileWriter::fail_write(int error, int64_t needed) {
  remove_file();
  if (!out_of_space(error)) fail_errno("write", path_, error);
  struct statvfs disk;
  std::string free = "";
  if (error == EFBIG) {
    free = " and files may not grow that large here (see ulimit -f)";
  } else if (::statvfs(parent_path(path_).c_str(), &disk) == 0) {
    const int64_t available = int64_t(disk.f_bavail) * int64_t(disk.f_frsize);
    free = text(" and {} bytes ({}) are free there: free some space or write elsewhere", available, human_bytes(available));
  }
  fail("cannot write {}: {}; it needs {}{} bytes ({}){}", path_, std::string(std::strerror(error)), expected_ > 0 ? "" : "at least ",
       needed, human_bytes(needed), free);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  RECKON_ASSERT(fd_ >= 0);
  RECKON_ASSERT(expected_ == 0 || int64_t(bytes.size()) <= expected_ - written_);
  while (!bytes.empty()) {
    const std::span chunk = bytes.first(std::min(bytes.size(), kChunkBytes));
    hash_.update(chunk);
    for (std::span rest = chunk; !rest.empty();) {
      const ssize_t put = ::write(fd_, rest.data(), rest.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail_write(errno, expected_ > 0 ? expected_ : written_ + int64_t(bytes.size()));
      rest = rest.subspan(size_t(put));
    }
    written_ += int64_t(chunk.size());
    bytes = bytes.subspan(chunk.size());
  }
}

FileDigest FileWriter::finish() {
  RECKON_ASSERT(fd_ >= 0 && (expected_ == 0 || written_ == expected_));
  if (::fsync(fd_) != 0) fail_write(errno, written_);
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) != 0) {
    const int error = errno;
    ::unlink(written_path_.c_str());
    fail_errno("write", path_, error);
  }
  if (place_ == Place::atomic) {
    if (::rename(written_path_.c_str(), path_.c_str()) != 0) {
      const int error = errno;
      ::unlink(written_path_.c_str());
      fail_errno("write", path_, error);
    }
    sync_directory(parent_path(path_));
  }
  return {written_, hash_.hex()};
}

std::string read_file(const std::string& path, int64_t max_bytes) { return read_file(InputFile(path), max_bytes); }

std::string read_file(const InputFile& file, int64_t max_bytes) {
  check_as(Failure::corrupt, file.size() <= max_bytes, "{}: has {} bytes, over the limit of {} for such a file", file.path(), file.size(),
           max_bytes);
  std::string bytes(size_t(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

FileDigest write_file(const std::string& path, std::string_view bytes) {
  FileWriter writer(path, FileWriter::Place::atomic, int64_t(bytes.size()));
  writer.write(bytes);
  return writer.finish();
}

std::string hash_of_file(const std::string& path) { return InputFile(path).hash(); }
}  // namespace reckon
