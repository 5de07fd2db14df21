// io/files: XXH3-128 from the system's xxHash.
#include <xxhash.h>

#include <cstdio>
#include <new>

#include "reckon/base/stop.h"
#include "reckon/io/files.h"

namespace reckon {
namespace {
XXH3_state_t* state_of(void* state) { return static_cast<XXH3_state_t*>(state); }

std::string hex_of(XXH128_hash_t hash) {
  char digits[33];
  std::snprintf(digits, sizeof digits, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return digits;
}
}  // namespace

Hash128::Hash128() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(state_of(state_));
}
Hash128::~Hash128() { XXH3_freeState(state_of(state_)); }

void Hash128::update(std::span<const std::byte> bytes) {
  stop_point();
  if (!bytes.empty()) XXH3_128bits_update(state_of(state_), bytes.data(), bytes.size());
}
std::string Hash128::hex() const { return hex_of(XXH3_128bits_digest(state_of(state_))); }

std::string hash_of(std::string_view bytes) { return hex_of(XXH3_128bits(bytes.data(), bytes.size())); }
}  // namespace reckon
