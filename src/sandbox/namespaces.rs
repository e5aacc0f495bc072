//! Namespaces of a process's own: without the network, the IPC objects, the host name and the mounts of others.

use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use super::{Demand, Demands, Outcome, Policy, Wall, limits, refused};

/// Files and directories that the scratch directory may have.
const MOST_INODES: u32 = 1024;

/// What a process has of its own.
pub(super) struct Namespaces {
    /// The wall.
    pub outcome: Outcome,
    /// Whether it has a user namespace in which the kernel counts its threads.
    pub has_user: bool,
    /// Whether the kernel wants more rights for them than this process has.
    pub refused: bool,
    /// A directory in memory that nobody else can reach.
    pub scratch: Option<OwnedFd>,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            outcome: Outcome::Off,
            has_user: false,
            refused: false,
            scratch: None,
        }
    }
}

/// Root needs no user namespace for the others.
pub(super) fn as_root(policy: &Policy, demands: &Demands) -> Namespaces {
    if demands.of(Wall::Namespaces) == Demand::Off {
        return Namespaces::default();
    }
    let others = others();
    Namespaces {
        refused: others.is_err(),
        scratch: policy.scratch.and_then(scratch),
        outcome: Outcome::of(others),
        has_user: false,
    }
}

/// Whoever is not root has the rights for the others in a user namespace alone.
pub(super) fn as_user(policy: &Policy, demands: &Demands) -> Namespaces {
    if demands.of(Wall::Namespaces) == Demand::Off {
        return Namespaces::default();
    }
    let made = user().and_then(|()| others());
    let is_made = made.is_ok();
    Namespaces {
        outcome: Outcome::of(made.map(|others| format!("user, {others}"))),
        has_user: is_made && limits::counts_in_namespaces(),
        refused: false,
        scratch: policy.scratch.filter(|_| is_made).and_then(scratch),
    }
}

/// A user namespace in which this process is who it was.
fn user() -> Result<(), String> {
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // A process that changed its user may not write its own maps otherwise.
    let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    unshare(UnshareFlags::NEWUSER, "user")?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| refused(file, error))?;
    }
    Ok(())
}

/// The names of those that are there now.
fn others() -> Result<String, String> {
    let others = [
        (UnshareFlags::NEWNET, "network"),
        (UnshareFlags::NEWIPC, "ipc"),
        (UnshareFlags::NEWUTS, "uts"),
        (UnshareFlags::NEWNS, "mount"),
    ];
    for (flag, name) in others {
        unshare(flag, name)?;
    }
    Ok(others.map(|(_, name)| name).join(", "))
}

#[expect(
    unsafe_code,
    reason = "with other flags this call can share descriptors wrongly"
)]
fn unshare(flags: UnshareFlags, name: &str) -> Result<(), String> {
    // SAFETY: none of the flags that come here concerns descriptors.
    let done = unsafe { rustix::thread::unshare_unsafe(flags) };
    done.map_err(|error| refused(name, error))
}

/// A file system in memory with room for so many bytes, which is mounted nowhere: the descriptor alone leads there.
fn scratch(bytes: u64) -> Option<OwnedFd> {
    let made = || -> rustix::io::Result<OwnedFd> {
        let system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&system, "size", bytes.to_string())?;
        fsconfig_set_string(&system, "nr_inodes", MOST_INODES.to_string())?;
        // Its user may still change.
        fsconfig_set_string(&system, "mode", "0777")?;
        fsconfig_create(&system)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().ok()
}
