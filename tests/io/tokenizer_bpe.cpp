// The fast trainer and encoder against the obvious slow ones, on small random texts full of ties and overlaps.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/io/bpe.h"

using namespace reckon;

namespace {
using Spelled = std::vector<std::string>;
using SpelledPair = std::pair<std::string, std::string>;

struct ReferenceBpe {
  std::vector<std::string> tokens;
  std::vector<SpelledPair> merges;
};

void merge_all(Spelled& word, const SpelledPair& pair) {
  for (size_t i = 0; i + 1 < word.size(); ++i)
    if (word[i] == pair.first && word[i + 1] == pair.second) {
      word[i] += word[i + 1];
      word.erase(word.begin() + long(i) + 1);
    }
}

Spelled letters(const std::string& word) {
  Spelled out;
  for (char c : word) out.emplace_back(1, c);
  return out;
}

// Counts everything again at every step. std::map's order of pairs is the tie-break.
ReferenceBpe train_slowly(const std::map<std::string, int64_t>& words, size_t vocab_size) {
  ReferenceBpe bpe;
  for (int byte = 0; byte < 256; ++byte) bpe.tokens.emplace_back(1, char(byte));
  std::set<std::string> known(bpe.tokens.begin(), bpe.tokens.end());
  std::vector<std::pair<Spelled, int64_t>> split;
  for (const auto& [word, count] : words) split.push_back({letters(word), count});
  while (bpe.tokens.size() < vocab_size) {
    std::map<SpelledPair, int64_t> counts;
    for (const auto& [word, count] : split)
      for (size_t i = 0; i + 1 < word.size(); ++i) counts[{word[i], word[i + 1]}] += count;
    const SpelledPair* best = nullptr;
    int64_t most = 1;
    const auto before = [](const SpelledPair& a, const SpelledPair& b) {
      const std::string_view al = a.first, bl = b.first, ar = a.second, br = b.second;  // compares bytes as unsigned
      return al != bl ? al < bl : ar < br;
    };
    for (const auto& [pair, count] : counts)
      if (count > most || (best && count == most && before(pair, *best))) best = &pair, most = count;
    if (!best) break;
    bpe.merges.push_back(*best);
    bpe.tokens.push_back(best->first + best->second);
    EXPECT_TRUE(known.insert(bpe.tokens.back()).second) << "a token was made in two ways, which the trainer takes for impossible";
    for (auto& [word, count] : split) merge_all(word, *best);
  }
  return bpe;
}

Spelled encode_slowly(const ReferenceBpe& bpe, const std::string& piece) {
  Spelled word = letters(piece);
  for (;;) {
    size_t best_rank = bpe.merges.size(), best_at = 0;
    for (size_t i = 0; i + 1 < word.size(); ++i)
      for (size_t rank = 0; rank < best_rank; ++rank)
        if (bpe.merges[rank] == SpelledPair{word[i], word[i + 1]}) best_rank = rank, best_at = i;
    if (best_rank == bpe.merges.size()) return word;
    word[best_at] += word[best_at + 1];
    word.erase(word.begin() + long(best_at) + 1);
  }
}

std::string random_word(std::mt19937& random, int alphabet, int max_length) {
  std::string word;
  const int length = 1 + int(random() % unsigned(max_length));
  // Bytes from both halves, so that a signed comparison of characters would show.
  for (int i = 0; i < length; ++i) word += char((random() % unsigned(alphabet)) * 37 + 100);
  return word;
}

Spelled spelled(const BpeModel& model, const std::vector<int32_t>& ids) {
  Spelled out;
  for (int32_t id : ids) out.emplace_back(model.tokens[size_t(id)]);
  return out;
}
}  // namespace

TEST(Bpe, TrainsLikeTheObviousTrainer) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const int alphabet = 1 + round % 5;
    std::map<std::string, int64_t> words;
    PieceCounts pieces;
    for (int i = 0; i < 40; ++i) {
      const std::string word = random_word(random, alphabet, 4 + round % 30);
      const int64_t times = 1 + int64_t(random() % 5);
      words[word] += times;
      pieces.add(word, times);
    }
    const size_t vocab = 256 + size_t(round) * 3;
    const ReferenceBpe expected = train_slowly(words, vocab);
    const BpeModel model = train_bpe(pieces, vocab);
    ASSERT_EQ(model.tokens.size(), expected.tokens.size()) << "round " << round;
    for (size_t id = 0; id < expected.tokens.size(); ++id)
      ASSERT_EQ(model.tokens[id], expected.tokens[id]) << "round " << round << " id " << id;
    ASSERT_EQ(model.merges.size(), expected.merges.size());
    for (size_t rank = 0; rank < expected.merges.size(); ++rank) {
      ASSERT_EQ(model.tokens[model.merges[rank].left], expected.merges[rank].first) << rank;
      ASSERT_EQ(model.tokens[model.merges[rank].right], expected.merges[rank].second) << rank;
    }
    BpeEncoder encoder(model, 1 << 20);
    for (int i = 0; i < 40; ++i) {
      const std::string piece = random_word(random, alphabet, i % 10 == 0 ? 300 : 40);
      std::vector<int32_t> ids, again;
      encoder.encode(piece, ids);
      encoder.encode(piece, again);  // from the cache, if it is short
      ASSERT_EQ(spelled(model, ids), encode_slowly(expected, piece)) << "round " << round;
      ASSERT_EQ(ids, again);
    }
  }
}

TEST(Bpe, LongAndShortPiecesMergeAlike) {
  PieceCounts pieces;
  for (const char* word : {"aaaa", "aaab", "abab", "baab", "bbbb", "aabb"}) pieces.add(word, 3);
  const BpeModel model = train_bpe(pieces, 270);
  std::mt19937 random(3);
  for (int length = 1; length < 200; ++length) {
    // The middle of a long piece that starts and ends with bytes nothing merges with.
    std::string inner;
    for (int i = 0; i < length % 60 + 1; ++i) inner += random() % 3 ? 'a' : 'b';
    BpeEncoder encoder(model, 0);
    std::vector<int32_t> alone, within;
    encoder.encode(inner, alone);
    encoder.encode(std::string(100, 'x') + inner + std::string(100, 'y'), within);
    ASSERT_EQ(within.size(), alone.size() + 200);
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), within.begin() + 100));
  }
}

TEST(Bpe, AMillionEqualLettersAreNotQuadratic) {
  PieceCounts pieces;
  pieces.add(std::string(1 << 20, 'a'));
  const BpeModel model = train_bpe(pieces, 300);
  EXPECT_EQ(model.tokens.size(), 275u);  // a^2, a^4, ... a^(2^19); the last pair occurs once
  BpeEncoder encoder(model, 0);
  std::vector<int32_t> ids;
  encoder.encode(std::string((1 << 20) + 1, 'a'), ids);
  EXPECT_EQ(ids.size(), 3u);
}

TEST(Bpe, RefusesASmallVocabulary) {
  PieceCounts pieces;
  EXPECT_THROW(train_bpe(pieces, 255), Error);
  EXPECT_EQ(train_bpe(pieces, 256).tokens.size(), 256u);
}
