//! The file that holds the process id of the server in the background, and that process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// As TorchServe's launcher calls it, so that either stops what the other started.
const NAME: &str = ".model_server.pid";

/// The file.
#[derive(Debug, Clone)]
pub(super) struct PidFile(PathBuf);

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: there is none.
    Absent,
    /// A server that has ended, or no process at all.
    Orphan,
    /// A server.
    Running(Process),
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(Pid);

impl PidFile {
    /// The file in `directory`.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self(directory.as_ref().join(NAME))
    }

    /// What it says now.
    pub fn state(&self) -> State {
        let Ok(text) = fs::read_to_string(&self.0) else {
            return State::Absent;
        };
        let number = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        // A number below one would name a group of processes.
        let number = number.filter(|number| *number > 0);
        let process = number.and_then(Pid::from_raw).map(Process);
        match process.filter(|process| process.is_alive() && process.is_server()) {
            Some(process) => State::Running(process),
            None => State::Orphan,
        }
    }

    /// Writes the number of a process.
    pub fn write(&self, id: u32) -> io::Result<()> {
        fs::write(&self.0, id.to_string())
    }

    /// Removes it, if it is there.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Process {
    /// Asks it to end.
    pub fn terminate(self) -> io::Result<()> {
        Ok(kill_process(self.0, Signal::TERM)?)
    }

    /// Whether it runs. One that nobody has buried yet does not.
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(self.at("stat")).unwrap_or_default();
        // The state follows the program's name, which stands in parentheses and may hold any character.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    /// Whether it may be what the file was written for: numbers are given out again, and a stranger must not be ended.
    fn is_server(self) -> bool {
        let Ok(program) = fs::read_link(self.at("exe")) else {
            // Another user's.
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_server_that_runs_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = PidFile::new(directory.path());
        assert_eq!(file.state(), State::Absent);
        file.write(std::process::id()).unwrap();
        assert!(matches!(file.state(), State::Running(_)));
        // No process has such a number; the others are none; the last is a stranger.
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
