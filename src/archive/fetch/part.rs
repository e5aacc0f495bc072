//! The file of an unfinished download, in the store's hidden directory, named by the digest of its URL.
//!
//! It is locked while a download writes to it. Beside it lies the validator that its source gave (`.tag`), without which
//! the download cannot be resumed. Old parts are removed when a server starts.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Resume;
use crate::archive::ArchiveError;
use crate::archive::store::HIDDEN;

/// How long a part is kept for a resumption.
const KEPT: Duration = Duration::from_hours(24);
/// Most bytes of a tag.
const TAG_LIMIT: u64 = 1024;

/// A file that this download alone is filling.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    /// Opens and locks the part named `digest` in the store at `root`, with the bytes that it has.
    pub fn open(root: &Path, digest: &str) -> Result<Self, ArchiveError> {
        let opening = ArchiveError::io("making a file for an archive");
        let directory = root.join(HIDDEN);
        let path = directory.join(format!("{digest}.part"));
        open_locked(&directory, &path)
            .map(|file| Self { file, path })
            .map_err(opening)
    }

    /// How many bytes have arrived.
    pub fn len(&self) -> Result<u64, ArchiveError> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(ArchiveError::io("reading a file for an archive"))?;
        Ok(metadata.len())
    }

    /// How to resume the download; `None` if it has to start again.
    pub fn resume(&self) -> Option<Resume> {
        let offset = self.len().ok().filter(|len| *len > 0)?;
        let tag = self.tag();
        let is_short = fs::metadata(&tag).ok()?.len() <= TAG_LIMIT;
        let validator = fs::read_to_string(tag).ok().filter(|_| is_short)?;
        Some(Resume { offset, validator })
    }

    /// Empties the file, for a download of the file that `validator` identifies.
    pub fn restart(&self, validator: Option<&str>) -> Result<(), ArchiveError> {
        let restarting = || ArchiveError::io("writing a file for an archive");
        self.file.set_len(0).map_err(restarting())?;
        self.forget_tag();
        validator.map_or(Ok(()), |validator| {
            fs::write(self.tag(), validator).map_err(restarting())
        })
    }

    /// A writer that continues at `offset`.
    pub fn writer(&self, offset: u64) -> Result<tokio::fs::File, ArchiveError> {
        let writing = || ArchiveError::io("writing a file for an archive");
        let mut file = self.file.try_clone().map_err(writing())?;
        file.seek(SeekFrom::Start(offset)).map_err(writing())?;
        Ok(tokio::fs::File::from_std(file))
    }

    /// The file itself, for callers that write without a runtime.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file and its tag.
    pub fn discard(self) {
        self.forget_tag();
    }

    /// Removes the tag, because the file is complete or of no use.
    pub fn forget_tag(&self) {
        let _ = fs::remove_file(self.tag());
    }

    /// Whether the file still has its name. Another server may have moved it.
    fn is_here(&self) -> bool {
        is_same(&self.file, &self.path)
    }

    fn tag(&self) -> PathBuf {
        self.path.with_extension("tag")
    }
}

/// Removes a part that cannot be resumed.
impl Drop for Part {
    fn drop(&mut self) {
        if self.resume().is_none() && self.is_here() {
            self.forget_tag();
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_locked(directory: &Path, path: &Path) -> io::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()
            .map_err(|_| io::Error::other("another server is fetching the same archive"))?;
        // The server that held the lock before may have moved the file away meanwhile.
        if is_same(&file, path) {
            return Ok(file);
        }
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|there| {
        let held = file.metadata();
        held.is_ok_and(|held| (held.dev(), held.ino()) == (there.dev(), there.ino()))
    })
}

/// Removes parts that were not resumed in time.
pub fn sweep(root: &Path) {
    let entries = fs::read_dir(root.join(HIDDEN))
        .into_iter()
        .flatten()
        .flatten();
    for path in entries.map(|entry| entry.path()) {
        let is_kind = |kind: &str| path.extension().is_some_and(|own| own == kind);
        if is_kind("mar") {
            // A part by another name, of an upload that a server was examining when it was killed.
            let _ = fs::remove_file(&path);
        }
        let is_ours = is_kind("part");
        if is_ours && is_forsaken(&path) {
            let _ = fs::remove_file(path.with_extension("tag"));
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_forsaken(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let age = modified.map(|modified| {
        SystemTime::now()
            .duration_since(modified)
            .unwrap_or_default()
    });
    let has_tag = path.with_extension("tag").exists();
    file.try_lock().is_ok() && (!has_tag || age.is_ok_and(|age| age > KEPT))
}
