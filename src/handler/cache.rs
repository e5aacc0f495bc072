//! The cache of compiled code on disk. Code is loaded only if its MAC shows that it was written under this cache's key.
//!
//! Compiled code is native code and wasmtime loads it unchecked, so each file carries a MAC under a random key that
//! lies beside the folder of code, readable by its owner alone. A file that is cut short, altered or of another version
//! counts as missing, and the component is compiled again. Files appear by renaming, so servers can share a cache.
//!
//! Only the front opens a cache: the key never enters a process that opens what others wrote. Directories are opened once,
//! and files by their names in them, so that renaming a directory above leads nowhere else.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::{hex, place};

use super::code::{CODE_LIMIT, Code};
use super::engine;
use super::sealed::{Sealed, memory_file};

mod key;

const MAC_BYTES: usize = 32;
/// Most files of code that are kept; those unused for longest are removed first.
const FILES_LIMIT: usize = 256;

/// Name of compiled code: a digest of the component, wasmtime's version and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CodeId(String);

impl CodeId {
    /// The name of the code compiled from a component with this SHA-256.
    pub fn of(component: [u8; 32]) -> Result<Self, Error> {
        Ok(Self::with(engine::identity()?, component))
    }

    fn with(engine: [u8; 32], component: [u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update(engine)
            .chain_update(component)
            .finalize();
        Self(hex::encode(&digest))
    }
}

/// A cache directory: its folder `code` and its file `key`.
pub(crate) struct CodeCache {
    code: OwnedFd,
    key: key::Key,
}

impl CodeCache {
    /// Creates the directory, the folder and the key where they are missing. One that can only be read still gives what is
    /// in it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let root = open_directory(&CWD, &place::own(directory)?)?;
        match mkdirat(&root, "code", Mode::RWXU) {
            // Where nothing can be written, opening it says whether it is there.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
        let code = open_directory(&root, Path::new("code"))?;
        let code = File::from(code);
        if code.metadata()?.mode() & 0o777 != 0o700 {
            code.set_permissions(Permissions::from_mode(0o700))?;
        }
        Ok(Self {
            code: code.into(),
            key: key::open(&root)?,
        })
    }

    /// The code of that name, as it was given to [`Self::put`]; `None` if it is missing or its MAC does not match.
    pub fn get(&self, id: &CodeId) -> Option<Code> {
        let (sealed, mac) = self.read(id).ok()?;
        let computed = self.mac(id, &sealed).ok()?;
        computed.verify_slice(&mac).ok()?;
        Code::verified(sealed).ok()
    }

    /// Writes code, and removes old files beyond the limit.
    pub fn put(&self, id: &CodeId, code: &Code) -> io::Result<()> {
        let mac = self.mac(id, code.sealed())?.finalize().into_bytes();
        let partial = Partial::create(&self.code)?;
        let mut file = &partial.file;
        code.sealed().read_pieces(|piece| file.write_all(piece))?;
        file.write_all(&mac)?;
        partial.publish(&id.0, 0o400)?;
        self.sweep()
    }

    /// Copies a file's code to memory, where nobody can change it any more before it is verified, and gives its MAC. Sets the
    /// file's time of modification, by which [`Self::sweep`] knows when it was last used.
    fn read(&self, id: &CodeId) -> io::Result<(Sealed, [u8; MAC_BYTES])> {
        let mut file = open_file(&self.code, &id.0)?;
        let length = file.metadata()?.len().checked_sub(MAC_BYTES as u64);
        let length = length.filter(|length| *length <= CODE_LIMIT);
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        let mut copy = memory_file("lantern-code")?;
        io::copy(&mut (&mut file).take(length), &mut copy)?;
        let mut mac = [0; MAC_BYTES];
        file.read_exact(&mut mac)?;
        // If this fails, the file may be swept early: nothing else depends on it.
        let _ = file.set_modified(SystemTime::now());
        Ok((Sealed::new(copy)?, mac))
    }

    /// Removes the files unused for longest. Unfinished files of processes that died while writing count as well.
    fn sweep(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.code)? {
            let name = entry?.file_name().to_owned();
            if name != c"." && name != c".." {
                files.push((self.last_used(&name), name));
            }
        }
        files.sort();
        let excess = files.len().saturating_sub(FILES_LIMIT);
        for (_, name) in &files[..excess] {
            // Another process may have removed it already.
            let _ = unlinkat(&self.code, name, AtFlags::empty());
        }
        Ok(())
    }

    /// Seconds and nanoseconds; a file that cannot be asked was never used.
    fn last_used(&self, name: &CStr) -> (i64, u64) {
        statat(&self.code, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or((0, 0), |found| (found.st_mtime, found.st_mtime_nsec))
    }

    fn mac(&self, id: &CodeId, code: &Sealed) -> io::Result<Hmac<Sha256>> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        let mut mac = mac.chain_update(id.0.as_bytes());
        code.read_pieces(|piece| {
            mac.update(piece);
            Ok(())
        })?;
        Ok(mac)
    }
}

/// Opens a directory that must be this user's and closed to the writing of others; no link is followed.
fn open_directory(parent: &impl std::os::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(openat(parent, path, flags, Mode::empty())?);
    let found = opened.metadata()?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || found.mode() & 0o022 != 0 {
        let rule = "it must be a directory of this user's that others cannot write to";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, rule));
    }
    Ok(opened.into())
}

fn open_file(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

/// A file that gets its name when it is complete, and is removed if it never is.
struct Partial<'a> {
    directory: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Partial<'a> {
    fn create(directory: &'a OwnedFd) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!(".partial-{}", hex::encode(&random));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(directory, &name, flags, Mode::RUSR | Mode::WUSR)?.into();
        Ok(Self {
            directory,
            name,
            file,
        })
    }

    /// Gives it its name, in the place of a file that has it, and its permissions.
    fn publish(self, name: &str, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(renameat(self.directory, &self.name, self.directory, name)?)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Under this name there is nothing once it is published.
        let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests;
