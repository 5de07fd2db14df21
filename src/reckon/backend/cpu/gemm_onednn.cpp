// backend/cpu/gemm_onednn: the only file of the multiplication that includes oneDNN. Primitives are compiled once per shape and kept.
#include "reckon/backend/cpu/gemm_onednn.h"

#include <omp.h>

#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <string>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/gemm_packed.h"

namespace reckon::cpu {
namespace {
using dnnl::memory;
constexpr size_t kMaxCached = 512;  // shapes; a training step has a few dozen

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

memory::data_type data_type(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return memory::data_type::bf16;
    case DType::f16:
      return memory::data_type::f16;
    default:
      return memory::data_type::f32;
  }
}

// oneDNN asks OpenMP for its number of threads when a primitive is created: one, so that running it never forks.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;

 private:
  int threads_;
};

class Block final : public OnednnBlock {
 public:
  Block(const dnnl::matmul::primitive_desc& desc, bool bias) : desc_(desc), primitive_(desc), bias_(bias) {}

  void run(const void* a, const void* b, void* c, const void* bias, void* scratch) const override {
    const auto bind = [](const memory::desc& desc, const void* data) { return memory(desc, engine(), const_cast<void*>(data)); };
    std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, bind(desc_.src_desc(), a)},
                                              {DNNL_ARG_WEIGHTS, bind(desc_.weights_desc(), b)},
                                              {DNNL_ARG_DST, bind(desc_.dst_desc(), c)},
                                              {DNNL_ARG_SCRATCHPAD, bind(desc_.scratchpad_desc(), scratch)}};
    if (bias_) arguments.emplace(DNNL_ARG_BIAS, bind(desc_.bias_desc(), bias));
    RECKON_COUNT_MATMUL(2 * desc_.dst_desc().dims()[0] * desc_.dst_desc().dims()[1] * desc_.src_desc().dims()[1]);
    if (bias_) RECKON_COUNT_VECTOR(desc_.dst_desc().dims()[0] * desc_.dst_desc().dims()[1]);
    dnnl::stream stream(engine());
    primitive_.execute(stream, arguments);
  }

 private:
  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul primitive_;
  bool bias_;
};

dnnl::matmul::primitive_desc describe(const OnednnSpec& s) {
  const memory::desc a({s.m, s.k}, data_type(s.ab), memory::dims{s.k, 1}), c({s.m, s.n}, data_type(s.c), memory::dims{s.n, 1});
  const memory::desc b({s.k, s.n}, data_type(s.ab), s.trans_b ? memory::dims{1, s.k} : memory::dims{s.n, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const memory::desc bias({1, s.n}, data_type(s.bias_dtype), memory::dims{s.n, 1});
  const auto desc = s.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  return {desc, attributes, engine(), /*allow_empty=*/true};
}

Ref<const OnednnBlock> compile(const OnednnSpec& spec) {
  const OneThread one_thread;
  const dnnl::matmul::primitive_desc desc = describe(spec);
  if (!desc) return {};
  const bool admitted = std::string(desc.impl_info_str()).starts_with("brg") && desc.scratchpad_desc().get_size() <= size_t(kLaneBytes);
  return admitted ? Ref<const OnednnBlock>(new Block(desc, spec.bias)) : Ref<const OnednnBlock>();
}

struct Cached {
  Ref<const OnednnBlock> block;
  uint64_t last_use = 0;
};
struct Cache {
  std::mutex mutex;
  std::map<OnednnSpec, Cached> blocks;
  uint64_t uses = 0;
};
}  // namespace

bool onednn_has_matrix_registers() {
  constexpr int kAmx = int(dnnl::cpu_isa::avx512_core_amx);  // a set of bits
  static const bool answer = (int(dnnl::get_effective_cpu_isa()) & kAmx) == kAmx;
  return answer;
}

Ref<const OnednnBlock> onednn_block(const OnednnSpec& spec) {
  static Cache& cache = *new Cache;  // never destroyed: oneDNN's own statics may go first
  const std::lock_guard lock(cache.mutex);
  auto found = cache.blocks.find(spec);
  if (found == cache.blocks.end()) {
    if (cache.blocks.size() >= kMaxCached) {
      auto oldest = cache.blocks.begin();
      for (auto it = cache.blocks.begin(); it != cache.blocks.end(); ++it)
        if (it->second.last_use < oldest->second.last_use) oldest = it;
      cache.blocks.erase(oldest);
    }
    found = cache.blocks.emplace(spec, Cached{compile(spec)}).first;
  }
  found->second.last_use = ++cache.uses;
  return found->second.block;
}
}  // namespace reckon::cpu
