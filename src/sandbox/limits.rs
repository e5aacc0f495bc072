//! Limits of the kernel's on what one process uses.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Limits, Outcome, refused};

/// Since this release the kernel counts the threads of a user within each user namespace.
const COUNTED_IN_NAMESPACES: (u32, u32) = (5, 14);

/// Limits the memory that the process may write to and shares with nobody. What wasmtime reserves and does not use yet is
/// not counted, as it would be against `RLIMIT_AS`.
pub(super) fn memory(most: Option<u64>) -> Outcome {
    let Some(most) = most else {
        return Outcome::NotNeeded("no limit is set".to_owned());
    };
    Outcome::of(limit(Resource::Data, most).map(|()| format!("{most} bytes")))
}

/// Limits threads, which the kernel counts by user.
pub(super) fn threads(most: Option<u64>, has_own_user: bool) -> Outcome {
    let Some(most) = most else {
        return Outcome::NotNeeded("no limit is set".to_owned());
    };
    if !has_own_user {
        return Outcome::Missing(
            "the kernel counts the threads of all processes of this user".into(),
        );
    }
    Outcome::of(count_threads(most))
}

/// Limits threads, and fails where the kernel starts more all the same: it counts none of root's, and a user namespace whose
/// owner is root outside of it does not tell.
fn count_threads(most: u64) -> Result<String, String> {
    limit(Resource::Nproc, most)?;
    let limited = getrlimit(Resource::Nproc);
    let none = Rlimit {
        current: Some(0),
        ..limited
    };
    let set =
        |limit| setrlimit(Resource::Nproc, limit).map_err(|error| refused("setrlimit", error));
    set(none)?;
    let started = std::thread::Builder::new().spawn(|| ());
    set(limited)?;
    match started.map(std::thread::JoinHandle::join) {
        Ok(_) => Err("the kernel does not count the threads of root".to_owned()),
        Err(_) => Ok(format!("{most} threads")),
    }
}

/// Whether threads are counted within a user namespace.
pub(super) fn counts_in_namespaces() -> bool {
    let release = rustix::system::uname();
    version(&release.release().to_string_lossy())
        .is_some_and(|found| found >= COUNTED_IN_NAMESPACES)
}

/// Sets what needs no say: files, their size, CPU time, no core dumps, and who goes first when memory runs out.
pub(super) fn others(limits: &Limits, oom_score: u16) {
    let seconds = |cpu: Duration| cpu.as_secs().max(1);
    for (resource, most) in [
        (Resource::Core, Some(0)),
        (Resource::Nofile, limits.files),
        (Resource::Fsize, limits.file_size),
        (Resource::Cpu, limits.cpu.map(seconds)),
    ] {
        // These are guards behind walls: a kernel that refuses one has a lower limit already.
        let _ = most.map(|most| limit(resource, most));
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", oom_score.to_string());
}

/// Sets both limits, and never more than there is.
fn limit(resource: Resource, most: u64) -> Result<(), String> {
    let maximum = getrlimit(resource).maximum.unwrap_or(u64::MAX).min(most);
    // The CPU limit first asks a process to end, and a second later ends it.
    let grace = u64::from(matches!(resource, Resource::Cpu));
    let both = Rlimit {
        current: Some(maximum),
        maximum: Some(maximum.saturating_add(grace)),
    };
    setrlimit(resource, both).map_err(|error| refused("setrlimit", error))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v857"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("linux"), None);
    }
}
