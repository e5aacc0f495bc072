//! How many connections there may be: in total, of one peer, and as far as there are descriptors.
//!
//! One that comes when there are as many as there may be takes the place of the one that has been idle for longest, so that
//! sockets that nobody uses keep nobody out. If all are in use it is closed at once. What is known of a peer is kept as long
//! as it has a connection, or bytes in flight.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Peer;
use super::stint::Crowd;
use crate::budget::{Account, Budget};
use crate::refusals::{Limit, Refusals};

/// Places that are looked at for the one that has been idle for longest.
const SAMPLE: usize = 256;
/// Peers that are known before those without connections are looked for.
const FIRST_SWEEP: usize = 1024;
/// Said of a place whose connection has to end. The rest of the number counts requests under way.
const EVICTED: usize = 1 << (usize::BITS - 1);

/// The most connections that there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// Of one peer: one address, or one /64 of IPv6, where a client has that many addresses.
    pub of_peer: usize,
    /// Whether there may not be more because descriptors are few.
    pub is_of_descriptors: bool,
    /// Numbers of descriptors from this one on are not for connections. The kernel gives the lowest number that is free, so
    /// one above it means that almost all are in use, whatever for.
    pub descriptors: usize,
}

impl ConnectionLimits {
    /// Any number.
    pub const NONE: Self = Self {
        total: usize::MAX,
        of_peer: usize::MAX,
        is_of_descriptors: false,
        descriptors: usize::MAX,
    };
}

/// The connections of some sockets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections(Arc<State>);

#[derive(Debug)]
struct State {
    limits: ConnectionLimits,
    places: Mutex<Places>,
    peers: Peers,
    refusals: Refusals,
    since: Instant,
    crowd: Crowd,
}

/// Every connection, at an index that is its own as long as it lasts.
#[derive(Debug, Default)]
struct Places {
    all: Vec<Option<Arc<Place>>>,
    free: Vec<usize>,
    /// Where the search for idle ones goes on.
    hand: usize,
}

/// The place of one connection.
#[derive(Debug)]
struct Place {
    peer: PeerKey,
    /// Requests under way, and whether the connection has to end.
    state: AtomicUsize,
    /// Requests that have begun so far.
    begun: AtomicUsize,
    /// Milliseconds since the server's start.
    idle_since: AtomicU64,
    /// Whether the client has not taken what was written.
    is_blocked: AtomicBool,
    evicted: Notify,
}

/// Who connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PeerKey {
    Address(IpAddr),
    /// The first 64 bits of an IPv6 address.
    Network(u64),
    Unix,
}

#[derive(Debug)]
struct Peers {
    known: DashMap<PeerKey, Known>,
    sweep_at: AtomicUsize,
    budget: Option<Budget>,
}

#[derive(Debug, Default)]
struct Known {
    connections: usize,
    account: Account,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    connections: Connections,
    place: Arc<Place>,
    index: usize,
    account: Account,
}

/// A handle on a connection's place, for those who serve it.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Place>, Connections);

/// A request under way: its connection is not idle.
#[derive(Debug)]
pub struct Busy(Activity);

impl Default for Connections {
    fn default() -> Self {
        Self::new(ConnectionLimits::NONE, None, Refusals::default())
    }
}

impl PeerKey {
    fn of(peer: Peer) -> Self {
        let Peer::Tcp(address) = peer else {
            return Self::Unix;
        };
        match address.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let network = ip.to_bits() >> 64;
                Self::Network(u64::try_from(network).unwrap_or(u64::MAX))
            }
            ip @ IpAddr::V4(_) => Self::Address(ip),
        }
    }
}

impl Connections {
    /// None yet. What each peer has in flight is within its share of `budget`, if there is one.
    pub fn new(limits: ConnectionLimits, budget: Option<Budget>, refusals: Refusals) -> Self {
        Self(Arc::new(State {
            limits,
            places: Mutex::default(),
            peers: Peers {
                known: DashMap::new(),
                sweep_at: AtomicUsize::new(FIRST_SWEEP),
                budget,
            },
            refusals,
            since: Instant::now(),
            crowd: Crowd::default(),
        }))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.places.lock().count()
    }

    /// The most that there may be.
    pub fn limits(&self) -> ConnectionLimits {
        self.0.limits
    }

    /// Whether the next one takes the place of another.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.0.limits.total
    }

    /// A place for a connection of `peer` with this descriptor; `None` if there is none, so that it has to be closed.
    pub(super) fn seat(&self, peer: Peer, descriptor: usize) -> Option<Seat> {
        let key = PeerKey::of(peer);
        let state = &*self.0;
        let mut places = state.places.lock();
        if descriptor >= state.limits.descriptors {
            let (limit, most) = (Limit::Descriptors, state.limits.descriptors);
            let what =
                format_args!("a connection of {peer}: descriptors for connections end at {most}");
            state.refusals.count(limit, what);
            return None;
        }
        if let Some(limit) = state.exceeded(&places, key) {
            let of_peer = limit == Limit::ConnectionsOfPeer;
            let victim = places.longest_idle(|other| !of_peer || *other == key);
            let what = state.told(limit, peer, victim.is_some());
            state.refusals.count(limit, what);
            state.evict(&mut places, victim?);
        }
        let place = Arc::new(Place {
            peer: key,
            state: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            idle_since: AtomicU64::new(state.now()),
            is_blocked: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        let index = places.add(Arc::clone(&place));
        Some(Seat {
            account: state.peers.enter(key),
            connections: self.clone(),
            place,
            index,
        })
    }
}

impl State {
    fn exceeded(&self, places: &Places, key: PeerKey) -> Option<Limit> {
        let limits = self.limits;
        if self.peers.connections(key) >= limits.of_peer {
            return Some(Limit::ConnectionsOfPeer);
        }
        let limit = if limits.is_of_descriptors {
            Limit::Descriptors
        } else {
            Limit::Connections
        };
        (places.count() >= limits.total).then_some(limit)
    }

    fn told(&self, limit: Limit, peer: Peer, is_replaced: bool) -> String {
        let (what, most) = match limit {
            Limit::ConnectionsOfPeer => ("of one peer", self.limits.of_peer),
            Limit::Descriptors => ("that there are descriptors for", self.limits.total),
            _ => ("of all", self.limits.total),
        };
        let who = if is_replaced {
            "an idle connection, for one"
        } else {
            "a connection"
        };
        format!("{who} of {peer}: connections {what} may be {most}")
    }

    /// Takes the place of a connection, which ends.
    fn evict(&self, places: &mut Places, index: usize) {
        if let Some(place) = places.remove(index) {
            self.peers.leave(place.peer);
            place.evicted.notify_one();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Places {
    fn count(&self) -> usize {
        self.all.len() - self.free.len()
    }

    fn add(&mut self, place: Arc<Place>) -> usize {
        if let Some(index) = self.free.pop() {
            self.all[index] = Some(place);
            return index;
        }
        self.all.push(Some(place));
        self.all.len() - 1
    }

    fn remove(&mut self, index: usize) -> Option<Arc<Place>> {
        let place = self.all.get_mut(index)?.take()?;
        self.free.push(index);
        Some(place)
    }

    /// Removes `place`, unless another one has its index.
    fn remove_own(&mut self, index: usize, place: &Arc<Place>) -> bool {
        let at = self.all.get(index).and_then(Option::as_ref);
        let is_own = at.is_some_and(|at| Arc::ptr_eq(at, place));
        is_own && self.remove(index).is_some()
    }

    /// The index of the connection that has been idle for longest, of some that are `eligible`. It is marked as evicted.
    fn longest_idle(&mut self, eligible: impl Fn(&PeerKey) -> bool) -> Option<usize> {
        let mut seen = 0;
        let mut found: Option<(u64, usize)> = None;
        for step in 0..self.all.len() {
            let index = (self.hand + step) % self.all.len();
            let Some(place) = &self.all[index] else {
                continue;
            };
            if !eligible(&place.peer) {
                continue;
            }
            seen += 1;
            if let Some(since) = place.idle_since()
                && found.is_none_or(|(longest, _)| since < longest)
            {
                found = Some((since, index));
            }
            if seen >= SAMPLE && found.is_some() {
                self.hand = index + 1;
                break;
            }
        }
        let (_, index) = found?;
        let place = self.all[index].as_ref()?;
        place.mark_evicted().then_some(index)
    }
}

impl Place {
    /// Since when it has been idle, if it is.
    fn idle_since(&self) -> Option<u64> {
        let is_idle = self.state.load(Ordering::Acquire) == 0;
        let is_idle = is_idle && !self.is_blocked.load(Ordering::Relaxed);
        is_idle.then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Fails if a request has begun meanwhile.
    fn mark_evicted(&self) -> bool {
        let marked = self
            .state
            .compare_exchange(0, EVICTED, Ordering::AcqRel, Ordering::Acquire);
        marked.is_ok()
    }
}

impl Peers {
    fn connections(&self, key: PeerKey) -> usize {
        self.known.get(&key).map_or(0, |known| known.connections)
    }

    fn enter(&self, key: PeerKey) -> Account {
        self.sweep();
        let mut known = self.known.entry(key).or_insert_with(|| Known {
            connections: 0,
            account: self
                .budget
                .as_ref()
                .map(Budget::account)
                .unwrap_or_default(),
        });
        known.connections += 1;
        known.account.clone()
    }

    fn leave(&self, key: PeerKey) {
        if let Some(mut known) = self.known.get_mut(&key) {
            known.connections -= 1;
        }
        self.known.remove_if(&key, |_, known| known.is_gone());
    }

    /// Forgets those that had bytes in flight when their last connection ended.
    fn sweep(&self) {
        if self.known.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.known.retain(|_, known| !known.is_gone());
            let next = (2 * self.known.len()).max(FIRST_SWEEP);
            self.sweep_at.store(next, Ordering::Relaxed);
        }
    }
}

impl Known {
    fn is_gone(&self) -> bool {
        self.connections == 0 && self.account.is_empty()
    }
}

impl Seat {
    /// The peer's account.
    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    /// Those that move large bodies.
    pub(super) fn crowd(&self) -> Crowd {
        self.connections.0.crowd.clone()
    }

    /// What tells whether the connection is idle.
    pub(super) fn activity(&self) -> Activity {
        Activity(Arc::clone(&self.place), self.connections.clone())
    }

    /// Returns if another connection needs the place.
    pub(super) async fn evicted(&self) {
        self.place.evicted.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let state = &*self.connections.0;
        if state.places.lock().remove_own(self.index, &self.place) {
            state.peers.leave(self.place.peer);
        }
    }
}

impl Activity {
    /// A request begins; it ends when what is returned is dropped.
    pub fn begin(&self) -> Busy {
        self.0.state.fetch_add(1, Ordering::AcqRel);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) & !EVICTED > 0
    }

    /// How many requests have begun so far.
    pub(super) fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Whether the client does not take what was written.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        self.0.is_blocked.store(is_blocked, Ordering::Relaxed);
        self.0.idle_since.store(self.1.0.now(), Ordering::Relaxed);
    }

    /// Counts that the connection is cut by a limit.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.1.0.refusals
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Activity(place, connections) = &self.0;
        place
            .idle_since
            .store(connections.0.now(), Ordering::Relaxed);
        place.state.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::*;

    fn connections(total: usize, of_peer: usize, descriptors: usize) -> Connections {
        let limits = ConnectionLimits {
            total,
            of_peer,
            is_of_descriptors: false,
            descriptors,
        };
        Connections::new(limits, None, Refusals::default())
    }

    fn peer(last: u8) -> Peer {
        Peer::Tcp(SocketAddr::from(([10, 0, 0, last], 1)))
    }

    fn refused(connections: &Connections, limit: Limit) -> u64 {
        connections.0.refusals.of(limit)
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room() {
        let connections = connections(2, 2, usize::MAX);
        let oldest = connections.seat(peer(1), 3).unwrap();
        let newer = connections.seat(peer(2), 4).unwrap();
        oldest.place.idle_since.store(0, Ordering::Relaxed);
        newer.place.idle_since.store(1, Ordering::Relaxed);
        let newest = connections.seat(peer(3), 5).unwrap();
        oldest.evicted().await;
        assert_eq!(
            (
                connections.count(),
                refused(&connections, Limit::Connections)
            ),
            (2, 1)
        );
        drop((oldest, newer));
        assert_eq!(connections.count(), 1);
        drop(newest);
        assert_eq!(connections.count(), 0);
        assert!(connections.0.peers.known.is_empty());
    }

    #[test]
    fn a_connection_in_use_keeps_its_place() {
        let connections = connections(1, 1, usize::MAX);
        let seat = connections.seat(peer(1), 3).unwrap();
        let busy = seat.activity().begin();
        assert!(connections.seat(peer(2), 4).is_none());
        drop(busy);
        seat.activity().set_blocked(true);
        assert!(connections.seat(peer(2), 4).is_none());
        seat.activity().set_blocked(false);
        assert!(connections.seat(peer(2), 4).is_some());
    }

    #[test]
    fn a_peer_gives_way_to_itself() {
        let connections = connections(9, 2, usize::MAX);
        let other = connections.seat(peer(9), 3).unwrap();
        let first = connections.seat(peer(1), 4).unwrap();
        let second = connections.seat(peer(1), 5).unwrap();
        let busy = [first.activity().begin(), second.activity().begin()];
        assert!(connections.seat(peer(1), 6).is_none());
        drop(busy);
        let _third = connections.seat(peer(1), 6).unwrap();
        assert_eq!(connections.count(), 3);
        assert_eq!(refused(&connections, Limit::ConnectionsOfPeer), 2);
        assert_eq!(other.place.state.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn descriptors_are_kept_back() {
        let connections = connections(9, 9, 10);
        let idle = connections.seat(peer(1), 9).unwrap();
        assert!(connections.seat(peer(1), 10).is_none());
        assert_eq!(idle.place.state.load(Ordering::Relaxed), 0);
        assert_eq!(refused(&connections, Limit::Descriptors), 1);
    }

    #[test]
    fn networks_of_ipv6_are_one_peer() {
        let at = |ip: Ipv6Addr| PeerKey::of(Peer::Tcp(SocketAddr::from((ip, 1))));
        let ip = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last);
        assert_eq!(at(ip(1)), at(ip(2)));
        assert_ne!(
            at(ip(1)),
            at(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1))
        );
        let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        assert_eq!(at(mapped), PeerKey::of(peer(1)));
        assert_eq!(PeerKey::of(Peer::Unix), PeerKey::Unix);
    }
}
