//! Compiled code of a handler, as it goes from the compiler to the process that runs it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile;
use super::sealed::{Sealed, WeakSealed};

/// What the files in memory are called in `/proc`.
const NAME: &str = "lantern-code";

/// Most bytes of compiled code. The largest real handlers (interpreters of Python and JavaScript) have some 40 MB.
pub(crate) const CODE_LIMIT: u64 = 256 << 20;

/// Compiled code: native code, which whoever loads it runs unchecked. The bytes are sealed, so that the process that made
/// them, or got them first, cannot change them for others. Cheap to clone.
///
/// It comes from the compiler's process, from the cache once its MAC was verified, or, in a worker process, from the front.
/// Nothing else makes one.
#[derive(Debug, Clone)]
pub struct Code(Sealed);

/// Code that is found again for as long as somebody else keeps it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeakCode(WeakSealed);

impl Code {
    /// Compiles in this process, without limits on memory or time. For tests and benches: a server compiles what others
    /// wrote in a process that is limited.
    pub fn compile_here(wasm: &[u8]) -> Result<Self, String> {
        let code = compile::compile(wasm)?;
        let sealed = Sealed::of(NAME, &code);
        sealed.map(Self).map_err(|error| error.to_string())
    }

    /// What the compiler's process wrote into `file`, sealed before anything else looks at it.
    pub(crate) fn compiled(file: File) -> io::Result<Self> {
        Self::of(Sealed::new(file)?)
    }

    /// What the front gave to this worker process.
    pub(crate) fn received(descriptor: OwnedFd) -> io::Result<Self> {
        Self::of(Sealed::received(descriptor)?)
    }

    /// Bytes whose origin the cache has verified.
    pub(super) fn verified(sealed: Sealed) -> io::Result<Self> {
        Self::of(sealed)
    }

    /// No code at all, for tests whose processes load none.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(Sealed::of(NAME, b"none").unwrap())
    }

    fn of(sealed: Sealed) -> io::Result<Self> {
        match sealed.length() {
            0 => Err(io::Error::other("there is no code")),
            1..=CODE_LIMIT => Ok(Self(sealed)),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    pub(super) fn sealed(&self) -> &Sealed {
        &self.0
    }

    pub(crate) fn downgrade(&self) -> WeakCode {
        WeakCode(self.0.downgrade())
    }

    /// Makes a component of it. The file is mapped, so that all processes that load it share its memory.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        // There may be no `/proc`, and another process of this user's may have closed the file to all.
        if File::open(&path).is_err() {
            return self.load_copy(engine);
        }
        #[expect(
            unsafe_code,
            reason = "loading compiled code is unsafe: wasmtime runs it without checking it"
        )]
        // SAFETY: these bytes are what `Engine::precompile_component` gave: the only makers of a `Code` are the front, which
        // takes it from its compiler's process or from its cache after verifying the MAC that it made itself, and the worker
        // process, which has it from the front. They are sealed, so the mapping never changes. wasmtime itself refuses what
        // was compiled by another version or with other settings.
        unsafe {
            Component::deserialize_file(engine, path)
        }
    }

    /// The same from a copy in this process's own memory.
    fn load_copy(&self, engine: &Engine) -> wasmtime::Result<Component> {
        let bytes = self.0.read()?;
        #[expect(
            unsafe_code,
            reason = "loading compiled code is unsafe: wasmtime runs it without checking it"
        )]
        // SAFETY: as in `load`.
        unsafe {
            Component::deserialize(engine, bytes)
        }
    }
}

impl WeakCode {
    pub fn upgrade(&self) -> Option<Code> {
        self.0.upgrade().map(Code)
    }

    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }
}

impl AsFd for Code {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty component, compiled by `engine`.
    fn compiled_by(engine: &Engine) -> Code {
        let code = engine.precompile_component(b"\0asm\x0d\0\x01\0").unwrap();
        Code(Sealed::of(NAME, &code).unwrap())
    }

    #[test]
    fn code_is_loaded_from_the_file_and_from_a_copy() {
        let engine = super::super::engine::new().unwrap();
        let code = compiled_by(&engine);
        code.load(&engine).unwrap();
        code.load_copy(&engine).unwrap();
    }

    #[test]
    fn code_for_other_settings_is_refused() {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(true);
        let code = compiled_by(&Engine::new(&config).unwrap());
        let engine = super::super::engine::new().unwrap();
        assert!(code.load(&engine).is_err() && code.load_copy(&engine).is_err());
    }

    #[test]
    fn code_has_a_length_within_the_limit() {
        let empty = super::super::sealed::memory_file(NAME).unwrap();
        assert!(Code::compiled(empty).is_err());
        let large = super::super::sealed::memory_file(NAME).unwrap();
        large.set_len(CODE_LIMIT + 1).unwrap();
        let error = Code::compiled(large).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
