//! The workers of a version across its processes: which id each has in the server, and how it is.
//!
//! A worker process counts its workers from 0. The server's ids are given out here, in the front, so that a process
//! cannot take another's; a worker that comes back after its process died keeps its id.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use crate::runtime::protocol::Violation;
use crate::runtime::protocol::convert::device_from_wire;
use crate::runtime::protocol::messages::{State, Worker};
use crate::runtime::{WorkerIds, WorkerState, WorkerStatus};
use crate::sandbox::Outcomes;
use crate::sandbox::session::Session;

/// More workers than any machine has use for.
const MOST_WORKERS: usize = 4096;

/// More ids than the workers of one process need, those that take the place of others included.
const MOST_IDS: usize = 65_536;

/// The workers of one version.
#[derive(Debug)]
pub struct Roster {
    ids: Arc<WorkerIds>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By id.
    workers: Vec<WorkerStatus>,
    /// Ids by the number that the living process knows a worker by.
    by_number: HashMap<u32, u32>,
    /// Ids whose workers went down with their process, in order; the next process's workers get them.
    orphaned: VecDeque<u32>,
    /// Ids that were given to the living process.
    given: usize,
    /// Since when none takes jobs.
    without_worker_since: Option<Instant>,
    pid: u32,
    /// What the living process says of its walls, once.
    walls: Outcomes,
    /// The living process's session, if it has one of its own.
    session: Option<Arc<Session>>,
}

impl Roster {
    /// Nobody yet; ids come from `ids`.
    pub fn new(ids: Arc<WorkerIds>) -> Self {
        Self {
            ids,
            entries: Mutex::default(),
        }
    }

    /// A process was started, which is to lead a session or not.
    pub fn process_started(&self, pid: u32, session: Option<Session>) {
        let mut entries = self.entries.lock();
        entries.pid = pid;
        entries.session = session.map(Arc::new);
        entries.given = 0;
        entries.walls.clear();
    }

    /// Takes what a process says of its walls, before it opens anything foreign; later it may be somebody else who speaks.
    pub fn walled(&self, walls: Outcomes) {
        let mut entries = self.entries.lock();
        if entries.walls.is_empty() {
            entries.walls = walls;
        }
    }

    /// The walls around the living process.
    pub fn walls(&self) -> Outcomes {
        self.entries.lock().walls.clone()
    }

    /// Has the living process come after those of others where the kernel decides, or among them again. Blocks for some time.
    pub fn set_back(&self, is_back: bool) -> io::Result<()> {
        let session = self.entries.lock().session.clone();
        session.map_or(Ok(()), |session| session.set_back(is_back))
    }

    /// The process died; its workers wait for the next one.
    pub fn process_died(&self) {
        let mut entries = self.entries.lock();
        entries.session = None;
        for worker in &mut entries.workers {
            worker.state = WorkerState::Failed;
        }
        if !entries.by_number.is_empty() {
            entries.orphaned = entries.workers.iter().map(|worker| worker.id).collect();
            entries.by_number.clear();
        }
        entries.note_readiness(Instant::now());
    }

    /// There are no workers any more.
    pub fn clear(&self) {
        *self.entries.lock() = Entries::default();
    }

    /// The workers, by id.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.entries.lock().workers.clone()
    }

    /// How many workers take jobs.
    pub fn ready(&self) -> usize {
        self.entries.lock().ready()
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub fn without_worker_since(&self) -> Option<Instant> {
        self.entries.lock().without_worker_since
    }

    /// Takes what the living process says of its workers.
    pub fn update(&self, reported: &[Worker]) -> Result<(), Violation> {
        if reported.len() > MOST_WORKERS {
            return Err(Violation::Message(format!(
                "a process has {} workers",
                reported.len()
            )));
        }
        let mut entries = self.entries.lock();
        let mut by_number = HashMap::with_capacity(reported.len());
        let mut workers = Vec::with_capacity(reported.len());
        for worker in reported {
            let status = entries.status(worker, &self.ids)?;
            if by_number.insert(worker.id, status.id).is_some() {
                let text = format!("a process has two workers {}", worker.id);
                return Err(Violation::Message(text));
            }
            workers.push(status);
        }
        workers.sort_unstable_by_key(|worker| worker.id);
        entries.workers = workers;
        entries.by_number = by_number;
        entries.orphaned.clear();
        entries.note_readiness(Instant::now());
        Ok(())
    }
}

impl Entries {
    fn ready(&self) -> usize {
        let is_ready = |worker: &&WorkerStatus| worker.state == WorkerState::Ready;
        self.workers.iter().filter(is_ready).count()
    }

    /// Takes note of whether a worker takes jobs. Workers that come and go without one that does change nothing.
    fn note_readiness(&mut self, now: Instant) {
        self.without_worker_since = match self.ready() {
            0 => self.without_worker_since.or(Some(now)),
            _ => None,
        };
    }

    fn status(&mut self, worker: &Worker, ids: &WorkerIds) -> Result<WorkerStatus, Violation> {
        let known = self.by_number.get(&worker.id).copied();
        let id = match known {
            Some(id) => id,
            None => self.new_id(ids)?,
        };
        let since = known.and_then(|id| self.started(id));
        Ok(WorkerStatus {
            id,
            device: device_from_wire(worker.device),
            state: match worker.state {
                State::Loading => WorkerState::Loading,
                State::Ready => WorkerState::Ready,
                State::Failed => WorkerState::Failed,
            },
            started: since.unwrap_or_else(SystemTime::now),
            pid: self.pid,
        })
    }

    fn started(&self, id: u32) -> Option<SystemTime> {
        let found = self.workers.binary_search_by_key(&id, |worker| worker.id);
        found.ok().map(|index| self.workers[index].started)
    }

    fn new_id(&mut self, ids: &WorkerIds) -> Result<u32, Violation> {
        self.given += 1;
        if self.given > MOST_IDS {
            let text = format!("a process has had more than {MOST_IDS} workers");
            return Err(Violation::Message(text));
        }
        Ok(self.orphaned.pop_front().unwrap_or_else(|| ids.next()))
    }
}

#[cfg(test)]
mod tests {
    use crate::runtime::protocol::messages::Device;

    use super::*;

    fn roster() -> Roster {
        Roster::new(Arc::new(WorkerIds::from(9000)))
    }

    fn report(numbers: &[u32]) -> Vec<Worker> {
        let worker = |id: &u32| Worker {
            id: *id,
            device: Device::Cpu,
            state: State::Ready,
        };
        numbers.iter().map(worker).collect()
    }

    fn ids(roster: &Roster) -> Vec<u32> {
        roster.workers().iter().map(|worker| worker.id).collect()
    }

    #[test]
    fn workers_get_new_ids_and_keep_them() {
        let roster = roster();
        roster.update(&report(&[0, 1, 2])).unwrap();
        roster.update(&report(&[0, 2])).unwrap();
        assert_eq!(ids(&roster), [9000, 9002]);
        roster.update(&report(&[0, 2, 3])).unwrap();
        assert_eq!(ids(&roster), [9000, 9002, 9003]);
    }

    #[test]
    fn the_next_process_takes_over_the_ids() {
        let roster = roster();
        roster.update(&report(&[0, 1, 2])).unwrap();
        roster.update(&report(&[0, 2])).unwrap();
        roster.process_died();
        roster.process_died();
        assert!(
            roster
                .workers()
                .iter()
                .all(|worker| worker.state == WorkerState::Failed)
        );
        roster.process_started(77, None);
        roster.update(&report(&[0, 1, 2])).unwrap();
        assert_eq!(ids(&roster), [9000, 9002, 9003]);
        assert!(roster.workers().iter().all(|worker| worker.pid == 77));
    }

    #[test]
    fn the_time_without_a_worker_begins_with_the_first_loss_and_ends_with_a_worker() {
        let roster = roster();
        assert_eq!(roster.without_worker_since(), None);
        roster.update(&report(&[0])).unwrap();
        assert_eq!(roster.without_worker_since(), None);
        roster.process_died();
        let lost = roster.without_worker_since();
        assert!(lost.is_some());
        // The next process did not load either.
        let mut loading = report(&[0]);
        loading[0].state = State::Loading;
        roster.update(&loading).unwrap();
        roster.process_died();
        assert_eq!(roster.without_worker_since(), lost);
        roster.update(&report(&[0])).unwrap();
        assert_eq!(roster.without_worker_since(), None);
    }

    #[test]
    fn a_report_of_too_many_workers_is_refused() {
        let numbers: Vec<u32> = (0..5000).collect();
        assert!(roster().update(&report(&numbers)).is_err());
    }

    #[test]
    fn a_worker_is_reported_once() {
        let refused = roster().update(&report(&[0, 1, 0])).unwrap_err();
        assert_eq!(refused.to_string(), "a process has two workers 0");
    }

    /// Rows are taken in a time that grows with their number: where each was compared with each, this took minutes.
    #[test]
    fn long_lists_are_taken_as_quickly_as_short_ones() {
        let roster = roster();
        let numbers: Vec<u32> = (0..4096).collect();
        let reversed: Vec<u32> = numbers.iter().rev().copied().collect();
        for _ in 0..150 {
            roster.update(&report(&numbers)).unwrap();
            roster.update(&report(&reversed)).unwrap();
        }
        assert_eq!(roster.ready(), 4096);
        assert_eq!(ids(&roster), (9000..13096).collect::<Vec<_>>());
    }

    #[test]
    fn a_process_cannot_use_up_the_ids() {
        let roster = roster();
        let list = |first: u32| report(&(first..first + 4096).collect::<Vec<_>>());
        let lists = (0..100).map(|number| roster.update(&list(number * 4096)));
        let taken = lists.take_while(Result::is_ok).count();
        assert_eq!(taken, 16);
        roster.process_started(2, None);
        roster.update(&report(&[7])).unwrap();
    }
}
