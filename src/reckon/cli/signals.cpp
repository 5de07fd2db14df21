// cli/signals: a CPU whose kernels are looked at as they finish, before anybody writes over their results; gradients come by hooks of
// nodes.
#include "reckon/cli/signals.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "reckon/backend/cpu/device.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/dropout.h"
#include "reckon/train/batch.h"

namespace reckon {
namespace {
// Takes no memory of the device: what is not contiguous is copied to the host.
Moments moments_of(const Tensor& t) {
  Moments m;
  double sum = 0, squares = 0;
  const std::vector<double> copy = t.is_contiguous() ? std::vector<double>() : t.to_vector();
  const auto value = [&](int64_t i) { return copy.empty() ? cpu::load_float(t.dtype(), t.raw(), i) : copy[size_t(i)]; };
  for (int64_t i = 0; i < t.numel(); ++i) {
    const double v = value(i);
    if (!std::isfinite(v)) {
      ++m.bad;
      continue;
    }
    sum += v;
    m.max_abs = std::max(m.max_abs, std::abs(v));
  }
  m.count = t.numel() - m.bad;
  if (m.count == 0) return m;
  m.mean = sum / double(m.count);
  for (int64_t i = 0; i < t.numel(); ++i)
    if (const double v = value(i); std::isfinite(v)) squares += (v - m.mean) * (v - m.mean);
  m.variance = squares / double(m.count);
  return m;
}

// Addresses for exactly as many bytes as the dry run said.
class Pages final : public RawMemory {
 public:
  explicit Pages(int64_t bytes) : bytes_(std::max<int64_t>(bytes, 1)) {
    void* range = mmap(nullptr, size_t(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check_as(Failure::memory, range != MAP_FAILED, "the system refuses {} bytes of addresses: {}", bytes_, std::strerror(errno));
    base_ = static_cast<std::byte*>(range);
  }
  ~Pages() override { munmap(base_, size_t(bytes_)); }
  void grow(int64_t bytes) override { RECKON_ASSERT(bytes <= bytes_); }
  std::byte* base() const override { return base_; }
  int64_t reserved() const override { return bytes_; }

 private:
  int64_t bytes_;
  std::byte* base_ = nullptr;
};

template <int kId>
void run_watched(const KernelArgs& args);
template <int... kIds>
const KernelRow* watched_rows(std::integer_sequence<int, kIds...>) {
  static const std::array<KernelRow, sizeof...(kIds)> rows = {KernelRow{run_watched<kIds>, cpu::kernel_table()[kIds].book}...};
  return rows.data();
}

// Looks at the results of forward kernels that can be differentiated.
class WatchedCpu final : public Device {
 public:
  WatchedCpu(const DeviceProfile& profile, int64_t bytes)
      : Device(profile, Mode::real, new Pages(bytes), watched_rows(std::make_integer_sequence<int, kKernelCount>())) {}
  Ref<Device> open_meta() const override { return open_cpu(Mode::meta, profile()); }
  void copy_in(void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void copy_out(void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
  int64_t count_nonfinite(const void* data, DType dtype, int64_t count) override { return cpu::count_nonfinite(dtype, data, count); }

  void look(int id, const KernelArgs& args) {
    const OpDef& op = *all_ops()[size_t(id)];
    if (context().phase != Phase::forward || !op.vjp) return;
    const size_t first = rows.size();
    const bool is_recorded = tracked(args.in);
    for (size_t i = 0; i < args.out.size(); ++i) {
      if ((op.traits.detached_outputs >> i & 1u) || !is_float(args.out[i].dtype())) continue;
      rows.push_back({module_path(context().module), op.name, args.out[i].shape(), moments_of(args.out[i]), {}});
      if (is_recorded) places[{&op, context().module}].push_back({rows.size() - 1, i});
    }
    if (rows.size() - first < 2) return;
    for (size_t k = first; k < rows.size(); ++k) rows[k].operation += text(", output {}", k - first);
  }

  struct Place {
    size_t row, output;
  };
  std::vector<Signal> rows;
  std::map<std::pair<const OpDef*, uint32_t>, std::vector<Place>> places;  // of calls that make a node, in their order
};

template <int kId>
void run_watched(const KernelArgs& args) {
  cpu::kernel_table()[kId].run(args);
  static_cast<WatchedCpu&>((args.in.empty() ? args.out : args.in)[0].device()).look(kId, args);
}

// Every node behind a result, oldest first.
std::vector<Node*> nodes_behind(const Tensor& result) {
  std::vector<Node*> found, open;
  std::set<Node*> known;
  const auto reach = [&](Node* node) {
    if (node && known.insert(node).second) open.push_back(node);
  };
  reach(node_of(result));
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    found.push_back(node);
    for (const Edge& edge : node->next_functions()) reach(edge.node.get());
  }
  std::sort(found.begin(), found.end(), [](const Node* a, const Node* b) { return a->sequence() < b->sequence(); });
  return found;
}

// The rows of one node's outputs.
struct Watched {
  std::vector<Signal>* rows;
  std::vector<WatchedCpu::Place> places;
};
void note_gradients(const Node&, Tensors& dy, void* user) {
  const Watched& w = *static_cast<Watched*>(user);
  for (const WatchedCpu::Place& place : w.places)
    if (dy[place.output].defined()) (*w.rows)[place.row].gradient = moments_of(dy[place.output]);
}

// Calls of one operation in one module are recorded in the order they ran in, so the n-th node is the n-th call that makes one.
void watch_gradients(const Tensor& loss, WatchedCpu& device, std::deque<Watched>& watched) {
  std::map<std::pair<const OpDef*, uint32_t>, size_t> next;
  for (Node* node : nodes_behind(loss)) {
    const std::pair<const OpDef*, uint32_t> key{&node->op(), node->module()};
    const auto at = device.places.find(key);
    if (at == device.places.end()) continue;  // a view
    Watched w{&device.rows, {}};
    const std::vector<WatchedCpu::Place>& all = at->second;
    size_t& i = next[key];
    do w.places.push_back(all.at(i));  // one output after another, until the next call begins
    while (++i < all.size() && all[i].output > w.places.back().output);
    watched.push_back(std::move(w));
    node->add_hook(note_gradients, &watched.back());
  }
}

// The forward pass of a fresh model, in phase forward, and what has to live until backward is done.
struct Run {
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<Cruncher> cruncher;
  TokenBatch batch;
  Tensor draws, loss;

  Run(const Config& c, Device& device) {
    const uint64_t seed = uint64_t(c.seed);
    const PhaseScope phase(device, Phase::init);
    const DType dtype = dtype_of(c.train.precision);
    const StorageOptions storage{.dtype = dtype, .master = dtype == DType::f16};
    if (c.model.cruncher) {
      cruncher = std::make_unique<Cruncher>(c.model);
      cruncher->parameters().materialize(device, storage, seed);
      const Tensor x = empty(device, {{c.train.micro_batch, c.model.d_model}, dtype});
      fill_normal_(x, seed + 1);
      const Tensor y = mean(x, {1}, true);
      const PhaseScope forward(device, Phase::forward);
      loss = cruncher->loss(x, y);
      return;
    }
    decoder = std::make_unique<Decoder>(c.model);
    decoder->parameters().materialize(device, storage, seed);
    if (c.model.dropout > 0) {
      decoder->set_dropout(draws = make_dropout_draws(device));
      write_dropout_draws(draws, seed, 0, 0);
    }
    batch = TokenBatch(device, c.train.micro_batch, c.train.seq_len);
    batch.load(SyntheticBatches(c.model.vocab, seed), 0, c.train.micro_batch);
    const PhaseScope forward(device, Phase::forward);
    loss = decoder->loss(batch.inputs(), batch.targets());
  }
};

void run_backward(Device& device, const Tensor& loss) {
  const PhaseScope phase(device, Phase::backward);
  const NoGrad guard;
  backward(loss);
}
Signals watch_backward(WatchedCpu& device, const Tensor& loss) {
  std::deque<Watched> watched;
  watch_gradients(loss, device, watched);
  run_backward(device, loss);
  return {loss.item(), std::move(device.rows)};
}
}  // namespace

int64_t signals_bytes(const Config& config) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Run run(config, *meta);
  run_backward(*meta, run.loss);
  return meta->allocator().ledger().extent;
}

Signals measure_signals(const Config& config) {
  const Ref<Device> device(new WatchedCpu(local_cpu_profile(), signals_bytes(config)));
  const Run run(config, *device);
  return watch_backward(static_cast<WatchedCpu&>(*device), run.loss);
}

Signals measure_signals(Tensor (*loss)(Device& device, void* user), void* user) {
  const auto forward = [&](Device& device) {
    const PhaseScope phase(device, Phase::forward);
    return loss(device, user);
  };
  const Ref<Device> meta = open_cpu(Mode::meta);
  run_backward(*meta, forward(*meta));
  const Ref<Device> device(new WatchedCpu(local_cpu_profile(), meta->allocator().ledger().extent));
  return watch_backward(static_cast<WatchedCpu&>(*device), forward(*device));
}

std::vector<LayerSignal> measure_layer(int64_t in, int64_t out, uint64_t seed) {
  constexpr int64_t kRows = 256;
  struct Rule {
    const char* name;
    Init init;
  };
  const Rule rules[] = {{"normal, std 1", {Init::normal, 1, 1}},
                        {"normal, std 1/sqrt(in)", {Init::normal, 1 / std::sqrt(double(in)), 1}},
                        {"normal, std 0.02 (GPT-2)", {Init::normal, 0.02, 1}},
                        {"xavier", {Init::xavier, 0, 1}},
                        {"kaiming", {Init::kaiming, 0, 1}},
                        {"trunc_normal, std 0.02", {Init::trunc_normal, 0.02, 1}}};
  const Ref<Device> device = open_cpu(Mode::real);
  const Tensor x = empty(*device, {{kRows, in}, DType::f32}), dy = empty(*device, {{kRows, out}, DType::f32});
  fill_normal_(x, seed + 1);
  fill_normal_(dy, seed + 2);
  std::vector<LayerSignal> rows;
  for (const Rule& rule : rules) {
    Parameters parameters;
    const Parameter& w = parameters.declare("weight", {out, in}, rule.init, true);
    parameters.materialize(*device, {.training = false}, seed);
    Tensor leaf = x.detached();
    leaf.set_requires_grad();
    const Tensor y = linear(leaf, w.value);
    backward(y, dy);
    LayerSignal s{rule.name, init_std(rule.init, out, in)};
    s.output_variance = double(in) * s.std * s.std;
    s.gradient_variance = double(out) * s.std * s.std;
    s.output = moments_of(y), s.gradient = moments_of(leaf.grad());
    rows.push_back(std::move(s));
  }
  return rows;
}
}  // namespace reckon
