//! The process that compiles one component: started, given its two files, waited for, ended.
//!
//! It gets a socket as its stdin. One message comes through it, with the component, which is sealed, and the file for the
//! code. What it has to say goes to stderr, another file of limited length. Its environment says how many threads it may have.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::refusal::Refusal;
use super::{CompileLimits, Setup};
use crate::handler::{Code, Sealed, memory_file};
use crate::runtime::process::from_anywhere;
use crate::sandbox::{self, OwnUser, Policy, handover};

/// Bytes of what the process writes to stderr.
const REPORT: usize = 8 << 10;

/// How much sooner than others the kernel ends it when memory runs out: before anything that serves.
const OOM_SCORE: u16 = 1000;

/// Open files: its own three, two that it is given, and some that libraries open.
const FILES: u64 = 64;

/// Threads of the process: far more than it needs, since another server's processes may be of the same user.
const MOST_THREADS: u64 = 64;

/// Threads that compile functions of one component, at most.
const THREADS: usize = 4;

/// What the process writes to stderr when there is no more memory, in the words of Rust's library and of wasmtime.
const OUT_OF_MEMORY: [&str; 4] = [
    "memory allocation of",
    "annot allocate memory",
    "out of memory",
    "code: 11",
];

/// Compiles `component` in a process of its own.
pub fn compile(setup: &Setup, component: &Sealed) -> Result<Code, Refusal> {
    let mut compiling = Compiling::start(setup, component)
        .map_err(|error| Refusal::Start(format!("{}: {error}", setup.program.display())))?;
    let limits = &setup.limits;
    let status = compiling
        .process
        .wait(limits.wall)
        .map_err(|error| not_watched(&error))?;
    let report = text_of(&compiling.report).map_err(|error| not_watched(&error))?;
    match status.map(|status| judge(status, report)) {
        None => Err(Refusal::Wall),
        Some(Err(refusal)) => Err(refusal),
        Some(Ok(())) => code(compiling.output, limits),
    }
}

fn not_watched(error: &io::Error) -> Refusal {
    Refusal::Start(error.to_string())
}

/// What a process wrote that says it is done.
fn code(output: File, limits: &CompileLimits) -> Result<Code, Refusal> {
    match Code::compiled(output) {
        Ok(code) if code.length() <= limits.output => Ok(code),
        Ok(_) => Err(Refusal::Output),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(Refusal::Output),
        Err(error) => Err(Refusal::Crash("gave no code".to_owned(), error.to_string())),
    }
}

/// What the end of the process means. `report` is what it wrote to stderr.
fn judge(status: ExitStatus, report: String) -> Result<(), Refusal> {
    let signal = status.signal().and_then(Signal::from_named_raw);
    match signal {
        None if status.success() => Ok(()),
        Some(Signal::XCPU) => Err(Refusal::Cpu),
        Some(Signal::XFSZ) => Err(Refusal::Output),
        // The system ends the process that uses most where memory is short.
        Some(Signal::KILL) => Err(Refusal::Memory),
        _ if OUT_OF_MEMORY.iter().any(|text| report.contains(text)) => Err(Refusal::Memory),
        None if status.code() == Some(1) => Err(Refusal::Component(report)),
        _ => Err(Refusal::Crash(describe(status), report)),
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("exited with status {}", status.code().unwrap_or_default()),
    }
}

/// A process that compiles, and the files that it writes to.
struct Compiling {
    process: Process,
    /// It ends when this closes.
    _socket: UnixStream,
    /// Kept for it.
    _user: Option<OwnUser>,
    output: File,
    report: File,
}

/// Dropping it ends the process.
struct Process(Child);

impl Compiling {
    fn start(setup: &Setup, component: &Sealed) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let output = memory_file("lantern-code")?;
        let report = report_file()?;
        let child = command(&setup.program, theirs.into(), report.try_clone()?).spawn()?;
        let user = setup.users.take();
        let files = [component.as_fd(), output.as_fd()];
        // Where this fails the process is over, and how it ended says why.
        let _ = handover::send(ours.as_fd(), &policy(setup, user.as_ref()), &files);
        Ok(Self {
            process: Process(child),
            _socket: ours,
            _user: user,
            output,
            report,
        })
    }
}

impl Process {
    /// How the process ended; `None` if it had not within `limit`, which ends it.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let process = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let deadline = Instant::now() + limit;
        while !is_readable(&process, deadline.saturating_duration_since(Instant::now()))? {
            if Instant::now() >= deadline {
                self.end();
                return Ok(None);
            }
        }
        self.0.wait().map(Some)
    }

    fn end(&mut self) {
        // It may have ended meanwhile.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// It opens no files of its own.
fn policy(setup: &Setup, user: Option<&OwnUser>) -> Policy {
    let limits = &setup.limits;
    Policy {
        own_session: false,
        demands: setup.demands.clone(),
        user: user.map(OwnUser::number),
        limits: sandbox::Limits {
            memory: Some(limits.memory),
            files: Some(FILES),
            file_size: Some(limits.output),
            cpu: Some(limits.cpu),
            threads: Some(MOST_THREADS),
        },
        oom_score: OOM_SCORE,
        ..Policy::default()
    }
}

fn command(program: &Path, socket: OwnedFd, report: File) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut command = Command::new(from_anywhere(program));
    command
        // Called by another name, the program takes the arguments of another.
        .arg0("lantern")
        .arg("compile")
        .env_clear()
        .env("RAYON_NUM_THREADS", cores.min(THREADS).to_string())
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(report)
        .process_group(0);
    command
}

/// A file that takes no more than the first bytes of what is written to it.
fn report_file() -> io::Result<File> {
    let file = memory_file("lantern-compile-report")?;
    file.set_len(REPORT as u64)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(file)
}

/// What was written to a report. It was made from what others wrote, and is shown in one line.
fn text_of(report: &File) -> io::Result<String> {
    let mut bytes = vec![0; REPORT];
    let read = report.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let line = text.trim_end_matches('\0').trim();
    Ok(line.replace(|c: char| c.is_control(), " "))
}

/// Waits until the process is over, or a signal interrupts, or the time is.
fn is_readable(process: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut watched, Some(&limit)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
