//! The JSON form of requests and responses, within limits.
//!
//! A request is read twice: first without the data of its tensors, to know how much of what there must be, then the
//! data, element by element into the bytes that the model takes. So nothing is kept that is larger than the tensors
//! themselves, and no element is read before it is known what it must be.

use serde::de::DeserializeOwned;

use crate::error::{Error, Kind};

mod data;
mod head;
mod response;

pub(in crate::api) use head::{Head, InputHead};
pub(super) use response::{Encoded, Form, encode};

use crate::tensor::{NamedTensor, Tensor};

/// Objects and lists within each other, at most.
const DEPTH_LIMIT: usize = 100;
/// Bytes of the parser's own text that a client is told.
const REASON_LIMIT: usize = 200;

/// A document of type `T`, which must be an object: a struct would be read from a list as well.
pub(in crate::api) fn parse<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    if document
        .trim_ascii_start()
        .first()
        .is_some_and(|first| *first != b'{')
    {
        let text = "failed to parse the request JSON: it must be an object";
        return Err(Error::new(Kind::BadRequest, text));
    }
    check_depth(document)?;
    serde_json::from_slice(document).map_err(|error| malformed(&error))
}

/// The tensors of a request whose data is in the document itself, at their places; `None` for the others.
pub(in crate::api) fn inputs(
    document: &[u8],
    heads: &[InputHead],
) -> Result<Vec<Option<NamedTensor>>, Error> {
    tensors(document, "inputs", heads)
}

/// The tensors that a handler's response lists under `outputs`; `None` if it lists none.
pub(super) fn handlers_outputs(document: &[u8]) -> Option<Result<Vec<NamedTensor>, Error>> {
    let heads = head::outputs_of_handler(document)?;
    let tensors = heads.and_then(|heads| tensors(document, "outputs", &heads));
    Some(tensors.map(|tensors| tensors.into_iter().flatten().collect()))
}

fn tensors(
    document: &[u8],
    list: &'static str,
    heads: &[InputHead],
) -> Result<Vec<Option<NamedTensor>>, Error> {
    if !heads.iter().any(|head| head.has_data) {
        return Ok(heads.iter().map(|_| None).collect());
    }
    let columns = data::read(document, list, heads).map_err(|error| malformed(&error))?;
    let tensors = heads.iter().zip(columns);
    let tensors = tensors.map(|(head, column)| {
        let Some(data) = column else { return Ok(None) };
        let tensor = Tensor::new(head.dtype, head.shape.clone(), data.into());
        let tensor = tensor.map_err(|error| head.refused(&error))?;
        Ok(Some(NamedTensor::new(head.name.as_str(), tensor)))
    });
    tensors.collect()
}

/// Refuses a document that nests deeper than it may, without a stack of its own.
fn check_depth(document: &[u8]) -> Result<(), Error> {
    let mut depth = 0usize;
    let mut bytes = document.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            let text = format!("JSON may nest {DEPTH_LIMIT} deep, this nests deeper");
            return Err(Error::new(Kind::BadRequest, text));
        }
    }
    Ok(())
}

/// Goes on behind the quote that ends a text.
fn skip_text(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn malformed(error: &serde_json::Error) -> Error {
    let reason = error.to_string();
    let cut = &reason[..reason.floor_char_boundary(REASON_LIMIT)];
    Error::new(
        Kind::BadRequest,
        format!("failed to parse the request JSON: {cut}"),
    )
}

#[cfg(test)]
mod tests;
