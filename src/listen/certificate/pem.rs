//! Certificates and keys in PEM.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificateError, Named};

/// Every certificate of a file, of which there is at least one.
pub fn certificates(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = file.contents()?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| file.problem("must be PEM"))?;
    if certificates.is_empty() {
        return Err(file.problem("must hold PEM with at least one BEGIN CERTIFICATE"));
    }
    Ok(certificates)
}

/// The first key of a file.
pub fn key(file: Named<'_>) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let pem = file.contents()?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        file.problem(if is_encrypted {
            "must not be encrypted: take the passphrase away with `openssl pkey -in FILE -out NEW`"
        } else {
            "must hold a key in PEM: BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY"
        })
    })
}
