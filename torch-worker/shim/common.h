// What the shim's files share: dtypes, types behind the boundary, and how exceptions end at it.

#pragma once

#include "shim.h"

#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/api/module.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

struct lt_module {
  torch::jit::Module module;
  c10::FunctionSchema schema;
  std::string state;
};

namespace lt {

// In the order of Lantern's dtypes. `bytes` has no counterpart.
constexpr int32_t kBytes = 10;
constexpr std::array<c10::ScalarType, 14> kDtypes = {
    c10::ScalarType::Bool,   c10::ScalarType::Byte,   c10::ScalarType::Char,      c10::ScalarType::Short,
    c10::ScalarType::Int,    c10::ScalarType::Long,   c10::ScalarType::Half,      c10::ScalarType::BFloat16,
    c10::ScalarType::Float,  c10::ScalarType::Double, c10::ScalarType::Undefined, c10::ScalarType::UInt16,
    c10::ScalarType::UInt32, c10::ScalarType::UInt64,
};

inline char *copied(const std::string &text) {
  char *copy = strdup(text.c_str());
  if (copy == nullptr) {
    std::abort();
  }
  return copy;
}

// Runs `body`; the text of what it threw, or null.
template <typename Body> char *guarded(Body &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return copied(error.what());
  } catch (...) {
    return copied("an exception of unknown type");
  }
}

// Runs `body`; what it returned, or `otherwise` if it threw.
template <typename Result, typename Body> Result guarded_or(Result otherwise, Body &&body) noexcept {
  try {
    return body();
  } catch (...) {
    return otherwise;
  }
}

[[noreturn]] inline void refuse(const std::string &text) { throw std::runtime_error(text); }

// Why calls of `forward` depend on each other; empty if they do not.
std::string state_of(const torch::jit::Module &module);

// The tensor in host memory, dense, of a dtype that is served; throws what is wrong with it and what helps.
at::Tensor dense(const std::string &name, const at::Tensor &value);

} // namespace lt
