//! The circuit of a version: it opens when worker processes keep dying, so that callers are refused at once instead of waiting
//! for a process that will not last, and closes when one has answered again.
//!
//! A version whose processes load and die is never given up: a try costs one start and, while the circuit is half-open, one
//! request; an operator would have to notice that the cause is gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::backoff::RECOVERED;
use super::connection::Connection;

/// Deaths in a row that open a circuit. A poison request costs two processes before it is refused; two of them, or one and
/// an accident, are no crash loop yet.
const DEATHS: usize = 5;

/// A circuit opens if the last [`DEATHS`] processes served no longer than this together. The time in which they load and
/// the pauses between them do not count, or a large model could never be in a crash loop.
const SERVED: Duration = Duration::from_mins(1);

/// How long a circuit stays open, in seconds, each time it opens in a row. The last repeats: five minutes are short enough for
/// nobody to have to scale the version after the cause is gone, and long enough for starts to cost next to nothing.
const PAUSES: [u64; 6] = [10, 20, 40, 80, 160, 300];

/// Counts deaths of one version's processes.
#[derive(Debug, Default)]
pub struct Circuit {
    /// How long the last processes served that died, the latest last.
    served: VecDeque<Duration>,
    is_open: bool,
    openings: usize,
}

impl Circuit {
    /// A process died that had served for `served`: how long nobody is let through, `None` while the circuit is closed.
    pub fn died(&mut self, served: Duration) -> Option<Duration> {
        if served >= RECOVERED {
            self.reset();
        }
        self.served.push_back(served);
        if self.served.len() > DEATHS {
            self.served.pop_front();
        }
        (self.is_open || self.is_crash_loop()).then(|| self.open())
    }

    /// A process did not load: how long nobody is let through, `None` while the circuit is closed.
    pub fn did_not_load(&mut self) -> Option<Duration> {
        self.is_open.then(|| self.open())
    }

    /// Whether nobody, or one request at a time, is let through.
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// A request was answered, or the process has served for a while. Should the circuit open again soon, it stays open for
    /// longer.
    pub fn close(&mut self) {
        self.is_open = false;
        self.served.clear();
    }

    /// Somebody asks to try afresh.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn is_crash_loop(&self) -> bool {
        self.served.len() == DEATHS && self.served.iter().sum::<Duration>() <= SERVED
    }

    fn open(&mut self) -> Duration {
        let pause = PAUSES[self.openings.min(PAUSES.len() - 1)];
        self.is_open = true;
        self.openings += 1;
        Duration::from_secs(pause)
    }
}

/// A process whose circuit is half-open: one request at a time goes to it, until one was answered.
#[derive(Debug)]
pub struct Trial {
    /// Calls to the process.
    pub connection: Arc<Connection>,
    turn: Arc<Semaphore>,
    answered: Notify,
}

/// The turn of one request in a [`Trial`]; the next one's when dropped.
#[derive(Debug)]
pub struct TrialTurn {
    trial: Arc<Trial>,
    _turn: OwnedSemaphorePermit,
}

impl Trial {
    /// Nobody has had a turn.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            turn: Arc::new(Semaphore::new(1)),
            answered: Notify::new(),
        }
    }

    /// A turn, unless another request has it.
    pub fn turn(self: &Arc<Self>) -> Option<TrialTurn> {
        let turn = self.turn.clone().try_acquire_owned().ok()?;
        Some(TrialTurn {
            trial: self.clone(),
            _turn: turn,
        })
    }

    /// Resolves when a request was answered. For one waiter.
    pub async fn answered(&self) {
        self.answered.notified().await;
    }
}

impl TrialTurn {
    /// The process answered.
    pub fn answered(&self) {
        self.trial.answered.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(2);

    /// Seconds for which a circuit stays open after each of `deaths` in a row of processes that served for `served`.
    fn pauses(circuit: &mut Circuit, deaths: usize, served: Duration) -> Vec<Option<u64>> {
        let died = (0..deaths).map(|_| circuit.died(served));
        died.map(|pause| pause.map(|pause| pause.as_secs()))
            .collect()
    }

    #[test]
    fn a_circuit_opens_at_the_fifth_death_and_for_longer_each_time() {
        let mut circuit = Circuit::default();
        let opened = [10, 20, 40, 80, 160, 300, 300].map(Some);
        let expected = [vec![None; 4], opened.into()].concat();
        assert_eq!(pauses(&mut circuit, 11, SOON), expected);
        assert!(circuit.is_open());
    }

    #[test]
    fn deaths_that_are_far_apart_open_none() {
        let mut circuit = Circuit::default();
        let served = Duration::from_secs(13);
        assert_eq!(pauses(&mut circuit, 20, served), [None; 20]);
        assert_eq!(circuit.did_not_load(), None);
    }

    #[test]
    fn a_circuit_that_was_closed_opens_for_longer_unless_a_process_recovered() {
        let mut circuit = Circuit::default();
        pauses(&mut circuit, 5, SOON);
        circuit.close();
        assert!(!circuit.is_open());
        assert_eq!(
            pauses(&mut circuit, 5, SOON),
            [None, None, None, None, Some(20)]
        );
        assert_eq!(circuit.died(RECOVERED), None);
        assert_eq!(
            pauses(&mut circuit, 6, SOON)[3..],
            [None, Some(10), Some(20)]
        );
    }

    #[test]
    fn a_start_that_fails_keeps_an_open_circuit_open() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.did_not_load(), None);
        pauses(&mut circuit, 5, SOON);
        assert_eq!(circuit.did_not_load(), Some(Duration::from_secs(20)));
    }
}
