// plan/conventions: the formulas in use for the FLOPs of a training step, beside the exact count of the dry run. Each gives another MFU for
// the same run; none of them is used anywhere else.
#pragma once
#include "reckon/plan/run_plan.h"

namespace reckon {

/// What the formulas take of a model and its sequence length.
struct ConventionSizes {
  double parameters = 0;      // all, a tied head once
  double token_table = 0;     // parameters of the token embedding
  double position_table = 0;  // 0 without learned positions
  bool tied_head = true;
  double layers = 0, heads = 0, head_dim = 0, d_model = 0, seq_len = 0;
};
ConventionSizes convention_sizes(const Config& config);

struct FlopConvention {
  const char* name;     // "nanogpt"
  const char* formula;  // of the FLOPs per token
  const char* source;   // where it is stated
  double flops_per_token = 0;
  double flops_per_step = 0;
  double ratio = 0;  // to the exact count
};

/// 6N, Kaplan, PaLM, nanoGPT, llm.c, torchtitan, and last the exact causal count.
/// exact_flops_per_step: Flops::model of one optimizer step; tokens_per_step: of the same step.
std::vector<FlopConvention> flop_conventions(const ConventionSizes& sizes, double exact_flops_per_step, double tokens_per_step);
/// Of a planned run.
std::vector<FlopConvention> flop_conventions(const RunPlan& plan);
/// The utilization that a convention claims for a step of this time on devices of this peak together.
double claimed_mfu(const FlopConvention& convention, double step_seconds, double peak_flops_per_second);
/// Tokens of one optimizer step (the cruncher: samples).
int64_t tokens_per_step(const Config& config);
}  // namespace reckon
