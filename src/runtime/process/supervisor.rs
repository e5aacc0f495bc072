//! The life of one version's worker process: started, watched, restarted with back-off, kept from callers while it keeps dying,
//! given up, drained.
//!
//! One task owns the process and everything that decides about it; callers see a [`Availability`] and the [`LastFailure`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::availability::Availability;
use super::backoff::{Backoff, RECOVERED};
use super::circuit::{Circuit, Trial};
use super::launch::{Cause, Death, Launcher, WorkerProcess};
use super::liveness::{self, Liveness, ProcessActivity};
use crate::backend::Signature;
use crate::error::Error;
use crate::handler::Level;
use crate::runtime::Bounds;
use crate::runtime::failures::{keeps_dying, no_worker, worker_died};

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
    circuit: Circuit,
    /// Workers there shall be, at least and at most.
    target: Bounds,
    /// Told when there is a process again.
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// What the supervisor is at.
pub enum State {
    /// No process, and none wanted.
    Empty,
    /// No process; one is to be started then.
    Down(Instant),
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
            circuit: Circuit::default(),
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
                State::Down(until) => self.restart(until).await,
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
                self.start_afresh()
            }
            Some(Command::Drain { done, .. }) => ended(done),
            None => State::Ended,
        }
    }

    /// No process for `pause`. Callers wait for the next one, unless the circuit is open.
    fn down_for(&self, pause: Duration) -> State {
        let until = Instant::now() + pause;
        self.availability.send_replace(if self.circuit.is_open() {
            Availability::Open { until }
        } else {
            Availability::Down
        });
        State::Down(until)
    }

    /// An operator asks for workers: what happened before is forgotten, and nobody is refused for it.
    fn forget_failures(&mut self) {
        self.backoff.reset();
        self.circuit.reset();
        self.availability.send_if_modified(|availability| {
            let is_open = matches!(availability, Availability::Open { .. });
            if is_open {
                *availability = Availability::Down;
            }
            is_open
        });
    }

    /// An operator asks for workers: one is started at once.
    fn start_afresh(&mut self) -> State {
        self.forget_failures();
        let pause = self.backoff.begin(Instant::now());
        self.down_for(pause)
    }

    /// Starts a process when the pause is over.
    async fn restart(&mut self, until: Instant) -> State {
        if !self.launcher.has_files().await && !self.circuit.is_open() {
            self.availability.send_replace(Availability::Unpacking);
        }
        let launch = self.launch_at(until);
        match self.until_launched(launch, until).await {
            Ok(Ok(process)) => State::Up(Box::new(process)),
            Ok(Err(error)) => self.start_failed(error),
            Err(state) => state,
        }
    }

    fn start_failed(&mut self, error: Error) -> State {
        self.say(
            Level::Warn,
            "worker process did not start".to_owned(),
            Some(&error),
        );
        self.last_failure.lock().last_error = Some(error.clone());
        self.launcher.roster.process_died();
        self.answer_waiting(&Err(error));
        let open = self.circuit.did_not_load();
        let Some(pause) = self.backoff.did_not_load(Instant::now()) else {
            let window = self.launcher.model.settings.max_retry_timeout;
            let text = format!("Auto recovery failed again: gave up after {window:?}");
            self.say(Level::Error, text, None);
            return State::GivenUp;
        };
        self.down_for(open.unwrap_or(pause))
    }

    fn launch_at(&self, until: Instant) -> Launch {
        let launcher = self.launcher.clone();
        // A process is there for its workers: it has one even where none is enough.
        let bounds = Bounds {
            min: self.target.min.max(1),
            ..self.target
        };
        let pause = until.saturating_duration_since(Instant::now());
        let seconds = pause.as_secs_f64().ceil();
        self.say(
            Level::Info,
            format!("Retry worker in {seconds} seconds."),
            None,
        );
        Box::pin(async move {
            tokio::time::sleep_until(until).await;
            launcher.launch(bounds).await
        })
    }

    /// The outcome of `launch`, which begins at `begin`, or the state that a command leads to before it.
    async fn until_launched(
        &mut self,
        mut launch: Launch,
        begin: Instant,
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
                        if Instant::now() < begin {
                            return Err(self.start_afresh());
                        }
                        self.forget_failures();
                    }
                    Some(Command::Drain { done, .. }) => return Err(ended(done)),
                    None => return Err(State::Ended),
                },
            }
        }
    }

    /// Lets calls through to `process` until it ends.
    async fn supervise(&mut self, mut process: WorkerProcess) -> State {
        let up_since = Instant::now();
        let mut trial = self.process_is_up(&process);
        let mut liveness = Liveness::new(self.launcher.model.settings.response_timeout);
        let mut sweep = tokio::time::interval(liveness::INTERVAL);
        loop {
            tokio::select! {
                cause = process.ended() => {
                    return self.process_died(process, cause, up_since.elapsed()).await;
                }
                () = answered(trial.as_deref()) => self.close_circuit(&process, &mut trial),
                command = self.commands.recv() => match command {
                    Some(Command::Scale { bounds, done }) if bounds.max == 0 => {
                        self.target = bounds;
                        self.stop_process(process, Duration::ZERO).await;
                        let _ = done.send(Ok(()));
                        return State::Empty;
                    }
                    Some(Command::Scale { bounds, done }) => {
                        self.forget_failures();
                        self.close_circuit(&process, &mut trial);
                        self.scale(&process, bounds, done);
                    }
                    Some(Command::Drain { timeout, done }) => {
                        self.stop_process(process, timeout).await;
                        return ended(done);
                    }
                    None => return State::Ended,
                },
                _ = sweep.tick() => {
                    process.connection.expire(GRACE);
                    process.connection.tidy();
                    if let Some(excess) = process.excess(&self.launcher.model.limits) {
                        return self.process_died(process, Cause::Excess(excess), up_since.elapsed()).await;
                    }
                    if up_since.elapsed() >= RECOVERED {
                        self.close_circuit(&process, &mut trial);
                    }
                    if let Some(unresponsive) = liveness.check(observed(&process)) {
                        let cause = Cause::Unresponsive(unresponsive);
                        return self.process_died(process, cause, up_since.elapsed()).await;
                    }
                }
            }
        }
    }

    /// Lets calls through: one at a time, in the trial that is returned, if the circuit is open.
    fn process_is_up(&mut self, process: &WorkerProcess) -> Option<Arc<Trial>> {
        self.last_failure.lock().signature = Some(process.signature.clone());
        let is_open = self.circuit.is_open();
        let trial = is_open.then(|| Arc::new(Trial::new(process.connection.clone())));
        match &trial {
            Some(trial) => drop(
                self.availability
                    .send_replace(Availability::HalfOpen(trial.clone())),
            ),
            None => self.let_all_through(process),
        }
        // The target may have changed while the process was starting.
        for done in std::mem::take(&mut self.waiting) {
            self.scale(process, self.target, done);
        }
        trial
    }

    fn let_all_through(&self, process: &WorkerProcess) {
        self.last_failure.lock().last_error = None;
        self.availability
            .send_replace(Availability::Up(process.connection.clone()));
    }

    /// Ends a trial, if there is one: a request was answered, or the process has served for a while without any. Where probes
    /// keep requests away from a degraded version, none would come.
    fn close_circuit(&mut self, process: &WorkerProcess, trial: &mut Option<Arc<Trial>>) {
        if trial.take().is_some() {
            self.circuit.close();
            self.let_all_through(process);
            self.say(Level::Info, "The circuit is closed again.".to_owned(), None);
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
        connection.lose(&Arc::from("the worker was stopped"), false);
        self.launcher.roster.clear();
    }

    /// `process` is over after it `served` for a while: those who wait learn why, after the availability has been taken down,
    /// so that they wait for the next, or are refused.
    async fn process_died(
        &mut self,
        process: WorkerProcess,
        cause: Cause,
        served: Duration,
    ) -> State {
        let pause = self.backoff.died(Instant::now(), served);
        let open = self.circuit.died(served);
        let down = self.down_for(open.unwrap_or(pause));
        if matches!(cause, Cause::Flooded(_)) {
            self.launcher.cfg.counts.flooded();
        }
        let connection = process.connection.clone();
        let death = process.reap(cause).await;
        self.launcher.cfg.counts.died();
        self.launcher.roster.process_died();
        self.keep_death(&death, open);
        connection.lose(&Arc::from(death.reason), death.may_be_poison);
        down
    }

    /// Logs a death and keeps it for descriptions. The circuit is `open` for so long, if it is.
    fn keep_death(&self, death: &Death, open: Option<Duration>) {
        let reason = &death.reason;
        self.say(Level::Warn, format!("Worker died: {reason}"), None);
        if let Some(pause) = open {
            let seconds = pause.as_secs();
            let text =
                format!("Worker processes keep dying: requests are refused for {seconds} seconds.");
            self.say(Level::Error, text, None);
        }
        let mut last_failure = self.last_failure.lock();
        last_failure.last_output.clone_from(&death.last_output);
        last_failure.last_error = Some(match open {
            Some(pause) => keeps_dying(reason, pause),
            None => worker_died(reason),
        });
    }

    /// Logs what concerns the version.
    fn say(&self, level: Level, text: String, error: Option<&Error>) {
        self.launcher.sink.say(level, text, error);
    }

    fn answer_waiting(&mut self, result: &Result<(), Error>) {
        for done in std::mem::take(&mut self.waiting) {
            let _ = done.send(result.clone());
        }
    }
}

/// Resolves when a request was answered in the trial, and never without one.
async fn answered(trial: Option<&Trial>) {
    match trial {
        Some(trial) => trial.answered().await,
        None => std::future::pending().await,
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
