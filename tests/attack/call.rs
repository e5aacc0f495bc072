//! System calls, as foreign native code makes them.

use std::ffi::{CStr, CString, c_long};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Makes the system call. Arguments that are missing are 0.
#[expect(
    unsafe_code,
    reason = "the walls are tried with calls that no library makes"
)]
pub fn call(number: c_long, arguments: &[usize]) -> io::Result<usize> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: every address comes from `text` or `bytes` of a value that its caller still holds, and has the length that
    // the call is given; other addresses are 0, or lie in another process.
    let done = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Whether the kernel took the call up: an error about its arguments says so.
pub fn reached(done: io::Result<usize>) -> io::Result<()> {
    match done {
        Err(error) if is_refusal(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS)
    )
}

/// Makes the call, and says whether the kernel took it up.
pub fn reach(number: c_long, arguments: &[usize]) -> io::Result<()> {
    reached(call(number, arguments))
}

/// The address of a text.
pub fn text(text: &CStr) -> usize {
    text.as_ptr().expose_provenance()
}

/// The address of a buffer that the kernel may write to.
pub fn bytes<T>(bytes: &mut [T]) -> usize {
    bytes.as_mut_ptr().expose_provenance()
}

/// A path for the kernel.
pub fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// A number that may be negative, as an argument.
pub const fn signed(number: i64) -> usize {
    number.cast_unsigned() as usize
}

/// An error of the kernel's that stands for "the attack had nothing to gain".
pub fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

/// An attack that succeeded if `has_succeeded`.
pub fn when(has_succeeded: bool) -> io::Result<()> {
    has_succeeded.then_some(()).ok_or_else(refused)
}
