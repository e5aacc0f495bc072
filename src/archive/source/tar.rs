//! Gzip tar, as `torch-model-archiver --archive-format tgz` makes it: everything is under one directory, which is left
//! out of the names.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};

use ::tar::{Archive, Entry, EntryType, PaxExtensions};
use flate2::read::MultiGzDecoder;

use super::super::ArchiveError;
use super::super::entry::EntryName;
use super::Unpacker;

/// Most bytes of a header extension, which holds a name and a few numbers.
const EXTENSION_LIMIT: u64 = 64 << 10;

/// A reader that counts the compressed bytes.
struct Counted<'a, R> {
    inner: R,
    count: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Unpacks a gzip tar. Header extensions are read here, because the `tar` crate reads them without a limit on their length.
pub fn read(file: &File, unpacker: &mut Unpacker) -> Result<(), ArchiveError> {
    let count = Cell::new(0);
    let counted = Counted {
        inner: BufReader::new(file),
        count: &count,
    };
    let mut archive = Archive::new(MultiGzDecoder::new(counted));
    let mut long_name = None;
    for entry in archive.entries().map_err(|e| unreadable(&e))?.raw(true) {
        unpacker.count()?;
        let mut entry = entry.map_err(|e| unreadable(&e))?;
        match entry.header().entry_type() {
            EntryType::XHeader => long_name = extended_name(&mut entry)?.or(long_name),
            EntryType::GNULongName => long_name = Some(gnu_name(&mut entry)?),
            EntryType::XGlobalHeader => {
                extension(&mut entry)?;
            }
            _ => read_entry(entry, long_name.take(), unpacker, &count)?,
        }
    }
    Ok(())
}

fn read_entry<R: Read>(
    entry: Entry<'_, R>,
    long_name: Option<Vec<u8>>,
    unpacker: &mut Unpacker,
    count: &Cell<u64>,
) -> Result<(), ArchiveError> {
    let raw = long_name.unwrap_or_else(|| entry.path_bytes().into_owned());
    let name = EntryName::parse(&raw)?.and_then(|name| name.without_first());
    let kind = entry.header().entry_type();
    match (kind, name) {
        // This is the directory that everything is under.
        (EntryType::Directory, None) => Ok(()),
        (EntryType::Directory, Some(name)) => unpacker.directory(&name),
        (EntryType::Regular | EntryType::Continuous, Some(name)) => {
            let declared = entry.size();
            let size = unpacker.file(&name, entry, || count.get())?;
            if size == declared {
                return Ok(());
            }
            let value = format!("{size}, not {declared}");
            Err(ArchiveError::entry(
                &raw,
                "must have the size it declares",
                value,
            ))
        }
        (EntryType::Regular | EntryType::Continuous, None) => {
            let rule = "must lie in the archive's one directory";
            Err(ArchiveError::entry(&raw, rule, "a file beside it"))
        }
        (other, _) => {
            let rule = "must be a file or a directory";
            Err(ArchiveError::entry(&raw, rule, format!("{other:?}")))
        }
    }
}

/// The path of a pax header. A size in it means a file over 8 GiB, which is refused.
fn extended_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<Vec<u8>>, ArchiveError> {
    let content = extension(entry)?;
    let mut path = None;
    for record in PaxExtensions::new(&content) {
        let record = record.map_err(|e| unreadable(&e))?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                let value = String::from_utf8_lossy(key).into_owned();
                return Err(ArchiveError::archive(
                    "must hold no sparse or oversized file",
                    value,
                ));
            }
            _ => {}
        }
    }
    Ok(path)
}

fn gnu_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let mut name = extension(entry)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ArchiveError> {
    let size = entry.size();
    if size > EXTENSION_LIMIT {
        let rule = "must have header extensions of at most 65536 bytes";
        return Err(ArchiveError::archive(rule, size));
    }
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .map_err(|e| unreadable(&e))?;
    Ok(content)
}

fn unreadable(error: &io::Error) -> ArchiveError {
    ArchiveError::Format {
        format: "gzip tar",
        reason: error.to_string(),
    }
}
