//! The fair queue: whose request is computed next when there is more to do than the machine can.
//!
//! Each owner of models is a party with a weight. A request waits here, in the lane of its version, until its owner's turn comes, and says
//! at the end what it cost. As many are under way as keep the machine busy: so what one owner sends does not fill the queues in front of
//! what another one sends. Who is next is decided by `order`; this module has the lock, the clock and those who wait.
//!
//! The lock is held for some hundred nanoseconds and never across an await. Nothing is looked through under it but, every 10 ms while somebody
//! waits, the requests that take longer than that, of which there are some for each core.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::payload::Priority;

mod order;

pub use order::Breadth;
use order::{Grant, LaneId, Order, PartyId, Rank};

/// How often what takes longer than expected is charged for while somebody waits.
const TICK: Duration = Duration::from_millis(10);

/// Where requests of several owners wait.
pub struct FairQueue {
    cores: usize,
    state: Mutex<State>,
    tasks: Handle,
    since: Instant,
}

struct State {
    order: Order<oneshot::Sender<Turn>>,
    /// Whether a task charges for what takes long.
    is_ticking: bool,
}

/// One owner. Cheap to clone.
#[derive(Clone)]
pub struct Party(Arc<Member>);

struct Member {
    queue: Arc<FairQueue>,
    id: PartyId,
}

/// The requests of one version.
pub struct Lane {
    party: Party,
    id: LaneId,
}

/// That a request is computed now. What it cost is the time until this is dropped, unless that is said.
pub struct Turn {
    queue: Arc<FairQueue>,
    grant: Option<Grant>,
    begun: Instant,
    cost: Option<Duration>,
}

/// That as many requests of an owner wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyWait(pub usize);

impl FairQueue {
    /// A machine that computes so many requests at a time. Must be called within a runtime.
    pub fn new(cores: usize) -> Arc<Self> {
        Arc::new(Self {
            cores,
            state: Mutex::new(State {
                order: Order::new(cores),
                is_ticking: false,
            }),
            tasks: Handle::current(),
            since: Instant::now(),
        })
    }

    /// How many requests the machine computes at a time.
    pub const fn cores(&self) -> usize {
        self.cores
    }

    /// One more owner.
    pub fn party(self: &Arc<Self>, weight: u32) -> Party {
        let id = self.state.lock().order.join(weight);
        let queue = Arc::clone(self);
        Party(Arc::new(Member { queue, id }))
    }

    /// Lets begin what may, and unlocks.
    fn go_on(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let now = self.since.elapsed();
        let mut begun = Vec::new();
        while let Some(turn) = state.order.next(now) {
            begun.extend(turn);
        }
        let somebody_waits = state.order.all_waiting() > 0;
        let begins_to_tick = somebody_waits && !std::mem::replace(&mut state.is_ticking, true);
        drop(state);
        for (waiter, grant) in begun {
            // One who has left gives it back at once.
            let _ = waiter.send(Turn {
                queue: Arc::clone(self),
                grant: Some(grant),
                begun: Instant::now(),
                cost: None,
            });
        }
        if begins_to_tick {
            self.tasks.spawn(Arc::clone(self).tick());
        }
    }

    /// Charges for what takes long, while somebody waits.
    async fn tick(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            let mut state = self.state.lock();
            state.order.charge_late(self.since.elapsed());
            state.is_ticking = state.order.all_waiting() > 0;
            if !state.is_ticking {
                return;
            }
            self.go_on(state);
        }
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Party").field(&self.0.id).finish()
    }
}

impl Party {
    /// From now on it has another weight.
    pub fn set_weight(&self, weight: u32) {
        self.0
            .queue
            .state
            .lock()
            .order
            .set_weight(self.0.id, weight);
    }

    /// Charges it for what its requests did not say of themselves.
    pub fn charge(&self, cost: Duration) {
        self.0.queue.state.lock().order.charge_more(self.0.id, cost);
    }

    /// How many of its requests wait.
    pub fn waiting(&self) -> usize {
        self.0.queue.state.lock().order.waiting(self.0.id)
    }

    /// A lane for one version.
    pub fn lane(&self) -> Lane {
        let id = self.0.queue.state.lock().order.open(self.0.id);
        Lane {
            party: self.clone(),
            id,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.queue.state.lock().order.leave(self.id);
    }
}

impl Lane {
    /// Waits until one more request may be computed; not if `most` of its owner's wait already. Dropping the future gives the place up.
    pub async fn turn(
        &self,
        breadth: Breadth,
        priority: Priority,
        most: Option<usize>,
    ) -> Result<Turn, TooManyWait> {
        let (sender, mut turn) = oneshot::channel();
        let (rank, ahead) = self.ask(breadth, priority, sender);
        if let Ok(turn) = turn.try_recv() {
            return Ok(turn);
        }
        let mut waiting = Waiting { lane: self, rank };
        if let Some(most) = most.filter(|most| ahead >= *most) {
            return Err(TooManyWait(most));
        }
        let turn = turn.await;
        waiting.rank = None;
        // Only a lane that is closed grants nothing, and nobody waits there: this one lives.
        turn.map_err(|_| TooManyWait(0))
    }

    /// Asks for a turn. Returns where the request waits for it, and how many of its owner's waited before.
    fn ask(
        &self,
        breadth: Breadth,
        priority: Priority,
        turn: oneshot::Sender<Turn>,
    ) -> (Option<Rank>, usize) {
        let Member { queue, id: party } = &*self.party.0;
        let mut state = queue.state.lock();
        let ahead = state.order.waiting(*party);
        let rank = state.order.wait(self.id, breadth, priority, turn);
        queue.go_on(state);
        (rank, ahead)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let queue = &self.party.0.queue;
        let mut state = queue.state.lock();
        state.order.close(self.id);
        queue.go_on(state);
    }
}

/// A place in a lane, given up when it is dropped.
struct Waiting<'a> {
    lane: &'a Lane,
    /// `None` once it was granted.
    rank: Option<Rank>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(rank) = self.rank {
            let queue = &self.lane.party.0.queue;
            let mut state = queue.state.lock();
            state.order.give_up(self.lane.id, rank);
            queue.go_on(state);
        }
    }
}

impl Turn {
    /// The request is over, and cost so much.
    pub fn end(mut self, cost: Duration) {
        self.cost = Some(cost);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let cost = self.cost.unwrap_or_else(|| self.begun.elapsed());
        if let Some(grant) = self.grant.take() {
            let mut state = self.queue.state.lock();
            state.order.finish(grant, cost, self.cost.is_some());
            self.queue.go_on(state);
        }
    }
}

#[cfg(test)]
mod tests;
