//! Zip, the format of `.mar` files.

use std::fs::File;
use std::io::Read;

use ::zip::read::Config;
use ::zip::read::ZipFileEntry;
use ::zip::result::ZipError;
use ::zip::unstable::read::ZipIterable;
use ::zip::{CompressionMethod, ZipReadOptions};

use super::super::ArchiveError;
use super::super::entry::EntryName;
use super::super::limits::UnpackLimits;
use super::{Unpacker, read_within};

const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// Unpacks a zip file. The directory at its end is read entry by entry, so that a long one takes no memory, and the two
/// headers of each entry must agree.
pub fn read(file: &File, unpacker: &mut Unpacker) -> Result<(), ArchiveError> {
    let directory = file
        .try_clone()
        .map_err(ArchiveError::io("opening the archive"))?;
    let mut bodies = reopen(file)?;
    let archive = ZipIterable::try_new(directory, Config::default()).map_err(|e| unreadable(&e))?;
    let mut archive = archive.enforce_header_consistency(true);
    unpacker.announce(archive.len())?;
    for entry in archive.files().map_err(|e| unreadable(&e))? {
        unpacker.count()?;
        read_entry(entry.map_err(|e| unreadable(&e))?, &mut bodies, unpacker)?;
    }
    Ok(())
}

/// One file, if it has at most `most` bytes. Of several with that name it is the first; unpacking the archive fails then.
pub fn read_one(file: &File, name: &EntryName, limits: UnpackLimits, most: u64) -> Option<Vec<u8>> {
    let directory = file.try_clone().ok()?;
    let mut bodies = reopen(file).ok()?;
    let archive = ZipIterable::try_new(directory, Config::default()).ok()?;
    let mut archive = archive.enforce_header_consistency(true);
    if archive.len() > limits.entries {
        return None;
    }
    for entry in archive.files().ok()? {
        let entry = entry.ok()?;
        if entry.name_raw() == name.as_str().as_bytes() {
            let content = entry.with_reader(&mut bodies, ZipReadOptions::new()).ok()?;
            return read_within(content, most);
        }
    }
    None
}

/// A second handle with a position of its own. Clones of a handle share one position.
fn reopen(file: &File) -> Result<File, ArchiveError> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(ArchiveError::io("opening the archive"))
}

fn read_entry(
    entry: ZipFileEntry<'static>,
    bodies: &mut File,
    unpacker: &mut Unpacker,
) -> Result<(), ArchiveError> {
    let raw = entry.name_raw().to_owned();
    let refuse = |rule, value: String| Err(ArchiveError::entry(&raw, rule, value));
    let Some(name) = EntryName::parse(&raw)? else {
        return Ok(());
    };
    let kind = entry.unix_mode().unwrap_or(0) & TYPE_MASK;
    if !matches!(kind, 0 | REGULAR | DIRECTORY) {
        return refuse("must be a file or a directory", format!("mode {kind:o}"));
    }
    if entry.encrypted() {
        return refuse("must not be encrypted", "an encrypted entry".to_owned());
    }
    if raw.ends_with(b"/") || kind == DIRECTORY {
        return unpacker.directory(&name);
    }
    let method = entry.compression();
    if !matches!(
        method,
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        return refuse("must be stored or deflated", format!("{method}"));
    }
    let (declared, compressed) = (entry.size(), entry.compressed_size());
    let content = entry
        .with_reader(bodies, ZipReadOptions::new())
        .map_err(|error| ArchiveError::entry(&raw, "must be readable", error))?;
    // One byte more than declared is enough to know that the size lies.
    let size = unpacker.file(&name, content.take(declared.saturating_add(1)), || {
        compressed
    })?;
    if size != declared {
        return refuse(
            "must have the size it declares",
            format!("{size}, not {declared}"),
        );
    }
    Ok(())
}

fn unreadable(error: &ZipError) -> ArchiveError {
    ArchiveError::Format {
        format: "zip",
        reason: error.to_string(),
    }
}
