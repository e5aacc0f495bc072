//! Workers: one OS thread each, which owns a session, lends it to whoever runs a batch, and runs what others do not.
//!
//! A worker's thread loads the model (or takes the copy that its device has already), makes a session, and then
//! serves orders from the pool until it is told to stop. It sleeps while it has no order and holds no lock then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use super::session::WorkerSession;
use super::{Pool, State};
use crate::backend::{BackendError, Interrupt};
use crate::error::{Error, Kind};
use crate::model::Device;
use crate::runtime::{WorkerState, WorkerStatus};

/// Stack of a worker's thread: what native code is used to from a main thread.
const STACK: usize = 8 << 20;
/// First pause before a session is made again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A worker as the pool knows it.
pub(in crate::runtime) struct Worker {
    pub(in crate::runtime) id: u32,
    pub(in crate::runtime) device: Device,
    started: SystemTime,
    pub(in crate::runtime) phase: Phase,
    /// Its thread, once that runs.
    pub(in crate::runtime) thread: Option<Thread>,
    /// Was told to look for a job and has not come yet.
    pub(in crate::runtime) is_woken: bool,
    /// Sleeps until the oldest job is due.
    pub(in crate::runtime) is_watching: bool,
    /// Ends once its session is back.
    pub(in crate::runtime) is_stopping: bool,
    /// Ends its session's runs, if that can be done.
    interrupt: Option<Arc<dyn Interrupt>>,
}

/// A run under way.
#[derive(Debug, Clone, Copy)]
pub(in crate::runtime) struct Run {
    since: Instant,
    /// When nobody waits for it any more.
    pub(in crate::runtime) expires: Instant,
    /// When it was first asked to end.
    pub(in crate::runtime) asked: Option<Instant>,
    /// It does not end, and nothing can be done about it.
    pub(in crate::runtime) is_lost: bool,
}

impl Run {
    /// How long it has taken so far.
    pub(in crate::runtime) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// What a worker is at.
pub(in crate::runtime) enum Phase {
    /// Loading the model.
    Loading,
    /// Its session is free.
    Idle(WorkerSession),
    /// Its session is in use.
    Busy(Run),
    /// Its session panicked and waits to be made anew.
    Broken(WorkerSession),
    /// Its session is being made anew.
    Rebuilding,
    /// Did not load, or cannot go on.
    Failed,
}

/// What the pool has for a worker's thread to do.
enum Order {
    /// Run the session's batch, taken at that time.
    Run(WorkerSession, Instant),
    /// Make the session's session anew.
    Rebuild(WorkerSession),
}

impl Worker {
    fn new(id: u32, device: Device) -> Self {
        Self {
            id,
            device,
            started: SystemTime::now(),
            phase: Phase::Loading,
            thread: None,
            is_woken: false,
            is_watching: false,
            is_stopping: false,
            interrupt: None,
        }
    }

    /// Makes its session available.
    fn enlist(&mut self, session: WorkerSession) {
        self.interrupt = session.interrupter();
        self.phase = Phase::Idle(session);
    }

    /// Whether its session may be taken.
    pub(in crate::runtime) const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_)) && !self.is_stopping
    }

    /// Whether its session is in use.
    pub(in crate::runtime) const fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy(_))
    }

    /// The run its session is in.
    pub(in crate::runtime) const fn run(&self) -> Option<Run> {
        match self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(in crate::runtime) const fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
    }

    /// Asks its run to end if nobody waits for that any more.
    pub(in crate::runtime) fn interrupt_overdue(&mut self, now: Instant) {
        let Some(run) = self.run_mut().filter(|run| run.expires <= now) else {
            return;
        };
        run.asked.get_or_insert(now);
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }

    /// Takes the session of an idle worker, which is busy from then on.
    pub(in crate::runtime) fn take_session(&mut self, now: Instant) -> Option<WorkerSession> {
        let run = Run {
            since: now,
            expires: now,
            asked: None,
            is_lost: false,
        };
        match std::mem::replace(&mut self.phase, Phase::Busy(run)) {
            Phase::Idle(session) => Some(session),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Takes the session of a worker whose session panicked, to make it anew.
    fn take_broken_session(&mut self) -> Option<WorkerSession> {
        match std::mem::replace(&mut self.phase, Phase::Rebuilding) {
            Phase::Broken(session) => Some(session),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// The state that clients see.
    pub(in crate::runtime) const fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Loading => WorkerState::Loading,
            Phase::Idle(_) | Phase::Busy(Run { is_lost: false, .. }) => WorkerState::Ready,
            Phase::Busy(_) | Phase::Broken(_) | Phase::Rebuilding | Phase::Failed => {
                WorkerState::Failed
            }
        }
    }

    /// Whether jobs may wait for it.
    pub(in crate::runtime) const fn will_take_jobs(&self) -> bool {
        !self.is_stopping && !matches!(self.phase, Phase::Failed)
    }

    /// Whether its thread has nothing more to do.
    pub(in crate::runtime) const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Failed)
    }

    /// The worker as `describe` shows it.
    pub(in crate::runtime) fn status(&self, pid: u32, memory: u64) -> WorkerStatus {
        WorkerStatus {
            id: self.id,
            device: self.device,
            state: self.state(),
            started: self.started,
            pid,
            memory,
        }
    }
}

impl Pool {
    /// Starts one more worker; returns its id.
    pub(in crate::runtime) fn start_worker(self: &Arc<Self>, state: &mut State) -> u32 {
        let (id, device) = self.assign(state);
        let mut worker = Worker::new(id, device);
        let pool = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .stack_size(STACK)
            .spawn(move || pool.work(id, device));
        match thread {
            Ok(handle) => {
                worker.thread = Some(handle.thread().clone());
                state.threads.retain(|thread| !thread.is_finished());
                state.threads.push(handle);
            }
            Err(error) => {
                worker.phase = Phase::Failed;
                state.last_error = Some(load_failed("no thread could be started", &error));
            }
        }
        state.workers.push(worker);
        id
    }

    /// A worker's life.
    fn work(self: Arc<Self>, id: u32, device: Device) {
        match self.load(device) {
            Ok(session) => self.enlist(id, session),
            Err(error) => return self.give_up(id, &error),
        }
        while let Some(order) = self.next_order(id) {
            match order {
                Order::Run(session, taken) => self.run(id, session, taken, true),
                Order::Rebuild(session) => self.rebuild(id, session),
            }
        }
    }

    fn load(&self, device: Device) -> Result<WorkerSession, BackendError> {
        let load = || {
            let mut session = self.loader.session(device)?;
            let batch_size = self.model.settings.batch_size;
            if let Some(run) = super::warmup::warm_up(&mut session, batch_size) {
                self.pace().set(run);
            }
            self.learn(&mut session)?;
            Ok(session)
        };
        catch_unwind(AssertUnwindSafe(load))
            .unwrap_or_else(|_| Err(BackendError::Load("the backend panicked".into())))
    }

    /// Makes a loaded worker's session available.
    fn enlist(self: &Arc<Self>, id: u32, session: WorkerSession) {
        let mut state = self.state.lock();
        if let Some(worker) = state.worker(id) {
            worker.enlist(session);
        }
        self.call_runner(&mut state, Instant::now());
        drop(state);
        self.announce();
    }

    /// Notes that a worker cannot go on; jobs that have no other worker to wait for are answered.
    fn give_up(&self, id: u32, error: &BackendError) {
        let model = &self.model;
        let why = match error {
            BackendError::Refused(reason) => format!("cannot be served: {reason}"),
            _ => format!("does not load with the {} backend", model.backend.name()),
        };
        let text = format!("model \"{}\" version {} {why}", model.name, model.version);
        tracing::error!(worker = id, %error, "{text}");
        let error = load_failed(&text, error);
        let stranded = {
            let mut state = self.state.lock();
            if let Some(worker) = state.worker(id) {
                worker.phase = Phase::Failed;
            }
            state.last_error = Some(error.clone());
            state.take_stranded()
        };
        for job in stranded {
            job.answer(Err(error.clone()));
        }
        self.announce();
    }

    /// Sleeps until there is something to do for the worker; `None` tells its thread to end.
    fn next_order(self: &Arc<Self>, id: u32) -> Option<Order> {
        loop {
            let mut state = self.state.lock();
            let now = Instant::now();
            let is_stopping = match state.worker(id) {
                Some(worker) => {
                    worker.is_woken = false;
                    worker.is_watching = false;
                    worker.is_stopping && !worker.is_busy()
                }
                None => return None,
            };
            if is_stopping {
                self.dismiss(state, id);
                return None;
            }
            if let Some(session) = state.worker(id).and_then(Worker::take_broken_session) {
                return Some(Order::Rebuild(session));
            }
            if let Some((_, session)) = state.check_out(Some(id), now) {
                self.call_runner(&mut state, now);
                return Some(Order::Run(session, now));
            }
            let due = state.watch(id);
            drop(state);
            match due {
                Some(due) => std::thread::park_timeout(due.saturating_duration_since(now)),
                None => std::thread::park(),
            }
        }
    }

    /// Takes a worker off the list and drops its session. Another one looks after the jobs that wait.
    fn dismiss(self: &Arc<Self>, mut state: parking_lot::MutexGuard<'_, State>, id: u32) {
        let place = state.workers.iter().position(|worker| worker.id == id);
        let worker = place.map(|place| state.workers.remove(place));
        if !state.batcher.is_empty()
            && let Some(thread) = state.wake_one()
        {
            thread.unpark();
        }
        let stranded = state.take_stranded();
        drop(state);
        drop(worker);
        for job in stranded {
            job.answer(Err(super::no_worker(&self.model)));
        }
        self.announce();
    }

    /// Makes a session anew, with pauses, for as long as the version's retry window; gives up then.
    fn rebuild(self: &Arc<Self>, id: u32, mut session: WorkerSession) {
        let first = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let made = catch_unwind(AssertUnwindSafe(|| session.rebuild()));
            let error = match made {
                Ok(Ok(())) => return self.enlist(id, session),
                Ok(Err(error)) => error,
                Err(_) => BackendError::Load("the backend panicked".into()),
            };
            if self.is_stopping(id) || first.elapsed() > self.model.settings.max_retry_timeout {
                return self.give_up(id, &error);
            }
            tracing::warn!(worker = id, %error, "the session cannot be made yet");
            self.set_failed(id);
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn set_failed(&self, id: u32) {
        if let Some(worker) = self.state.lock().worker(id) {
            worker.phase = Phase::Failed;
        }
        self.announce();
    }

    fn is_stopping(&self, id: u32) -> bool {
        let mut state = self.state.lock();
        state.worker(id).is_none_or(|worker| worker.is_stopping)
    }
}

pub(in crate::runtime) fn load_failed(text: &str, detail: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::LoadFailed, text).with_detail(detail)
}
