//! A directory in the model store with the files of an archive. It is copied, so that a change of it does not affect a
//! model that is being served.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::super::ArchiveError;
use super::super::digest::sha256;
use super::super::entry::EntryName;
use super::super::limits::UnpackLimits;
use super::{Unpacker, read_within};

/// One file or directory.
struct Found {
    name: EntryName,
    path: PathBuf,
    is_directory: bool,
}

/// Copies all files and directories of `directory`.
pub fn read(
    directory: &Path,
    limits: UnpackLimits,
    unpacker: &mut Unpacker,
) -> Result<(), ArchiveError> {
    for found in list(directory, limits)? {
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
pub fn read_one(directory: &Path, name: &EntryName, most: u64) -> Option<Vec<u8>> {
    let path = name.under(&unwrapped(directory).ok()?);
    let file = File::options()
        .read(true)
        .custom_flags(i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).ok()?)
        .open(path)
        .ok()?;
    let is_file = file.metadata().ok()?.is_file();
    is_file.then(|| read_within(file, most))?
}

/// SHA-256 of the names and contents of all files.
pub fn digest(directory: &Path, limits: UnpackLimits) -> Result<String, ArchiveError> {
    let mut summary = String::new();
    for found in list(directory, limits)? {
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

fn list(directory: &Path, limits: UnpackLimits) -> Result<Vec<Found>, ArchiveError> {
    let root = unwrapped(directory)?;
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(next) = pending.pop() {
        for entry in children(&next)? {
            let entry = inspect(&root, &entry)?;
            if entry.is_directory {
                pending.push(entry.path.clone());
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

fn name_of(kind: fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a device, pipe or socket"
    }
}

fn inspect(root: &Path, path: &Path) -> Result<Found, ArchiveError> {
    use std::os::unix::ffi::OsStrExt;
    let raw = path
        .strip_prefix(root)
        .unwrap_or(path)
        .as_os_str()
        .as_bytes();
    let refuse = |rule, value: String| Err(ArchiveError::entry(raw, rule, value));
    let metadata =
        fs::symlink_metadata(path).map_err(ArchiveError::io("reading a file of the model"))?;
    let kind = metadata.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return refuse("must be a file or a directory", name_of(kind).to_owned());
    }
    match EntryName::parse(raw)? {
        Some(name) => Ok(Found {
            name,
            path: path.to_owned(),
            is_directory: kind.is_dir(),
        }),
        None => refuse("must have a name", "none".to_owned()),
    }
}

fn open(found: &Found) -> Result<impl Read + use<>, ArchiveError> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    File::options()
        .read(true)
        .custom_flags(no_follow)
        .open(&found.path)
        .map_err(ArchiveError::io("reading a file of the model"))
}
