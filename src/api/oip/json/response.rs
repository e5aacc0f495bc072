//! Responses as JSON, with the data of some tensors behind it as they are.

use bytes::{Bytes, BytesMut};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};

use crate::api::oip::{InferResponse, datatype, invalid, shown};
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
    /// JSON, and the tensors in binary form.
    pub body: Bytes,
    /// Bytes of the JSON, if there is more.
    pub json_length: Option<usize>,
}

#[derive(serde::Serialize)]
struct Document<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<OutputDocument<'a>>,
}

#[derive(serde::Serialize)]
struct OutputDocument<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(serde::Serialize)]
struct BinaryParameters {
    binary_data_size: usize,
}

/// The body of `response`. Fails for an output that JSON has no form for and that was not asked for in binary form.
pub(in crate::api::oip) fn encode(response: &InferResponse, form: &Form) -> Result<Encoded, Error> {
    let outputs = response.outputs.iter();
    let outputs = outputs.map(|output| document(output, form.is_binary(&output.name)));
    let document = Document {
        model_name: &response.model_name,
        model_version: &response.model_version,
        id: response.id.as_deref(),
        outputs: outputs.collect::<Result<_, _>>()?,
    };
    let json = serde_json::to_vec(&document).map_err(|error| {
        Error::new(Kind::Internal, "The response cannot be written").with_detail(error)
    })?;
    let binary: Vec<&Bytes> = (response.outputs.iter())
        .filter(|output| form.is_binary(&output.name))
        .map(|output| output.tensor.data())
        .collect();
    if binary.is_empty() {
        return Ok(Encoded {
            body: json.into(),
            json_length: None,
        });
    }
    let length = binary.iter().map(|data| data.len()).sum::<usize>();
    let mut body = BytesMut::with_capacity(json.len() + length);
    body.extend_from_slice(&json);
    for data in binary {
        body.extend_from_slice(data);
    }
    Ok(Encoded {
        body: body.freeze(),
        json_length: Some(json.len()),
    })
}

fn document(output: &NamedTensor, is_binary: bool) -> Result<OutputDocument<'_>, Error> {
    let tensor = &output.tensor;
    if !is_binary {
        check(output)?;
    }
    Ok(OutputDocument {
        name: &output.name,
        datatype: datatype::name(tensor.dtype()),
        shape: tensor.shape(),
        parameters: is_binary.then(|| BinaryParameters {
            binary_data_size: tensor.data().len(),
        }),
        data: (!is_binary).then_some(Elements(tensor)),
    })
}

/// Refuses elements that JSON has no form for: a client that gets others in their place would not know.
fn check(output: &NamedTensor) -> Result<(), Error> {
    let tensor = &output.tensor;
    let data = tensor.data();
    let what = match tensor.dtype() {
        dtype @ (DType::F16 | DType::Bf16) => Some(datatype::name(dtype)),
        DType::F32 if !elements(data, f32::from_le_bytes).all(f32::is_finite) => {
            Some("values that are no finite numbers")
        }
        DType::F64 if !elements(data, f64::from_le_bytes).all(f64::is_finite) => {
            Some("values that are no finite numbers")
        }
        DType::Bytes
            if tensor
                .strings()
                .any(|text| std::str::from_utf8(text).is_err()) =>
        {
            Some("bytes that are no UTF-8")
        }
        _ => None,
    };
    let Some(what) = what else { return Ok(()) };
    Err(invalid(format!(
        "output {} holds {what}, which JSON has no form for: ask for it with binary_data",
        shown(&output.name)
    )))
}

fn elements<const N: usize, T>(
    data: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(move |chunk| read(*chunk))
}

/// The elements of a tensor, flat. Floats are written as the doubles that they are, so that every reader gets the same
/// value.
struct Elements<'a>(&'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.dtype() {
            DType::Bool => list(serializer, data.iter().map(|byte| *byte == 1)),
            DType::U8 => list(serializer, data.iter()),
            DType::U16 => list(serializer, elements(data, u16::from_le_bytes)),
            DType::U32 => list(serializer, elements(data, u32::from_le_bytes)),
            DType::U64 => list(serializer, elements(data, u64::from_le_bytes)),
            DType::I8 => list(serializer, elements(data, i8::from_le_bytes)),
            DType::I16 => list(serializer, elements(data, i16::from_le_bytes)),
            DType::I32 => list(serializer, elements(data, i32::from_le_bytes)),
            DType::I64 => list(serializer, elements(data, i64::from_le_bytes)),
            DType::F32 => list(
                serializer,
                elements(data, f32::from_le_bytes).map(f64::from),
            ),
            DType::F64 => list(serializer, elements(data, f64::from_le_bytes)),
            DType::Bytes => list(serializer, self.0.strings().map(String::from_utf8_lossy)),
            DType::F16 | DType::Bf16 => serializer.serialize_seq(Some(0))?.end(),
        }
    }
}

fn list<S: Serializer, T: Serialize>(
    serializer: S,
    elements: impl Iterator<Item = T>,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for element in elements {
        list.serialize_element(&element)?;
    }
    list.end()
}
