//! A key: random, stored by its digest, and never printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::hex;

/// Random bytes of a key. TorchServe has 6, which somebody who tries 10,000 a second for a year finds with a chance of one
/// in a thousand. These are 43 characters instead of 8; clients that read the key from the file do not notice.
const RANDOM: usize = 32;

/// A key in plain text. It is written nowhere but to the file that clients read.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

/// SHA-256 of a key, by which keys are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

impl Key {
    /// A new key.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text that a client sends.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its SHA-256.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(self.0.as_bytes())
    }
}

/// Prints no part of the key, so that none gets into a log by accident.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl KeyDigest {
    /// The digest of a key's text.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Parses the 64 hexadecimal digits of a digest.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }

    /// Its 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// The bytes, for comparison.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
