//! A file in memory, mapped whole. The only place that handles its addresses.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::handler::memory_file;

/// What keeps the length of a region as it is.
const FIXED_LENGTH: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Whether a process writes to a region or only reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Writes.
    Write,
}

/// A file in memory of a length that nobody can change.
pub fn file(name: &str, size: usize) -> io::Result<OwnedFd> {
    let file = memory_file(name)?;
    file.set_len(size as u64)?;
    fcntl_add_seals(&file, FIXED_LENGTH)?;
    Ok(file.into())
}

/// A file that is mapped for as long as this exists.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

#[expect(unsafe_code, reason = "memory that is mapped is shared by threads")]
// SAFETY: a mapping is an address and a length; its memory may be used from any thread, and stays until the drop.
unsafe impl Send for Mapping {}
#[expect(unsafe_code, reason = "memory that is mapped is shared by threads")]
// SAFETY: as above; `write` and `read` say what their callers have to keep.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// All of `file`, whose length must be sealed: memory that can be taken away would end whoever reads it.
    pub fn of(file: BorrowedFd<'_>, access: Access) -> io::Result<Self> {
        if !fcntl_get_seals(file)?.contains(FIXED_LENGTH) {
            return Err(io::Error::other(
                "the length of a shared region is not sealed",
            ));
        }
        let length = usize::try_from(fstat(file)?.st_size).map_err(io::Error::other)?;
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        #[expect(unsafe_code, reason = "mapping memory is unsafe")]
        // SAFETY: the kernel chooses where, so no memory that is in use is replaced.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Bytes that it has.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Where `part` lies in the mapping, if it does.
    pub fn offset_of(&self, part: &[u8]) -> Option<usize> {
        let offset = (part.as_ptr().addr()).checked_sub(self.start.as_ptr().addr())?;
        (offset + part.len() <= self.length).then_some(offset)
    }

    /// Writes `parts` one after the other from `offset` on. Nobody else in this process may use that stretch meanwhile.
    /// Panics if it does not lie within the mapping, which must be writable.
    pub fn write(&self, offset: usize, parts: &[&[u8]]) {
        let mut at = offset;
        for part in parts {
            let end = at.checked_add(part.len());
            assert!(
                end.is_some_and(|end| end <= self.length),
                "beyond the region"
            );
            #[expect(unsafe_code, reason = "shared memory is reached by its address")]
            // SAFETY: the stretch is within the mapping, as was asserted. The part is memory of Rust's, or lies in another stretch of the
            // mapping, since its owner holds that one; so the two do not overlap.
            // What the other process does to it meanwhile changes bytes, which is all that is in it.
            unsafe {
                let to = self.start.as_ptr().add(at);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            }
            at += part.len();
        }
    }

    /// The bytes of a stretch. Panics if it does not lie within the mapping.
    ///
    /// The other process may write to them at any time. So whoever gets them may copy them and hand them to the kernel;
    /// whoever wants to know what they say copies them first.
    pub fn read(&self, offset: usize, length: usize) -> &[u8] {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.length),
            "beyond the region"
        );
        #[expect(unsafe_code, reason = "shared memory is reached by its address")]
        // SAFETY: the stretch is within the mapping, as was asserted, which lives as long as the slice. Its length is sealed, so
        // the memory stays.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr().add(offset), length)
        }
    }

    /// Gives the memory of a stretch back to the system. It holds zeros then. The mapping must be writable, and offset and
    /// length must be multiples of a page.
    pub fn release(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.length),
            "beyond the region"
        );
        #[expect(unsafe_code, reason = "shared memory is reached by its address")]
        // SAFETY: the stretch is within the mapping, as was asserted. Its memory stays mapped.
        let released = unsafe {
            let start = self.start.as_ptr().add(offset);
            madvise(start.cast(), length, Advice::LinuxRemove)
        };
        // Memory that stays is used again.
        debug_assert!(released.is_ok(), "{released:?}");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "memory was mapped by hand")]
        // SAFETY: it was mapped with this length, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
