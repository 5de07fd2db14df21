#include "reckon/plan/why.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
// "blocks.11.mlp" -> "blocks.*.mlp": layers are alike.
std::string without_numbers(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size();) {
    const size_t dot = std::min(path.find('.', i), path.size());
    const std::string_view part = path.substr(i, dot - i);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
    out += (out.empty() ? "" : ".") + (number ? "*" : std::string(part));
    i = dot + 1;
  }
  return out;
}

bool is_within(std::string_view path, std::string_view module) {
  return path == module || (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.');
}

// Shapes of the blocks that a step makes: outputs of a call are its next allocations. The first and the steady step make the same.
std::map<size_t, std::string> shapes_by_event(const RunPlan& plan) {
  std::map<size_t, std::string> shapes;
  const auto part = [&](std::string_view name) {
    return std::find_if(plan.parts.begin(), plan.parts.end(), [&](const RunPart& p) { return p.name == name; });
  };
  const auto first = part("first step"), steady = part("steady step");
  if (first == plan.parts.end() || steady == plan.parts.end()) return shapes;
  for (const CallRecord& call : plan.calls) {
    size_t event = call.events;
    for (const TensorSpec& spec : call.out) {
      if (event >= steady->end) break;
      const AllocationEvent& e = plan.events[event];
      if (!e.is_alloc || std::string_view(e.op) != call.op->name) break;
      if (e.bytes != round_block(spec.bytes())) continue;  // this output took over the storage of an input
      shapes[event] = shapes[event - steady->begin + first->begin] = to_string(spec);
      ++event;
    }
  }
  return shapes;
}

// What the word names: of an event or call, does it belong?
struct Subject {
  std::string of;
  std::optional<Category> category;
  std::string op, module;
  bool holds(Category c, std::string_view o, uint32_t m) const {
    if (category) return c == *category;
    return op.empty() ? is_within(module_path(m), module) : o == op;
  }
};

Subject subject_of(const RunPlan& plan, std::string_view word) {
  std::vector<std::string> known;
  Subject subject;
  for (int c = 0; c < kCategories; ++c) {
    known.emplace_back(name_of(Category(c)));
    if (known.back() == word) subject = {text("category {}", word), Category(c), "", ""};
  }
  std::set<std::string> ops, modules;
  for (const AllocationEvent& e : plan.events) ops.insert(e.op), modules.insert(module_path(e.module));
  for (const CallRecord& c : plan.calls) ops.insert(c.op->name), modules.insert(module_path(c.module));
  if (subject.of.empty() && ops.contains(std::string(word))) subject = {text("operation {}", word), {}, std::string(word), ""};
  const bool is_module =
      std::any_of(modules.begin(), modules.end(), [&](const std::string& m) { return !m.empty() && is_within(m, word); });
  if (subject.of.empty() && is_module) subject = {text("module {}", word), {}, "", std::string(word)};
  known.insert(known.end(), ops.begin(), ops.end());
  known.insert(known.end(), modules.begin(), modules.end());
  check_as(Failure::usage, !subject.of.empty(),
           "--why takes a category (activation), an operation (gelu) or a module (blocks.0.mlp) of the plan, not '{}'{}",
           printable_line(word), did_you_mean(word, known));
  return subject;
}
}  // namespace

Explanation explain(const RunPlan& plan, std::string_view word) {
  const Subject subject = subject_of(plan, word);
  Explanation out;
  out.of = subject.of;
  const std::map<size_t, std::string> shapes = shapes_by_event(plan);
  std::map<std::tuple<Category, std::string, std::string, std::string, int64_t>, int64_t> blocks;
  for (const size_t i : blocks_at_peak(plan.events)) {
    const AllocationEvent& e = plan.events[i];
    if (!subject.holds(e.category, e.op, e.module)) continue;
    const auto shape = shapes.find(i);
    ++blocks[{e.category, without_numbers(module_path(e.module)), e.op, shape == shapes.end() ? "" : shape->second, e.bytes}];
    out.total_bytes += e.bytes;
  }
  for (const auto& [key, count] : blocks)
    out.bytes.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key), std::get<4>(key), count});
  std::stable_sort(out.bytes.begin(), out.bytes.end(), [](const ByteTerm& a, const ByteTerm& b) { return a.bytes() > b.bytes(); });
  if (subject.category) return out;

  std::map<std::tuple<Phase, std::string, std::string, std::string, bool, int64_t, int64_t>, FlopTerm> calls;
  for (const CallRecord& c : plan.calls) {
    if (!subject.holds(Category::temporary, c.op->name, c.module)) continue;
    if (c.flops == Flops{}) continue;
    std::string in;
    for (const TensorSpec& spec : c.in) in += (in.empty() ? "" : " ") + to_string(spec);
    FlopTerm& term = calls[{c.phase, without_numbers(module_path(c.module)), c.op->name, in, c.recomputed, c.flops.matmul, c.flops.vector}];
    term.phase = c.phase, term.module = without_numbers(module_path(c.module)), term.op = c.op->name, term.shapes = in,
    term.recomputed = c.recomputed;
    term.each = c.flops;
    ++term.calls;
    out.total_flops += c.flops;
  }
  for (auto& [key, term] : calls) out.flops.push_back(std::move(term));
  const auto work = [](const FlopTerm& t) { return double(t.calls) * double(t.each.matmul + t.each.vector); };
  std::stable_sort(out.flops.begin(), out.flops.end(), [&](const FlopTerm& a, const FlopTerm& b) { return work(a) > work(b); });
  return out;
}

std::string to_string(const Explanation& e) {
  std::string lines = text("{}: {} at the peak ({} bytes)\n", e.of, human_bytes(e.total_bytes), with_commas(e.total_bytes));
  for (const ByteTerm& t : e.bytes)
    lines += text("  {:>12} = {:>5} x {:<12} {} {}{}{}  {}\n", human_bytes(t.bytes()), t.blocks, human_bytes(t.block_bytes),
                  name_of(t.category), t.op, t.module.empty() ? "" : " in ", t.module, t.shape);
  if (e.flops.empty()) return lines;
  lines +=
      text("FLOPs of a step: {} in matrix products, {} in vectors\n", with_commas(e.total_flops.matmul), with_commas(e.total_flops.vector));
  for (const FlopTerm& t : e.flops)
    lines += text("  {:>5} x ({} + {}) {} in {} ({}{})  {}\n", t.calls, with_commas(t.each.matmul), with_commas(t.each.vector), t.op,
                  t.module, name_of(t.phase), t.recomputed ? ", recomputed" : "", t.shapes);
  return lines;
}
}  // namespace reckon
