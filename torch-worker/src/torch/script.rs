//! A TorchScript module through libtorch's C shim: load, evaluate, forward.
//!
//! `tch`'s own wrapper leaks every input of a call that fails, and clients can make calls fail. So modules and values
//! are owned here; tensors stay `tch`'s. This file knows nothing of Lantern.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};

use tch::Tensor;
use torch_sys::{CIValue, CModule_};

/// What libtorch threw, as it said it: often many lines.
#[derive(Debug)]
pub(super) struct Thrown(pub(super) String);

/// What `forward` returned.
#[derive(Debug)]
pub(super) enum Output {
    /// One tensor.
    One(Tensor),
    /// A tuple or a list of tensors.
    Sequence(Vec<Tensor>),
    /// A dict of tensors by string, in its order.
    Dict(Vec<(String, Tensor)>),
}

/// A loaded module in evaluation mode.
pub(super) struct Script(NonNull<CModule_>);

#[expect(unsafe_code, reason = "a module is a pointer")]
// SAFETY: a module is bound to no thread; the last one to hold it may drop it.
unsafe impl Send for Script {}

#[expect(unsafe_code, reason = "a module is a pointer")]
// SAFETY: `forward` is all that shared references allow. libtorch runs each call on an interpreter state of its own and
// locks what it compiles on the way; parameters are only read. A module whose `forward` assigns to its own attributes
// races with itself, as it does under every server that shares modules; that is the module's doing, in its owner's
// own process.
unsafe impl Sync for Script {}

impl Drop for Script {
    #[expect(unsafe_code, reason = "frees what libtorch gave")]
    fn drop(&mut self) {
        // SAFETY: the module is owned and not used again.
        unsafe { torch_sys::atm_free(self.0.as_ptr()) }
    }
}

impl Script {
    /// Loads the file at `path` onto a device, -1 for the processor or the index of a CUDA device.
    #[expect(unsafe_code, reason = "calls libtorch")]
    pub(super) fn load(path: &Path, device: i32) -> Result<Self, Thrown> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Thrown("the path holds NUL".to_owned()))?;
        // SAFETY: the path is NUL-terminated and lives through the call.
        let module = unsafe { torch_sys::atm_load_on_device(path.as_ptr(), device) };
        let module = Self(owned(module)?);
        // SAFETY: the module lives, and nobody else has it yet.
        unsafe { torch_sys::atm_eval(module.0.as_ptr()) };
        thrown()?;
        Ok(module)
    }

    /// Calls `forward` with tensors in order.
    #[expect(unsafe_code, reason = "calls libtorch")]
    pub(super) fn forward(&self, inputs: &[Tensor]) -> Result<Output, Thrown> {
        let inputs = inputs
            .iter()
            .map(Value::of)
            .collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*mut CIValue> = inputs.iter().map(|input| input.0.as_ptr()).collect();
        // SAFETY: the module lives, values are as many as said and live through the call, which copies them.
        let output = unsafe {
            torch_sys::atm_forward_(self.0.as_ptr(), pointers.as_ptr(), length(&pointers)?)
        };
        Value(owned(output)?).into_output()
    }
}

/// A value of TorchScript, owned.
struct Value(NonNull<CIValue>);

impl Drop for Value {
    #[expect(unsafe_code, reason = "frees what libtorch gave")]
    fn drop(&mut self) {
        // SAFETY: the value is owned and not used again.
        unsafe { torch_sys::ati_free(self.0.as_ptr()) }
    }
}

/// Tags that the shim gives values.
mod tag {
    pub(super) const TENSOR: i32 = 1;
    pub(super) const TUPLE: i32 = 5;
    pub(super) const STRING: i32 = 9;
    pub(super) const TENSOR_LIST: i32 = 10;
    pub(super) const LIST: i32 = 12;
    pub(super) const DICT: i32 = 13;
}

impl Value {
    #[expect(unsafe_code, reason = "calls libtorch")]
    fn of(tensor: &Tensor) -> Result<Self, Thrown> {
        // SAFETY: the tensor lives; the value takes a reference of its own.
        owned(unsafe { torch_sys::ati_tensor(tensor.as_ptr().cast_mut()) }).map(Self)
    }

    fn into_output(self) -> Result<Output, Thrown> {
        match self.tag()? {
            tag::TENSOR => self.tensor().map(Output::One),
            tag::TENSOR_LIST => self.tensor_list().map(Output::Sequence),
            tag::TUPLE => tensors(&self.elements(torch_sys::ati_to_tuple, 1)?),
            tag::LIST => tensors(&self.elements(torch_sys::ati_to_generic_list, 1)?),
            tag::DICT => entries(&self.elements(torch_sys::ati_to_generic_dict, 2)?),
            _ => Err(unserved()),
        }
    }

    #[expect(unsafe_code, reason = "calls libtorch")]
    fn tag(&self) -> Result<i32, Thrown> {
        // SAFETY: the value lives.
        let tag = unsafe { torch_sys::ati_tag(self.0.as_ptr()) };
        thrown().map_err(|_| unserved())?;
        Ok(tag)
    }

    #[expect(unsafe_code, reason = "calls libtorch")]
    fn tensor(&self) -> Result<Tensor, Thrown> {
        if self.tag()? != tag::TENSOR {
            return Err(unserved());
        }
        // SAFETY: the value lives; what comes back is a reference of its own, which the tensor takes.
        let tensor = owned(unsafe { torch_sys::ati_to_tensor(self.0.as_ptr()) })?;
        // SAFETY: as above.
        Ok(unsafe { Tensor::from_ptr(tensor.as_ptr()) })
    }

    #[expect(
        unsafe_code,
        reason = "calls libtorch, which gives a string to be freed"
    )]
    fn string(&self) -> Result<String, Thrown> {
        if self.tag()? != tag::STRING {
            return Err(Thrown(
                "the model returned a dict whose keys are not strings".to_owned(),
            ));
        }
        // SAFETY: the value lives and is a string.
        let text = unsafe { torch_sys::ati_to_string(self.0.as_ptr()) };
        thrown()?;
        Ok(taken(text).unwrap_or_default())
    }

    #[expect(unsafe_code, reason = "calls libtorch")]
    fn length(&self) -> Result<i32, Thrown> {
        // SAFETY: the value lives.
        let length = unsafe { torch_sys::ati_length(self.0.as_ptr()) };
        thrown()?;
        Ok(length)
    }

    #[expect(unsafe_code, reason = "calls libtorch")]
    fn tensor_list(&self) -> Result<Vec<Tensor>, Thrown> {
        let length = self.length()?;
        let mut pointers = vec![ptr::null_mut(); usize::try_from(length).unwrap_or(0)];
        // SAFETY: the value is a list of `length` tensors, and there is room for as many.
        unsafe { torch_sys::ati_to_tensor_list(self.0.as_ptr(), pointers.as_mut_ptr(), length) };
        // SAFETY: each pointer that is not null is a reference of its own, which the tensor takes.
        let tensors = pointers
            .into_iter()
            .filter(|pointer| !pointer.is_null())
            .map(|pointer| unsafe { Tensor::from_ptr(pointer) });
        let tensors = tensors.collect();
        thrown()?;
        Ok(tensors)
    }

    /// Members of a container, `each` for every one that its length counts.
    #[expect(unsafe_code, reason = "calls libtorch")]
    fn elements(
        &self,
        unpack: unsafe extern "C" fn(*mut CIValue, *mut *mut CIValue, i32),
        each: usize,
    ) -> Result<Vec<Self>, Thrown> {
        let length = self.length()?;
        let mut pointers = vec![ptr::null_mut(); each * usize::try_from(length).unwrap_or(0)];
        // SAFETY: `unpack` is the one for this container, which has `length` members and writes `each` for one.
        unsafe { unpack(self.0.as_ptr(), pointers.as_mut_ptr(), length) };
        let values = pointers
            .into_iter()
            .filter_map(NonNull::new)
            .map(Self)
            .collect();
        thrown()?;
        Ok(values)
    }
}

fn tensors(values: &[Value]) -> Result<Output, Thrown> {
    values
        .iter()
        .map(Value::tensor)
        .collect::<Result<_, _>>()
        .map(Output::Sequence)
}

fn entries(values: &[Value]) -> Result<Output, Thrown> {
    let entry = |pair: &[Value]| match pair {
        [key, value] => Ok((key.string()?, value.tensor()?)),
        _ => Err(unserved()),
    };
    values
        .chunks(2)
        .map(entry)
        .collect::<Result<_, _>>()
        .map(Output::Dict)
}

fn unserved() -> Thrown {
    Thrown("the model must return a tensor, or a tuple, list or dict of tensors, and nothing nested or of another kind".to_owned())
}

fn length(pointers: &[*mut CIValue]) -> Result<i32, Thrown> {
    i32::try_from(pointers.len()).map_err(|_| Thrown("too many inputs".to_owned()))
}

/// What a call made, unless it threw.
fn owned<T>(pointer: *mut T) -> Result<NonNull<T>, Thrown> {
    thrown()?;
    NonNull::new(pointer).ok_or_else(|| Thrown("libtorch gave nothing".to_owned()))
}

/// The error of the calls of this thread since the last look, if one threw.
#[expect(
    unsafe_code,
    reason = "calls libtorch, which gives a string to be freed"
)]
fn thrown() -> Result<(), Thrown> {
    // SAFETY: the error belongs to this thread, and is given away here.
    match taken(unsafe { torch_sys::get_and_reset_last_err() }) {
        None => Ok(()),
        Some(text) => Err(Thrown(text)),
    }
}

/// Copies a string of the shim and frees it; `None` for null.
#[expect(unsafe_code, reason = "reads and frees a C string")]
fn taken(text: *mut c_char) -> Option<String> {
    let text = NonNull::new(text)?;
    // SAFETY: the shim's strings are NUL-terminated and owned by whoever got them.
    let copy = unsafe { CStr::from_ptr(text.as_ptr()) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: they come from `strdup`, and this one is not used again.
    unsafe { libc::free(text.as_ptr().cast()) };
    Some(copy)
}
