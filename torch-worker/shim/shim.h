// What lantern-torch asks of libtorch and `tch` does not offer: a module's signature and state, calls by the names of
// arguments, and answers of any shape as plain tensors. `src/torch/shim.rs` declares the same functions for Rust.
//
// Nothing throws across this boundary: functions that may fail return null, or an exception's text that the caller frees
// with `lt_free_text`. At an index that does not exist, functions return null, an empty text, or a tensor of no dtype.
// Strings that are lent live as long as the value they belong to.

#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct lt_module;
struct lt_type;
struct lt_stack;
struct lt_outputs;

// A tensor in host memory, dense and row-major. `dtype` is a position in `lt::kDtypes`; elements of `bytes` are prefixed
// by their lengths, as little-endian 32 bits.
struct lt_tensor {
  int32_t dtype;
  size_t rank;
  const int64_t *shape;
  const void *data;
  size_t length;
};

// An argument of `forward`; `self` is left out.
struct lt_argument {
  const char *name;
  const lt_type *type;
  bool has_default;
};

enum lt_kind : int32_t {
  LT_TENSOR = 0,
  LT_INT = 1,
  LT_FLOAT = 2,
  LT_BOOL = 3,
  LT_STR = 4,
  LT_NUMBER = 5,
  LT_NONE = 6,
  LT_OPTIONAL = 7,
  LT_LIST = 8,
  LT_TUPLE = 9,
  LT_OTHER = 10,
};

void lt_free_text(char *text);

// What modules print is written at the end of each line, though stdout is a pipe.
void lt_print_lines();

// Modules. `device` is -1 for the processor, else the index of a CUDA device.
char *lt_load(const char *path, int32_t device, lt_module **loaded);
void lt_free_module(lt_module *module);
// Why calls depend on each other; empty if they do not.
const char *lt_state(const lt_module *module);
size_t lt_arguments(const lt_module *module);
lt_argument lt_argument_at(const lt_module *module, size_t index);
// Null unless there is one return type.
const lt_type *lt_returns(const lt_module *module);

// Types, lent by their module.
int32_t lt_type_kind(const lt_type *type);
size_t lt_type_members(const lt_type *type);
const lt_type *lt_type_member(const lt_type *type, size_t index);
// The name of a NamedTuple's field; null of others.
const char *lt_type_field(const lt_type *type, size_t index);
char *lt_type_text(const lt_type *type);

// Arguments of one call, made on a stack: values are pushed, packed into containers, and taken as an argument by name.
lt_stack *lt_new_stack();
void lt_free_stack(lt_stack *stack);
char *lt_push_tensor(lt_stack *stack, const lt_tensor *tensor, int32_t device);
char *lt_push_int(lt_stack *stack, int64_t value);
char *lt_push_float(lt_stack *stack, double value);
char *lt_push_bool(lt_stack *stack, bool value);
char *lt_push_str(lt_stack *stack, const char *text, size_t length);
char *lt_push_none(lt_stack *stack);
// The last `count` values become a list of that kind of element.
char *lt_pack_list(lt_stack *stack, size_t count, int32_t kind);
char *lt_pack_tuple(lt_stack *stack, size_t count);
// The last value becomes the argument at `index`.
char *lt_take_argument(lt_stack *stack, const lt_module *module, size_t index);

// Calls `forward` with the stack's arguments, and flattens what it returns.
char *lt_forward(const lt_module *module, lt_stack *stack, lt_outputs **outputs);
void lt_free_outputs(lt_outputs *outputs);
size_t lt_output_count(const lt_outputs *outputs);
// Whether the outputs were counted, not named by the model.
bool lt_are_counted(const lt_outputs *outputs);
const char *lt_output_name(const lt_outputs *outputs, size_t index);
lt_tensor lt_output_tensor(const lt_outputs *outputs, size_t index);
}
