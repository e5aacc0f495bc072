//! A document, parted from the data of its tensors.
//!
//! What is left is small and read by the general parser. The data is read by [`data`](super::data): it may hold numbers
//! that JSON has no form for, and each of its numbers goes straight into the bytes that the model takes.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;

use super::{InputHead, data, malformed};
use crate::error::{Error, Kind};
use crate::tensor::{MAX_TENSORS, NamedTensor, Tensor};

/// What stands in the place of data.
const STAND_IN: u8 = b'0';

/// A document and the places of data in it.
pub(super) struct Divided<'a> {
    document: &'a [u8],
    /// The document with a number in place of each tensor's data.
    rest: Cow<'a, [u8]>,
    /// Where the data of each tensor lies, in the order of the list.
    data: Vec<Option<Range<usize>>>,
}

impl<'a> Divided<'a> {
    /// Looks for the data of the tensors under `list`. In what is no JSON it finds some of it, or none.
    pub(super) fn new(document: &'a [u8], list: &str) -> Self {
        let mut data = Vec::new();
        let mut cursor = Cursor { document, at: 0 };
        // Where the cursor stops early, the general parser says what is wrong.
        let _ = cursor.document(list.as_bytes(), &mut data);
        Self {
            document,
            rest: without(document, data.iter().flatten()),
            data,
        }
    }

    /// What is left, as a `T`.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.rest).map_err(|error| self.refused(&error))
    }

    /// The tensors of `heads`, which come from the same document; `None` for those that have no data in it.
    pub(super) fn tensors(&self, heads: &[InputHead]) -> Result<Vec<Option<NamedTensor>>, Error> {
        let tensors = heads.iter().enumerate().map(|(index, head)| {
            let data = self.data.get(index).cloned().flatten();
            match data {
                Some(data) => self.tensor(head, data).map(Some),
                None if head.has_data => Err(self.lost()),
                None => Ok(None),
            }
        });
        tensors.collect()
    }

    fn tensor(&self, head: &InputHead, place: Range<usize>) -> Result<NamedTensor, Error> {
        let data = data::read(head, self.document, place);
        let data = data.map_err(|wrong| malformed(&wrong.reason, self.document, wrong.at))?;
        let tensor = Tensor::new(head.dtype, head.shape.clone(), data.into());
        let tensor = tensor.map_err(|error| head.refused(&error))?;
        Ok(NamedTensor::new(head.name.as_str(), tensor))
    }

    /// The general parser saw data where the cursor saw none: they are meant to agree on every document.
    fn lost(&self) -> Error {
        Error::new(Kind::Internal, "The request could not be read")
            .with_detail(format!("data not found among {} places", self.data.len()))
    }

    /// The general parser's error, with its place in the whole document.
    fn refused(&self, error: &serde_json::Error) -> Error {
        let text = error.to_string();
        let reason = text
            .rsplit_once(" at line ")
            .map_or(&*text, |(reason, _)| reason);
        let mut at = offset(&self.rest, error.line(), error.column());
        for data in self.data.iter().flatten() {
            if at > data.start {
                at += data.len() - 1;
            }
        }
        malformed(reason, self.document, at)
    }
}

/// `document` with a number in place of each of `parts`.
fn without<'a, 'b>(
    document: &'a [u8],
    parts: impl Iterator<Item = &'b Range<usize>>,
) -> Cow<'a, [u8]> {
    let mut rest = Vec::new();
    let mut from = 0;
    for part in parts {
        rest.extend_from_slice(&document[from..part.start]);
        rest.push(STAND_IN);
        from = part.end;
    }
    if from == 0 {
        return Cow::Borrowed(document);
    }
    rest.extend_from_slice(&document[from..]);
    Cow::Owned(rest)
}

/// The offset of a line and a column, as the general parser counts them.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let mut newlines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let start = match line {
        0 | 1 => 0,
        _ => newlines.nth(line - 2).map_or(0, |(index, _)| index + 1),
    };
    start + column
}

/// Goes through a document. Takes every document that is JSON and some that are not; `None` where it cannot go on.
struct Cursor<'a> {
    document: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn document(&mut self, list: &[u8], data: &mut Vec<Option<Range<usize>>>) -> Option<()> {
        self.object(|cursor, name| {
            if *name == *list && cursor.peek()? == b'[' {
                return cursor.list(|cursor| {
                    cursor.tensor(data)?;
                    (data.len() <= MAX_TENSORS).then_some(())
                });
            }
            cursor.value().map(drop)
        })
    }

    /// Goes past a tensor, and notes where its data lies, if it has any.
    fn tensor(&mut self, data: &mut Vec<Option<Range<usize>>>) -> Option<()> {
        let mut found = None;
        if self.peek()? == b'{' {
            self.object(|cursor, name| {
                let value = cursor.value()?;
                if *name == *b"data" && cursor.document[value.clone()] != *b"null" {
                    found = Some(value);
                }
                Some(())
            })?;
        } else {
            self.value()?;
        }
        data.push(found);
        Some(())
    }

    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, [u8]>) -> Option<()>,
    ) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            return self.expect(b'}');
        }
        loop {
            let name = self.name()?;
            self.expect(b':')?;
            member(self, name)?;
            if self.peek()? == b'}' {
                return self.expect(b'}');
            }
            self.expect(b',')?;
        }
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(b'[')?;
        if self.peek()? == b']' {
            return self.expect(b']');
        }
        loop {
            item(self)?;
            if self.peek()? == b']' {
                return self.expect(b']');
            }
            self.expect(b',')?;
        }
    }

    /// A member's name.
    fn name(&mut self) -> Option<Cow<'a, [u8]>> {
        let quoted = (self.peek()? == b'"').then(|| self.value())??;
        let quoted = &self.document[quoted];
        let name = quoted.get(1..quoted.len() - 1)?;
        if !name.contains(&b'\\') {
            return Some(Cow::Borrowed(name));
        }
        let name: String = serde_json::from_slice(quoted).ok()?;
        Some(Cow::Owned(name.into_bytes()))
    }

    /// Goes past a value, and says where it was.
    fn value(&mut self) -> Option<Range<usize>> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0usize;
        loop {
            if depth > 0 {
                self.at += super::plain(&self.document[self.at..]);
            }
            match self.document.get(self.at)? {
                b'"' => self.text()?,
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ if depth > 0 => self.at += 1,
                _ => self.word()?,
            }
            if depth == 0 {
                return Some(start..self.at);
            }
        }
    }

    /// Goes past a text in quotes.
    fn text(&mut self) -> Option<()> {
        let mut bytes = self.document[self.at + 1..].iter();
        super::skip_text(&mut bytes);
        self.at = self.document.len() - bytes.len();
        (self.document[self.at - 1] == b'"').then_some(())
    }

    /// Goes past a number or a literal.
    fn word(&mut self) -> Option<()> {
        let rest = &self.document[self.at..];
        let length = rest.iter().position(|byte| data::ends_word(*byte));
        let length = length.unwrap_or(rest.len());
        self.at += length;
        (length > 0).then_some(())
    }

    /// The next byte that is no space; it stays.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.document[self.at..];
        let spaces = rest.iter().position(|byte| !data::is_space(*byte))?;
        self.at += spaces;
        Some(rest[spaces])
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        let is_there = self.peek()? == wanted;
        self.at += usize::from(is_there);
        is_there.then_some(())
    }
}
