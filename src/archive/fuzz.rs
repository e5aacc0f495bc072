//! What the fuzzer calls: archives, the names in them, manifests, signatures, and `allowed_urls`.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzEncoder;
use tempfile::TempDir;
use url::Host;

use super::entry::Names;
use super::inventory::Inventory;
use super::signature::{Claim, LIMIT, verified};
use super::source::{Source, read_one};
use super::urls::SourceUrl;
use super::{AllowedUrls, Contents, EntryName, Location, Manifest, UnpackLimits};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// So low that a few bytes reach them.
const LIMITS: UnpackLimits = UnpackLimits {
    entries: 32,
    total: 256 << 10,
    file: 128 << 10,
    ratio: 100,
};
/// Levels of directories that one entry may make.
const LEVELS: usize = 16;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 6] = [
    ("zip", zip),
    ("tar", tar),
    ("entry_names", entry_names),
    ("manifest", manifest),
    ("archive_signature", archive_signature),
    ("allowed_urls", allowed_urls),
];

fn zip(bytes: &[u8]) {
    let bench = Bench::new("archive.mar", bytes);
    bench.unpack();
    bench.compare_single_files();
}

/// What is no gzip is compressed first, so that the fuzzer need not.
fn tar(bytes: &[u8]) {
    let mut compressed = bytes.to_vec();
    if !bytes.starts_with(&GZIP) {
        compressed.clear();
        GzEncoder::new(bytes, Compression::none())
            .read_to_end(&mut compressed)
            .expect("compressing to memory does not fail");
    }
    Bench::new("archive.tar.gz", &compressed).unpack();
}

/// An archive and the directory that it is unpacked into, alone in a directory.
struct Bench {
    root: TempDir,
    name: &'static str,
}

impl Bench {
    fn new(name: &'static str, bytes: &[u8]) -> Self {
        let root = tempfile::tempdir().expect("a directory can be made");
        fs::write(root.path().join(name), bytes).expect("a file can be written");
        fs::create_dir(root.path().join("unpacked")).expect("a directory can be made");
        Self { root, name }
    }

    fn unpacked(&self) -> PathBuf {
        self.root.path().join("unpacked")
    }

    fn location(&self) -> Location {
        let path = self.root.path().join(self.name);
        Location::local(&path).expect("the file is there")
    }

    /// Unpacks, and checks that what is there is within the limits and nothing is anywhere else, even after a refusal.
    fn unpack(&self) {
        let source = Source::open(&self.location(), LIMITS).expect("the file can be read");
        let read = source.read(&self.unpacked(), LIMITS);
        let beside = fs::read_dir(self.root.path()).expect("the directory is there");
        assert_eq!(beside.count(), 2, "something lies beside the directory");
        let found = found(&self.unpacked());
        let sizes = found.iter().filter_map(|(_, size)| *size);
        assert!(sizes.clone().all(|size| size <= LIMITS.file));
        assert!(sizes.sum::<u64>() <= LIMITS.total);
        assert!(found.len() <= LIMITS.entries * (LEVELS + 1));
        if let Ok(inventory) = read {
            let _ = (inventory.origin(), Contents::read(&self.unpacked()));
        }
    }

    /// A file that is read without unpacking is the one that would be unpacked.
    fn compare_single_files(&self) {
        for (path, size) in found(&self.unpacked()) {
            let name = path.strip_prefix(self.unpacked()).ok();
            let name =
                name.and_then(|name| EntryName::parse(name.as_os_str().as_encoded_bytes()).ok());
            let (Some(Some(name)), Some(_)) = (name, size) else {
                continue;
            };
            let whole = fs::read(&path).expect("the file is there");
            let single = read_one(&self.location(), &name, LIMITS, LIMITS.total);
            assert!(single.is_none_or(|single| single.starts_with(&whole)));
        }
    }
}

/// Everything below `directory`, with the sizes of files. Panics on what is neither file nor directory.
fn found(directory: &Path) -> Vec<(PathBuf, Option<u64>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("the directory can be listed").path();
        let metadata = fs::symlink_metadata(&path).expect("the file is there");
        assert!(metadata.is_dir() || metadata.is_file());
        if metadata.is_dir() {
            found.extend(self::found(&path));
        }
        found.push((path, metadata.is_file().then_some(metadata.len())));
    }
    found
}

/// Names, each ended by NUL; those that begin with `d` are directories.
fn entry_names(bytes: &[u8]) {
    let mut names = Names::default();
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for raw in bytes.split(|byte| *byte == 0) {
        let (is_directory, raw) = match raw.strip_prefix(b"d") {
            Some(raw) => (true, raw),
            None => (false, raw),
        };
        let Ok(Some(name)) = EntryName::parse(raw) else {
            continue;
        };
        check_name(&name);
        if is_directory && names.directory(&name).is_ok() {
            directories.push(name.as_str().to_lowercase());
        } else if !is_directory && names.file(&name).is_ok() {
            assert!(!files.contains(&name.as_str().to_lowercase()));
            files.push(name.as_str().to_lowercase());
        }
    }
    for file in &files {
        let below = format!("{file}/");
        let mut all = files.iter().chain(&directories);
        assert!(all.all(|other| !other.starts_with(&below)));
        assert!(!directories.contains(file));
    }
}

fn check_name(name: &EntryName) {
    let path = name.under(Path::new("/dest"));
    let inside = path.strip_prefix("/dest").expect("a name stays inside");
    let mut components = inside.components();
    assert!(components.all(|part| matches!(part, Component::Normal(_))));
    let again = EntryName::parse(name.bytes());
    assert_eq!(again.ok().flatten().as_ref(), Some(name));
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return;
    };
    assert_eq!(manifest.text.as_bytes(), bytes);
    let files = manifest.serialized_file.iter().chain(&manifest.config_file);
    files.for_each(check_name);
}

/// What is read is read again when it is written, and no signature is good for two contents.
fn archive_signature(bytes: &[u8]) {
    let empty = Inventory::default();
    let mut other = Inventory::default();
    let name = EntryName::parse(b"x").ok().flatten();
    other.file(&name.expect("it is a name"), 0, [0; 32]);
    let signers = [&empty, &other].map(|one| verified(bytes, &one.digest()).ok());
    assert!(signers.iter().flatten().count() <= 1);
    let Ok(claim) = Claim::parse(bytes) else {
        assert_eq!(signers, [None, None]);
        return;
    };
    assert!(bytes.len() as u64 <= LIMIT);
    assert!(signers.iter().flatten().all(|one| *one == claim.signer));
    let again = Claim::parse(claim.text().as_bytes());
    assert_eq!(again.ok(), Some(claim));
}

/// `allowed_urls` in the first line, a URL in each of the others.
fn allowed_urls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (items, urls) = text.split_once('\n').unwrap_or((&text, ""));
    let (allowed, _) = AllowedUrls::read(items, false);
    let (more, _) = AllowedUrls::read(items, true);
    assert!(allowed.roots().count() <= more.roots().count());
    for url in urls.lines() {
        let Ok((source, _)) = SourceUrl::parse(url) else {
            continue;
        };
        if source.scheme == "file" {
            let path = source.path();
            assert!(
                path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
            );
        }
        if allowed.permit(&source) {
            assert!(more.permit(&source));
            check_host(items, &source);
        }
    }
}

/// No URL is allowed whose host does not stand in the items, where these say it plainly.
fn check_host(items: &str, source: &SourceUrl) {
    let Some(Host::Domain(host)) = &source.host else {
        return;
    };
    let is_plain = items.is_ascii() && !items.contains(['[', '(', '?', '%', '|']);
    let plain = items.replace('\\', "").to_ascii_lowercase();
    assert!(
        !is_plain || plain.contains(host.as_str()),
        "{host} is allowed"
    );
}
