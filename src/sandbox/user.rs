//! A user of its own, where the process was started by root.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Gid, Uid};

use super::files::Opened;
use super::{Outcome, refused};

/// The first of the users that own nothing. Linux distributions give these numbers to nobody: systemd's list of users
/// says that 60578 to 61183 are unused.
const FIRST: u32 = 60_578;
/// How many there are.
const COUNT: u32 = 606;

/// The users that processes may become. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Users {
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

/// A user that no other process of this server has, for as long as this value lives.
#[derive(Debug)]
pub struct OwnUser {
    users: Users,
    number: u32,
}

impl Users {
    /// One that is free; `None` if this process is not root, or none is free.
    pub fn take(&self) -> Option<OwnUser> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut taken = self.taken.lock();
        // Servers on one machine start at different places.
        let start = std::process::id() % COUNT;
        let mut numbers = (0..COUNT).map(|index| FIRST + (start + index) % COUNT);
        let number = numbers.find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(OwnUser {
            users: self.clone(),
            number,
        })
    }
}

impl OwnUser {
    /// Its number.
    pub const fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for OwnUser {
    fn drop(&mut self) {
        self.users.taken.lock().remove(&self.number);
    }
}

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

/// Whether everybody may pass and list the directory that `descriptor` leads to.
pub(super) fn is_open_to_others(descriptor: impl AsFd) -> bool {
    let found = rustix::fs::fstat(descriptor);
    found.is_ok_and(|found| found.st_mode & 0o005 == 0o005)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_is_given_twice_at_a_time() {
        let users = Users::default();
        let taken: Vec<_> = (0..COUNT).map_while(|_| users.take()).collect();
        if !rustix::process::geteuid().is_root() {
            assert!(taken.is_empty());
            return;
        }
        let numbers: BTreeSet<_> = taken.iter().map(OwnUser::number).collect();
        assert_eq!(numbers, (FIRST..FIRST + COUNT).collect());
        assert!(users.take().is_none());
        drop(taken);
        assert!(users.take().is_some());
    }
}
