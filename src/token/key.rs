//! One key: made of randomness, known by its digest, never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Bytes of randomness. TorchServe takes 6, of which one in a thousand is found by somebody who may try 10,000 a second
/// for a year; these are 43 characters instead of 8, and clients that take the key from the file do not notice.
const RANDOM: usize = 32;

/// A key in plain text. Shown nowhere but in the file that clients read.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

/// What a key is known by: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

impl Key {
    /// A new key.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text that a client shows.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What it is known by.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.0.as_bytes())
    }
}

/// Keys do not get into logs by being printed.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl KeyDigest {
    /// Of a key's text.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Of the digest's 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The bytes, for comparison.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
