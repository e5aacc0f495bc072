//! Private keys: of what kind and size one is, for those that cannot be used, and the public half where it is missing.

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::{Any, Class};

use super::der::{algorithm, element, elements, identifier, sequence};

/// What rustls signs with.
pub const USABLE: &str =
    "an RSA key of 2048 to 4096 bits, an ECDSA key (P-256 or P-384) or an Ed25519 key";

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";

/// Kinds of key that may be met, and curves.
const NAMES: [(&str, &str); 9] = [
    ("1.2.840.113549.1.1.10", "an RSA-PSS key"),
    ("1.2.840.10040.4.1", "a DSA key"),
    ("1.2.840.113549.1.3.1", "a Diffie-Hellman key"),
    ("1.3.101.112", "an Ed25519 key"),
    ("1.3.101.113", "an Ed448 key"),
    ("1.2.840.10045.3.1.7", "an ECDSA key on P-256"),
    ("1.3.132.0.34", "an ECDSA key on P-384"),
    ("1.3.132.0.35", "an ECDSA key on P-521"),
    ("1.3.132.0.10", "an ECDSA key on secp256k1"),
];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// The place of the public half in an `ECPrivateKey`, and the number of its tag.
const PUBLIC_HALF: u8 = 0xA1;
const PUBLIC_HALF_NUMBER: u32 = 1;

/// What `key` is, in words: "an RSA key of 1024 bits".
pub fn describe(key: &PrivateKeyDer<'_>) -> String {
    let described = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(_) => Some("an ECDSA key on another curve".to_owned()),
        _ => None,
    };
    described.unwrap_or_else(|| "no key that can be read".to_owned())
}

/// From an `RSAPrivateKey`: version, modulus, …
fn rsa(key: &[u8]) -> Option<String> {
    let parts = sequence(key)?;
    let modulus = parts.get(1)?.data;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    let bits = (modulus.len() - zeros) * 8 - first.leading_zeros() as usize;
    Some(format!("an RSA key of {bits} bits"))
}

fn pkcs8(key: &[u8]) -> Option<String> {
    let parts = sequence(key)?;
    let [_version, kind, secret, ..] = parts.as_slice() else {
        return None;
    };
    match algorithm(kind)?.as_str() {
        RSA => rsa(secret.data),
        EC => elements(kind.data)?
            .get(1)
            .and_then(identifier)
            .as_deref()
            .map(named),
        other => Some(named(other)),
    }
}

fn named(identifier: &str) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == identifier);
    match known {
        Some((_, name)) => (*name).to_owned(),
        None => format!("a key of the kind {identifier}"),
    }
}

/// `key`; an ECDSA key without its public half, as Java writes it, gets that of `certificate`.
pub fn completed(
    key: PrivateKeyDer<'static>,
    certificate: &CertificateDer<'_>,
) -> PrivateKeyDer<'static> {
    let secret = scalar(&key);
    let completed = secret.and_then(|secret| with_public_half(&secret, certificate));
    completed.unwrap_or(key)
}

/// The secret number of an ECDSA key that has no public half.
fn scalar(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let parts = match key {
        PrivateKeyDer::Sec1(key) => sequence(key.secret_sec1_der())?,
        PrivateKeyDer::Pkcs8(key) => {
            let parts = sequence(key.secret_pkcs8_der())?;
            let [_version, kind, secret, ..] = parts.as_slice() else {
                return None;
            };
            if algorithm(kind)? != EC {
                return None;
            }
            sequence(secret.data)?
        }
        _ => return None,
    };
    let is_public_half = |part: &Any<'_>| {
        part.class() == Class::ContextSpecific && part.tag().0 == PUBLIC_HALF_NUMBER
    };
    let secret = parts.get(1)?.data;
    (!parts.iter().any(is_public_half)).then(|| secret.to_vec())
}

/// An `ECPrivateKey`: version, the secret as long as a coordinate of the point, the point.
fn with_public_half(
    secret: &[u8],
    certificate: &CertificateDer<'_>,
) -> Option<PrivateKeyDer<'static>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let point = certificate.public_key().subject_public_key.data.as_ref();
    let length = point.len().checked_sub(1)? / 2;
    let zeros = secret.iter().take_while(|byte| **byte == 0).count();
    let digits = &secret[zeros..];
    let mut padded = vec![0; length.checked_sub(digits.len())?];
    padded.extend_from_slice(digits);
    let unused_bits = [0];
    let public_half = element(BIT_STRING, &[&unused_bits, point].concat());
    let parts = [
        element(INTEGER, &[1]),
        element(OCTET_STRING, &padded),
        element(PUBLIC_HALF, &public_half),
    ];
    Some(PrivateKeyDer::Sec1(
        element(SEQUENCE, &parts.concat()).into(),
    ))
}
