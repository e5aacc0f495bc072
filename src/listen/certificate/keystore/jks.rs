//! Java's own format of keystores, JKS.
//!
//! All numbers are big-endian. A head (magic, version, count of entries), the entries, and a SHA-1 digest over the password
//! and all before it. An entry is a key with its chain of certificates, or a certificate that the owner trusts. Keys are
//! protected by a stream of SHA-1 digests.

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq as _;

use super::super::{Identity, der};
use super::Refusal;

const DIGEST: usize = 20;
/// What Java mixes into the digest of a file.
pub(super) const WHITENER: &[u8] = b"Mighty Aphrodite";
/// The protection of keys in a JKS: `keyProtector` of Sun.
const KEY_PROTECTOR: &str = "1.3.6.1.4.1.42.2.17.1.1";

const KEY: u32 = 1;
const TRUSTED: u32 = 2;

/// The first key of a JKS, with its chain.
pub fn identity(bytes: &[u8], password: &str) -> Result<Identity, Refusal> {
    let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let (contents, digest) = bytes
        .split_last_chunk::<DIGEST>()
        .ok_or(Refusal::Unreadable)?;
    let expected = Sha1::new()
        .chain_update(&password)
        .chain_update(WHITENER)
        .chain_update(contents);
    if !bool::from(expected.finalize().ct_eq(digest)) {
        return Err(Refusal::Password);
    }
    let keys = keys(contents).ok_or(Refusal::Unreadable)?;
    let (protected, chain) = keys.into_iter().next().ok_or(Refusal::NoKey)?;
    let key = plain_key(protected, &password)?;
    Ok(Identity {
        chain,
        key: PrivateKeyDer::Pkcs8(key.into()),
    })
}

/// A protected key, and the chain of its certificate.
type Entry<'a> = (&'a [u8], Vec<CertificateDer<'static>>);

/// The keys that have a certificate; `None` if the file breaks the format.
fn keys(contents: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut reader = Reader(contents);
    let (_magic, version, count) = (reader.number()?, reader.number()?, reader.number()?);
    if !matches!(version, 1 | 2) {
        return None;
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let kind = reader.number()?;
        let _alias = reader.text()?;
        let _created = reader.take(8)?;
        match kind {
            KEY => {
                let key = reader.block()?;
                let length = reader.number()?;
                let chain: Option<Vec<_>> =
                    (0..length).map(|_| reader.certificate(version)).collect();
                let chain = chain?;
                if !chain.is_empty() {
                    keys.push((key, chain));
                }
            }
            TRUSTED => drop(reader.certificate(version)?),
            _ => return None,
        }
    }
    Some(keys)
}

/// The PKCS #8 in an `EncryptedPrivateKeyInfo`: a salt, the key under a stream of digests that begins with the salt, and a
/// digest of password and key.
fn plain_key(protected: &[u8], password: &[u8]) -> Result<Vec<u8>, Refusal> {
    let parts = der::sequence(protected).ok_or(Refusal::Unreadable)?;
    let [algorithm, encrypted] = parts.as_slice() else {
        return Err(Refusal::Unreadable);
    };
    if der::algorithm(algorithm).as_deref() != Some(KEY_PROTECTOR) {
        return Err(Refusal::Protection);
    }
    let (salt, rest) = encrypted
        .data
        .split_first_chunk::<DIGEST>()
        .ok_or(Refusal::Unreadable)?;
    let (hidden, check) = rest
        .split_last_chunk::<DIGEST>()
        .ok_or(Refusal::Unreadable)?;
    let digest = |data: &[u8]| {
        Sha1::new()
            .chain_update(password)
            .chain_update(data)
            .finalize()
    };
    let mut key = hidden.to_vec();
    let mut stream = digest(salt);
    for part in key.chunks_mut(DIGEST) {
        part.iter_mut()
            .zip(&stream)
            .for_each(|(byte, mask)| *byte ^= mask);
        stream = digest(&stream);
    }
    if bool::from(digest(&key).ct_eq(check)) {
        Ok(key)
    } else {
        Err(Refusal::Password)
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    /// Bytes after a length of four bytes.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    /// Bytes after a length of two bytes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        self.take(u16::from_be_bytes(*length).into())
    }

    /// In version 2 the kind of certificate stands before it, which is always X.509.
    fn certificate(&mut self, version: u32) -> Option<CertificateDer<'static>> {
        if version == 2 {
            self.text()?;
        }
        Some(self.block()?.to_vec().into())
    }
}
