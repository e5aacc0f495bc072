// Whether a module keeps state: whether a call of `forward` may write to what other calls read.
//
// `forward` is read with everything it calls. Values that may be, hold or lie in one another are put into one set; sets
// with the module, its attributes or its constants are the module's own. A write to a value of such a set is state. If it
// is not known whether a value belongs to a set, it does, and a call that cannot be read counts as a write.

#include "common.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

bool is_mutable(const c10::Type &type) {
  switch (type.kind()) {
  case c10::TypeKind::IntType:
  case c10::TypeKind::FloatType:
  case c10::TypeKind::BoolType:
  case c10::TypeKind::ComplexType:
  case c10::TypeKind::NumberType:
  case c10::TypeKind::StringType:
  case c10::TypeKind::NoneType:
  case c10::TypeKind::DeviceObjType:
  case c10::TypeKind::EnumType:
    return false;
  case c10::TypeKind::OptionalType:
    return is_mutable(*type.castRaw<c10::OptionalType>()->getElementType());
  default:
    return true;
  }
}

bool is_tensor(const c10::Type &type) {
  if (const auto *optional = type.castRaw<c10::OptionalType>()) {
    return is_tensor(*optional->getElementType());
  }
  return type.kind() == c10::TypeKind::TensorType;
}

// Sets of values that may share memory.
class Sets {
public:
  void unite(const Value *one, const Value *other) {
    if (is_mutable(*one->type()) && is_mutable(*other->type())) {
      merge(place(one), place(other));
    }
  }

  void make_own(const Value *value) { own_[root(place(value))] = true; }

  bool is_own(const Value *value) { return own_[root(place(value))]; }

private:
  size_t place(const Value *value) {
    const auto [found, is_new] = places_.try_emplace(value, parents_.size());
    if (is_new) {
      parents_.push_back(found->second);
      own_.push_back(false);
    }
    return found->second;
  }

  size_t root(size_t place) {
    while (parents_[place] != place) {
      parents_[place] = parents_[parents_[place]];
      place = parents_[place];
    }
    return place;
  }

  void merge(size_t one, size_t other) {
    const auto left = root(one), right = root(other);
    own_[left] = own_[left] || own_[right];
    parents_[right] = left;
  }

  std::unordered_map<const Value *, size_t> places_;
  std::vector<size_t> parents_;
  std::vector<bool> own_;
};

// Operators whose schema does not say that they may return an input: any of their tensors, or the first.
enum class Returned { Nothing, First, Any };

// The schema of a composite operator does not say what the operators inside return, which often is its first tensor,
// unchanged: atleast_1d, sum_to_size, conj_physical, to_dense. Its other tensors are weights and the like, as those of
// conv2d.
bool is_composite(const c10::FunctionSchema &schema) {
  const auto handle = c10::Dispatcher::singleton().findSchema(schema.operator_name());
  return !handle || handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
}

Returned may_return(const Node *node, const c10::FunctionSchema &schema) {
  static const std::unordered_set<std::string> any = {
      "aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout",
      "aten::type_as", "aten::einsum",
  };
  static const std::unordered_set<std::string> first = {"aten::dequantize", "aten::to_dense", "aten::conj_physical"};
  const std::string name = node->kind().toQualString();
  // Primitives put values into containers and take them out again.
  if (!node->kind().is_aten() || any.count(name) != 0) {
    return Returned::Any;
  }
  return first.count(name) != 0 || is_composite(schema) ? Returned::First : Returned::Nothing;
}

// Operators that update running statistics, their inputs 3 and 4, unless input 5 says otherwise.
bool updates_statistics(const Node *node) {
  static const std::unordered_set<std::string> names = {
      "aten::batch_norm",         "aten::native_batch_norm",      "aten::cudnn_batch_norm",
      "aten::miopen_batch_norm",  "aten::instance_norm",          "aten::_batch_norm_impl_index",
      "aten::_native_batch_norm_legit",
  };
  if (names.count(node->kind().toQualString()) == 0 || node->inputs().size() < 6) {
    return false;
  }
  const auto is_training = torch::jit::toIValue(node->input(5));
  return !is_training || !is_training->isBool() || is_training->toBool();
}

// Tensors whose memory becomes that of another.
bool takes_memory_over(const Node *node) {
  const std::string name = node->kind().toQualString();
  return name == "aten::set_" || name == "aten::set_data";
}

bool share(const c10::AliasInfo *input, const c10::AliasInfo &output) {
  if (input == nullptr) {
    return false;
  }
  for (const auto &set : output.beforeSets()) {
    if (input->beforeSets().count(set) != 0) {
      return true;
    }
  }
  return false;
}

class Reader {
public:
  explicit Reader(const torch::jit::Module &module) : module_(module) {}

  std::string read() {
    auto graph = module_.get_method("forward").graph()->copy();
    torch::jit::Inline(*graph);
    known_[graph->inputs().at(0)] = module_._ivalue();
    note_assigned(graph->block());
    specialize(*graph, graph->block());
    torch::jit::ConstantPropagationImmutableTypes(graph);
    sets_.make_own(graph->inputs().at(0));
    read(graph->block());
    graphs_.push_back(std::move(graph));
    return reason();
  }

private:
  struct Write {
    const Value *value;
    std::string reason;
  };

  std::string reason() {
    for (const auto &write : writes_) {
      if (sets_.is_own(write.value)) {
        return write.reason;
      }
    }
    return "";
  }

  void note_assigned(const Block *block) {
    for (const Node *node : block->nodes()) {
      if (node->kind() == c10::prim::SetAttr) {
        assigned_.insert(node->s(c10::attr::name));
      }
      // The calls inside are not read yet, and may assign anything.
      may_assign_all_ = may_assign_all_ || node->hasAttribute(c10::attr::Subgraph);
      for (const Block *inner : node->blocks()) {
        note_assigned(inner);
      }
    }
  }

  // Puts plain values that nobody assigns in the place of attributes: `training` above all, whose branches write.
  void specialize(Graph &graph, Block *block) {
    for (Node *node : block->nodes()) {
      if (node->kind() == c10::prim::GetAttr) {
        specialize(graph, node);
      }
      for (Block *inner : node->blocks()) {
        specialize(graph, inner);
      }
    }
  }

  void specialize(Graph &graph, Node *node) {
    const auto object = known_.find(node->input());
    if (object == known_.end() || !object->second.isObject()) {
      return;
    }
    const auto &name = node->s(c10::attr::name);
    const auto value = object->second.toObject()->getAttr(name);
    if (value.isObject()) {
      known_[node->output()] = value;
      return;
    }
    const bool is_plain = value.isBool() || value.isInt() || value.isDouble() || value.isString() || value.isNone();
    if (is_plain && !may_assign_all_ && assigned_.count(name) == 0) {
      torch::jit::WithInsertPoint here(node);
      node->output()->replaceAllUsesWith(graph.insertConstant(value));
    }
  }

  void read(const Block *block) {
    for (const Node *node : block->nodes()) {
      read(node);
    }
  }

  void read(const Node *node) {
    switch (node->kind()) {
    case c10::prim::Constant:
      return read_constant(node);
    case c10::prim::SetAttr:
      unite_all(node);
      return write(node->input(0), "it assigns its attribute \"" + node->s(c10::attr::name) + "\"");
    case c10::prim::If:
      return read_if(node);
    case c10::prim::Loop:
      return read_loop(node);
    case c10::prim::CallMethod:
    case c10::prim::CallFunction:
    case c10::prim::rpc_async:
    case c10::prim::rpc_sync:
    case c10::prim::rpc_remote:
      return read_unknown(node);
    case c10::aten::manual_seed:
      return note_seed(node);
    default:
      break;
    }
    if (node->hasAttribute(c10::attr::Subgraph)) {
      return read_subgraph(node);
    }
    for (const Block *inner : node->blocks()) {
      read_block(node, inner);
    }
    if (const auto *schema = node->maybeSchema()) {
      read_operator(node, *schema);
    } else {
      unite_all(node);
    }
  }

  // Constants are the program's, and all runs share them.
  void read_constant(const Node *node) {
    for (const Value *output : node->outputs()) {
      if (is_mutable(*output->type())) {
        sets_.make_own(output);
      }
    }
  }

  void read_if(const Node *node) {
    for (const Block *block : node->blocks()) {
      read(block);
      for (size_t index = 0; index < node->outputs().size(); ++index) {
        sets_.unite(node->outputs()[index], block->outputs()[index]);
      }
    }
  }

  // A loop's inputs are the number of rounds, the condition and the carried values. Its body takes the round and the carried
  // values, and returns the condition and the carried values.
  void read_loop(const Node *node) {
    const Block *body = node->blocks().at(0);
    read(body);
    for (size_t index = 0; index < node->outputs().size(); ++index) {
      const Value *output = node->outputs()[index];
      sets_.unite(output, node->inputs()[index + 2]);
      sets_.unite(output, body->inputs()[index + 1]);
      sets_.unite(output, body->outputs()[index + 1]);
    }
  }

  void read_block(const Node *node, const Block *block) {
    read(block);
    for (const Value *inner : block->inputs()) {
      unite_with_all(node, inner);
    }
    for (const Value *inner : block->outputs()) {
      unite_with_all(node, inner);
    }
  }

  void read_subgraph(const Node *node) {
    auto graph = node->g(c10::attr::Subgraph)->copy();
    torch::jit::Inline(*graph);
    for (size_t index = 0; index < graph->inputs().size() && index < node->inputs().size(); ++index) {
      sets_.unite(graph->inputs()[index], node->inputs()[index]);
    }
    read_block(node, graph->block());
    unite_all(node);
    graphs_.push_back(std::move(graph));
  }

  void read_unknown(const Node *node) {
    unite_all(node);
    for (const Value *input : node->inputs()) {
      write(input, std::string("it calls what cannot be read (") + node->kind().toQualString() + ")");
    }
  }

  void note_seed(const Node *node) {
    write(node->owningGraph()->inputs().at(0), "it seeds the random numbers of its process");
  }

  void read_operator(const Node *node, const c10::FunctionSchema &schema) {
    const auto &formals = schema.arguments();
    for (size_t index = 0; index < node->inputs().size() && index < formals.size(); ++index) {
      const auto *alias = formals[index].alias_info();
      if (alias != nullptr && alias->isWrite()) {
        write(node->input(index), std::string("it writes in place (") + node->kind().toQualString() + ")");
        unite_what_is_stored(node, node->input(index));
      }
    }
    if (node->kind() == c10::Symbol::fromQualString("aten::from_file")) {
      write(node->owningGraph()->inputs().at(0), "it maps a file into memory");
    }
    if (updates_statistics(node)) {
      write(node->input(3), "it updates running statistics");
      write(node->input(4), "it updates running statistics");
    }
    for (size_t index = 0; index < node->outputs().size(); ++index) {
      const auto *alias = index < schema.returns().size() ? schema.returns()[index].alias_info() : nullptr;
      read_output(node, schema, node->outputs()[index], alias);
    }
  }

  // A container holds what is put into it. Values written to a tensor are copied.
  void unite_what_is_stored(const Node *node, const Value *written) {
    if (!is_tensor(*written->type()) || takes_memory_over(node)) {
      unite_with_all(node, written);
    }
  }

  void read_output(const Node *node, const c10::FunctionSchema &schema, const Value *output, const c10::AliasInfo *alias) {
    const auto returned = alias == nullptr && is_tensor(*output->type()) ? may_return(node, schema) : Returned::Any;
    if (returned == Returned::Nothing) {
      return;
    }
    if (returned == Returned::First) {
      return unite_with_first_tensor(node, output);
    }
    if (alias == nullptr || alias->isWildcardBefore() || alias->isWildcardAfter() || !is_tensor(*output->type())) {
      return unite_with_all(node, output);
    }
    for (size_t index = 0; index < node->inputs().size() && index < schema.arguments().size(); ++index) {
      if (share(schema.arguments()[index].alias_info(), *alias)) {
        sets_.unite(output, node->input(index));
      }
    }
  }

  void unite_with_first_tensor(const Node *node, const Value *value) {
    for (const Value *input : node->inputs()) {
      if (is_mutable(*input->type())) {
        return sets_.unite(value, input);
      }
    }
  }

  void unite_with_all(const Node *node, const Value *value) {
    for (const Value *input : node->inputs()) {
      sets_.unite(value, input);
    }
    for (const Value *output : node->outputs()) {
      sets_.unite(value, output);
    }
  }

  void unite_all(const Node *node) {
    const auto values = node->inputs().empty() ? node->outputs() : node->inputs();
    for (const Value *value : values) {
      unite_with_all(node, value);
    }
  }

  void write(const Value *value, std::string reason) {
    if (is_mutable(*value->type())) {
      writes_.push_back({value, std::move(reason)});
    }
  }

  const torch::jit::Module &module_;
  Sets sets_;
  std::vector<Write> writes_;
  std::unordered_map<const Value *, c10::IValue> known_;
  std::unordered_set<std::string> assigned_;
  bool may_assign_all_ = false;
  // Values are told apart by their addresses, so the graphs live as long as the reader.
  std::vector<std::shared_ptr<Graph>> graphs_;
};

} // namespace

namespace lt {

std::string state_of(const torch::jit::Module &module) {
  try {
    return Reader(module).read();
  } catch (const std::exception &error) {
    const std::string text = error.what();
    return "its program cannot be read: " + text.substr(0, text.find('\n'));
  }
}

} // namespace lt
