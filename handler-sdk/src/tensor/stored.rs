//! Elements of tensors that stayed on the host. They are read when they are needed.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use super::slice;
use crate::bindings::lantern::handler::types::TensorHandle;

/// Most bytes that one call to the host copies.
const PIECE: u32 = 1 << 20;

/// Where the bytes of a tensor that is not inline come from.
///
/// Called from the handler's one thread; every call may copy up to `length` bytes. An empty answer is the end.
pub trait Source {
    /// Bytes `[offset, offset + length)`, cut at the end of the tensor.
    fn read(&self, offset: u64, length: u32) -> Vec<u8>;
}

impl Source for TensorHandle {
    fn read(&self, offset: u64, length: u32) -> Vec<u8> {
        TensorHandle::read(self, offset, length)
    }
}

/// A source, and all its bytes once they have been read.
pub(super) struct Stored {
    source: Box<dyn Source>,
    loaded: OnceCell<Vec<u8>>,
}

impl Stored {
    pub(super) fn new(source: impl Source + 'static) -> Self {
        Self {
            source: Box::new(source),
            loaded: OnceCell::new(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.loaded.get_or_init(|| read_all(self.source.as_ref()))
    }

    pub(super) fn read(&self, offset: u64, length: u32) -> Cow<'_, [u8]> {
        match self.loaded.get() {
            Some(bytes) => Cow::Borrowed(slice(bytes, offset, length)),
            None => Cow::Owned(self.source.read(offset, length)),
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes();
        self.loaded.into_inner().unwrap_or_default()
    }
}

fn read_all(source: &dyn Source) -> Vec<u8> {
    let mut bytes = source.read(0, PIECE);
    loop {
        let piece = source.read(bytes.len() as u64, PIECE);
        if piece.is_empty() {
            return bytes;
        }
        bytes.extend_from_slice(&piece);
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Stored(..)")
    }
}
