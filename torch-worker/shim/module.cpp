// Modules and what their schema says.

#include "common.h"

#include <cstdio>

#include <torch/csrc/jit/serialization/import.h>

namespace {

at::Device device_of(int32_t index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

const c10::Type *type_of(const lt_type *type) { return reinterpret_cast<const c10::Type *>(type); }

const lt_type *lent(const c10::Type *type) { return reinterpret_cast<const lt_type *>(type); }

lt_module *loaded_from(const char *path, int32_t device) {
  auto module = torch::jit::load(path, device_of(device));
  module.eval();
  const auto forward = module.find_method("forward");
  if (!forward) {
    lt::refuse("the module has no method forward");
  }
  auto schema = forward->function().getSchema();
  auto state = lt::state_of(module);
  return new lt_module{std::move(module), std::move(schema), std::move(state)};
}

} // namespace

extern "C" {

void lt_free_text(char *text) { std::free(text); }

// `print` writes to `std::cout`, which has no buffer of its own beside that of stdout.
void lt_print_lines() { std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ); }

char *lt_load(const char *path, int32_t device, lt_module **loaded) {
  return lt::guarded([&] { *loaded = loaded_from(path, device); });
}

void lt_free_module(lt_module *module) { delete module; }

const char *lt_state(const lt_module *module) { return module->state.c_str(); }

size_t lt_arguments(const lt_module *module) { return module->schema.arguments().size() - 1; }

lt_argument lt_argument_at(const lt_module *module, size_t index) {
  return lt::guarded_or(lt_argument{"", nullptr, false}, [&] {
    const auto &argument = module->schema.arguments().at(index + 1);
    return lt_argument{argument.name().c_str(), lent(argument.type().get()), argument.default_value().has_value()};
  });
}

const lt_type *lt_returns(const lt_module *module) {
  const auto &returns = module->schema.returns();
  return returns.size() == 1 ? lent(returns[0].type().get()) : nullptr;
}

int32_t lt_type_kind(const lt_type *type) {
  if (type == nullptr) {
    return LT_OTHER;
  }
  switch (type_of(type)->kind()) {
  case c10::TypeKind::TensorType:
    return LT_TENSOR;
  case c10::TypeKind::IntType:
    return LT_INT;
  case c10::TypeKind::FloatType:
    return LT_FLOAT;
  case c10::TypeKind::BoolType:
    return LT_BOOL;
  case c10::TypeKind::StringType:
    return LT_STR;
  case c10::TypeKind::NumberType:
    return LT_NUMBER;
  case c10::TypeKind::NoneType:
    return LT_NONE;
  case c10::TypeKind::OptionalType:
    return LT_OPTIONAL;
  case c10::TypeKind::ListType:
    return LT_LIST;
  case c10::TypeKind::TupleType:
    return LT_TUPLE;
  default:
    return LT_OTHER;
  }
}

size_t lt_type_members(const lt_type *type) {
  const auto *tuple = type_of(type)->castRaw<c10::TupleType>();
  return tuple == nullptr ? 1 : tuple->elements().size();
}

const lt_type *lt_type_member(const lt_type *type, size_t index) {
  return lt::guarded_or(static_cast<const lt_type *>(nullptr), [&]() -> const lt_type * {
    if (const auto *optional = type_of(type)->castRaw<c10::OptionalType>()) {
      return lent(optional->getElementType().get());
    }
    if (const auto *list = type_of(type)->castRaw<c10::ListType>()) {
      return lent(list->getElementType().get());
    }
    const auto *tuple = type_of(type)->castRaw<c10::TupleType>();
    return tuple == nullptr ? nullptr : lent(tuple->elements().at(index).get());
  });
}

const char *lt_type_field(const lt_type *type, size_t index) {
  return lt::guarded_or(static_cast<const char *>(nullptr), [&]() -> const char * {
    const auto *tuple = type_of(type)->castRaw<c10::TupleType>();
    if (tuple == nullptr || !tuple->schema()) {
      return nullptr;
    }
    return tuple->schema()->arguments().at(index).name().c_str();
  });
}

char *lt_type_text(const lt_type *type) {
  return lt::guarded_or(static_cast<char *>(nullptr), [&]() -> char * {
    return type == nullptr ? nullptr : lt::copied(type_of(type)->repr_str());
  });
}
}
