// plan/why: the terms behind a number of a plan: which blocks make up the bytes of a category, module or operation at the peak, and which
// calls its FLOPs.
#pragma once
#include "reckon/plan/run_plan.h"

namespace reckon {

/// Blocks at the peak that agree in everything but the numbers in their module path ("blocks.*.mlp").
struct ByteTerm {
  Category category;
  std::string module, op;
  std::string shape;  // "f32[8, 128, 768]"; "" for scratch and for what was made before the first step
  int64_t block_bytes = 0;
  int64_t blocks = 0;
  int64_t bytes() const { return block_bytes * blocks; }
};

/// Calls of one step that agree in everything but the numbers in their module path.
struct FlopTerm {
  Phase phase;
  std::string module, op;
  std::string shapes;  // of the inputs: "f32[1024, 768] f32[3072, 768]"
  bool recomputed = false;
  int64_t calls = 0;
  Flops each;
};

struct Explanation {
  std::string of;               // "category activation", "module head", "operation gelu"
  std::vector<ByteTerm> bytes;  // largest first
  std::vector<FlopTerm> flops;  // most first; empty for a category
  int64_t total_bytes = 0;
  Flops total_flops;
};

/// `word` names a category, else an operation, else a module (with everything below it). Throws Error (usage), with the nearest name, if it
/// is none of them.
Explanation explain(const RunPlan& plan, std::string_view word);
/// For people: a line a term, with the sum.
std::string to_string(const Explanation& explanation);
}  // namespace reckon
