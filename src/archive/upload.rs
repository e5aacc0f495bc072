//! An archive that a client sends: it gets its name in the store once it is whole, has the digest that was announced, and was examined.
//!
//! Until then it is a part, as a download is, named by the digest. What arrived of one that broke off stays, so that the client can go on
//! from there, until another one begins, or a server starts a day later.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::digest::sha256;
use super::examine::examine_in;
use super::fetch::{Download, Part};
use super::store::HIDDEN;
use super::{ArchiveError, Location, ModelStore, UnpackLimits};
use crate::signing::Signers;

/// Bytes of a name.
const LONGEST_NAME: usize = 200;

/// What a client sends.
#[derive(Debug)]
pub struct Upload {
    part: Part,
    root: PathBuf,
    name: String,
    digest: String,
}

/// An archive in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

impl Upload {
    /// An archive to be called `name`, with this SHA-256 in hexadecimal. Fails while another one is sent with the same digest, and if there is
    /// an archive of that name. Blocks.
    pub fn begin(store: &ModelStore, name: &str, digest: &str) -> Result<Self, ArchiveError> {
        check_name(name)?;
        check_digest(digest)?;
        let root = store.root().ok_or(ArchiveError::NoModelStore)?;
        if fs::symlink_metadata(root.join(name)).is_ok() {
            return Err(ArchiveError::Exists(name.to_owned()));
        }
        let part = Part::open(&root, digest).map_err(|error| match error {
            ArchiveError::Io { .. } if is_held(&root, digest) => ArchiveError::Busy,
            error => error,
        })?;
        // With a tag, a part is kept when it breaks off.
        if part.resume().is_none() {
            part.restart(Some(digest))?;
        }
        Ok(Self {
            part,
            root,
            name: name.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// Bytes that have arrived.
    pub fn arrived(&self) -> Result<u64, ArchiveError> {
        self.part.len()
    }

    /// It is to arrive, from the start if `anew`: of others that broke off nothing stays. Blocks.
    pub fn take_place(&self, anew: bool) -> Result<(), ArchiveError> {
        discard_others(&self.root, &self.digest);
        if anew {
            self.part.restart(Some(&self.digest))?;
        }
        Ok(())
    }

    /// What the rest is written to, behind what has arrived.
    pub fn rest(&self) -> Result<tokio::fs::File, ArchiveError> {
        self.part.writer(self.arrived()?)
    }

    /// Nothing more comes: the archive gets its name, if it is what it should be, and signed by one of `signers`. Otherwise nothing of it stays,
    /// unless it was this machine that failed. It is unpacked in `directory`. Blocks.
    pub fn finish(
        self,
        directory: &Path,
        limits: UnpackLimits,
        signers: &Signers,
    ) -> Result<Stored, ArchiveError> {
        match self.check(directory, limits, signers) {
            Ok(bytes) => self.named(bytes),
            Err(error @ ArchiveError::Io { .. }) => Err(error),
            Err(error) => {
                self.part.discard();
                Err(error)
            }
        }
    }

    fn check(
        &self,
        directory: &Path,
        limits: UnpackLimits,
        signers: &Signers,
    ) -> Result<u64, ArchiveError> {
        let reading = || ArchiveError::io("reading an archive that was sent");
        let file = File::open(self.part.path()).map_err(reading())?;
        let digest = sha256(&file).map_err(reading())?;
        if digest != self.digest {
            let rule = "must have the SHA-256 that was announced";
            return Err(ArchiveError::archive(
                rule,
                format!("{digest}, not {}", self.digest),
            ));
        }
        // What an archive's name ends in says how it is packed.
        let named = Named::of(self.part.path()).map_err(reading())?;
        let examined = examine_in(directory, &Location::local(&named.0)?, limits)?;
        examined.origin?.check(signers)?;
        examined.contents.map(drop)?;
        self.arrived()
    }

    fn named(self, bytes: u64) -> Result<Stored, ArchiveError> {
        let Self {
            part, root, name, ..
        } = self;
        Download::publish(part, &root, &name)?.keep();
        Ok(Stored { name, bytes })
    }
}

/// A part by a name that an archive has, until it is dropped.
struct Named(PathBuf);

impl Named {
    fn of(part: &Path) -> io::Result<Self> {
        let named = Self(part.with_extension("mar"));
        // A server that was killed may have left one.
        let _ = fs::remove_file(&named.0);
        fs::hard_link(part, &named.0)?;
        Ok(named)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Bytes that have arrived of an archive with this SHA-256; 0 if nothing has. Blocks.
pub fn arrived(store: &ModelStore, digest: &str) -> Result<u64, ArchiveError> {
    check_digest(digest)?;
    let root = store.root().ok_or(ArchiveError::NoModelStore)?;
    let part = fs::metadata(root.join(HIDDEN).join(format!("{digest}.part")));
    Ok(part.map_or(0, |part| part.len()))
}

/// Archives in `store` that are files, by name. Blocks.
pub fn stored(store: &ModelStore) -> Result<Vec<Stored>, ArchiveError> {
    let listed = store.list()?.archives;
    let listed = listed.iter().filter_map(|location| {
        let found = fs::metadata(location.path()).ok()?;
        found.is_file().then(|| Stored {
            name: location.source().to_owned(),
            bytes: found.len(),
        })
    });
    Ok(listed.collect())
}

/// Removes the archive `name` from `store`. Blocks.
pub fn remove(store: &ModelStore, name: &str) -> Result<(), ArchiveError> {
    let root = store.root().ok_or(ArchiveError::NoModelStore)?;
    if !stored(store)?.iter().any(|one| one.name == name) {
        let shown = name.chars().take(LONGEST_NAME).collect();
        return Err(ArchiveError::NotFound(shown));
    }
    fs::remove_file(root.join(name)).map_err(ArchiveError::io("removing an archive"))
}

/// Names of archives that are sent are file names that nothing mistakes for anything else.
fn check_name(name: &str) -> Result<(), ArchiveError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_sound = name.len() <= LONGEST_NAME
        && starts_well
        && name.bytes().all(is_plain)
        && !name.contains("..")
        && Path::new(name).extension() == Some("mar".as_ref());
    if is_sound {
        return Ok(());
    }
    Err(ArchiveError::Url {
        rule: "must name a file: letters, digits, '_', '-' and '.', at most 200, with .mar at the end",
        url: name.chars().take(LONGEST_NAME).collect(),
    })
}

fn check_digest(digest: &str) -> Result<(), ArchiveError> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() == 64 && digest.bytes().all(is_digit) {
        return Ok(());
    }
    Err(ArchiveError::Url {
        rule: "must have sha256=…, the SHA-256 of the archive in 64 hexadecimal digits in lower case",
        url: digest.chars().take(64).collect(),
    })
}

/// Of uploads that broke off, only the last one is kept.
fn discard_others(root: &Path, digest: &str) {
    let entries = fs::read_dir(root.join(HIDDEN))
        .into_iter()
        .flatten()
        .flatten();
    let parts = entries.map(|entry| entry.path()).filter(|path| {
        let is_part = path
            .extension()
            .is_some_and(|kind| kind == "part" || kind == "tag" || kind == "mar");
        is_part && path.file_stem().is_none_or(|stem| stem != digest)
    });
    for part in parts {
        let _ = fs::remove_file(part);
    }
}

/// Whether somebody writes to that part.
fn is_held(root: &Path, digest: &str) -> bool {
    let part = File::open(root.join(HIDDEN).join(format!("{digest}.part")));
    part.is_ok_and(|part| part.try_lock().is_err())
}
