// Arguments of a call, and what it returns as named tensors in host memory.

#include "common.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <torch/csrc/jit/api/method.h>

#include <limits>
#include <unordered_set>
#include <vector>

struct lt_stack {
  std::vector<c10::IValue> values;
  torch::jit::Kwargs arguments;
};

namespace {

// Limits of one answer.
constexpr size_t kMostOutputs = 1024;
constexpr size_t kDeepest = 16;
constexpr size_t kLongestName = 1024;
constexpr size_t kMostBytes = std::numeric_limits<int32_t>::max();

struct Output {
  std::string name;
  int32_t dtype;
  std::vector<int64_t> shape;
  // Holds the data, unless `text` does.
  at::Tensor tensor;
  std::string text;
};

} // namespace

struct lt_outputs {
  std::vector<Output> all;
  bool are_counted;
};

namespace {

using lt::refuse;

int32_t dtype_of(const at::Tensor &tensor) {
  for (size_t index = 0; index < lt::kDtypes.size(); ++index) {
    if (lt::kDtypes[index] == tensor.scalar_type()) {
      return static_cast<int32_t>(index);
    }
  }
  return -1;
}

std::string quoted(const std::string &name) { return "output \"" + name + "\""; }

void check_kind(const std::string &name, const at::Tensor &value) {
  if (!value.defined()) {
    refuse(quoted(name) + " is undefined");
  }
  if (value.is_meta()) {
    refuse(quoted(name) + " is a meta tensor, which has no values: move the module to a real device before it is saved");
  }
  if (value.is_nested()) {
    refuse(quoted(name) +
           " is a nested tensor, which has no one shape: return torch.nested.to_padded_tensor of it, or a list of tensors");
  }
  if (value.is_complex()) {
    refuse(quoted(name) + " is complex, and complex numbers are not served: return torch.view_as_real of it");
  }
}

void check_size(const std::string &name, const at::Tensor &value) {
  size_t bytes = value.element_size();
  for (const auto axis : value.sizes()) {
    if (axis != 0 && bytes > kMostBytes / static_cast<size_t>(axis)) {
      refuse(quoted(name) + " is larger than the " + std::to_string(kMostBytes) + " bytes that an output may have");
    }
    bytes *= static_cast<size_t>(axis);
  }
}

// Whether the tensor's memory is there, and holds what its shape says.
void check_memory(const std::string &name, const at::Tensor &value) {
  if (value.numel() == 0) {
    return;
  }
  const bool has_memory = value.has_storage() && value.storage().data() != nullptr;
  const auto needed = has_memory ? at::detail::computeStorageNbytes(value.sizes(), value.strides(), value.element_size(),
                                                                    value.storage_offset())
                                 : 0;
  if (!has_memory || value.storage().nbytes() < needed) {
    refuse(quoted(name) + " has less memory than its shape says");
  }
}

// The same check for the tensors that a tensor of another layout consists of.
void check_parts(const std::string &name, const at::Tensor &value) {
  switch (value.layout()) {
  case at::kStrided:
    return check_memory(name, value);
  case at::kSparse:
    check_memory(name, value._indices());
    return check_memory(name, value._values());
  case at::kSparseCsr:
  case at::kSparseBsr:
    check_memory(name, value.crow_indices());
    check_memory(name, value.col_indices());
    return check_memory(name, value.values());
  case at::kSparseCsc:
  case at::kSparseBsc:
    check_memory(name, value.ccol_indices());
    check_memory(name, value.row_indices());
    return check_memory(name, value.values());
  default:
    // The memory belongs to a library, which alone knows its size.
    return;
  }
}

at::Tensor strided(const at::Tensor &value) {
  auto plain = value.is_quantized() ? value.dequantize() : value;
  return plain.layout() == at::kStrided ? plain : plain.to_dense();
}

// An unnamed tuple becomes the named one that the argument takes.
c10::IValue conformed(c10::IValue value, const c10::TypePtr &type) {
  if (const auto optional = type->cast<c10::OptionalType>()) {
    return conformed(std::move(value), optional->getElementType());
  }
  const auto tuple = type->cast<c10::TupleType>();
  if (!tuple || !value.isTuple()) {
    return value;
  }
  std::vector<c10::IValue> members;
  for (size_t index = 0; index < tuple->elements().size(); ++index) {
    members.push_back(conformed(value.toTupleRef().elements().at(index), tuple->elements()[index]));
  }
  if (tuple->schema()) {
    return c10::ivalue::Tuple::createNamed(std::move(members), tuple);
  }
  return c10::ivalue::Tuple::create(std::move(members));
}

std::vector<c10::IValue> popped(lt_stack &stack, size_t count) {
  const auto first = stack.values.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<c10::IValue> members(std::make_move_iterator(first), std::make_move_iterator(stack.values.end()));
  stack.values.erase(first, stack.values.end());
  return members;
}

c10::TypePtr element_type(int32_t kind) {
  switch (kind) {
  case LT_TENSOR:
    return c10::TensorType::get();
  case LT_INT:
    return c10::IntType::get();
  case LT_FLOAT:
    return c10::FloatType::get();
  case LT_BOOL:
    return c10::BoolType::get();
  case LT_STR:
    return c10::StringType::get();
  default:
    refuse("no lists of this kind");
  }
}

at::Tensor pushed(const lt_tensor &tensor, int32_t device) {
  const at::IntArrayRef shape(tensor.shape, tensor.rank);
  auto copy = at::empty(shape, at::TensorOptions(lt::kDtypes.at(static_cast<size_t>(tensor.dtype))));
  if (copy.nbytes() != tensor.length) {
    refuse("a tensor's data is not as long as its shape says");
  }
  if (tensor.length > 0) {
    std::memcpy(copy.mutable_data_ptr(), tensor.data, tensor.length);
  }
  return device < 0 ? copy : copy.to(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
}

// Makes named tensors of a value: members of tuples and lists are counted, those of dicts and NamedTuples have the names
// that the model gives, and names of nested ones are joined by dots. None is left out.
class Flattener {
public:
  lt_outputs flatten(const c10::IValue &value) {
    const bool is_named = value.isGenericDict() || (value.isTuple() && named(value) != nullptr);
    add("", value, 0);
    return {std::move(outputs_), !is_named};
  }

private:
  static const c10::FunctionSchema *named(const c10::IValue &tuple) {
    const auto type = tuple.toTupleRef().type<c10::TupleType>();
    return type && type->schema() ? type->schema().get() : nullptr;
  }

  static std::string member(const std::string &parent, const std::string &name) {
    return parent.empty() ? name : parent + "." + name;
  }

  static std::string member(const std::string &parent, size_t index) {
    return parent.empty() ? "output_" + std::to_string(index) : parent + "." + std::to_string(index);
  }

  void add(const std::string &name, const c10::IValue &value, size_t depth) {
    if (depth > kDeepest) {
      refuse("the model's answer is nested deeper than " + std::to_string(kDeepest) + " containers");
    }
    if (value.isNone()) {
      return;
    }
    if (value.isTuple()) {
      return add_tuple(name, value, depth);
    }
    if (value.isList()) {
      return add_list(name, value, depth);
    }
    if (value.isGenericDict()) {
      return add_dict(name, value, depth);
    }
    add_leaf(name.empty() ? "output_0" : name, value);
  }

  void add_tuple(const std::string &name, const c10::IValue &value, size_t depth) {
    const auto *fields = named(value);
    const auto &members = value.toTupleRef().elements();
    for (size_t index = 0; index < members.size(); ++index) {
      const auto label = fields ? member(name, fields->arguments().at(index).name()) : member(name, index);
      add(label, members[index], depth + 1);
    }
  }

  void add_list(const std::string &name, const c10::IValue &value, size_t depth) {
    const auto label = name.empty() ? "output_0" : name;
    if (value.isIntList()) {
      return add_tensor(label, at::tensor(value.toIntVector(), at::kLong));
    }
    if (value.isDoubleList()) {
      return add_tensor(label, at::tensor(value.toDoubleVector(), at::kDouble));
    }
    if (value.isBoolList()) {
      return add_booleans(label, value.toBoolList());
    }
    const auto members = value.toListRef();
    if (value.toList().elementType()->kind() == c10::TypeKind::StringType) {
      return add_texts(label, members, {static_cast<int64_t>(members.size())});
    }
    for (size_t index = 0; index < members.size(); ++index) {
      add(member(name, index), members[index], depth + 1);
    }
  }

  void add_dict(const std::string &name, const c10::IValue &value, size_t depth) {
    for (const auto &entry : value.toGenericDict()) {
      const auto &key = entry.key();
      if (!key.isString() && !key.isInt()) {
        refuse("the model returned a dict whose keys are neither strings nor integers: return one with names as keys");
      }
      add(member(name, key.isString() ? key.toStringRef() : std::to_string(key.toInt())), entry.value(), depth + 1);
    }
  }

  void add_leaf(const std::string &name, const c10::IValue &value) {
    if (value.isTensor()) {
      add_tensor(name, value.toTensor());
    } else if (value.isInt()) {
      add_tensor(name, at::scalar_tensor(value.toInt(), at::kLong));
    } else if (value.isDouble()) {
      add_tensor(name, at::scalar_tensor(value.toDouble(), at::kDouble));
    } else if (value.isBool()) {
      add_tensor(name, at::scalar_tensor(value.toBool(), at::kBool));
    } else if (value.isString()) {
      add_texts(name, c10::ArrayRef<c10::IValue>(value), {});
    } else {
      refuse(quoted(name) + " is of " + value.tagKind() +
             ", which is not served: return tensors, numbers, booleans, strings, or tuples, lists and dicts of them");
    }
  }

  void add_booleans(const std::string &name, const c10::List<bool> &values) {
    auto tensor = at::empty({static_cast<int64_t>(values.size())}, at::kBool);
    for (size_t index = 0; index < values.size(); ++index) {
      tensor.mutable_data_ptr<bool>()[index] = values.get(index);
    }
    add_tensor(name, tensor);
  }

  void add_tensor(const std::string &name, const at::Tensor &value) {
    auto tensor = lt::dense(name, value);
    if (dtype_of(tensor) < 0) {
      refuse(quoted(name) + " is of " + c10::toString(tensor.scalar_type()) + ", which is not served");
    }
    const auto dtype = dtype_of(tensor);
    auto shape = tensor.sizes().vec();
    add_output({name, dtype, std::move(shape), std::move(tensor), ""});
  }

  void add_texts(const std::string &name, c10::ArrayRef<c10::IValue> values, std::vector<int64_t> shape) {
    std::string data;
    for (const auto &value : values) {
      const auto &text = value.toStringRef();
      const auto length = static_cast<uint32_t>(text.size());
      data.append(reinterpret_cast<const char *>(&length), sizeof length).append(text);
    }
    add_output({name, lt::kBytes, std::move(shape), {}, std::move(data)});
  }

  void add_output(Output output) {
    if (output.name.size() > kLongestName) {
      refuse("the name of an output is longer than " + std::to_string(kLongestName) + " bytes");
    }
    if (output.name.find('\0') != std::string::npos) {
      refuse("the name of an output holds NUL");
    }
    if (outputs_.size() == kMostOutputs) {
      refuse("the model returned more than " + std::to_string(kMostOutputs) + " outputs");
    }
    if (!names_.insert(output.name).second) {
      refuse("the model returned two outputs of the name \"" + output.name + "\"");
    }
    bytes_ += output.text.size() + (output.tensor.defined() ? output.tensor.nbytes() : 0);
    if (bytes_ > kMostBytes) {
      refuse("the model's outputs are larger than " + std::to_string(kMostBytes) + " bytes");
    }
    outputs_.push_back(std::move(output));
  }

  std::vector<Output> outputs_;
  std::unordered_set<std::string> names_;
  size_t bytes_ = 0;
};

} // namespace

namespace lt {

at::Tensor dense(const std::string &name, const at::Tensor &value) {
  check_kind(name, value);
  check_size(name, value);
  if (value._is_zerotensor()) {
    return at::zeros(value.sizes(), at::TensorOptions(value.scalar_type()));
  }
  const auto detached = value.detach();
  check_parts(name, detached);
  auto plain = strided(detached);
  if (plain.has_names()) {
    plain = plain.rename(std::nullopt);
  }
  auto copy = plain.to(at::kCPU).resolve_conj().resolve_neg().contiguous();
  check_memory(name, copy);
  return copy;
}

} // namespace lt

extern "C" {

lt_stack *lt_new_stack() { return new (std::nothrow) lt_stack; }

void lt_free_stack(lt_stack *stack) { delete stack; }

char *lt_push_tensor(lt_stack *stack, const lt_tensor *tensor, int32_t device) {
  return lt::guarded([&] { stack->values.emplace_back(pushed(*tensor, device)); });
}

char *lt_push_int(lt_stack *stack, int64_t value) {
  return lt::guarded([&] { stack->values.emplace_back(value); });
}

char *lt_push_float(lt_stack *stack, double value) {
  return lt::guarded([&] { stack->values.emplace_back(value); });
}

char *lt_push_bool(lt_stack *stack, bool value) {
  return lt::guarded([&] { stack->values.emplace_back(value); });
}

char *lt_push_str(lt_stack *stack, const char *text, size_t length) {
  return lt::guarded([&] { stack->values.emplace_back(std::string(text, length)); });
}

char *lt_push_none(lt_stack *stack) {
  return lt::guarded([&] { stack->values.emplace_back(); });
}

char *lt_pack_list(lt_stack *stack, size_t count, int32_t kind) {
  return lt::guarded([&] {
    c10::impl::GenericList list(element_type(kind));
    for (auto &member : popped(*stack, count)) {
      list.push_back(std::move(member));
    }
    stack->values.emplace_back(std::move(list));
  });
}

char *lt_pack_tuple(lt_stack *stack, size_t count) {
  return lt::guarded([&] { stack->values.emplace_back(c10::ivalue::Tuple::create(popped(*stack, count))); });
}

char *lt_take_argument(lt_stack *stack, const lt_module *module, size_t index) {
  return lt::guarded([&] {
    const auto &argument = module->schema.arguments().at(index + 1);
    auto value = conformed(popped(*stack, 1).at(0), argument.type());
    stack->arguments.emplace(argument.name(), std::move(value));
  });
}

char *lt_forward(const lt_module *module, lt_stack *stack, lt_outputs **outputs) {
  return lt::guarded([&] {
    const at::NoGradGuard no_grad;
    const auto forward = module->module.get_method("forward");
    const auto value = forward({}, stack->arguments);
    *outputs = new lt_outputs(Flattener().flatten(value));
  });
}

void lt_free_outputs(lt_outputs *outputs) { delete outputs; }

size_t lt_output_count(const lt_outputs *outputs) { return outputs->all.size(); }

bool lt_are_counted(const lt_outputs *outputs) { return outputs->are_counted; }

const char *lt_output_name(const lt_outputs *outputs, size_t index) {
  return lt::guarded_or("", [&] { return outputs->all.at(index).name.c_str(); });
}

lt_tensor lt_output_tensor(const lt_outputs *outputs, size_t index) {
  return lt::guarded_or(lt_tensor{-1, 0, nullptr, nullptr, 0}, [&] {
    const auto &output = outputs->all.at(index);
    const bool is_text = output.dtype == lt::kBytes;
    return lt_tensor{
        output.dtype,
        output.shape.size(),
        output.shape.data(),
        is_text ? static_cast<const void *>(output.text.data()) : output.tensor.const_data_ptr(),
        is_text ? output.text.size() : output.tensor.nbytes(),
    };
  });
}
}
