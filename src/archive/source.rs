//! Reading the three forms of archive: zip, gzip tar, directory.
//!
//! Each form walks its entries and hands them to an [`Unpacker`], which checks names, counts and measures, and is the
//! only one to write. A form's own tricks (links, devices, encryption, sizes that lie) are refused in its file.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ArchiveError;
use super::entry::{EntryName, Names};
use super::limits::{Meter, UnpackLimits};

mod directory;
mod tar;
mod zip;

pub use directory::{digest as directory_digest, read as read_directory};
pub use tar::read as read_tar;
pub use zip::read as read_zip;

/// Writes entries below a directory that was made for it and is empty.
#[derive(Debug)]
pub struct Unpacker {
    directory: PathBuf,
    names: Names,
    meter: Meter,
}

impl Unpacker {
    /// Writes below `directory`, within `limits`.
    pub fn new(directory: &Path, limits: UnpackLimits) -> Self {
        Self {
            directory: directory.to_owned(),
            names: Names::default(),
            meter: Meter::new(limits),
        }
    }

    /// Whether an archive may have this many entries.
    pub fn announce(&self, entries: usize) -> Result<(), ArchiveError> {
        self.meter.check_entries(entries)
    }

    /// Counts an entry of any kind, before anything else is done with it.
    pub fn count(&mut self) -> Result<(), ArchiveError> {
        self.meter.entry()
    }

    /// Makes a directory.
    pub fn directory(&mut self, name: &EntryName) -> Result<(), ArchiveError> {
        self.names.directory(name)?;
        fs::create_dir_all(name.under(&self.directory))
            .map_err(ArchiveError::io("making an unpacked directory"))
    }

    /// Writes a file and returns its size. Nothing in the archive decides its permissions.
    pub fn file(
        &mut self,
        name: &EntryName,
        content: impl Read,
        compressed: impl Fn() -> u64,
    ) -> Result<u64, ArchiveError> {
        self.names.file(name)?;
        let path = name.under(&self.directory);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ArchiveError::io("making an unpacked directory"))?;
        }
        let file = create(&path)?;
        self.meter.copy(name, content, file, compressed)
    }
}

fn create(path: &Path) -> Result<File, ArchiveError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(ArchiveError::io("creating an unpacked file"))
}
