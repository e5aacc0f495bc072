//! The PID file of the server in the background, and the process that it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// The name that TorchServe's launcher gives the file, so that each launcher can stop a server that the other started.
const NAME: &str = ".model_server.pid";

/// The PID file in one directory.
#[derive(Debug, Clone)]
pub(super) struct PidFile(PathBuf);

/// What the file refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is no file.
    Absent,
    /// The server has ended, or the file holds no process id.
    Orphan,
    /// The server runs.
    Running(Process),
}

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(Pid);

impl PidFile {
    /// The file in `directory`.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self(directory.as_ref().join(NAME))
    }

    /// Reads the file, and checks whether its process runs.
    pub fn state(&self) -> State {
        let Ok(text) = fs::read_to_string(&self.0) else {
            return State::Absent;
        };
        let number = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        // kill(2) takes a number below one for a group of processes.
        let number = number.filter(|number| *number > 0);
        let process = number.and_then(Pid::from_raw).map(Process);
        match process.filter(|process| process.is_alive() && process.is_server()) {
            Some(process) => State::Running(process),
            None => State::Orphan,
        }
    }

    /// Writes the id of a process to the file.
    pub fn write(&self, id: u32) -> io::Result<()> {
        fs::write(&self.0, id.to_string())
    }

    /// Removes the file, if it exists.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.0)
    }
}

/// Removes a file, if it exists. A read-only file system refuses to remove what is not there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if fs::symlink_metadata(path).is_ok() => Err(error),
        _ => Ok(()),
    }
}

impl Process {
    /// Sends SIGTERM.
    pub fn terminate(self) -> io::Result<()> {
        Ok(kill_process(self.0, Signal::TERM)?)
    }

    /// Whether it runs. A zombie, which has ended and was not waited for, does not.
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(self.at("stat")).unwrap_or_default();
        // The state comes after the program's name, which is in parentheses and may hold any character.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    /// Whether it may be the server that the file was written for. Process ids are used again, and another program must
    /// not be ended.
    fn is_server(self) -> bool {
        let Ok(program) = fs::read_link(self.at("exe")) else {
            // The link cannot be read: the process is another user's.
            return true;
        };
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(" (deleted)");
        let own = std::env::current_exe().unwrap_or_default();
        own.file_name().is_some_and(|own| own == name) || name == "java"
    }

    fn at(self, name: &str) -> PathBuf {
        let number = self.0.as_raw_nonzero();
        Path::new("/proc").join(number.to_string()).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_runs_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = PidFile::new(directory.path());
        assert_eq!(file.state(), State::Absent);
        file.write(std::process::id()).unwrap();
        assert!(matches!(file.state(), State::Running(_)));
        // An id that no process has, texts that are no id, and the id of another program.
        let mut stranger = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = stranger.id().to_string();
        for text in ["4194999", "", "x", "-1", "0", &own] {
            fs::write(directory.path().join(NAME), text).unwrap();
            assert_eq!(file.state(), State::Orphan, "{text:?}");
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.state(), State::Absent);
    }
}
