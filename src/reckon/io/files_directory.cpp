// io/files: names and directories.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "reckon/base/error.h"
#include "reckon/io/files.h"

namespace reckon {

std::string join_path(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  return text("{}{}{}", directory, directory.back() == '/' ? "" : "/", name);
}

std::string parent_path(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  path = path.substr(0, slash);
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  return path.empty() ? "/" : std::string(path);
}

bool path_exists(const std::string& path) {
  struct stat status;
  return ::lstat(path.c_str(), &status) == 0;
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat x, y;
  return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool is_directory(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::vector<std::string> list_directory(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (!directory) fail_errno("list", path, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int error = errno;
  ::closedir(directory);
  if (error != 0) fail_errno("list", path, error);
  std::sort(names.begin(), names.end());
  return names;
}

void make_directories(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) == 0) {
    sync_directory(parent_path(path));
    return;
  }
  int error = errno;
  if (error == ENOENT && parent_path(path) != path) {
    make_directories(parent_path(path));
    if (::mkdir(path.c_str(), 0777) == 0) {
      sync_directory(parent_path(path));
      return;
    }
    error = errno;
  }
  if (is_directory(path)) return;
  fail_errno("create the directory", path, error);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_errno(text("rename {} to", from), to, errno);
  sync_directory(parent_path(to));
}

void remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail_errno("remove", path, error.value());
}

void sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno("open the directory", path, errno);
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  // EINVAL: a file system that cannot sync directories orders its renames itself.
  if (error != 0 && error != EINVAL) fail_errno("make durable the directory", path, error);
}

PassingFolder::PassingFolder() {
  const char* place = std::getenv("TMPDIR");
  std::string name = join_path(place && *place ? place : "/tmp", "reckon-XXXXXX");
  if (!::mkdtemp(name.data())) fail_errno("create", name, errno);
  path_ = name;
}

PassingFolder::~PassingFolder() {
  try {
    remove_tree(path_);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reckon: %s\n", error.what());
  }
}
}  // namespace reckon
