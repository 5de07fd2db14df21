// cli/generate: reckon generate run.dir=DIR [--prompt TEXT] [--tokens N] [--temperature X] [--top-k K] [--top-p P] [seed=N] [--json]
#include "reckon/train/generate.h"

#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/stop.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/data/token_file.h"
#include "reckon/io/json.h"

namespace reckon {
namespace {
struct Output {
  StreamDecoder decoder;
  bool print;
  std::string text;
  static bool push(void* user, int32_t token) {
    Output& o = *static_cast<Output*>(user);
    o.write(o.decoder.push(token));
    return !stop_requested() && !std::ferror(stdout);
  }
  void write(const std::string& piece) {
    text += piece;
    if (!print) return;
    std::fputs(piece.c_str(), stdout);
    std::fflush(stdout);
  }
};
}  // namespace

int run_generate(const CommandLine& line) {
  line.no_words();
  const Config named = line.run_named();
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel model = load_model(named.run_dir, line.overrides, *device);
  const std::string& trained_on = model.config.data.path;
  check_as(Failure::usage,
           model.config.model.vocab == 256 || model.tokenizer->kind() != "bytes" || !path_exists(trained_on) || !is_token_file(trained_on),
           "{} was trained on the token ids of {} without their tokenizer, so there is no text for them: train with "
           "data.tokenizer=tokenizer.json",
           named.run_dir, trained_on);
  const std::string prompt = line.prompt.empty() ? "\n" : line.prompt;
  const std::vector<int32_t> ids = model.tokenizer->encode(prompt);
  const SamplingOptions sampling{line.temperature, line.top_k, line.top_p, uint64_t(named.seed)};
  const KeepWorking until_the_token_is_out;
  Output output{StreamDecoder(model.tokenizer), !line.json, {}};
  // A prompt of any bytes goes to a terminal as it is; JSON holds text only, so there it passes through the decoder as well.
  if (line.json) {
    for (const int32_t id : line.prompt.empty() ? std::vector<int32_t>() : ids) output.write(output.decoder.push(id));
  } else {
    output.write(line.prompt);
  }
  const GenerationResult result = generate(model, *device, ids, line.tokens, sampling, Output::push, &output);
  output.write(output.decoder.finish());
  if (!line.json) {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (result.token_seconds > 0)
      std::fprintf(stderr, "%s, %.0f tokens/s; %s\n", counted(result.tokens, "token").c_str(), double(result.tokens) / result.token_seconds,
                   model.checkpoint.c_str());
    return stop_requested() ? int(Failure::interrupted) : 0;
  }
  JsonWriter j(true);
  j.begin_object();
  j.key("text").string(output.text);
  j.key("tokens").integer(result.tokens);
  j.key("prompt_tokens").integer(int64_t(ids.size()));
  j.key("prompt_seconds").number(result.prompt_seconds);
  j.key("token_seconds").number(result.token_seconds);
  j.key("checkpoint").string(model.checkpoint);
  j.end_object();
  std::fputs((j.str() + "\n").c_str(), stdout);
  return stop_requested() ? int(Failure::interrupted) : 0;
}
}  // namespace reckon
