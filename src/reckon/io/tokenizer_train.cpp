// io/tokenizer_train: BPE training on texts and files, and opening a tokenizer by its name in a configuration.
#include <algorithm>
#include <charconv>
#include <memory>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"
#include "reckon/io/files.h"
#include "reckon/io/tokenizer_content.h"
#include "reckon/io/tokenizer_text.h"

namespace reckon {
namespace {
constexpr size_t kChunkBytes = size_t(1) << 18;
constexpr size_t kMaxVocab = 1000000;

// Counts pieces, each thread into its own table; sums do not depend on who counted what.
class Counter {
 public:
  Counter() : pattern_(SplitPattern::compile(kGpt2Pattern, "GPT-2's pattern")), lanes_(static_cast<size_t>(thread_count())) {}

  void count(std::string_view text) {
    std::vector<std::string_view> chunks;
    for (size_t window = kChunkBytes; !text.empty();) {
      const size_t cut = window < text.size() ? safe_cut(text.substr(0, window)) : text.size();
      window = cut ? kChunkBytes : 2 * window;
      if (!cut) continue;
      chunks.push_back(text.substr(0, cut));
      text.remove_prefix(cut);
    }
    parallel_for(
        int64_t(chunks.size()),
        [&](int64_t task, int lane) {
          auto& state = lanes_[size_t(lane)];
          if (!state) state = std::make_unique<Lane>(*pattern_);
          state->scanner.start(chunks[size_t(task)]);
          for (std::string_view piece; state->scanner.next(piece);) state->pieces.add(piece);
        },
        int(lanes_.size()));
  }

  PieceCounts& total() {
    if (!lanes_[0]) lanes_[0] = std::make_unique<Lane>(*pattern_);
    for (size_t i = 1; i < lanes_.size(); ++i) {
      if (lanes_[i]) lanes_[0]->pieces.add(lanes_[i]->pieces);
      lanes_[i].reset();
    }
    return lanes_[0]->pieces;
  }
  const Ref<SplitPattern>& pattern() const { return pattern_; }

 private:
  struct Lane {
    explicit Lane(const SplitPattern& pattern) : scanner(pattern) {}
    PieceScanner scanner;
    PieceCounts pieces;
  };
  Ref<SplitPattern> pattern_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

void check_vocab_size(size_t vocab_size, size_t specials) {
  check_as(Failure::usage, vocab_size >= 256 + specials && vocab_size <= kMaxVocab,
           "a BPE vocabulary of {} tokens cannot be: 256 bytes and {} special tokens make at least {}, and the limit is {}", vocab_size,
           specials, 256 + specials, kMaxVocab);
}

std::unique_ptr<Tokenizer::Content> train_content(Counter& counter, size_t vocab_size, std::span<const std::string> specials) {
  auto content = std::make_unique<Tokenizer::Content>();
  content->model = train_bpe(counter.total(), vocab_size - specials.size());
  content->pattern = counter.pattern();
  TokenTable& tokens = content->model.tokens;
  for (const std::string& special : specials) {
    check_as(Failure::usage, !special.empty() && utf8_valid_prefix(special) == special.size(), "'{}' cannot be a special token",
             printable_line(special));
    // tokenizer.json names tokens by their spelling: no two may have the same.
    for (size_t id = 0; id < tokens.size(); ++id)
      check_as(Failure::usage,
               special != (id < tokens.size() - content->added.size() ? byte_level_spelling(tokens[id]) : std::string(tokens[id])),
               "the special token '{}' is a token already", printable_line(special));
    content->added.push_back({special, uint32_t(tokens.size()), true, false});
    tokens.add(special);
  }
  return content;
}

Ref<Tokenizer> open_trained(size_t vocab_size, const std::string& text_path, const std::string& cache_dir) {
  check_vocab_size(vocab_size, 0);
  // The number in front of the hash is the trainer's version: a new rule must not find old tokenizers.
  const std::string key = hash_of(text("bpe 1 {} {}", vocab_size, hash_of_file(text_path)));
  const std::string cached = join_path(cache_dir, text("tokenizer-bpe{}-{}.json", vocab_size, key.substr(0, 16)));
  if (path_exists(cached)) {
    try {
      return Tokenizer::load(cached);
    } catch (const Error& error) {
      if (error.kind() != Failure::corrupt) throw;  // a damaged cache is replaced
    }
  }
  const Ref<Tokenizer> trained = Tokenizer::train_file(text_path, vocab_size);
  make_directories(cache_dir);
  trained->save(cached);
  return trained;
}
}  // namespace

Ref<Tokenizer> Tokenizer::train(std::string_view text, size_t vocab_size, std::span<const std::string> specials) {
  check_vocab_size(vocab_size, specials.size());
  Counter counter;
  counter.count(text);
  return make(train_content(counter, vocab_size, specials).release());
}

Ref<Tokenizer> Tokenizer::train_file(const std::string& path, size_t vocab_size, std::span<const std::string> specials) {
  check_vocab_size(vocab_size, specials.size());
  Counter counter;
  TextReader reader(path);
  for (bool done = false; !done;) {
    const std::string_view pending = reader.more();
    done = reader.at_end();
    const size_t cut = done ? pending.size() : reckon::safe_cut(pending);
    counter.count(pending.substr(0, cut));
    reader.consume(cut);
  }
  return make(train_content(counter, vocab_size, specials).release());
}

Ref<Tokenizer> open_tokenizer(const std::string& spec, const std::string& text_path, const std::string& cache_dir) {
  if (spec == "bytes") return Tokenizer::bytes();
  if (spec.starts_with("bpe:")) {
    size_t vocab_size = 0;
    const char *begin = spec.data() + 4, *end = spec.data() + spec.size();
    const auto [stop, error] = std::from_chars(begin, end, vocab_size);
    check_as(Failure::usage, error == std::errc() && stop == end && begin != end,
             "tokenizer '{}': write bpe:N with the vocabulary size, as in bpe:4096", printable_line(spec));
    check_as(Failure::usage, !text_path.empty(),
             "tokenizer '{}' is trained on the text of data.path, and there is none: name a tokenizer.json", spec);
    return open_trained(vocab_size, text_path, cache_dir);
  }
  const std::string path = is_directory(spec) ? join_path(spec, "tokenizer.json") : spec;
  check_as(Failure::usage, path_exists(path), "tokenizer '{}' is neither bytes, nor bpe:N, nor a tokenizer.json that exists",
           printable_line(spec));
  return Tokenizer::load(path);
}
}  // namespace reckon
