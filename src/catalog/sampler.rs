//! What the worker processes of a catalog use, as the kernel says, counted for their owner.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Catalog;
use crate::sandbox::session;

/// Those who ask more often are told what is known.
const SOONEST: Duration = Duration::from_millis(100);

/// What processes had used when they were last looked at.
#[derive(Debug, Default)]
pub struct Sampler {
    looked: Option<Instant>,
    cpu: HashMap<u32, Duration>,
}

impl Catalog {
    /// Counts what worker processes have used since the last time, and the most memory that each had when it was first looked at. What a process used between the
    /// last time and its end is not known. Reads files of the system, some for each process.
    pub fn sample(&self, sampler: &mut Sampler) {
        let now = Instant::now();
        if sampler.looked.is_some_and(|looked| now - looked < SOONEST) {
            return;
        }
        let held = sampler.looked.map_or(Duration::ZERO, |looked| now - looked);
        let (mut cpu, mut used, mut bytes) = (HashMap::new(), Duration::ZERO, 0);
        for entry in self.entries() {
            let status = entry.status();
            for worker in status.iter().flat_map(|status| &status.workers) {
                if cpu.contains_key(&worker.pid) {
                    continue;
                }
                let so_far = worker.cpu_time();
                let before = sampler.cpu.get(&worker.pid).copied().unwrap_or_default();
                used += so_far.saturating_sub(before);
                bytes += worker.memory();
                if !sampler.cpu.contains_key(&worker.pid) {
                    // What it needed to load: what requests make of it later keeps nothing from loading.
                    let peaks = &self.state.parts.peaks;
                    peaks.note(entry.digest(), worker.peak_memory());
                }
                cpu.insert(worker.pid, so_far);
            }
        }
        *sampler = Sampler {
            looked: Some(now),
            cpu,
        };
        self.state.parts.owner.sampled(used, bytes, held);
    }

    /// Has worker processes come after other owners' where the kernel decides, or among them again. Does what it can: where the kernel does not
    /// group sessions, nothing. Returns whether all are where they belong. Reads files of the system, two for each process.
    pub fn set_back(&self, is_back: bool) -> bool {
        let mut is_done = true;
        for entry in self.entries() {
            let status = entry.status();
            for worker in status.iter().flat_map(|status| &status.workers) {
                let placed = session::set_back(worker.pid, is_back);
                is_done &= placed.is_ok();
                if !matches!(placed, Ok(false)) {
                    tracing::debug!(pid = worker.pid, is_back, ?placed, "a process is placed");
                }
            }
        }
        is_done
    }
}
