// io/files: the lock is a flock; the file's text only tells people who holds it.
#include "reckon/io/files_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "reckon/base/error.h"
#include "reckon/io/files.h"

namespace reckon {
namespace {
// The number in the file, or "" while the holder has not written it yet.
std::string holder(int fd) {
  char digits[16];
  const ssize_t got = ::pread(fd, digits, sizeof digits, 0);
  std::string number;
  for (ssize_t i = 0; i < got && digits[i] >= '0' && digits[i] <= '9'; ++i) number += digits[i];
  return number;
}
}  // namespace

DirectoryLock::DirectoryLock(const std::string& directory) {
  make_directories(directory);
  const std::string path = join_path(directory, ".lock");
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_errno("create", path, errno);
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    const std::string pid = holder(fd_);
    ::close(fd_);
    if (error != EWOULDBLOCK) fail_errno("lock", path, error);
    fail("{} is in use by {}: wait until it ends, or choose another run.dir", directory,
         pid.empty() ? "another process" : text("process {}", pid));
  }
  const std::string line = text("{}\n", int64_t(::getpid()));
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, line.data(), line.size(), 0) != ssize_t(line.size())) {
    const int error = errno;
    ::close(fd_);
    fail_errno("write", path, error);
  }
}

// The file stays: removing it would let a waiting process lock a name that is gone.
DirectoryLock::~DirectoryLock() { ::close(fd_); }
}  // namespace reckon
