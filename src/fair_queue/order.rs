//! Who is next: a queue for each party, and one virtual time for all.
//!
//! This is start-time fair queueing. Each party has a tag: what its requests have cost so far, in nanoseconds for each unit of its weight. The
//! party with the lowest tag is next. What a request costs is known when it is over, so the lane's usual cost is charged when it begins, more
//! while it takes longer, and the difference when it ends. A party that comes back after a while begins where the others are: it has saved
//! nothing, but it owes what it took.
//!
//! Nothing here knows time, tasks or locks: whoever calls says how late it is. Nothing looks through all parties.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::nanos::nanos;
use crate::payload::Priority;

/// Nanoseconds of work for each core that may be under way beside one turn: enough for a core not to wait for the next one.
const AHEAD: u64 = 10_000_000;
/// What a request of a lane is expected to cost before one was measured.
const UNKNOWN: u64 = AHEAD;
/// What a request costs at least: whoever has many under way comes after whoever has none.
const LEAST: u64 = 1_000;
/// Turns for each core, and for each worker of a lane, however short they seem.
const DEEPEST: usize = 8;
/// Requests of a turn, which count as one run.
const LARGEST: usize = 64;
/// Parts of a nanosecond in tags, so that weights divide them.
const PARTS: i128 = 1 << 20;

/// Which party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartyId(u64);

/// Which lane: the requests of one party that may share runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(u64);

/// When somebody who waits in a lane goes: the lowest is first.
pub(super) type Rank = (Priority, u64);

/// How much a lane can do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breadth {
    /// Runs at the same time.
    pub workers: usize,
    /// Requests that share a run.
    pub batch: usize,
}

/// A request that may be computed. To be given back with [`Order::finish`].
#[derive(Debug)]
pub(super) struct Grant {
    lane: LaneId,
    id: u64,
    since: Duration,
    /// Its part of what is counted as under way.
    load: u64,
    /// Shared by the requests of one turn.
    turn: Arc<()>,
}

/// A request that is computed, as far as it is to be charged for.
struct Charged {
    party: PartyId,
    amount: u64,
    /// Requests that share its time.
    companions: u64,
}

struct Party {
    weight: u32,
    tag: i128,
    /// Where the others were when it last began to wait: what it did not use before that is not saved.
    floor: i128,
    turns: usize,
    waiting: usize,
    /// The first that waits in each lane that can take one more turn.
    heads: BTreeSet<(Rank, LaneId)>,
}

struct Lane<W> {
    party: PartyId,
    breadth: Breadth,
    estimate: Option<u64>,
    turns: usize,
    /// Of its turns those that count as busy.
    busy: usize,
    /// What is under way is expected to cost.
    outstanding: u64,
    /// Its last turn, and how many requests may join that yet.
    open: (Weak<()>, usize),
    waiting: BTreeMap<Rank, W>,
    /// As it is in its party's `heads`.
    head: Option<Rank>,
}

impl<W> Lane<W> {
    /// Whether one more turn would find something to do soon.
    fn has_room(&self) -> bool {
        let workers = self.breadth.workers.max(1);
        let is_short = self.outstanding < workers as u64 * AHEAD;
        self.turns <= workers || is_short && self.turns < workers * DEEPEST
    }

    fn learn(&mut self, cost: u64, is_usual: bool) {
        let before = self.estimate.unwrap_or(cost);
        let after = before - before / 8 + cost / 8;
        if is_usual || after > before {
            self.estimate = Some(after);
        }
    }
}

/// All parties, and who of them waits.
pub(super) struct Order<W> {
    cores: usize,
    next_id: u64,
    /// The tag of the party that went last: nobody who comes begins earlier.
    clock: i128,
    /// That party: what it is given back, since it was charged too much when it went, the clock goes back as well.
    clock_of: Option<PartyId>,
    parties: HashMap<PartyId, Party>,
    lanes: HashMap<LaneId, Lane<W>>,
    /// Parties with a head, by tag.
    ready: BTreeSet<(i128, PartyId)>,
    /// Parties with turns, by tag.
    active: BTreeSet<(i128, PartyId)>,
    /// Lanes where somebody came who may join a turn.
    joining: Vec<LaneId>,
    /// Requests that are computed, the oldest first.
    under_way: BTreeMap<(Duration, u64), Charged>,
    waiting: usize,
    turns: usize,
    busy: usize,
    outstanding: u64,
}

impl<W> Order<W> {
    /// For a machine that computes so many requests at a time.
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores: cores.max(1),
            next_id: 0,
            clock: 0,
            clock_of: None,
            parties: HashMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            active: BTreeSet::new(),
            joining: Vec::new(),
            under_way: BTreeMap::new(),
            waiting: 0,
            turns: 0,
            busy: 0,
            outstanding: 0,
        }
    }

    /// A new party.
    pub(super) fn join(&mut self, weight: u32) -> PartyId {
        let id = PartyId(self.id());
        let party = Party {
            weight: weight.max(1),
            tag: self.clock,
            floor: self.clock,
            turns: 0,
            waiting: 0,
            heads: BTreeSet::new(),
        };
        self.parties.insert(id, party);
        id
    }

    /// From now on the party has another weight.
    pub(super) fn set_weight(&mut self, party: PartyId, weight: u32) {
        if let Some(party) = self.parties.get_mut(&party) {
            party.weight = weight.max(1);
        }
    }

    /// The party is gone. It has no lanes any more.
    pub(super) fn leave(&mut self, party: PartyId) {
        if let Some(gone) = self.parties.remove(&party) {
            self.ready.remove(&(gone.tag, party));
            self.active.remove(&(gone.tag, party));
        }
    }

    /// A new lane of a party.
    pub(super) fn open(&mut self, party: PartyId) -> LaneId {
        let id = LaneId(self.id());
        let lane = Lane {
            party,
            breadth: Breadth {
                workers: 1,
                batch: 1,
            },
            estimate: None,
            turns: 0,
            busy: 0,
            outstanding: 0,
            open: (Weak::new(), 0),
            waiting: BTreeMap::new(),
            head: None,
        };
        self.lanes.insert(id, lane);
        id
    }

    /// The lane is gone, with what is under way in it. Nobody waits there any more.
    pub(super) fn close(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let waiting = std::mem::take(&mut lane.waiting).len();
        self.refresh(id);
        let Some(lane) = self.lanes.remove(&id) else {
            return;
        };
        self.waiting -= waiting;
        self.turns -= lane.turns;
        self.busy -= lane.busy;
        self.outstanding -= lane.outstanding;
        if let Some(party) = self.parties.get_mut(&lane.party) {
            party.waiting -= waiting;
        }
        self.count_turns(lane.party, |turns| turns - lane.turns);
    }

    /// How many of the party's requests wait.
    pub(super) fn waiting(&self, party: PartyId) -> usize {
        self.parties.get(&party).map_or(0, |party| party.waiting)
    }

    /// How many requests wait.
    pub(super) const fn all_waiting(&self) -> usize {
        self.waiting
    }

    /// Somebody waits in a lane from now on. `None` if the lane is closed.
    pub(super) fn wait(
        &mut self,
        id: LaneId,
        breadth: Breadth,
        priority: Priority,
        waiter: W,
    ) -> Option<Rank> {
        let rank = (priority, self.id());
        let lane = self.lanes.get_mut(&id)?;
        lane.breadth = breadth;
        lane.waiting.insert(rank, waiter);
        let (party, clock) = (lane.party, self.clock);
        self.waiting += 1;
        let count = self.parties.get_mut(&party).map(|party| {
            party.waiting += 1;
            party.waiting
        });
        if count == Some(1) {
            self.retag(party, |tag, _| tag.max(clock));
            self.parties.entry(party).and_modify(|it| it.floor = clock);
        }
        if self.lanes.get(&id).is_some_and(|lane| lane.open.1 > 0) {
            self.joining.push(id);
        }
        self.count_busy(id);
        self.refresh(id);
        Some(rank)
    }

    /// Whoever waited there does no more, if nothing was granted.
    pub(super) fn give_up(&mut self, id: LaneId, rank: Rank) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.waiting.remove(&rank).is_none() {
            return;
        }
        self.waiting -= 1;
        if let Some(party) = self.parties.get_mut(&lane.party) {
            party.waiting -= 1;
        }
        self.refresh(id);
    }

    /// Requests that may begin at `now`: those of the next turn, or some that join a turn.
    pub(super) fn next(&mut self, now: Duration) -> Option<Vec<(W, Grant)>> {
        while let Some(lane) = self.joining.pop() {
            let joined = self.join_turn(lane, now);
            if !joined.is_empty() {
                return Some(joined);
            }
        }
        let (tag, id) = *self.ready.first()?;
        if !self.has_core() && !self.may_go_beyond(id, tag) {
            return None;
        }
        let (_, lane) = *self.parties.get(&id)?.heads.first()?;
        if tag >= self.clock {
            (self.clock, self.clock_of) = (tag, Some(id));
        }
        Some(self.begin_turn(lane, now))
    }

    /// Whether a core has nothing to do, or is done soon.
    const fn has_core(&self) -> bool {
        let is_short = self.outstanding < self.cores as u64 * AHEAD;
        self.busy < self.cores || is_short && self.turns < self.cores * DEEPEST
    }

    /// Whether a party goes on although all cores are taken: it has had less than everybody who has them, and not more turns than there are cores.
    /// So nobody waits for what does not end.
    fn may_go_beyond(&self, id: PartyId, tag: i128) -> bool {
        let has_few = |party: &Party| party.turns < self.cores;
        self.parties.get(&id).is_some_and(has_few)
            && self.active.first().is_none_or(|(least, _)| tag <= *least)
    }

    /// A request is over, after it cost so much. What `is_usual` is learnt from; anything else only raises what is expected.
    pub(super) fn finish(&mut self, grant: Grant, cost: Duration, is_usual: bool) {
        let key = (grant.since, grant.id);
        let is_last = Arc::into_inner(grant.turn).is_some();
        let cost = nanos(cost);
        if let Some(charged) = self.under_way.remove(&key) {
            let rest = i128::from(cost) - i128::from(charged.amount);
            self.charge(charged.party, rest);
        }
        let Some(lane) = self.lanes.get_mut(&grant.lane) else {
            return;
        };
        lane.learn(cost, is_usual);
        lane.outstanding -= grant.load;
        self.outstanding -= grant.load;
        if is_last {
            lane.turns -= 1;
            self.turns -= 1;
            let party = lane.party;
            self.count_turns(party, |turns| turns - 1);
        }
        self.count_busy(grant.lane);
        self.refresh(grant.lane);
    }

    /// Charges for what has taken longer than was expected by `now`.
    pub(super) fn charge_late(&mut self, now: Duration) {
        let until = now.saturating_sub(Duration::from_nanos(AHEAD));
        let late = self.under_way.range_mut(..(until, 0));
        let more: Vec<_> = late
            .filter_map(|((since, _), charged)| {
                let took = nanos(now.saturating_sub(*since));
                let more = (took / charged.companions).checked_sub(charged.amount)?;
                charged.amount += more;
                Some((charged.party, i128::from(more)))
            })
            .collect();
        for (party, more) in more {
            self.charge(party, more);
        }
    }

    /// Charges a party for what its requests did not say of themselves.
    pub(super) fn charge_more(&mut self, party: PartyId, cost: Duration) {
        let cost = nanos(cost);
        self.charge(party, i128::from(cost));
    }

    fn begin_turn(&mut self, id: LaneId, now: Duration) -> Vec<(W, Grant)> {
        let turn = Arc::new(());
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Vec::new();
        };
        let size = lane.breadth.batch.clamp(1, LARGEST);
        lane.turns += 1;
        self.turns += 1;
        let party = lane.party;
        self.count_turns(party, |turns| turns + 1);
        let begun = self.take(id, now, &turn, size);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.open = (Arc::downgrade(&turn), size - begun.len());
        }
        self.count_busy(id);
        self.refresh(id);
        begun
    }

    /// Adds requests of a lane to its last turn, if that is not over and has had fewer than share a run.
    fn join_turn(&mut self, id: LaneId, now: Duration) -> Vec<(W, Grant)> {
        let Some((turn, left)) = self.lanes.get(&id).map(|lane| lane.open.clone()) else {
            return Vec::new();
        };
        let Some(turn) = turn.upgrade() else {
            return Vec::new();
        };
        let joined = self.take(id, now, &turn, left);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.open.1 = left - joined.len();
        }
        self.refresh(id);
        joined
    }

    /// Takes at most so many requests from those that wait in a lane, and charges for them.
    fn take(&mut self, id: LaneId, now: Duration, turn: &Arc<()>, most: usize) -> Vec<(W, Grant)> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Vec::new();
        };
        let size = lane.waiting.len().min(most);
        let estimate = lane.estimate.unwrap_or(UNKNOWN).max(LEAST);
        // A turn that takes long counts by itself, and leaves the others their time.
        let load = estimate.min(AHEAD / size.max(1) as u64);
        let mut begun = Vec::with_capacity(size);
        while begun.len() < size
            && let Some(((_, number), waiter)) = lane.waiting.pop_first()
        {
            let charged = Charged {
                party: lane.party,
                amount: estimate,
                companions: size as u64,
            };
            self.under_way.insert((now, number), charged);
            let grant = Grant {
                lane: id,
                id: number,
                since: now,
                load,
                turn: Arc::clone(turn),
            };
            begun.push((waiter, grant));
        }
        lane.outstanding += load * size as u64;
        self.outstanding += load * size as u64;
        self.waiting -= size;
        let party = lane.party;
        if let Some(party) = self.parties.get_mut(&party) {
            party.waiting -= size;
        }
        self.charge(party, i128::from(estimate) * size as i128);
        begun
    }

    /// Notes how many turns a party has.
    fn count_turns(&mut self, id: PartyId, turns: impl FnOnce(usize) -> usize) {
        if let Some(party) = self.parties.get_mut(&id) {
            party.turns = turns(party.turns);
            if party.turns == 0 {
                self.active.remove(&(party.tag, id));
            } else {
                self.active.insert((party.tag, id));
            }
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn charge(&mut self, party: PartyId, nanoseconds: i128) {
        let floor = self.parties.get(&party).map_or(0, |party| party.floor);
        self.retag(party, |tag, weight| {
            (tag + nanoseconds * PARTS / i128::from(weight)).max(floor)
        });
        if self.clock_of == Some(party)
            && let Some(party) = self.parties.get(&party)
        {
            self.clock = self.clock.min(party.tag);
        }
    }

    /// Gives a party another tag, made of the one it has and its weight.
    fn retag(&mut self, id: PartyId, tag: impl FnOnce(i128, u32) -> i128) {
        if let Some(party) = self.parties.get_mut(&id) {
            let before = party.tag;
            party.tag = tag(before, party.weight);
            for set in [&mut self.ready, &mut self.active] {
                if set.remove(&(before, id)) {
                    set.insert((party.tag, id));
                }
            }
        }
    }

    /// Counts which turns of a lane have a worker: others only wait for one.
    fn count_busy(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            let before = lane.busy;
            lane.busy = lane.turns.min(lane.breadth.workers.max(1));
            self.busy = self.busy + lane.busy - before;
        }
    }

    /// Notes who is first in a lane, if it has room.
    fn refresh(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let first = lane.waiting.first_key_value().map(|(rank, _)| *rank);
        let head = first.filter(|_| lane.has_room());
        let before = std::mem::replace(&mut lane.head, head);
        let Some(party) = self.parties.get_mut(&lane.party) else {
            return;
        };
        if before != head {
            before.map(|rank| party.heads.remove(&(rank, id)));
            head.map(|rank| party.heads.insert((rank, id)));
        }
        if party.heads.is_empty() {
            self.ready.remove(&(party.tag, lane.party));
        } else {
            self.ready.insert((party.tag, lane.party));
        }
    }
}

#[cfg(test)]
mod tests;
