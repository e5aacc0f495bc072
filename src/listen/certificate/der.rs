//! The little of DER that keys need.

use x509_parser::asn1_rs::{Any, FromDer as _, Oid, Tag};

/// The elements of a SEQUENCE; `None` if `bytes` are something else.
pub fn sequence(bytes: &[u8]) -> Option<Vec<Any<'_>>> {
    let (_, whole) = Any::from_der(bytes).ok()?;
    (whole.tag() == Tag::Sequence).then(|| elements(whole.data))?
}

/// The elements that stand one after the other in `rest`.
pub fn elements(mut rest: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (next, element) = Any::from_der(rest).ok()?;
        elements.push(element);
        rest = next;
    }
    Some(elements)
}

/// An object identifier, with dots.
pub fn identifier(element: &Any<'_>) -> Option<String> {
    let identifier = Oid::try_from(element).ok()?;
    Some(identifier.to_id_string())
}

/// The identifier in an `AlgorithmIdentifier`.
pub fn algorithm(element: &Any<'_>) -> Option<String> {
    elements(element.data)?.first().and_then(identifier)
}

/// An element with `contents`. Lengths from 128 on are written with as few bytes as there are, after their number.
pub fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let digits = &length[zeros..];
    let mut element = vec![tag];
    match digits {
        [] => element.push(0),
        [short @ ..0x80] => element.push(*short),
        _ => {
            // There are at most eight.
            element.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            element.extend_from_slice(digits);
        }
    }
    element.extend_from_slice(contents);
    element
}
