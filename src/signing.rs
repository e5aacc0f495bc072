//! Signers: their Ed25519 keys as texts and files, signatures, and whose are asked for.
//!
//! A [`Signer`] is a public key. A [`SigningKey`] is the private one beside it, in a file that `openssl` reads and writes as well. This module
//! does not know what is signed: to it that is bytes. It alone uses ring.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

mod file;

pub use file::{KeyError, is_open_to_others};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// What a signer's text begins with.
const PREFIX: &str = "ed25519:";
/// The points of small order, with which signatures can be made without a private key: y as a key has it, without the sign of x. An all-zero key is
/// one of them.
const WEAK: [[u8; 32]; 7] = [
    [0; 32],
    ends(0x01, 0x00, 0x00),
    ends(0xec, 0xff, 0x7f),
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

const fn ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// Whoever holds the private key of this public one. As a text it is `ed25519:` and the 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signer([u8; 32]);

/// Why a text names no signer. The text is not repeated: somebody may have pasted a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// It is something else.
    #[error("must be ed25519: and 44 characters of base64, as `lantern signer show` prints it")]
    Form,
    /// One of the keys for which anybody makes signatures.
    #[error("must not be a key for which anybody can sign, such as one of zeros")]
    Weak,
}

impl Signer {
    /// The signer with this public key.
    pub fn new(key: [u8; 32]) -> Result<Self, SignerError> {
        let mut y = key;
        y[31] &= 0x7f;
        if WEAK.contains(&y) {
            return Err(SignerError::Weak);
        }
        Ok(Self(key))
    }

    /// The signer whose public key is this base64.
    pub fn from_base64(text: &str) -> Result<Self, SignerError> {
        let key = STANDARD.decode(text).map_err(|_| SignerError::Form)?;
        Self::new(key.try_into().map_err(|_| SignerError::Form)?)
    }

    /// The public key in base64.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Whether `signature` is this signer's over `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(message, signature).is_ok()
    }
}

impl FromStr for Signer {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        let key = text.strip_prefix(PREFIX).ok_or(SignerError::Form)?;
        Self::from_base64(key)
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.base64())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// A private key. It is never printed.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Its public half.
    pub fn signer(&self) -> Signer {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        Signer(key)
    }

    /// Its signature over `message`: the same each time.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({}, ..)", self.signer())
    }
}

/// Whose archives are taken: anybody's, signed or not, or those of certain signers alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers(Option<BTreeSet<Signer>>);

impl Signers {
    /// These alone. Without any of them it is nobody.
    pub const fn only(signers: BTreeSet<Signer>) -> Self {
        Self(Some(signers))
    }

    /// Whether what `signer` signed is taken; `None` is what nobody signed.
    pub fn allow(&self, signer: Option<&Signer>) -> bool {
        let Some(required) = &self.0 else {
            return true;
        };
        signer.is_some_and(|signer| required.contains(signer))
    }

    /// Those that are asked for; `None` if nobody is.
    pub const fn required(&self) -> Option<&BTreeSet<Signer>> {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests;
