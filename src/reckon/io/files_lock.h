// io/files: one process at a time in a run directory.
#pragma once
#include <string>
#include <vector>

namespace reckon {

/// Holds `directory/.lock` exclusively while it lives; the kernel lets go of it however the process ends. Creates the directory. At its end
/// the file goes, and the directories that it created as far as they are empty: a run that was refused leaves nothing.
class DirectoryLock {
 public:
  /// Throws Error (failed) naming the process that holds the lock, or the reason why the file system cannot lock.
  explicit DirectoryLock(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int try_lock();
  void remove_created();
  std::string directory_, path_;
  std::vector<std::string> created_;  // directories, the innermost first
  int fd_ = -1;
};
}  // namespace reckon
