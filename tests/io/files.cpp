#include "reckon/io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "reckon/io/files_lock.h"
#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::FileSizeLimit;
using scratch::Folder;
using scratch::get;
using scratch::put;

namespace {
std::span<std::byte> bytes_of(std::string& s) { return std::as_writable_bytes(std::span(s)); }

size_t open_files() { return list_directory("/proc/self/fd").size(); }
}  // namespace

// The values that xxhsum -H2 prints.
TEST(Files, HashKnownAnswers) {
  EXPECT_EQ(hash_of(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash_of("abc"), "06b05ab6733a618578af5f94892f3950");
}

TEST(Files, HashInPiecesIsTheHashOfTheWhole) {
  std::string bytes(3'000'001, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = char(i * 2654435761u >> 13);
  Hash128 hash;
  for (size_t at = 0, step = 1; at < bytes.size(); at += step, step = step * 3 + 1) {
    step = std::min(step, bytes.size() - at);
    hash.update(std::as_bytes(std::span(bytes).subspan(at, step)));
  }
  const Folder folder;
  put(folder / "x", bytes);
  EXPECT_EQ(hash.hex(), hash_of(bytes));
  EXPECT_EQ(hash_of_file(folder / "x"), hash_of(bytes));
  FileWriter writer(folder / "y", FileWriter::Place::direct);
  writer.write(bytes);
  EXPECT_EQ(writer.finish(), (FileDigest{int64_t(bytes.size()), hash_of(bytes)}));
  EXPECT_EQ(get(folder / "y"), bytes);
}

TEST(Files, PathsAreTakenApart) {
  EXPECT_EQ(parent_path("a/b"), "a");
  EXPECT_EQ(parent_path("a//b/"), "a");
  EXPECT_EQ(parent_path("b"), ".");
  EXPECT_EQ(parent_path("/b"), "/");
  EXPECT_EQ(parent_path("/"), "/");
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("", "b"), "b");
}

TEST(Files, WriteReplacesAtomicallyAndLeavesNothingElse) {
  const Folder folder;
  EXPECT_EQ(write_file(folder / "f", "first").xxh3_128, hash_of("first"));
  EXPECT_EQ(write_file(folder / "f", "").bytes, 0);
  EXPECT_EQ(read_file(folder / "f", 0), "");
  write_file(folder / "f", "second");
  EXPECT_EQ(read_file(folder / "f", 6), "second");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"f"});
  expect_error(Failure::corrupt, "has 6 bytes, over the limit of 5", [&] { read_file(folder / "f", 5); });
}

TEST(Files, AnUnfinishedWriteLeavesTheFormerFile) {
  const Folder folder;
  write_file(folder / "f", "kept");
  {
    FileWriter writer(folder / "f", FileWriter::Place::atomic);
    writer.write("half");
  }
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"f"});
  EXPECT_EQ(get(folder / "f"), "kept");
}

TEST(Files, DirectWritesNeverReplace) {
  const Folder folder;
  put(folder / "f", "kept");
  expect_error(Failure::failed, "cannot create " + (folder / "f") + ": File exists",
               [&] { FileWriter(folder / "f", FileWriter::Place::direct); });
  EXPECT_EQ(get(folder / "f"), "kept");
}

TEST(Files, AFullDiskSaysHowMuchIsNeededAndKeepsTheFormerFile) {
  const Folder folder;
  write_file(folder / "f", "kept");
  const std::string big(3 << 20, 'x');
  const size_t open_before = open_files();
  {
    const FileSizeLimit limit(2 << 20);
    // Known in advance: reserved before the first byte.
    expect_error(Failure::failed, "it needs 3145728 bytes (3.00 MiB)", [&] { write_file(folder / "f", big); });
    // Not known in advance: found while writing, after some bytes have been written.
    expect_error(Failure::failed, "it needs at least 3145738 bytes", [&] {
      FileWriter writer(folder / "f", FileWriter::Place::atomic);
      writer.write("0123456789");
      writer.write(big);
      writer.finish();
    });
  }
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"f"});
  EXPECT_EQ(get(folder / "f"), "kept");
  EXPECT_EQ(open_files(), open_before);
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  const Folder folder;
  expect_error(Failure::usage, "there is no file " + (folder / "none"), [&] { InputFile(folder / "none"); });
  expect_error(Failure::usage, folder.path() + " is a directory", [&] { InputFile file(folder.path()); });
  expect_error(Failure::failed, (folder / "none/f") + ": No such file or directory", [&] { write_file(folder / "none/f", "x"); });
  expect_error(Failure::failed, "cannot list " + (folder / "none") + ": No such file", [&] { list_directory(folder / "none"); });
  put(folder / "f", "");
  expect_error(Failure::failed, "cannot create the directory " + (folder / "f/d") + ": Not a directory",
               [&] { make_directories(folder / "f/d"); });
  expect_error(Failure::failed, "File exists", [&] { make_directories(folder / "f"); });
}

TEST(Files, APipeIsRefusedWithoutWaitingForItsWriter) {
  const Folder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(Failure::usage, "not a regular file", [&] { InputFile(folder / "pipe"); });
}

TEST(Files, AFileCutWhileOpenIsAnErrorNotASignal) {
  const Folder folder;
  put(folder / "f", std::string(100'000, 'x'));
  const InputFile file(folder / "f");
  ASSERT_EQ(::truncate((folder / "f").c_str(), 10), 0);
  std::string out(100'000, '\0');
  expect_error(Failure::corrupt, "ends at byte 10, but", [&] { file.read(0, bytes_of(out)); });
  expect_error(Failure::corrupt, "held 100000 bytes when it was opened", [&] { file.read(50'000, bytes_of(out)); });
  expect_error(Failure::corrupt, "ends at byte 10", [&] { file.hash(); });
}

TEST(Files, ReadsAtAnyPositionThroughAnyHandle) {
  const Folder folder;
  put(folder / "f", "0123456789");
  const InputFile file(folder / "f");
  InputFile copy = file.duplicate();
  const InputFile moved = std::move(copy);
  put(folder / "g", "another file");
  rename_path(folder / "g", folder / "f");
  std::string out(4, '\0');
  moved.read(3, bytes_of(out));
  EXPECT_EQ(out, "3456");
  file.read(6, bytes_of(out));
  EXPECT_EQ(out, "6789");
  expect_error(Failure::corrupt, "ends at byte 10, but", [&] { file.read(7, bytes_of(out)); });
  EXPECT_EQ(get(folder / "f"), "another file");
}

TEST(Files, RemovesTreesButNotWhatLinksPointTo) {
  const Folder folder;
  make_directories(folder / "a/b/c");
  make_directories(folder / "a/b/c");
  put(folder / "a/b/c/f", "x");
  put(folder / "outside", "kept");
  std::filesystem::create_symlink(folder / "outside", folder / "a/link");
  remove_tree(folder / "a");
  remove_tree(folder / "a");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"outside"});
}

TEST(FilesLock, OneHolderAtATime) {
  const Folder folder;
  {
    const DirectoryLock lock(folder / "run");
    expect_error(Failure::failed, "run is in use by process " + std::to_string(::getpid()), [&] { DirectoryLock second(folder / "run"); });
    const DirectoryLock other(folder / "other");
  }
  const DirectoryLock again(folder / "run");
}

TEST(FilesLock, AnotherProcessIsRefusedUntilTheHolderIsGoneHoweverItEnds) {
  const Folder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const DirectoryLock lock(folder / "run");
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  expect_error(Failure::failed, "in use by process " + std::to_string(child), [&] { DirectoryLock lock(folder / "run"); });
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const DirectoryLock lock(folder / "run");
  ::close(ready[0]), ::close(ready[1]);
}
