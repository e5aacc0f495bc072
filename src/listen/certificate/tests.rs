//! Reading certificates and keys: good files, broken ones, and ones that change.
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A directory with a certificate and its key.
struct Fixture {
    directory: TempDir,
    key: String,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            directory: TempDir::new().unwrap(),
            key: String::new(),
        };
        fixture.renewed()
    }

    /// Writes another certificate and key to the same files.
    fn renewed(mut self) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        self.key = made.signing_key.serialize_pem();
        fs::write(self.path("certificate.pem"), made.cert.pem()).unwrap();
        fs::write(self.path("key.pem"), &self.key).unwrap();
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) -> &Self {
        fs::write(self.path(file), text).unwrap();
        self
    }

    fn read(&self) -> Result<Certificates, CertificateError> {
        Certificates::read(CertificateSource::Pem {
            certificate: self.path("certificate.pem"),
            key: self.path("key.pem"),
        })
    }

    /// The error of reading the files, without their paths.
    fn problem(&self) -> String {
        let text = self.read().unwrap_err().to_string();
        text.replace(&self.directory.path().display().to_string(), "DIR")
    }
}

fn leaf(certificates: &Certificates) -> Vec<u8> {
    certificates.current.load().cert[0].to_vec()
}

#[test]
fn a_certificate_with_its_key_is_read() {
    Fixture::new().read().unwrap();
}

#[test]
fn every_form_of_key_is_read() {
    // Made with `openssl genrsa`, `openssl ecparam -genkey` and `openssl genpkey`; used nowhere else.
    for (name, pem) in [
        (
            "PKCS#1",
            include_str!("../../../tests/fixtures/keys/pkcs1.pem"),
        ),
        (
            "SEC1",
            include_str!("../../../tests/fixtures/keys/sec1.pem"),
        ),
        (
            "PKCS#8",
            include_str!("../../../tests/fixtures/keys/pkcs8.pem"),
        ),
    ] {
        let fixture = Fixture::new();
        fixture.write("key.pem", pem);
        let parsed = pem::key(Named::new(KEY, &fixture.path("key.pem"))).unwrap();
        let known = provider().key_provider.load_private_key(parsed);
        assert!(known.is_ok(), "{name}");
    }
}

#[test]
fn what_is_wrong_is_named_with_the_file_and_the_rule() {
    let empty = Fixture::new();
    assert_eq!(
        empty.write("certificate.pem", "").problem(),
        "certificate_file must hold PEM with at least one BEGIN CERTIFICATE, got DIR/certificate.pem"
    );
    let broken = Fixture::new();
    let text = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    assert_eq!(
        broken.write("certificate.pem", text).problem(),
        "certificate_file must be PEM, got DIR/certificate.pem"
    );
    let nonsense = Fixture::new();
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(
        nonsense.write("certificate.pem", text).problem(),
        "certificate_file must begin with an X.509 certificate, got DIR/certificate.pem"
    );
    let swapped = Fixture::new();
    let certificate = fs::read_to_string(swapped.path("certificate.pem")).unwrap();
    assert_eq!(
        swapped.write("key.pem", &certificate).problem(),
        "private_key_file must hold a key in PEM: BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY, got \
         DIR/key.pem"
    );
}

#[test]
fn keys_that_cannot_serve_are_named() {
    let encrypted = Fixture::new();
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let problem = encrypted.write("key.pem", text).problem();
    assert!(
        problem.starts_with("private_key_file must not be encrypted"),
        "{problem}"
    );
    let another = Fixture::new();
    let text = Fixture::new().key;
    assert_eq!(
        another.write("key.pem", &text).problem(),
        "private_key_file must hold the key of the certificate, got DIR/key.pem"
    );
    let missing = Fixture::new();
    fs::remove_file(missing.path("key.pem")).unwrap();
    let problem = missing.problem();
    assert!(
        problem.starts_with("private_key_file must be a file that can be read"),
        "{problem}"
    );
    let huge = Fixture::new();
    let problem = huge.write("key.pem", &"x".repeat(2 << 20)).problem();
    assert_eq!(
        problem,
        "private_key_file must be a file of at most 1 MiB, got DIR/key.pem"
    );
}

/// An RSA key of 1024 bits, made with `openssl genrsa`; used nowhere else.
const SMALL: &str = include_str!("../../../tests/fixtures/keys/small.pem");

#[test]
fn a_key_that_is_too_small_is_named_with_its_size() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.write("key.pem", SMALL).problem(),
        "private_key_file must hold an RSA key of 2048 to 4096 bits, an ECDSA key (P-256 or P-384) or an Ed25519 key; it \
         holds an RSA key of 1024 bits, got DIR/key.pem"
    );
}

/// Java writes ECDSA keys without it, and so do those who convert them.
#[test]
fn a_key_without_its_public_half_is_used_with_that_of_the_certificate() {
    use rustls_pki_types::pem::PemObject as _;

    let fixture = Fixture::new();
    let whole = PrivateKeyDer::from_pem_slice(fixture.key.as_bytes()).unwrap();
    let PrivateKeyDer::Pkcs8(whole) = &whole else {
        panic!("rcgen writes PKCS #8");
    };
    let parts = der::sequence(whole.secret_pkcs8_der()).unwrap();
    let secret = der::sequence(parts[2].data).unwrap()[1].data;
    // SEC1, with a zero before the number as some write it.
    let scalar = der::element(4, &[&[0], secret].concat());
    let half = der::element(0x30, &[der::element(2, &[1]), scalar].concat());
    let half = PrivateKeyDer::Sec1(half.into());
    let certificate =
        pem::certificates(Named::new(CERTIFICATE, &fixture.path("certificate.pem"))).unwrap();
    assert!(
        provider()
            .key_provider
            .load_private_key(half.clone_key())
            .is_err()
    );
    let completed = private_key::completed(half, &certificate[0]);
    CertifiedKey::from_der(certificate, completed, &provider()).unwrap();
}

#[test]
fn changed_files_are_taken_and_broken_ones_are_not() {
    let fixture = Fixture::new();
    let certificates = fixture.read().unwrap();
    let first = leaf(&certificates);
    assert_eq!(certificates.refresh(), Ok(false));
    let fixture = fixture.renewed();
    assert_eq!(certificates.refresh(), Ok(true));
    let second = leaf(&certificates);
    assert_ne!(first, second);
    fixture.write("key.pem", "half");
    assert!(certificates.refresh().is_err());
    assert_eq!(leaf(&certificates), second);
    assert_eq!(
        certificates.refresh(),
        Ok(false),
        "one warning for one change"
    );
    let _fixture = fixture.renewed();
    assert_eq!(certificates.refresh(), Ok(true));
}

#[test]
fn one_is_made_where_there_is_none() {
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = Certificates::self_signed(hosts).unwrap();
    assert!(!leaf(&made).is_empty());
    assert_eq!(made.refresh(), Ok(false));
}
