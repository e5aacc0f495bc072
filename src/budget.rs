//! One budget for the bytes in flight: bodies that are read, answers that are not written yet, frames to worker processes.
//!
//! Bytes are charged to the account of the client they are read from or written to, before more are taken in. The account is
//! its client's share; all accounts together are within the budget. A [`Charge`] gives back what it holds when it is
//! dropped, and [`Charge::hold`] ties it to the bytes themselves: it lasts as long as the last part of them. What does not fit
//! waits its turn for a while, and is refused then.
//!
//! Small charges come out of a pool of their own, so that small requests go on beside a flood of large ones, whoever
//! sends it. Tiny ones are not counted at all: they cost what a connection costs anyway. This module knows no protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::refusals::{Limit, Refusals};

mod pool;

use pool::Pool;

/// Charges up to this many bytes are not counted.
pub const UNCOUNTED: usize = 4 << 10;
/// Charges up to this many bytes come out of the pool for small ones.
const SMALL: usize = 64 << 10;
/// The part of everything that only small charges may use.
const SMALL_PART: usize = 8;

/// Settings of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bytes of everybody.
    pub bytes: usize,
    /// Bytes of one peer.
    pub of_peer: usize,
    /// How long a charge may wait for room.
    pub patience: Duration,
}

/// The budget of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<State>);

#[derive(Debug)]
struct State {
    cfg: Config,
    pools: Pools,
    /// For what is here already and waits for room in the others, beyond them: an eighth more.
    waiting: Pool,
    refusals: Refusals,
}

/// A client's share of the budget. Cheap to clone. The default account is nobody's, and counts nothing.
#[derive(Debug, Clone, Default)]
pub struct Account(Option<Arc<Share>>);

#[derive(Debug)]
struct Share {
    pools: Pools,
    budget: Budget,
}

/// Bytes that were charged, until it is dropped.
#[derive(Debug, Default)]
pub struct Charge {
    account: Account,
    bytes: usize,
}

/// Room for charges of each size.
#[derive(Debug)]
struct Pools {
    small: Pool,
    large: Pool,
}

/// Bytes that are here and wait for room.
struct Waiting {
    budget: Budget,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.budget.0.waiting.give_back(self.bytes);
    }
}

/// Which pool a charge comes out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Tiny,
    Small,
    Large,
}

impl Size {
    const fn of(bytes: usize) -> Self {
        if bytes <= UNCOUNTED {
            Self::Tiny
        } else if bytes <= SMALL {
            Self::Small
        } else {
            Self::Large
        }
    }
}

impl Pools {
    const fn new(bytes: usize) -> Self {
        let small = bytes / SMALL_PART;
        Self {
            small: Pool::new(small),
            large: Pool::new(bytes - small),
        }
    }

    const fn of(&self, size: Size) -> Option<&Pool> {
        match size {
            Size::Tiny => None,
            Size::Small => Some(&self.small),
            Size::Large => Some(&self.large),
        }
    }

    fn used(&self) -> usize {
        self.small.used() + self.large.used()
    }
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(cfg: Config, refusals: Refusals) -> Self {
        Self(Arc::new(State {
            cfg,
            pools: Pools::new(cfg.bytes),
            waiting: Pool::new(cfg.bytes / SMALL_PART),
            refusals,
        }))
    }

    /// An account of another client.
    pub fn account(&self) -> Account {
        Account(Some(Arc::new(Share {
            pools: Pools::new(self.0.cfg.of_peer.min(self.0.cfg.bytes)),
            budget: self.clone(),
        })))
    }

    /// Bytes in flight.
    pub fn used(&self) -> usize {
        self.0.pools.used()
    }

    /// The most bytes that there may be.
    pub fn limit(&self) -> usize {
        self.0.cfg.bytes
    }
}

impl Account {
    /// Whether nothing is charged to it.
    pub fn is_empty(&self) -> bool {
        (self.0.as_ref()).is_none_or(|share| share.pools.used() == 0)
    }

    /// A charge of nothing yet.
    pub fn open(&self) -> Charge {
        Charge {
            account: self.clone(),
            bytes: 0,
        }
    }

    /// Charges `bytes`, and waits for room if need be.
    pub async fn charge(&self, bytes: usize) -> Result<Charge, Error> {
        let mut charge = self.open();
        charge.grow_to(bytes).await?;
        Ok(charge)
    }

    /// Charges for `bytes`, which are here already, as long as there are some. They may wait for room if few others do.
    pub async fn hold(&self, bytes: Bytes) -> Result<Bytes, Error> {
        let mut charge = self.open();
        if !charge.grow_now(bytes.len()) {
            let _waiting = charge.wait_in_memory(bytes.len())?;
            charge.grow_to(bytes.len()).await?;
        }
        Ok(charge.hold(bytes))
    }

    /// The same, for somebody who cannot wait.
    pub fn hold_now(&self, bytes: Bytes) -> Result<Bytes, Error> {
        let mut charge = self.open();
        if !charge.grow_now(bytes.len()) {
            return Err(charge.refused(bytes.len()));
        }
        Ok(charge.hold(bytes))
    }

    /// The same, for bytes that take the place of others which were charged: there is room, or will be at once.
    pub fn hold_anyway(&self, bytes: Bytes) -> Bytes {
        let mut charge = self.open();
        charge.grow_anyway(bytes.len());
        charge.hold(bytes)
    }
}

impl Share {
    fn take_now(&self, size: Size, bytes: usize, own: usize) -> bool {
        let (Some(mine), Some(all)) = (self.pools.of(size), self.budget.0.pools.of(size)) else {
            return true;
        };
        if !mine.take_now(bytes, own) {
            return false;
        }
        let is_taken = all.take_now(bytes, own);
        if !is_taken {
            mine.give_back(bytes);
        }
        is_taken
    }

    async fn take(&self, size: Size, bytes: usize, own: usize) -> Result<(), Limit> {
        let (Some(mine), Some(all)) = (self.pools.of(size), self.budget.0.pools.of(size)) else {
            return Ok(());
        };
        let until = Instant::now() + self.budget.0.cfg.patience;
        let taken = tokio::time::timeout_at(until, mine.take(bytes, own)).await;
        let taken = taken.map_err(|_| Limit::BytesOfPeer)?;
        let of_all = tokio::time::timeout_at(until, all.take(bytes, own)).await;
        of_all.map_err(|_| Limit::BytesInFlight)?.keep();
        taken.keep();
        Ok(())
    }

    fn take_anyway(&self, size: Size, bytes: usize) {
        for pools in [&self.pools, &self.budget.0.pools] {
            if let Some(pool) = pools.of(size) {
                pool.take_anyway(bytes);
            }
        }
    }

    fn give_back(&self, size: Size, bytes: usize) {
        for pools in [&self.budget.0.pools, &self.pools] {
            if let Some(pool) = pools.of(size) {
                pool.give_back(bytes);
            }
        }
    }
}

/// What a charge takes to become another one: so much out of the pool of this size. What the charge holds there of its own
/// counts as room.
struct Step {
    size: Size,
    bytes: usize,
    own: usize,
}

impl Charge {
    /// Bytes that are charged.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Becomes a charge of `bytes`, if it is a smaller one, and waits for room if need be.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        if self.grow_now(bytes) {
            return Ok(());
        }
        let Some(share) = self.account.0.clone() else {
            return Ok(());
        };
        let Step {
            size,
            bytes: more,
            own,
        } = self.step(bytes);
        match share.take(size, more, own).await {
            Ok(()) => {
                self.become_one_of(bytes);
                Ok(())
            }
            Err(limit) => Err(share.refused(limit, bytes)),
        }
    }

    /// The same, if there is room. Returns whether it was done.
    pub fn grow_now(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            return true;
        }
        let Step {
            size,
            bytes: more,
            own,
        } = self.step(bytes);
        let share = self.account.0.as_ref();
        let is_taken = share.is_none_or(|share| share.take_now(size, more, own));
        if is_taken {
            self.become_one_of(bytes);
        }
        is_taken
    }

    /// The same, whether there is room or not.
    pub fn grow_anyway(&mut self, bytes: usize) {
        if bytes <= self.bytes {
            return;
        }
        let Step {
            size, bytes: more, ..
        } = self.step(bytes);
        if let Some(share) = &self.account.0 {
            share.take_anyway(size, more);
        }
        self.become_one_of(bytes);
    }

    /// Becomes a charge of `bytes`, if it is a larger one.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            return;
        }
        let (before, after) = (Size::of(self.bytes), Size::of(bytes));
        if let Some(share) = &self.account.0 {
            if before != after {
                share.take_anyway(after, bytes);
            }
            let kept = if before == after { bytes } else { 0 };
            share.give_back(before, self.bytes - kept);
        }
        self.bytes = bytes;
    }

    /// Ties the charge to `bytes`: it is given back with the last part of them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.is_uncounted() {
            return bytes;
        }
        Bytes::from_owner(Held {
            bytes,
            _charge: self,
        })
    }

    /// Ties the charge to both parts of what it was made for: it is given back with the last of either.
    pub fn hold_both(self, [first, second]: [Bytes; 2]) -> [Bytes; 2] {
        if first.is_empty() {
            return [first, self.hold(second)];
        }
        if second.is_empty() || self.is_uncounted() {
            return [self.hold(first), second];
        }
        let charge = Arc::new(self);
        let held = |bytes: Bytes| {
            let charge = Arc::clone(&charge);
            Bytes::from_owner(Held {
                bytes,
                _charge: charge,
            })
        };
        [held(first), held(second)]
    }

    fn is_uncounted(&self) -> bool {
        self.account.0.is_none() || Size::of(self.bytes) == Size::Tiny
    }

    /// A place among the bytes that are here and wait for room.
    fn wait_in_memory(&self, bytes: usize) -> Result<Option<Waiting>, Error> {
        let Some(share) = &self.account.0 else {
            return Ok(None);
        };
        let budget = share.budget.clone();
        if !budget.0.waiting.take_now(bytes, 0) {
            return Err(self.refused(bytes));
        }
        Ok(Some(Waiting { budget, bytes }))
    }

    /// Counts that `bytes` were refused, and says so.
    fn refused(&self, bytes: usize) -> Error {
        match &self.account.0 {
            Some(share) => share.refused(share.full(bytes), bytes),
            None => full(),
        }
    }

    fn step(&self, bytes: usize) -> Step {
        let (before, size) = (Size::of(self.bytes), Size::of(bytes));
        let own = if before == size { self.bytes } else { 0 };
        Step {
            size,
            bytes: bytes - own,
            own,
        }
    }

    /// Takes over what a step took, and gives back what it held in another pool.
    fn become_one_of(&mut self, bytes: usize) {
        let before = Size::of(self.bytes);
        if before != Size::of(bytes)
            && let Some(share) = &self.account.0
        {
            share.give_back(before, self.bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(share) = &self.account.0 {
            share.give_back(Size::of(self.bytes), self.bytes);
        }
    }
}

impl Share {
    /// Which limit has no room for `bytes`.
    fn full(&self, bytes: usize) -> Limit {
        let mine = self.pools.of(Size::of(bytes));
        if mine.is_some_and(|pool| !pool.has_room(bytes)) {
            Limit::BytesOfPeer
        } else {
            Limit::BytesInFlight
        }
    }

    fn refused(&self, limit: Limit, bytes: usize) -> Error {
        let State { cfg, refusals, .. } = &*self.budget.0;
        let (of_whom, most) = match limit {
            Limit::BytesOfPeer => ("of one client", cfg.of_peer),
            _ => ("of all clients", cfg.bytes),
        };
        let part = SMALL_PART;
        refusals.count(
            limit,
            format_args!(
                "{bytes} bytes of a body: those in flight {of_whom} may be {most} bytes, of which one in {part} is for small bodies"
            ),
        );
        full()
    }
}

fn full() -> Error {
    let message = "The server has as much to do as it can hold";
    Error::new(Kind::Overloaded, message)
}

/// Bytes with their charge, or a part of it.
struct Held<C> {
    bytes: Bytes,
    _charge: C,
}

impl<C> AsRef<[u8]> for Held<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
