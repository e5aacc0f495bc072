//! Sequences without tensors, which the C API cannot make. A model of one node gives them.

use ort::environment::Environment;
use ort::session::builder::SessionBuilder;
use ort::value::DynValue;

use super::port::{Form, Port};
use super::session;
use super::value::number_of_dtype;
use crate::tensor::DType;

/// For each input that is a sequence, one without tensors; none where ONNX Runtime has none of that dtype, so that the
/// input must then have a tensor.
pub(super) fn sequences(environment: &Environment, inputs: &[Port]) -> Vec<Option<DynValue>> {
    let empty = |port: &Port| match &port.form {
        Form::Sequence(elements) => make(environment, elements.dtype)
            .inspect_err(|error| tracing::debug!(%error, "no empty sequence"))
            .ok(),
        Form::Tensor(_) | Form::Map { .. } | Form::Maps { .. } => None,
    };
    inputs.iter().map(empty).collect()
}

fn make(environment: &Environment, dtype: DType) -> Result<DynValue, ort::Error> {
    let session = SessionBuilder::new(environment)?
        .with_intra_threads(1)?
        .commit_from_memory(&model(number_of_dtype(dtype)))?;
    session::run_without_inputs(&session, OUTPUT, None)
}

/// A model without inputs whose output holds nothing.
pub(super) fn model_of_nothing() -> Vec<u8> {
    model(number_of_dtype(DType::F32))
}

/// The output of these models.
pub(super) const OUTPUT: &std::ffi::CStr = c"y";

/// `y = SequenceEmpty(dtype)`. Field numbers are those of `onnx.proto`.
fn model(element: u8) -> Vec<u8> {
    let y = message(1, OUTPUT.to_bytes());
    // The number of the field `type`, 20, does not fit into the first byte of a tag.
    let integer = [0xa0, 0x01, 2];
    let dtype = [&message(1, b"dtype"), &number(3, element)[..], &integer].concat();
    let node = [
        message(2, OUTPUT.to_bytes()),
        message(4, b"SequenceEmpty"),
        message(5, &dtype),
    ];
    let tensor = message(1, &number(1, element));
    let sequence = message(4, &message(1, &tensor));
    let graph = [
        message(1, &node.concat()),
        message(2, b"empty"),
        message(12, &[y, message(2, &sequence)].concat()),
    ];
    [
        number(1, IR).to_vec(),
        message(7, &graph.concat()),
        message(8, &number(2, OPSET)),
    ]
    .concat()
}

/// The first IR and operator set that have what is used.
const IR: u8 = 6;
const OPSET: u8 = 11;

/// A field that is a number below 128.
const fn number(field: u8, value: u8) -> [u8; 2] {
    [field << 3, value]
}

/// A field that is a message or text of fewer than 128 bytes.
fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[field << 3 | 2, length], content].concat()
}
