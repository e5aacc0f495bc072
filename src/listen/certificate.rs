//! Certificates and their keys: read from PEM files or a keystore and again when those change, or self-signed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

mod der;
mod file;
mod keystore;
mod pem;
mod private_key;

pub use file::CertificateError;
pub(super) use file::{Named, Watched};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use keystore::fuzz;
pub(super) use pem::certificates;

const CERTIFICATE: &str = "certificate_file";
const KEY: &str = "private_key_file";
const KEYSTORE: &str = "keystore";

/// Where the certificate of the server and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// In two PEM files: the server's certificate first, then those that vouch for it; the key as PKCS#8, PKCS#1 or SEC1.
    Pem {
        /// The certificates.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// In a keystore of Java's, PKCS #12 or JKS: its first key, with the chain of its certificate.
    Keystore {
        /// The keystore.
        file: PathBuf,
        /// Opens the keystore, and the key in it.
        password: Password,
    },
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Of `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

/// The server's certificate, those that vouch for it, and its key. There is a certificate.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A certificate with its key. All listeners share one, and the next handshake of each uses the new one after the files
/// have changed.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<CertifiedKey>,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    source: CertificateSource,
    watched: Watched,
}

impl CertificateSource {
    /// The file of the certificate and the file of the key, which may be one.
    fn files(&self) -> [Named<'_>; 2] {
        match self {
            Self::Pem { certificate, key } => {
                [Named::new(CERTIFICATE, certificate), Named::new(KEY, key)]
            }
            Self::Keystore { file, .. } => [Named::new(KEYSTORE, file); 2],
        }
    }

    fn identity(&self) -> Result<Identity, CertificateError> {
        let [certificate, key] = self.files();
        match self {
            Self::Pem { .. } => Ok(Identity {
                chain: pem::certificates(certificate)?,
                key: pem::key(key)?,
            }),
            Self::Keystore { password, .. } => keystore::identity(certificate, &password.0),
        }
    }

    /// Reads the files, and checks that they belong together and can be used.
    fn read(&self) -> Result<CertifiedKey, CertificateError> {
        let [certificate, key] = self.files();
        let Identity { chain, key: secret } = self.identity()?;
        let kind = private_key::describe(&secret);
        let secret = private_key::completed(secret, &chain[0]);
        CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                key.problem("must hold the key of the certificate")
            }
            rustls::Error::InvalidCertificate(_) => no_certificate(certificate),
            _ => key.problem(format!(
                "must hold {}; it holds {kind}",
                private_key::USABLE
            )),
        })
    }
}

fn no_certificate(file: Named<'_>) -> CertificateError {
    file.problem("must begin with an X.509 certificate")
}

impl Certificates {
    /// Reads certificate and key from `source`; blocks.
    pub fn read(source: CertificateSource) -> Result<Self, CertificateError> {
        let watched = Watched::new(source.files().map(|file| file.path.to_owned()));
        Ok(Self {
            current: ArcSwap::from_pointee(source.read()?),
            files: Some(Files { source, watched }),
        })
    }

    /// Makes a self-signed certificate for `hosts`, which are names or IP addresses.
    pub fn self_signed(hosts: Vec<String>) -> Result<Self, rcgen::Error> {
        let made = rcgen::generate_simple_self_signed(hosts)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let certified = CertifiedKey::from_der(vec![made.cert.into()], key, &provider())
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(Self {
            current: ArcSwap::from_pointee(certified),
            files: None,
        })
    }

    /// Reads the files again if they have changed since they were last read. Blocks. Returns whether there is a new
    /// certificate. After a failure the old one is used until the files change again.
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        let files = self.files.as_ref();
        let Some(files) = files.filter(|files| files.watched.have_changed()) else {
            return Ok(false);
        };
        self.current.store(Arc::new(files.source.read()?));
        Ok(true)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The implementation of cryptography that every listener uses: ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
