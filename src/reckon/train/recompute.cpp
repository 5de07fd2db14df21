#include "reckon/train/recompute.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr std::string_view kKey = "train.recompute_blocks";
constexpr std::string_view kSegment = "segment";
constexpr std::string_view kModes[] = {"none", "selective", "full"};  // by BlockRecompute

// "full:3" -> runs of the policy.
void add_item(std::string_view item, int64_t layers, RecomputePolicy& policy) {
  const size_t colon = item.find(':');
  const std::string_view word = item.substr(0, colon), digits = colon == item.npos ? "1" : item.substr(colon + 1);
  int64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  check_as(Failure::usage, error == std::errc() && end == digits.data() + digits.size() && count >= 1 && count <= layers,
           "{}: the count in \"{}\" must be from 1 to model.layers = {}", kKey, printable_line(item, 60), layers);
  if (word == kSegment) {
    policy.push_back({BlockRecompute::full, count});
    return;
  }
  const auto* const mode = std::find(std::begin(kModes), std::end(kModes), word);
  const std::vector<std::string> words = {"none", "selective", "full", std::string(kSegment)};
  check_as(Failure::usage, mode != std::end(kModes),
           "{} expects none, selective, full or segment with counts, as in \"full:3,none:9\", got \"{}\"{}", kKey, printable_line(item, 60),
           did_you_mean(word, words));
  for (int64_t i = 0; i < count; ++i) policy.push_back({BlockRecompute(mode - kModes), 1});
}

RecomputePolicy parse(std::string_view list, int64_t layers) {
  RecomputePolicy policy;
  int64_t blocks = 0;
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find_first_of(", ", begin), list.size());
    const size_t before = policy.size();
    if (end > begin) add_item(list.substr(begin, end - begin), layers, policy);
    for (size_t i = before; i < policy.size(); ++i) blocks += policy[i].blocks;
    check_as(Failure::usage, blocks <= layers, "{} = \"{}\" names more than the {} blocks of model.layers", kKey, printable_line(list, 100),
             layers);
    begin = end + 1;
  }
  check_as(Failure::usage, blocks == layers, "{} = \"{}\" names {} of the {} blocks of model.layers: the counts must sum to that", kKey,
           printable_line(list, 100), blocks, layers);
  return policy;
}

// Longer segments come first: the last one runs again while the inputs of all are held.
RecomputePolicy segments_of_sqrt(int64_t layers) {
  const int64_t count = std::max<int64_t>(1, std::llround(std::sqrt(double(layers))));
  RecomputePolicy policy;
  for (int64_t i = 0; i < count; ++i) policy.push_back({BlockRecompute::full, layers / count + (i < layers % count)});
  return policy;
}
}  // namespace

void check_recompute(const Config& c) {
  const std::string& list = c.train.recompute_blocks;
  if (list.empty()) return;
  check_as(Failure::usage, !c.model.cruncher, "{} = \"{}\" is for the blocks of a decoder; the cruncher has none: leave it out", kKey,
           printable_line(list, 100));
  check_as(Failure::usage, c.train.recompute == Recompute::none || c.train.recompute == Recompute::automatic,
           "{} = \"{}\" and train.recompute = {} exclude each other: leave one of them out, or empty the list with {}=", kKey,
           printable_line(list, 100), to_string(c.train.recompute), kKey);
  parse(list, c.model.layers);
}

RecomputePolicy recompute_policy(const Config& c) {
  if (c.model.cruncher) return {};
  const int64_t layers = c.model.layers;
  if (!c.train.recompute_blocks.empty()) return parse(c.train.recompute_blocks, layers);
  switch (c.train.recompute) {
    case Recompute::none:
      return {};
    case Recompute::selective:
      return RecomputePolicy(size_t(layers), {BlockRecompute::selective, 1});
    case Recompute::full:
      return RecomputePolicy(size_t(layers), {BlockRecompute::full, 1});
    case Recompute::sqrt:
      return segments_of_sqrt(layers);
    case Recompute::automatic:
      break;
  }
  fail("train.recompute = auto is chosen by a plan, and there was none");
}

std::string to_string(const RecomputePolicy& policy) {
  std::string list;
  for (size_t i = 0; i < policy.size();) {
    const RecomputeRun& run = policy[i];
    const bool is_segment = run.mode == BlockRecompute::full && run.blocks > 1;
    int64_t blocks = run.blocks;
    for (++i; !is_segment && i < policy.size() && policy[i].mode == run.mode && policy[i].blocks == 1; ++i) ++blocks;
    list += text("{}{}:{}", list.empty() ? "" : ",", is_segment ? kSegment : kModes[size_t(run.mode)], blocks);
  }
  return list;
}

std::string recompute_text(const TrainConfig& train) {
  if (train.recompute_blocks.empty()) return to_string(train.recompute);
  return train.recompute == Recompute::automatic ? text("auto ({})", train.recompute_blocks) : train.recompute_blocks;
}

bool recomputes(const TrainConfig& train) { return train.recompute != Recompute::none || !train.recompute_blocks.empty(); }
}  // namespace reckon
