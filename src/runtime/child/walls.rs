//! The first thing that a worker process does: it closes what it does not own and walls itself in, as the front says.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crate::runtime::process::beside;
use crate::sandbox::{self, Calls, Entered, Policy, descriptors, handover};

/// Puts up the walls that the front orders, and gives the descriptors that came with the order. The process must have one
/// thread.
pub fn enter() -> io::Result<(Entered, Vec<OwnedFd>)> {
    let stdin = io::stdin();
    // A kernel without this call has a front that passes nothing on.
    let _ = descriptors::close();
    let (mut policy, received) = handover::receive(stdin.as_fd()).map_err(not_by_hand)?;
    add_libraries(&mut policy);
    let entered = sandbox::enter(&policy);
    if let Some(scratch) = entered.scratch() {
        move_to(&scratch)?;
    }
    Ok((entered, received))
}

pub(super) fn not_by_hand(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!(
        "a worker process is started by `lantern serve`, which gives it a socket as stdin ({error})"
    ))
}

/// Libraries may open more from where they lie themselves.
fn add_libraries(policy: &mut Policy) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let directories = library_directories(&maps);
    if policy.calls == Calls::Cuda {
        policy
            .readable
            .extend(directories.iter().filter_map(|directory| beside(directory)));
    }
    // What the system has may be read as a whole.
    let is_known = |directory: &PathBuf| {
        let mut known = policy.readable.iter().chain(&policy.libraries);
        known.any(|known| directory.starts_with(known))
    };
    let others: Vec<_> = directories
        .into_iter()
        .filter(|directory| !is_known(directory))
        .collect();
    policy.libraries.extend(others);
}

/// The directories of shared libraries that are loaded.
fn library_directories(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]));
    let is_library = |path: &&str| path.rsplit('/').next().is_some_and(sandbox::is_library);
    let libraries = paths.filter(is_library);
    libraries
        .filter_map(|path| Some(Path::new(path).parent()?.to_owned()))
        .collect()
}

/// Whatever would be left behind anywhere goes where it goes with the process.
#[expect(
    unsafe_code,
    reason = "the environment may change while there is one thread"
)]
fn move_to(directory: &Path) -> io::Result<()> {
    for name in ["HOME", "TMPDIR"] {
        // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, directory) };
    }
    std::env::set_current_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_among_what_is_mapped() {
        let maps = "7f0-7f1 r-xp 00 fe:00 5  /usr/lib/x86_64/libc.so.6\n7f1-7f2 rw-p 00 00:00 0 \n\
                    7f2-7f3 r--p 00 fe:00 6  /opt/torch/lib/libtorch_cpu.so\n7f3-7f4 r--p 00 fe:00 7  /data/model.pt\n";
        let found = library_directories(maps);
        assert!(
            found
                .iter()
                .eq([Path::new("/opt/torch/lib"), Path::new("/usr/lib/x86_64")])
        );
    }
}
