//! Responses as JSON, with the data of some tensors behind it as they are.

use bytes::Bytes;
use half::{bf16, f16};
use serde::Serialize;

use super::number;
use crate::api::oip::{InferResponse, datatype, invalid, shown};
use crate::budget::{Charge, UNCOUNTED};
use crate::error::{Error, Kind};
use crate::tensor::{DType, NamedTensor, Tensor};

/// In which form outputs are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::api::oip) struct Form {
    /// Of outputs that are not named below.
    pub is_binary: bool,
    /// Of those that are.
    pub by_name: Vec<(String, bool)>,
}

impl Form {
    /// Whether no output is written as JSON, unless it is named so.
    pub(in crate::api::oip) fn is_all_binary(&self) -> bool {
        self.is_binary && self.by_name.iter().all(|(_, is_binary)| *is_binary)
    }

    /// A member of a list has the form of the list.
    fn is_binary(&self, name: &str) -> bool {
        let said = |name: &str| {
            let mut named = self.by_name.iter();
            named.find_map(|(own, is_binary)| (own == name).then_some(*is_binary))
        };
        let list = name.rsplit_once('.');
        let list = list.filter(|(_, member)| member.parse::<usize>().is_ok());
        said(name)
            .or_else(|| said(list?.0))
            .unwrap_or(self.is_binary)
    }
}

/// A response's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api::oip) struct Encoded {
    /// JSON.
    pub first: Bytes,
    /// The tensors in binary form, behind it.
    pub binary: Vec<Bytes>,
    /// Bytes of the JSON, if there is more.
    pub json_length: Option<usize>,
}

impl Encoded {
    /// Bytes that were not charged when their tensors came: JSON, and tensors that are too small to be counted one by one.
    pub(in crate::api::oip) fn uncharged(&self) -> usize {
        let small = self.binary.iter().map(Bytes::len);
        let small: usize = small.filter(|length| *length <= UNCOUNTED).sum();
        self.first.len() + small
    }

    /// Ties `charge` to what is sent last.
    pub(in crate::api::oip) fn hold(&mut self, charge: Charge) {
        let last = self.binary.last_mut().unwrap_or(&mut self.first);
        *last = charge.hold(std::mem::take(last));
    }

    /// The parts of the body, in order.
    pub(in crate::api::oip) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.binary)
    }
}

/// A response but for its outputs.
#[derive(Serialize)]
struct Document<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

/// An output but for its data.
#[derive(Serialize)]
struct OutputDocument<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryParameters>,
}

#[derive(Serialize)]
struct BinaryParameters {
    binary_data_size: usize,
}

/// The body of `response`. Fails for texts that are no UTF-8 and were not asked for in binary form.
pub(in crate::api::oip) fn encode(response: &InferResponse, form: &Form) -> Result<Encoded, Error> {
    let mut json = Vec::new();
    write_document(&mut json, response, form)?;
    let binary: Vec<Bytes> = (response.outputs.iter())
        .filter(|output| form.is_binary(&output.name))
        .map(|output| output.tensor.data().clone())
        .collect();
    Ok(Encoded {
        json_length: (!binary.is_empty()).then_some(json.len()),
        first: json.into(),
        binary,
    })
}

fn write_document(json: &mut Vec<u8>, response: &InferResponse, form: &Form) -> Result<(), Error> {
    let document = Document {
        model_name: &response.model_name,
        model_version: &response.model_version,
        id: response.id.as_deref(),
    };
    write_open(json, &document)?;
    json.extend_from_slice(b",\"outputs\":[");
    for (index, output) in response.outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_output(json, output, form.is_binary(&output.name))?;
    }
    json.extend_from_slice(b"]}");
    Ok(())
}

fn write_output(json: &mut Vec<u8>, output: &NamedTensor, is_binary: bool) -> Result<(), Error> {
    let tensor = &output.tensor;
    let document = OutputDocument {
        name: &output.name,
        datatype: datatype::name(tensor.dtype()),
        shape: tensor.shape(),
        parameters: is_binary.then(|| BinaryParameters {
            binary_data_size: tensor.data().len(),
        }),
    };
    write_open(json, &document)?;
    if !is_binary {
        check(output)?;
        json.extend_from_slice(b",\"data\":[");
        write_elements(json, tensor).map_err(unwritten)?;
        json.push(b']');
    }
    json.push(b'}');
    Ok(())
}

/// An object, which has members, without the brace that ends it.
fn write_open(json: &mut Vec<u8>, object: &impl Serialize) -> Result<(), Error> {
    serde_json::to_writer(&mut *json, object).map_err(unwritten)?;
    json.pop();
    Ok(())
}

fn unwritten(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "The response cannot be written").with_detail(error)
}

/// Refuses elements that JSON has no form for: a client that gets others in their place would not know.
fn check(output: &NamedTensor) -> Result<(), Error> {
    let mut texts = output.tensor.strings();
    if texts.all(|text| std::str::from_utf8(text).is_ok()) {
        return Ok(());
    }
    Err(invalid(format!(
        "output {} holds bytes that are no UTF-8, which JSON has no form for: ask for it with binary_data",
        shown(&output.name)
    )))
}

/// The elements of a tensor, flat. Floats are written as the doubles that they are, so that every reader gets the same
/// value.
fn write_elements(json: &mut Vec<u8>, tensor: &Tensor) -> serde_json::Result<()> {
    let data = tensor.data();
    let float = |json: &mut Vec<u8>, value: f64| write_float(json, value);
    match tensor.dtype() {
        DType::Bool => list(json, data.iter().map(|byte| *byte == 1), write),
        DType::U8 => list(json, data.iter(), write),
        DType::I8 => list(json, elements(data, i8::from_le_bytes), write),
        DType::I16 => list(json, elements(data, i16::from_le_bytes), write),
        DType::I32 => list(json, elements(data, i32::from_le_bytes), write),
        DType::I64 => list(json, elements(data, i64::from_le_bytes), write),
        DType::U16 => list(json, elements(data, u16::from_le_bytes), write),
        DType::U32 => list(json, elements(data, u32::from_le_bytes), write),
        DType::U64 => list(json, elements(data, u64::from_le_bytes), write),
        DType::F16 => list(
            json,
            elements(data, |bytes| f16::from_le_bytes(bytes).to_f64()),
            float,
        ),
        DType::Bf16 => list(
            json,
            elements(data, |bytes| bf16::from_le_bytes(bytes).to_f64()),
            float,
        ),
        DType::F32 => list(
            json,
            elements(data, |bytes| f32::from_le_bytes(bytes).into()),
            float,
        ),
        DType::F64 => list(json, elements(data, f64::from_le_bytes), float),
        DType::Bytes => list(json, tensor.strings().map(String::from_utf8_lossy), write),
    }
}

fn elements<const N: usize, T>(
    data: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(move |chunk| read(*chunk))
}

fn list<T>(
    json: &mut Vec<u8>,
    elements: impl Iterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    for (index, element) in elements.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, element)?;
    }
    Ok(())
}

fn write(json: &mut Vec<u8>, element: impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(json, &element)
}

fn write_float(json: &mut Vec<u8>, value: f64) -> serde_json::Result<()> {
    if value.is_finite() {
        return write(json, value);
    }
    let literal = if value.is_nan() {
        number::NAN
    } else if value > 0.0 {
        number::INFINITY
    } else {
        number::MINUS_INFINITY
    };
    json.extend_from_slice(literal.as_bytes());
    Ok(())
}
