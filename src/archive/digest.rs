//! SHA-256 digests, by which archives are identified.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use crate::hex;

/// SHA-256 of everything that can still be read from `from`, in lower-case hexadecimal.
pub fn sha256(mut from: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(&hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Passes on what is written to it, and keeps the SHA-256 of that.
#[derive(Debug)]
pub struct Digesting<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Digesting<W> {
    /// Passes on to `to`.
    pub fn new(to: W) -> Self {
        let hash = Sha256::new();
        Self { to, hash }
    }

    /// SHA-256 of all that was written.
    pub fn sha256(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(
            sha256(&b"abc"[..]).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
