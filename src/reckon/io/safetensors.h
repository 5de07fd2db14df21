// io/safetensors: the safetensors file format, written and read in pieces. Knows specs and bytes, not tensors or devices.
// Format: u64 header length | JSON header, padded with spaces to 8 | data. Little endian, C order, no gaps.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/io/files.h"
#include "reckon/tensor/shape.h"

namespace reckon {

inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the format's own limit
inline constexpr int64_t kMaxSafetensorsTensors = 1 << 18;     // ours: bounds the memory a hostile header can claim

struct MetadataItem {
  std::string key, value;
  bool operator==(const MetadataItem&) const = default;
};

/// Puts bytes [offset, offset + out.size()) of a tensor's data into `out`. Called in order, front to back.
using ByteSource = void (*)(void* context, int64_t offset, std::span<std::byte> out);

/// Takes bytes [offset, offset + bytes.size()) of a tensor's data. Called in order, front to back.
using ByteSink = void (*)(void* context, int64_t offset, std::span<const std::byte> bytes);
/// The most that a source or sink is asked to handle at a time, and so what the host holds of a tensor.
inline constexpr int64_t kSafetensorsPiece = 1 << 20;

/// One tensor to write: its bytes lie at `data`, or `source` delivers them in pieces.
struct TensorToWrite {
  std::string name;
  TensorSpec spec;
  const void* data = nullptr;
  ByteSource source = nullptr;
  void* context = nullptr;
};

/// Replaces the file atomically. Tensors are stored by alignment (largest first), then by name; metadata by key; so equal content gives
/// equal bytes. Throws Error for duplicate, reserved ("__metadata__") or non-UTF-8 names, and on a full disk (nothing is left behind).
FileDigest write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors, std::span<const MetadataItem> metadata = {},
                             FileWriter::Place place = FileWriter::Place::atomic);

/// One tensor of a file.
struct SafetensorsEntry {
  std::string name;
  std::string_view dtype;   // as the file names it: "F32", "BF16", "F8_E4M3", ...; points to static memory
  int8_t dtype_index = -1;  // the DType, or -1 for the element types that Reckon does not have
  Shape shape;
  int64_t offset = 0;  // in the file
  int64_t bytes = 0;

  bool readable() const { return dtype_index >= 0; }
  /// Throws Error naming the tensor if its element type is not one of ours.
  TensorSpec spec() const;
};

/// An open file whose header has been checked completely; only the header has been read (a dry run needs no more).
class SafetensorsFile {
 public:
  /// Throws Error (corrupt), naming the file and the tensor or byte, unless the file is well-formed: header length within the file and
  /// the limits, JSON of exactly the format's form, no duplicate names, offsets without gap or overlap that match dtype and shape,
  /// and nothing after the last byte of data. Throws Error (failed) for more than 8 axes, which the format allows and Reckon does not.
  explicit SafetensorsFile(const std::string& path) : SafetensorsFile(InputFile(path)) {}
  explicit SafetensorsFile(InputFile file);

  const std::string& path() const { return file_.path(); }
  /// In the order of their data.
  std::span<const SafetensorsEntry> entries() const { return entries_; }
  /// Sorted by key.
  std::span<const MetadataItem> metadata() const { return metadata_; }
  /// nullptr if there is none of that name. O(log n).
  const SafetensorsEntry* find(std::string_view name) const;
  /// Throws Error (corrupt), with the nearest name, if there is none.
  const SafetensorsEntry& entry(std::string_view name) const;

  /// Reads a whole tensor into dst, which has expected.bytes() bytes. Throws Error if the file holds another spec, has been cut since it
  /// was opened, or holds a bool that is neither 0 nor 1.
  void read(std::string_view name, const TensorSpec& expected, void* dst) const;
  /// The same in pieces.
  void read(std::string_view name, const TensorSpec& expected, ByteSink sink, void* context) const;
  /// Reads bytes [offset, offset + out.size()) of an entry's data, whatever its element type.
  void read_bytes(const SafetensorsEntry& entry, int64_t offset, std::span<std::byte> out) const;
  const InputFile& file() const { return file_; }

 private:
  // The entry, if it is of this spec.
  const SafetensorsEntry& entry_of(std::string_view name, const TensorSpec& expected) const;

  InputFile file_;
  std::vector<SafetensorsEntry> entries_;
  std::vector<uint32_t> by_name_;
  std::vector<MetadataItem> metadata_;
};

namespace detail {
/// A row of the format's table of element types, in its order of alignment.
struct SafetensorsType {
  std::string_view name;
  int bits;
  int8_t dtype;  // DType, or -1
};
std::span<const SafetensorsType> safetensors_types();

/// The header's content, checked for form (not for offsets against the file). Offsets are relative to the data.
struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::vector<MetadataItem> metadata;
};
/// path: for errors only.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& path);
}  // namespace detail
}  // namespace reckon
