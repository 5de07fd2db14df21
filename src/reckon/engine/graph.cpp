#include "reckon/engine/graph.h"

#include <algorithm>
#include <map>
#include <set>

#include "reckon/base/text.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
struct Costs {
  int64_t output = 0, kept = 0, flops = -1;  // flops -1: unknown
  std::string kept_how;                      // " (1 recomputed)"
};

class Graph {
 public:
  Graph(const Tensor& root, const GraphNames& names) : names_(names) {
    check(root.defined() && node_of(root), "print_graph: {} is not the result of a recorded operation", root);
    std::vector<const Node*> open{node_of(root)};
    std::map<uint64_t, const Node*> found{{node_of(root)->sequence(), node_of(root)}};
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      node->check_usable();
      for (const Edge& edge : node->next_functions())
        if (edge.node && found.emplace(edge.node->sequence(), edge.node.get()).second) open.push_back(edge.node.get());
    }
    for (const auto& [sequence, node] : found) {
      number_[node] = nodes_.size();
      nodes_.push_back(node);
      for (const Edge& edge : node->next_functions())
        if (edge.leaf.defined()) name_leaf(edge.leaf);
    }
  }

  std::string as_text() {
    std::string lines;
    for (size_t i = nodes_.size(); i-- > 0;) {
      const Node& node = *nodes_[i];
      lines += text("#{} {}  {}", i, title(node), facts(node, "  "));
      std::string from;
      for (const Edge& edge : node.next_functions()) from += (from.empty() ? "" : ", ") + source(edge);
      lines += "  <- " + from + "\n";
    }
    return lines + total() + "\n";
  }

  std::string as_dot() {
    std::string lines = "digraph reckon {\n  node [shape=box, fontname=\"monospace\"];\n";
    for (size_t i = 0; i < leaves_.size(); ++i)
      lines += text("  leaf{} [label=\"{}\\n{}\", shape=ellipse, style=filled, fillcolor=lightgray];\n", i, escaped(leaves_[i].first),
                    to_string(leaves_[i].second));
    for (size_t i = 0; i < nodes_.size(); ++i)
      lines += text("  n{} [label=\"{}\\n{}\"];\n", i, escaped(title(*nodes_[i])), facts(*nodes_[i], "\\n"));
    for (size_t i = 0; i < nodes_.size(); ++i)
      for (const Edge& edge : nodes_[i]->next_functions()) {
        if (edge.leaf.defined()) lines += text("  leaf{} -> n{};\n", leaf_number(edge.leaf), i);
        if (edge.node) lines += text("  n{} -> n{};\n", number_.at(edge.node.get()), i);
      }
    return lines + text("  label=\"{}\";\n}}\n", total());
  }

 private:
  void name_leaf(const Tensor& leaf) {
    if (std::any_of(leaves_.begin(), leaves_.end(), [&](const auto& known) { return known.second.ref() == leaf.ref(); })) return;
    std::string name = text("leaf {}", leaves_.size());
    for (const auto& [given, tensor] : names_)
      if (tensor.ref() == leaf.ref()) name = given;
    leaves_.emplace_back(name, leaf);
  }
  size_t leaf_number(const Tensor& leaf) const {
    return size_t(std::find_if(leaves_.begin(), leaves_.end(), [&](const auto& known) { return known.second.ref() == leaf.ref(); }) -
                  leaves_.begin());
  }
  std::string source(const Edge& edge) const {
    if (edge.leaf.defined()) return leaves_[leaf_number(edge.leaf)].first;
    if (!edge.node) return "-";
    const std::string number = text("#{}", number_.at(edge.node.get()));
    return edge.node->out_specs().size() > 1 ? text("{}.{}", number, edge.output) : number;
  }
  static std::string title(const Node& node) {
    const std::string module = module_path(node.module());
    return node.name() + (module.empty() ? "" : " [" + module + "]");
  }
  static std::string escaped(const std::string& s) {
    std::string out;
    for (const char c : s) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out;
  }

  // The forward call's plan, made again from what the node knows of it.
  static int64_t flops_of(const Node& node) {
    Plan plan(node.params(), node.device().profile());
    plan.in = node.in_specs();
    node.op().plan(plan);
    if (plan.out.empty() && !node.out_specs().empty()) return -1;
    if (node.op().id >= 0)
      if (const auto book = node.device().kernel(node.op().id).book) book(plan);
    return checked_sum({plan.flops.matmul, plan.flops.vector});
  }

  Costs costs(const Node& node) {
    Costs c;
    for (const TensorSpec& spec : node.out_specs()) c.output += spec.bytes();
    c.flops = flops_of(node);
    std::set<const Storage*> mine;
    int remade = 0, packed = 0;
    for (const Node::KeptTensor& kept : node.kept_tensors()) {
      remade += kept.is_remade;
      packed += kept.is_packed;
      if (kept.is_packed) {
        c.kept += kept.packed_bytes;
        packed_ += kept.packed_bytes;
      }
      if (!kept.tensor.defined() || is_parameter(node, kept)) continue;
      const Storage& storage = kept.tensor.storage();
      if (mine.insert(&storage).second) c.kept += storage.block().requested;
      storages_.insert(&storage);
    }
    if (remade) c.kept_how += text(", {} recomputed", remade);
    if (packed) c.kept_how += text(", {} packed", packed);
    return c;
  }
  // Trained or frozen: it lives on without the graph.
  static bool is_parameter(const Node& node, const Node::KeptTensor& kept) {
    if (kept.tensor.storage().block().category == Category::parameter) return true;
    return !kept.is_output && !kept.is_other && node.next_functions()[kept.index].leaf.defined();
  }
  std::string facts(const Node& node, const char* between) {
    const Costs c = costs(node);
    std::string outputs;
    for (const TensorSpec& spec : node.out_specs()) outputs += (outputs.empty() ? "" : " ") + to_string(spec);
    flops_ += std::max<int64_t>(c.flops, 0);
    return text("{} = {}{}keeps {}{}{}{}", outputs, human_bytes(c.output), between, human_bytes(c.kept), c.kept_how, between,
                c.flops < 0 ? "- FLOPs" : counted(c.flops, "FLOP"));
  }
  std::string total() const {
    int64_t bytes = packed_;
    for (const Storage* s : storages_) bytes += s->block().requested;
    return text("{}, {}; kept for backward: {}; forward: {}", counted(int64_t(nodes_.size()), "node"),
                leaves_.size() == 1 ? "1 leaf" : text("{} leaves", leaves_.size()), human_bytes(bytes), counted(flops_, "FLOP"));
  }

  const GraphNames& names_;
  std::vector<const Node*> nodes_;  // in the order of their calls
  std::map<const Node*, size_t> number_;
  GraphNames leaves_;
  std::set<const Storage*> storages_;
  int64_t packed_ = 0, flops_ = 0;
};
}  // namespace

std::string print_graph(const Tensor& root, GraphFormat format, const GraphNames& names) {
  Graph graph(root, names);
  return format == GraphFormat::text ? graph.as_text() : graph.as_dot();
}
}  // namespace reckon
