// cli/tokenize: reckon tokenize data.path=TEXT data.tokenizer=bpe:N --out tokens.npy | tokenizer.json
#include "reckon/data/tokenize.h"

#include <cstdio>

#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/io/files.h"
#include "reckon/io/json.h"
#include "reckon/io/tokenizer.h"
#include "reckon/train/run_data.h"

namespace reckon {
int run_tokenize(const CommandLine& line) {
  line.no_words();
  // There is no model here that the vocabulary would have to fit.
  std::vector<std::string> overrides = line.overrides;
  overrides.push_back(reckon::text("model.vocab={}", kMaxVocab));
  const Config config = load_config(line.config_path, overrides);
  check_as(Failure::usage, !config.data.path.empty(), "name the text with data.path=FILE");
  check_as(Failure::usage, !is_token_file(config.data.path), "{} holds token ids already, not text", config.data.path);
  check_as(Failure::usage, InputFile(config.data.path).size() > 0, "{} is empty", config.data.path);
  const std::string cache = line.out.empty() ? parent_path(config.data.path) : parent_path(line.out);
  const bool save_tokenizer = line.out.ends_with(".json");
  check_as(Failure::usage, line.out.empty() || save_tokenizer || line.out.ends_with(".npy"),
           "--out {} must end in .npy (tokens) or .json (the tokenizer)", line.out);
  check_as(Failure::usage, line.out.empty() || !path_exists(line.out) || !same_file(line.out, config.data.path),
           "--out {} is the text itself: name another file", line.out);
  check_as(Failure::usage, is_directory(cache), "--out {}: there is no folder {}", line.out, cache);
  Ref<Tokenizer> tokenizer;
  if (config.data.tokenizer.starts_with("bpe:")) {
    const std::string size = config.data.tokenizer.substr(4);
    check_as(Failure::usage, !size.empty() && size.size() < 9 && size.find_first_not_of("0123456789") == std::string::npos,
             "data.tokenizer={} is not bpe:N", config.data.tokenizer);
    tokenizer = Tokenizer::train_file(config.data.path, std::stoul(size));
  } else {
    tokenizer = open_tokenizer(config.data.tokenizer, config.data.path, cache);
  }
  const std::string note = fewer_tokens_note(config.data.tokenizer, *tokenizer);
  if (!note.empty()) std::fprintf(stderr, "%s\n", note.c_str());
  TokenizedText done;
  if (save_tokenizer || line.out.empty()) {
    if (save_tokenizer) tokenizer->save(line.out);
    done = tokenize_text(*tokenizer, config.data.path, nullptr);
  } else {
    TokenFileWriter writer(line.out, int64_t(tokenizer->vocab_size()));
    done = tokenize_text(*tokenizer, config.data.path, &writer);
    writer.finish();
  }
  const double ratio = double(done.bytes) / double(std::max<int64_t>(1, done.tokens));
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("kind").string(tokenizer->kind());
    j.key("vocab").integer(int64_t(tokenizer->vocab_size()));
    j.key("fingerprint").string(tokenizer->fingerprint());
    j.key("bytes").integer(done.bytes);
    j.key("tokens").integer(done.tokens);
    j.key("bytes_per_token").number(ratio);
    j.end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return 0;
  }
  std::printf("%s, %s in the vocabulary; %s -> %s, %.3f bytes per token\n", std::string(tokenizer->kind()).c_str(),
              counted(int64_t(tokenizer->vocab_size()), "token").c_str(), counted(done.bytes, "byte").c_str(),
              counted(done.tokens, "token").c_str(), ratio);
  if (!line.out.empty()) std::printf("wrote %s\n", line.out.c_str());
  return 0;
}
}  // namespace reckon
