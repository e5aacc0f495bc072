//! How much an archive may unpack to. It is measured while the archive is unpacked.

use std::io::{self, Read, Write};

use super::ArchiveError;
use super::entry::EntryName;

/// Size of the copying buffer.
const CHUNK: usize = 64 << 10;
/// Unpacked bytes up to which the compression ratio is not checked: small archives may compress well.
const FREE: u64 = 16 << 20;

/// How much one archive may unpack to. Sizes are in bytes, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Most files and directories.
    pub entries: usize,
    /// Most bytes of all files together.
    pub total: u64,
    /// Most bytes of one file.
    pub file: u64,
    /// Most unpacked bytes for one compressed byte, checked beyond the first 16 MiB.
    pub ratio: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            total: 32 << 30,
            file: 32 << 30,
            ratio: 100,
        }
    }
}

/// Counts what was unpacked of one archive, and fails beyond the limits.
#[derive(Debug)]
pub struct Meter {
    limits: UnpackLimits,
    archive: u64,
    entries: usize,
    total: u64,
}

impl Meter {
    /// Starts at zero, for an archive of `archive` compressed bytes.
    pub const fn new(limits: UnpackLimits, archive: u64) -> Self {
        Self {
            limits,
            archive,
            entries: 0,
            total: 0,
        }
    }

    /// Counts one entry.
    pub fn entry(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        self.check_entries(self.entries)
    }

    /// Checks the number of entries that an archive claims to have, before any is read.
    pub fn check_entries(&self, entries: usize) -> Result<(), ArchiveError> {
        if entries > self.limits.entries {
            let value = format!("{entries}, the limit is {}", self.limits.entries);
            return Err(ArchiveError::archive(
                "must not have more entries than allowed",
                value,
            ));
        }
        Ok(())
    }

    /// Copies one file. `compressed` says how many bytes of the archive have gone into it by now.
    pub fn copy(
        &mut self,
        name: &EntryName,
        mut from: impl Read,
        mut to: impl Write,
        compressed: impl Fn() -> u64,
    ) -> Result<u64, ArchiveError> {
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(size),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(ArchiveError::entry(name.bytes(), "must be readable", error));
                }
            };
            size += count as u64;
            self.total += count as u64;
            self.check(name, size, compressed())?;
            to.write_all(&buffer[..count])
                .map_err(ArchiveError::io("writing an unpacked file"))?;
        }
    }

    fn check(&self, name: &EntryName, size: u64, compressed: u64) -> Result<(), ArchiveError> {
        let UnpackLimits {
            total, file, ratio, ..
        } = self.limits;
        if size > file {
            let value = format!("more than {file} bytes");
            return Err(ArchiveError::entry(name.bytes(), "is too large", value));
        }
        if self.total > total {
            let value = format!("more than {total} bytes");
            return Err(ArchiveError::archive("is too large when unpacked", value));
        }
        if grows_too_much(size, compressed, ratio) {
            let value = format!("{size} bytes from {compressed}, the limit is {ratio} times");
            return Err(ArchiveError::entry(
                name.bytes(),
                "must not grow so much",
                value,
            ));
        }
        // Catches many small files that each stay below the limit, and entries that share their compressed bytes.
        if grows_too_much(self.total, self.archive, ratio) {
            let value = format!(
                "{} bytes from {}, the limit is {ratio} times",
                self.total, self.archive
            );
            return Err(ArchiveError::archive("must not grow so much", value));
        }
        Ok(())
    }
}

fn grows_too_much(size: u64, compressed: u64, ratio: u64) -> bool {
    size > FREE && size / ratio.max(1) > compressed
}
