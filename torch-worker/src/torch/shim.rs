//! TorchScript modules through the C++ shim in `torch-worker/shim`: load, signature, state, calls and their answers.
//!
//! Everything unsafe about modules is here. This file knows neither Lantern's tensors nor its names for dtypes: those go by
//! the numbers that `shim/common.h` gives them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

/// Types nested deeper are not read.
const DEEPEST_TYPE: usize = 32;

/// The text of an exception of libtorch, often of many lines.
#[derive(Debug)]
pub(super) struct Thrown(pub(super) String);

/// Has what modules print leave the process at the end of each line.
#[expect(unsafe_code, reason = "calls the shim")]
pub(super) fn print_lines() {
    // SAFETY: takes nothing; it is called before the first module is loaded, so nothing has been printed.
    unsafe { lt_print_lines() }
}

/// The type of an argument or of a returned value in TorchScript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Tensor,
    Int,
    Float,
    Bool,
    Str,
    /// `int` or `float`.
    Number,
    None,
    Optional(Box<Self>),
    List(Box<Self>),
    /// Members, with the names of a `NamedTuple`'s fields.
    Tuple(Vec<(Option<String>, Self)>),
    /// Any other, as an author would write it.
    Other(String),
}

/// An argument of `forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) kind: Type,
    pub(super) has_default: bool,
}

/// A tensor in host memory, dense and row-major.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain<'a> {
    pub(super) dtype: usize,
    pub(super) shape: &'a [i64],
    pub(super) data: &'a [u8],
}

/// Kinds of values, as `lt_kind` numbers them.
mod kind {
    pub(super) const TENSOR: i32 = 0;
    pub(super) const INT: i32 = 1;
    pub(super) const FLOAT: i32 = 2;
    pub(super) const BOOL: i32 = 3;
    pub(super) const STR: i32 = 4;
    pub(super) const NUMBER: i32 = 5;
    pub(super) const NONE: i32 = 6;
    pub(super) const OPTIONAL: i32 = 7;
    pub(super) const LIST: i32 = 8;
    pub(super) const TUPLE: i32 = 9;
}

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Element {
    Tensor = kind::TENSOR,
    Int = kind::INT,
    Float = kind::FLOAT,
    Bool = kind::BOOL,
    Str = kind::STR,
}

/// A loaded module in evaluation mode.
pub(super) struct Module(NonNull<RawModule>);

#[expect(unsafe_code, reason = "a module is a pointer")]
// SAFETY: a module is bound to no thread, and any thread may drop it.
unsafe impl Send for Module {}

#[expect(unsafe_code, reason = "a module is a pointer")]
// SAFETY: shared references read what was made when the module was loaded, or call `forward`. libtorch runs each call on an
// interpreter state of its own and locks what it compiles during a call. If `forward` writes to what other calls read,
// `state` says so, and whoever shares the module lets one call run at a time.
unsafe impl Sync for Module {}

impl Drop for Module {
    #[expect(unsafe_code, reason = "frees what the shim gave")]
    fn drop(&mut self) {
        // SAFETY: the module is owned and not used again.
        unsafe { lt_free_module(self.0.as_ptr()) }
    }
}

impl Module {
    /// Loads the file at `path` onto a device, -1 for the processor or the index of a CUDA device.
    #[expect(unsafe_code, reason = "calls the shim")]
    pub(super) fn load(path: &Path, device: i32) -> Result<Self, Thrown> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Thrown("the path holds NUL".to_owned()))?;
        let mut module = ptr::null_mut();
        // SAFETY: the path is NUL-terminated and lives through the call, which writes one pointer.
        check(unsafe { lt_load(path.as_ptr(), device, &raw mut module) })?;
        owned(module).map(Self)
    }

    /// Why calls of `forward` depend on each other; `None` if they do not.
    #[expect(unsafe_code, reason = "reads what the shim lends")]
    pub(super) fn state(&self) -> Option<String> {
        // SAFETY: the module lives, and so does the text.
        let text = unsafe { text(lt_state(self.0.as_ptr())) };
        (!text.is_empty()).then_some(text)
    }

    /// The arguments of `forward`, in order, without `self`.
    #[expect(unsafe_code, reason = "reads what the shim lends")]
    pub(super) fn arguments(&self) -> Vec<Argument> {
        // SAFETY: the module lives.
        let count = unsafe { lt_arguments(self.0.as_ptr()) };
        let argument = |index| {
            // SAFETY: the module lives and has that many arguments; name and type live as long as it.
            let raw = unsafe { lt_argument_at(self.0.as_ptr(), index) };
            Argument {
                // SAFETY: as above.
                name: unsafe { text(raw.name) },
                // SAFETY: as above.
                kind: unsafe { read_type(raw.kind, 0) },
                has_default: raw.has_default,
            }
        };
        (0..count).map(argument).collect()
    }

    /// What `forward` is said to return.
    #[expect(unsafe_code, reason = "reads what the shim lends")]
    pub(super) fn returns(&self) -> Option<Type> {
        // SAFETY: the module lives, and so do its types.
        unsafe {
            let kind = lt_returns(self.0.as_ptr());
            (!kind.is_null()).then(|| read_type(kind, 0))
        }
    }
}

/// The arguments of one call, made on a stack.
pub(super) struct Call<'a> {
    stack: NonNull<RawStack>,
    module: &'a Module,
    device: i32,
}

impl Drop for Call<'_> {
    #[expect(unsafe_code, reason = "frees what the shim gave")]
    fn drop(&mut self) {
        // SAFETY: the stack is owned and not used again.
        unsafe { lt_free_stack(self.stack.as_ptr()) }
    }
}

#[expect(
    unsafe_code,
    reason = "calls the shim with a stack that lives, and data that lives through the call"
)]
impl<'a> Call<'a> {
    /// A call without arguments, whose tensors go to a device, numbered as for [`Module::load`].
    pub(super) fn new(module: &'a Module, device: i32) -> Result<Self, Thrown> {
        // SAFETY: takes nothing.
        let stack = owned(unsafe { lt_new_stack() })?;
        Ok(Self {
            stack,
            module,
            device,
        })
    }

    /// Pushes a copy of a tensor. It is copied even on the processor: a module may write to its inputs in place or keep them,
    /// while the data may be shared with others and be freed after the run.
    pub(super) fn push_tensor(&mut self, tensor: Plain<'_>) -> Result<(), Thrown> {
        let raw = RawTensor {
            dtype: i32::try_from(tensor.dtype).unwrap_or(i32::MAX),
            rank: tensor.shape.len(),
            shape: tensor.shape.as_ptr(),
            data: tensor.data.as_ptr().cast(),
            length: tensor.data.len(),
        };
        // SAFETY: shape and data are as long as said.
        check(unsafe { lt_push_tensor(self.stack.as_ptr(), &raw const raw, self.device) })
    }

    pub(super) fn push_int(&mut self, value: i64) -> Result<(), Thrown> {
        // SAFETY: the stack lives.
        check(unsafe { lt_push_int(self.stack.as_ptr(), value) })
    }

    pub(super) fn push_float(&mut self, value: f64) -> Result<(), Thrown> {
        // SAFETY: the stack lives.
        check(unsafe { lt_push_float(self.stack.as_ptr(), value) })
    }

    pub(super) fn push_bool(&mut self, value: bool) -> Result<(), Thrown> {
        // SAFETY: the stack lives.
        check(unsafe { lt_push_bool(self.stack.as_ptr(), value) })
    }

    pub(super) fn push_str(&mut self, value: &[u8]) -> Result<(), Thrown> {
        // SAFETY: the stack lives, and the text is as long as said.
        check(unsafe { lt_push_str(self.stack.as_ptr(), value.as_ptr().cast(), value.len()) })
    }

    pub(super) fn push_none(&mut self) -> Result<(), Thrown> {
        // SAFETY: the stack lives.
        check(unsafe { lt_push_none(self.stack.as_ptr()) })
    }

    /// Makes a list of the last `count` values, which are all of one kind.
    pub(super) fn pack_list(&mut self, count: usize, element: Element) -> Result<(), Thrown> {
        // SAFETY: the stack lives and holds that many, which the caller has pushed.
        check(unsafe { lt_pack_list(self.stack.as_ptr(), count, element as i32) })
    }

    /// Makes a tuple of the last `count` values.
    pub(super) fn pack_tuple(&mut self, count: usize) -> Result<(), Thrown> {
        // SAFETY: the stack lives and holds that many, which the caller has pushed.
        check(unsafe { lt_pack_tuple(self.stack.as_ptr(), count) })
    }

    /// Makes the last value the argument at `index`.
    pub(super) fn take_argument(&mut self, index: usize) -> Result<(), Thrown> {
        // SAFETY: stack and module live.
        check(unsafe { lt_take_argument(self.stack.as_ptr(), self.module.0.as_ptr(), index) })
    }

    /// Calls `forward`. Arguments that were not given have their defaults.
    pub(super) fn forward(self) -> Result<Answer, Thrown> {
        let mut outputs = ptr::null_mut();
        // SAFETY: stack and module live; one pointer is written.
        check(unsafe {
            lt_forward(
                self.module.0.as_ptr(),
                self.stack.as_ptr(),
                &raw mut outputs,
            )
        })?;
        owned(outputs).map(Answer)
    }
}

/// What `forward` returned, as named tensors. Their data may be the module's own memory.
pub(super) struct Answer(NonNull<RawOutputs>);

impl Drop for Answer {
    #[expect(unsafe_code, reason = "frees what the shim gave")]
    fn drop(&mut self) {
        // SAFETY: the outputs are owned and not used again.
        unsafe { lt_free_outputs(self.0.as_ptr()) }
    }
}

#[expect(unsafe_code, reason = "reads what the shim lends")]
impl Answer {
    /// How many outputs there are.
    pub(super) fn len(&self) -> usize {
        // SAFETY: the outputs live.
        unsafe { lt_output_count(self.0.as_ptr()) }
    }

    /// Whether the outputs have numbers for names, not the model's names.
    pub(super) fn is_counted(&self) -> bool {
        // SAFETY: the outputs live.
        unsafe { lt_are_counted(self.0.as_ptr()) }
    }

    /// The name of the output at `index`, which is less than [`Self::len`].
    pub(super) fn name(&self, index: usize) -> String {
        // SAFETY: the outputs live and are that many.
        unsafe { text(lt_output_name(self.0.as_ptr(), index)) }
    }

    /// The value of the output at `index`, which is less than [`Self::len`].
    pub(super) fn tensor(&self, index: usize) -> Plain<'_> {
        // SAFETY: the outputs live and are that many.
        let raw = unsafe { lt_output_tensor(self.0.as_ptr(), index) };
        Plain {
            dtype: usize::try_from(raw.dtype).unwrap_or(usize::MAX),
            // SAFETY: shape and data are as long as said, and live as long as the outputs.
            shape: unsafe { slice(raw.shape, raw.rank) },
            // SAFETY: as above.
            data: unsafe { slice(raw.data.cast(), raw.length) },
        }
    }
}

/// # Safety
///
/// `kind` is a type whose module lives.
#[expect(unsafe_code, reason = "reads what the shim lends")]
unsafe fn read_type(kind: *const RawType, depth: usize) -> Type {
    // SAFETY: members of a type live as long as it.
    let member = |index| unsafe { read_type(lt_type_member(kind, index), depth + 1) };
    // SAFETY: the type lives.
    match unsafe { lt_type_kind(kind) } {
        _ if depth > DEEPEST_TYPE => Type::Other("deeply nested".to_owned()),
        kind::TENSOR => Type::Tensor,
        kind::INT => Type::Int,
        kind::FLOAT => Type::Float,
        kind::BOOL => Type::Bool,
        kind::STR => Type::Str,
        kind::NUMBER => Type::Number,
        kind::NONE => Type::None,
        kind::OPTIONAL => Type::Optional(Box::new(member(0))),
        kind::LIST => Type::List(Box::new(member(0))),
        kind::TUPLE => {
            // SAFETY: the type lives.
            let members = 0..unsafe { lt_type_members(kind) };
            // SAFETY: as above.
            let name = |index| unsafe { field(kind, index) };
            Type::Tuple(members.map(|index| (name(index), member(index))).collect())
        }
        // SAFETY: the text is given away.
        _ => Type::Other(unsafe { taken(lt_type_text(kind)) }.unwrap_or_default()),
    }
}

/// # Safety
///
/// `kind` is a tuple's type whose module lives, with a member at `index`.
#[expect(unsafe_code, reason = "reads what the shim lends")]
unsafe fn field(kind: *const RawType, index: usize) -> Option<String> {
    // SAFETY: the name lives as long as the type.
    unsafe {
        let name = lt_type_field(kind, index);
        (!name.is_null()).then(|| text(name))
    }
}

/// # Safety
///
/// `data` is null or `length` elements that live for `'a`.
#[expect(unsafe_code, reason = "reads what the shim lends")]
unsafe fn slice<'a, T>(data: *const T, length: usize) -> &'a [T] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(data, length) }
}

/// # Safety
///
/// `text` is NUL-terminated and lives.
#[expect(unsafe_code, reason = "reads a C string")]
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// What a call of the shim threw, which is given away by it.
#[expect(unsafe_code, reason = "takes a text of the shim")]
fn check(thrown: *mut c_char) -> Result<(), Thrown> {
    // SAFETY: the shim gives null or a text.
    match unsafe { taken(thrown) } {
        None => Ok(()),
        Some(text) => Err(Thrown(text)),
    }
}

/// Copies a text of the shim and frees it; `None` for null.
///
/// # Safety
///
/// The text is null, or NUL-terminated and given away by the shim.
#[expect(unsafe_code, reason = "reads and frees a C string")]
unsafe fn taken(given: *mut c_char) -> Option<String> {
    let given = NonNull::new(given)?;
    // SAFETY: as the caller says.
    let copy = unsafe { text(given.as_ptr()) };
    // SAFETY: the text is the shim's and is not used again.
    unsafe { lt_free_text(given.as_ptr()) };
    Some(copy)
}

fn owned<T>(pointer: *mut T) -> Result<NonNull<T>, Thrown> {
    NonNull::new(pointer).ok_or_else(|| Thrown("libtorch gave nothing".to_owned()))
}

#[repr(C)]
struct RawModule {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawType {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawStack {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawOutputs {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawTensor {
    dtype: i32,
    rank: usize,
    shape: *const i64,
    data: *const c_void,
    length: usize,
}

#[repr(C)]
struct RawArgument {
    name: *const c_char,
    kind: *const RawType,
    has_default: bool,
}

#[expect(unsafe_code, reason = "declares `shim/shim.h`")]
unsafe extern "C" {
    fn lt_free_text(text: *mut c_char);
    fn lt_print_lines();
    fn lt_load(path: *const c_char, device: i32, loaded: *mut *mut RawModule) -> *mut c_char;
    fn lt_free_module(module: *mut RawModule);
    fn lt_state(module: *const RawModule) -> *const c_char;
    fn lt_arguments(module: *const RawModule) -> usize;
    fn lt_argument_at(module: *const RawModule, index: usize) -> RawArgument;
    fn lt_returns(module: *const RawModule) -> *const RawType;
    fn lt_type_kind(kind: *const RawType) -> i32;
    fn lt_type_members(kind: *const RawType) -> usize;
    fn lt_type_member(kind: *const RawType, index: usize) -> *const RawType;
    fn lt_type_field(kind: *const RawType, index: usize) -> *const c_char;
    fn lt_type_text(kind: *const RawType) -> *mut c_char;
    fn lt_new_stack() -> *mut RawStack;
    fn lt_free_stack(stack: *mut RawStack);
    fn lt_push_tensor(stack: *mut RawStack, tensor: *const RawTensor, device: i32) -> *mut c_char;
    fn lt_push_int(stack: *mut RawStack, value: i64) -> *mut c_char;
    fn lt_push_float(stack: *mut RawStack, value: f64) -> *mut c_char;
    fn lt_push_bool(stack: *mut RawStack, value: bool) -> *mut c_char;
    fn lt_push_str(stack: *mut RawStack, text: *const c_char, length: usize) -> *mut c_char;
    fn lt_push_none(stack: *mut RawStack) -> *mut c_char;
    fn lt_pack_list(stack: *mut RawStack, count: usize, kind: i32) -> *mut c_char;
    fn lt_pack_tuple(stack: *mut RawStack, count: usize) -> *mut c_char;
    fn lt_take_argument(
        stack: *mut RawStack,
        module: *const RawModule,
        index: usize,
    ) -> *mut c_char;
    fn lt_forward(
        module: *const RawModule,
        stack: *mut RawStack,
        outputs: *mut *mut RawOutputs,
    ) -> *mut c_char;
    fn lt_free_outputs(outputs: *mut RawOutputs);
    fn lt_output_count(outputs: *const RawOutputs) -> usize;
    fn lt_are_counted(outputs: *const RawOutputs) -> bool;
    fn lt_output_name(outputs: *const RawOutputs, index: usize) -> *const c_char;
    fn lt_output_tensor(outputs: *const RawOutputs, index: usize) -> RawTensor;
}
