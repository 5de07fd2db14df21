// io/files: files and directories that survive crashes and full disks, and their hashes. Knows no format.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// XXH3-128, fed in pieces. Finds damage; it is no protection against forgery.
class Hash128 {
 public:
  Hash128();
  ~Hash128();
  Hash128(const Hash128&) = delete;
  Hash128& operator=(const Hash128&) = delete;
  void update(std::span<const std::byte> bytes);
  /// 32 lower-case hex digits, most significant first (the canonical form, as `xxhsum -H2` prints it).
  std::string hex() const;

 private:
  void* state_;
};
std::string hash_of(std::string_view bytes);

/// A regular file open for reading at any position. Reads with pread, never mapped: a file cut while open is an error, not a SIGBUS.
class InputFile {
 public:
  /// Throws Error: usage if there is no such file or it is no regular file (never blocks on a pipe), failed if it cannot be opened.
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  /// A second handle on the same open file, whatever its name stands for by now.
  InputFile duplicate() const;
  const std::string& path() const { return path_; }
  /// Bytes, as of opening.
  int64_t size() const { return size_; }
  /// Fills `out` from `offset` on; throws Error (corrupt) if the file ends before that, (failed) on an I/O error.
  void read(int64_t offset, std::span<std::byte> out) const;
  /// Hash of the whole file, streamed. Throws as read does.
  std::string hash() const;

 private:
  InputFile() = default;
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

/// What was written: enough to verify it later.
struct FileDigest {
  int64_t bytes = 0;
  std::string xxh3_128;
  bool operator==(const FileDigest&) const = default;
};

/// Writes a new file front to back and hashes it on the way. Nothing is left behind unless finish() returns.
class FileWriter {
 public:
  enum class Place : uint8_t {
    direct,  // the file must not exist yet
    atomic   // written beside `path` under a hidden name; finish() renames it into place, replacing what was there
  };
  /// expected_bytes > 0 reserves the space at once, so that a full disk is known before anything is written; exactly that many must follow.
  FileWriter(const std::string& path, Place place, int64_t expected_bytes = 0);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes.data(), bytes.size()))); }
  /// Makes the bytes durable, and with Place::atomic the name too.
  FileDigest finish();

 private:
  void remove_file();
  [[noreturn]] void fail_write(int error, int64_t needed);
  std::string path_, written_path_;
  Place place_;
  int64_t expected_, written_ = 0;
  int fd_ = -1;
  Hash128 hash_;
};

/// The whole file; throws as InputFile does, and Error (corrupt) if it is larger than max_bytes.
std::string read_file(const std::string& path, int64_t max_bytes);
std::string read_file(const InputFile& file, int64_t max_bytes);
/// Replaces the file by these bytes or leaves it as it was, even if the machine stops.
FileDigest write_file(const std::string& path, std::string_view bytes);
std::string hash_of_file(const std::string& path);

/// "a/b"; the second alone if the first is empty.
std::string join_path(std::string_view directory, std::string_view name);
/// The directory that holds this path: "a" for "a/b" and "a/b/", "." for "b", "/" for "/b".
std::string parent_path(std::string_view path);
bool path_exists(const std::string& path);
bool is_directory(const std::string& path);
/// True if both names stand for one existing file.
bool same_file(const std::string& a, const std::string& b);
/// Names in a directory, sorted, without "." and "..".
std::vector<std::string> list_directory(const std::string& path);
/// Creates the directory and its parents; fine if it exists. New entries are durable.
void make_directories(const std::string& path);
/// Renames durably; within one directory.
void rename_path(const std::string& from, const std::string& to);
/// Removes a file or a directory with all it holds, following no links; fine if there is nothing.
void remove_tree(const std::string& path);
/// A folder of its own in $TMPDIR (else /tmp) that goes with all it holds when this does.
class PassingFolder {
 public:
  /// Throws Error (failed) naming the place if it cannot be made.
  PassingFolder();
  ~PassingFolder();
  PassingFolder(const PassingFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};
/// Makes the names in a directory durable.
void sync_directory(const std::string& path);

/// Throws Error (failed): "cannot ACTION PATH: reason of the errno value".
[[noreturn]] void fail_errno(std::string_view action, std::string_view path, int error);
}  // namespace reckon
