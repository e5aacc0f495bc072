//! WASI for handlers: as little as a standard library needs to start, print and panic.
//!
//! It is written by hand and does not link `wasmtime-wasi`, which most security advisories of component hosts are about.
//! There are no files, no sockets, an empty environment and coarse clocks. What a call prints is kept, up to a limit,
//! for the model's log.

mod cli;
mod clocks;
mod io;
mod random;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::host::Host;

/// Most bytes that are kept of what one call prints to each of stdout and stderr.
const OUTPUT_LIMIT: usize = 8 << 10;

/// Interfaces that a component may import, in any 0.2 release.
pub(super) const INTERFACES: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
];

/// The release that the host defines. The linker also gives it to components built for another 0.2 release.
const VERSION: &str = "0.2.6";

/// Adds every interface of [`INTERFACES`].
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    io::add_to_linker(linker)?;
    cli::add_to_linker(linker)?;
    clocks::add_to_linker(linker)?;
    random::add_to_linker(linker)
}

/// Bytes printed during a call.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
}

impl Output {
    /// Keeps as much of `bytes` as still fits.
    pub fn write(&mut self, bytes: &[u8]) {
        let room = OUTPUT_LIMIT.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What was printed so far. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Takes what was printed; `None` if that is nothing.
    pub fn take(&mut self) -> Option<String> {
        if self.bytes.is_empty() {
            return None;
        }
        let text = self.text().into_owned();
        self.bytes.clear();
        Some(text)
    }
}

/// Counts a call to the host, as [`Host::charge`] does.
fn charge(store: &mut StoreContextMut<'_, Host>) -> wasmtime::Result<()> {
    store.data_mut().charge()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_limit_is_lost() {
        let mut output = Output::default();
        output.write(&vec![b'a'; OUTPUT_LIMIT - 1]);
        output.write(b"bcd");
        let text = output.take().unwrap();
        assert_eq!(text.len(), OUTPUT_LIMIT);
        assert!(text.ends_with("ab"));
        assert_eq!(output.take(), None);
    }
}
