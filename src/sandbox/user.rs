//! A user of its own, where the process was started by root.

use std::os::fd::AsFd;

use rustix::process::{Gid, Uid};

use super::files::Opened;
use super::{Outcome, refused};

/// The first of the users that own nothing. Linux distributions give these numbers to nobody: systemd's list of users
/// says that 60578 to 61183 are unused.
pub const FIRST_USER: u32 = 60_578;

/// Becomes `user`, with a group of the same number and no other.
pub(super) fn change(user: Option<u32>, opened: &Opened) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Outcome::NotNeeded("the server is not root".to_owned());
    }
    let Some(user) = user else {
        return Outcome::Missing("no user is free".to_owned());
    };
    if let Some(closed) = opened.closed_to_others() {
        return Outcome::Missing(format!("{closed} can be read by root alone"));
    }
    Outcome::of(become_user(user).map(|()| format!("user {user}")))
}

fn become_user(user: u32) -> Result<(), String> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    let failed = |error| refused("changing the user", error);
    rustix::thread::set_thread_groups(&[]).map_err(failed)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}

/// Whether everybody may pass or read what `descriptor` leads to.
pub(super) fn is_open_to_others(descriptor: impl AsFd) -> bool {
    let found = rustix::fs::fstat(descriptor);
    found.is_ok_and(|found| found.st_mode & 0o005 == 0o005)
}
