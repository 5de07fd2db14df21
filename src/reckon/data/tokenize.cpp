#include "reckon/data/tokenize.h"

#include "reckon/io/tokenizer_text.h"

namespace reckon {

TokenizedText tokenize_text(const Tokenizer& tokenizer, const std::string& path, TokenFileWriter* writer,
                            void (*progress)(int64_t, int64_t)) {
  TextReader reader(path);
  TokenizedText result;
  Hash128 hash;
  std::vector<int32_t> ids;
  for (bool done = false; !done;) {
    const std::string_view pending = reader.more();
    done = reader.at_end();
    const std::string_view part = pending.substr(0, done ? pending.size() : tokenizer.safe_cut(pending));
    ids.clear();
    tokenizer.encode_append(part, ids);
    if (writer) writer->append(ids);
    hash.update(std::as_bytes(std::span(part.data(), part.size())));
    result.bytes += int64_t(part.size());
    result.tokens += int64_t(ids.size());
    reader.consume(part.size());
    if (progress) progress(result.bytes, reader.file().size());
  }
  result.text_hash = hash.hex();
  return result;
}
}  // namespace reckon
