// io/files: the lock is a flock; the file's text only tells people who holds it.
#include "reckon/io/files_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
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

// Creates and locks the file. -1: its name went away meanwhile, with the process that held it.
int DirectoryLock::try_lock() {
  make_directories(directory_);
  const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0 && errno == ENOENT) return -1;
  if (fd < 0) fail_errno("create", path_, errno);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    if (error == EINTR) continue;
    const std::string pid = holder(fd);
    ::close(fd);
    if (error != EWOULDBLOCK) fail_errno("lock", path_, error);
    fail("{} is in use by {}: wait until it ends, or choose another run.dir", directory_,
         pid.empty() ? "another process" : text("process {}", pid));
  }
  struct stat locked, named;
  if (::fstat(fd, &locked) == 0 && ::stat(path_.c_str(), &named) == 0 && locked.st_ino == named.st_ino && locked.st_dev == named.st_dev)
    return fd;
  ::close(fd);
  return -1;
}

DirectoryLock::DirectoryLock(const std::string& directory) : directory_(directory), path_(join_path(directory, ".lock")) {
  for (std::string path = directory; !path_exists(path); path = parent_path(path)) created_.push_back(path);
  try {
    while (fd_ < 0) fd_ = try_lock();
    const std::string line = text("{}\n", int64_t(::getpid()));
    if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, line.data(), line.size(), 0) != ssize_t(line.size())) {
      const int error = errno;
      ::close(fd_);
      fail_errno("write", path_, error);
    }
  } catch (...) {
    remove_created();
    throw;
  }
}

void DirectoryLock::remove_created() {
  for (const std::string& path : created_)
    if (::rmdir(path.c_str()) != 0) return;
}

// The name goes while the lock is held; who opened it before finds, once it has the lock, that the name is gone or another's.
DirectoryLock::~DirectoryLock() {
  ::unlink(path_.c_str());
  ::close(fd_);
  remove_created();
}
}  // namespace reckon
