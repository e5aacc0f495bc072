//! The key of a cache: random bytes in a file beside the code; the first server that needs it creates it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Partial, open_file};

/// Bytes of a key.
pub const BYTES: usize = 32;

/// The key of a cache.
pub type Key = [u8; BYTES];

const NAME: &str = "key";

/// The key in `directory`. One that is damaged is replaced: code that was written under it counts as missing from then on.
pub fn open(directory: &OwnedFd) -> io::Result<Key> {
    if let Some(key) = read(directory) {
        return Ok(key);
    }
    let mut key = [0; BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let partial = Partial::create(directory)?;
    (&partial.file).write_all(&key)?;
    let named = renameat_with(
        directory,
        &partial.name,
        directory,
        NAME,
        RenameFlags::NOREPLACE,
    );
    match named {
        Ok(()) => Ok(key),
        // Another server was faster, or the file is damaged, or the file system does not know such a renaming.
        Err(Errno::EXIST | Errno::INVAL) => match read(directory) {
            Some(key) => Ok(key),
            None => partial.publish(NAME, 0o600).map(|()| key),
        },
        Err(error) => Err(error.into()),
    }
}

fn read(directory: &OwnedFd) -> Option<Key> {
    let file = open_file(directory, NAME).ok()?;
    let mut key = Vec::new();
    File::take(file, BYTES as u64 + 1)
        .read_to_end(&mut key)
        .ok()?;
    key.try_into().ok()
}
