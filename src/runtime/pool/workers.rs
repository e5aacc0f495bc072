//! The workers of one pool: what each of them is doing, and which may run next.
//!
//! A plain data structure that gets the time from its caller. It knows neither queues nor locks, and starts no thread.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use super::session::{Condition, WorkerSession};
use crate::backend::Interrupt;
use crate::model::Device;
use crate::runtime::batcher::Job;
use crate::runtime::{WorkerState, WorkerStatus};

/// How long a run has to end after it was asked to.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// The longest pause between two checks for overdue runs.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two checks while a run is overdue.
const OVERDUE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The workers, in the order in which they were started.
#[derive(Default)]
pub(super) struct Workers {
    list: Vec<Worker>,
    /// The workers of a device share a model that runs change, so that only one of them runs at a time.
    pub(super) take_turns: bool,
    /// The most sessions in use at a time since [`Self::take_busiest`] was last called.
    busiest: usize,
}

/// One worker.
pub(super) struct Worker {
    pub(super) id: u32,
    device: Device,
    started: SystemTime,
    pub(super) phase: Phase,
    /// `None` if the thread could not be started.
    thread: Option<Thread>,
    /// The thread was woken to look for a job and has not looked yet.
    is_woken: bool,
    /// The thread sleeps until the oldest job is due.
    is_waiting_until_due: bool,
    /// The worker ends when its session is not in use.
    pub(super) is_stopping: bool,
    /// Ends the session's runs from another thread, where the backend can.
    interrupt: Option<Arc<dyn Interrupt>>,
}

pub(super) enum Phase {
    /// The thread loads the model.
    Loading,
    /// The session is free.
    Idle(WorkerSession),
    /// The session is in use, on whichever thread.
    Busy(Run),
    /// The session panicked and has to be made again.
    Broken(WorkerSession),
    /// The thread makes the session again.
    Rebuilding,
    /// The model did not load, or the worker cannot continue.
    Failed,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    since: Instant,
    /// When the last request in the batch stops waiting.
    expires: Instant,
    /// When the run was first asked to end.
    interrupted: Option<Instant>,
    /// The run does not end, and its worker cannot be replaced.
    pub(super) is_unending: bool,
}

impl Workers {
    /// Adds a worker that loads the model on `thread`, or one that failed if there is no thread.
    pub(super) fn add(&mut self, id: u32, device: Device, thread: Option<Thread>) {
        let phase = match thread {
            Some(_) => Phase::Loading,
            None => Phase::Failed,
        };
        self.list.push(Worker {
            id,
            device,
            started: SystemTime::now(),
            phase,
            thread,
            is_woken: false,
            is_waiting_until_due: false,
            is_stopping: false,
            interrupt: None,
        });
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Worker> {
        let index = self.list.iter().position(|worker| worker.id == id)?;
        Some(self.list.remove(index))
    }

    pub(super) fn remove_failed(&mut self) {
        self.list.retain(|worker| !worker.has_failed());
    }

    pub(super) fn worker(&mut self, id: u32) -> Option<&mut Worker> {
        self.list.iter_mut().find(|worker| worker.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.list.iter()
    }

    /// Workers that jobs may wait for.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Worker> {
        self.iter().filter(|worker| worker.is_staying())
    }

    /// How many workers take jobs.
    pub(super) fn ready(&self) -> usize {
        let is_ready = |worker: &&Worker| worker.state() == WorkerState::Ready;
        self.iter().filter(is_ready).count()
    }

    /// How many sessions are in use.
    pub(super) fn busy(&self) -> usize {
        self.iter().filter(|worker| worker.is_busy()).count()
    }

    /// The most sessions that were in use at a time since this was last called.
    pub(super) fn take_busiest(&mut self) -> usize {
        let busy = self.busy();
        std::mem::replace(&mut self.busiest, busy)
    }

    /// The device that the fewest workers use; of several, the first.
    pub(super) fn least_used(&self, devices: &[Device]) -> Device {
        let users = |device: &&Device| self.iter().filter(|one| one.device == **device).count();
        let device = devices.iter().min_by_key(users);
        device.copied().unwrap_or(Device::Cpu)
    }

    /// Stops the `surplus` newest workers that stay.
    pub(super) fn stop_newest(&mut self, surplus: usize) {
        let newest_first = self.list.iter_mut().rev();
        let staying = newest_first.filter(|worker| worker.is_staying());
        staying.take(surplus).for_each(Worker::stop);
    }

    pub(super) fn stop_all(&mut self) {
        self.list.iter_mut().for_each(Worker::stop);
    }

    /// Whether a session could be used now.
    pub(super) fn is_any_runnable(&self) -> bool {
        self.iter().any(|worker| self.may_run(worker))
    }

    /// Starts a run of worker `of`, or of any worker, with the batch that `fill` puts into its session. `None` if no session
    /// is free or `fill` puts nothing into it.
    pub(super) fn start_run(
        &mut self,
        of: Option<u32>,
        now: Instant,
        fill: impl FnOnce(&mut Vec<Job>),
    ) -> Option<(u32, WorkerSession)> {
        let worker = self.runnable(|worker| of.is_none_or(|id| worker.id == id))?;
        let started = (worker.id, worker.start_run(now, fill)?);
        self.busiest = self.busiest.max(self.busy());
        Some(started)
    }

    /// Marks an idle worker as woken. Returns its thread, which the caller has to wake.
    pub(super) fn wake_one(&mut self) -> Option<Thread> {
        let worker = self.runnable(|worker| !worker.is_woken)?;
        worker.is_woken = true;
        worker.thread.clone()
    }

    /// How many threads were woken and have not looked for jobs yet.
    pub(super) fn woken(&self) -> usize {
        self.iter().filter(|worker| worker.is_woken).count()
    }

    pub(super) fn is_any_waiting_until_due(&self) -> bool {
        self.iter().any(|worker| worker.is_waiting_until_due)
    }

    /// Marks an idle worker as sleeping until the oldest job is due. Returns whether it is idle.
    pub(super) fn wait_until_due(&mut self, id: u32) -> bool {
        let worker = self.runnable(|worker| worker.id == id);
        worker.is_some_and(|worker| !std::mem::replace(&mut worker.is_waiting_until_due, true))
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, Run)> {
        self.iter()
            .filter_map(|worker| Some((worker.id, worker.run()?)))
    }

    /// Asks every run to end that no request waits for any more. Call this under the pool's lock: the run that is asked must
    /// be the one that was looked at.
    pub(super) fn interrupt_overdue(&mut self, now: Instant) {
        for worker in &mut self.list {
            worker.interrupt_overdue(now);
        }
    }

    /// Workers whose run has taken longer than `longest`, was asked to end and did not.
    pub(super) fn unending(&self, longest: Duration, now: Instant) -> Vec<u32> {
        let longest = longest.saturating_add(GRACE);
        let ignores = |asked: Instant| now.saturating_duration_since(asked) >= GRACE;
        let is_unending =
            |run: &Run| run.age(now) >= longest && run.interrupted.is_some_and(ignores);
        let unending = self.runs().filter(|(_, run)| is_unending(run));
        unending.map(|(id, _)| id).collect()
    }

    /// How long until the next run may be overdue.
    pub(super) fn until_overdue(&self, now: Instant) -> Duration {
        let pauses = self.runs().map(|(_, run)| match run.interrupted {
            Some(_) => OVERDUE_CHECK_INTERVAL,
            None => run.expires.saturating_duration_since(now),
        });
        let pause = pauses.min().unwrap_or(CHECK_INTERVAL);
        pause.clamp(OVERDUE_CHECK_INTERVAL, CHECK_INTERVAL)
    }

    /// The first worker that `is_meant` and may run.
    fn runnable(&mut self, is_meant: impl Fn(&Worker) -> bool) -> Option<&mut Worker> {
        let mut workers = self.list.iter();
        let index = workers.position(|worker| is_meant(worker) && self.may_run(worker))?;
        self.list.get_mut(index)
    }

    /// Whether the worker's session is free, and no other worker of its device runs where workers take turns.
    fn may_run(&self, worker: &Worker) -> bool {
        let is_in_its_way = |other: &Worker| other.is_busy() && other.device == worker.device;
        let is_idle = matches!(worker.phase, Phase::Idle(_)) && !worker.is_stopping;
        is_idle && !(self.take_turns && self.iter().any(is_in_its_way))
    }
}

impl Worker {
    /// Makes a new session available.
    pub(super) fn set_session(&mut self, session: WorkerSession) {
        self.interrupt = session.interrupter();
        self.phase = Phase::Idle(session);
    }

    /// Takes the session back after a run, and wakes the worker's thread if it has something to do.
    pub(super) fn end_run(&mut self, session: WorkerSession, condition: &Condition) {
        self.phase = match condition {
            Condition::Usable => Phase::Idle(session),
            Condition::Broken => Phase::Broken(session),
            Condition::Fatal(_) => Phase::Failed,
        };
        if self.is_stopping || *condition != Condition::Usable {
            self.unpark();
        }
    }

    /// Notes that the thread looks for something to do.
    pub(super) const fn note_awake(&mut self) {
        self.is_woken = false;
        self.is_waiting_until_due = false;
    }

    /// Takes the session if it panicked and has to be made again.
    pub(super) fn take_broken_session(&mut self) -> Option<WorkerSession> {
        match std::mem::replace(&mut self.phase, Phase::Rebuilding) {
            Phase::Broken(session) => Some(session),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Wakes the thread.
    pub(super) fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    pub(super) const fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy(_))
    }

    pub(super) const fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed)
    }

    pub(super) const fn run(&self) -> Option<Run> {
        match self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
    }

    pub(super) const fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
    }

    /// The state that clients see.
    pub(super) const fn state(&self) -> WorkerState {
        match &self.phase {
            Phase::Loading => WorkerState::Loading,
            Phase::Idle(_) => WorkerState::Ready,
            Phase::Busy(run) if !run.is_unending => WorkerState::Ready,
            Phase::Busy(_) | Phase::Broken(_) | Phase::Rebuilding | Phase::Failed => {
                WorkerState::Failed
            }
        }
    }

    pub(super) fn status(&self, pid: u32) -> WorkerStatus {
        WorkerStatus {
            id: self.id,
            device: self.device,
            state: self.state(),
            started: self.started,
            pid,
        }
    }

    fn start_run(
        &mut self,
        now: Instant,
        fill: impl FnOnce(&mut Vec<Job>),
    ) -> Option<WorkerSession> {
        let Phase::Idle(session) = &mut self.phase else {
            return None;
        };
        fill(&mut session.batch);
        let run = Run {
            since: now,
            expires: session.batch.iter().map(|job| job.expires).max()?,
            interrupted: None,
            is_unending: false,
        };
        match std::mem::replace(&mut self.phase, Phase::Busy(run)) {
            Phase::Idle(session) => Some(session),
            _ => None,
        }
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        self.unpark();
    }

    const fn is_staying(&self) -> bool {
        !self.is_stopping && !self.has_failed()
    }

    fn interrupt_overdue(&mut self, now: Instant) {
        let Some(run) = self.run_mut().filter(|run| run.expires <= now) else {
            return;
        };
        run.interrupted.get_or_insert(now);
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }
}

impl Run {
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}
