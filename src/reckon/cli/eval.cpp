// cli/eval: reckon eval run.dir=DIR [data.path=FILE] [--batches N] [--json]
#include <cmath>
#include <cstdio>
#include <numbers>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/train/run_data.h"
#include "reckon/train/saved_run.h"

namespace reckon {
namespace {
// Mean loss over the batches, on a model without gradients.
double evaluate(const LoadedModel& model, Device& device, const BatchSource& source, int64_t batches) {
  const NoGrad guard;
  const int64_t B = model.config.train.micro_batch, T = model.config.train.seq_len;
  Tensor inputs, targets;
  {
    const CategoryScope data(Category::data);
    inputs = zeros(device, {{B, T}, DType::i32});
    targets = zeros(device, {{B, T}, DType::i32});
  }
  std::vector<int32_t> host_inputs(size_t(B * T)), host_targets(size_t(B * T));
  double sum = 0;
  for (int64_t i = 0; i < batches; ++i) {
    source.fill(i * B, B, T, host_inputs.data(), host_targets.data());
    inputs.write(host_inputs.data(), inputs.spec().bytes());
    targets.write(host_targets.data(), targets.spec().bytes());
    const PhaseScope phase(device, Phase::eval);
    sum += model.decoder->loss(inputs, targets).item();
  }
  return sum / double(batches);
}
}  // namespace

int run_eval(const CommandLine& line) {
  line.no_words();
  const Ref<Device> device = open_cpu(Mode::real);
  LoadedModel model = load_model(line.run_named().run_dir, line.overrides, *device);
  check_as(Failure::usage, !model.config.data.path.empty(),
           "the run was trained on synthetic data; name a text or token file with data.path=FILE");
  check_as(Failure::usage, !line.overrides_key("data.tokenizer"), "a trained model brings its own tokenizer: leave data.tokenizer out");
  // bpe:N would train another tokenizer if data.path names another text.
  if (model.tokenizer->kind() != "bytes") model.config.data.tokenizer = join_path(model.config.run_dir, kRunTokenizer);
  model.config.eval.batches = line.batches > 0 ? line.batches : INT64_MAX;
  const RunData data = open_run_data(model.config, model.config.run_dir, false);
  check_as(Failure::usage, data.validation != nullptr,
           "data.path {} has no validation data: data.validation_fraction {} leaves less than {} tokens", model.config.data.path,
           model.config.data.validation_fraction, model.config.train.seq_len + 1);
  const double loss = evaluate(model, *device, *data.validation, data.validation_batches);
  const double bits = data.validation_bytes_per_token > 0 ? loss / std::numbers::ln2 / data.validation_bytes_per_token : NAN;
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("loss").begin_object();
    j.key("train").null();
    j.key("validation").number(loss);
    j.key("bits_per_byte").number(bits);
    j.end_object();
    j.key("perplexity").number(std::exp(loss));
    j.key("batches").integer(data.validation_batches);
    j.key("tokens").integer(data.validation_batches * model.config.train.micro_batch * model.config.train.seq_len);
    j.key("checkpoint").string(model.checkpoint);
    j.end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return 0;
  }
  std::printf("validation loss %.4f nats per token, perplexity %.2f", loss, std::exp(loss));
  if (std::isfinite(bits)) std::printf(", %.3f bits per byte", bits);
  std::printf("\n%s of %s, %s\n",
              counted(data.validation_batches * model.config.train.micro_batch * model.config.train.seq_len, "token").c_str(),
              model.config.data.path.c_str(), model.checkpoint.c_str());
  return 0;
}
}  // namespace reckon
