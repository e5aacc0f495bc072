//! Keystores that keytool (JDK 17) and openssl made, and damaged ones. `tests/fixtures/keystores.sh` makes them.
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::{CertificateSource, Certificates, Password};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/keystores")
        .join(name)
}

fn open(file: PathBuf, password: &str) -> Result<Certificates, String> {
    let source = CertificateSource::Keystore {
        file,
        password: Password::new(password),
    };
    Certificates::read(source).map_err(|error| error.to_string())
}

/// What reading `name` says, without the path.
fn refusal(name: &str, password: &str) -> String {
    let file = fixture(name);
    let said = open(file.clone(), password).unwrap_err();
    said.replace(&file.display().to_string(), name)
}

#[test]
fn keys_come_with_their_whole_chain() {
    for name in [
        "rsa.p12",
        "legacy.p12",
        "ec.p12",
        "openssl.p12",
        "rsa.jks",
        "ec.jks",
    ] {
        let certificates =
            open(fixture(name), "changeit").unwrap_or_else(|error| panic!("{name}: {error}"));
        let chain = &certificates.current.load().cert;
        let subjects: Vec<String> = chain
            .iter()
            .map(|one| {
                x509_parser::parse_x509_certificate(one)
                    .unwrap()
                    .1
                    .subject()
                    .to_string()
            })
            .collect();
        assert_eq!(subjects, ["CN=localhost", "CN=Middle", "CN=Root"], "{name}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let usable = "keystore must hold an RSA key of 2048 to 4096 bits, an ECDSA key (P-256 or P-384) or an Ed25519 key";
    let password = "keystore must open with keystore_pass, and the key in it too: the password is another, or the file is \
                    damaged";
    let no_key = "keystore must hold a private key with its certificate";
    let convert = "keystore must be PKCS #12 or JKS: convert it with `keytool -importkeystore -srckeystore FILE -destkeystore \
                   NEW -deststoretype PKCS12`";
    for (name, says) in [
        (
            "small.p12",
            format!("{usable}; it holds an RSA key of 1024 bits"),
        ),
        (
            "small.jks",
            format!("{usable}; it holds an RSA key of 1024 bits"),
        ),
        ("dsa.p12", format!("{usable}; it holds a DSA key")),
        (
            "curve.p12",
            format!("{usable}; it holds an ECDSA key on P-521"),
        ),
        ("another-password.jks", password.to_owned()),
        ("old.jceks", convert.to_owned()),
        ("trusted.p12", no_key.to_owned()),
        ("trusted.jks", no_key.to_owned()),
    ] {
        assert_eq!(refusal(name, "changeit"), format!("{says}, got {name}"));
    }
    for name in ["rsa.p12", "legacy.p12", "rsa.jks"] {
        assert_eq!(refusal(name, "another"), format!("{password}, got {name}"));
        assert_eq!(refusal(name, ""), format!("{password}, got {name}"));
    }
}

#[test]
fn what_is_no_keystore_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keystore");
    for bytes in [
        &b""[..],
        b"text",
        b"-----BEGIN CERTIFICATE-----",
        &[0; 4096],
    ] {
        fs::write(&file, bytes).unwrap();
        let expected = format!(
            "keystore must be a whole keystore, PKCS #12 or JKS, got {}",
            file.display()
        );
        assert_eq!(open(file.clone(), "changeit").unwrap_err(), expected);
    }
}

#[test]
fn a_password_is_not_shown() {
    let source = CertificateSource::Keystore {
        file: PathBuf::from("k.p12"),
        password: Password::new("hunter2"),
    };
    assert!(!format!("{source:?}").contains("hunter2"));
}

/// The digest at the end of a JKS made right, so that what lies before it is looked at.
fn sealed(mut contents: Vec<u8>) -> Vec<u8> {
    use sha1::{Digest as _, Sha1};
    let password: Vec<u8> = "changeit"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(super::jks::WHITENER)
        .chain_update(&contents);
    contents.extend_from_slice(&digest.finalize());
    contents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is damaged, there is an answer: a key that was not damaged, or an error.
    #[test]
    fn damaged_files_are_refused(
        name in prop_oneof![Just("ec.jks"), Just("rsa.jks"), Just("ec.p12")],
        at in 0usize..4096,
        byte: u8,
        length in 0usize..4096,
        is_sealed: bool,
    ) {
        let mut bytes = fs::read(fixture(name)).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if length % 2 == 0 {
            bytes.truncate(length);
        }
        if is_sealed && name.ends_with("jks") {
            bytes.truncate(bytes.len().saturating_sub(20));
            bytes = sealed(bytes);
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keystore");
        fs::write(&file, bytes).unwrap();
        let _ = open(file, "changeit");
    }
}
