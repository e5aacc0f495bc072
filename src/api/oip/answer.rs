//! A handler's response as the tensors that a client of this protocol waits for.
//!
//! A handler that speaks the protocol answers JSON with `outputs`, as one behind TorchServe's `kservev2` envelope does.
//! Whatever another one answers becomes one output: a BYTES tensor with the body in it.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::json;
use crate::error::{Error, Kind};
use crate::payload::Response;
use crate::tensor::{DType, NamedTensor, Tensor};

/// The output that holds a body.
const OUTPUT: &str = "response";
/// Bytes of a handler's failure that a client gets.
const TEXT_LIMIT: usize = 4096;

/// The tensors of a response. One that says it failed is a failure.
pub(super) fn tensors(response: &Response) -> Result<Vec<NamedTensor>, Error> {
    if response.status() >= 400 {
        return Err(failure(response));
    }
    if is_json(response.content_type())
        && let Some(outputs) = json::handlers_outputs(response.body())
    {
        return outputs.map_err(|error| unreadable(&error));
    }
    Ok(vec![whole(response.body())?])
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("");
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// The handler chose the status and wrote the text.
fn failure(response: &Response) -> Error {
    let kind = match response.status() {
        400..=499 => Kind::BadRequest,
        503 => Kind::HandlerUnavailable,
        _ => Kind::HandlerFailed,
    };
    let body = response.body();
    let text = &body[..body.len().min(TEXT_LIMIT)];
    Error::new(kind, String::from_utf8_lossy(text).trim())
}

/// The handler lists tensors, and they are none: that is not the client's doing.
fn unreadable(error: &Error) -> Error {
    let text = format!("The handler's response is not valid: {}", error.message());
    Error::new(Kind::HandlerOutput, text)
}

fn whole(body: &Bytes) -> Result<NamedTensor, Error> {
    let length = u32::try_from(body.len());
    let length = length.map_err(|_| too_long(body.len()))?;
    let mut data = BytesMut::with_capacity(4 + body.len());
    data.put_u32_le(length);
    data.put_slice(body);
    let tensor = Tensor::new(DType::Bytes, vec![1], data.freeze());
    let tensor = tensor.map_err(|error| too_long(body.len()).with_detail(error))?;
    Ok(NamedTensor::new(OUTPUT, tensor))
}

fn too_long(length: usize) -> Error {
    let text = format!("The handler's response of {length} bytes does not fit into a tensor");
    Error::new(Kind::HandlerOutput, text)
}
