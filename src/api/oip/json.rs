//! The JSON form of requests and responses, within limits.
//!
//! A request is read in two parts: first all but the data of its tensors, to know how much of what there must be, then
//! the data, element by element into the bytes that the model takes. So nothing is kept that is larger than the tensors
//! themselves, no element is read before it is known what it must be, and each number is read as the element that it
//! becomes.

use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, truncated};
use crate::tensor::NamedTensor;

mod data;
mod divided;
mod head;
mod number;
mod response;

pub(in crate::api) use head::{Head, InputHead};
pub(super) use response::{Encoded, Form, encode};

use divided::Divided;

/// Objects and lists within each other, at most.
const DEPTH_LIMIT: usize = 100;
/// Bytes of what is wrong that a client gets.
const REASON_LIMIT: usize = 300;

/// A document of type `T` without tensors, which must be an object: a struct would be read from a list as well.
pub(in crate::api) fn parse<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    check(document)?;
    serde_json::from_slice(document).map_err(|error| failed(&error.to_string()))
}

/// A request, and those of its tensors whose data is in the document itself, at their places; `None` for the others.
pub(in crate::api) fn request(document: &[u8]) -> Result<(Head, Vec<Option<NamedTensor>>), Error> {
    check(document)?;
    let divided = Divided::new(document, "inputs");
    let head = Head::new(divided.parse()?)?;
    let inputs = divided.tensors(&head.inputs)?;
    Ok((head, inputs))
}

/// The tensors that a handler's response lists under `outputs`; `None` if it lists none.
pub(super) fn handlers_outputs(document: &[u8]) -> Option<Result<Vec<NamedTensor>, Error>> {
    check(document).ok()?;
    let divided = Divided::new(document, "outputs");
    let heads = head::outputs_of_handler(divided.parse().ok()?);
    let tensors = heads.and_then(|heads| divided.tensors(&heads));
    Some(tensors.map(|tensors| tensors.into_iter().flatten().collect()))
}

/// Refuses what is no object, and what nests too deep.
fn check(document: &[u8]) -> Result<(), Error> {
    let first = document.trim_ascii_start().first();
    if first.is_some_and(|first| *first != b'{') {
        return Err(failed("it must be an object"));
    }
    check_depth(document)
}

/// Refuses a document that nests deeper than it may, without a stack of its own.
fn check_depth(document: &[u8]) -> Result<(), Error> {
    let mut depth = 0usize;
    let mut bytes = document[plain(document)..].iter();
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
        let rest = bytes.as_slice();
        bytes = rest[plain(rest)..].iter();
    }
    Ok(())
}

/// How many bytes there are up to the next that begins or ends an object, a list or a text, or some fewer. Most of a
/// document are numbers, and these are passed many bytes at a time.
fn plain(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<32>();
    let is_special = |byte: u8| byte == b'"' || matches!(byte | 0x20, b'{' | b'}');
    // Without a branch for each byte.
    let has_special = |chunk: &[u8; 32]| {
        chunk
            .iter()
            .fold(false, |found, byte| found | is_special(*byte))
    };
    let chunk = chunks.iter().position(has_special);
    32 * chunk.unwrap_or(chunks.len())
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

/// The failure of a document that has something wrong at byte `at`.
fn malformed(reason: &str, document: &[u8], at: usize) -> Error {
    let (line, column) = place(document, at);
    let cut = truncated(reason, REASON_LIMIT);
    failed(&format!("{cut} at line {line} column {column}"))
}

/// Line and column of byte `at`, as the general parser counts them.
fn place(document: &[u8], at: usize) -> (usize, usize) {
    let before = &document[..at.min(document.len())];
    let is_newline = |byte: &u8| *byte == b'\n';
    let column = before.rsplit(is_newline).next().map_or(0, <[u8]>::len);
    (before.split(is_newline).count(), column)
}

fn failed(reason: &str) -> Error {
    let text = format!("failed to parse the request JSON: {reason}");
    Error::new(Kind::BadRequest, text)
}

#[cfg(test)]
mod tests;
