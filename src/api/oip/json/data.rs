//! The data of a tensor, from JSON into the bytes that a model takes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::{InputHead, number};
use crate::api::oip::{datatype, shown};
use crate::error::truncated;
use crate::tensor::DType;

/// Bytes of an element that a message shows.
const SHOWN: usize = 64;

/// What is wrong, and where in the document.
pub(super) struct Wrong {
    pub reason: String,
    pub at: usize,
}

/// The bytes of the data that lies at `place` of `document`. Elements are in lists within each other, or in one;
/// `document` is known not to nest too deep.
pub(super) fn read(
    head: &InputHead,
    document: &[u8],
    place: Range<usize>,
) -> Result<Vec<u8>, Wrong> {
    let text = std::str::from_utf8(&document[place.clone()]).map_err(|error| Wrong {
        reason: "a byte that is not UTF-8".to_owned(),
        at: place.start + error.valid_up_to(),
    })?;
    let mut reader = Reader { text, at: 0 };
    let column = Column::new(head, place.len());
    let bytes = column.and_then(|mut column| {
        reader.list(&mut column)?;
        column.finish()
    });
    bytes.map_err(|reason| Wrong {
        reason,
        at: place.start + reader.at,
    })
}

/// Whether a number or a literal cannot go on with this byte.
pub(super) const fn ends_word(byte: u8) -> bool {
    const ENDS: [bool; 256] = {
        let mut ends = [false; 256];
        let mut bytes = b",:[]{}\" \t\r\n".as_slice();
        while let [byte, rest @ ..] = bytes {
            ends[*byte as usize] = true;
            bytes = rest;
        }
        ends
    };
    ENDS[byte as usize]
}

/// Whether JSON takes this byte for a space.
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Goes through lists of elements.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn list(&mut self, column: &mut Column) -> Result<(), String> {
        self.expect(b'[', "expected a list of elements")?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.item(column)?;
            if self.peek() != Some(b',') {
                return self.expect(b']', "expected `,` or `]`");
            }
            self.at += 1;
        }
    }

    fn item(&mut self, column: &mut Column) -> Result<(), String> {
        match self.peek() {
            Some(b'[') => self.list(column),
            Some(b'"') => column.push_text(&self.quoted()?),
            _ => column.push_word(self.word(column)?),
        }
    }

    /// A number or a literal.
    fn word(&mut self, column: &Column) -> Result<&'a str, String> {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(ends_word).unwrap_or(rest.len());
        if length == 0 {
            let datatype = datatype::name(column.head.dtype);
            return Err(format!("expected an element of {datatype}"));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    /// A text in quotes.
    fn quoted(&mut self) -> Result<Cow<'a, str>, String> {
        let rest = &self.text[self.at..];
        let mut bytes = rest.as_bytes()[1..].iter();
        super::skip_text(&mut bytes);
        let quoted = &rest[..rest.len() - bytes.len()];
        self.at += quoted.len();
        let is_plain = quoted.bytes().all(|byte| !matches!(byte, b'\\' | ..0x20));
        let text = quoted[1..].strip_suffix('"');
        if let (true, Some(text)) = (is_plain, text) {
            return Ok(Cow::Borrowed(text));
        }
        let text = serde_json::from_str(quoted).map_err(|error| reason(&error))?;
        Ok(Cow::Owned(text))
    }

    /// The next byte that is no space; it stays.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let spaces = rest.iter().position(|byte| !is_space(*byte))?;
        self.at += spaces;
        Some(rest[spaces])
    }

    fn expect(&mut self, wanted: u8, otherwise: &str) -> Result<(), String> {
        if self.peek() != Some(wanted) {
            return Err(otherwise.to_owned());
        }
        self.at += 1;
        Ok(())
    }
}

/// The general parser's words without its place, which is counted from elsewhere.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map(|(reason, _)| reason.to_owned());
    reason.unwrap_or(text)
}

/// The elements of one tensor as they come.
struct Column<'a> {
    head: &'a InputHead,
    /// Elements that the shape asks for.
    expected: usize,
    elements: usize,
    bytes: Vec<u8>,
}

impl<'a> Column<'a> {
    /// A column for `head`, whose data is `room` bytes of JSON.
    fn new(head: &'a InputHead, room: usize) -> Result<Self, String> {
        let axes = head.shape.iter();
        let expected = axes.fold(1usize, |product, axis| product.saturating_mul(*axis));
        // Each element takes a byte of the document and one that parts it from the next.
        let has_room = expected <= room / 2 + 1;
        let column = Self {
            head,
            expected,
            elements: 0,
            bytes: Vec::new(),
        };
        if !has_room {
            return Err(column.mismatch("fewer"));
        }
        let size = head.dtype.size().unwrap_or(4);
        Ok(Self {
            bytes: Vec::with_capacity(expected * size),
            ..column
        })
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        if self.elements == self.expected {
            return Ok(self.bytes);
        }
        Err(self.mismatch(&self.elements.to_string()))
    }

    fn mismatch(&self, actual: &str) -> String {
        format!(
            "input {} of shape {:?} takes {} elements, got {actual}",
            shown(&self.head.name),
            self.head.shape,
            self.expected
        )
    }

    fn wrong(&self, value: impl fmt::Display) -> String {
        datatype::refusal(&self.head.name, value, self.head.dtype)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.elements == self.expected {
            return Err(self.mismatch("more"));
        }
        self.elements += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// A number or a literal.
    fn push_word(&mut self, word: &str) -> Result<(), String> {
        macro_rules! push {
            ($element:expr) => {
                match $element {
                    Some(element) => self.push(&element.to_le_bytes()),
                    None => Err(self.wrong(truncated(word, SHOWN))),
                }
            };
        }
        match self.head.dtype {
            DType::Bool => push!(flag(word)),
            DType::U8 => push!(number::integer::<u8>(word)),
            DType::I8 => push!(number::integer::<i8>(word)),
            DType::I16 => push!(number::integer::<i16>(word)),
            DType::I32 => push!(number::integer::<i32>(word)),
            DType::I64 => push!(number::integer::<i64>(word)),
            DType::U16 => push!(number::integer::<u16>(word)),
            DType::U32 => push!(number::integer::<u32>(word)),
            DType::U64 => push!(number::integer::<u64>(word)),
            DType::F16 => push!(number::half(word)),
            DType::Bf16 => push!(number::brain(word)),
            DType::F32 => push!(number::single(word)),
            DType::F64 => push!(number::double(word)),
            DType::Bytes => Err(self.wrong(truncated(word, SHOWN))),
        }
    }

    fn push_text(&mut self, value: &str) -> Result<(), String> {
        match (self.head.dtype, u32::try_from(value.len())) {
            (DType::Bytes, Ok(length)) => {
                self.push(&length.to_le_bytes())?;
                self.bytes.extend_from_slice(value.as_bytes());
                Ok(())
            }
            _ => Err(self.wrong(shown(value))),
        }
    }
}

fn flag(word: &str) -> Option<u8> {
    match word {
        "true" => Some(1),
        "false" => Some(0),
        _ => None,
    }
}
