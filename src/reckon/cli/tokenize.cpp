// cli/tokenize: reckon tokenize data.path=TEXT data.tokenizer=bpe:N --out tokens.npy | tokenizer.json
#include <cstdio>

#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/data/token_file.h"
#include "reckon/io/files.h"
#include "reckon/io/json.h"
#include "reckon/io/tokenizer.h"

namespace reckon {
namespace {
// Encodes a text in pieces, so that memory stays bounded however long it is; returns the number of tokens.
int64_t encode_file(const Tokenizer& tokenizer, const InputFile& text, TokenFileWriter* writer) {
  constexpr int64_t kPiece = 16 << 20;
  std::string pending;
  int64_t tokens = 0, at = 0;
  while (at < text.size() || !pending.empty()) {
    const int64_t more = std::min(kPiece, text.size() - at);
    const size_t old = pending.size();
    pending.resize(old + size_t(more));
    text.read(at, std::as_writable_bytes(std::span(pending.data() + old, size_t(more))));
    at += more;
    const bool last = at == text.size();
    const size_t cut = last ? pending.size() : tokenizer.safe_cut(pending);
    const std::vector<int32_t> ids = tokenizer.encode(std::string_view(pending).substr(0, cut));
    if (writer) writer->append(ids);
    tokens += int64_t(ids.size());
    pending.erase(0, cut);
  }
  return tokens;
}
}  // namespace

int run_tokenize(const CommandLine& line) {
  line.no_words();
  // There is no model here that the vocabulary would have to fit.
  std::vector<std::string> overrides = line.overrides;
  overrides.push_back(reckon::text("model.vocab={}", kMaxVocab));
  const Config config = load_config(line.config_path, overrides);
  check_as(Failure::usage, !config.data.path.empty(), "name the text with data.path=FILE");
  const InputFile text(config.data.path);
  check_as(Failure::usage, text.size() > 0, "{} is empty", config.data.path);
  const std::string cache = line.out.empty() ? parent_path(config.data.path) : parent_path(line.out);
  const bool save_tokenizer = line.out.ends_with(".json");
  Ref<Tokenizer> tokenizer;
  if (config.data.tokenizer.starts_with("bpe:")) {
    const std::string size = config.data.tokenizer.substr(4);
    check_as(Failure::usage, !size.empty() && size.size() < 9 && size.find_first_not_of("0123456789") == std::string::npos, "data.tokenizer={} is not bpe:N",
             config.data.tokenizer);
    tokenizer = Tokenizer::train_file(config.data.path, std::stoul(size));
  } else {
    tokenizer = open_tokenizer(config.data.tokenizer, config.data.path, cache);
  }
  int64_t tokens = 0;
  if (save_tokenizer) {
    tokenizer->save(line.out);
    tokens = encode_file(*tokenizer, text, nullptr);
  } else if (line.out.empty()) {
    tokens = encode_file(*tokenizer, text, nullptr);
  } else {
    check_as(Failure::usage, line.out.ends_with(".npy"), "--out {} must end in .npy (tokens) or .json (the tokenizer)", line.out);
    TokenFileWriter writer(line.out, int64_t(tokenizer->vocab_size()));
    tokens = encode_file(*tokenizer, text, &writer);
    writer.finish();
  }
  const double ratio = double(text.size()) / double(std::max<int64_t>(1, tokens));
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("kind").string(tokenizer->kind());
    j.key("vocab").integer(int64_t(tokenizer->vocab_size()));
    j.key("fingerprint").string(tokenizer->fingerprint());
    j.key("bytes").integer(text.size());
    j.key("tokens").integer(tokens);
    j.key("bytes_per_token").number(ratio);
    j.end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return 0;
  }
  std::printf("%s, %zu tokens in the vocabulary; %s bytes -> %s tokens, %.3f bytes per token\n", std::string(tokenizer->kind()).c_str(), tokenizer->vocab_size(),
              with_commas(text.size()).c_str(), with_commas(tokens).c_str(), ratio);
  if (!line.out.empty()) std::printf("wrote %s\n", line.out.c_str());
  return 0;
}
}  // namespace reckon
