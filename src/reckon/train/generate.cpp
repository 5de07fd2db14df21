#include "reckon/train/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "reckon/base/philox.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
constexpr uint64_t kSamplingSite = 0x73616D706C65;
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

int32_t sample_token(std::span<const float> logits, const SamplingOptions& o, double draw) {
  RECKON_ASSERT(!logits.empty());
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) { return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b; };
  if (o.temperature <= 0) return *std::min_element(order.begin(), order.end(), likelier);
  const size_t k = o.top_k > 0 ? std::min(size_t(o.top_k), order.size()) : order.size();
  std::partial_sort(order.begin(), order.begin() + long(k), order.end(), likelier);
  std::vector<double> weight(k);
  double total = 0;
  for (size_t i = 0; i < k; ++i) total += weight[i] = std::exp((double(logits[size_t(order[i])]) - double(logits[size_t(order[0])])) / o.temperature);
  size_t kept = 0;
  double mass = 0;
  do mass += weight[kept++];
  while (kept < k && mass < o.top_p * total);
  double at = draw * mass;
  for (size_t i = 0; i < kept; ++i)
    if ((at -= weight[i]) < 0) return order[i];
  return order[kept - 1];
}

namespace {
// Feeds tokens through the cache and gives the logits of the last one.
class Continuation {
 public:
  Continuation(const LoadedModel& model, Device& device, int64_t max_tokens)
      : model_(model), device_(device), cache_(device, model.config.model, 1, max_tokens, model.decoder->parameters().dtype()) {}

  std::vector<float> feed(std::span<const int32_t> tokens) {
    const int64_t n = int64_t(tokens.size());
    cache_.position.write(&length_, sizeof length_);
    std::vector<int32_t> places(tokens.size());
    std::iota(places.begin(), places.end(), int32_t(length_));
    const Tensor ids = from_values<int32_t>(device_, {1, n}, tokens), positions = from_values<int32_t>(device_, {n}, places);
    const Tensor logits = cast(model_.decoder->next_logits(ids, positions, cache_), DType::f32);
    length_ += n;
    std::vector<float> host(size_t(logits.numel()));
    device_.copy_out(host.data(), logits.raw(), host.size() * sizeof(float));
    check(std::all_of(host.begin(), host.end(), [](float x) { return std::isfinite(x); }), "the model gives NaN or infinite logits: its weights are not usable");
    return host;
  }
  int64_t length() const { return length_; }
  void restart() { length_ = 0; }

 private:
  const LoadedModel& model_;
  Device& device_;
  KvCache cache_;
  int64_t length_ = 0;
};
}  // namespace

GenerationResult generate(const LoadedModel& model, Device& device, std::span<const int32_t> prompt, int64_t max_tokens, const SamplingOptions& options, TokenSink sink,
                          void* user) {
  check(!prompt.empty(), "generation needs a prompt of at least one token");
  const int64_t longest = model.config.model.max_seq_len, vocab = model.config.model.vocab;
  for (const int32_t id : prompt) check_as(Failure::usage, id >= 0 && id < vocab, "prompt token {} is outside the model's vocabulary of {}", id, vocab);
  const NoGrad guard;
  const PhaseScope phase(device, Phase::eval);
  const int64_t capacity = std::min(longest, std::max<int64_t>(2, int64_t(prompt.size()) + max_tokens));
  Continuation continuation(model, device, capacity);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  GenerationResult result;
  // A prompt longer than the model can see is cut to its end.
  const size_t first = size_t(std::min<int64_t>(int64_t(history.size()), std::max<int64_t>(1, capacity - 1)));
  const double start = now();
  std::vector<float> logits = continuation.feed(std::span(history).last(first));
  result.prompt_seconds = now() - start;
  const double loop = now();
  const uint64_t key = mix_key(options.seed, kSamplingSite);
  // Token ids beyond the tokenizer's vocabulary (a padded head) have no text and are never drawn.
  const size_t drawable = model.tokenizer ? std::min(logits.size(), model.tokenizer->vocab_size()) : logits.size();
  while (result.tokens < max_tokens) {
    const auto words = philox(key, 0, uint64_t(result.tokens));
    const int32_t token = sample_token(std::span(logits).first(drawable), options, uniform_double(words[0], words[1]));
    history.push_back(token);
    ++result.tokens;
    if (!sink(user, token) || result.tokens == max_tokens) break;
    if (continuation.length() < capacity) {
      logits = continuation.feed(std::span(history).last(1));
    } else {
      continuation.restart();
      logits = continuation.feed(std::span(history).last(size_t(std::max<int64_t>(1, capacity / 2))));
    }
  }
  result.token_seconds = now() - loop;
  return result;
}
}  // namespace reckon
