//! Reading archives: those of `torch-model-archiver`, and hostile ones made here.
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Error, Kind};

mod directories;
mod leases;
mod originals;
mod raw;
mod signatures;
mod summaries;
mod tars;
mod zips;

/// Directories for an archive and for unpacking it, with a file beside them that must not change.
struct Bench {
    root: tempfile::TempDir,
    limits: UnpackLimits,
}

const CANARY: &str = "unpacked-evil/canary";

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("unpacked-evil")).unwrap();
        fs::write(root.path().join(CANARY), "sings").unwrap();
        Self {
            root,
            limits: UnpackLimits {
                entries: 100,
                total: 128 << 20,
                file: 64 << 20,
                ratio: 100,
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn store(&self) -> UnpackStore {
        UnpackStore::open(&self.path("unpacked"), self.limits).unwrap()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Location {
        fs::write(self.path(name), bytes).unwrap();
        Location::local(&self.path(name)).unwrap()
    }

    /// The text with which an archive is refused. Asserts that only the process's own directory is left, and that the file
    /// beside it has not changed.
    fn refused(&self, name: &str, bytes: &[u8]) -> String {
        let store = self.store();
        let error = store.unpack(&self.put(name, bytes)).unwrap_err();
        assert_eq!(fs::read_to_string(self.path(CANARY)).unwrap(), "sings");
        let left: Vec<_> = files(&self.path("unpacked"));
        assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
        let mut beside: Vec<_> = fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        beside.sort();
        let mut expected = [name, "unpacked", "unpacked-evil"];
        expected.sort_unstable();
        assert_eq!(beside, expected);
        let message = error.to_string();
        assert!(
            !message.contains(self.root.path().to_str().unwrap()),
            "{message}"
        );
        assert_eq!(Error::from(error).kind(), Kind::InvalidModel, "{message}");
        message
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Names that lead out of the directory, hide something, or are ambiguous.
const BAD_NAMES: [&[u8]; 11] = [
    b"../x",
    b"/abs",
    b"a/../../x",
    b"..\\x",
    b"a\\..\\..\\x",
    b"../unpacked-evil/canary",
    b"a\0b",
    b"a\nb",
    b"a//b",
    b"\xff\xfe",
    b"a/..",
];
