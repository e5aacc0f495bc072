//! The workers of one pool: what each of them is doing, and which may run next.
//!
//! A plain data structure that is told the time. It knows neither queues nor locks, and starts no thread.

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
    take_turns: bool,
    /// The most sessions in use at a time since [`Self::take_busiest`] was last called.
    busiest: usize,
}

/// One worker.
pub(super) struct Worker {
    id: u32,
    device: Device,
    started: SystemTime,
    phase: Phase,
    /// `None` if the thread could not be started.
    thread: Option<Thread>,
    /// The thread was woken to look for a job and has not looked yet.
    is_woken: bool,
    /// The thread sleeps until the oldest job is due.
    is_waiting_until_due: bool,
    /// The worker ends when its session is not in use.
    is_stopping: bool,
    /// Ends the session's runs from another thread, where the backend can.
    interrupt: Option<Arc<dyn Interrupt>>,
}

enum Phase {
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
struct Run {
    since: Instant,
    /// When the last request in the batch stops waiting.
    expires: Instant,
    /// When the run was first asked to end.
    interrupted: Option<Instant>,
    /// The run does not end, and its worker cannot be replaced.
    is_unending: bool,
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
        Some(self.list.remove(self.position(id)?))
    }

    pub(super) fn remove_failed(&mut self) {
        self.list.retain(|worker| !worker.has_failed());
    }

    pub(super) fn worker(&mut self, id: u32) -> Option<&mut Worker> {
        self.list.iter_mut().find(|worker| worker.id == id)
    }

    pub(super) const fn set_take_turns(&mut self) {
        self.take_turns = true;
    }

    pub(super) const fn take_turns(&self) -> bool {
        self.take_turns
    }

    /// The device that the fewest workers use; of several, the first.
    pub(super) fn least_used(&self, devices: &[Device]) -> Device {
        let users = |device: &&Device| {
            self.list
                .iter()
                .filter(|one| one.device == **device)
                .count()
        };
        let device = devices.iter().min_by_key(users);
        device.copied().unwrap_or(Device::Cpu)
    }

    pub(super) fn statuses(&self, pid: u32, memory: u64) -> Vec<WorkerStatus> {
        let workers = self.list.iter();
        workers.map(|worker| worker.status(pid, memory)).collect()
    }

    /// How many workers take jobs.
    pub(super) fn ready(&self) -> usize {
        self.list.iter().filter(|worker| worker.is_ready()).count()
    }

    /// Workers that jobs may wait for.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Worker> {
        self.list.iter().filter(|worker| worker.is_staying())
    }

    pub(super) fn have_all_failed(&self) -> bool {
        self.list.iter().all(Worker::has_failed)
    }

    pub(super) fn has_any_failed(&self, ids: &[u32]) -> bool {
        let mut failed = self.list.iter().filter(|worker| worker.has_failed());
        failed.any(|worker| ids.contains(&worker.id))
    }

    /// Whether one of these workers loads the model and is to stay.
    pub(super) fn is_any_loading(&self, ids: &[u32]) -> bool {
        let mut loading = self.list.iter().filter(|worker| worker.is_loading());
        loading.any(|worker| ids.contains(&worker.id) && !worker.is_stopping)
    }

    /// Stops the `surplus` newest workers that stay. Returns the threads to wake.
    pub(super) fn stop_newest(&mut self, surplus: usize) -> Vec<Thread> {
        let newest_first = self.list.iter_mut().rev();
        let staying = newest_first.filter(|worker| worker.is_staying());
        staying.take(surplus).filter_map(Worker::stop).collect()
    }

    /// Stops every worker. Returns the threads to wake.
    pub(super) fn stop_all(&mut self) -> Vec<Thread> {
        self.list.iter_mut().filter_map(Worker::stop).collect()
    }

    /// Whether a session could be used now.
    pub(super) fn is_any_runnable(&self) -> bool {
        self.list.iter().any(|worker| self.may_run(worker))
    }

    /// Starts a run of worker `of`, or of any worker, with the batch that `fill` puts into its session. `None` if no session
    /// is free or `fill` puts nothing into it.
    pub(super) fn start_run(
        &mut self,
        of: Option<u32>,
        now: Instant,
        fill: impl FnOnce(&mut Vec<Job>),
    ) -> Option<(u32, WorkerSession)> {
        let is_asked_for = |worker: &Worker| of.is_none_or(|id| worker.id == id);
        let mut workers = self.list.iter();
        let index = workers.position(|worker| is_asked_for(worker) && self.may_run(worker))?;
        let worker = &mut self.list[index];
        let started = (worker.id, worker.start_run(now, fill)?);
        let busy = self.busy();
        self.busiest = self.busiest.max(busy);
        Some(started)
    }

    /// How many sessions are in use.
    pub(super) fn busy(&self) -> usize {
        self.list.iter().filter(|worker| worker.is_busy()).count()
    }

    /// The most sessions that were in use at a time since this was last called.
    pub(super) fn take_busiest(&mut self) -> usize {
        let busy = self.busy();
        std::mem::replace(&mut self.busiest, busy)
    }

    /// Marks an idle worker as woken. Returns its thread, which the caller has to wake.
    pub(super) fn wake_one(&mut self) -> Option<Thread> {
        let sleeps = |worker: &Worker| self.may_run(worker) && !worker.is_woken;
        let index = self.list.iter().position(sleeps)?;
        let worker = &mut self.list[index];
        worker.is_woken = true;
        worker.thread.clone()
    }

    /// How many threads were woken and have not looked for jobs yet.
    pub(super) fn woken(&self) -> usize {
        self.list.iter().filter(|worker| worker.is_woken).count()
    }

    pub(super) fn is_any_waiting_until_due(&self) -> bool {
        self.list.iter().any(|worker| worker.is_waiting_until_due)
    }

    /// Marks an idle worker as sleeping until the oldest job is due. Returns whether the worker may do so.
    pub(super) fn wait_until_due(&mut self, id: u32) -> bool {
        let index = self.position(id);
        let index = index.filter(|index| self.may_run(&self.list[*index]));
        if let Some(index) = index {
            self.list[index].is_waiting_until_due = true;
        }
        index.is_some()
    }

    /// Whether a run has been under way for at least `long`.
    pub(super) fn has_run_since(&self, long: Duration, now: Instant) -> bool {
        self.runs().any(|(_, run)| run.age(now) >= long)
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
        let unending = self
            .runs()
            .filter(|(_, run)| run.age(now) >= longest && run.ignores_interrupt(now));
        unending.map(|(id, _)| id).collect()
    }

    pub(super) fn has_unending_run(&self) -> bool {
        self.runs().any(|(_, run)| run.is_unending)
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

    fn runs(&self) -> impl Iterator<Item = (u32, Run)> {
        let workers = self.list.iter();
        workers.filter_map(|worker| Some((worker.id, worker.run()?)))
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.list.iter().position(|worker| worker.id == id)
    }

    /// Whether the worker's session is free, and no other worker of its device runs where workers take turns.
    fn may_run(&self, worker: &Worker) -> bool {
        let is_in_its_way = |other: &Worker| other.is_busy() && other.device == worker.device;
        worker.is_idle() && !(self.take_turns && self.list.iter().any(is_in_its_way))
    }
}

impl Worker {
    /// Makes a new session available.
    pub(super) fn set_session(&mut self, session: WorkerSession) {
        self.interrupt = session.interrupter();
        self.phase = Phase::Idle(session);
    }

    /// Takes the session back after a run. Returns the thread to wake if it has something to do.
    pub(super) fn end_run(
        &mut self,
        session: WorkerSession,
        condition: &Condition,
    ) -> Option<Thread> {
        self.phase = match condition {
            Condition::Usable => Phase::Idle(session),
            Condition::Broken => Phase::Broken(session),
            Condition::Fatal(_) => Phase::Failed,
        };
        let is_needed = self.is_stopping || *condition != Condition::Usable;
        is_needed.then(|| self.thread.clone()).flatten()
    }

    pub(super) fn fail(&mut self) {
        self.phase = Phase::Failed;
    }

    /// Notes that the thread looks for something to do.
    pub(super) const fn note_awake(&mut self) {
        self.is_woken = false;
        self.is_waiting_until_due = false;
    }

    /// Takes the session if it panicked and has to be made again.
    pub(super) fn take_broken_session(&mut self) -> Option<WorkerSession> {
        if !matches!(self.phase, Phase::Broken(_)) {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::Rebuilding) {
            Phase::Broken(session) => Some(session),
            _ => None,
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    pub(super) const fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy(_))
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.state(), WorkerState::Ready)
    }

    pub(super) const fn is_loading(&self) -> bool {
        matches!(self.state(), WorkerState::Loading)
    }

    /// Wakes the thread.
    pub(super) fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Marks the run as one that does not end. Returns how long it has taken, unless it was marked before.
    pub(super) fn mark_unending(&mut self, now: Instant) -> Option<Duration> {
        let run = self.run_mut().filter(|run| !run.is_unending)?;
        run.is_unending = true;
        Some(run.age(now))
    }

    /// Removes that mark. Returns whether it was there.
    pub(super) fn unmark_unending(&mut self) -> bool {
        let run = self.run_mut();
        run.is_some_and(|run| std::mem::take(&mut run.is_unending))
    }

    /// How long the run has taken so far; zero without a run.
    pub(super) fn run_age(&self, now: Instant) -> Duration {
        self.run().map(|run| run.age(now)).unwrap_or_default()
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

    fn stop(&mut self) -> Option<Thread> {
        self.is_stopping = true;
        self.thread.clone()
    }

    const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_)) && !self.is_stopping
    }

    const fn has_failed(&self) -> bool {
        matches!(self.phase, Phase::Failed)
    }

    const fn is_staying(&self) -> bool {
        !self.is_stopping && !self.has_failed()
    }

    const fn run(&self) -> Option<Run> {
        match self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
    }

    const fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.phase {
            Phase::Busy(run) => Some(run),
            _ => None,
        }
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

    /// The state that clients see.
    const fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Loading => WorkerState::Loading,
            Phase::Idle(_)
            | Phase::Busy(Run {
                is_unending: false, ..
            }) => WorkerState::Ready,
            Phase::Busy(_) | Phase::Broken(_) | Phase::Rebuilding | Phase::Failed => {
                WorkerState::Failed
            }
        }
    }

    fn status(&self, pid: u32, memory: u64) -> WorkerStatus {
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

impl Run {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn ignores_interrupt(&self, now: Instant) -> bool {
        let asked = self.interrupted;
        asked.is_some_and(|asked| now.saturating_duration_since(asked) >= GRACE)
    }
}
