//! What the kernel can do to keep a process within bounds: a policy goes in, the walls that went up come out.
//!
//! A process walls itself in, as the first thing that it does, while it has one thread: [`enter`]. Nothing that it does
//! later takes a wall down again. Whoever started it sends the policy ([`handover`]), and measures from outside what it
//! takes ([`usage`], [`cgroup`]). This module knows neither models nor requests.

use std::fmt::Display;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod cgroup;
mod demand;
pub mod descriptors;
mod files;
pub mod handover;
mod limits;
mod namespaces;
mod privileges;
pub mod seccomp;
pub mod session;
pub mod usage;
mod user;
mod wall;

pub use demand::{Demand, Demands, InvalidDemand};
pub use files::is_library;
pub use user::{OwnUser, Users};
pub use wall::{Outcome, Outcomes, Wall};

/// What a process may do and use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Which walls are wanted, and how much.
    pub demands: Demands,
    /// The user and group to become. Without, or where the process is not root, it keeps its own.
    pub user: Option<u32>,
    /// Directories that are reached through a descriptor that is opened before the walls go up, so that it does not matter
    /// who may pass their parents. [`Entered::path`] gives the way.
    pub directories: Vec<PathBuf>,
    /// Directories whose shared libraries may be read, and nothing else of them. They are reached by descriptors as well.
    pub libraries: Vec<PathBuf>,
    /// Files and directories that may be read beside those. What does not exist is passed over.
    pub readable: Vec<PathBuf>,
    /// Device files that may be read, written and asked to do things. What does not exist is passed over.
    pub devices: Vec<PathBuf>,
    /// Bytes that the scratch directory holds, which is in memory; without, there is none.
    pub scratch: Option<u64>,
    /// What it may use.
    pub limits: Limits,
    /// Which system calls are needed.
    pub calls: Calls,
    /// How much sooner than others the kernel ends it when memory runs out: 0 to 1000.
    pub oom_score: u16,
    /// Whether the process begins a session of its own, so that the kernel's automatic groups give it as much of the processor as another one.
    pub own_session: bool,
}

/// What a process may use at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory that it may write to and shares with nobody, whether they are in use or not.
    pub memory: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files.
    pub files: Option<u64>,
    /// Bytes of a file that it writes.
    pub file_size: Option<u64>,
    /// CPU time of the whole process, which is ended after it.
    pub cpu: Option<Duration>,
}

/// Which system calls a process needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Calls {
    /// Those of handlers and of native libraries on the processor.
    #[default]
    Native,
    /// Those of CUDA as well.
    Cuda,
}

/// A process within its walls.
#[derive(Debug, Default)]
pub struct Entered {
    /// What became of each wall.
    pub outcomes: Outcomes,
    /// Directories by the descriptors that lead to them, where another user may not pass their parents.
    directories: Vec<(PathBuf, OwnedFd)>,
    /// Keeps what the kernel knows of this process under its name in `/proc`, to which a rule is bound.
    _process: Option<OwnedFd>,
    /// A directory in memory that goes with the process.
    scratch: Option<OwnedFd>,
    /// A wall that has to be there, and is not.
    missing: Option<Wall>,
}

impl Entered {
    /// The way to `path` from within the walls.
    pub fn path(&self, path: &Path) -> PathBuf {
        let through = |(directory, descriptor): &(PathBuf, OwnedFd)| {
            let rest = path.strip_prefix(directory).ok()?;
            Some(by_descriptor(descriptor).join(rest))
        };
        let found = self.directories.iter().find_map(through);
        found.unwrap_or_else(|| path.to_owned())
    }

    /// Where files may be written, if anywhere.
    pub fn scratch(&self) -> Option<PathBuf> {
        self.scratch.as_ref().map(by_descriptor)
    }

    /// The wall that has to be there and is not, with the reason.
    pub fn missing(&self) -> Option<(Wall, &str)> {
        let missing = self.missing?;
        let found = self.outcomes.iter().find(|(wall, _)| *wall == missing);
        found.map(|(wall, outcome)| (*wall, outcome.detail()))
    }
}

fn by_descriptor(descriptor: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}

/// Puts up the walls of `policy` around this process. What cannot be put up is in the outcome, with the reason; the others
/// go up all the same. It must be called while the process has one thread, and before it does anything foreign.
pub fn enter(policy: &Policy) -> Entered {
    let mut raised = Raised::new(&policy.demands);
    if let Err(reason) = alone() {
        return raised.none(&reason);
    }
    if policy.own_session {
        // It fails where the process leads a group, and then it is no worse off than others.
        let _ = rustix::process::setsid();
    }
    // Files are opened by whoever this process still is.
    let opened = files::open(policy);
    raised.put_up(Wall::Descriptors, || {
        Outcome::of(descriptors::closed().map(|()| String::new()))
    });
    raised.put_up(Wall::Memory, || limits::memory(policy.limits.memory));
    limits::others(&policy.limits, policy.oom_score);
    let is_root = rustix::process::geteuid().is_root();
    let mut own = is_root.then(|| namespaces::as_root(policy, raised.demands));
    raised.put_up(Wall::User, || user::change(policy.user, &opened));
    if own.as_ref().is_none_or(|own| own.refused) {
        own = Some(namespaces::as_user(policy, raised.demands));
    }
    let own = own.unwrap_or_default();
    let has_own_user = own.has_user || raised.is_up(Wall::User);
    raised.put_up(Wall::Namespaces, || own.outcome);
    raised.put_up(Wall::Threads, || {
        limits::threads(policy.limits.threads, has_own_user)
    });
    raised.put_up(Wall::Privileges, privileges::drop);
    let scratch = own.scratch;
    let walled = files::restrict(&opened, scratch.as_ref(), raised.demands);
    raised.put_up(Wall::Landlock, || walled.files);
    raised.put_up(Wall::Scopes, || walled.scopes);
    raised.put_up(Wall::Seccomp, || {
        Outcome::of(seccomp::install(policy.calls).map(|()| String::new()))
    });
    let missing = raised.missing();
    // Whoever it was may pass the parents; another user needs the descriptors.
    let has_other_user = raised.is_up(Wall::User);
    let directories = opened.directories.into_iter().chain(opened.libraries);
    let directories = directories.filter(|_| has_other_user);
    Entered {
        outcomes: raised.outcomes,
        directories: directories.collect(),
        _process: opened.process,
        scratch,
        missing,
    }
}

/// The walls so far.
struct Raised<'a> {
    demands: &'a Demands,
    outcomes: Outcomes,
}

impl<'a> Raised<'a> {
    const fn new(demands: &'a Demands) -> Self {
        Self {
            demands,
            outcomes: Vec::new(),
        }
    }

    fn put_up(&mut self, wall: Wall, put_up: impl FnOnce() -> Outcome) {
        let outcome = if self.demands.of(wall) == Demand::Off {
            Outcome::Off
        } else {
            put_up()
        };
        self.outcomes.push((wall, outcome));
    }

    /// No wall at all: most would be around this thread alone, and the others could do what they like with it.
    fn none(mut self, reason: &str) -> Entered {
        for wall in Wall::ALL {
            self.put_up(wall, || Outcome::Missing(reason.to_owned()));
        }
        let missing = self.missing();
        Entered {
            outcomes: self.outcomes,
            missing,
            ..Entered::default()
        }
    }

    fn is_up(&self, wall: Wall) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.any(|(one, outcome)| *one == wall && matches!(outcome, Outcome::Up(_)))
    }

    fn missing(&self) -> Option<Wall> {
        let is_required = |wall: Wall| self.demands.of(wall) == Demand::Require;
        let mut outcomes = self.outcomes.iter();
        let missing = outcomes
            .find(|(wall, outcome)| is_required(*wall) && matches!(outcome, Outcome::Missing(_)));
        missing.map(|(wall, _)| *wall)
    }
}

/// Fails unless this process has one thread.
fn alone() -> Result<(), String> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    match threads {
        Ok(1) => Ok(()),
        Ok(count) => Err(format!(
            "{count} threads run before the walls go up: a library of the program starts some"
        )),
        Err(error) => Err(refused("/proc/self/task", error)),
    }
}

/// A text for what the kernel refused.
fn refused(what: &str, error: impl Display) -> String {
    format!("{what}: {error}")
}

/// Whether a path exists for this process.
fn opened(path: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests;
