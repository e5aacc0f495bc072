//! The process host: a version's runtime in a child process of its own, reached over a socket.
//!
//! [`ProcessRuntime`] looks like the local host from outside. Inside, one task per version supervises the process, and
//! calls go straight from their own task to the socket. A request whose process dies before it was answered is sent once
//! more, to the next process; one that saw two processes die is not tried again, and equal ones are refused for a while if it
//! is the only one that both may have died of. Where processes keep dying, the circuit opens.
//!
//! This module knows nothing of handlers, batches and sessions: they are on the other side, in [`super::child`].

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};

use super::failures::draining;
use super::{
    Batching, Bounds, CircuitState, Hosts, InFlight, ModelFiles, NativeLibraries, Room, Status,
};
use crate::backend::Signature;
use crate::error::Error;
use crate::handler::Sink;
use crate::model::ModelSpec;
use crate::payload::{Reply, Request, Response};
use attempts::Attempts;
use availability::Availability;
pub use counts::ProcessCounts;
use findings::Findings;
use launch::Launcher;
use poison::PoisonRequests;
pub use probe::probe;
use roster::Roster;
use spawn::SpawnPrograms;
pub(super) use spawn::from_anywhere;
pub use spawn::{ChildProcess, Spawn, Spawned};
use supervisor::{Command, LastFailure, ProcessSupervisor, State};
pub use walls::SandboxConfig;
pub(super) use walls::beside;

mod attempts;
mod availability;
mod backoff;
mod budget;
mod circuit;
mod connection;
mod cost;
mod counts;
mod findings;
mod launch;
mod liveness;
mod output_capture;
mod poison;
mod probe;
mod reports;
mod roster;
mod spawn;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod walls;

/// Commands that may wait for the supervisor; a further one waits for room.
const COMMANDS: usize = 16;

/// Bytes that each process shares with the front, in each direction, unless the operator says otherwise.
const SHARED_MEMORY: usize = 64 << 20;

/// How worker processes are started.
#[derive(Clone)]
pub struct ProcessConfig {
    /// The `lantern` program, started as `lantern worker`.
    pub lantern: PathBuf,
    /// The `lantern-torch` program.
    pub lantern_torch: PathBuf,
    /// Where native libraries lie.
    pub libraries: NativeLibraries,
    /// The environment of worker processes, beside what every one gets: what native libraries cannot do without, such as
    /// `LD_LIBRARY_PATH` and `CUDA_VISIBLE_DEVICES`.
    pub environment: Vec<(OsString, OsString)>,
    /// Where each process gets a working directory of its own, which is removed when it is dead. Without, all work in `/`.
    pub directory: Option<PathBuf>,
    /// Keeps the files of the version that is started; without, nothing removes them.
    pub files: Option<Arc<dyn ModelFiles>>,
    /// The walls around each.
    pub sandbox: SandboxConfig,
    /// Bytes of memory that each shares with the front for large bodies, in each direction; 0 for none.
    pub shared_memory: usize,
    /// The part of the processor that each process gets, where several owners share the machine.
    pub weight: Option<Arc<AtomicU32>>,
    /// Counts what becomes of the version's processes and of what they send.
    pub counts: Arc<ProcessCounts>,
    /// What starts them: the programs above, unless a test says otherwise.
    pub spawn: Arc<dyn Spawn>,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            lantern: PathBuf::new(),
            lantern_torch: PathBuf::new(),
            libraries: NativeLibraries::default(),
            environment: Vec::new(),
            directory: None,
            files: None,
            sandbox: SandboxConfig::default(),
            shared_memory: SHARED_MEMORY,
            weight: None,
            counts: Arc::default(),
            spawn: Arc::new(SpawnPrograms),
        }
    }
}

/// A version hosted in a worker process. Cheap to clone; when the last clone is dropped, the process is killed.
#[derive(Clone)]
pub struct ProcessRuntime {
    model: Arc<ModelSpec>,
    availability: watch::Receiver<Availability>,
    commands: mpsc::Sender<Command>,
    last_failure: Arc<Mutex<LastFailure>>,
    roster: Arc<Roster>,
    findings: Arc<Findings>,
    poison: Arc<PoisonRequests>,
    in_flight: Arc<InFlight>,
}

impl ProcessRuntime {
    /// Starts a process with `bounds.min` workers and waits until it has loaded the version; without workers there is no
    /// process until the version is scaled. A version that does not load at once is an error, and nothing is left of it.
    pub async fn start(
        hosts: &Hosts,
        model: Arc<ModelSpec>,
        bounds: Bounds,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, Error> {
        let roster = Arc::new(Roster::new(hosts.worker_ids.clone()));
        let findings = Arc::new(Findings::new(&model, hosts.verdicts.clone()));
        let launcher = Launcher {
            cfg: hosts.processes.clone(),
            source: hosts.code.clone(),
            code: OnceCell::new(),
            model: model.clone(),
            cores: hosts.cores,
            sink,
            roster: roster.clone(),
            findings: findings.clone(),
        };
        let (state, availability, last_failure) = first_state(&launcher, bounds).await?;
        let (availability_sender, availability) = watch::channel(availability);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let last_failure = Arc::new(Mutex::new(last_failure));
        let supervisor = ProcessSupervisor::new(
            Arc::new(launcher),
            availability_sender,
            last_failure.clone(),
            receiver,
            bounds,
        );
        tokio::spawn(supervisor.run(state));
        Ok(Self {
            model,
            availability,
            commands,
            last_failure,
            roster,
            findings,
            poison: Arc::default(),
            in_flight: Arc::default(),
        })
    }

    /// Has one request answered by the process. Dropping the future cancels the request there.
    pub async fn call(&self, request: Request) -> Result<Reply, Error> {
        let Some(_ticket) = self.in_flight.enter() else {
            return Err(draining(&self.model));
        };
        self.poison.check(&request)?;
        let mut attempts = self.attempts(request.deadline);
        loop {
            let attempt = attempts.next().await?;
            let called = attempt.connection.call(&request, attempt.is_suspected());
            match called.await {
                Ok(answer) => {
                    attempt.answered(&answer);
                    return answer;
                }
                Err(lost) => {
                    if lost.is_suspect {
                        self.poison.blame(&request, attempt.cost());
                    }
                    attempts.lost(attempt, lost)?;
                }
            }
        }
    }

    /// Room for a body of `length` bytes: where the process sees it, if there is some and nothing is wrong with the process.
    pub fn room(&self, length: usize) -> Room {
        let gathered = match &*self.availability.borrow() {
            Availability::Up(connection) => connection.gather(length),
            _ => None,
        };
        gathered.map_or_else(|| Room::own(length), Room::Shared)
    }

    fn attempts(&self, deadline: Instant) -> Attempts<'_> {
        Attempts::new(&self.model, self.availability.clone(), deadline)
    }

    /// Asks the handler what it says of its model: a text that should be a JSON object. Dropping the future ends the call.
    /// It is not asked again if its process dies.
    pub async fn describe(&self, request_id: &str, deadline: Instant) -> Result<Response, Error> {
        let Some(_ticket) = self.in_flight.enter() else {
            return Err(draining(&self.model));
        };
        let attempt = self.attempts(deadline).next().await?;
        let described = attempt.connection.describe(request_id, deadline.into());
        match described.await {
            Ok(answer) => answer?.into_response(),
            Err(lost) => Err(lost.error(&self.model)),
        }
    }

    /// Starts or stops workers until there are as many as `bounds` allow, and waits until the new ones are ready. With
    /// at most 0, the process ends; without a process, one is started if there must be workers.
    pub async fn scale(&self, bounds: Bounds) -> Result<(), Error> {
        let (done, scaled) = oneshot::channel();
        let command = Command::Scale { bounds, done };
        self.commands
            .send(command)
            .await
            .map_err(|_| draining(&self.model))?;
        scaled.await.unwrap_or_else(|_| Err(draining(&self.model)))
    }

    /// The runtime at this moment.
    pub fn status(&self) -> Status {
        let last_failure = self.last_failure.lock();
        Status {
            workers: self.roster.workers(),
            walls: self.roster.walls(),
            given_up: matches!(*self.availability.borrow(), Availability::GivenUp),
            circuit: self.circuit(),
            last_output: last_failure.last_output.clone(),
            last_error: last_failure.last_error.clone(),
            in_flight: self.in_flight.count(),
            batching: self.batching(),
        }
    }

    /// Has the process come after those of others where the kernel decides, or among them again. Blocks for some time.
    pub fn set_back(&self, is_back: bool) -> io::Result<()> {
        self.roster.set_back(is_back)
    }

    /// Whether requests are let through to the process.
    pub fn circuit(&self) -> CircuitState {
        self.availability.borrow().circuit()
    }

    /// How many workers take jobs.
    pub fn workers_ready(&self) -> usize {
        self.roster.ready()
    }

    /// How requests are stacked, once a process loaded the model.
    pub fn batching(&self) -> Option<Batching> {
        self.findings.status()
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub fn without_worker_since(&self) -> Option<Instant> {
        self.roster.without_worker_since()
    }

    /// Inputs and outputs of the model, once a process has loaded it.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.last_failure.lock().signature.clone()
    }

    /// Refuses new requests, waits at most `timeout` for those under way, then ends the process.
    pub async fn drain(&self, timeout: Duration) {
        let deadline = tokio::time::Instant::now() + timeout;
        self.in_flight.close();
        let _ = tokio::time::timeout(timeout, self.in_flight.emptied()).await;
        let (done, drained) = oneshot::channel();
        let timeout = deadline.saturating_duration_since(tokio::time::Instant::now());
        if self
            .commands
            .send(Command::Drain { timeout, done })
            .await
            .is_ok()
        {
            let _ = drained.await;
        }
    }
}

async fn first_state(
    launcher: &Launcher,
    bounds: Bounds,
) -> Result<(State, Availability, LastFailure), Error> {
    if bounds.min == 0 {
        return Ok((State::Empty, Availability::Empty, LastFailure::default()));
    }
    let process = launcher.launch(bounds).await?;
    let last_failure = LastFailure {
        signature: Some(process.signature.clone()),
        ..LastFailure::default()
    };
    let availability = Availability::Up(process.connection.clone());
    Ok((State::Up(Box::new(process)), availability, last_failure))
}
