//! What was unpacked of an archive: its files by path, length and SHA-256, which together are the contents' digest, and who signed that.
//!
//! The digest is of what was written to the directory, taken while it was written, and covers every file there. So it is the same however the
//! archive was packed, and nothing is loaded that a signature is not over. The signature itself is never written there.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use super::entry::EntryName;
use super::{ArchiveError, SIGNATURE, signature};
use crate::hex;
use crate::signing::{Signer, Signers};

/// First line of what the digest is of: it is no digest of anything else.
const HEADING: &str = "lantern archive contents 1\n";

/// SHA-256 over the paths, lengths and contents of an archive's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentsDigest([u8; 32]);

impl fmt::Display for ContentsDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(&self.0))
    }
}

/// What an archive holds, and whose signature it has over that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Digest of the contents.
    pub digest: ContentsDigest,
    /// Whoever signed it; `None` if nobody did.
    pub signer: Option<Signer>,
}

impl Origin {
    /// Fails unless one of these signers signed it, or none is asked for.
    pub fn check(&self, signers: &Signers) -> Result<(), ArchiveError> {
        if signers.allow(self.signer.as_ref()) {
            return Ok(());
        }
        let found = match self.signer {
            Some(signer) => format!("the signature of {signer}"),
            None => "no signature".to_owned(),
        };
        let rule = "must be signed by one of the tenant's signers";
        Err(ArchiveError::archive(rule, found))
    }
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    File { bytes: u64, sha256: [u8; 32] },
    Directory,
}

/// The entries of one archive, and its signature.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By path. Directories are listed where the archive has entries for them.
    entries: BTreeMap<String, Listed>,
    signature: Option<Vec<u8>>,
}

impl Inventory {
    /// Adds a file.
    pub(super) fn file(&mut self, name: &EntryName, bytes: u64, sha256: [u8; 32]) {
        let file = Listed::File { bytes, sha256 };
        self.entries.insert(name.as_str().to_owned(), file);
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, name: &EntryName) {
        self.entries
            .insert(name.as_str().to_owned(), Listed::Directory);
    }

    /// Adds the text of the signature.
    pub(super) fn signature(&mut self, text: Vec<u8>) {
        self.signature = Some(text);
    }

    /// The digest of all of them.
    pub fn digest(&self) -> ContentsDigest {
        let lines = self.lines();
        ContentsDigest(Sha256::digest(lines.as_bytes()).into())
    }

    /// A line for each file and each directory that is empty, by path. Names hold no control characters, so that no line looks like two.
    fn lines(&self) -> String {
        let mut lines = HEADING.to_owned();
        for (path, listed) in &self.entries {
            let _ = match listed {
                Listed::File { bytes, sha256 } => {
                    writeln!(lines, "{} {bytes} {path}", hex::encode(sha256))
                }
                // The files in it say that it is there.
                Listed::Directory if self.has_entries(path) => continue,
                Listed::Directory => writeln!(lines, "directory {path}"),
            };
        }
        lines
    }

    fn has_entries(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        let next = self.entries.range(below.clone()..).next();
        next.is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// What it is, and whose, if its signature is good or it has none.
    pub fn origin(&self) -> Result<Origin, ArchiveError> {
        let digest = self.digest();
        let signer = self.signature.as_deref();
        let signer = signer.map(|text| signature::verified(text, &digest));
        Ok(Origin {
            digest,
            signer: signer.transpose()?,
        })
    }
}

/// Whether this is the name of the signature. Fails for a name that differs from it in case alone, which some machines take for the same.
pub fn is_signature(name: &EntryName) -> Result<bool, ArchiveError> {
    if !name.as_str().eq_ignore_ascii_case(SIGNATURE) {
        return Ok(false);
    }
    if name.as_str() == SIGNATURE {
        return Ok(true);
    }
    let rule = "must not differ from that of the signature in case alone";
    Err(ArchiveError::entry(name.bytes(), rule, SIGNATURE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> EntryName {
        EntryName::parse(text.as_bytes()).unwrap().unwrap()
    }

    fn inventory<'a>(entries: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Inventory {
        let mut inventory = Inventory::default();
        for (path, content) in entries {
            let path = name(path);
            match content {
                Some(content) => {
                    let sha256 = Sha256::digest(content).into();
                    inventory.file(&path, content.len() as u64, sha256);
                }
                None => inventory.directory(&path),
            }
        }
        inventory
    }

    #[test]
    fn the_digest_is_of_these_lines() {
        let entries = [
            ("b/x", Some(&b""[..])),
            ("a", Some(b"abc")),
            ("b", None),
            ("b.d/empty", None),
        ];
        let inventory = inventory(entries);
        assert_eq!(
            inventory.lines(),
            "lantern archive contents 1\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3 a\n\
             directory b.d/empty\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 b/x\n"
        );
        assert_eq!(
            inventory.digest().to_string(),
            hex::encode(&Sha256::digest(inventory.lines().as_bytes()))
        );
    }

    #[test]
    fn a_name_like_that_of_the_signature_is_none() {
        assert!(is_signature(&name(SIGNATURE)).unwrap());
        assert!(!is_signature(&name("MAR-INF/SIGNATURE.json.bak")).unwrap());
        assert!(!is_signature(&name("x/MAR-INF/SIGNATURE.json")).unwrap());
        for other in ["MAR-INF/signature.json", "mar-inf/SIGNATURE.json"] {
            assert!(is_signature(&name(other)).is_err(), "{other}");
        }
    }

    type Entries = BTreeMap<String, Vec<u8>>;

    fn entries() -> impl Strategy<Value = Entries> {
        let path = "[ab ]{1,2}(/[ab0-9]{1,2}){0,2}";
        let content = proptest::collection::vec(any::<u8>(), 0..4);
        proptest::collection::btree_map(path, content, 0..6)
    }

    fn of(entries: &Entries) -> ContentsDigest {
        let files = entries.iter();
        let files = files.map(|(path, content)| (path.as_str(), Some(&content[..])));
        inventory(files).digest()
    }

    proptest! {
        #[test]
        fn other_files_have_another_digest(left in entries(), right in entries()) {
            prop_assert_eq!(left == right, of(&left) == of(&right));
        }

        #[test]
        fn a_file_more_or_a_byte_more_is_another_digest(files in entries(), path in "[c-e]{1,3}", byte in any::<u8>()) {
            let digest = of(&files);
            let mut more = files.clone();
            more.insert(path, Vec::new());
            prop_assert_ne!(of(&more), digest);
            for path in files.keys() {
                let mut longer = files.clone();
                longer.entry(path.clone()).or_default().push(byte);
                prop_assert_ne!(of(&longer), digest);
                let mut fewer = files.clone();
                fewer.remove(path);
                prop_assert_ne!(of(&fewer), digest);
            }
        }
    }
}
