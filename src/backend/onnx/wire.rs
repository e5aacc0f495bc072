//! Walks the fields of a protobuf message in a file, without trusting it and without reading what is skipped.
//!
//! Stricter than protobuf needs to be: where two readers of the format could differ, the file is refused. Knows
//! nothing of ONNX.

use std::io::{self, BufRead, Seek};

/// What a walk can end with.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The bytes are no message.
    #[error("is not a valid model: {0} at byte {1}")]
    Malformed(&'static str, u64),
}

/// A field of the message being walked. Its content is read or skipped by whoever got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// The field's number.
    pub(super) number: u32,
    /// What it holds.
    pub(super) content: Content,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A varint.
    Number(u64),
    /// Four or eight bytes, skipped already.
    Fixed,
    /// Bytes that end there in the file.
    Until(u64),
}

/// Reads a file as nested messages.
pub(super) struct Walker<R> {
    reader: R,
    position: u64,
}

impl<R: BufRead + Seek> Walker<R> {
    /// Starts at the beginning of `reader`.
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            position: 0,
        }
    }

    /// The next field of a message that ends at `end`; `None` at its end.
    pub(super) fn next_field(&mut self, end: u64) -> Result<Option<Field>, WireError> {
        if self.position == end {
            return Ok(None);
        }
        let tag = self.varint(end)?;
        let Some(number) = u32::try_from(tag)
            .ok()
            .map(|tag| tag >> 3)
            .filter(|number| *number > 0)
        else {
            return Err(self.malformed("a bad field number"));
        };
        let content = match tag & 7 {
            0 => self.varint(end).map(Content::Number),
            1 => self.skip_within(8, end).map(|()| Content::Fixed),
            2 => self.length(end).map(Content::Until),
            5 => self.skip_within(4, end).map(|()| Content::Fixed),
            _ => Err(self.malformed("a bad wire type")),
        }?;
        Ok(Some(Field { number, content }))
    }

    /// Skips what a field holds.
    pub(super) fn skip(&mut self, content: Content) -> Result<(), WireError> {
        match content {
            Content::Until(end) => self.skip_to(end),
            Content::Number(_) | Content::Fixed => Ok(()),
        }
    }

    /// Skips to `end`, which a field said its content has.
    fn skip_to(&mut self, end: u64) -> Result<(), WireError> {
        let distance =
            i64::try_from(end - self.position).map_err(|_| self.malformed("a length too long"))?;
        self.reader.seek_relative(distance)?;
        self.position = end;
        Ok(())
    }

    /// Reads the content of a field up to `end`, at most `limit` bytes.
    pub(super) fn bytes(&mut self, end: u64, limit: usize) -> Result<Vec<u8>, WireError> {
        let length = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        if length > limit {
            return Err(self.malformed("a text too long"));
        }
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes)?;
        self.position = end;
        Ok(bytes)
    }

    /// An error at the present position.
    pub(super) const fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed(what, self.position)
    }

    fn length(&mut self, end: u64) -> Result<u64, WireError> {
        let length = self.varint(end)?;
        match self.position.checked_add(length) {
            Some(content_end) if content_end <= end => Ok(content_end),
            _ => Err(self.malformed("a length beyond its message")),
        }
    }

    fn skip_within(&mut self, length: u64, end: u64) -> Result<(), WireError> {
        if end - self.position < length {
            return Err(self.malformed("a number cut short"));
        }
        self.skip_to(self.position + length)
    }

    fn varint(&mut self, end: u64) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            if self.position == end {
                return Err(self.malformed("a number cut short"));
            }
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number too long"))
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        self.position += 1;
        Ok(byte[0])
    }
}
