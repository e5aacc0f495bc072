//! A directory in the model store with the files of an archive. It is copied, so that a change of it does not affect a
//! model that is being served.
//!
//! The operator put it there, and may have put links into it, as tools that share large files do. A link is followed where it
//! leads to what may be read, and the copy has a file in its place.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::ArchiveError;
use super::super::digest::sha256;
use super::super::entry::EntryName;
use super::super::limits::UnpackLimits;
use super::super::roots::{Astray, Roots, open_resolved};
use super::super::store::leads;
use super::{Unpacker, read_within};

/// One file or directory.
struct Found {
    name: EntryName,
    /// Where it is, without links.
    path: PathBuf,
    is_directory: bool,
}

/// Copies all files and directories of `directory`, and what links lead to in `roots`.
pub fn read(
    directory: &Path,
    roots: &Roots,
    limits: UnpackLimits,
    unpacker: &mut Unpacker,
) -> Result<(), ArchiveError> {
    for found in list(directory, roots, limits)? {
        unpacker.count()?;
        if found.is_directory {
            unpacker.directory(&found.name)?;
        } else {
            unpacker.file(&found.name, open(&found)?, || u64::MAX)?;
        }
    }
    Ok(())
}

/// One file, if it has at most `most` bytes.
pub fn read_one(directory: &Path, roots: &Roots, name: &EntryName, most: u64) -> Option<Vec<u8>> {
    let base = unwrapped(directory).ok()?;
    let path = roots.follow(&base, Path::new(name.as_str())).ok()?;
    let file = open_resolved(&path).ok()?;
    let is_file = file.metadata().ok()?.is_file();
    is_file.then(|| read_within(file, most))?
}

/// SHA-256 of the names and contents of all files.
pub fn digest(
    directory: &Path,
    roots: &Roots,
    limits: UnpackLimits,
) -> Result<String, ArchiveError> {
    let mut summary = String::new();
    for found in list(directory, roots, limits)? {
        let content = if found.is_directory {
            "directory".to_owned()
        } else {
            sha256(open(&found)?).map_err(ArchiveError::io("reading a file of the model"))?
        };
        // Names hold no control characters, so no name can look like another line.
        summary.extend([&content, " ", found.name.as_str(), "\n"]);
    }
    sha256(summary.as_bytes()).map_err(ArchiveError::io("reading a file of the model"))
}

fn list(directory: &Path, roots: &Roots, limits: UnpackLimits) -> Result<Vec<Found>, ArchiveError> {
    let mut found = Vec::new();
    // Each with its name in the archive. Links that lead in a circle end at the limits of names and entries.
    let mut pending = vec![(PathBuf::new(), unwrapped(directory)?)];
    while let Some((above, next)) = pending.pop() {
        for file in children(&next)? {
            let name = above.join(file.file_name().unwrap_or_default());
            let entry = inspect(&name, &file, roots)?;
            if entry.is_directory {
                pending.push((name, entry.path.clone()));
            }
            found.push(entry);
            if found.len() > limits.entries {
                let value = format!("more than {}", limits.entries);
                return Err(ArchiveError::archive(
                    "must not have more entries than allowed",
                    value,
                ));
            }
        }
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(found)
}

/// The directory with the files: as in TorchServe, one level deeper if a directory holds one directory and nothing else.
fn unwrapped(directory: &Path) -> Result<PathBuf, ArchiveError> {
    let children = children(directory)?;
    match children.as_slice() {
        [only] if is_plain_directory(only) => Ok(only.clone()),
        _ => Ok(directory.to_owned()),
    }
}

fn is_plain_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let doing = "listing the model's directory";
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(ArchiveError::io(doing))? {
        paths.push(entry.map_err(ArchiveError::io(doing))?.path());
    }
    Ok(paths)
}

/// What lies at `path`, which has no links but perhaps itself.
fn inspect(name: &Path, path: &Path, roots: &Roots) -> Result<Found, ArchiveError> {
    use std::os::unix::ffi::OsStrExt;
    let raw = name.as_os_str().as_bytes();
    let refuse = |rule, value: &str| Err(ArchiveError::entry(raw, rule, value));
    let reading = || ArchiveError::io("reading a file of the model");
    let mut real = path.to_owned();
    let mut kind = fs::symlink_metadata(path).map_err(reading())?.file_type();
    if kind.is_symlink() {
        real = follow(path, roots).map_err(|leads| ArchiveError::linked(raw, leads))?;
        kind = fs::symlink_metadata(&real).map_err(reading())?.file_type();
    }
    if !kind.is_dir() && !kind.is_file() {
        return refuse("must be a file or a directory", "a device, pipe or socket");
    }
    match EntryName::parse(raw)? {
        Some(name) => Ok(Found {
            name,
            path: real,
            is_directory: kind.is_dir(),
        }),
        None => refuse("must have a name", "none"),
    }
}

/// Where a link leads, or why it is not followed.
fn follow(link: &Path, roots: &Roots) -> Result<PathBuf, String> {
    let (base, name) = (link.parent().unwrap_or(link), link.file_name());
    roots
        .follow(base, Path::new(name.unwrap_or_default()))
        .map_err(|astray| match astray {
            Astray::Link { link, target } => leads(&link, &target),
            Astray::Missing => "what it leads to has gone, or is hidden".to_owned(),
        })
}

fn open(found: &Found) -> Result<impl Read + use<>, ArchiveError> {
    open_resolved(&found.path).map_err(ArchiveError::io("reading a file of the model"))
}
