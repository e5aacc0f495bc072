//! Dtypes, shapes, checked tensors, and stacking tensors of many requests into a batch and splitting it again.
//!
//! A [`Tensor`] is checked when it is made: its data is exactly as long as its dtype and shape say. Elements are
//! little-endian and row-major. This module knows neither handlers nor backends.

use bytes::{Bytes, BytesMut};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

/// Most axes of a tensor. Other frameworks have the same limit.
pub const MAX_RANK: usize = 64;

/// Most inputs, and most outputs, of a model or a request.
pub const MAX_TENSORS: usize = 1024;

/// Most bytes of the name of an input or output.
pub const MAX_NAME: usize = 1024;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE half precision.
    F16,
    /// Brain floating point.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Variable-length elements, each prefixed by its length as a little-endian `u32`.
    Bytes,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
}

impl DType {
    /// Every dtype: those of the handler interface in its order, then those that it lacks.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
        Self::Bytes,
        Self::U16,
        Self::U32,
        Self::U64,
    ];

    /// Bytes of one element; `None` for [`DType::Bytes`].
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => Some(2),
            Self::I32 | Self::U32 | Self::F32 => Some(4),
            Self::I64 | Self::U64 | Self::F64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Whether all bytes are elements, so that data of the right length need not be looked at.
    pub const fn takes_any_bytes(self) -> bool {
        !matches!(self, Self::Bool | Self::Bytes)
    }

    /// The name used in the handler interface, in settings and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
            Self::F32 => "fp32",
            Self::F64 => "fp64",
            Self::Bytes => "bytes",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a tensor cannot exist, or cannot be stacked or split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape has more than [`MAX_RANK`] axes.
    #[error("{0} axes are more than the {MAX_RANK} a tensor may have")]
    Rank(usize),
    /// The number of elements or bytes overflows.
    #[error("shape {0:?} holds more elements than can be addressed")]
    Overflow(Vec<usize>),
    /// The data is not as long as dtype and shape say.
    #[error("{dtype} of shape {shape:?} takes {expected} bytes, got {actual}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Shape in elements.
        shape: Vec<usize>,
        /// Bytes that dtype and shape ask for.
        expected: usize,
        /// Bytes that the data has.
        actual: usize,
    },
    /// The length prefix of an element of [`DType::Bytes`] does not fit the data.
    #[error("bytes of shape {shape:?}: element {element} does not fit in the data")]
    Element {
        /// Shape in elements.
        shape: Vec<usize>,
        /// Index of that element.
        element: usize,
    },
    /// An element of a boolean tensor is neither 0 nor 1.
    #[error("a boolean is 0 or 1, got {0}")]
    Boolean(u8),
    /// Two tensors cannot be stacked: their dtypes differ, or their shapes beyond axis 0.
    #[error("cannot stack {dtype} {shape:?} onto {first_dtype} {first_shape:?}")]
    Mismatch {
        /// Dtype of the first tensor.
        first_dtype: DType,
        /// Shape of the first tensor.
        first_shape: Vec<usize>,
        /// Dtype of the tensor that differs.
        dtype: DType,
        /// Shape of the tensor that differs.
        shape: Vec<usize>,
    },
    /// A scalar has no axis 0, and so no rows to stack or split.
    #[error("a scalar has no rows to batch")]
    Scalar,
    /// The tensor has another number of rows than the batch.
    #[error("axis 0 has {actual} rows, the batch has {expected}")]
    Rows {
        /// Rows of the batch.
        expected: usize,
        /// Rows of the tensor.
        actual: usize,
    },
}

/// A dtype, a shape and data of exactly that size. Cheap to clone: the data is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Checks rank, overflow, length, and the elements of booleans and variable-length elements.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        if shape.len() > MAX_RANK {
            return Err(TensorError::Rank(shape.len()));
        }
        let elements = checked_elements(&shape)?;
        match dtype.size() {
            Some(size) => check_length(dtype, &shape, elements, size, &data)?,
            None => check_elements(&shape, elements, &data)?,
        }
        if dtype == DType::Bool
            && let Some(value) = data.iter().find(|value| **value > 1)
        {
            return Err(TensorError::Boolean(*value));
        }
        Ok(Self { dtype, shape, data })
    }

    /// Element type.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each axis, in elements.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements, little-endian, row-major.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same tensor, whose bytes are now in `data`: another copy of them, or one with an owner.
    #[must_use]
    pub fn with_moved_data(self, data: Bytes) -> Self {
        debug_assert_eq!(data.len(), self.data.len(), "the bytes are the same");
        Self { data, ..self }
    }

    /// Takes the data out.
    pub fn into_data(self) -> Bytes {
        self.data
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of axis 0; `None` for a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().copied()
    }

    /// The elements of a [`DType::Bytes`] tensor, in order; nothing for other dtypes.
    pub fn strings(&self) -> Strings<'_> {
        Strings {
            data: if self.dtype == DType::Bytes {
                &self.data
            } else {
                &[]
            },
        }
    }

    /// Stacks tensors along axis 0. Their dtypes must agree, and their shapes beyond axis 0.
    ///
    /// One tensor is returned as it is, without a copy.
    pub fn stack(tensors: &[&Self]) -> Result<Self, TensorError> {
        let first = *tensors.first().ok_or(TensorError::Scalar)?;
        let rows = stacked_rows(first, tensors)?;
        if tensors.len() == 1 {
            return Ok(first.clone());
        }
        let length = tensors.iter().map(|tensor| tensor.data.len()).sum();
        let mut data = BytesMut::with_capacity(length);
        for tensor in tensors {
            data.extend_from_slice(&tensor.data);
        }
        let mut shape = first.shape.clone();
        shape[0] = rows;
        Ok(Self {
            dtype: first.dtype,
            shape,
            data: data.freeze(),
        })
    }

    /// Splits along axis 0 into tensors of `rows[i]` rows each, without copying.
    pub fn split(&self, rows: &[usize]) -> Result<Vec<Self>, TensorError> {
        let actual = self.rows().ok_or(TensorError::Scalar)?;
        let expected = rows
            .iter()
            .fold(0usize, |sum, rows| sum.saturating_add(*rows));
        if actual != expected {
            return Err(TensorError::Rows { expected, actual });
        }
        let mut rest = self.data.clone();
        let parts = rows.iter().map(|&rows| {
            let mut shape = self.shape.clone();
            shape[0] = rows;
            let data = rest.split_to(self.bytes_of(&shape, &rest));
            Self {
                dtype: self.dtype,
                shape,
                data,
            }
        });
        Ok(parts.collect())
    }

    /// How many bytes the first elements of `data` take, as many elements as `shape` has.
    fn bytes_of(&self, shape: &[usize], data: &[u8]) -> usize {
        let elements: usize = shape.iter().product();
        match self.dtype.size() {
            Some(size) => elements * size,
            None => Strings { data }
                .take(elements)
                .map(|element| element.len() + 4)
                .sum(),
        }
    }
}

/// Iterates over variable-length elements. It ends at a length prefix that does not fit the data.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    data: &'a [u8],
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.data.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
        let (element, rest) = rest.split_at_checked(length)?;
        self.data = rest;
        Some(element)
    }
}

fn checked_elements(shape: &[usize]) -> Result<usize, TensorError> {
    // The product is checked as if no axis were zero: a zero must not hide an overflow of the others.
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis.max(1)))
        .and_then(|product| product.checked_mul(8))
        .ok_or_else(|| TensorError::Overflow(shape.to_vec()))?;
    Ok(shape.iter().product())
}

fn check_length(
    dtype: DType,
    shape: &[usize],
    elements: usize,
    size: usize,
    data: &[u8],
) -> Result<(), TensorError> {
    let expected = elements * size;
    if data.len() == expected {
        return Ok(());
    }
    Err(TensorError::Length {
        dtype,
        shape: shape.to_vec(),
        expected,
        actual: data.len(),
    })
}

fn check_elements(shape: &[usize], elements: usize, data: &[u8]) -> Result<(), TensorError> {
    let mut strings = Strings { data };
    for element in 0..elements {
        if strings.next().is_none() {
            return Err(TensorError::Element {
                shape: shape.to_vec(),
                element,
            });
        }
    }
    if strings.data.is_empty() {
        return Ok(());
    }
    Err(TensorError::Element {
        shape: shape.to_vec(),
        element: elements,
    })
}

fn stacked_rows(first: &Tensor, tensors: &[&Tensor]) -> Result<usize, TensorError> {
    let mut rows = 0usize;
    for tensor in tensors {
        let (Some(axis), Some(behind)) = (tensor.rows(), tensor.shape.get(1..)) else {
            return Err(TensorError::Scalar);
        };
        if tensor.dtype != first.dtype || Some(behind) != first.shape.get(1..) {
            return Err(TensorError::Mismatch {
                first_dtype: first.dtype,
                first_shape: first.shape.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
            });
        }
        rows = rows
            .checked_add(axis)
            .ok_or_else(|| TensorError::Overflow(tensor.shape.clone()))?;
    }
    Ok(rows)
}

/// A tensor and the name of the model's input or output it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    /// The input's or output's name.
    pub name: std::sync::Arc<str>,
    /// Its value.
    pub tensor: Tensor,
}

impl NamedTensor {
    /// A tensor under the name of an input or output.
    pub fn new(name: impl Into<std::sync::Arc<str>>, tensor: Tensor) -> Self {
        Self {
            name: name.into(),
            tensor,
        }
    }
}
