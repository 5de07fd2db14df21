// engine/node: one recorded call of the graph. A node keeps what its row's masks say and no more.
#pragma once
#include "reckon/engine/call.h"

namespace reckon {

class Node;

/// Where the gradient of one input goes: to an earlier node, to a leaf, or nowhere.
struct Edge {
  Ref<Node> node;  // null for leaves and for inputs that need no gradient
  int output = 0;  // which output of node
  Tensor leaf;     // defined for a leaf that requires a gradient
  bool wanted() const { return node || leaf.defined(); }
};

/// Where the gradient of a tensor goes. Holds the graph behind the tensor, but neither the tensor nor its storage.
Edge gradient_edge(const Tensor& tensor);

/// Work that a node carries when its row is not enough: a checkpointed segment, a user's function.
struct NodePayload : RefCounted {};

namespace detail {
class BackwardPass;
/// What is kept in the place of a tensor, see engine/saved_tensors.h.
struct PackedTensor : RefCounted {
  TensorSpec spec;  // of the tensor
  virtual Tensor unpack() const = 0;
  /// Bytes of the packed form, if that is a tensor; else 0.
  virtual int64_t bytes() const { return 0; }
};
}  // namespace detail

class Node : public RefCounted {
 public:
  /// remade: nobody keeps its results for backward; who needs one has it computed again, see Recomputed.
  Node(const OpDef& op, const Params& params, const Tensors& in, const Tensors& out, Ref<NodePayload> payload = {}, bool remade = false)
      : Node(op, params, in, out, std::move(payload), remade, op.keep, op.traits.detached_outputs) {}
  /// One that keeps and detaches otherwise than its row says.
  Node(const OpDef& op, const Params& params, const Tensors& in, const Tensors& out, Ref<NodePayload> payload, bool remade,
       const Keep& keep, uint32_t detached_outputs);
  ~Node() override;

  const OpDef& op() const { return *op_; }
  const char* name() const { return op_->name; }
  const Params& params() const { return params_; }
  uint32_t module() const { return module_; }
  /// Nodes are numbered as they are recorded: a topological order.
  uint64_t sequence() const { return sequence_; }
  /// One edge an input: the node that made it, or the leaf itself.
  const std::vector<Edge>& next_functions() const { return edges_; }
  const std::vector<TensorSpec>& in_specs() const { return in_specs_; }
  const std::vector<TensorSpec>& out_specs() const { return out_specs_; }
  Device& device() const { return *device_; }

  /// Throws Error if backward already released what this node kept.
  void check_usable() const;
  bool is_released() const { return released_; }
  NodePayload* payload() const { return payload_.get(); }

  /// Outputs that carry no gradient.
  uint32_t detached_outputs() const { return detached_outputs_; }

  /// Called with the gradients of the outputs before the node's rule runs; may replace them. engine/hooks.h has hooks that can be removed.
  using Hook = void (*)(const Node& node, Tensors& dy, void* user);
  void add_hook(Hook hook, void* user);
  bool has_hooks() const { return bool(extras_); }

  /// A tensor that is kept beside inputs and outputs, without a gradient; its number.
  size_t keep_other(const Tensor& tensor);

  /// What is kept now.
  struct KeptTensor {
    bool is_output = false, is_other = false;
    size_t index = 0;  // of the input or output
    Tensor tensor;     // undefined if it is computed again, or packed
    bool is_remade = false, is_packed = false;
    int64_t packed_bytes = 0;  // of the packed form, if that is a tensor
  };
  std::vector<KeptTensor> kept_tensors() const;

  /// What few nodes have: hooks, where they were called from, other kept tensors. Made on first use.
  struct Extras;
  Extras& extras();
  const Extras* extras_if_any() const;

  /// Forgets kept tensors and edges: backward is done with this node.
  void forget();

 private:
  friend struct Vjp;
  friend bool is_remade(const Tensor& tensor);
  // The tensor itself, or who computes it again: output `remade` of `maker`, or of this node if there is no maker.
  struct Kept {
    Kept() = default;
    Kept(Tensor t, uint64_t v) : tensor(std::move(t)), version(v) {}
    Tensor tensor;
    uint64_t version = 0;
    Ref<Node> maker;
    int remade = -1;
    Ref<detail::PackedTensor> packed;  // instead of the tensor
  };
  static Kept keep(const Tensor& tensor);
  static Kept packed_or_plain(Tensor tensor);
  // Who asks for what was kept: for the last time, once more in this pass, or in a graph that stays.
  enum class Use : uint8_t { last, again, open };
  /// The kept input or output. Throws Error if it was changed in place after it was kept, or if backward already released it.
  Tensor kept(Kept& k, size_t i, const char* what, Use use);
  Tensor unpacked(Kept& k, size_t i, const char* what, Use use);
  Tensor remake(size_t output, Use use);
  Tensors run_again(Use use);
  void leave(size_t output);
  void release_kept();
  /// The tensor as this node's output, so that what is made of it can be differentiated.
  Tensor attached(const Tensor& tensor, int output);

  const OpDef* op_;
  Params params_;
  uint64_t sequence_;
  uint32_t module_;
  uint32_t detached_outputs_;
  bool released_ = false;
  const bool remade_;
  Ref<Device> device_;
  std::vector<TensorSpec> in_specs_, out_specs_;
  std::vector<Kept> in_, out_;
  // Of a remade node, one an output: its version when it was made, how many will still ask for it, and what is there for them.
  std::vector<uint64_t> made_version_;
  std::vector<int> waiting_;
  Tensors again_;
  std::vector<Edge> edges_;
  Ref<RefCounted> extras_;  // Extras
  Ref<NodePayload> payload_;
};

/// TensorState::output_index of a result that is only marked, so that it is told from a leaf: see Context::marking.
inline constexpr int kMarked = -1;
/// The node that made a tensor; null for leaves.
Node* node_of(const Tensor& tensor);
/// True if a node that keeps this tensor holds no data of it, because the node that made it computes it again.
bool is_remade(const Tensor& tensor);

/// What a gradient rule is given. It returns one tensor an input; an undefined one means not needed, or already accumulated in its slot.
struct Vjp {
  Node& node;
  Tensors dy;      // one an output, all defined; may be moved from
  uint32_t needs;  // bit i: the gradient of input i is wanted
  bool last_use;   // the graph is released: kept tensors are moved out, so that the rule's operation may reuse their storage
  bool use_slots;  // gradients may be accumulated into leaves directly
  detail::BackwardPass* pass = nullptr;  // that runs this rule

  bool needs_in(int i) const { return needs >> i & 1u; }
  Tensor in(size_t i);
  /// Part of the graph again while one is recorded (create_graph): a rule that reads its output is differentiated through it.
  Tensor out(size_t i);
  /// What keep_other() kept.
  Tensor other(size_t i);
  template <class T>
  T as() const {
    return node.params().as<T>();
  }
  /// The gradient slot of input i if it is a parameter with one, else undefined. A rule that writes it must call filled(i) after.
  Tensor slot(int i) const;
  /// True if the slot already holds contributions, so that the rule must add to it (beta = 1) instead of overwriting.
  bool slot_filled(int i) const;
  void filled(int i) const;
};
}  // namespace reckon
