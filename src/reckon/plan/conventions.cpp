#include "reckon/plan/conventions.h"

namespace reckon {
namespace {
struct Formula {
  const char* name;
  const char* formula;
  const char* source;
  double (*per_token)(const ConventionSizes&);
};

// Scores and weighted values, forward and backward, as if every token looked at all T: 12 L H Q T.
double full_attention(const ConventionSizes& s) { return 12 * s.layers * s.heads * s.head_dim * s.seq_len; }

constexpr Formula kFormulas[] = {
    {"6n", "6 N", "N: all parameters; Hoffmann et al. 2022, arXiv:2203.15556", [](const ConventionSizes& s) { return 6 * s.parameters; }},
    {"kaplan", "6 (N - tables)", "N without tables and head; Kaplan et al. 2020, arXiv:2001.08361, section 2.1",
     [](const ConventionSizes& s) { return 6 * (s.parameters - (s.tied_head ? 1 : 2) * s.token_table - s.position_table); }},
    {"palm", "6 N + 12 L H Q T", "Chowdhery et al. 2022, arXiv:2204.02311, appendix B",
     [](const ConventionSizes& s) { return 6 * s.parameters + full_attention(s); }},
    {"nanogpt", "6 (N - positions) + 12 L H Q T", "karpathy/nanoGPT, model.py, estimate_mfu; Q = d / H",
     [](const ConventionSizes& s) { return 6 * (s.parameters - s.position_table) + 12 * s.layers * s.d_model * s.seq_len; }},
    {"llm.c", "6 N + 6 L C T", "karpathy/llm.c, train_gpt2.cu, gpt2_estimate_mfu; C = d",
     [](const ConventionSizes& s) { return 6 * s.parameters + 6 * s.layers * s.d_model * s.seq_len; }},
    {"torchtitan", "6 (N - untied tables) + 12 L H Q T",
     "pytorch/torchtitan, torchtitan/models/utils.py; a table shared with the head counts",
     [](const ConventionSizes& s) {
       return 6 * (s.parameters - (s.tied_head ? 0 : s.token_table) - s.position_table) + full_attention(s);
     }},
};
}  // namespace

ConventionSizes convention_sizes(const Config& config) {
  const ModelConfig& m = config.model;
  ConventionSizes s;
  s.parameters = double(parameter_count(m));
  if (m.cruncher) return s;  // no tables, no attention
  s.token_table = double(m.vocab) * double(m.d_model);
  s.position_table = m.position == PositionKind::learned ? double(m.max_seq_len) * double(m.d_model) : 0;
  s.tied_head = m.tied_head;
  s.layers = double(m.layers);
  s.heads = double(m.heads);
  s.head_dim = double(m.head_dim);
  s.d_model = double(m.d_model);
  s.seq_len = double(config.train.seq_len);
  return s;
}

int64_t tokens_per_step(const Config& config) {
  return checked_multiply(checked_multiply(config.train.micro_batch, config.train.grad_accum),
                          config.model.cruncher ? 1 : config.train.seq_len);
}

std::vector<FlopConvention> flop_conventions(const ConventionSizes& sizes, double exact_flops_per_step, double tokens_per_step) {
  std::vector<FlopConvention> rows;
  const auto add = [&](const char* name, const char* formula, const char* source, double per_token) {
    rows.push_back({name, formula, source, per_token, per_token * tokens_per_step, per_token * tokens_per_step / exact_flops_per_step});
  };
  for (const Formula& f : kFormulas) add(f.name, f.formula, f.source, f.per_token(sizes));
  add("exact", "sum over the calls of a step", "the dry run: causal pairs only, no gradient that nobody wants; docs/flops.md",
      exact_flops_per_step / tokens_per_step);
  return rows;
}

std::vector<FlopConvention> flop_conventions(const RunPlan& plan) {
  check(plan.predicted.flops_per_step.has_value(), "the plan has no FLOPs");
  return flop_conventions(convention_sizes(plan.config), double(plan.predicted.flops_per_step->model),
                          double(tokens_per_step(plan.config)));
}

double claimed_mfu(const FlopConvention& convention, double step_seconds, double peak_flops_per_second) {
  check_as(Failure::usage, step_seconds > 0 && peak_flops_per_second > 0, "a utilization needs a step time and a peak above 0");
  return convention.flops_per_step / step_seconds / peak_flops_per_second;
}
}  // namespace reckon
