//! Certificates and their keys: read from PEM files and again when those change, or self-signed.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Most bytes of a file that is read.
const FILE_LIMIT: u64 = 1 << 20;
const CERTIFICATE: &str = "certificate_file";
const KEY: &str = "private_key_file";

/// A certificate with its key. All listeners share one, and the next handshake of each uses the new one after the files
/// have changed.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<CertifiedKey>,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// State of the two files when they were last read.
    seen: Mutex<[Option<Stamp>; 2]>,
}

/// Tells whether a file has changed: modification time in nanoseconds, size, inode.
type Stamp = (i64, i64, u64, u64);

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {rule}, got {}", path.display())]
pub struct CertificateError {
    key: &'static str,
    rule: String,
    path: PathBuf,
}

impl Certificates {
    /// Reads certificate and key from PEM files: the server's certificate first, then those that vouch for it; the key
    /// as PKCS#8, PKCS#1 or SEC1.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            seen: Mutex::new([stamp(certificate), stamp(key)]),
        };
        Ok(Self {
            current: ArcSwap::from_pointee(files.read()?),
            files: Some(files),
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
        let Some(files) = self.files.as_ref().filter(|files| files.have_changed()) else {
            return Ok(false);
        };
        self.current.store(Arc::new(files.read()?));
        Ok(true)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Files {
    fn have_changed(&self) -> bool {
        let now = [stamp(&self.certificate), stamp(&self.key)];
        std::mem::replace(&mut *self.seen.lock(), now) != now
    }

    fn read(&self) -> Result<CertifiedKey, CertificateError> {
        let chain = chain(&self.certificate)?;
        let key = key(&self.key)?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                problem(KEY, "must be the key of the certificate", &self.key)
            }
            rustls::Error::InvalidCertificate(_) => problem(
                CERTIFICATE,
                "must begin with an X.509 certificate",
                &self.certificate,
            ),
            _ => problem(
                KEY,
                "must hold an RSA, ECDSA (P-256 or P-384) or Ed25519 key",
                &self.key,
            ),
        })
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = contents(CERTIFICATE, path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| problem(CERTIFICATE, "must be PEM", path))?;
    if chain.is_empty() {
        let rule = "must hold PEM with at least one BEGIN CERTIFICATE";
        return Err(problem(CERTIFICATE, rule, path));
    }
    Ok(chain)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let pem = contents(KEY, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let text = String::from_utf8_lossy(&pem);
        let is_encrypted = text.contains("ENCRYPTED");
        let rule = if is_encrypted {
            "must not be encrypted: take the passphrase away with `openssl pkey -in FILE -out NEW`"
        } else {
            "must hold a key in PEM: BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY"
        };
        problem(KEY, rule, path)
    })
}

fn contents(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(problem(
            key,
            format!("must be a file that can be read ({error})"),
            path,
        )),
        Ok(size) if size as u64 > FILE_LIMIT => {
            Err(problem(key, "must be a file of at most 1 MiB", path))
        }
        Ok(_) => Ok(bytes),
    }
}

fn problem(key: &'static str, rule: impl Into<String>, path: &Path) -> CertificateError {
    CertificateError {
        key,
        rule: rule.into(),
        path: path.to_owned(),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.size(),
        metadata.ino(),
    ))
}

/// The implementation of cryptography that every listener uses: ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
