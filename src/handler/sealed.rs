//! Bytes in memory that nobody can change any more: an anonymous file under the kernel's seals.
//!
//! Such a file can be given to another process, which reads or maps it and cannot write to it, whatever it does. What is in
//! it is not decided here.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Weak};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// An empty file in memory, to be filled and sealed. It cannot be executed as a program where the kernel knows how to say so.
pub(crate) fn memory_file(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3.
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    Ok(File::from(made?))
}

/// A file in memory whose bytes and length are fixed. Cheap to clone: clones share the file.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    file: Arc<File>,
    length: u64,
}

/// A sealed file that does not keep it in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeakSealed(Weak<File>);

impl Sealed {
    /// Seals `file`, whoever else may have it open for writing. It fails while somebody has it mapped for writing.
    pub fn new(file: File) -> io::Result<Self> {
        fcntl_add_seals(&file, seals())?;
        Self::of_file(file)
    }

    /// These bytes, sealed.
    pub fn of(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut file = memory_file(name)?;
        file.write_all(bytes)?;
        Self::new(file)
    }

    /// A file that another process made, if it is sealed.
    pub fn received(descriptor: OwnedFd) -> io::Result<Self> {
        let found = fcntl_get_seals(&descriptor)?;
        if !found.contains(seals()) {
            return Err(io::Error::other("the file can still be changed"));
        }
        Self::of_file(descriptor.into())
    }

    fn of_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let file = Arc::new(file);
        Ok(Self { file, length })
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Gives all bytes to `take`, one piece after the other.
    pub fn read_pieces(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = vec![0; CHUNK];
        let mut at = 0;
        while at < self.length {
            let read = self.file.read_at(&mut piece, at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&piece[..read])?;
            at += read as u64;
        }
        Ok(())
    }

    /// All bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Finds the file again for as long as somebody else keeps it.
    pub fn downgrade(&self) -> WeakSealed {
        WeakSealed(Arc::downgrade(&self.file))
    }
}

impl WeakSealed {
    /// The file, if it is still there.
    pub fn upgrade(&self) -> Option<Sealed> {
        let file = self.0.upgrade()?;
        let length = file.metadata().ok()?.len();
        Some(Sealed { file, length })
    }

    /// Whether somebody keeps the file.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn seals() -> SealFlags {
    SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_are_read_and_never_changed() {
        let mut file = memory_file("test").unwrap();
        let mut other = file.try_clone().unwrap();
        file.write_all(&vec![7; CHUNK + 1]).unwrap();
        let sealed = Sealed::new(file).unwrap();
        assert!(
            other.write_all(b"x").is_err(),
            "written after it was sealed"
        );
        assert!(other.set_len(1).is_err(), "cut after it was sealed");
        assert_eq!(sealed.read().unwrap(), vec![7; CHUNK + 1]);
        let mut pieces = 0;
        let count = |piece: &[u8]| {
            pieces += piece.len();
            Ok(())
        };
        sealed.read_pieces(count).unwrap();
        assert_eq!(pieces as u64, sealed.length());
    }

    #[test]
    fn a_file_that_can_be_changed_is_not_received() {
        let file = memory_file("test").unwrap();
        assert!(Sealed::received(file.into()).is_err());
        let sealed = Sealed::of("test", b"code").unwrap();
        let descriptor = sealed.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(
            Sealed::received(descriptor).unwrap().read().unwrap(),
            b"code"
        );
    }

    #[test]
    fn a_weak_file_is_there_for_as_long_as_somebody_keeps_it() {
        let sealed = Sealed::of("test", b"code").unwrap();
        let weak = sealed.downgrade();
        assert_eq!(weak.upgrade().unwrap().length(), 4);
        drop(sealed);
        assert!(weak.upgrade().is_none() && !weak.is_alive());
    }
}
