//! Tensors as ONNX Runtime's values, and back.
//!
//! Inputs are lent, not copied, wherever their data is aligned; outputs are copied once, or stay where they are. All `unsafe` that touches
//! tensor data is here.

use std::ffi::c_void;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use ort::memory::{Allocator, MemoryInfo};
use ort::session::SessionInputValue;
use ort::value::{
    DynTensor, DynTensorValueType, DynValue, DynValueTypeMarker, PrimitiveTensorElementType,
    Sequence, SequenceValueType, Shape, TensorElementType as Element, TensorRefMut,
};
use ort::{AsPointer as _, api, sys};

use super::session::SharedSession;
use crate::tensor::{DType, NamedTensor, Tensor};

// A tensor's data is little-endian, and is handed to native code as it is.
const _: () = assert!(cfg!(target_endian = "little"));

/// What the data of inputs is aligned to, in bytes. Kernels sum in another order, and round otherwise, where it starts
/// elsewhere: the same request would be answered with other last digits from one time to the next. Allocators and numpy
/// align to as much.
const ALIGNMENT: usize = align_of::<u128>();

/// Keys and values, as ONNX Runtime counts the parts of a map.
const KEYS: i32 = 0;
const VALUES: i32 = 1;

/// An input that is one tensor. Strings, and data that is not aligned to [`ALIGNMENT`], are copied; other data is lent.
pub(super) fn tensor_value(tensor: &Tensor) -> Result<SessionInputValue<'_>, ort::Error> {
    if !tensor.data().as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return Ok(copied(tensor)?.into());
    }
    match tensor.dtype() {
        DType::Bool => lent::<bool>(tensor),
        DType::U8 => lent::<u8>(tensor),
        DType::I8 => lent::<i8>(tensor),
        DType::I16 => lent::<i16>(tensor),
        DType::I32 => lent::<i32>(tensor),
        DType::I64 => lent::<i64>(tensor),
        DType::F16 => lent::<half::f16>(tensor),
        DType::Bf16 => lent::<half::bf16>(tensor),
        DType::F32 => lent::<f32>(tensor),
        DType::F64 => lent::<f64>(tensor),
        DType::U16 => lent::<u16>(tensor),
        DType::U32 => lent::<u32>(tensor),
        DType::U64 => lent::<u64>(tensor),
        DType::Bytes => Ok(copied(tensor)?.into()),
    }
}

/// An input that is a sequence of at least one tensor. The tensors are copied, because ONNX Runtime promises not to write to
/// inputs, but not to what it takes out of them.
pub(super) fn sequence_value(
    tensors: &[&Tensor],
) -> Result<SessionInputValue<'static>, ort::Error> {
    let copies = tensors.iter().map(|tensor| copied(tensor));
    let copies: Vec<_> = copies.collect::<Result<_, _>>()?;
    Ok(Sequence::new(copies)?.into())
}

/// An input that is a map. ONNX Runtime copies keys and values.
#[expect(
    unsafe_code,
    reason = "ort makes maps of Rust's strings alone, which hold no other bytes than UTF-8"
)]
pub(super) fn map_value(
    keys: &Tensor,
    values: &Tensor,
) -> Result<SessionInputValue<'static>, ort::Error> {
    // ONNX Runtime reads as many values as there are keys, without looking how many there are.
    if keys.shape().len() != 1 || keys.shape() != values.shape() {
        return Err(ort::Error::new_with_code(
            ort::ErrorCode::InvalidArgument,
            "keys and values of a map must have one axis, of the same size",
        ));
    }
    let parts = [tensor_value(keys)?, tensor_value(values)?];
    let pointers = [parts[0].ptr(), parts[1].ptr()];
    made(|map| {
        let kind = sys::ONNXType::ONNX_TYPE_MAP;
        // SAFETY: the two parts live during the call, which copies them. They have one axis of the same size.
        unsafe { (api().CreateValue)(pointers.as_ptr(), pointers.len(), kind, map) }
    })
    .map(Into::into)
}

/// Lends a tensor whose elements are of the type `T`.
#[expect(unsafe_code, reason = "hands out a pointer to the data")]
fn lent<T: PrimitiveTensorElementType + Debug>(
    tensor: &Tensor,
) -> Result<SessionInputValue<'_>, ort::Error> {
    let data = tensor.data().as_ptr().cast_mut().cast::<c_void>();
    // SAFETY: the data lies in host memory, is aligned, has the elements that the shape asks for, and is borrowed for as
    // long as the value. ONNX Runtime takes a mutable pointer but only reads graph inputs, and nothing else gets the value.
    let value = unsafe { TensorRefMut::<T>::from_raw(MemoryInfo::default(), data, shape(tensor)) };
    Ok(value?.into())
}

/// Copies a tensor into memory of ONNX Runtime, which aligns it.
#[expect(unsafe_code, reason = "writes into memory of ONNX Runtime")]
fn copied(tensor: &Tensor) -> Result<DynTensor, ort::Error> {
    let element = element(tensor.dtype());
    let mut copy = DynTensor::new(&Allocator::default(), element, shape(tensor))?;
    if tensor.dtype() == DType::Bytes {
        copy_strings(tensor, &mut copy)?;
        return Ok(copy);
    }
    let data = tensor.data();
    // SAFETY: the copy has the tensor's dtype and shape, so as many bytes, and nothing else points to them.
    unsafe { ptr::copy_nonoverlapping(data.as_ptr(), copy.data_ptr_mut().cast(), data.len()) };
    Ok(copy)
}

#[expect(
    unsafe_code,
    reason = "ort copies strings that are UTF-8 without NUL alone"
)]
fn copy_strings(tensor: &Tensor, copy: &mut DynTensor) -> Result<(), ort::Error> {
    for (index, string) in tensor.strings().enumerate() {
        let mut buffer = ptr::null_mut();
        let (place, length) = (&raw mut buffer, string.len());
        // SAFETY: the copy has more than `index` strings, since it has the tensor's shape; the status is used once.
        unsafe {
            let resize = api().GetResizedStringTensorElementBuffer;
            ort::Error::result_from_status(resize(copy.ptr_mut(), index, length, place))
        }?;
        // SAFETY: the buffer has room for exactly the bytes asked for, and nothing else points to it.
        unsafe { ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast::<u8>(), length) };
    }
    Ok(())
}

fn shape(tensor: &Tensor) -> Shape {
    let axes = tensor.shape().iter();
    Shape::new(axes.map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX)))
}

/// The value that a call of the C API writes to the place it is given.
#[expect(unsafe_code, reason = "takes ownership of what the C API made")]
fn made(
    call: impl FnOnce(*mut *mut sys::OrtValue) -> sys::OrtStatusPtr,
) -> Result<DynValue, ort::Error> {
    let mut value = ptr::null_mut();
    let status = call(&raw mut value);
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    let value = NonNull::new(value).ok_or_else(|| ort::Error::new("no value was made"))?;
    // SAFETY: nobody else owns the value, which the default allocator gave its memory.
    Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
}

/// From so many bytes on an output may stay where it is: copying fewer costs less than keeping their owner.
const STAYS_FROM: usize = 16 << 10;

/// How outputs may stay where ONNX Runtime put them.
#[derive(Clone, Copy)]
pub(super) struct StayingOutputs<'a> {
    /// What gave them. A constant of the graph is given as it lies in the session, which has to live as long.
    pub(super) session: &'a Arc<SharedSession>,
    /// What the run was given: lent, and gone soon.
    pub(super) inputs: &'a [NamedTensor],
}

impl StayingOutputs<'_> {
    /// Whether `data` is that of an input, as a graph may give it on.
    fn is_input(self, data: &[u8]) -> bool {
        let start = data.as_ptr().addr();
        self.inputs.iter().any(|input| {
            let lent = input.tensor.data().as_ptr_range();
            start < lent.end.addr() && start + data.len() > lent.start.addr()
        })
    }
}

/// An output that stays where it is.
struct Staying {
    tensor: DynTensor,
    length: usize,
    _session: Arc<SharedSession>,
}

impl AsRef<[u8]> for Staying {
    fn as_ref(&self) -> &[u8] {
        data(&self.tensor, self.length)
    }
}

/// What a run gave for one output, or a part of it. It lives no longer than the run's inputs, since a tensor of an input
/// may be given as it is. Errors are the rest of a sentence about the output.
pub(super) struct OutputValue<'a>(Option<DynValue>, PhantomData<&'a ()>);

impl OutputValue<'_> {
    /// Takes ownership of what a run wrote. Only an output that `is_optional` may hold nothing.
    ///
    /// # Safety
    /// `value` is null or a value that nobody else owns, given by a run whose inputs outlive it and whose session has the
    /// allocator.
    #[expect(unsafe_code, reason = "the caller vouches for the pointer")]
    pub(super) unsafe fn from_raw(
        value: *mut sys::OrtValue,
        is_optional: bool,
        allocator: &Allocator,
    ) -> Self {
        let value = NonNull::new(value).and_then(|value| {
            let mut is_there = 1;
            // SAFETY: the value lives, and the place written to is a local. The status is used once.
            let asked = if is_optional {
                unsafe {
                    let ask = api().HasValue;
                    ort::Error::result_from_status(ask(value.as_ptr(), &raw mut is_there))
                }
            } else {
                Ok(())
            };
            if asked.is_ok() && is_there != 0 {
                // SAFETY: nobody else owns the value.
                return Some(unsafe { DynValue::from_ptr(value, Some(allocator)) });
            }
            // SAFETY: nobody else owns the value, which is an optional that holds nothing, and it is not used again.
            unsafe { (api().ReleaseValue)(value.as_ptr()) };
            None
        });
        Self(value, PhantomData)
    }

    /// Whether it holds something, as an optional may not.
    pub(super) const fn has_value(&self) -> bool {
        self.0.is_some()
    }

    /// The value of a run that had no inputs, so that it outlives the run.
    pub(super) fn without_inputs(self) -> Option<DynValue> {
        self.0
    }

    /// The parts of a sequence.
    pub(super) fn parts(&self) -> Result<impl Iterator<Item = Result<Self, String>>, String> {
        let sequence = self.value()?.view();
        let sequence = sequence
            .downcast::<SequenceValueType<DynValueTypeMarker>>()
            .map_err(|error| error.to_string())?;
        let count = sequence.len();
        let part = move |index| match sequence.get(index) {
            Some(part) => Ok(Self(Some(part), PhantomData)),
            None => Err("has a part that cannot be read".to_owned()),
        };
        Ok((0..count).map(part))
    }

    /// The keys and the values of a map.
    pub(super) fn keys_and_values(&self) -> Result<(Tensor, Tensor), String> {
        let map = self.value()?;
        let part = |index| copied_out(&map_part(map, index).map_err(|error| error.to_string())?);
        Ok((part(KEYS)?, part(VALUES)?))
    }

    /// Copies a tensor out.
    pub(super) fn tensor(&self) -> Result<Tensor, String> {
        copied_out(self.value()?)
    }

    /// Takes a tensor out, without a copy if it is large and may stay.
    pub(super) fn into_tensor(self, stay: Option<StayingOutputs<'_>>) -> Result<Tensor, String> {
        let Some(stay) = stay else {
            return self.tensor();
        };
        let value = self.0.ok_or_else(not_computed)?;
        let tensor = value.downcast::<DynTensorValueType>();
        let tensor = tensor.map_err(|error| error.to_string())?;
        let head = TensorHead::of(&tensor)?;
        let bytes = head.bytes().filter(|bytes| *bytes >= STAYS_FROM);
        let Some(length) = bytes.filter(|bytes| !stay.is_input(data(&tensor, *bytes))) else {
            return head.copied_out(&tensor);
        };
        let staying = Staying {
            tensor,
            length,
            _session: Arc::clone(stay.session),
        };
        head.with(Bytes::from_owner(staying))
    }

    fn value(&self) -> Result<&DynValue, String> {
        self.0.as_ref().ok_or_else(not_computed)
    }
}

fn not_computed() -> String {
    "was not computed".to_owned()
}

#[expect(unsafe_code, reason = "ort reads keys that are Rust's strings alone")]
fn map_part(map: &DynValue, index: i32) -> Result<DynValue, ort::Error> {
    let allocator = Allocator::default();
    made(|part| {
        // SAFETY: the map and the allocator live. A part that does not exist is an error; what is handed out is a value of
        // its own.
        unsafe { (api().GetValue)(map.ptr(), index, allocator.ptr().cast_mut(), part) }
    })
}

fn copied_out(value: &DynValue) -> Result<Tensor, String> {
    let tensor = value.view().downcast::<DynTensorValueType>();
    let tensor = tensor.map_err(|error| error.to_string())?;
    TensorHead::of(&tensor)?.copied_out(&tensor)
}

/// A tensor of a run but for its data.
struct TensorHead {
    dtype: DType,
    shape: Vec<usize>,
    elements: usize,
}

impl TensorHead {
    fn of(tensor: &DynTensor) -> Result<Self, String> {
        // Of a run, only outputs themselves are copied to the host.
        if !tensor.memory_info().is_cpu_accessible() {
            return Err(
                "has tensors in a device's memory: copy them to the host inside the graph"
                    .to_owned(),
            );
        }
        let dtype = dtype(*tensor.data_type()).ok_or("has a dtype that is not served")?;
        let axes = tensor.shape().iter();
        let axes = axes.map(|axis| usize::try_from(*axis).map_err(|_| "has a negative axis"));
        let shape: Vec<usize> = axes.collect::<Result<_, _>>()?;
        let elements = if shape.contains(&0) {
            0
        } else {
            shape.iter().product()
        };
        Ok(Self {
            dtype,
            shape,
            elements,
        })
    }

    /// How long its data is; `None` for strings.
    fn bytes(&self) -> Option<usize> {
        self.dtype.size().map(|size| self.elements * size)
    }

    fn copied_out(self, tensor: &DynTensor) -> Result<Tensor, String> {
        let data = match self.bytes() {
            Some(length) => Bytes::copy_from_slice(data(tensor, length)),
            None => strings(tensor, self.elements).map_err(|error| error.to_string())?,
        };
        self.with(data)
    }

    fn with(self, data: Bytes) -> Result<Tensor, String> {
        Tensor::new(self.dtype, self.shape, data).map_err(|error| error.to_string())
    }
}

/// The data of a tensor in memory of the host, of which there are `length` bytes: the product of its own shape and the size of
/// its own dtype.
#[expect(
    unsafe_code,
    reason = "ort lends the data of types that it knows alone"
)]
fn data(tensor: &DynTensor, length: usize) -> &[u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the tensor lies in memory of the host, holds `length` bytes, and is borrowed for as long as they are.
    unsafe { slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}

#[expect(unsafe_code, reason = "ort reads strings that are UTF-8 alone")]
fn strings(tensor: &DynTensor, elements: usize) -> Result<Bytes, ort::Error> {
    let mut length = 0;
    // SAFETY: the value is a tensor of strings; the status is used once.
    unsafe {
        let measure = api().GetStringTensorDataLength;
        ort::Error::result_from_status(measure(tensor.ptr(), &raw mut length))
    }?;
    let (mut content, mut offsets) = (vec![0u8; length], vec![0usize; elements]);
    let (place, starts) = (content.as_mut_ptr().cast::<c_void>(), offsets.as_mut_ptr());
    // SAFETY: the buffers are as long as said, the first as long as the value said its strings are; the status is used once.
    unsafe {
        let copy = api().GetStringTensorContent;
        ort::Error::result_from_status(copy(tensor.ptr(), place, length, starts, elements))
    }?;
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
        DType::Bool => Element::Bool,
        DType::U8 => Element::Uint8,
        DType::I8 => Element::Int8,
        DType::I16 => Element::Int16,
        DType::I32 => Element::Int32,
        DType::I64 => Element::Int64,
        DType::F16 => Element::Float16,
        DType::Bf16 => Element::Bfloat16,
        DType::F32 => Element::Float32,
        DType::F64 => Element::Float64,
        DType::U16 => Element::Uint16,
        DType::U32 => Element::Uint32,
        DType::U64 => Element::Uint64,
        DType::Bytes => Element::String,
    }
}

/// The dtype of a number of `TensorProto.DataType`, if it is served.
pub(super) fn dtype_of_number(number: u64) -> Option<DType> {
    let is_it = |dtype: &DType| u64::from(number_of_dtype(*dtype)) == number;
    DType::ALL.into_iter().find(is_it)
}

/// A number of `TensorProto.DataType`; of dtypes that are served the C API has the same.
pub(super) fn number_of_dtype(dtype: DType) -> u8 {
    sys::ONNXTensorElementDataType::from(element(dtype)) as u8
}

/// The dtype whose element is `wanted`, if it is served.
pub(super) fn dtype(wanted: Element) -> Option<DType> {
    DType::ALL
        .into_iter()
        .find(|dtype| element(*dtype) == wanted)
}
