//! The life of one version's worker process: started, watched, restarted with back-off, given up, drained.
//!
//! One task owns the process and everything that decides about it; callers see a [`Availability`] and the [`LastFailure`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::connection::Connection;
use super::launch::{Cause, Launcher, WorkerProcess};
use super::liveness::{self, Liveness, ProcessActivity};
use super::walls;
use crate::backend::Signature;
use crate::error::Error;
use crate::runtime::Bounds;
use crate::runtime::failures::{no_worker, worker_died};

/// How long after its deadline a request is answered by the front, in case its process does not.
const GRACE: Duration = Duration::from_millis(500);

/// What is asked of the supervisor.
#[derive(Debug)]
pub enum Command {
    /// Have as many workers as this allows.
    Scale {
        /// Workers there shall be, at least and at most.
        bounds: Bounds,
        /// Told when they are ready.
        done: oneshot::Sender<Result<(), Error>>,
    },
    /// End the process in good order.
    Drain {
        /// How long that may take.
        timeout: Duration,
        /// Told when it is gone.
        done: oneshot::Sender<()>,
    },
}

/// Where calls go at the moment.
#[derive(Debug, Clone)]
pub enum Availability {
    /// To this process.
    Up(Arc<Connection>),
    /// Nowhere yet: a process is about to come.
    Down,
    /// Nowhere: there is no worker.
    Empty,
    /// Nowhere: files of the model were removed and have to come back before a process can, which may take long.
    Unpacking,
    /// Nowhere any more, unless an operator scales the version.
    GivenUp,
    /// Nowhere any more.
    Ended,
}

/// What is known of failures and the model.
#[derive(Debug, Default)]
pub struct LastFailure {
    /// Inputs and outputs, from the last process that loaded the model.
    pub signature: Option<Arc<Signature>>,
    /// The last lines of the last process that died.
    pub last_output: Vec<String>,
    /// Why the last start failed.
    pub last_error: Option<Error>,
}

/// Owns the process of one version.
pub struct ProcessSupervisor {
    launcher: Arc<Launcher>,
    availability: watch::Sender<Availability>,
    last_failure: Arc<Mutex<LastFailure>>,
    commands: mpsc::Receiver<Command>,
    backoff: Backoff,
    /// Workers there shall be, at least and at most.
    target: Bounds,
    /// Told when there is a process again.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// What the supervisor is at.
pub enum State {
    /// No process, and none wanted.
    Empty,
    /// No process; one is to be started when back-off allows.
    Down,
    /// No process; given up.
    GivenUp,
    /// A process.
    Up(Box<WorkerProcess>),
    /// Over.
    Ended,
}

type Launch = Pin<Box<dyn Future<Output = Result<WorkerProcess, Error>> + Send>>;

impl ProcessSupervisor {
    /// A supervisor of a version with as many workers as `target` allows.
    pub fn new(
        launcher: Arc<Launcher>,
        availability: watch::Sender<Availability>,
        last_failure: Arc<Mutex<LastFailure>>,
        commands: mpsc::Receiver<Command>,
        target: Bounds,
    ) -> Self {
        let backoff = Backoff::new(launcher.model.settings.max_retry_timeout);
        Self {
            launcher,
            availability,
            last_failure,
            commands,
            backoff,
            target,
            waiting: Vec::new(),
        }
    }

    /// Supervises from `state` on, until drained or until nobody can call any more.
    pub async fn run(mut self, mut state: State) {
        loop {
            state = match state {
                State::Empty => self.idle(Availability::Empty).await,
                State::GivenUp => self.idle(Availability::GivenUp).await,
                State::Down => self.restart().await,
                State::Up(process) => self.supervise(*process).await,
                State::Ended => break,
            };
        }
        self.availability.send_replace(Availability::Ended);
        self.launcher.roster.clear();
    }

    /// Without a process until somebody wants one.
    async fn idle(&mut self, availability: Availability) -> State {
        self.availability.send_replace(availability);
        self.answer_waiting(&Err(no_worker(&self.launcher.model)));
        match self.commands.recv().await {
            Some(Command::Scale { bounds, done }) if bounds.min == 0 => {
                self.target = bounds;
                let _ = done.send(Ok(()));
                State::Empty
            }
            Some(Command::Scale { bounds, done }) => {
                self.target = bounds;
                self.waiting.push(done);
                self.backoff.reset();
                State::Down
            }
            Some(Command::Drain { done, .. }) => ended(done),
            None => State::Ended,
        }
    }

    /// Starts a process after the pause that back-off asks for.
    async fn restart(&mut self) -> State {
        self.availability.send_replace(Availability::Down);
        let Some(pause) = self.backoff.failed(Instant::now()) else {
            tracing::error!(model = %self.launcher.model.name, version = %self.launcher.model.version,
                "Auto recovery failed again: gave up after {:?}", self.launcher.model.settings.max_retry_timeout);
            return State::GivenUp;
        };
        if !self.launcher.has_files().await {
            self.availability.send_replace(Availability::Unpacking);
        }
        let launch = self.launch_after(pause);
        match self.until_launched(launch).await {
            Ok(Ok(process)) => State::Up(Box::new(process)),
            Ok(Err(error)) => {
                tracing::warn!(model = %self.launcher.model.name, version = %self.launcher.model.version, %error,
                    "worker process did not start");
                self.last_failure.lock().last_error = Some(error.clone());
                self.launcher.roster.process_died();
                self.answer_waiting(&Err(error));
                State::Down
            }
            Err(state) => state,
        }
    }

    fn launch_after(&self, pause: Duration) -> Launch {
        let launcher = self.launcher.clone();
        // A process is there for its workers: it has one even where none is enough.
        let bounds = Bounds {
            min: self.target.min.max(1),
            ..self.target
        };
        tracing::info!(model = %launcher.model.name, version = %launcher.model.version,
            "Retry worker in {} seconds.", pause.as_secs());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            launcher.launch(bounds).await
        })
    }

    /// The outcome of `launch`, or the state that a command leads to before it.
    async fn until_launched(
        &mut self,
        mut launch: Launch,
    ) -> Result<Result<WorkerProcess, Error>, State> {
        loop {
            tokio::select! {
                launched = &mut launch => return Ok(launched),
                command = self.commands.recv() => match command {
                    Some(Command::Scale { bounds, done }) if bounds.max == 0 => {
                        self.target = bounds;
                        self.launcher.roster.clear();
                        let _ = done.send(Ok(()));
                        return Err(State::Empty);
                    }
                    Some(Command::Scale { bounds, done }) => {
                        self.target = bounds;
                        self.waiting.push(done);
                    }
                    Some(Command::Drain { done, .. }) => return Err(ended(done)),
                    None => return Err(State::Ended),
                },
            }
        }
    }

    /// Lets calls through to `process` until it ends.
    async fn supervise(&mut self, mut process: WorkerProcess) -> State {
        self.process_is_up(&process);
        let mut liveness = Liveness::new(self.launcher.model.settings.response_timeout);
        let mut sweep = tokio::time::interval(liveness::INTERVAL);
        loop {
            tokio::select! {
                cause = process.ended() => return self.process_died(process, cause).await,
                command = self.commands.recv() => match command {
                    Some(Command::Scale { bounds, done }) if bounds.max == 0 => {
                        self.target = bounds;
                        self.stop_process(process, Duration::ZERO).await;
                        let _ = done.send(Ok(()));
                        return State::Empty;
                    }
                    Some(Command::Scale { bounds, done }) => self.scale(&process, bounds, done),
                    Some(Command::Drain { timeout, done }) => {
                        self.stop_process(process, timeout).await;
                        return ended(done);
                    }
                    None => return State::Ended,
                },
                _ = sweep.tick() => {
                    process.connection.expire(GRACE);
                    if let Some(excess) = walls::excess(process.pid, &self.launcher.model.limits) {
                        return self.process_died(process, Cause::Excess(excess)).await;
                    }
                    if let Some(unresponsive) = liveness.check(observed(&process)) {
                        return self.process_died(process, Cause::Unresponsive(unresponsive)).await;
                    }
                }
            }
        }
    }

    fn process_is_up(&mut self, process: &WorkerProcess) {
        self.backoff.reset();
        self.last_failure.lock().signature = Some(process.signature.clone());
        self.last_failure.lock().last_error = None;
        self.availability
            .send_replace(Availability::Up(process.connection.clone()));
        // The target may have changed while the process was starting.
        for done in std::mem::take(&mut self.waiting) {
            self.scale(process, self.target, done);
        }
    }

    fn scale(
        &mut self,
        process: &WorkerProcess,
        bounds: Bounds,
        done: oneshot::Sender<Result<(), Error>>,
    ) {
        self.target = bounds;
        let (connection, model) = (process.connection.clone(), self.launcher.model.clone());
        tokio::spawn(async move {
            let scaled = connection.scale(bounds).await;
            let _ = done.send(scaled.unwrap_or_else(|lost| Err(lost.error(&model))));
        });
    }

    /// Ends `process` in good order; calls that come meanwhile find nobody.
    async fn stop_process(&mut self, process: WorkerProcess, timeout: Duration) {
        self.availability.send_replace(Availability::Empty);
        let connection = process.connection.clone();
        process.drain(timeout).await;
        connection.lose(&Arc::from("the worker was stopped"));
        self.launcher.roster.clear();
    }

    /// `process` is over: those who wait learn why, after the availability has been taken down, so that they wait for the next.
    async fn process_died(&mut self, process: WorkerProcess, cause: Cause) -> State {
        self.availability.send_replace(Availability::Down);
        let connection = process.connection.clone();
        let death = process.reap(cause).await;
        tracing::warn!(model = %self.launcher.model.name, version = %self.launcher.model.version,
            reason = death.reason, "Worker died.");
        self.launcher.roster.process_died();
        let error = worker_died(&death.reason);
        let mut last_failure = self.last_failure.lock();
        last_failure.last_output = death.last_output;
        last_failure.last_error = Some(error);
        drop(last_failure);
        connection.lose(&Arc::from(death.reason));
        State::Down
    }

    fn answer_waiting(&mut self, result: &Result<(), Error>) {
        for done in std::mem::take(&mut self.waiting) {
            let _ = done.send(result.clone());
        }
    }
}

fn observed(process: &WorkerProcess) -> ProcessActivity {
    ProcessActivity {
        is_stopped: liveness::is_stopped(process.pid),
        ..process.connection.observed()
    }
}

fn ended(done: oneshot::Sender<()>) -> State {
    let _ = done.send(());
    State::Ended
}

#[cfg(test)]
mod tests;
