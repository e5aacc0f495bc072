//! Runs the operator's command that measures the machine: no shell, an environment that is given, and limits on time
//! and output.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::System;

/// Bytes of output that are read.
const OUTPUT_LIMIT: u64 = 256 << 10;
/// How long it may take, even if the interval is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// There is no program to run.
    #[error("names no program")]
    Empty,
    /// It did not start, or its output could not be read.
    #[error("cannot run {program:?}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{program:?} took longer than {limit:?} and was ended")]
    TooSlow {
        /// The program.
        program: String,
        /// How long it may take.
        limit: Duration,
    },
    /// It failed.
    #[error("{program:?} failed: {status}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

/// What the command prints, as far as it is read.
pub(super) async fn run(system: &System) -> Result<String, CommandError> {
    let (program, arguments) = system.command.split_first().ok_or(CommandError::Empty)?;
    let named = |source| CommandError::Run {
        program: program.clone(),
        source,
    };
    let mut child = Group(start(program, arguments, system).map_err(named)?);
    let limit = system.interval.min(LONGEST);
    match tokio::time::timeout(limit, output(&mut child.0)).await {
        Ok(Ok((output, status))) if status.success() => Ok(output),
        Ok(Ok((_, status))) => Err(CommandError::Failed {
            program: program.clone(),
            status,
        }),
        Ok(Err(error)) => Err(named(error)),
        Err(_) => Err(CommandError::TooSlow {
            program: program.clone(),
            limit,
        }),
    }
}

fn start(program: &str, arguments: &[String], system: &System) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(system.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn output(child: &mut Child) -> io::Result<(String, std::process::ExitStatus)> {
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await?;
    }
    let status = child.wait().await?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), status))
}

/// The process group of a command, which is ended when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(rustix::process::Pid::from_raw) {
            // If this fails, the group has ended already.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
