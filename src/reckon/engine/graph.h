// engine/graph: a recorded graph as text or for Graphviz, with what each of its nodes costs.
#pragma once
#include "reckon/engine/node.h"

namespace reckon {

enum class GraphFormat : uint8_t { text, dot };
/// What leaves are called.
using GraphNames = std::vector<std::pair<std::string, Tensor>>;

/// The graph behind a result, numbered from its leaves' side: a line a node, the result's first, with its operation, module, outputs, their
/// bytes, the bytes that the node keeps for backward, the work of the call by its plan (matmul and vector FLOPs, "-" for a segment or a
/// function, whose operations are not recorded), and where its inputs come from. Kept bytes are those of storages, without leaves that
/// require a gradient, which live anyhow; the last line has each storage once. Leaves are named by `names`, else by the order in which they
/// are met. Depends on shapes and calls alone: the same on meta. GraphFormat::dot: the same for `dot -Tsvg`, edges as data flows.
/// Throws Error if the tensor is not the result of a recorded operation.
std::string print_graph(const Tensor& root, GraphFormat format = GraphFormat::text, const GraphNames& names = {});
}  // namespace reckon
