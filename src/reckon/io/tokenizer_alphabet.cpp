// io/tokenizer_alphabet: the byte-level alphabet of tokenizer.json, and the text that NFC leaves alone.
#include <algorithm>
#include <array>

#include "reckon/base/error.h"
#include "reckon/io/tokenizer_content.h"

namespace reckon {
namespace {
bool stands_for_itself(uint32_t c) { return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF); }

struct Alphabet {
  std::array<uint16_t, 256> character;  // of a byte
  std::array<int16_t, 256 + 68> byte;   // of a character; -1: none
};
constexpr uint32_t kAlphabetEnd = 256 + 68;

Alphabet make_alphabet() {
  Alphabet a;
  a.byte.fill(-1);
  uint16_t spare = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    a.character[byte] = stands_for_itself(byte) ? uint16_t(byte) : spare++;
    a.byte[a.character[byte]] = int16_t(byte);
  }
  RECKON_ASSERT(spare == kAlphabetEnd);
  return a;
}
const Alphabet& alphabet() {
  static const Alphabet a = make_alphabet();
  return a;
}
}  // namespace

uint32_t byte_level_character(uint8_t byte) { return alphabet().character[byte]; }

std::string byte_level_spelling(std::string_view bytes) {
  std::string spelling;
  for (char byte : bytes) {
    const uint32_t c = byte_level_character(uint8_t(byte));
    if (c < 0x80) {
      spelling += char(c);
    } else {
      spelling += char(0xC0 | c >> 6);
      spelling += char(0x80 | (c & 0x3F));
    }
  }
  return spelling;
}

bool byte_level_bytes(std::string_view spelling, std::string& bytes) {
  bytes.clear();
  while (!spelling.empty()) {
    const size_t n = utf8_character(spelling.substr(0, 4));
    const uint32_t c = n ? utf8_code_point(spelling, n) : kAlphabetEnd;
    if (c >= kAlphabetEnd || alphabet().byte[c] < 0) return false;
    bytes += char(alphabet().byte[c]);
    spelling.remove_prefix(n);
  }
  return true;
}

void check_nfc_stable(std::string_view text) {
  // Ranges whose characters are their own NFC form, have combining class 0 and never combine with what precedes them.
  static constexpr struct {
    uint32_t first, last;
  } kStable[] = {{0, 0x2FF},       {0x400, 0x482},   {0x2010, 0x2027},  {0x2030, 0x205E}, {0x2190, 0x21FF},
                 {0x2500, 0x25FF}, {0x3001, 0x3029}, {0x3041, 0x3096},  {0x309B, 0x30FF}, {0x4E00, 0x9FA5},
                 {0xAC00, 0xD7A3}, {0xFF01, 0xFF5E}, {0x1F300, 0x1F64F}};
  for (size_t i = 0; i < text.size();) {
    if (uint8_t(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const size_t n = utf8_character(text.substr(i, 4));
    if (n == 0) {  // not UTF-8: kept byte for byte
      ++i;
      continue;
    }
    const uint32_t c = utf8_code_point(text.substr(i, n), n);
    const bool stable =
        std::any_of(std::begin(kStable), std::end(kStable), [&](auto& range) { return c >= range.first && c <= range.last; });
    check(stable,
          "this tokenizer wants its text in Unicode normalization form C, which is not done here, and the character at byte {} (code point "
          "{}) "
          "may be affected: use another tokenizer",
          i, c);
    i += n;
  }
}
}  // namespace reckon
