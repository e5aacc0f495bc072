//! Starting a worker process and loading a version in it.
//!
//! What a process needs to know is in the handshake. Nobody else can connect to its socket, so nobody has to prove who they
//! are.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use super::ProcessConfig;
use super::connection::Connection;
use super::findings::Findings;
use super::liveness::{self, Unresponsive};
use super::output_capture::OutputCapture;
use super::reports::ReportReceiver;
use super::roster::Roster;
use super::spawn::{ChildProcess, Spawned, absolute, from_anywhere};
use super::walls::{self, Excess, Needs, Walls};
use crate::backend::Signature;
use crate::error::{Error, Kind};
use crate::handler::{Code, Sink};
use crate::model::{Limits, ModelSpec};
use crate::runtime::compiler::{self, CodeSource};
use crate::runtime::failures::{
    died_in_load, no_working_directory, not_ready_in_time, not_walled_in, protocol_broken_in_load,
    too_much_to_start,
};
use crate::runtime::protocol::convert::{
    bounds_to_wire, check_signature, failure_from_wire, model_to_wire, path_to_wire,
    signature_from_wire, verdict_to_wire,
};
use crate::runtime::protocol::incoming::{Ending, Incoming};
use crate::runtime::protocol::messages::{Order, Report, Start};
use crate::runtime::protocol::{BUILD, Violation};
use crate::runtime::shared::Regions;
use crate::runtime::{Bounds, ModelFiles};
use crate::sandbox::Wall;
use crate::sandbox::session::Session;

/// How long a process that closed its socket may take to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last reports of a dead process may take to be read.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// What every process of a version is started with.
pub struct Launcher {
    pub cfg: ProcessConfig,
    /// Gives the code of the version's handler.
    pub source: Arc<dyn CodeSource>,
    /// The code, once it is there: it is compiled once for all processes of the version.
    pub code: OnceCell<Code>,
    pub model: Arc<ModelSpec>,
    pub cores: usize,
    pub sink: Arc<dyn Sink>,
    pub roster: Arc<Roster>,
    /// What processes find out about batching.
    pub findings: Arc<Findings>,
}

/// A worker process that has loaded its version. Dropping it kills the process.
pub struct WorkerProcess {
    /// Calls to it.
    pub connection: Arc<Connection>,
    /// Inputs and outputs of the model.
    pub signature: Arc<Signature>,
    /// Its process id.
    pub pid: u32,
    child: Box<dyn ChildProcess>,
    reader: AbortOnDropHandle<Ending>,
    _flusher: AbortOnDropHandle<()>,
    output: OutputCapture,
    /// Where it works.
    _directory: Option<TempDir>,
    walls: Walls,
    shared: Option<Regions>,
}

/// How a worker process ended.
#[derive(Debug)]
pub struct Death {
    /// Why, for a client: no path, no process id.
    pub reason: String,
    /// Its last lines on stderr.
    pub last_output: Vec<String>,
    /// Whether a request may be to blame: not where the process was stopped, or was asked to end.
    pub may_be_poison: bool,
}

impl Launcher {
    /// Starts a process with `bounds.min` workers, of which there must be one, and waits until its version is loaded.
    /// Files that another program removed come back before.
    pub async fn launch(&self, bounds: Bounds) -> Result<WorkerProcess, Error> {
        self.look_after_files(Ok(()), |files| files.restore())
            .await?;
        let code = self.code().await?;
        let mut walls = Walls::new(&self.cfg, &Needs::of(&self.model));
        let shared = self.regions();
        let (ours, theirs) = socket_pair(&walls, code, shared.as_ref())?;
        let directory = self.directory()?;
        let Spawned {
            pid,
            mut child,
            stdout,
            stderr,
        } = self.cfg.spawn.spawn(
            &self.cfg,
            &self.model,
            theirs,
            directory.as_ref().map_or(Path::new("/"), TempDir::path),
        )?;
        let output = OutputCapture::new(stdout, stderr, &self.sink, &self.cfg.counts);
        let has_session = self.cfg.weight.is_some();
        let session = has_session.then(|| Session::of(pid).ok()).flatten();
        self.roster.process_started(pid, session);
        walls
            .take(pid)
            .map_err(|reason| not_walled_in(Wall::Cgroup, &reason))?;
        let ends = shared.as_ref().and_then(|regions| regions.of_front().ok());
        let (connection, incoming) = Connection::new(ours, self.model.limits.response, ends);
        let flusher = flush(connection.clone());
        let reports = self.receiver(&walls);
        let loaded = self.loaded(pid, self.handshake(&connection, incoming, reports, bounds));
        match loaded.await {
            Ok((signature, incoming, reports)) => {
                let reader = connection.clone();
                let reader = tokio::spawn(async move { reader.read(incoming, reports).await });
                Ok(WorkerProcess {
                    connection,
                    signature: Arc::new(signature),
                    pid,
                    child,
                    reader: AbortOnDropHandle::new(reader),
                    _flusher: flusher,
                    output,
                    _directory: directory,
                    walls,
                    shared,
                })
            }
            Err(failure) => {
                if matches!(failure, StartFailure::Flooded(_)) {
                    self.cfg.counts.flooded();
                }
                Err(failure.explain(&self.model, child.as_mut(), output).await)
            }
        }
    }

    /// Memory that one process shares with the front. Without, everything goes through the socket.
    fn regions(&self) -> Option<Regions> {
        let size = self.cfg.shared_memory;
        let made = (size > 0).then(|| Regions::new(size))?;
        let failed = |error: &std::io::Error| {
            tracing::warn!("no shared memory with a worker process: {error}");
        };
        made.inspect_err(failed).ok()
    }

    /// Where the reports of a process within `walls` go.
    fn receiver(&self, walls: &Walls) -> ReportReceiver {
        ReportReceiver::new(
            self.sink.clone(),
            self.roster.clone(),
            self.findings.clone(),
            walls.cgroup(),
            &self.model,
            &self.cfg.counts,
        )
    }

    /// What came of the handshake with the process `pid`, unless that takes too long, or the process too much, before.
    async fn loaded<T>(
        &self,
        pid: u32,
        handshake: impl Future<Output = Result<T, StartFailure>>,
    ) -> Result<T, StartFailure> {
        let limit = self.model.settings.startup_timeout;
        tokio::select! {
            loaded = tokio::time::timeout(limit, handshake) => {
                loaded.unwrap_or(Err(StartFailure::TooSlow))
            }
            unresponsive = liveness::stopped(pid) => Err(StartFailure::Unresponsive(unresponsive)),
            excess = walls::exceeded(pid, &self.model.limits) => Err(StartFailure::Excess(excess)),
        }
    }

    /// The handler's code, which the first process of the version waits for.
    async fn code(&self) -> Result<&Code, Error> {
        let make = || compiler::code(self.source.clone(), self.model.clone());
        self.code.get_or_try_init(make).await
    }

    /// Whether the files of the version are there.
    pub async fn has_files(&self) -> bool {
        self.look_after_files(true, |files| files.are_whole()).await
    }

    /// What `look` says of the files, which blocks; `otherwise` where nothing removes them.
    async fn look_after_files<T: Send + 'static>(
        &self,
        otherwise: T,
        look: impl FnOnce(&dyn ModelFiles) -> T + Send + 'static,
    ) -> T {
        let Some(files) = self.cfg.files.clone() else {
            return otherwise;
        };
        let looked = tokio::task::spawn_blocking(move || look(files.as_ref()));
        // A panic was logged; the process then says what it misses.
        looked.await.unwrap_or(otherwise)
    }

    /// An empty directory for one process.
    fn directory(&self) -> Result<Option<TempDir>, Error> {
        let make = |parent: &PathBuf| {
            tempfile::Builder::new()
                .prefix("worker-")
                .tempdir_in(parent)
        };
        self.cfg
            .directory
            .as_ref()
            .map(make)
            .transpose()
            .map_err(|error| no_working_directory(&error))
    }

    async fn handshake(
        &self,
        connection: &Connection,
        mut incoming: Incoming,
        mut reports: ReportReceiver,
        bounds: Bounds,
    ) -> Result<(Signature, Incoming, ReportReceiver), StartFailure> {
        let start = Order::Start(Box::new(self.start_message(bounds)));
        connection.order(&start).map_err(StartFailure::TooMuch)?;
        loop {
            let (report, body) = incoming.next(|| false).await?;
            match report {
                Report::Ready { signature, workers } => {
                    self.roster.update(&workers)?;
                    let signature = signature_from_wire(signature)?;
                    check_signature(&signature)
                        .map_err(|error| Violation::Message(error.to_string()))?;
                    return Ok((signature, incoming, reports));
                }
                Report::Failed(failure) => {
                    return Err(StartFailure::Refused(failure_from_wire(&failure)));
                }
                other => reports.take(other, body.length())?,
            }
            reports.pace().await?;
        }
    }

    fn start_message(&self, bounds: Bounds) -> Start {
        let path = |path: &PathBuf| path_to_wire(&from_anywhere(path));
        let mut model = model_to_wire(&self.model);
        model.directory = path_to_wire(&absolute(&self.model.directory));
        Start {
            build: BUILD.to_owned(),
            model,
            workers: bounds_to_wire(bounds),
            cores: u32::try_from(self.cores).unwrap_or(u32::MAX),
            onnxruntime: self.cfg.libraries.onnxruntime.as_ref().map(path),
            verdict: self.findings.verdict().as_ref().map(verdict_to_wire),
        }
    }
}

/// Writes what callers leave to be written.
fn flush(connection: Arc<Connection>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move { connection.run_flusher().await }))
}

/// A pair of sockets in which the order to put up walls waits for the process, with the handler's code and the memory that it
/// shares with the front.
fn socket_pair(
    walls: &Walls,
    code: &Code,
    shared: Option<&Regions>,
) -> Result<(UnixStream, OwnedFd), Error> {
    let mut descriptors = vec![code.as_fd()];
    descriptors.extend(shared.iter().flat_map(|regions| regions.descriptors()));
    let pair = || {
        let (ours, theirs) = StdUnixStream::pair()?;
        walls.send(&ours, &descriptors)?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
    };
    pair().map_err(|error: std::io::Error| {
        Error::new(Kind::Internal, "the worker process could not be started")
            .with_detail(format!("no socket pair: {error}"))
    })
}

impl WorkerProcess {
    /// Waits until nothing more comes from the process: it is dead, or about to be, or not to be trusted.
    pub async fn ended(&mut self) -> Cause {
        tokio::select! {
            biased;
            ending = &mut self.reader => Cause::from_reader(ending.unwrap_or(Ending::Closed)),
            status = self.child.wait() => {
                // What it sent before it died is still in the socket.
                let _ = tokio::time::timeout(READ_TIMEOUT, &mut self.reader).await;
                Cause::Exited(status.ok())
            }
        }
    }

    /// What it uses more of than it may, at this moment. What it shares with the front is the front's.
    pub fn excess(&self, limits: &Limits) -> Option<Excess> {
        let shared = self.shared.as_ref().map_or(0, Regions::resident);
        walls::excess(self.pid, limits, shared)
    }

    /// Makes sure that it is dead, and returns how it died.
    pub async fn reap(mut self, cause: Cause) -> Death {
        let cause = match cause {
            Cause::Disconnected => Cause::Exited(exit_of(self.child.as_mut()).await),
            cause => cause,
        };
        let may_be_poison = cause.may_be_poison();
        let how = match cause {
            Cause::Exited(status) => describe(status),
            Cause::Disconnected => describe(None),
            Cause::Untrusted(violation) => {
                let _ = self.child.kill().await;
                format!("broke the protocol: {violation}")
            }
            Cause::Flooded(flood) => {
                let _ = self.child.kill().await;
                flood
            }
            Cause::Unresponsive(unresponsive) => {
                let _ = self.child.kill().await;
                unresponsive.to_string()
            }
            Cause::Excess(excess) => {
                let _ = self.child.kill().await;
                excess.to_string()
            }
        };
        let last_output = self.output.last_output().await;
        let lack = Lack::of(&last_output);
        let lack = lack.or_else(|| self.walls.ran_out_of_memory().then_some(Lack::Memory));
        Death {
            reason: with_lack(how, lack),
            last_output,
            may_be_poison,
        }
    }

    /// Asks it to finish and exit, and kills it if it has not after `timeout`.
    pub async fn drain(mut self, timeout: Duration) {
        let _ = self.connection.order(&Order::Drain { timeout });
        if tokio::time::timeout(timeout + EXIT_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

/// Why a worker process is over.
#[derive(Debug)]
pub enum Cause {
    /// It is dead.
    Exited(Option<ExitStatus>),
    /// It does not talk any more.
    Disconnected,
    /// It broke a rule.
    Untrusted(Violation),
    /// It kept sending far more than it may.
    Flooded(String),
    /// It does not answer.
    Unresponsive(Unresponsive),
    /// It uses more than it may.
    Excess(Excess),
}

impl Cause {
    fn from_reader(ending: Ending) -> Self {
        match ending {
            Ending::Closed | Ending::Failed(_) => Self::Disconnected,
            Ending::Violated(Violation::Flood(flood)) => Self::Flooded(flood),
            Ending::Violated(violation) => Self::Untrusted(violation),
        }
    }

    /// Whether a request may be to blame. A process that ends with success was asked to, and one is stopped from outside.
    fn may_be_poison(&self) -> bool {
        match self {
            Self::Exited(Some(status)) => !status.success(),
            Self::Exited(None)
            | Self::Disconnected
            | Self::Untrusted(_)
            | Self::Flooded(_)
            | Self::Excess(_) => true,
            Self::Unresponsive(unresponsive) => !matches!(unresponsive, Unresponsive::Stopped(_)),
        }
    }
}

async fn exit_of(child: &mut dyn ChildProcess) -> Option<ExitStatus> {
    if let Ok(status) = tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
        return status.ok();
    }
    let _ = child.kill().await;
    None
}

fn describe(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        None => "closed its connection".to_owned(),
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, Some(code)) => format!("exited with status {code}"),
            (None, None) => status.to_string(),
        },
    }
}

/// Why a version did not load.
enum StartFailure {
    Refused(Error),
    /// The handshake does not fit into a message.
    TooMuch(Violation),
    Ended(Ending),
    Flooded(String),
    TooSlow,
    Unresponsive(Unresponsive),
    Excess(Excess),
}

impl From<Ending> for StartFailure {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Violated(Violation::Flood(flood)) => Self::Flooded(flood),
            ending => Self::Ended(ending),
        }
    }
}

impl From<Violation> for StartFailure {
    fn from(violation: Violation) -> Self {
        Ending::Violated(violation).into()
    }
}

impl StartFailure {
    /// Why, with what the process wrote to stderr, once it is dead.
    async fn explain(
        self,
        model: &ModelSpec,
        child: &mut dyn ChildProcess,
        output: OutputCapture,
    ) -> Error {
        let error = match self {
            Self::Refused(error) => error,
            Self::TooMuch(violation) => too_much_to_start(&violation),
            Self::Unresponsive(unresponsive) => died_in_load(&unresponsive),
            Self::Excess(excess) => died_in_load(&excess),
            Self::Flooded(flood) => died_in_load(&flood),
            Self::Ended(Ending::Violated(violation)) => protocol_broken_in_load(&violation),
            Self::Ended(_) => {
                let how = describe(exit_of(child).await);
                let last_output = output.last_output().await;
                let how = with_lack(how, Lack::of(&last_output));
                return with_last_output(died_in_load(&how), &last_output);
            }
            Self::TooSlow => not_ready_in_time(model),
        };
        let _ = child.kill().await;
        with_last_output(error, &output.last_output().await)
    }
}

/// What a process ended for lack of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Memory,
    Threads,
}

impl Lack {
    /// What the last lines of a process say that it did not get: Rust's and C++'s libraries write so before they end it.
    fn of(last_output: &[String]) -> Option<Self> {
        const MEMORY: [&str; 2] = ["memory allocation of ", "std::bad_alloc"];
        let says_memory = |line: &String| MEMORY.iter().any(|text| line.contains(text));
        let says_threads = |line: &String| {
            line.contains("hread") && line.contains("Resource temporarily unavailable")
        };
        if last_output.iter().any(says_memory) {
            return Some(Self::Memory);
        }
        last_output
            .iter()
            .any(says_threads)
            .then_some(Self::Threads)
    }
}

/// How a process died, for a reader who may give it more of what it lacked.
fn with_lack(how: String, lack: Option<Lack>) -> String {
    match lack {
        None => how,
        Some(Lack::Memory) => format!(
            "{how}; it had no memory left (lantern.limits.processMemory, lantern_max_process_memory)"
        ),
        Some(Lack::Threads) => format!(
            "{how}; it could start no more threads (lantern.limits.threads, lantern_max_threads), or had no memory for their \
             stacks (lantern.limits.processMemory, lantern_max_process_memory)"
        ),
    }
}

/// Adds to the error's detail what the process wrote last, before frames that it may end in.
fn with_last_output(error: Error, last_output: &[String]) -> Error {
    if last_output.is_empty() {
        return error;
    }
    let stderr = format!("stderr: {}", last_output.join("\n"));
    let detail = match error.detail() {
        Some(detail) => format!("{stderr}; {detail}"),
        None => stderr,
    };
    error.with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_lacked_is_named_with_the_setting() {
        for (line, setting) in [
            (
                "memory allocation of 16 bytes failed",
                "lantern.limits.processMemory",
            ),
            (
                "terminate called after throwing an instance of 'std::bad_alloc'",
                "lantern.limits.processMemory",
            ),
            (
                "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)",
                "lantern.limits.threads",
            ),
            (
                "libgomp: Thread creation failed: Resource temporarily unavailable",
                "lantern.limits.threads",
            ),
        ] {
            let lack = Lack::of(&["before".to_owned(), line.to_owned()]);
            assert!(
                with_lack("died".to_owned(), lack).contains(setting),
                "{line}"
            );
        }
        let other = Lack::of(&["a socket: Resource temporarily unavailable".to_owned()]);
        assert_eq!(with_lack("died".to_owned(), other), "died");
    }
}
