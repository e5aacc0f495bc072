//! A user of its own, where the process was started by root.

use std::collections::BTreeMap;
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
#[derive(Debug, Clone)]
pub struct Users {
    /// Servers on one machine start at different places.
    start: u32,
    /// How many processes have each.
    taken: Arc<Mutex<BTreeMap<u32, usize>>>,
}

/// A user that no other process of this server has while there are enough of them, for as long as this value lives.
#[derive(Debug)]
pub struct OwnUser {
    users: Users,
    number: u32,
}

impl Default for Users {
    fn default() -> Self {
        let mut random = [0; 4];
        // Without, they start at the first.
        let _ = getrandom::fill(&mut random);
        Self {
            start: u32::from_le_bytes(random) % COUNT,
            taken: Arc::default(),
        }
    }
}

impl Users {
    /// The one that the fewest processes have; `None` if this process is not root.
    pub fn take(&self) -> Option<OwnUser> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut taken = self.taken.lock();
        let numbers = (0..COUNT).map(|index| FIRST + (self.start + index) % COUNT);
        let number = numbers.min_by_key(|number| taken.get(number).copied().unwrap_or(0))?;
        *taken.entry(number).or_default() += 1;
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
        let mut taken = self.users.taken.lock();
        if let Some(count) = taken.get_mut(&self.number) {
            *count -= 1;
        }
    }
}

/// Becomes `user`, with a group of the same number and no other.
pub(super) fn change(user: Option<u32>, opened: &Opened) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        return Outcome::NotNeeded("the server is not root".to_owned());
    }
    let Some(user) = user else {
        return Outcome::Missing("no user was given".to_owned());
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_user_is_given_twice_while_there_are_others() {
        let users = Users::default();
        let taken: Vec<_> = (0..COUNT).map_while(|_| users.take()).collect();
        if !rustix::process::geteuid().is_root() {
            assert!(taken.is_empty());
            return;
        }
        let numbers: BTreeSet<_> = taken.iter().map(OwnUser::number).collect();
        assert_eq!(numbers, (FIRST..FIRST + COUNT).collect());
        let shared = users.take().unwrap();
        assert!(numbers.contains(&shared.number()));
    }
}
