//! `MAR-INF/SIGNATURE.json`: who signed the contents of an archive.
//!
//! ```json
//! {
//!   "version": 1,
//!   "algorithm": "ed25519",
//!   "publicKey": "32 bytes in base64",
//!   "signature": "64 bytes in base64"
//! }
//! ```
//!
//! There are these four members, each once. The signature is over the two lines `lantern archive signature 1` and the contents' digest in lower-case
//! hexadecimal, each ended by LF.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::inventory::ContentsDigest;
use super::{ArchiveError, SIGNATURE};
use crate::signing::{SIGNATURE_BYTES, Signer, SigningKey};

/// Most bytes that the file may have; one that is written here has 240.
pub(super) const LIMIT: u64 = 4096;
const VERSION: u32 = 1;
const ALGORITHM: &str = "ed25519";

/// The JSON as written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSignature {
    version: u32,
    algorithm: String,
    public_key: String,
    signature: String,
}

/// What a file says, which need not be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) signer: Signer,
    pub(super) signature: [u8; SIGNATURE_BYTES],
}

impl Claim {
    /// That `key` signs contents with this digest.
    pub(super) fn made(key: &SigningKey, digest: &ContentsDigest) -> Self {
        Self {
            signer: key.signer(),
            signature: key.sign(message(digest).as_bytes()),
        }
    }

    /// Reads the bytes of the file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        if bytes.len() as u64 > LIMIT {
            return Err(too_large());
        }
        // What a library says of hostile text repeats it.
        let raw: RawSignature = serde_json::from_slice(bytes).map_err(|error| {
            let rule = "must be JSON with version, algorithm, publicKey and signature, each once and nothing else";
            refuse(rule, format!("something else from byte {} of line {} on", error.column(), error.line()))
        })?;
        if raw.version != VERSION {
            return Err(refuse("must be of version 1", raw.version));
        }
        if raw.algorithm != ALGORITHM {
            let found = format!("{:?}", raw.algorithm);
            return Err(refuse("must be of the algorithm ed25519", found));
        }
        let signer = Signer::from_base64(&raw.public_key).map_err(|error| {
            let rule = "must have a publicKey, 32 bytes in base64";
            refuse(rule, format!("one that {error}"))
        })?;
        let signature = STANDARD.decode(&raw.signature).unwrap_or_default();
        let length = signature.len();
        let signature = signature
            .try_into()
            .map_err(|_| refuse("must have a signature, 64 bytes in base64", length))?;
        Ok(Self { signer, signature })
    }

    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let raw = RawSignature {
            version: VERSION,
            algorithm: ALGORITHM.to_owned(),
            public_key: self.signer.base64(),
            signature: STANDARD.encode(self.signature),
        };
        serde_json::to_string_pretty(&raw).expect("texts and a number are JSON")
    }
}

/// Whoever signed contents with this digest, if the file that says so is right.
pub(super) fn verified(bytes: &[u8], digest: &ContentsDigest) -> Result<Signer, ArchiveError> {
    let claim = Claim::parse(bytes)?;
    let message = message(digest);
    if claim
        .signer
        .has_signed(message.as_bytes(), &claim.signature)
    {
        return Ok(claim.signer);
    }
    let rule = "must be as it was signed";
    let found = format!(
        "a signature that is not that of {} over what it holds",
        claim.signer
    );
    Err(ArchiveError::archive(rule, found))
}

/// The failure of a file that is longer than one is.
pub(super) fn too_large() -> ArchiveError {
    refuse("is too large", format!("more than {LIMIT} bytes"))
}

/// What a signature is over: no signature over it holds for anything else.
fn message(digest: &ContentsDigest) -> String {
    format!("lantern archive signature 1\n{digest}\n")
}

fn refuse(rule: &'static str, found: impl std::fmt::Display) -> ArchiveError {
    ArchiveError::entry(SIGNATURE.as_bytes(), rule, found)
}

#[cfg(test)]
mod tests {
    use super::super::inventory::Inventory;
    use super::*;

    /// The example of RFC 8410.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

    fn key() -> SigningKey {
        SigningKey::from_pem(KEY.as_bytes()).unwrap()
    }

    fn written() -> String {
        Claim::made(&key(), &Inventory::default().digest()).text()
    }

    fn refused(text: &str) -> String {
        let digest = Inventory::default().digest();
        verified(text.as_bytes(), &digest).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_this_one() {
        insta::assert_snapshot!(written());
        let digest = Inventory::default().digest();
        let signer = verified(written().as_bytes(), &digest).unwrap();
        assert_eq!(signer, key().signer());
        let spaced = written().replace('\n', " \n ");
        assert_eq!(verified(spaced.as_bytes(), &digest).unwrap(), signer);
    }

    #[test]
    fn what_is_no_such_file_is_refused_in_plain_words() {
        let whole = written();
        let deep = "[".repeat(4000);
        let long = " ".repeat(4097);
        for (text, says) in [
            ("", "must be JSON"),
            ("null", "must be JSON"),
            ("[]", "must be JSON"),
            ("{}", "must be JSON"),
            (&deep, "must be JSON"),
            (&long, "is too large, got more than 4096 bytes"),
            (&whole[..whole.len() - 10], "must be JSON"),
            (
                &whole.replace("\"version\": 1", "\"version\": \"1\""),
                "must be JSON",
            ),
            (
                &whole.replace("\"version\": 1", "\"version\": -1"),
                "must be JSON",
            ),
            (
                &whole.replace("\"version\": 1", "\"version\": 1, \"version\": 1"),
                "must be JSON",
            ),
            (
                &whole.replace("\"version\": 1", "\"version\": 1, \"more\": 1"),
                "must be JSON",
            ),
            (&format!("{whole}{whole}"), "must be JSON"),
            (
                &whole.replace("\"version\": 1", "\"version\": 2"),
                "must be of version 1, got 2",
            ),
            (
                &whole.replace("\"ed25519\"", "\"none\""),
                "algorithm ed25519, got \"none\"",
            ),
            (&whole.replace("Gb9E", "????"), "must have a publicKey"),
            (&whole.replace("Gb9E", ""), "must have a publicKey"),
            (
                &whole.replace("==\"", "\""),
                "must have a signature, 64 bytes in base64, got 0",
            ),
            (
                &whole.replace("\"signature\": \"", "\"signature\": \"AAAA"),
                "must have a signature, 64 bytes in base64, got 67",
            ),
        ] {
            let message = refused(text);
            assert!(message.contains(says), "{text}: {message}");
            assert!(message.len() < 300, "{message}");
        }
    }

    #[test]
    fn no_text_of_a_stranger_reaches_a_terminal() {
        let whole = written();
        for text in [
            whole.replace("\"version\": 1", "\"version\": 1, \"\u{1b}[2J\": 1"),
            whole.replace("ed25519", "\\u001b[2J"),
            whole.replace("Gb9E", "\\u001b[2J"),
        ] {
            assert!(!refused(&text).chars().any(char::is_control));
        }
    }

    #[test]
    fn a_signature_holds_for_its_contents_alone() {
        let other = {
            let mut inventory = Inventory::default();
            let name = super::super::EntryName::parse(b"x").unwrap().unwrap();
            inventory.file(&name, 0, [0; 32]);
            inventory.digest()
        };
        let error = verified(written().as_bytes(), &other).unwrap_err();
        let says = "the archive must be as it was signed, got a signature that is not that of ed25519:Gb9E";
        assert!(error.to_string().starts_with(says), "{error}");
    }
}
