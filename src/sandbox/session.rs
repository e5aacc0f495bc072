//! Sessions whose processes the kernel groups, so that each session gets as much of the processor as another (`sched_autogroup`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::time::Duration;

/// What a session that is set back has, in steps of nice values: about a ninth of what others get.
const BACK: &str = "10";
/// What the others have.
const USUAL: &str = "0";
/// Without rights the kernel takes one change in this time, whoever makes it.
const PAUSE: Duration = Duration::from_millis(110);
/// How often it is asked.
const ATTEMPTS: usize = 10;

/// The session that a process leads which this one started, once it does.
#[derive(Debug)]
pub struct Session {
    pid: u32,
    /// Tied to the process: when that is gone it leads to no other of its number.
    group: File,
}

impl Session {
    /// Of a process that has not walled itself in: later only root may open this. Fails where the kernel groups no sessions.
    pub fn of(pid: u32) -> io::Result<Self> {
        let group = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/autogroup"))?;
        Ok(Self { pid, group })
    }

    /// Has its processes come after those of other sessions, or among them again. That of a process which is gone needs nothing. Blocks, for a
    /// second at most.
    #[expect(clippy::disallowed_methods, reason = "whoever calls this may block")]
    pub fn set_back(&self, is_back: bool) -> io::Result<()> {
        if !self.is_led()? {
            return Err(io::Error::other("the process leads no session"));
        }
        let nice = if is_back { BACK } else { USUAL };
        for _ in 1..ATTEMPTS {
            match (&self.group).write_all(nice.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) if is_gone(&error) => return Ok(()),
                written => return written,
            }
        }
        (&self.group).write_all(nice.as_bytes())
    }

    /// Whether the process is the leader: until it is, its group is that of this process.
    fn is_led(&self) -> io::Result<bool> {
        let stat = match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::NotFound => {
                return Ok(true);
            }
            stat => stat?,
        };
        // The name, in parentheses, may hold anything. Behind it: state, parent, group, session.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        Ok(fields.split(' ').nth(3) == Some(self.pid.to_string().as_str()))
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits to be ended.
    fn waiting(command: &mut Command) -> Child {
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_session_is_set_back_and_comes_back_and_nobody_else_is() {
        let own = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
        if own.is_empty() {
            return println!("skipped: the kernel here does not group sessions");
        }
        let mut with_own = Command::new("setsid");
        let (leader, other) = (
            waiting(with_own.arg("cat")),
            waiting(&mut Command::new("cat")),
        );
        let session = Session::of(leader.id()).unwrap();
        while !session.is_led().unwrap() {
            std::thread::yield_now();
        }
        let nice = || {
            let text = fs::read_to_string(format!("/proc/{}/autogroup", leader.id())).unwrap();
            text.trim_end().rsplit(' ').next().unwrap().to_owned()
        };
        session.set_back(true).unwrap();
        assert_eq!(nice(), BACK);
        session.set_back(false).unwrap();
        assert_eq!(nice(), USUAL);
        // This process and its group stay where they were.
        assert!(Session::of(other.id()).unwrap().set_back(true).is_err());
        assert_eq!(fs::read_to_string("/proc/self/autogroup").unwrap(), own);
        end(leader);
        session.set_back(true).unwrap();
        end(other);
        assert!(Session::of(u32::MAX).is_err());
    }
}
