// io/safetensors: opening, reading and writing of files; the header's form is checked in safetensors_header.cpp.
#include "reckon/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/json.h"

namespace reckon {
namespace {
static_assert(std::endian::native == std::endian::little, "safetensors data is little endian and is read as it lies");

std::string read_header(const InputFile& file) {
  check_as(Failure::corrupt, file.size() >= 8, "{}: not a safetensors file: it has {}, fewer than the 8 of the header's length",
           file.path(), counted(file.size(), "byte"));
  uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  check_as(Failure::corrupt, length <= uint64_t(kMaxSafetensorsHeader),
           "{}: not a safetensors file: header length {} is over the limit of {} bytes", file.path(), length, kMaxSafetensorsHeader);
  check_as(Failure::corrupt, int64_t(length) <= file.size() - 8, "{}: header of {} bytes does not fit in the file of {} bytes", file.path(),
           length, file.size());
  std::string header(length, '\0');
  file.read(8, std::as_writable_bytes(std::span(header)));
  return header;
}

// Makes offsets absolute. The data must be one run without gap, overlap or tail, or bytes could mean two things or hide.
void place_entries(std::vector<SafetensorsEntry>& entries, int64_t data_start, const InputFile& file) {
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    if (a.offset != b.offset) return a.offset < b.offset;
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.name < b.name;
  });
  int64_t end = 0;
  const SafetensorsEntry* previous = nullptr;
  for (SafetensorsEntry& entry : entries) {
    if (entry.offset != end)
      fail_as(Failure::corrupt, "{}: tensor '{}' begins at data byte {}, but {} ends at {}: {}", file.path(),
              printable_line(entry.name, 80), entry.offset,
              previous ? text("tensor '{}'", printable_line(previous->name, 80)) : "the header", end,
              entry.offset < end ? "they overlap" : "there is a hole");
    end += entry.bytes;  // end == entry.offset + bytes, which the header's own end offset bounds
    previous = &entry;
  }
  check_as(Failure::corrupt, end == file.size() - data_start, "{}: the header describes {} bytes of data, but the file holds {}{}",
           file.path(), end, file.size() - data_start, end > file.size() - data_start ? ": it has been cut short" : "");
  for (SafetensorsEntry& entry : entries) entry.offset += data_start;
}
}  // namespace

TensorSpec SafetensorsEntry::spec() const {
  check(readable(), "tensor '{}' has dtype {}, which Reckon does not have", printable_line(name, 80), dtype);
  return {shape, static_cast<DType>(dtype_index)};
}

SafetensorsFile::SafetensorsFile(InputFile file) : file_(std::move(file)) {
  const std::string json = read_header(file_);
  detail::SafetensorsHeader header = detail::parse_safetensors_header(json, path());
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  // Duplicates are found by sorting, not hashing: names chosen to collide cannot make it slow.
  std::sort(metadata_.begin(), metadata_.end(), [](const MetadataItem& a, const MetadataItem& b) { return a.key < b.key; });
  const auto same_key = std::adjacent_find(metadata_.begin(), metadata_.end(), [](const auto& a, const auto& b) { return a.key == b.key; });
  if (same_key != metadata_.end()) fail_as(Failure::corrupt, "{}: duplicate metadata key '{}'", path(), printable_line(same_key->key, 80));
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  place_entries(entries_, 8 + int64_t(json.size()), file_);
  std::sort(by_name_.begin(), by_name_.end(), [&](uint32_t a, uint32_t b) { return entries_[a].name < entries_[b].name; });
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const std::string& name = entries_[by_name_[i]].name;
    check_as(Failure::corrupt, name != entries_[by_name_[i - 1]].name, "{}: duplicate tensor '{}'", path(), printable_line(name, 80));
  }
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t index, std::string_view n) { return entries_[index].name < n; });
  return at != by_name_.end() && entries_[*at].name == name ? &entries_[*at] : nullptr;
}

const SafetensorsEntry& SafetensorsFile::entry(std::string_view name) const {
  if (const SafetensorsEntry* found = find(name)) return *found;
  std::vector<std::string> names;
  for (size_t i = 0; i < entries_.size() && i < 2'000; ++i) names.push_back(printable_line(entries_[i].name, 80));
  fail_as(Failure::corrupt, "{}: has no tensor '{}'{}", path(), printable_line(name, 80), did_you_mean(name, names));
}

namespace {
// `at` counts elements before these: a byte each.
void check_bools(std::span<const std::byte> bytes, int64_t at, std::string_view name, const std::string& path) {
  const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return std::to_integer<int>(b) > 1; });
  if (bad != bytes.end())
    fail_as(Failure::corrupt, "{}: tensor '{}' holds {} at element {}, which is no bool", path, printable_line(name, 80),
            std::to_integer<int>(*bad), at + (bad - bytes.begin()));
}
}  // namespace

const SafetensorsEntry& SafetensorsFile::entry_of(std::string_view name, const TensorSpec& expected) const {
  const SafetensorsEntry& found = entry(name);
  if (!found.readable() || found.spec() != expected)
    fail("{}: tensor '{}' is {}{}, but {} is needed", path(), printable_line(name, 80), found.dtype, found.shape, expected);
  return found;
}

void SafetensorsFile::read(std::string_view name, const TensorSpec& expected, void* dst) const {
  const SafetensorsEntry& found = entry_of(name, expected);
  const std::span<std::byte> out(static_cast<std::byte*>(dst), size_t(found.bytes));
  read_bytes(found, 0, out);
  if (expected.dtype == DType::boolean) check_bools(out, 0, name, path());
}

void SafetensorsFile::read(std::string_view name, const TensorSpec& expected, ByteSink sink, void* context) const {
  const SafetensorsEntry& found = entry_of(name, expected);
  std::vector<std::byte> piece(size_t(std::min(kSafetensorsPiece, found.bytes)));
  for (int64_t at = 0; at < found.bytes; at += kSafetensorsPiece) {
    const std::span<std::byte> part = std::span(piece).first(size_t(std::min(kSafetensorsPiece, found.bytes - at)));
    read_bytes(found, at, part);
    if (expected.dtype == DType::boolean) check_bools(part, at, name, path());
    sink(context, at, part);
  }
}

void SafetensorsFile::read_bytes(const SafetensorsEntry& entry, int64_t offset, std::span<std::byte> out) const {
  check(offset >= 0 && offset <= entry.bytes && int64_t(out.size()) <= entry.bytes - offset,
        "{}: tensor '{}' has {} bytes; cannot read {} from {} on", path(), printable_line(entry.name, 80), entry.bytes, out.size(), offset);
  file_.read(entry.offset + offset, out);
}

namespace {
// Position in the format's table, which is in order of alignment.
size_t type_row(DType dtype) {
  const auto types = detail::safetensors_types();
  size_t row = 0;
  while (types[row].dtype != static_cast<int8_t>(dtype)) ++row;
  return row;
}

std::vector<const TensorToWrite*> in_file_order(std::span<const TensorToWrite> tensors, const std::string& path) {
  check(int64_t(tensors.size()) <= kMaxSafetensorsTensors, "cannot write {}: {} tensors are over the limit of {}", path, tensors.size(),
        kMaxSafetensorsTensors);
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  for (size_t i = 0; i < order.size(); ++i) {
    check(order[i]->name != "__metadata__", "cannot write {}: '__metadata__' is no name for a tensor", path);
    check(i == 0 || order[i]->name != order[i - 1]->name, "cannot write {}: two tensors are named '{}'", path,
          printable_line(order[i]->name, 80));
    check(order[i]->data || order[i]->source || order[i]->spec.numel() == 0, "cannot write {}: tensor '{}' has no data", path,
          printable_line(order[i]->name, 80));
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return type_row(a->spec.dtype) > type_row(b->spec.dtype); });
  return order;
}

// The length and the padded JSON. Offsets follow from the order.
std::string make_header(std::span<const TensorToWrite* const> order, std::span<const MetadataItem> metadata, const std::string& path,
                        int64_t& data_bytes) {
  JsonWriter json;
  json.begin_object();
  if (!metadata.empty()) {
    std::vector<MetadataItem> sorted(metadata.begin(), metadata.end());
    std::sort(sorted.begin(), sorted.end(), [](const MetadataItem& a, const MetadataItem& b) { return a.key < b.key; });
    json.key("__metadata__").begin_object();
    for (size_t i = 0; i < sorted.size(); ++i) {
      check(i == 0 || sorted[i].key != sorted[i - 1].key, "cannot write {}: two metadata values have the key '{}'", path,
            printable_line(sorted[i].key, 80));
      json.key(sorted[i].key).string(sorted[i].value);
    }
    json.end_object();
  }
  data_bytes = 0;
  for (const TensorToWrite* tensor : order) {
    json.key(tensor->name).begin_object();
    json.key("dtype").string(detail::safetensors_types()[type_row(tensor->spec.dtype)].name);
    json.key("shape").begin_array();
    for (int64_t extent : tensor->spec.shape) json.integer(extent);
    json.end_array();
    const int64_t begin = data_bytes;
    check(!__builtin_add_overflow(data_bytes, tensor->spec.bytes(), &data_bytes), "cannot write {}: more than 2^63 bytes of data", path);
    json.key("data_offsets").begin_array().integer(begin).integer(data_bytes).end_array();
    json.end_object();
  }
  json.end_object();
  std::string header = json.str();
  header.append((8 - header.size() % 8) % 8, ' ');
  check(int64_t(header.size()) <= kMaxSafetensorsHeader, "cannot write {}: a header of {} bytes is over the format's limit of {}", path,
        header.size(), kMaxSafetensorsHeader);
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header;
}

void write_data(FileWriter& writer, const TensorToWrite& tensor, std::vector<std::byte>& chunk) {
  const int64_t bytes = tensor.spec.bytes();
  if (tensor.data || bytes == 0) {
    writer.write(std::span(static_cast<const std::byte*>(tensor.data), size_t(bytes)));
    return;
  }
  chunk.resize(size_t(kSafetensorsPiece));
  for (int64_t at = 0; at < bytes; at += kSafetensorsPiece) {
    const std::span part = std::span(chunk).first(size_t(std::min(kSafetensorsPiece, bytes - at)));
    tensor.source(tensor.context, at, part);
    writer.write(part);
  }
}
}  // namespace

FileDigest write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors, std::span<const MetadataItem> metadata,
                             FileWriter::Place place) {
  const auto order = in_file_order(tensors, path);
  int64_t data_bytes = 0;
  const std::string header = make_header(order, metadata, path, data_bytes);
  FileWriter writer(path, place, int64_t(header.size()) + data_bytes);
  writer.write(header);
  std::vector<std::byte> chunk;
  for (const TensorToWrite* tensor : order) write_data(writer, *tensor, chunk);
  return writer.finish();
}
}  // namespace reckon
