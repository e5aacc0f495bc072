//! The process host: a version's runtime in a child process of its own, reached over a socket.
//!
//! [`ProcessRuntime`] looks like the local host from outside. Inside, one task per version supervises the process, and
//! calls go straight from their own task to the socket. A request whose process dies before it was answered is sent once
//! more, to the next process; one that saw two processes die is not tried again.
//!
//! This module knows nothing of handlers, batches and sessions: they are on the other side, in [`super::child`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::{Batching, Bounds, Hosts, NativeLibraries, Status};
use crate::backend::Signature;
use crate::error::{Error, Kind};
use crate::handler::Sink;
use crate::model::ModelSpec;
use crate::payload::{Reply, Request, Response};
use connection::{Connection, Lost};
use findings::Findings;
use launch::Launcher;
use roster::Roster;
use supervisor::{Availability, Command, LastFailure, State, Supervisor};

mod backoff;
mod connection;
mod findings;
mod launch;
mod liveness;
mod output_capture;
mod reports;
mod roster;
mod supervisor;

/// Commands that may wait for the supervisor; whoever has one more waits for room.
const COMMANDS: usize = 16;

/// How worker processes are started.
#[derive(Debug, Clone, Default)]
pub struct ProcessConfig {
    /// The `lantern` program, started as `lantern worker`.
    pub lantern: PathBuf,
    /// The `lantern-torch` program.
    pub lantern_torch: PathBuf,
    /// Where native libraries lie.
    pub libraries: NativeLibraries,
    /// Where compiled handlers are kept.
    pub cache: Option<PathBuf>,
    /// The environment of worker processes, beside what every one is told: what native libraries cannot do without, such as
    /// `LD_LIBRARY_PATH` and `CUDA_VISIBLE_DEVICES`.
    pub environment: Vec<(OsString, OsString)>,
    /// Where each process gets a working directory of its own, which is removed when it is dead. Without, all work in `/`.
    pub directory: Option<PathBuf>,
}

/// A version hosted in a worker process. Cheap to clone; when the last clone is dropped, the process is killed.
#[derive(Clone)]
pub struct ProcessRuntime {
    availability: watch::Receiver<Availability>,
    commands: mpsc::Sender<Command>,
    last_failure: Arc<Mutex<LastFailure>>,
    roster: Arc<Roster>,
    findings: Arc<Findings>,
    /// Requests called and not answered.
    calls: TaskTracker,
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
            model,
            cores: hosts.cores,
            sink,
            roster: roster.clone(),
            findings: findings.clone(),
        };
        let (state, availability, last_failure) = first_state(&launcher, bounds).await?;
        let (availability_sender, availability) = watch::channel(availability);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let last_failure = Arc::new(Mutex::new(last_failure));
        let supervisor = Supervisor::new(
            Arc::new(launcher),
            availability_sender,
            last_failure.clone(),
            receiver,
            bounds,
        );
        tokio::spawn(supervisor.run(state));
        Ok(Self {
            availability,
            commands,
            last_failure,
            roster,
            findings,
            calls: TaskTracker::new(),
        })
    }

    /// Has one request answered by the process. Dropping the future cancels the request there.
    pub async fn call(&self, request: Request) -> Result<Reply, Error> {
        if self.calls.is_closed() {
            return Err(draining());
        }
        let _counted = self.calls.token();
        let mut availability = Waiter::new(self.availability.clone(), request.deadline);
        loop {
            let connection = availability.connection().await?;
            match connection.call(&request).await {
                Ok(answer) => return answer,
                Err(lost) => availability.lost(connection, lost)?,
            }
        }
    }

    /// Asks the handler what it says of its model: a text that should be a JSON object. Dropping the future ends the call.
    /// It is not asked again if its process dies.
    pub async fn describe(&self, request_id: &str, deadline: Instant) -> Result<Response, Error> {
        if self.calls.is_closed() {
            return Err(draining());
        }
        let _counted = self.calls.token();
        let mut availability = Waiter::new(self.availability.clone(), deadline);
        let connection = availability.connection().await?;
        match connection.describe(request_id, deadline.into()).await {
            Ok(answer) => answer?.into_response(),
            Err(lost) => Err(lost.reason.as_ref().map_or_else(draining, worker_died)),
        }
    }

    /// Starts or stops workers until there are as many as `bounds` allow, and waits until the new ones are ready. With
    /// at most 0, the process ends; without a process, one is started if there must be workers.
    pub async fn scale(&self, bounds: Bounds) -> Result<(), Error> {
        let (done, scaled) = oneshot::channel();
        let command = Command::Scale { bounds, done };
        self.commands.send(command).await.map_err(|_| draining())?;
        scaled.await.unwrap_or_else(|_| Err(draining()))
    }

    /// The runtime at this moment.
    pub fn status(&self) -> Status {
        let last_failure = self.last_failure.lock();
        Status {
            workers: self.roster.workers(),
            given_up: matches!(*self.availability.borrow(), Availability::GivenUp),
            last_output: last_failure.last_output.clone(),
            last_error: last_failure.last_error.clone(),
            in_flight: self.calls.len(),
            batching: self.batching(),
        }
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

    /// Refuses new requests, waits at most `patience` for those under way, then ends the process.
    pub async fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.calls.close();
        let _ = tokio::time::timeout(patience, self.calls.wait()).await;
        let (done, drained) = oneshot::channel();
        let patience = deadline.saturating_duration_since(Instant::now());
        if self
            .commands
            .send(Command::Drain { patience, done })
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

/// One request's way to a connection that lives, and what it saw on that way.
struct Waiter {
    availability: watch::Receiver<Availability>,
    deadline: Instant,
    /// The connection that was lost last.
    lost: Option<Arc<Connection>>,
    /// Why the process died that had the request.
    death: Option<Arc<str>>,
}

impl Waiter {
    const fn new(availability: watch::Receiver<Availability>, deadline: Instant) -> Self {
        Self {
            availability,
            deadline,
            lost: None,
            death: None,
        }
    }

    /// A connection that was not lost yet; waits for one while a process is about to come.
    async fn connection(&mut self) -> Result<Arc<Connection>, Error> {
        let lost = self.lost.clone();
        if let Availability::Up(connection) = &*self.availability.borrow()
            && lost.is_none()
        {
            return Ok(connection.clone());
        }
        let is_settled = |availability: &Availability| match availability {
            Availability::Up(connection) => !lost
                .as_ref()
                .is_some_and(|lost| Arc::ptr_eq(lost, connection)),
            Availability::Down => false,
            Availability::Empty | Availability::GivenUp | Availability::Ended => true,
        };
        let settled = self.availability.wait_for(is_settled);
        match tokio::time::timeout_at(self.deadline.into(), settled).await {
            Ok(Ok(availability)) => match &*availability {
                Availability::Up(connection) => Ok(connection.clone()),
                Availability::Ended => Err(self.death.as_ref().map_or_else(draining, worker_died)),
                Availability::Empty | Availability::GivenUp | Availability::Down => {
                    Err(self.death.as_ref().map_or_else(no_worker, worker_died))
                }
            },
            Ok(Err(_)) => Err(self.death.as_ref().map_or_else(draining, worker_died)),
            Err(_) => Err(self.death.as_ref().map_or_else(expired, worker_died)),
        }
    }

    /// `connection` was lost. An error when the request may have killed two processes.
    fn lost(&mut self, connection: Arc<Connection>, lost: Lost) -> Result<(), Error> {
        self.lost = Some(connection);
        let Some(reason) = lost.reason else {
            return Ok(());
        };
        if self.death.is_some() {
            return Err(worker_died(&reason));
        }
        self.death = Some(reason);
        Ok(())
    }
}

fn draining() -> Error {
    Error::new(Kind::Draining, "the version is being unloaded")
}

fn no_worker() -> Error {
    Error::new(Kind::NoWorker, "the version has no worker")
}

fn expired() -> Error {
    Error::new(
        Kind::Expired,
        "the deadline passed while the worker was restarted",
    )
}

fn worker_died(reason: &Arc<str>) -> Error {
    Error::new(Kind::WorkerDied, format!("Worker died: {reason}"))
}
