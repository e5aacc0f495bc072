//! Reading a tensor's bytes as elements.

use std::borrow::Cow;
use std::ops::Deref;

use super::Element;

/// A tensor's elements as `T`, with its shape. Dereferences to the slice of all elements.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorView<'a, T: Element> {
    shape: &'a [u32],
    elements: Cow<'a, [T]>,
}

impl<'a, T: Element> TensorView<'a, T> {
    /// `elements` are as many as the product of `shape`.
    pub(super) fn new(shape: &'a [u32], elements: Cow<'a, [T]>) -> Self {
        Self { shape, elements }
    }

    /// Elements per axis.
    pub fn shape(&self) -> &[u32] {
        self.shape
    }

    /// Size of axis 0: this request's rows. A tensor without axes has one row.
    pub fn row_count(&self) -> usize {
        self.shape.first().map_or(1, |&rows| rows as usize)
    }

    /// The elements of row `index` of axis 0.
    ///
    /// # Panics
    /// If `index` is not below [`TensorView::row_count`].
    pub fn row(&self, index: usize) -> &[T] {
        let length = self.row_length();
        &self.elements[index * length..(index + 1) * length]
    }

    /// The rows of axis 0, in order.
    pub fn rows(&self) -> impl Iterator<Item = &[T]> {
        (0..self.row_count()).map(|index| self.row(index))
    }

    fn row_length(&self) -> usize {
        self.elements
            .len()
            .checked_div(self.row_count())
            .unwrap_or(0)
    }
}

impl<T: Element> Deref for TensorView<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.elements
    }
}

/// `bytes` as elements: borrowed if they are aligned, copied if not; `None` if they are not whole or not valid.
pub(super) fn elements<T: Element>(bytes: &[u8]) -> Option<Cow<'_, [T]>> {
    if !bytes.len().is_multiple_of(size_of::<T>()) {
        return None;
    }
    if let Ok(elements) = bytemuck::checked::try_cast_slice(bytes) {
        return Some(Cow::Borrowed(elements));
    }
    let copied: Result<Vec<T>, _> = bytes
        .chunks_exact(size_of::<T>())
        .map(bytemuck::checked::try_pod_read_unaligned)
        .collect();
    copied.ok().map(Cow::Owned)
}

/// Splits length-prefixed strings; `None` if one is cut off.
pub(super) fn strings(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut strings = Vec::new();
    while !bytes.is_empty() {
        let (prefix, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
        let (string, rest) = rest.split_at_checked(length)?;
        strings.push(string);
        bytes = rest;
    }
    Some(strings)
}
