//! Starting the program of a worker process.
//!
//! The process gets one end of a socket pair as its stdin, pipes for stdout and stderr, a listed environment, an empty
//! directory to work in, and nothing else.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use futures_util::future::BoxFuture;
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};

use super::ProcessConfig;
use crate::backend::NO_TELEMETRY;
use crate::error::{Error, Kind};
use crate::model::{self, BackendKind, ModelSpec};
use crate::runtime::failures::process_not_started;

/// Starts worker processes: `SpawnPrograms` real ones, tests such as follow a script.
pub trait Spawn: Send + Sync {
    /// Starts the process that is to load `model`, with `socket` as its stdin. Whatever it would leave behind anywhere goes
    /// into `directory`.
    fn spawn(
        &self,
        cfg: &ProcessConfig,
        model: &ModelSpec,
        socket: OwnedFd,
        directory: &Path,
    ) -> Result<Spawned, Error>;
}

/// Runs the programs of the configuration.
pub struct SpawnPrograms;

/// A process that was started and has received nothing.
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    /// Its end.
    pub child: Box<dyn ChildProcess>,
    /// What it writes to standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes to standard error.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
}

/// A process of the operating system. Dropping it kills the process.
pub trait ChildProcess: Send {
    /// Resolves when the process has ended. May be dropped and called again.
    fn wait(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>>;

    /// Kills the process and waits for its end.
    fn kill(&mut self) -> BoxFuture<'_, io::Result<()>>;
}

impl ChildProcess for Child {
    fn wait(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>> {
        Box::pin(Self::wait(self))
    }

    fn kill(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(Self::kill(self))
    }
}

impl Spawn for SpawnPrograms {
    fn spawn(
        &self,
        cfg: &ProcessConfig,
        model: &ModelSpec,
        socket: OwnedFd,
        directory: &Path,
    ) -> Result<Spawned, Error> {
        let program = cfg.program(model.backend);
        let mut command = Command::new(from_anywhere(program.path));
        command
            .args(program.argument)
            .env_clear()
            .envs(["HOME", "TMPDIR"].map(|name| (name, directory)))
            .envs(cfg.environment.iter().map(|(key, value)| (key, value)))
            .envs(NO_TELEMETRY)
            .current_dir(directory)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C reaches the front alone; it decides when its worker processes go. One that leads a group can begin no session, which keeps
        // Ctrl-C away as well.
        if cfg.weight.is_none() {
            command.process_group(0);
        }
        let mut child = command.spawn().map_err(|error| program.explain(&error))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::new(
                Kind::Internal,
                "the worker process has no pipes",
            ));
        };
        Ok(Spawned {
            pid: child.id().unwrap_or_default(),
            child: Box::new(child),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        })
    }
}

impl ProcessConfig {
    fn program(&self, backend: BackendKind) -> WorkerProgram<'_> {
        match backend.info().program {
            model::Program::LanternTorch => WorkerProgram {
                path: &self.lantern_torch,
                argument: None,
                advice: "TorchScript models need the program lantern-torch beside lantern: `make build` builds it; \
                         it needs libtorch (LIBTORCH)",
            },
            model::Program::Lantern => WorkerProgram {
                path: &self.lantern,
                argument: Some(OsStr::new("worker")),
                advice: "worker processes need the program lantern: `make build` builds it",
            },
        }
    }
}

struct WorkerProgram<'a> {
    path: &'a Path,
    argument: Option<&'a OsStr>,
    advice: &'static str,
}

impl WorkerProgram<'_> {
    fn explain(&self, error: &io::Error) -> Error {
        let what = if self.path.as_os_str().is_empty() {
            "the program's path is not set".to_owned()
        } else {
            format!("{}: {error}", self.path.display())
        };
        process_not_started(&format_args!("{what}; {}", self.advice))
    }
}

/// The path of a program or library, for a process with another working directory. A bare name stays: it is searched for
/// when it is opened.
pub fn from_anywhere(path: &Path) -> PathBuf {
    if path.components().count() < 2 {
        return path.to_owned();
    }
    absolute(path)
}

/// The path, for a process with another working directory.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
