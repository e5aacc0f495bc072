//! Keystores of Java's: PKCS #12 and JKS, told apart by what they contain, as Java does.

use p12_keystore::error::Error;
use p12_keystore::{CertificateBag, Pkcs12Archive, PrivateKeyBag};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateError, Identity, Named};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod jks;

/// What a JKS and a JCEKS begin with.
const JKS: [u8; 4] = 0xFEED_FEED_u32.to_be_bytes();
const JCEKS: [u8; 4] = 0xCECE_CECE_u32.to_be_bytes();

const NO_KEY: &str = "must hold a private key with its certificate";
const CONVERSION: &str =
    "keytool -importkeystore -srckeystore FILE -destkeystore NEW -deststoretype PKCS12";

/// Why a keystore gives no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// It is damaged, or something else.
    Unreadable,
    /// The password does not open it, or not the key in it.
    Password,
    /// It is protected in a way that nothing here knows.
    Protection,
    /// It has no key with a certificate.
    NoKey,
}

/// The first key of a keystore, with its certificate and those that vouch for it.
pub fn identity(file: Named<'_>, password: &str) -> Result<Identity, CertificateError> {
    let bytes = file.contents()?;
    let identity = match bytes.first_chunk() {
        Some(&JKS) => jks::identity(&bytes, password),
        Some(&JCEKS) => Err(Refusal::Protection),
        _ => pkcs12(&bytes, password),
    };
    identity.map_err(|refusal| file.problem(rule(refusal)))
}

fn rule(refusal: Refusal) -> String {
    match refusal {
        Refusal::Unreadable => "must be a whole keystore, PKCS #12 or JKS".to_owned(),
        Refusal::Password => {
            "must open with keystore_pass, and the key in it too: the password is another, or the file is damaged".to_owned()
        }
        Refusal::Protection => format!("must be PKCS #12 or JKS: convert it with `{CONVERSION}`"),
        Refusal::NoKey => NO_KEY.to_owned(),
    }
}

fn pkcs12(bytes: &[u8], password: &str) -> Result<Identity, Refusal> {
    let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| match error {
        Error::MacError(_)
        | Error::Pkcs5Error(_)
        | Error::UnpadError
        | Error::InvalidPrivateKey => Refusal::Password,
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm => Refusal::Protection,
        _ => Refusal::Unreadable,
    })?;
    let mut keys = archive.keys.iter();
    let found = keys.find_map(|key| Some((key, certificate_of(key, &archive.certs)?)));
    let (key, certificate) = found.ok_or(Refusal::NoKey)?;
    Ok(Identity {
        chain: chain(certificate, &archive.certs),
        key: PrivateKeyDer::Pkcs8(key.key.as_der().to_vec().into()),
    })
}

/// Keys and certificates belong together by an identifier; a file without identifiers has its certificate first.
fn certificate_of<'a>(
    key: &PrivateKeyBag,
    certificates: &'a [CertificateBag],
) -> Option<&'a CertificateBag> {
    let Some(identifier) = &key.local_key_id else {
        return certificates.first();
    };
    let mut certificates = certificates.iter();
    certificates
        .find(|certificate| certificate.local_key_id.as_deref() == Some(identifier.as_ref()))
}

/// `leaf`, the certificate of its issuer, of that one's issuer, and so on.
fn chain(leaf: &CertificateBag, certificates: &[CertificateBag]) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![&leaf.cert];
    while let Some(last) = chain.last().filter(|last| last.issuer() != last.subject()) {
        let mut others = certificates.iter().map(|other| &other.cert);
        let issuer =
            others.find(|other| other.subject() == last.issuer() && !chain.contains(other));
        let Some(issuer) = issuer else { break };
        chain.push(issuer);
    }
    chain
        .iter()
        .map(|certificate| certificate.as_der().to_vec().into())
        .collect()
}

#[cfg(test)]
mod tests;
