//! Runs that go on when nobody waits for them any more: asked to end, then left behind.
//!
//! A request is answered at its deadline, whatever its run does. The run may keep its worker for longer: it is asked to
//! end when the last of its requests has expired, which ONNX Runtime does between two operators and TorchScript does not.
//! Clients choose their deadlines, so a run that outlives a short one is no fault of its worker. If the run has taken
//! [`GRACE`] longer than the version's response timeout, its worker is replaced by a new one on a thread of its own, so
//! that the others are served; what the old run gives in the end is dropped. The new worker has a new id: the old one's
//! thread is still there, and nothing it does may be taken for the new one's.
//!
//! Such a thread cannot be ended by anything but the end of its process, and it takes processor time and memory until
//! then. So there are at most [`MOST_ABANDONED`] at a time. Beyond that a worker process ends, and the front has its
//! other requests answered by the next one; in the server's process the worker is not replaced before another's run ends.
//!
//! Where workers take turns, because they share a model that runs change, another worker could not run either while such a
//! run goes on. So it is not replaced, and the worker process ends at the first such run; what the model kept is lost with it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::worker::{Run, Worker};
use super::{Pool, State, no_worker, worker_died};
use crate::runtime::batcher::Job;

/// How much longer than the response timeout a run may take, and how long it has to end when it is asked to.
pub(in crate::runtime) const GRACE: Duration = Duration::from_secs(1);
/// Runs that are left behind and have not ended, at most.
pub(in crate::runtime) const MOST_ABANDONED: usize = 2;
/// Between two looks where no run is overdue, at most.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks where one is.
const OVERDUE_TICK: Duration = Duration::from_millis(100);

impl Pool {
    /// Sees to runs that outlive their requests, for as long as the pool is there.
    pub(crate) fn oversee(self: &Arc<Self>) {
        tokio::spawn(oversee(Arc::downgrade(self)));
    }

    /// Asks overdue runs to end and leaves behind those that do not. Returns how long there is nothing to do.
    pub(in crate::runtime) fn see_to_overdue(self: &Arc<Self>, now: Instant) -> Duration {
        let mut stranded = Vec::new();
        let longest = self.model.settings.response_timeout;
        let mut state = self.state.lock();
        state.interrupt_overdue(now);
        let mut has_changed = false;
        for id in state.hopeless(now, longest) {
            if state.abandoned < MOST_ABANDONED && !state.takes_turns {
                stranded.extend(self.abandon(&mut state, id, now));
                has_changed = true;
            } else {
                has_changed |= state.lose_run(id, now);
            }
        }
        let pause = state.until_overdue(now);
        drop(state);
        for job in stranded {
            job.answer(Err(no_worker(&self.model)));
        }
        if has_changed {
            self.announce();
        }
        pause
    }

    /// Leaves a worker's run behind and starts another worker in its place. Returns the jobs that no worker is left for.
    fn abandon(self: &Arc<Self>, state: &mut State, id: u32, now: Instant) -> Vec<Job> {
        let Some(place) = state.workers.iter().position(|worker| worker.id == id) else {
            return Vec::new();
        };
        state.note_end(id);
        let worker = state.workers.remove(place);
        let took = worker.run().map(|run| run.age(now)).unwrap_or_default();
        tracing::error!(model = %self.model.name, worker = id, seconds = took.as_secs(),
            "a run does not end, and nobody waits for it: its worker is replaced");
        state.abandoned += 1;
        state.last_error = Some(worker_died(&endless(took)));
        // Whichever thread the run is on: no further one shall hold a thread of tokio.
        self.pace().forbid();
        if let Some(thread) = worker.thread {
            state.threads.retain(|one| one.thread().id() != thread.id());
            thread.unpark();
        }
        if !worker.is_stopping && state.closed.is_none() {
            self.start_worker(state);
        }
        state.take_stranded()
    }
}

async fn oversee(pool: Weak<Pool>) {
    let mut pause = TICK;
    loop {
        tokio::time::sleep(pause).await;
        match pool.upgrade() {
            Some(pool) => pause = pool.see_to_overdue(Instant::now()),
            None => return,
        }
    }
}

impl State {
    /// Asks runs to end that nobody waits for. The lock is held: a run that is asked cannot have been followed by another.
    fn interrupt_overdue(&mut self, now: Instant) {
        for worker in &mut self.workers {
            worker.interrupt_overdue(now);
        }
    }

    /// Workers whose run was asked to end and did not, although it has taken longer than the `longest` that it may.
    fn hopeless(&self, now: Instant, longest: Duration) -> Vec<u32> {
        let longest = longest.saturating_add(GRACE);
        let was_asked = |run: Run| run.asked.is_some_and(|asked| now - asked >= GRACE);
        let is_hopeless = |run: Run| run.age(now) >= longest && was_asked(run);
        let workers = self.workers.iter();
        let hopeless = workers.filter(|worker| worker.run().is_some_and(is_hopeless));
        hopeless.map(|worker| worker.id).collect()
    }

    /// Notes that a worker is in a run that does not end and cannot be replaced; whether that is news.
    fn lose_run(&mut self, id: u32, now: Instant) -> bool {
        let run = self.worker(id).and_then(Worker::run_mut);
        let Some(run) = run.filter(|run| !run.is_lost) else {
            return false;
        };
        run.is_lost = true;
        let text = endless(run.age(now));
        tracing::error!(worker = id, "{text}, and its worker cannot be replaced");
        self.runaway = Some(worker_died(&text));
        true
    }

    /// Takes note that a worker's run has ended, or that it is left behind; whether it counted as one that does not end.
    pub(in crate::runtime) fn note_end(&mut self, id: u32) -> bool {
        let run = self.worker(id).and_then(Worker::run_mut);
        let was_lost = run.is_some_and(|run| std::mem::take(&mut run.is_lost));
        let mut runs = self.workers.iter().filter_map(Worker::run);
        if was_lost && !runs.any(|run| run.is_lost) {
            self.runaway = None;
        }
        was_lost
    }

    fn until_overdue(&self, now: Instant) -> Duration {
        let runs = self.workers.iter().filter_map(Worker::run);
        let pauses = runs.map(|run| match run.asked {
            Some(_) => OVERDUE_TICK,
            None => run.expires.saturating_duration_since(now),
        });
        pauses.min().unwrap_or(TICK).clamp(OVERDUE_TICK, TICK)
    }
}

fn endless(took: Duration) -> String {
    format!(
        "a run has taken {} s, which is more than its requests were given",
        took.as_secs()
    )
}
