// io/files: one process at a time in a run directory.
#pragma once
#include <string>

namespace reckon {

/// Holds `directory/.lock` exclusively while it lives; the kernel lets go of it however the process ends. Creates the directory.
class DirectoryLock {
 public:
  /// Throws Error (failed) naming the process that holds the lock, or the reason why the file system cannot lock.
  explicit DirectoryLock(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_ = -1;
};
}  // namespace reckon
