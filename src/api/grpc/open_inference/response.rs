//! Responses of inference, to messages. Raw data are handed on without a copy.

use std::collections::HashMap;

use super::wire::model_infer_response::InferOutputTensor;
use super::wire::{InferTensorContents, ModelInferResponse, Texts};
use crate::api::oip::{InferResponse, datatype};
use crate::tensor::{DType, NamedTensor, Tensor};

/// The message of a response: raw as its request was, or where an output has no other form.
pub(super) fn encode(response: InferResponse, is_raw: bool) -> ModelInferResponse {
    let has_contents = |output: &NamedTensor| datatype::contents(output.tensor.dtype()).is_some();
    let is_raw = is_raw || !response.outputs.iter().all(has_contents);
    let mut message = ModelInferResponse {
        model_name: response.model_name,
        model_version: response.model_version,
        id: response.id.unwrap_or_default(),
        outputs: Vec::with_capacity(response.outputs.len()),
        ..ModelInferResponse::default()
    };
    for output in response.outputs {
        let contents = (!is_raw).then(|| contents(&output.tensor));
        message.outputs.push(head(&output, contents));
        if is_raw {
            message.raw_output_contents.push(output.tensor.into_data());
        }
    }
    message
}

fn head(output: &NamedTensor, contents: Option<InferTensorContents>) -> InferOutputTensor {
    let shape = output.tensor.shape().iter();
    InferOutputTensor {
        name: output.name.to_string(),
        datatype: datatype::name(output.tensor.dtype()).to_owned(),
        shape: shape
            .map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX))
            .collect(),
        parameters: HashMap::new(),
        contents,
    }
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    let data = tensor.data();
    match tensor.dtype() {
        DType::Bool => contents.bool_contents = data.iter().map(|byte| *byte == 1).collect(),
        DType::U8 => contents.uint_contents = data.iter().map(|byte| u32::from(*byte)).collect(),
        DType::I8 => contents.int_contents = read(data, |bytes| i8::from_le_bytes(bytes).into()),
        DType::I16 => contents.int_contents = read(data, |bytes| i16::from_le_bytes(bytes).into()),
        DType::I32 => contents.int_contents = read(data, i32::from_le_bytes),
        DType::I64 => contents.int64_contents = read(data, i64::from_le_bytes),
        DType::U16 => contents.uint_contents = read(data, |bytes| u16::from_le_bytes(bytes).into()),
        DType::U32 => contents.uint_contents = read(data, u32::from_le_bytes),
        DType::U64 => contents.uint64_contents = read(data, u64::from_le_bytes),
        DType::F32 => contents.fp32_contents = read(data, f32::from_le_bytes),
        DType::F64 => contents.fp64_contents = read(data, f64::from_le_bytes),
        DType::Bytes => contents.bytes_contents = Texts::of(data),
        // These are raw.
        DType::F16 | DType::Bf16 => {}
    }
    contents
}

fn read<T, const N: usize>(data: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|chunk| element(*chunk)).collect()
}
