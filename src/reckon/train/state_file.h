// train/state_file: a module's state in a safetensors file, by the names of its state_dict().
#pragma once
#include "reckon/nn/module.h"

namespace reckon {

/// Replaces the file atomically. Throws Error if it cannot be written.
void save_state(const std::string& path, const nn::StateDict& state);
/// Every tensor of a file, on that device. Throws Error (corrupt) if the file is damaged, and naming the tensor if its type is none of
/// ours.
nn::StateDict load_state(const std::string& path, Device& device);
}  // namespace reckon
