//! Files of private keys: PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` makes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::SigningKey;

/// Most bytes that a file of a key may have: one has 119, with room for text beside it.
const FILE_LIMIT: u64 = 16 << 10;
/// What stands before the 32 secret bytes in the first version of PKCS #8, which every program reads.
const BEFORE_SECRET: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// What others than the owner may do with a file.
const OTHERS: u32 = 0o077;

/// Why there is no private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(String, #[source] io::Error),
    /// The file cannot be made, or is there already.
    #[error("{0} cannot be made")]
    Unwritable(String, #[source] io::Error),
    /// The file holds something else.
    #[error(
        "{0} must hold an Ed25519 private key in PEM (PKCS #8, not encrypted), as `lantern signer new` makes it"
    )]
    NoKey(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandom(getrandom::Error),
}

impl SigningKey {
    /// Reads the key in the file at `path`.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let shown = || path.display().to_string();
        let pem = contents(path).map_err(|error| KeyError::Unreadable(shown(), error))?;
        Self::from_pem(&pem).ok_or_else(|| KeyError::NoKey(shown()))
    }

    /// Makes a key, in a file at `path` that only its owner can read. Fails if there is a file.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(KeyError::NoRandom)?;
        let pem = pem(&secret);
        let shown = || path.display().to_string();
        write(path, &pem).map_err(|error| KeyError::Unwritable(shown(), error))?;
        Self::from_pem(pem.as_bytes()).ok_or_else(|| KeyError::NoKey(shown()))
    }

    /// The first private key in a text, if it is an Ed25519 one.
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        pair.ok().map(Self)
    }
}

/// Whether others than its owner can read or change the file at `path`.
pub fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
}

/// One byte more than there may be, so that what is too long is no key.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > FILE_LIMIT {
        bytes.clear();
    }
    Ok(bytes)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.inspect_err(|_| {
        // Half a key is none.
        let _ = fs::remove_file(path);
    })
}

fn pem(secret: &[u8; 32]) -> String {
    let der = [&BEFORE_SECRET[..], secret].concat();
    let text = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}
