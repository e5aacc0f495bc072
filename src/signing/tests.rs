//! Keys as texts and as files, and what signatures hold for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// The example of RFC 8410, which `openssl` made.
const RFC_8410: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const ITS_SIGNER: &str = "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

fn key() -> SigningKey {
    SigningKey::from_pem(RFC_8410.as_bytes()).unwrap()
}

#[test]
fn a_key_of_openssl_is_read() {
    let signer = key().signer();
    assert_eq!(signer.to_string(), ITS_SIGNER);
    assert_eq!(ITS_SIGNER.parse(), Ok(signer));
    assert_eq!(Signer::from_base64(&signer.base64()), Ok(signer));
    let with_text = format!("Private key of the release:\n{RFC_8410}");
    assert!(SigningKey::from_pem(with_text.as_bytes()).is_some());
}

#[test]
fn a_signature_is_its_signers_over_its_message_alone() {
    let (key, signer) = (key(), key().signer());
    let signature = key.sign(b"message");
    assert_eq!(signature, key.sign(b"message"));
    assert!(signer.has_signed(b"message", &signature));
    assert!(!signer.has_signed(b"massage", &signature));
    for at in 0..SIGNATURE_BYTES {
        let mut other = signature;
        other[at] ^= 1;
        assert!(!signer.has_signed(b"message", &other), "{at}");
    }
    let directory = tempfile::tempdir().unwrap();
    let other = SigningKey::create(&directory.path().join("other.pem")).unwrap();
    assert!(!other.signer().has_signed(b"message", &signature));
}

#[test]
fn what_is_no_signer_is_refused() {
    let key = &ITS_SIGNER[PREFIX.len()..];
    for text in [
        "",
        "ed25519:",
        key,
        &format!("ED25519:{key}"),
        &format!("ed25519: {key}"),
        &format!("ed25519:{key}\n"),
        &format!("ed25519:{}", &key[..43]),
        &format!("ed25519:{}F=", &key[..42]),
        &format!("ed25519:{key}{key}"),
        "ed25519:not base64 at all, but of 44 characters!!!!",
        RFC_8410,
    ] {
        assert_eq!(text.parse::<Signer>(), Err(SignerError::Form), "{text:?}");
    }
}

#[test]
fn a_key_for_which_anybody_can_sign_is_refused() {
    for weak in WEAK {
        for sign in [0, 0x80] {
            let mut key = weak;
            key[31] |= sign;
            assert_eq!(Signer::new(key), Err(SignerError::Weak), "{key:?}");
        }
    }
    let zeros = format!("{PREFIX}{}=", "A".repeat(43));
    assert_eq!(zeros.parse::<Signer>(), Err(SignerError::Weak));
}

#[test]
fn a_new_key_is_its_owners_alone_and_replaces_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let new = SigningKey::create(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!is_open_to_others(&path));
    assert_eq!(SigningKey::load(&path).unwrap().signer(), new.signer());
    let before = fs::read(&path).unwrap();
    let again = SigningKey::create(&path).unwrap_err();
    assert!(matches!(again, KeyError::Unwritable(..)), "{again}");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(is_open_to_others(&path));
    assert!(!format!("{new:?}").contains("PRIVATE"));
}

#[test]
fn what_is_no_private_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let public = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
    let long = format!("{}{RFC_8410}", "x\n".repeat(10_000));
    let cut = RFC_8410.replace("EdVhC", "");
    let encrypted = RFC_8410.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for text in ["", "no key", public, &long, &cut, &encrypted, ITS_SIGNER] {
        fs::write(&path, text).unwrap();
        let error = SigningKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::NoKey(_)), "{text}: {error}");
    }
    let error = SigningKey::load(std::path::Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, KeyError::NoKey(_)), "{error}");
    let missing = SigningKey::load(&directory.path().join("none")).unwrap_err();
    assert!(matches!(missing, KeyError::Unreadable(..)), "{missing}");
}

#[test]
fn signers_that_are_asked_for_are_the_only_ones() {
    let signer = key().signer();
    let anybody = Signers::default();
    assert!(anybody.allow(None) && anybody.allow(Some(&signer)));
    let only = Signers::only([signer].into());
    assert!(only.allow(Some(&signer)) && !only.allow(None));
    let nobody = Signers::only(BTreeSet::new());
    assert!(!nobody.allow(None) && !nobody.allow(Some(&signer)));
}
