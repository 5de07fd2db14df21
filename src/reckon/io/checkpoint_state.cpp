// io/checkpoint: state.json.
#include "reckon/io/checkpoint_state.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/json.h"

namespace reckon::detail {
namespace {
constexpr int64_t kVersion = 1;
constexpr std::string_view kFormat = "reckon-checkpoint";
constexpr std::string_view kAfterHash = "\"\n}\n";
constexpr size_t kHashDigits = 32;
}  // namespace

bool valid_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 200 && name[0] != '.' && name != kStateFile &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7F && c != '/'; });
}

std::string write_state(const StateDocument& document) {
  const CheckpointState& state = document.state;
  JsonWriter json(true);
  json.begin_object();
  json.key("format").string(kFormat).key("version").integer(kVersion);
  json.key("step").integer(state.step).key("seed").integer(state.seed).key("data_position").integer(state.data_position);
  json.key("config_fingerprint").string(state.config_fingerprint);
  json.key("extra").begin_object();
  std::vector<MetadataItem> extra = state.extra;
  std::sort(extra.begin(), extra.end(), [](const MetadataItem& a, const MetadataItem& b) { return a.key < b.key; });
  for (size_t i = 0; i < extra.size(); ++i) {
    check(i == 0 || extra[i].key != extra[i - 1].key, "two extra values of a checkpoint have the key '{}'", extra[i].key);
    json.key(extra[i].key).string(extra[i].value);
  }
  json.end_object().key("files").begin_object();
  for (const auto& [name, digest] : document.files) {
    json.key(name).begin_object();
    json.key("bytes").integer(digest.bytes).key("xxh3_128").string(digest.xxh3_128);
    json.end_object();
  }
  json.end_object();
  json.key("xxh3_128_of_the_above").string(std::string(kHashDigits, '0')).end_object();
  const std::string text = json.str() + "\n";
  RECKON_ASSERT(text.ends_with("0" + std::string(kAfterHash)));
  const std::string hashed = text.substr(0, text.size() - kHashDigits - kAfterHash.size());
  return hashed + hash_of(hashed) + std::string(kAfterHash);
}

StateDocument parse_state(std::string_view text, const std::string& source) {
  const size_t tail = kHashDigits + kAfterHash.size();
  check_as(Failure::corrupt, text.size() > tail && text.ends_with(kAfterHash),
           "{}: is damaged: it does not end as a checkpoint's state does", source);
  const std::string_view hashed = text.substr(0, text.size() - tail), hash = text.substr(text.size() - tail, kHashDigits);
  check_as(Failure::corrupt, hash_of(hashed) == hash, "{}: is damaged: its hash is {}, but it says {}", source, hash_of(hashed),
           printable_line(hash));

  const JsonDocument json(text, source, {.max_bytes = text.size(), .max_depth = 4});
  const Json root = json.root();
  if (root.get("format").string() != kFormat) root.get("format").fail_here("is not that of a checkpoint");
  const int64_t version = root.get("version").integer(1);
  check(version <= kVersion, "{}: has version {}, but this Reckon reads up to {}: use the newer one that wrote it", source, version,
        kVersion);
  StateDocument document;
  CheckpointState& state = document.state;
  state.step = root.get("step").integer(0);
  state.seed = root.get("seed").integer();
  state.data_position = root.get("data_position").integer(0);
  state.config_fingerprint = root.get("config_fingerprint").string();
  for (Json item : root.get("extra")) state.extra.push_back({std::string(item.key()), std::string(item.string())});
  for (Json file : root.get("files")) {
    if (!valid_file_name(file.key())) file.fail_here("is no name for a file of a checkpoint");
    document.files.push_back({std::string(file.key()), {file.get("bytes").integer(0), std::string(file.get("xxh3_128").string())}});
  }
  return document;
}
}  // namespace reckon::detail
