//! Named tensors: building them from typed values, and reading them back with checks.
//!
//! This module knows the layout of elements (little-endian, row-major; `bytes` with u32 length prefixes). Elements of a
//! tensor that stayed on the host are read by [`stored`].

mod element;
mod stored;
mod view;

use std::borrow::Cow;

pub use crate::bindings::lantern::handler::types::Dtype;
pub use element::Element;
pub use stored::Source;
pub use view::TensorView;

use crate::Error;
use stored::Stored;

/// A tensor with a name, an element type, a shape and its elements.
///
/// ```
/// use handler_sdk::{Dtype, Tensor};
///
/// let tensor = Tensor::from_vec("x", [2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::Fp32, &[2, 3][..]));
/// let view = tensor.view::<f32>()?;
/// assert_eq!(view.row(1), [4.0, 5.0, 6.0]);
/// # Ok::<(), handler_sdk::Error>(())
/// ```
#[derive(Debug)]
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<u32>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Inline(Vec<u8>),
    Stored(Stored),
}

impl Tensor {
    /// A tensor of `values`, row-major.
    ///
    /// # Errors
    /// Internal, if the product of `shape` is not the number of values.
    pub fn from_vec<T: Element>(
        name: impl Into<String>,
        shape: impl Into<Vec<u32>>,
        values: impl AsRef<[T]>,
    ) -> Result<Self, Error> {
        let (name, shape) = (name.into(), shape.into());
        let values = values.as_ref();
        let expected = element_count(&shape);
        if expected != Some(values.len()) {
            return Err(Error::internal(format!(
                "tensor `{name}`: shape {shape:?} does not hold {} elements",
                values.len()
            )));
        }
        let bytes = bytemuck::cast_slice::<T, u8>(values).to_vec();
        Ok(Self::from_bytes(name, T::DTYPE, shape, bytes))
    }

    /// A tensor whose zeroed elements `fill` writes in place: one copy less than [`Tensor::from_vec`] for large ones.
    ///
    /// # Errors
    /// Internal, if the product of `shape` overflows; and the errors of `fill`.
    pub fn build<T: Element>(
        name: impl Into<String>,
        shape: impl Into<Vec<u32>>,
        fill: impl FnOnce(&mut [T]) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let (name, shape) = (name.into(), shape.into());
        let length = element_count(&shape)
            .and_then(|count| count.checked_mul(size_of::<T>()))
            .ok_or_else(|| {
                Error::internal(format!("tensor `{name}`: shape {shape:?} overflows"))
            })?;
        let mut bytes = vec![0; length];
        if let Ok(elements) = bytemuck::checked::try_cast_slice_mut::<u8, T>(&mut bytes) {
            fill(elements)?;
        } else {
            // The allocator aligned the bytes to less than an element, so elements are written elsewhere and copied.
            let mut elements = vec![T::ZERO; length / size_of::<T>()];
            fill(&mut elements)?;
            bytes.copy_from_slice(bytemuck::cast_slice(&elements));
        }
        Ok(Self::from_bytes(name, T::DTYPE, shape, bytes))
    }

    /// A tensor of dtype `bytes`: one element of any length per value.
    ///
    /// # Errors
    /// Internal, if the product of `shape` is not the number of values or a value is 4 GiB or longer.
    pub fn from_strings<S: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: impl Into<Vec<u32>>,
        values: &[S],
    ) -> Result<Self, Error> {
        let (name, shape) = (name.into(), shape.into());
        if element_count(&shape) != Some(values.len()) {
            return Err(Error::internal(format!(
                "tensor `{name}`: shape {shape:?} does not hold {} strings",
                values.len()
            )));
        }
        let mut bytes =
            Vec::with_capacity(values.iter().map(|value| 4 + value.as_ref().len()).sum());
        for value in values {
            let value = value.as_ref();
            let length = u32::try_from(value.len()).map_err(|_| {
                Error::internal(format!("tensor `{name}`: a string of 4 GiB or more"))
            })?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        Ok(Self::from_bytes(name, Dtype::Bytes, shape, bytes))
    }

    /// A tensor of bytes as they cross the interface. Nothing is checked here: the host does.
    pub fn from_bytes(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<u32>>,
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            data: Data::Inline(bytes),
        }
    }

    /// A tensor whose elements are read from `source` on first use.
    pub fn from_source(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<u32>>,
        source: impl Source + 'static,
    ) -> Self {
        let data = Data::Stored(Stored::new(source));
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            data,
        }
    }

    /// The name, as the model's input or output is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Elements per axis, row-major. Axis 0 is this request's rows.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// The same tensor under another name.
    #[must_use]
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The elements' bytes. A large output that stayed on the host is read here, in pieces, once.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Inline(bytes) => bytes,
            Data::Stored(stored) => stored.bytes(),
        }
    }

    /// Bytes `[offset, offset + length)`, cut at the end; of a tensor on the host only these are read.
    pub fn read(&self, offset: u64, length: u32) -> Cow<'_, [u8]> {
        match &self.data {
            Data::Inline(bytes) => Cow::Borrowed(slice(bytes, offset, length)),
            Data::Stored(stored) => stored.read(offset, length),
        }
    }

    /// The elements as `T`, borrowed where their alignment allows it.
    ///
    /// # Errors
    /// Internal, if the dtype is not `T`'s, the length does not fit the shape, or a boolean is neither 0 nor 1.
    pub fn view<T: Element>(&self) -> Result<TensorView<'_, T>, Error> {
        self.check_dtype(T::DTYPE)?;
        let elements = view::elements(self.bytes())
            .ok_or_else(|| Error::internal(format!("tensor `{}`: invalid elements", self.name)))?;
        self.check_count(elements.len())?;
        Ok(TensorView::new(&self.shape, elements))
    }

    /// The elements of a tensor of dtype `bytes`.
    ///
    /// # Errors
    /// Internal, if the dtype is another one or the length prefixes do not fit the data and the shape.
    pub fn strings(&self) -> Result<Vec<&[u8]>, Error> {
        self.check_dtype(Dtype::Bytes)?;
        let strings = view::strings(self.bytes()).ok_or_else(|| {
            Error::internal(format!("tensor `{}`: a string is cut off", self.name))
        })?;
        self.check_count(strings.len())?;
        Ok(strings)
    }

    fn check_dtype(&self, wanted: Dtype) -> Result<(), Error> {
        if self.dtype == wanted {
            return Ok(());
        }
        let (name, dtype) = (&self.name, self.dtype);
        Err(Error::internal(format!(
            "tensor `{name}` is {dtype}, read as {wanted}"
        )))
    }

    fn check_count(&self, count: usize) -> Result<(), Error> {
        if element_count(&self.shape) == Some(count) {
            return Ok(());
        }
        let (name, shape) = (&self.name, &self.shape);
        Err(Error::internal(format!(
            "tensor `{name}`: {count} elements in shape {shape:?}"
        )))
    }

    /// Name, dtype, shape and bytes, for the conversion to the interface's type.
    pub(crate) fn into_parts(self) -> (String, Dtype, Vec<u32>, Vec<u8>) {
        let bytes = match self.data {
            Data::Inline(bytes) => bytes,
            Data::Stored(stored) => stored.into_bytes(),
        };
        (self.name, self.dtype, self.shape, bytes)
    }
}

/// The product of `shape`, or `None` if it overflows.
fn element_count(shape: &[u32]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |count, &axis| count.checked_mul(axis as usize))
}

/// Bytes `[offset, offset + length)` of `bytes`, cut at the end.
fn slice(bytes: &[u8], offset: u64, length: u32) -> &[u8] {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let end = start.saturating_add(length as usize).min(bytes.len());
    &bytes[start..end]
}

#[cfg(test)]
mod tests;
