//! What the server's own limits refuse to strangers: counted for metrics, and told to the operator with limit, value and
//! setting, a line in ten seconds for each limit, so that a flood does not flood the log.
//!
//! It knows neither who refuses nor why a limit is what it is.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Pause between two lines about one limit.
const PAUSE: Duration = Duration::from_secs(10);

/// A limit on what strangers may ask of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Bytes of all requests and answers under way.
    BytesInFlight,
    /// Those of one peer.
    BytesOfPeer,
    /// Time of the head of a request.
    HeadTime,
    /// Time in which a body must move on.
    BodyTime,
    /// Time in which a client must take some of its answer.
    WriteTime,
    /// Connections.
    Connections,
    /// Those of one peer.
    ConnectionsOfPeer,
    /// Descriptors for connections.
    Descriptors,
    /// Time of a TLS handshake.
    HandshakeTime,
    /// Frames of HTTP/2 that do nothing but keep the server busy.
    Http2,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 10] = [
        Self::BytesInFlight,
        Self::BytesOfPeer,
        Self::HeadTime,
        Self::BodyTime,
        Self::WriteTime,
        Self::Connections,
        Self::ConnectionsOfPeer,
        Self::Descriptors,
        Self::HandshakeTime,
        Self::Http2,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BytesInFlight => "bytes_in_flight",
            Self::BytesOfPeer => "bytes_of_peer",
            Self::HeadTime => "head_time",
            Self::BodyTime => "body_time",
            Self::WriteTime => "write_time",
            Self::Connections => "connections",
            Self::ConnectionsOfPeer => "connections_of_peer",
            Self::Descriptors => "descriptors",
            Self::HandshakeTime => "handshake_time",
            Self::Http2 => "http2",
        }
    }

    /// What sets it.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::BytesInFlight => "lantern_bytes_in_flight",
            Self::BytesOfPeer => "lantern_bytes_in_flight_of_peer",
            Self::HeadTime => "lantern_head_timeout",
            Self::BodyTime => "lantern_body_timeout",
            Self::WriteTime => "lantern_write_timeout",
            Self::Connections => "lantern_max_connections",
            Self::ConnectionsOfPeer => "lantern_max_connections_of_peer",
            Self::Descriptors => "ulimit -n",
            Self::HandshakeTime => "lantern_handshake_timeout",
            Self::Http2 => "lantern_max_resets",
        }
    }
}

/// Counts refusals, and logs some of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Refusals(Arc<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    of_limits: [OfLimit; Limit::ALL.len()],
}

#[derive(Debug, Default)]
struct OfLimit {
    count: AtomicU64,
    /// The count that the last line knew.
    told: AtomicU64,
    /// Milliseconds after which the next line may be written.
    quiet_until: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(State {
            since: Instant::now(),
            of_limits: Default::default(),
        }))
    }
}

impl Refusals {
    /// Counts what `limit` refused. `what` says for the log what was refused, and the value of the limit.
    pub fn count(&self, limit: Limit, what: impl Display) {
        let of_limit = &self.0.of_limits[limit as usize];
        let count = of_limit.count.fetch_add(1, Relaxed) + 1;
        let now = self.0.since.elapsed();
        if of_limit.may_tell(now) {
            let told = of_limit.told.swap(count, Relaxed);
            let more = count.saturating_sub(told + 1);
            tracing::warn!("{}", line(limit, what, more));
        }
    }

    /// How much `limit` has refused so far.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0.of_limits[limit as usize].count.load(Relaxed)
    }
}

impl OfLimit {
    /// Whether a line may be written `now`: to one of several threads.
    fn may_tell(&self, now: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let quiet_until = self.quiet_until.load(Relaxed);
        let next = millis(now + PAUSE);
        millis(now) >= quiet_until
            && (self.quiet_until)
                .compare_exchange(quiet_until, next, Relaxed, Relaxed)
                .is_ok()
    }
}

fn line(limit: Limit, what: impl Display, more: u64) -> String {
    let setting = limit.setting();
    match more {
        0 => format!("Refused: {what} ({setting})"),
        _ => format!("Refused: {what} ({setting}), and {more} more since this was last said"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_limit_has_a_place_and_a_name_of_its_own() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
        let names: BTreeSet<_> = Limit::ALL.map(Limit::name).into();
        assert_eq!(names.len(), Limit::ALL.len());
    }

    #[test]
    fn every_refusal_counts_and_few_are_told() {
        let refusals = Refusals::default();
        for _ in 0..1000 {
            refusals.count(Limit::Connections, "a connection");
        }
        assert_eq!(refusals.of(Limit::Connections), 1000);
        assert_eq!(refusals.of(Limit::Descriptors), 0);
        let of_limit = OfLimit::default();
        let told = (0..100).filter(|second| of_limit.may_tell(Duration::from_secs(*second)));
        assert_eq!(told.count(), 10);
    }

    #[test]
    fn a_line_names_value_and_setting() {
        assert_eq!(
            line(Limit::Connections, "a connection, there are 8", 0),
            "Refused: a connection, there are 8 (lantern_max_connections)"
        );
        assert!(line(Limit::Connections, "", 5).ends_with("and 5 more since this was last said"));
    }
}
