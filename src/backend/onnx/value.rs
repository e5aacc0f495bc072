//! Tensors as ONNX Runtime's values, and back.
//!
//! Inputs are lent, not copied, wherever their data is aligned; outputs are copied once. All `unsafe` that touches
//! tensor data is here.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use bytes::{BufMut as _, Bytes, BytesMut};
use ort::memory::MemoryInfo;
use ort::sys::{self, ONNXTensorElementDataType as Element};
use ort::{AsPointer as _, api};

use crate::tensor::{DType, MAX_RANK, Tensor};

// A tensor's data is little-endian, and is handed to native code as it is.
const _: () = assert!(cfg!(target_endian = "little"));

/// What the data of inputs is aligned to, in bytes. Kernels sum in another order, and round otherwise, where it starts
/// elsewhere: the same request would be answered with other last digits from one time to the next. Allocators and numpy
/// align to as much.
const ALIGNMENT: usize = align_of::<u128>();

/// A value that this process owns.
struct Value(NonNull<sys::OrtValue>);

impl Drop for Value {
    #[expect(unsafe_code, reason = "releases what the C API gave")]
    fn drop(&mut self) {
        // SAFETY: the value is owned, and not used again.
        unsafe { (api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// An input for ONNX Runtime.
pub(super) struct InputValue<'a> {
    value: Value,
    /// The data, where the tensor's own is not lent. Freed after the value, which points into it.
    _copy: Option<Vec<u128>>,
    /// What a sequence is made of, likewise.
    _elements: Vec<Self>,
    _tensor: PhantomData<&'a Tensor>,
}

impl<'a> InputValue<'a> {
    /// Lends `tensor`. Strings, and data that is not aligned to [`ALIGNMENT`], are copied.
    pub(super) fn tensor(tensor: &'a Tensor, memory: &MemoryInfo<'_>) -> Result<Self, ort::Error> {
        if tensor.dtype() == DType::Bytes {
            return Ok(string_value(tensor)?.into());
        }
        if !is_aligned(tensor) {
            return Self::copied(tensor, memory);
        }
        Ok(lend(tensor, tensor.data().as_ptr(), memory)?.into())
    }

    /// A sequence of copies of at least one tensor. Copies, because ONNX Runtime promises not to write to inputs, but not
    /// to what it takes out of them.
    pub(super) fn sequence(
        tensors: &[&'a Tensor],
        memory: &MemoryInfo<'_>,
    ) -> Result<Self, ort::Error> {
        let copy = |tensor: &&'a Tensor| Self::copied(tensor, memory);
        let elements: Vec<_> = tensors.iter().map(copy).collect::<Result<_, _>>()?;
        Ok(Self {
            value: compound(&elements, sys::ONNXType::ONNX_TYPE_SEQUENCE)?,
            _copy: None,
            _elements: elements,
            _tensor: PhantomData,
        })
    }

    /// A map, whose value has copies of keys and values.
    pub(super) fn map(
        keys: &'a Tensor,
        values: &'a Tensor,
        memory: &MemoryInfo<'_>,
    ) -> Result<Self, ort::Error> {
        // ONNX Runtime reads as many values as there are keys, without looking how many there are.
        if keys.shape().len() != 1 || keys.shape() != values.shape() {
            return Err(ort::Error::new_with_code(
                ort::ErrorCode::InvalidArgument,
                "keys and values of a map must have one axis, of the same size",
            ));
        }
        let pairs = [Self::tensor(keys, memory)?, Self::tensor(values, memory)?];
        Ok(compound(&pairs, sys::ONNXType::ONNX_TYPE_MAP)?.into())
    }

    /// The value, valid for as long as `self`.
    pub(super) const fn as_ptr(&self) -> *const sys::OrtValue {
        self.value.0.as_ptr()
    }

    fn copied(tensor: &'a Tensor, memory: &MemoryInfo<'_>) -> Result<Self, ort::Error> {
        if tensor.dtype() == DType::Bytes {
            return Ok(string_value(tensor)?.into());
        }
        let copy = aligned_copy(tensor.data());
        Ok(Self {
            value: lend(tensor, copy.as_ptr().cast(), memory)?,
            _copy: Some(copy),
            _elements: Vec::new(),
            _tensor: PhantomData,
        })
    }
}

/// A value that points to nothing but the tensor.
impl From<Value> for InputValue<'_> {
    fn from(value: Value) -> Self {
        Self {
            value,
            _copy: None,
            _elements: Vec::new(),
            _tensor: PhantomData,
        }
    }
}

/// What a run gave for one output, or a part of it; lives no longer than the run's inputs, since tensors of a sequence that
/// were put into another one are lent as they were. Errors are the rest of a sentence about the output.
pub(super) struct OutputValue<'a>(Option<Value>, PhantomData<&'a ()>);

impl OutputValue<'_> {
    /// Takes ownership of what a run wrote.
    ///
    /// # Safety
    /// `value` is null or a value that nobody else owns, given by a run whose inputs outlive it.
    #[expect(unsafe_code, reason = "the caller vouches for the pointer")]
    pub(super) unsafe fn from_raw(value: *mut sys::OrtValue) -> Self {
        Self(NonNull::new(value).map(Value), PhantomData)
    }

    /// Whether an optional holds something.
    pub(super) fn has_value(&self) -> Result<bool, String> {
        let Some(value) = &self.0 else {
            return Ok(false);
        };
        has_value(value).map_err(|error| error.to_string())
    }

    /// How many parts a sequence or a map has.
    pub(super) fn count(&self) -> Result<usize, String> {
        count(self.value()?).map_err(|error| error.to_string())
    }

    /// A part of a sequence, or the keys (0) or values (1) of a map.
    pub(super) fn part(&self, index: usize) -> Result<Self, String> {
        let part = part(self.value()?, index).map_err(|error| error.to_string())?;
        Ok(Self(Some(part), PhantomData))
    }

    /// Copies a tensor out.
    pub(super) fn tensor(&self) -> Result<Tensor, String> {
        let value = self.value()?;
        let (element, shape) = element_and_shape(value).map_err(|error| error.to_string())?;
        let dtype = dtype(element).ok_or("has a dtype that is not served")?;
        let elements = if shape.contains(&0) {
            0
        } else {
            shape.iter().product()
        };
        let data = match dtype.size() {
            Some(size) => bytes(value, elements * size),
            None => strings(value, elements),
        };
        let data = data.map_err(|error| error.to_string())?;
        Tensor::new(dtype, shape, data).map_err(|error| error.to_string())
    }

    fn value(&self) -> Result<&Value, String> {
        self.0.as_ref().ok_or_else(|| "was not computed".to_owned())
    }
}

/// A sequence without tensors, which the C API cannot make: a run gave it. It outlives the session of that run, whose
/// memory it has none of, and is an input of many others.
pub(super) struct EmptySequence(Value);

// SAFETY: the value is only read after it was made: runs copy the handle, whose reference count is atomic.
#[expect(unsafe_code, reason = "a pointer to what nobody writes to")]
unsafe impl Send for EmptySequence {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer to what nobody writes to")]
unsafe impl Sync for EmptySequence {}

impl EmptySequence {
    /// Takes what a run gave that had no inputs.
    pub(super) fn new(given: OutputValue<'_>) -> Option<Self> {
        given.0.map(Self)
    }

    /// The value, valid for as long as `self`.
    pub(super) const fn as_ptr(&self) -> *const sys::OrtValue {
        self.0.0.as_ptr()
    }
}

fn is_aligned(tensor: &Tensor) -> bool {
    tensor.data().as_ptr().addr().is_multiple_of(ALIGNMENT)
}

#[expect(unsafe_code, reason = "writes bytes into words, which are aligned")]
fn aligned_copy(data: &[u8]) -> Vec<u128> {
    let mut words = vec![0u128; data.len().div_ceil(ALIGNMENT)];
    // SAFETY: the words are at least as many bytes as `data`, all initialized, any of them may be any byte, and they are
    // borrowed here alone.
    let bytes = unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), data.len()) };
    bytes.copy_from_slice(data);
    words
}

/// Axes as the C API takes them, and how many they are.
fn dimensions(tensor: &Tensor) -> ([i64; MAX_RANK], usize) {
    let mut axes = [0; MAX_RANK];
    for (axis, size) in axes.iter_mut().zip(tensor.shape()) {
        *axis = i64::try_from(*size).unwrap_or(i64::MAX);
    }
    (axes, tensor.shape().len())
}

#[expect(unsafe_code, reason = "the C API takes a pointer to the data")]
fn lend(tensor: &Tensor, data: *const u8, memory: &MemoryInfo<'_>) -> Result<Value, ort::Error> {
    let (axes, rank) = dimensions(tensor);
    let mut value = ptr::null_mut();
    // SAFETY: `data` points to as many bytes as `tensor` has, in host memory, aligned to its elements, and outlives
    // the value, which `InputValue` ties to the tensor or keeps beside the copy. ONNX Runtime checks that the bytes
    // are enough for the shape. It takes a mutable pointer but only reads graph inputs.
    let status = unsafe {
        (api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            data.cast_mut().cast::<c_void>(),
            tensor.data().len(),
            axes.as_ptr(),
            rank,
            element(tensor.dtype()),
            &raw mut value,
        )
    };
    created(status, value)
}

#[expect(unsafe_code, reason = "the C API hands out a buffer for each string")]
fn string_value(tensor: &Tensor) -> Result<Value, ort::Error> {
    let (axes, rank) = dimensions(tensor);
    let allocator = ort::memory::Allocator::default();
    let mut value = ptr::null_mut();
    // SAFETY: the default allocator lives as long as the process; axes are as many as said.
    let status = unsafe {
        (api().CreateTensorAsOrtValue)(
            allocator.ptr().cast_mut(),
            axes.as_ptr(),
            rank,
            Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
            &raw mut value,
        )
    };
    let value = created(status, value)?;
    for (index, string) in tensor.strings().enumerate() {
        let mut buffer = ptr::null_mut();
        // SAFETY: the value is a string tensor with more than `index` elements, since it has the tensor's shape.
        let status = unsafe {
            (api().GetResizedStringTensorElementBuffer)(
                value.0.as_ptr(),
                index,
                string.len(),
                &raw mut buffer,
            )
        };
        // SAFETY: the status is as the C API returned it, and is used once.
        unsafe { ort::Error::result_from_status(status) }?;
        // SAFETY: on success `buffer` has room for exactly the bytes asked for, and nothing else points to it.
        unsafe { ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast::<u8>(), string.len()) };
    }
    Ok(value)
}

/// A sequence of tensors, or a map of keys and values.
#[expect(unsafe_code, reason = "the C API takes pointers to the parts")]
fn compound(parts: &[InputValue<'_>], kind: sys::ONNXType) -> Result<Value, ort::Error> {
    let parts: Vec<_> = parts.iter().map(InputValue::as_ptr).collect();
    let mut value = ptr::null_mut();
    // SAFETY: the parts are as many as said and live during the call; what a sequence refers to later, its
    // `InputValue` keeps. Those of a map have one axis of the same size, as `InputValue::map` checks, and are copied.
    let status = unsafe { (api().CreateValue)(parts.as_ptr(), parts.len(), kind, &raw mut value) };
    created(status, value)
}

#[expect(unsafe_code, reason = "takes ownership of what the C API made")]
fn created(status: sys::OrtStatusPtr, value: *mut sys::OrtValue) -> Result<Value, ort::Error> {
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    NonNull::new(value)
        .map(Value)
        .ok_or_else(|| ort::Error::new("no value was made"))
}

#[expect(unsafe_code, reason = "asks the C API")]
fn has_value(value: &Value) -> Result<bool, ort::Error> {
    let mut answer = 0;
    // SAFETY: the value lives, and the place written to is a local.
    let status = unsafe { (api().HasValue)(value.0.as_ptr(), &raw mut answer) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(answer != 0)
}

#[expect(unsafe_code, reason = "asks the C API")]
fn count(value: &Value) -> Result<usize, ort::Error> {
    let mut count = 0;
    // SAFETY: the value lives, and the place written to is a local; of a value that has no parts this is an error.
    let status = unsafe { (api().GetValueCount)(value.0.as_ptr(), &raw mut count) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(count)
}

#[expect(unsafe_code, reason = "the C API hands out parts of a value")]
fn part(value: &Value, index: usize) -> Result<Value, ort::Error> {
    let index = c_int::try_from(index).map_err(|_| ort::Error::new("has too many parts"))?;
    let allocator = ort::memory::Allocator::default();
    let mut part = ptr::null_mut();
    // SAFETY: the value lives, and the default allocator lives as long as the process. A part that does not exist is an
    // error. What is handed out is a value of its own: it shares, or copies, what it has of the first.
    let status = unsafe {
        (api().GetValue)(
            value.0.as_ptr(),
            index,
            allocator.ptr().cast_mut(),
            &raw mut part,
        )
    };
    let part = created(status, part)?;
    check_place(&part)?;
    Ok(part)
}

/// Refuses a tensor in a device's memory: of runs, only outputs themselves are copied to the host.
#[expect(unsafe_code, reason = "asks the C API")]
fn check_place(value: &Value) -> Result<(), ort::Error> {
    let mut is_tensor = 0;
    // SAFETY: the value lives, and the place written to is a local.
    let status = unsafe { (api().IsTensor)(value.0.as_ptr(), &raw mut is_tensor) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    if is_tensor == 0 {
        return Ok(());
    }
    let mut memory = ptr::null();
    // SAFETY: as above; the value is a tensor.
    let status = unsafe { (api().GetTensorMemoryInfo)(value.0.as_ptr(), &raw mut memory) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    let mut device = sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU;
    // SAFETY: `memory` belongs to the value, which lives; the place written to is a local.
    unsafe { (api().MemoryInfoGetDeviceType)(memory, &raw mut device) };
    if device == sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU {
        return Ok(());
    }
    Err(ort::Error::new(
        "has tensors in a device's memory: copy them to the host inside the graph",
    ))
}

#[expect(unsafe_code, reason = "the C API lends the shape")]
fn element_and_shape(value: &Value) -> Result<(Element, Vec<usize>), ort::Error> {
    let mut element = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let (mut axes, mut rank) = (ptr::null(), 0);
    // SAFETY: the value lives, and the places written to are locals.
    let status = unsafe {
        (api().GetTensorElementTypeAndShapeDataReference)(
            value.0.as_ptr(),
            &raw mut element,
            &raw mut axes,
            &raw mut rank,
        )
    };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    if axes.is_null() {
        return Ok((element, Vec::new()));
    }
    // SAFETY: on success `axes` points to `rank` sizes inside the value, which is borrowed here.
    let axes: &[i64] = unsafe { slice::from_raw_parts(axes, rank) };
    let size =
        |axis: &i64| usize::try_from(*axis).map_err(|_| ort::Error::new("has a negative axis"));
    Ok((element, axes.iter().map(size).collect::<Result<_, _>>()?))
}

#[expect(unsafe_code, reason = "the C API lends the data")]
fn bytes(value: &Value, length: usize) -> Result<Bytes, ort::Error> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let mut data = ptr::null_mut();
    // SAFETY: the value is a tensor that is not of strings.
    let status = unsafe { (api().GetTensorMutableData)(value.0.as_ptr(), &raw mut data) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    // SAFETY: outputs of a run without bindings lie in host memory, and so do parts that passed `check_place`; the value holds `length` bytes, the product of its
    // own shape and the size of its own dtype, and is borrowed while they are copied.
    Ok(Bytes::copy_from_slice(unsafe {
        slice::from_raw_parts(data.cast::<u8>(), length)
    }))
}

#[expect(unsafe_code, reason = "the C API writes the strings into a buffer")]
fn strings(value: &Value, elements: usize) -> Result<Bytes, ort::Error> {
    let mut length = 0;
    // SAFETY: the value is a tensor of strings.
    let status = unsafe { (api().GetStringTensorDataLength)(value.0.as_ptr(), &raw mut length) };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    let (mut content, mut offsets) = (vec![0u8; length], vec![0usize; elements]);
    // SAFETY: the buffers are as long as said, the first as long as the value said its strings are.
    let status = unsafe {
        (api().GetStringTensorContent)(
            value.0.as_ptr(),
            content.as_mut_ptr().cast::<c_void>(),
            length,
            offsets.as_mut_ptr(),
            elements,
        )
    };
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(prefixed(&content, &offsets))
}

/// Strings that follow one another in `content`, each with its length in front.
fn prefixed(content: &[u8], starts: &[usize]) -> Bytes {
    let mut data = BytesMut::with_capacity(content.len() + 4 * starts.len());
    let ends = starts.iter().skip(1).copied().chain([content.len()]);
    for (start, end) in starts.iter().zip(ends) {
        let string = content.get(*start..end).unwrap_or_default();
        data.put_u32_le(u32::try_from(string.len()).unwrap_or(u32::MAX));
        data.extend_from_slice(string);
    }
    data.freeze()
}

const fn element(dtype: DType) -> Element {
    match dtype {
        DType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::U8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::I8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::I16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::I32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::I64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::F16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::F32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::U16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::U32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::U64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// The dtype of a number of `TensorProto.DataType`, if it is served.
pub(super) fn dtype_of_number(number: u64) -> Option<DType> {
    let is_it = |dtype: &DType| u64::from(number_of_dtype(*dtype)) == number;
    DType::ALL.into_iter().find(is_it)
}

/// A number of `TensorProto.DataType`; of dtypes that are served the C API has the same.
pub(super) const fn number_of_dtype(dtype: DType) -> u8 {
    element(dtype) as u8
}

/// The dtype whose element is `wanted`, if it is served.
pub(super) fn dtype(wanted: Element) -> Option<DType> {
    DType::ALL
        .into_iter()
        .find(|dtype| element(*dtype) == wanted)
}
