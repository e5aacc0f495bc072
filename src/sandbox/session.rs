//! Sessions whose processes the kernel groups, so that each session gets as much of the processor as another (`sched_autogroup`).

use std::fs;
use std::io;

/// What a session that is set back has, in steps of nice values: about a ninth of what others get.
const BACK: i32 = 10;

/// Has a process that this one started, and that leads a session, come after those of other sessions, or among them again. Returns whether that
/// is another place than it had. Where the kernel does not group sessions this fails.
pub fn set_back(pid: u32, is_back: bool) -> io::Result<bool> {
    if !leads_own_session(pid)? {
        return Err(io::Error::other("the process leads no session"));
    }
    let (path, nice) = (
        format!("/proc/{pid}/autogroup"),
        if is_back { BACK } else { 0 },
    );
    let now = fs::read_to_string(&path)?;
    // "/autogroup-25 nice 0"
    if now.trim_end().ends_with(&format!(" nice {nice}")) {
        return Ok(false);
    }
    fs::write(&path, nice.to_string())?;
    Ok(true)
}

/// Whether it is a child of this process, and its session is its own: the number of one that is gone may be another's.
fn leads_own_session(pid: u32) -> io::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything. Behind it: state, parent, group, session.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut fields = fields.split(' ').map(|field| field.parse::<u32>().ok());
    let (parent, session) = (fields.nth(1).flatten(), fields.nth(1).flatten());
    Ok(parent == Some(std::process::id()) && session == Some(pid))
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
    fn only_a_session_of_a_process_of_ours_is_set_back() {
        let mut with_own = Command::new("setsid");
        let (own, other) = (
            waiting(with_own.arg("cat")),
            waiting(&mut Command::new("cat")),
        );
        while !leads_own_session(own.id()).unwrap() {
            std::thread::yield_now();
        }
        assert!(set_back(other.id(), true).is_err());
        assert!(set_back(u32::MAX, true).is_err());
        assert!(set_back(1, true).is_err());
        let nice = || {
            let text = fs::read_to_string(format!("/proc/{}/autogroup", own.id())).unwrap();
            text.trim_end().rsplit(' ').next().unwrap().to_owned()
        };
        match set_back(own.id(), true) {
            Ok(is_changed) => {
                assert!(is_changed && nice() == "10");
                assert!(!set_back(own.id(), true).unwrap());
                assert!(set_back(own.id(), false).unwrap() && nice() == "0");
            }
            Err(error) => println!("skipped: the kernel here does not group sessions: {error}"),
        }
        end(own);
        end(other);
    }
}
