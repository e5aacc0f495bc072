//! Families of the server as a whole: what is in flight, connections, and what limits refused. They are read when they are
//! scraped, from those who count.

use parking_lot::Mutex;
use std::sync::Arc;

use super::MetricKind;
use super::cell::Cell;
use super::family::{Definition, Family, Hold};
use super::shards::Shards;
use crate::refusals::{Limit, Refusals};

/// Where the values come from.
pub struct FrontSources {
    /// What limits refused.
    pub refusals: Refusals,
    /// Bytes in flight.
    pub bytes: Box<dyn Fn() -> usize + Send + Sync>,
    /// Connections.
    pub connections: Box<dyn Fn() -> usize + Send + Sync>,
    /// TLS handshakes under way.
    pub handshakes: Box<dyn Fn() -> usize + Send + Sync>,
    /// Files of tenants that are there and not in force: 0 or 1.
    pub refused_tenants: Box<dyn Fn() -> usize + Send + Sync>,
}

/// The families, and what was shown of them.
pub(super) struct FrontFamilies {
    sources: FrontSources,
    families: [Family; 5],
    bytes: Arc<Cell>,
    connections: Arc<Cell>,
    handshakes: Arc<Cell>,
    refused_tenants: Arc<Cell>,
    refusals: [Arc<Cell>; Limit::ALL.len()],
    /// What the counters have by now.
    counted: Mutex<[u64; Limit::ALL.len()]>,
}

impl FrontFamilies {
    pub(super) fn new(sources: FrontSources) -> Self {
        let bytes = family(
            "lantern_bytes_in_flight",
            "Bytes of bodies that are read, and of answers that clients have not taken",
            MetricKind::Gauge,
            &[],
        );
        let connections = family(
            "lantern_connections",
            "Connections of clients",
            MetricKind::Gauge,
            &[],
        );
        let handshakes = family(
            "lantern_tls_handshakes",
            "TLS handshakes under way",
            MetricKind::Gauge,
            &[],
        );
        let refused_tenants = family(
            "lantern_tenants_file_refused",
            "Whether the file of tenants is wrong, so that an earlier one is in force",
            MetricKind::Gauge,
            &[],
        );
        let refusals = family(
            "lantern_refusals_total",
            "What limits of the server refused to clients",
            MetricKind::Counter,
            &["limit"],
        );
        Self {
            sources,
            bytes: bytes.bind(&[], Hold::Kept),
            connections: connections.bind(&[], Hold::Kept),
            handshakes: handshakes.bind(&[], Hold::Kept),
            refusals: Limit::ALL.map(|limit| refusals.bind(&[limit.name()], Hold::Kept)),
            refused_tenants: refused_tenants.bind(&[], Hold::Kept),
            families: [bytes, connections, handshakes, refused_tenants, refusals],
            counted: Mutex::default(),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Family> {
        self.families.iter()
    }

    /// Reads the values.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn refresh(&self) {
        self.bytes.update((self.sources.bytes)() as f64);
        self.connections.update((self.sources.connections)() as f64);
        self.handshakes.update((self.sources.handshakes)() as f64);
        self.refused_tenants
            .update((self.sources.refused_tenants)() as f64);
        let mut counted = self.counted.lock();
        for (limit, (cell, counted)) in Limit::ALL
            .into_iter()
            .zip(self.refusals.iter().zip(&mut *counted))
        {
            let now = self.sources.refusals.of(limit);
            cell.update(now.saturating_sub(*counted) as f64);
            *counted = now;
        }
    }
}

pub(super) fn family(name: &str, help: &str, kind: MetricKind, labels: &[&str]) -> Family {
    let definition = Definition {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        bounds: Arc::default(),
    };
    Family::new(definition, Shards::for_threads(1)).expect("the names are valid")
}
