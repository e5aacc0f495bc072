//! Signed archives: what a signature holds for, and hostile ones.

use ::tar::{Builder, Header};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::raw::{RawEntry, zip};
use super::*;
use crate::archive::inventory::Inventory;
use crate::archive::signature::Claim;
use crate::signing::{Signer, Signers, SigningKey};

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const TEXT: &str = r#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;

/// The files of an archive by name.
type Files = Vec<(String, Vec<u8>)>;

fn key() -> SigningKey {
    SigningKey::from_pem(PRIVATE.as_bytes()).unwrap()
}

fn signer() -> Signer {
    key().signer()
}

fn files() -> Files {
    let file = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
    vec![
        file("h.wasm", &component::HEADER),
        file("labels/a.json", b"[1]"),
        file("labels/b.json", b"[2]"),
        file(MANIFEST, TEXT.as_bytes()),
    ]
}

/// The text of a signature of these files.
fn signature(files: &Files) -> String {
    let mut inventory = Inventory::default();
    for (name, content) in files {
        let name = EntryName::parse(name.as_bytes()).unwrap().unwrap();
        let sha256 = Sha256::digest(content).into();
        inventory.file(&name, content.len() as u64, sha256);
    }
    Claim::made(&key(), &inventory.digest()).text()
}

/// The same files with their signature.
fn signed(mut files: Files) -> Files {
    let text = signature(&files);
    files.push((SIGNATURE.to_owned(), text.into_bytes()));
    files
}

fn zipped(files: &Files) -> Vec<u8> {
    let entries = files.iter();
    let entries: Vec<_> = entries
        .map(|(name, content)| RawEntry::new(name, content))
        .collect();
    zip(&entries)
}

/// Whose archive a zip is.
fn origin(bytes: &[u8]) -> Result<Origin, ArchiveError> {
    let bench = Bench::new();
    let unpacked = bench.store().unpack(&bench.put("x.mar", bytes))?;
    Ok(*unpacked.origin())
}

fn refused(bytes: &[u8]) -> String {
    Bench::new().refused("x.mar", bytes)
}

#[test]
fn a_signed_archive_is_its_signers_and_loses_its_signature() {
    let bench = Bench::new();
    let store = bench.store();
    let unpacked = store
        .unpack(&bench.put("x.mar", &zipped(&signed(files()))))
        .unwrap();
    assert_eq!(unpacked.origin().signer, Some(signer()));
    assert!(unpacked.directory().join(MANIFEST).is_file());
    assert!(!unpacked.directory().join(SIGNATURE).exists());
    let unsigned = origin(&zipped(&files())).unwrap();
    assert_eq!(unsigned.signer, None);
    assert_eq!(unsigned.digest, unpacked.origin().digest);
}

#[test]
fn a_signature_holds_however_the_files_are_packed() {
    let signed = signed(files());
    let expected = origin(&zipped(&signed)).unwrap();
    let mut reversed = signed.clone();
    reversed.reverse();
    assert_eq!(origin(&zipped(&reversed)).unwrap(), expected);
    let mut with_directories = vec![
        RawEntry::new("labels/", b"").mode(0o040_755),
        RawEntry::new("MAR-INF/", b"").mode(0o040_700),
    ];
    let deflated = signed.iter();
    with_directories
        .extend(deflated.map(|(name, content)| RawEntry::deflated(name, content).mode(0o100_755)));
    assert_eq!(origin(&zip(&with_directories)).unwrap(), expected);

    let bench = Bench::new();
    let unpack = |location: &Location| *bench.store().unpack(location).unwrap().origin();
    assert_eq!(unpack(&bench.put("x.tar.gz", &tarred(&signed))), expected);
    for (name, content) in &signed {
        let path = bench.path("directory").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let directory = Location::local(&bench.path("directory")).unwrap();
    assert_eq!(unpack(&directory), expected);
}

fn tarred(files: &Files) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, format!("m/{name}"), &content[..])
            .unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn what_was_not_signed_is_refused() {
    let says = "the archive must be as it was signed, got a signature that is not that of ed25519:";
    let mut more = signed(files());
    more.push(("more.txt".to_owned(), Vec::new()));
    assert!(refused(&zipped(&more)).starts_with(says));
    let mut hidden = signed(files());
    hidden.push((".hidden".to_owned(), Vec::new()));
    assert!(refused(&zipped(&hidden)).starts_with(says));
    let mut beside = signed(files());
    beside.push(("MAR-INF/OTHER.json".to_owned(), Vec::new()));
    assert!(refused(&zipped(&beside)).starts_with(says));
    let mut entries: Vec<_> = (signed(files()).iter())
        .map(|(name, content)| RawEntry::new(name, content))
        .collect();
    entries.push(RawEntry::new("empty/", b"").mode(0o040_755));
    assert!(refused(&zip(&entries)).starts_with(says));
}

#[test]
fn there_is_one_signature_by_one_name() {
    let whole = signed(files());
    let text = whole.last().unwrap().1.clone();
    for (name, says) in [
        (SIGNATURE, "must be there once"),
        ("./MAR-INF/SIGNATURE.json", "must be there once"),
        ("MAR-INF/signature.json", "must be there once"),
        ("mar-inf/SIGNATURE.json", "in case alone"),
        ("MAR-INF/SIGNATURE.json/x", "must not lie in a file"),
    ] {
        let mut twice = whole.clone();
        twice.push((name.to_owned(), text.clone()));
        let message = refused(&zipped(&twice));
        assert!(message.contains(says), "{name}: {message}");
    }
    let mut other = files();
    other.push(("MAR-INF/signature.json".to_owned(), text.clone()));
    let message = refused(&zipped(&other));
    assert!(
        message.contains("must not differ from that of the signature"),
        "{message}"
    );
    // What is there by another name is a file as any.
    let mut elsewhere = files();
    elsewhere.push(("SIGNATURE.json".to_owned(), text));
    assert_eq!(origin(&zipped(&elsewhere)).unwrap().signer, None);
}

#[test]
fn what_is_no_signature_is_refused() {
    let huge = vec![b' '; 1 << 20];
    for text in [
        &b""[..],
        b"{}",
        b"\0",
        b"\xff\xfe",
        &signature(&files()).as_bytes()[..200],
        &huge,
    ] {
        let mut bad = files();
        bad.push((SIGNATURE.to_owned(), text.to_vec()));
        let message = refused(&zipped(&bad));
        let says = "entry \"MAR-INF/SIGNATURE.json\" ";
        assert!(message.starts_with(says), "{message}");
    }
    let entries = files();
    let mut entries: Vec<_> = (entries.iter())
        .map(|(name, content)| RawEntry::new(name, content))
        .collect();
    entries.push(RawEntry::deflated(SIGNATURE, &huge));
    assert!(refused(&zip(&entries)).contains("is too large"));
}

#[test]
fn no_manifest_makes_the_signature_a_file_of_the_model() {
    for member in ["serializedFile", "configFile", "handler"] {
        let manifest = format!(
            r#"{{"model": {{"modelName": "m", "modelVersion": "1", "handler": "h.wasm", "{member}": "{SIGNATURE}"}}}}"#
        )
        .replace(
            r#""handler": "h.wasm", "handler""#,
            r#""handler""#,
        );
        let mut files = files();
        files.last_mut().unwrap().1 = manifest.into_bytes();
        let message = refused(&zipped(&signed(files)));
        assert!(
            message.contains("handler") || message.contains("has no"),
            "{message}"
        );
    }
}

#[test]
fn signers_are_asked_for() {
    let signed = origin(&zipped(&signed(files()))).unwrap();
    let unsigned = origin(&zipped(&files())).unwrap();
    let only = Signers::only([signer()].into());
    let others = Signers::only([Signer::new([7; 32]).unwrap()].into());
    signed.check(&only).unwrap();
    signed.check(&Signers::default()).unwrap();
    unsigned.check(&Signers::default()).unwrap();
    let says = |origin: Origin, signers: &Signers| {
        let error = origin.check(signers).unwrap_err();
        let message = error.to_string();
        assert_eq!(Error::from(error).kind(), Kind::InvalidModel);
        message
    };
    assert_eq!(
        says(unsigned, &only),
        "the archive must be signed by one of the tenant's signers, got no signature"
    );
    assert_eq!(
        says(signed, &others),
        format!(
            "the archive must be signed by one of the tenant's signers, got the signature of {}",
            signer()
        )
    );
}

/// A change to what was signed.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, usize),
    Cut(usize, usize),
    Append(usize, u8),
    Rename(usize, String),
    Swap(usize, usize),
    Remove(usize),
    Add(String, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let index = || any::<usize>();
    prop_oneof![
        (index(), index()).prop_map(|(file, at)| Change::Flip(file, at)),
        (index(), index()).prop_map(|(file, at)| Change::Cut(file, at)),
        (index(), any::<u8>()).prop_map(|(file, byte)| Change::Append(file, byte)),
        (index(), "[a-z]{1,3}").prop_map(|(file, name)| Change::Rename(file, name)),
        (index(), index()).prop_map(|(left, right)| Change::Swap(left, right)),
        index().prop_map(Change::Remove),
        (
            "[a-z]{1,3}(/[a-z])?",
            proptest::collection::vec(any::<u8>(), 0..3)
        )
            .prop_map(|(name, content)| Change::Add(name, content)),
    ]
}

impl Change {
    /// Changes one of the first `count` files.
    fn apply(self, files: &mut Files, count: usize) {
        match self {
            Self::Flip(file, at) => {
                let content = &mut files[file % count].1;
                let length = content.len();
                content[at % length] ^= 1;
            }
            Self::Cut(file, at) => {
                let content = &mut files[file % count].1;
                content.truncate(at % content.len());
            }
            Self::Append(file, byte) => files[file % count].1.push(byte),
            Self::Rename(file, name) => files[file % count].0.push_str(&name),
            Self::Swap(left, right) => {
                let (left, right) = (left % count, right % count);
                let name = files[left].0.clone();
                files[left].0 = std::mem::replace(&mut files[right].0, name);
            }
            Self::Remove(file) => drop(files.remove(file % count)),
            Self::Add(name, content) => files.push((name, content)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_change_breaks_the_signature(change in change(), of_signature in any::<bool>()) {
        let whole = signed(files());
        let mut changed = whole.clone();
        let count = if of_signature { whole.len() } else { whole.len() - 1 };
        change.apply(&mut changed, count);
        prop_assume!(changed != whole);
        let mut sorted = (changed.clone(), whole);
        sorted.0.sort();
        sorted.1.sort();
        prop_assume!(sorted.0 != sorted.1);
        if let Ok(origin) = origin(&zipped(&changed)) {
            // Space within the JSON says nothing, and what is no signature any more is a file.
            let is_signed = changed.iter().any(|(name, _)| name == SIGNATURE);
            let is_space = signature_says(&changed) == signature_says(&signed(files()));
            prop_assert!(origin.signer.is_none() && !is_signed || is_space, "{changed:?}");
        }
    }
}

/// What the signature says.
fn signature_says(files: &Files) -> Option<Claim> {
    let (_, text) = files.iter().find(|(name, _)| name == SIGNATURE)?;
    Claim::parse(text).ok()
}
