//! The walls by their names, what each keeps a process from, and what became of one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that the kernel can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wall {
    /// No descriptors but its own.
    Descriptors,
    /// No new privileges, no capabilities, no core dumps; neither traced nor read by others of its user.
    Privileges,
    /// A user of its own that owns nothing.
    User,
    /// Network, IPC, host name and mounts of its own.
    Namespaces,
    /// Files are read where the policy says, and written nowhere but in its scratch directory; no TCP.
    Landlock,
    /// No signals to other processes, no abstract sockets of theirs.
    Scopes,
    /// System calls that are on a list.
    Seccomp,
    /// Memory, up to a limit.
    Memory,
    /// Threads, up to a limit.
    Threads,
    /// Memory and processes, counted by the kernel for the process as a group.
    Cgroup,
}

impl Wall {
    /// Every wall, in the order in which they go up.
    pub const ALL: [Self; 10] = [
        Self::Descriptors,
        Self::Privileges,
        Self::User,
        Self::Namespaces,
        Self::Landlock,
        Self::Scopes,
        Self::Seccomp,
        Self::Memory,
        Self::Threads,
        Self::Cgroup,
    ];

    /// Its name in settings, descriptions and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Privileges => "privileges",
            Self::User => "user",
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Scopes => "scopes",
            Self::Seccomp => "seccomp",
            Self::Memory => "memory",
            Self::Threads => "threads",
            Self::Cgroup => "cgroup",
        }
    }

    /// The wall of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wall| wall.name() == name)
    }

    /// What it keeps a process from, for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Descriptors => "no open files of whoever started the server",
            Self::Privileges => {
                "no new privileges, no capabilities, no core dumps, no tracing by others"
            }
            Self::User => "a user of its own that owns nothing",
            Self::Namespaces => "a network, IPC, host name and mounts of its own",
            Self::Landlock => {
                "reads its archive and the libraries, writes nothing outside of its scratch directory, no TCP"
            }
            Self::Scopes => "no signals to other processes, no abstract sockets of theirs",
            Self::Seccomp => {
                "only system calls on a list: no exec, ptrace, sockets, mount, bpf, io_uring"
            }
            Self::Memory => "memory up to its limit",
            Self::Threads => "threads up to its limit",
            Self::Cgroup => "memory and processes counted by the kernel for the whole process",
        }
    }

    /// What to do where it is missing.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Descriptors => "mount /proc, or run Linux 5.9 or later",
            Self::Privileges => "run Linux 3.5 or later",
            Self::User => {
                "start the server as root with CAP_SETUID and CAP_SETGID, or as a user of its own that owns nothing else"
            }
            Self::Namespaces => {
                "allow unprivileged user namespaces (sysctl user.max_user_namespaces, \
                 user.max_net_namespaces, kernel.apparmor_restrict_unprivileged_userns; in containers a seccomp profile that allows unshare), or start as \
                 root with CAP_SYS_ADMIN"
            }
            Self::Landlock => "run Linux 6.2 or later with landlock among lsm=",
            Self::Scopes => "run Linux 6.12 or later with landlock among lsm=",
            Self::Seccomp => "run a kernel with CONFIG_SECCOMP_FILTER on x86-64 or aarch64",
            Self::Memory => "the server watches the memory that is in use instead",
            Self::Threads => {
                "let the wall user or a user namespace go up, in which the kernel counts; without it the server watches the number"
            }
            Self::Cgroup => {
                "delegate a cgroup v2 with the controllers memory and pids to the server (systemd: Delegate=yes)"
            }
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What became of a wall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is up. What of it, where that varies.
    Up(String),
    /// It is not, for this reason of the kernel's.
    Missing(String),
    /// There is nothing to keep the process from, for this reason.
    NotNeeded(String),
    /// Nobody wants it.
    Off,
}

impl Outcome {
    /// A wall that went up if `result` says so.
    pub(super) fn of<E: fmt::Display>(result: Result<String, E>) -> Self {
        result.map_or_else(|error| Self::Missing(error.to_string()), Self::Up)
    }

    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Missing(_) => "missing",
            Self::NotNeeded(_) => "not needed",
            Self::Off => "off",
        }
    }

    /// What more there is to say; empty for nothing.
    pub fn detail(&self) -> &str {
        match self {
            Self::Up(text) | Self::Missing(text) | Self::NotNeeded(text) => text,
            Self::Off => "",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => formatter.write_str(self.word()),
            detail => write!(formatter, "{}: {detail}", self.word()),
        }
    }
}

/// What became of each wall, in order.
pub type Outcomes = Vec<(Wall, Outcome)>;
