//! Descriptors that nobody meant to pass on: whoever started the server may have left files open.

use std::io;
use std::os::fd::RawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The first descriptor that is neither standard input, output nor error.
const FIRST: u32 = 3;

/// Has programs that this process starts get no descriptor but the standard ones and those that are passed on purpose.
/// Descriptors that are opened later are passed on only on purpose anyway.
pub fn keep_to_self() -> io::Result<()> {
    range(libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor but the standard ones. Nothing may be using another yet.
pub fn close() -> io::Result<()> {
    range(0)
}

/// Lets this process open as many as it may. Those that it starts have their own limits.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // One that cannot be raised is what it was.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Fails if a descriptor is open that will not be closed when another program is executed: one that was not opened by
/// this process.
pub(super) fn closed() -> io::Result<()> {
    for descriptor in std::fs::read_dir("/proc/self/fd")? {
        let name = descriptor?.file_name();
        let number = name.to_string_lossy().parse::<RawFd>();
        let number = number.map_err(io::Error::other)?;
        if i64::from(number) >= i64::from(FIRST) && is_inherited(number) {
            return Err(io::Error::other(format!("descriptor {number} is open")));
        }
    }
    Ok(())
}

/// Whether a descriptor stays open across `exec`. One that is not open any more does not.
#[expect(unsafe_code, reason = "the number of a descriptor is looked at")]
fn is_inherited(number: RawFd) -> bool {
    // SAFETY: the descriptor is asked for its flags and nothing else. If it is closed meanwhile, the call fails.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(descriptor);
    flags.is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC))
}

#[expect(
    unsafe_code,
    reason = "there is no safe call for a range of descriptors"
)]
fn range(flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed. Descriptors that are closed are nobody's: the callers say so.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if done == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
