//! The binary tensor data extension: which bytes of a body are JSON, and which belong to which tensor.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::HeaderMap;

use super::JSON_LENGTH;
use crate::api::oip::json::InputHead;
use crate::api::oip::{invalid, readable, shown};
use crate::catalog::Signature;
use crate::error::{Error, Kind};
use crate::model::{Arity, TensorSpec};
use crate::tensor::{DType, NamedTensor, Tensor};

/// A body, divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parts {
    /// A document, and what lies behind it.
    Document {
        /// JSON.
        json: Bytes,
        /// Data of tensors, one after the other.
        binary: Bytes,
    },
    /// One tensor, and no document.
    Tensor(Bytes),
}

impl Parts {
    /// Where the tensors lie that are as they are: their first and last addresses.
    pub(super) fn place(&self) -> Range<usize> {
        let (Self::Document { binary, .. } | Self::Tensor(binary)) = self;
        let place = binary.as_ptr_range();
        place.start.addr()..place.end.addr()
    }

    /// Bytes of JSON.
    pub(super) const fn json_length(&self) -> usize {
        match self {
            Self::Document { json, .. } => json.len(),
            Self::Tensor(_) => 0,
        }
    }
}

/// What the header says of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonLength<'a> {
    /// There is no header: all of it is JSON.
    All,
    /// Bytes of JSON.
    Bytes(usize),
    /// No number, or more than one header.
    Invalid(&'a str),
}

impl<'a> JsonLength<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(JSON_LENGTH).iter();
        let Some(value) = values.next() else {
            return Self::All;
        };
        let text = value.to_str().unwrap_or("").trim();
        // Signed, as in the reference: what is beyond 2^31 is no length.
        let length = text.parse::<i32>().ok();
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|_| values.next().is_none());
        length.map_or(Self::Invalid(text), Self::Bytes)
    }

    /// Where a body is divided.
    pub(super) const fn division(self) -> usize {
        match self {
            Self::Bytes(length) => length,
            Self::All | Self::Invalid(_) => usize::MAX,
        }
    }

    /// What a body is that was divided so.
    pub(super) fn parts(self, [json, binary]: [Bytes; 2]) -> Result<Parts, Error> {
        match self {
            Self::All => Ok(Parts::Document { json, binary }),
            Self::Bytes(0) => Ok(Parts::Tensor(binary)),
            Self::Bytes(length) if length == json.len() => Ok(Parts::Document { json, binary }),
            Self::Bytes(length) => Err(not_within(&length.to_string(), json.len())),
            Self::Invalid(text) => Err(not_within(text, json.len())),
        }
    }
}

/// A `length` of JSON that a body of so many `bytes` cannot have.
fn not_within(length: &str, bytes: usize) -> Error {
    let length = shown(length);
    let text = format!(
        "{JSON_LENGTH} must be a number from 0 to {bytes}, the length of the body, got {length}"
    );
    Error::new(Kind::BadRequest, text)
}

/// Gives every input its data: from the document where it was there, from `binary` where not, in order.
pub(super) fn attach(
    heads: &[InputHead],
    read: Vec<Option<NamedTensor>>,
    mut binary: Bytes,
) -> Result<Vec<NamedTensor>, Error> {
    let inputs = heads.iter().zip(read);
    let inputs = inputs.map(|(head, read)| match (read, size(head)?) {
        (Some(read), None) => Ok(read),
        (None, Some(size)) => tensor(head, take(head, &mut binary, size)?),
        (None, None) => Err(refused(head, "must have data or binary_data_size")),
        (Some(_), Some(_)) => Err(refused(head, "has both data and binary_data_size")),
    });
    let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
    if binary.is_empty() {
        return Ok(inputs);
    }
    let text = format!("unexpected additional input data: {} bytes", binary.len());
    Err(invalid(text))
}

fn size(head: &InputHead) -> Result<Option<u64>, Error> {
    head.parameters.count("binary_data_size")
}

fn take(head: &InputHead, binary: &mut Bytes, size: u64) -> Result<Bytes, Error> {
    let left = binary.len();
    match usize::try_from(size) {
        Ok(size) if size <= left => Ok(binary.split_to(size)),
        _ => {
            let missing = size.saturating_sub(left as u64);
            Err(invalid(format!(
                "unexpected size for input {}, expecting {missing} additional bytes",
                shown(&head.name)
            )))
        }
    }
}

fn tensor(head: &InputHead, data: Bytes) -> Result<NamedTensor, Error> {
    let data = readable(head.dtype, data);
    let tensor = Tensor::new(head.dtype, head.shape.clone(), data);
    let tensor = tensor.map_err(|error| head.refused(&error))?;
    Ok(NamedTensor::new(head.name.as_str(), tensor))
}

fn refused(head: &InputHead, rule: &str) -> Error {
    invalid(format!("input {} {rule}", shown(&head.name)))
}

/// The one input that a model needs as a body that holds nothing else. It is one row; one axis beside may vary, and its size
/// follows from that of the body. BYTES are one element.
pub(super) fn whole(signature: &Signature, body: Bytes) -> Result<NamedTensor, Error> {
    let needed = signature.inputs.iter();
    let needed: Vec<_> = needed
        .filter(|spec| spec.arity != Arity::Optional)
        .collect();
    let [spec] = needed[..] else {
        return Err(invalid(format!(
            "a body without JSON needs a model of one input, this one has {}",
            needed.len()
        )));
    };
    let (row, dtype) = row(spec, signature.is_batchable())?;
    let (shape, data) = match dtype.size() {
        Some(size) => (solve(spec, row, size, body.len())?, readable(dtype, body)),
        None => one_element(spec, row, &body)?,
    };
    let tensor = Tensor::new(dtype, shape, data);
    let tensor = tensor.map_err(|error| invalid(error.to_string()))?;
    Ok(NamedTensor::new(spec.name.clone(), tensor))
}

/// The shape of one row, and its dtype.
fn row(spec: &TensorSpec, is_batched: bool) -> Result<(Vec<Option<usize>>, DType), Error> {
    let (Some(mut shape), Some(dtype)) = (spec.shape.clone(), spec.dtype) else {
        return Err(invalid(format!(
            "a body without JSON needs a model that says its input's dtype and shape, this one takes {spec}: declare them \
             (lantern: inputs) or send JSON"
        )));
    };
    if let (true, Some(rows)) = (is_batched, shape.first_mut()) {
        rows.get_or_insert(1);
    }
    Ok((shape, dtype))
}

/// The shape with the axis that varies chosen so that it holds `length` bytes.
fn solve(
    spec: &TensorSpec,
    shape: Vec<Option<usize>>,
    size: usize,
    length: usize,
) -> Result<Vec<usize>, Error> {
    let known = shape.iter().flatten();
    let known = known.fold(size, |product, axis| product.saturating_mul(*axis));
    let varying = shape.iter().filter(|axis| axis.is_none()).count();
    let is_whole = known > 0 && length.is_multiple_of(known);
    if varying > 1 || (varying == 1 && !is_whole) {
        return Err(invalid(format!(
            "a body of {length} bytes without JSON makes no {spec}"
        )));
    }
    let axis = length.checked_div(known).unwrap_or(0);
    Ok(shape.into_iter().map(|own| own.unwrap_or(axis)).collect())
}

fn one_element(
    spec: &TensorSpec,
    shape: Vec<Option<usize>>,
    body: &[u8],
) -> Result<(Vec<usize>, Bytes), Error> {
    debug_assert_eq!(
        spec.dtype,
        Some(DType::Bytes),
        "every other dtype has a size"
    );
    let shape: Vec<usize> = shape.into_iter().map(|axis| axis.unwrap_or(1)).collect();
    let length = u32::try_from(body.len());
    match length {
        Ok(length) if shape.iter().all(|axis| *axis == 1) => {
            let mut data = BytesMut::with_capacity(4 + body.len());
            data.put_u32_le(length);
            data.put_slice(body);
            Ok((shape, data.freeze()))
        }
        _ => Err(invalid(format!(
            "a body without JSON makes no {spec}: it is one element"
        ))),
    }
}
