//! Acts about what one owner of memory leaves for the next: a mark is left everywhere, and looked for everywhere.
//!
//! The mark is the complement of the text that names it, so that no request holds it.

use std::hint::black_box;

/// Bytes that are marked.
const MARKED: usize = 24 << 20;

/// Fills memory with the mark, and gives it back as it is.
pub fn fill(text: &str) {
    let mut memory: Vec<u8> = Vec::with_capacity(MARKED);
    while memory.len() < MARKED {
        memory.extend(text.bytes().map(|byte| !byte));
    }
    drop(black_box(memory));
}

/// How often the mark is in the memory of this instance, after it has grown to hold as much again.
pub fn search(text: &str) -> usize {
    let room: Vec<u8> = Vec::with_capacity(2 * MARKED);
    let found = count(black_box(memory()), text.as_bytes());
    drop(black_box(room));
    found
}

fn count(memory: &[u8], text: &[u8]) -> usize {
    let is_mark = |bytes: &&[u8]| {
        bytes
            .iter()
            .zip(text)
            .all(|(byte, of_text)| *byte == !*of_text)
    };
    memory.windows(text.len().max(1)).filter(is_mark).count()
}

/// Everything that the instance can read, but its first byte, which no reference may lead to.
#[cfg(target_arch = "wasm32")]
#[expect(
    unsafe_code,
    reason = "what a previous owner left is in no value of this one"
)]
fn memory() -> &'static [u8] {
    const PAGE: usize = 64 << 10;
    let length = core::arch::wasm32::memory_size(0) * PAGE;
    // SAFETY: all of a linear memory can be read, and nothing writes to it before the slice is gone: there is one thread.
    unsafe { std::slice::from_raw_parts(std::ptr::without_provenance(1), length - 1) }
}

/// There is none on the developer's machine.
#[cfg(not(target_arch = "wasm32"))]
fn memory() -> &'static [u8] {
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_complement_of_its_text() {
        assert_eq!(count(&[0, !b'a', !b'b', !b'a', !b'b'], b"ab"), 2);
        assert_eq!(count(b"abab", b"ab"), 0);
    }
}
