// io/checkpoint: commits by renaming folders; see the header for the names a folder may have and what each means.
#include "reckon/io/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/checkpoint_state.h"

namespace reckon {
namespace {
constexpr std::string_view kStep = "step-", kOldStep = ".old-step-", kTemporary = ".tmp-";
constexpr int64_t kMaxStateBytes = 16 << 20;

std::string root_of(const std::string& run_dir) { return join_path(run_dir, "checkpoints"); }

// N of PREFIX followed by N in its shortest decimal form, or -1.
int64_t step_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return -1;
  const std::string_view digits = name.substr(prefix.size());
  int64_t step = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  return error == std::errc() && step >= 0 && std::to_string(step) == digits ? step : -1;
}

// A removal cut short must not leave half a checkpoint under a name that counts.
void remove_folder(const std::string& root, const std::string& name) {
  const std::string doomed = join_path(root, text("{}removed-{}", kTemporary, name));
  rename_path(join_path(root, name), doomed);
  remove_tree(doomed);
}

void clear_leftovers(const std::string& root) {
  for (const std::string& name : list_directory(root)) {
    if (name.starts_with(kTemporary)) remove_tree(join_path(root, name));
    const int64_t step = step_of(name, kOldStep);
    if (step < 0) continue;
    const std::string current = join_path(root, text("{}{}", kStep, step));
    if (path_exists(current)) {
      remove_folder(root, name);
    } else {
      rename_path(join_path(root, name), current);
    }
  }
}

std::vector<CheckpointInfo> list_folder(const std::string& root) {
  std::vector<CheckpointInfo> found;
  if (!is_directory(root)) return found;
  for (const std::string& name : list_directory(root)) {
    int64_t step = step_of(name, kStep);
    // Stopped between the two renames of a replacement: the former one still counts.
    if (step < 0 && (step = step_of(name, kOldStep)) >= 0 && path_exists(join_path(root, text("{}{}", kStep, step)))) continue;
    if (step >= 0 && is_directory(join_path(root, name))) found.push_back({step, join_path(root, name)});
  }
  std::sort(found.begin(), found.end(), [](const CheckpointInfo& a, const CheckpointInfo& b) { return a.step < b.step; });
  return found;
}
}  // namespace

CheckpointWriter::CheckpointWriter(const std::string& run_dir, int64_t step) : root_(root_of(run_dir)), step_(step) {
  check(step >= 0, "cannot save step {}", step);
  make_directories(root_);
  clear_leftovers(root_);
  const std::string temporary = join_path(root_, text("{}{}{}", kTemporary, kStep, step));
  make_directories(temporary);
  temporary_ = temporary;
}

CheckpointWriter::~CheckpointWriter() { discard(); }

void CheckpointWriter::discard() noexcept {
  if (temporary_.empty()) return;
  try {
    remove_tree(temporary_);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reckon: %s; the next save will try again\n", error.what());
  }
  temporary_.clear();
}

std::string CheckpointWriter::path_for(std::string_view name) {
  check(!temporary_.empty(), "the checkpoint of step {} has been committed or given up", step_);
  check(detail::valid_file_name(name), "'{}' is no name for a file of a checkpoint", printable_line(name));
  return join_path(temporary_, name);
}

void CheckpointWriter::add_safetensors(std::string_view name, std::span<const TensorToWrite> tensors,
                                       std::span<const MetadataItem> metadata) {
  const std::string path = path_for(name);
  try {
    files_.push_back({std::string(name), write_safetensors(path, tensors, metadata, FileWriter::Place::direct)});
  } catch (...) {
    discard();
    throw;
  }
}

void CheckpointWriter::add_file(std::string_view name, std::string_view bytes) {
  const std::string path = path_for(name);
  try {
    FileWriter writer(path, FileWriter::Place::direct, int64_t(bytes.size()));
    writer.write(bytes);
    files_.push_back({std::string(name), writer.finish()});
  } catch (...) {
    discard();
    throw;
  }
}

std::string CheckpointWriter::commit(const CheckpointState& state, int64_t keep) {
  check(!temporary_.empty(), "the checkpoint of step {} has been committed or given up", step_);
  check(state.step == step_, "a checkpoint begun for step {} cannot be committed with the state of step {}", step_, state.step);
  const std::string final_path = join_path(root_, text("{}{}", kStep, step_)), old_name = text("{}{}", kOldStep, step_);
  const std::string old_path = join_path(root_, old_name);
  try {
    std::sort(files_.begin(), files_.end(), [](const SavedFile& a, const SavedFile& b) { return a.name < b.name; });
    FileWriter writer(join_path(temporary_, kStateFile), FileWriter::Place::direct);
    writer.write(detail::write_state({state, files_}));
    writer.finish();
    sync_directory(temporary_);
    if (path_exists(final_path)) rename_path(final_path, old_path);
    rename_path(temporary_, final_path);
  } catch (...) {
    if (!path_exists(final_path) && path_exists(old_path)) std::rename(old_path.c_str(), final_path.c_str());
    discard();
    throw;
  }
  temporary_.clear();
  if (path_exists(old_path)) remove_folder(root_, old_name);
  prune(keep);
  return final_path;
}

void CheckpointWriter::prune(int64_t keep) {
  if (keep <= 0) return;
  const std::vector<CheckpointInfo> all = list_folder(root_);
  int64_t kept = 1;  // this one, even if there are later steps
  for (auto other = all.rbegin(); other != all.rend(); ++other) {
    if (other->step != step_ && ++kept > keep) remove_folder(root_, text("{}{}", kStep, other->step));
  }
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& run_dir) { return list_folder(root_of(run_dir)); }

std::string latest_checkpoint(const std::string& run_dir) {
  const auto all = list_checkpoints(run_dir);
  return all.empty() ? "" : all.back().path;
}

namespace {
struct Verified {
  CheckpointState state;
  std::vector<std::string> names;
  std::vector<InputFile> files;
};

InputFile open_present(const std::string& path) {
  check_as(Failure::corrupt, path_exists(path), "{}: is missing", path);
  return InputFile(path);
}

// Of the files that state.json lists all, or only the one named; the others are not looked at.
Verified verify(const std::string& folder, std::string_view only) {
  const std::string state_path = join_path(folder, kStateFile);
  detail::StateDocument document = detail::parse_state(read_file(open_present(state_path), kMaxStateBytes), state_path);
  Verified result;
  result.state = std::move(document.state);
  for (const auto& [name, digest] : document.files) {
    if (!only.empty() && name != only) continue;
    InputFile file = open_present(join_path(folder, name));
    check_as(Failure::corrupt, file.size() == digest.bytes, "{}: is damaged: it has {}, but was saved with {}", file.path(),
             counted(file.size(), "byte"), digest.bytes);
    const std::string hash = file.hash();
    check_as(Failure::corrupt, hash == digest.xxh3_128, "{}: is damaged: its XXH3-128 is {}, but was {} when saved", file.path(), hash,
             printable_line(digest.xxh3_128, 40));
    result.names.push_back(name);
    result.files.push_back(std::move(file));
  }
  return result;
}

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// What a user with a damaged checkpoint can do.
std::string way_out(const std::string& damaged, std::string_view only) {
  auto others = list_folder(parent_path(damaged));
  for (auto other = others.rbegin(); other != others.rend(); ++other) {
    if (other->path == damaged) continue;
    try {
      verify(other->path, only);
      return text("{} is intact: remove {} to use that", other->path, damaged);
    } catch (const Error& error) {
      if (error.kind() == Failure::interrupted) throw;
    }
  }
  return "no other checkpoint beside it is intact: start the run anew, or restore the folder from a copy";
}
}  // namespace

CheckpointReader::CheckpointReader(const std::string& path, std::string_view only) : path_(without_slashes(path)) {
  check_as(Failure::usage, is_directory(path_), "there is no checkpoint folder {}", path_);
  try {
    Verified verified = verify(path_, only);
    state_ = std::move(verified.state);
    names_ = std::move(verified.names);
    files_ = std::move(verified.files);
  } catch (const Error& error) {
    // A folder or pipe where a file should be is damage here, not a mistake of usage.
    if (error.kind() != Failure::corrupt && error.kind() != Failure::usage) throw;
    fail_as(Failure::corrupt, "{}; {}", std::string(error.what()), way_out(path_, only));
  }
}

bool CheckpointReader::has(std::string_view name) const { return std::find(names_.begin(), names_.end(), name) != names_.end(); }

const InputFile& CheckpointReader::verified(std::string_view name) const {
  const auto at = std::find(names_.begin(), names_.end(), name);
  check_as(Failure::corrupt, at != names_.end(), "{}: the checkpoint has no file {}", path_, printable_line(name));
  return files_[size_t(at - names_.begin())];
}

SafetensorsFile CheckpointReader::open_safetensors(std::string_view name) const { return SafetensorsFile(verified(name).duplicate()); }

std::string CheckpointReader::read_file(std::string_view name, int64_t max_bytes) const {
  return reckon::read_file(verified(name), max_bytes);
}
}  // namespace reckon
