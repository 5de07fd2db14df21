// nn/module: a model as a tree of named parts: their parameters and buffers by dotted paths, training or evaluation, freezing, hooks.
// Values lie in Parameters (nn/parameters.h); a module knows names and what belongs to it, and no operation.
#pragma once
#include <memory>

#include "reckon/engine/context.h"
#include "reckon/nn/parameters.h"

namespace reckon {
struct Edge;
}
namespace reckon::nn {

/// Names and tensors in the order of the modules.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
class StateDict : public std::vector<NamedTensor> {
 public:
  using std::vector<NamedTensor>::vector;
  using std::vector<NamedTensor>::at;
  using std::vector<NamedTensor>::operator[];
  /// state["blocks.0.up.weight"]. Throws Error, with the nearest name, if there is none of this name.
  const Tensor& at(std::string_view name) const;
  const Tensor& operator[](std::string_view name) const { return at(name); }
};

/// State that is not learned: a table, a running statistic.
struct Buffer {
  std::string name;  // the whole dotted name
  TensorSpec spec;
  double fill;
  bool saved;    // part of state_dict()
  Tensor value;  // made by materialize(), category parameter
};

class Module;

/// Sees what a layer is given, or what it gives. An undefined result changes nothing, another takes the place of x.
using ForwardHook = Tensor (*)(const Module& module, const Tensor& x, void* user);
/// Sees the gradient of what a layer gave, when backward comes to it; likewise.
using GradientHook = Tensor (*)(const Module& module, const Tensor& dy, void* user);

/// A model's part. Parts are members of the whole, and register themselves with it when they are constructed:
///   struct Mlp : nn::Module {
///     using Module::Module;
///     nn::Linear up{*this, "up", 64, 256}, down{*this, "down", 256, 64};
///     Tensor operator()(const Tensor& x) { return down(gelu(up(x))); }
///   };
/// Mlp model(parameters) is a root; as a member of another, Mlp mlp{*this, "mlp"}, its weights are mlp.up.weight and so on.
/// A module stays where it was made, and inside its parent's lifetime.
class Module {
 public:
  /// The root of a model whose parameters are declared in `registry`, which must outlive it.
  explicit Module(Parameters& registry);
  /// Throws Error if the name is empty, has a dot, or is taken by another part of the parent.
  Module(Module& parent, std::string_view name);
  virtual ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const std::string& path() const { return path_; }  // "blocks.0.attn"; "" for the root
  Parameters& registry() const { return *registry_; }
  bool training() const { return training_; }

  /// Allocates and fills all parameters, buffers and what dropout draws by. Of the root, once.
  void materialize(Device& device, const StorageOptions& options = {}, uint64_t seed = 1);
  /// Says which masks the next forward pass draws, see write_dropout_draws(): before each micro-batch of training, if there is dropout.
  void begin_micro_batch(uint64_t seed, int64_t step, int64_t first_sample);

  // ---- what it is made of
  struct NamedParameter {
    std::string name;  // from here: "attn.qkv.weight"
    Parameter* parameter;
  };
  struct NamedModule {
    std::string name;  // from here; "" for this one
    Module* module;
  };
  /// This one's own first, then those of its parts in the order of their construction. A parameter that two parts share is listed once.
  std::vector<NamedParameter> named_parameters() const;
  std::vector<NamedModule> named_modules();
  std::vector<std::pair<std::string, Buffer*>> named_buffers() const;
  std::span<Module* const> children() const { return children_; }
  int64_t parameter_count() const;
  /// function(Module&) for each part, the innermost first, and for this one last.
  template <class F>
  void apply(F&& function) {
    for (Module* child : children_) child->apply(function);
    function(*this);
  }

  // ---- what it holds
  /// Views of all parameters and saved buffers, outside of autograd; what is written to the model later shows in them.
  StateDict state_dict() const;
  struct LoadReport {
    std::vector<std::string> missing, unexpected;
  };
  /// Copies values by name, rounded to the model's dtype (bf16 with a residual plane and fp16 with master weights keep a float32 exactly).
  /// strict: throws Error listing every name that is missing or unexpected. A wrong shape is an error in any case. If there is one, nothing
  /// was copied. An optimizer's state is loaded after this: it has the residual and master planes to the last bit, which this writes by
  /// what the values are.
  LoadReport load_state_dict(const StateDict& state, bool strict = true);

  // ---- how it runs
  /// Training or evaluation, of this part and all of its own: dropout is the identity in evaluation.
  void train(bool on = true);
  void eval() { train(false); }
  /// Freezes (false) or thaws the parameters whose name from here matches the pattern, where '*' stands for anything: "blocks.*.norm*".
  /// What is frozen gets no gradient, so none is computed; frozen before materialize(), its gradient has no memory either.
  /// Returns how many matched; throws Error, before anything changes, if none did, or to thaw what was frozen when memory was laid out.
  int64_t requires_grad_(bool on, std::string_view pattern = "*");

  // ---- who watches
  /// Of a Layer's calls. Hooks run in the order they were added; `user` is handed back to them. Returns a number for remove_hook().
  int add_forward_pre_hook(ForwardHook hook, void* user = nullptr) { return add_hook(true, hook, nullptr, user); }
  int add_forward_hook(ForwardHook hook, void* user = nullptr) { return add_hook(false, hook, nullptr, user); }
  int add_gradient_hook(GradientHook hook, void* user = nullptr) { return add_hook(false, nullptr, hook, user); }
  /// Graphs that wait for their backward pass do not call it either, nor any hook of a module that is gone. Throws Error if there is none
  /// of this number.
  void remove_hook(int number);

 protected:
  /// Declares a parameter of this module. Throws Error if there is one of this name.
  Parameter& parameter(std::string_view name, const Shape& shape, const Init& init, bool decay);
  Buffer& buffer(std::string_view name, const TensorSpec& spec, double fill = 0, bool saved = true);
  /// Lists another part's parameter here too: a head that is its embedding.
  Parameter& share(Parameter& other);
  /// The ledger's and the meter's path while it lives.
  ModuleScope scope() const;
  /// What dropout draws by; for a layer that called needs_draws() when it was made. Throws Error before begin_micro_batch().
  void needs_draws() { root_->draws_wanted_ = true; }
  const Tensor& draws() const;
  Tensor run_forward_hooks(Tensor x, bool before) const;
  bool watches_gradient() const;
  /// y, or another place in the graph for it if the layer gave what was there before.
  Tensor watch_gradient(Tensor y, const Edge& before) const;

 private:
  // Nodes share it, and may outlive the module: then it calls nobody.
  struct Hook : RefCounted {
    int number = 0;
    bool before = false;
    ForwardHook forward = nullptr;
    GradientHook gradient = nullptr;
    void* user = nullptr;
    const Module* module = nullptr;
  };
  int add_hook(bool before, ForwardHook forward, GradientHook gradient, void* user);
  std::string whole(std::string_view name) const;
  void list(std::string_view prefix, std::vector<NamedParameter>& into) const;
  void list(std::string_view prefix, std::vector<NamedModule>& into);
  void list(std::string_view prefix, std::vector<std::pair<std::string, Buffer*>>& into) const;

  Parameters* registry_;
  Module* parent_ = nullptr;
  Module* root_;
  std::string name_, path_;
  bool training_ = true;
  std::vector<Module*> children_;
  std::vector<Parameter*> own_;
  std::deque<Buffer> buffers_;
  std::vector<Ref<Hook>> hooks_;
  int next_hook_ = 1;
  // Of the root.
  bool draws_wanted_ = false, draws_written_ = false;
  Tensor draws_;  // i64 [2]
};

/// A module that makes one tensor of one: what hooks see and Sequential chains.
class Layer : public Module {
 public:
  using Module::Module;
  Tensor operator()(Tensor x) const;

 protected:
  virtual Tensor forward(Tensor x) const = 0;
};

/// Parts of one kind by number: "0", "1", ...
template <class M>
class ModuleList : public Module {
 public:
  using Module::Module;
  template <class... Arguments>
  M& add(Arguments&&... arguments) {
    parts_.push_back(std::make_unique<M>(*this, std::to_string(parts_.size()), std::forward<Arguments>(arguments)...));
    return *parts_.back();
  }
  size_t size() const { return parts_.size(); }
  M& operator[](size_t i) { return *parts_.at(i); }
  const M& operator[](size_t i) const { return *parts_.at(i); }

 private:
  std::vector<std::unique_ptr<M>> parts_;
};

/// Layers one after another; functions among them have no name and no parameters.
class Sequential : public Layer {
 public:
  using Layer::Layer;
  /// The next layer, named by its place: add<Linear>(64, 256).
  template <class L, class... Arguments>
  L& add(Arguments&&... arguments) {
    auto layer = std::make_unique<L>(*this, std::to_string(steps_.size()), std::forward<Arguments>(arguments)...);
    L& added = *layer;
    steps_.push_back({std::move(layer), nullptr});
    return added;
  }
  /// add(gelu)
  Sequential& add(Tensor (*function)(const Tensor&)) {
    steps_.push_back({nullptr, function});
    return *this;
  }
  size_t size() const { return steps_.size(); }

 protected:
  Tensor forward(Tensor x) const override;

 private:
  struct Step {
    std::unique_ptr<Layer> layer;
    Tensor (*function)(const Tensor&);
  };
  std::vector<Step> steps_;
};
}  // namespace reckon::nn
