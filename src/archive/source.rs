//! Reading the three forms of archive: zip, gzip tar, directory.
//!
//! The reader of each form gives its entries to an [`Unpacker`], which checks names and limits and alone writes files.
//! Links, devices, encryption and false sizes are refused by the reader of the form that has them; a directory may have links
//! that lead to where archives may lie.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use super::ArchiveError;
use super::digest::{Digesting, sha256};
use super::entry::{EntryName, Names};
use super::inventory::{Inventory, is_signature};
use super::limits::{Meter, UnpackLimits};
use super::roots::{Roots, open_resolved};
use super::signature;
use super::store::Location;

mod directory;
mod tar;
mod zip;

/// An archive that was opened, and whose digest is known.
#[derive(Debug)]
pub struct Source {
    /// SHA-256 of the archive, or over a directory's names and contents, in hexadecimal.
    pub digest: String,
    form: Form,
    /// Bytes of the archive; of a directory, the largest number, since nothing in it is compressed.
    size: u64,
}

#[derive(Debug)]
enum Form {
    Zip(File),
    Tar(File),
    Directory(PathBuf, Roots),
}

impl Source {
    /// Opens what lies at `location` and reads it once, for its digest.
    pub fn open(location: &Location, limits: UnpackLimits) -> Result<Self, ArchiveError> {
        let path = location.path();
        let missing = |_| ArchiveError::NotFound(location.url().to_owned());
        let mut file = open_resolved(path).map_err(missing)?;
        let metadata = file.metadata().map_err(missing)?;
        if metadata.is_dir() {
            let digest = directory::digest(path, location.roots(), limits)?;
            let form = Form::Directory(path.to_owned(), location.roots().clone());
            let size = u64::MAX;
            return Ok(Self { digest, form, size });
        }
        // Reading a device may never end.
        if !metadata.is_file() {
            return Err(ArchiveError::Archive {
                rule: "must be a regular file or a directory",
                value: "a device, pipe or socket".to_owned(),
            });
        }
        let digest = sha256(&mut file).map_err(ArchiveError::io("reading the archive"))?;
        let size = file
            .stream_position()
            .map_err(ArchiveError::io("reading the archive"))?;
        file.rewind()
            .map_err(ArchiveError::io("reading the archive"))?;
        let is_zip = path.extension().is_some_and(|extension| extension == "mar");
        Ok(Self {
            digest,
            size,
            form: if is_zip {
                Form::Zip(file)
            } else {
                Form::Tar(file)
            },
        })
    }

    /// Unpacks the archive into `directory`, which must be empty. Returns what is there then, and the signature, which is not.
    pub fn read(&self, directory: &Path, limits: UnpackLimits) -> Result<Inventory, ArchiveError> {
        let mut unpacker = Unpacker::new(directory, limits, self.size);
        match &self.form {
            Form::Zip(file) => zip::read(file, &mut unpacker)?,
            Form::Tar(file) => tar::read(file, &mut unpacker)?,
            Form::Directory(path, roots) => directory::read(path, roots, limits, &mut unpacker)?,
        }
        Ok(unpacker.inventory)
    }
}

/// One file of the archive at `location`, if it has at most `most` bytes. `None` if it is missing, too large, or cannot be
/// read without reading the rest of the archive. Nothing is written.
pub fn read_one(
    location: &Location,
    name: &EntryName,
    limits: UnpackLimits,
    most: u64,
) -> Option<Vec<u8>> {
    let path = location.path();
    let file = open_resolved(path).ok()?;
    let metadata = file.metadata().ok()?;
    if metadata.is_dir() {
        return directory::read_one(path, location.roots(), name, most);
    }
    let is_zip = path.extension().is_some_and(|extension| extension == "mar");
    // Reading a device may never end.
    if !is_zip || !metadata.is_file() {
        return None;
    }
    zip::read_one(&file, name, limits, most)
}

/// The whole of `content`, if it has at most `most` bytes.
fn read_within(content: impl Read, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

/// Writes the entries of one archive below an empty directory, all but its signature.
#[derive(Debug)]
pub struct Unpacker {
    directory: PathBuf,
    names: Names,
    meter: Meter,
    inventory: Inventory,
}

impl Unpacker {
    /// Writes an archive of `archive` bytes below `directory`, within `limits`.
    pub fn new(directory: &Path, limits: UnpackLimits, archive: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            names: Names::default(),
            meter: Meter::new(limits, archive),
            inventory: Inventory::default(),
        }
    }

    /// Checks the number of entries that the archive claims to have.
    pub fn announce(&self, entries: usize) -> Result<(), ArchiveError> {
        self.meter.check_entries(entries)
    }

    /// Counts an entry of any kind, before anything else is done with it.
    pub fn count(&mut self) -> Result<(), ArchiveError> {
        self.meter.entry()
    }

    /// Makes a directory, and those above it.
    pub fn directory(&mut self, name: &EntryName) -> Result<(), ArchiveError> {
        self.names.directory(name)?;
        self.inventory.directory(name);
        fs::create_dir_all(name.under(&self.directory))
            .map_err(ArchiveError::io("making an unpacked directory"))
    }

    /// Writes a file, or keeps the signature, and returns its size. Permissions that the archive asks for are ignored.
    pub fn file(
        &mut self,
        name: &EntryName,
        content: impl Read,
        compressed: impl Fn() -> u64,
    ) -> Result<u64, ArchiveError> {
        self.names.file(name)?;
        if is_signature(name)? {
            return self.signature(name, content, compressed);
        }
        let path = name.under(&self.directory);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(ArchiveError::io("making an unpacked directory"))?;
        }
        let mut file = Digesting::new(create(&path)?);
        let size = self.meter.copy(name, content, &mut file, compressed)?;
        self.inventory.file(name, size, file.sha256());
        Ok(size)
    }

    fn signature(
        &mut self,
        name: &EntryName,
        content: impl Read,
        compressed: impl Fn() -> u64,
    ) -> Result<u64, ArchiveError> {
        let mut text = Vec::new();
        // One byte more than there may be is enough to know.
        let content = content.take(signature::LIMIT + 1);
        let size = self.meter.copy(name, content, &mut text, compressed)?;
        if size > signature::LIMIT {
            return Err(signature::too_large());
        }
        self.inventory.signature(text);
        Ok(size)
    }
}

fn create(path: &Path) -> Result<File, ArchiveError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(ArchiveError::io("creating an unpacked file"))
}
