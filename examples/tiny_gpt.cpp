// Trains a small GPT on the bytes of a text, after a dry run that tells its memory and work; then lets it write.
//   tiny_gpt [STEPS [FILE]]     200 steps on a built-in sentence if nothing is said
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/io/files.h"
#include "reckon/train/step.h"

using namespace reckon;

// Sample i starts at a place of the text that i alone decides: there is no position to keep.
class TextBatches final : public BatchSource {
 public:
  explicit TextBatches(std::string text) : text_(std::move(text)) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
    const auto byte = [&](int64_t at) { return int32_t(uint8_t(text_[size_t(at) % text_.size()])); };
    for (int64_t row = 0; row < count; ++row)
      for (int64_t t = 0; t < seq_len; ++t) {
        const int64_t at = (first + row) * 7919 + t;  // a prime stride visits the whole text
        inputs[row * seq_len + t] = byte(at);
        targets[row * seq_len + t] = byte(at + 1);
      }
  }

 private:
  std::string text_;
};

Config small_config(int64_t steps) {
  Config config;
  config.model.layers = 2;
  config.model.d_model = 64;
  config.model.heads = config.model.kv_heads = 4;
  config.model.head_dim = 16;
  config.model.d_ff = 256;
  config.model.max_seq_len = 64;
  config.train.micro_batch = 8;
  config.train.seq_len = 64;
  config.train.steps = steps;
  config.optim.lr = 3e-3;
  validate(config);
  return config;
}

// The most likely next byte, again and again, over a cache of keys and values.
std::string write_text(const Decoder& decoder, Device& device, std::string text, int64_t length) {
  const NoGrad guard;
  KvCache cache(device, decoder.config(), 1, length, DType::f32);
  for (int64_t at = 0; at < length; ++at) {
    cache.position.write(&at, sizeof at);
    const int32_t token = uint8_t(text[size_t(at)]), place = int32_t(at);
    const Tensor logits =
        decoder.next_logits(from_values<int32_t>(device, {1, 1}, {&token, 1}), from_values<int32_t>(device, {1}, {&place, 1}), cache);
    const std::vector<double> values = logits.to_vector();
    const char likeliest = char(std::max_element(values.begin(), values.end()) - values.begin());
    if (at + 1 == int64_t(text.size())) text += likeliest;
  }
  return text;
}

int run(int64_t steps, const std::string& text) {
  const Config config = small_config(steps);
  const TextBatches batches(text);

  // The same code on a device without data: what the run will take, before anything is allocated.
  const Ref<Device> meta = open_cpu(Mode::meta), cpu = open_cpu(Mode::real);
  TrainStep dry(config, *meta);
  Meter meter;
  {
    const MeterScope scope(meter);
    dry.run(0, batches);
  }
  dry.run(1, batches);
  std::printf("%s parameters; predicted: %s at the peak, %s FLOPs a step\n", with_commas(dry.parameters().count()).c_str(),
              human_bytes(meta->allocator().ledger().peak).c_str(), with_commas(meter.total().matmul).c_str());

  TrainStep training(config, *cpu);
  double first = 0, last = 0;
  for (int64_t i = 0; i < steps; ++i) {
    last = training.run(i, batches).loss;
    if (i == 0) first = last;
    if (i % 20 == 0 || i + 1 == steps) std::printf("step %4lld  loss %.4f\n", static_cast<long long>(i), last);
  }
  const int64_t predicted = meta->allocator().ledger().peak, measured = cpu->allocator().ledger().peak;
  std::printf("measured: %s at the peak, which is %s\n", human_bytes(measured).c_str(),
              predicted == measured ? "what was predicted" : "not what was predicted");
  std::printf("%s\n", write_text(*training.decoder(), *cpu, text.substr(0, 8), config.model.max_seq_len - 1).c_str());
  return predicted == measured && last < first ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    const int64_t steps = argc > 1 ? std::atoll(argv[1]) : 200;
    check_as(Failure::usage, steps >= 2, "tiny_gpt: STEPS must be a number of at least 2");
    const std::string text =
        argc > 2 ? read_file(argv[2], int64_t(1) << 30) : "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ";
    check_as(Failure::usage, text.size() >= 8, "tiny_gpt: the text must have at least 8 bytes");
    return run(steps, text);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
