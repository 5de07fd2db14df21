// io/checkpoint: state.json as text. Its last value is the hash of every byte before it, so that no flipped bit goes unseen.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "reckon/io/checkpoint.h"

namespace reckon::detail {

struct StateDocument {
  CheckpointState state;
  std::vector<SavedFile> files;  // sorted by name
};
std::string write_state(const StateDocument& document);
/// source: the file's name, for errors. Throws Error (corrupt) unless the hash and every value are right; (failed) for a newer version.
StateDocument parse_state(std::string_view text, const std::string& source);
/// Plain names only: a checkpoint must not reach out of its folder.
bool valid_file_name(std::string_view name);
}  // namespace reckon::detail
