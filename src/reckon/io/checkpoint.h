// io/checkpoint: saved steps of a run, committed all or nothing and verified by hash before use. Knows files, not what they mean.
//
//   RUN/checkpoints/step-N/   model.safetensors  optimizer.safetensors  state.json
//   RUN/checkpoints/.tmp-*    being written or being removed; whatever a crash leaves of these is removed at the next save
//   RUN/checkpoints/.old-step-N  the former step-N while a new one takes its place; counts as step-N as long as there is no step-N
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/io/files.h"
#include "reckon/io/safetensors.h"

namespace reckon {

inline constexpr std::string_view kModelFile = "model.safetensors";
inline constexpr std::string_view kOptimizerFile = "optimizer.safetensors";
inline constexpr std::string_view kStateFile = "state.json";

/// What a run needs besides tensors. Random draws are keyed by (seed, step, sample), so seed and position are the whole random state.
struct CheckpointState {
  int64_t step = 0;  // optimizer steps done
  int64_t seed = 0;
  int64_t data_position = 0;        // samples drawn so far
  std::string config_fingerprint;   // of everything in the configuration that the continuation depends on
  std::vector<MetadataItem> extra;  // for the training loop; written sorted by key
  bool operator==(const CheckpointState&) const = default;
};

/// A file of a checkpoint, as state.json lists it.
struct SavedFile {
  std::string name;
  FileDigest digest;
};

/// Writes one checkpoint. Until commit() returns, the checkpoints that exist are untouched; without it nothing remains.
/// The caller holds the run directory's lock.
class CheckpointWriter {
 public:
  /// Also clears what a crashed save has left. Throws Error if the directory cannot be made.
  CheckpointWriter(const std::string& run_dir, int64_t step);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Throw Error, with the bytes needed, on a full disk; the temporary folder is then gone and the writer is of no more use.
  void add_safetensors(std::string_view name, std::span<const TensorToWrite> tensors, std::span<const MetadataItem> metadata = {});
  void add_file(std::string_view name, std::string_view bytes);
  /// Writes state.json, makes everything durable, gives the folder its name (replacing a former step-N), then removes all but the
  /// newest `keep` checkpoints (0: keeps all; this one always stays). Returns the folder's path. An Error that says "cannot remove"
  /// comes after the commit: the checkpoint is then saved.
  std::string commit(const CheckpointState& state, int64_t keep);

 private:
  std::string path_for(std::string_view name);
  void discard() noexcept;
  void prune(int64_t keep);
  std::string root_, temporary_;
  int64_t step_;
  std::vector<SavedFile> files_;
};

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;
};
/// The committed checkpoints of a run by ascending step, not verified; empty if there are none.
std::vector<CheckpointInfo> list_checkpoints(const std::string& run_dir);
/// Path of the newest; "" if there is none.
std::string latest_checkpoint(const std::string& run_dir);

/// A checkpoint that has been verified: every byte of state.json and of the files it lists, or of the one asked for, is what was saved.
class CheckpointReader {
 public:
  /// Throws Error (corrupt) naming the damaged file and, if the run has another checkpoint that is intact, that one as the way out;
  /// (usage) if there is no such directory. `only` (if not empty): state.json and this file alone are verified and can be read, whatever
  /// has become of the others.
  explicit CheckpointReader(const std::string& path, std::string_view only = {});

  const std::string& path() const { return path_; }
  const CheckpointState& state() const { return state_; }
  /// Names of the verified files besides state.json, sorted.
  const std::vector<std::string>& files() const { return names_; }
  bool has(std::string_view name) const;
  /// Throw Error (corrupt) if the checkpoint has no such file. What they read is the very file that was verified, even if it is replaced.
  SafetensorsFile open_safetensors(std::string_view name) const;
  std::string read_file(std::string_view name, int64_t max_bytes) const;

 private:
  const InputFile& verified(std::string_view name) const;
  std::string path_;
  CheckpointState state_;
  std::vector<std::string> names_;
  std::vector<InputFile> files_;  // of names_
};
}  // namespace reckon
