// io/safetensors: the header, parsed as a stream of events. No document tree: a hostile header of 100 MB must stay at a few times that.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/safetensors.h"

namespace reckon::detail {
namespace {
constexpr int8_t index_of(DType dtype) { return static_cast<int8_t>(dtype); }

constexpr SafetensorsType kTypes[] = {
    {"BOOL", 8, index_of(DType::boolean)},
    {"F4", 4, -1},
    {"F6_E2M3", 6, -1},
    {"F6_E3M2", 6, -1},
    {"U8", 8, index_of(DType::u8)},
    {"I8", 8, -1},
    {"F8_E5M2", 8, index_of(DType::f8e5m2)},
    {"F8_E4M3", 8, index_of(DType::f8e4m3fn)},
    {"F8_E8M0", 8, -1},
    {"F8_E4M3FNUZ", 8, -1},
    {"F8_E5M2FNUZ", 8, -1},
    {"I16", 16, -1},
    {"U16", 16, -1},
    {"F16", 16, index_of(DType::f16)},
    {"BF16", 16, index_of(DType::bf16)},
    {"I32", 32, index_of(DType::i32)},
    {"U32", 32, -1},
    {"F32", 32, index_of(DType::f32)},
    {"C64", 64, -1},
    {"F64", 64, index_of(DType::f64)},
    {"I64", 64, index_of(DType::i64)},
    {"U64", 64, -1},
};

// Receives nlohmann's events. The grammar makes keys appear in objects only; everything else is checked against what comes next.
class HeaderEvents {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  HeaderEvents(SafetensorsHeader& header, const std::string& path) : header_(header), path_(path) {}

  bool start_object(std::size_t) {
    if (next_ == Next::header) return go(Next::tensor_name);
    if (next_ == Next::metadata) return go(Next::metadata_key);
    if (next_ == Next::tensor) return go(Next::field);
    refuse();
  }
  bool key(string_t& key) {
    if (next_ == Next::metadata_key) {
      check_as(Failure::corrupt, int64_t(header_.metadata.size()) < kMaxSafetensorsTensors, "{}: more than {} metadata values", path_,
               kMaxSafetensorsTensors);
      header_.metadata.push_back({std::move(key), ""});
      return go(Next::metadata_value);
    }
    return next_ == Next::field ? field(key) : tensor(key);
  }
  bool end_object() {
    if (next_ == Next::field) finish_tensor();
    return go(next_ == Next::tensor_name ? Next::nothing : Next::tensor_name);
  }
  bool start_array(std::size_t) {
    if (next_ == Next::shape) return go(Next::extent);
    if (next_ == Next::offsets) return go(Next::offset);
    refuse();
  }
  bool end_array() {
    if (next_ == Next::offset && offsets_ != 2) broken("data_offsets must be [begin, end]");
    return go(Next::field);
  }
  bool string(string_t& value) {
    if (next_ == Next::metadata_value) {
      header_.metadata.back().value = std::move(value);
      return go(Next::metadata_key);
    }
    if (next_ != Next::dtype) refuse();
    type_ = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const SafetensorsType& type) { return type.name == value; });
    if (type_ == std::end(kTypes)) broken(text("unknown dtype '{}'", printable_line(value, 40)));
    return go(Next::field);
  }
  bool number_unsigned(number_unsigned_t value) {
    if (value > uint64_t(INT64_MAX)) refuse();
    if (next_ == Next::extent) {
      if (rank_ == kMaxRank)
        fail("{}: tensor '{}' has more than {} axes; Reckon has at most that", path_, printable_line(name_, 80), kMaxRank);
      extents_[rank_++] = int64_t(value);
    } else if (next_ == Next::offset && offsets_ < 2) {
      offset_[offsets_++] = int64_t(value);
    } else {
      refuse();
    }
    return true;
  }
  bool null() { refuse(); }
  bool boolean(bool) { refuse(); }
  bool number_integer(number_integer_t) { refuse(); }  // negative
  bool number_float(number_float_t, const string_t&) { refuse(); }
  bool binary(binary_t&) { refuse(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) {
    // nlohmann's line is "[json.exception...] parse error at line L, column C: WHAT" or "[...] WHAT"; only WHAT is worth showing.
    std::string_view what = error.what();
    for (const std::string_view before : {"] ", ": "})
      if (const size_t at = what.find(before); at != what.npos) what.remove_prefix(at + before.size());
    fail_as(Failure::corrupt, "{}: the header is not valid JSON at byte {}: {}", path_, 8 + position, printable_line(what));
  }

 private:
  enum class Next : uint8_t {
    header,
    tensor_name,
    metadata,
    metadata_key,
    metadata_value,
    tensor,
    field,
    dtype,
    shape,
    extent,
    offsets,
    offset,
    nothing
  };

  bool go(Next next) {
    next_ = next;
    return true;
  }
  [[noreturn]] void broken(std::string_view what) {
    fail_as(Failure::corrupt, "{}: tensor '{}': {}", path_, printable_line(name_, 80), what);
  }
  // The value that came is not the one the format has here.
  [[noreturn]] void refuse() {
    switch (next_) {
      case Next::tensor:
        broken("its entry must be an object");
      case Next::dtype:
        broken("dtype must be a string");
      case Next::shape:
        broken("shape must be an array");
      case Next::extent:
        broken("every extent must be an integer from 0 to 2^63 - 1");
      case Next::offsets:
      case Next::offset:
        broken("data_offsets must be [begin, end], two integers from 0 to 2^63 - 1");
      case Next::metadata:
      case Next::metadata_value:
        fail_as(Failure::corrupt, "{}: __metadata__ must be an object of strings", path_);
      default:
        fail_as(Failure::corrupt, "{}: the header must be one JSON object", path_);
    }
  }

  bool tensor(string_t& key) {
    if (key == "__metadata__") {
      if (has_metadata_) fail_as(Failure::corrupt, "{}: duplicate __metadata__", path_);
      has_metadata_ = true;
      return go(Next::metadata);
    }
    check_as(Failure::corrupt, int64_t(header_.entries.size()) < kMaxSafetensorsTensors, "{}: more than {} tensors", path_,
             kMaxSafetensorsTensors);
    name_ = std::move(key);
    type_ = nullptr;
    rank_ = offsets_ = 0;
    has_shape_ = has_offsets_ = false;
    return go(Next::tensor);
  }
  bool field(const string_t& key) {
    bool twice = false;
    if (key == "dtype") {
      twice = type_ != nullptr;
      next_ = Next::dtype;
    } else if (key == "shape") {
      twice = std::exchange(has_shape_, true);
      next_ = Next::shape;
    } else if (key == "data_offsets") {
      twice = std::exchange(has_offsets_, true);
      next_ = Next::offsets;
    } else {
      broken(text("unknown key '{}'", printable_line(key, 40)));
    }
    if (twice) broken(text("duplicate key '{}'", key));
    return true;
  }
  void finish_tensor() {
    if (!type_) broken("has no dtype");
    if (!has_shape_) broken("has no shape");
    if (!has_offsets_) broken("has no data_offsets");
    SafetensorsEntry entry;
    int64_t bits = type_->bits;
    for (int i = 0; i < rank_; ++i)
      if (__builtin_mul_overflow(bits, std::max<int64_t>(extents_[i], 1), &bits)) broken("shape and dtype need more than 2^63 bits");
    entry.shape = Shape(std::span<const int64_t>(extents_, size_t(rank_)));
    if (entry.shape.numel() == 0) bits = 0;
    if (bits % 8 != 0) broken(text("{} elements of {} bits do not fill whole bytes", entry.shape.numel(), type_->bits));
    if (offset_[1] < offset_[0]) broken(text("data ends at {}, before it begins at {}", offset_[1], offset_[0]));
    if (offset_[1] - offset_[0] != bits / 8)
      broken(text("{}{} takes {} bytes, but data_offsets [{}, {}] hold {}", type_->name, entry.shape, bits / 8, offset_[0], offset_[1],
                  offset_[1] - offset_[0]));
    entry.name = std::move(name_);
    entry.dtype = type_->name;
    entry.dtype_index = type_->dtype;
    entry.offset = offset_[0];
    entry.bytes = bits / 8;
    header_.entries.push_back(std::move(entry));
  }

  SafetensorsHeader& header_;
  const std::string& path_;
  Next next_ = Next::header;
  bool has_metadata_ = false, has_shape_ = false, has_offsets_ = false;
  // The tensor being read.
  std::string name_;
  const SafetensorsType* type_ = nullptr;
  int64_t extents_[kMaxRank] = {}, offset_[2] = {};
  int rank_ = 0, offsets_ = 0;
};
}  // namespace

std::span<const SafetensorsType> safetensors_types() { return kTypes; }

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& path) {
  check_as(Failure::corrupt, !json.empty() && json[0] == '{', "{}: not a safetensors file: its header does not begin with '{{'", path);
  // The JSON lexer takes a zero byte for the end: what follows would go unseen.
  const size_t zero = json.find('\0');
  check_as(Failure::corrupt, zero == json.npos, "{}: the header is not valid JSON at byte {}: a zero byte", path, 8 + zero);
  SafetensorsHeader header;
  HeaderEvents events(header, path);
  const bool done = nlohmann::json::sax_parse(json.begin(), json.end(), &events);
  RECKON_ASSERT(done);  // every refusal throws
  return header;
}
}  // namespace reckon::detail
