// cli/eval: reckon eval run.dir=DIR [data.path=FILE] [--batches N] [--json]
#include <cmath>
#include <cstdio>
#include <numbers>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/io/json.h"
#include "reckon/train/run_data.h"
#include "reckon/train/saved_run.h"

namespace reckon {
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
  check_as(Failure::usage, data.validation != nullptr, "data.path {} has no validation data: data.validation_fraction {} leaves less than {} tokens",
           model.config.data.path, model.config.data.validation_fraction, model.config.train.seq_len + 1);
  const int64_t micro_batch = model.config.train.micro_batch, seq_len = model.config.train.seq_len;
  TokenBatch batch(*device, micro_batch, seq_len, document_bounds(model.config));
  const double loss = mean_loss(*model.decoder, batch, *data.validation, data.validation_windows, model.config.train);
  const int64_t tokens = data.validation_windows * seq_len;
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
    j.key("batches").integer((data.validation_windows + micro_batch - 1) / micro_batch);
    j.key("tokens").integer(tokens);
    j.key("checkpoint").string(model.checkpoint);
    j.end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
    return 0;
  }
  std::printf("validation loss %.4f nats per token, perplexity %.2f", loss, std::exp(loss));
  if (std::isfinite(bits)) std::printf(", %.3f bits per byte", bits);
  std::printf("\n%s of %s, %s\n", counted(tokens, "token").c_str(), model.config.data.path.c_str(), model.checkpoint.c_str());
  return 0;
}
}  // namespace reckon
