//! What the worker processes of a catalog use, as the kernel says, counted for their owner.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Catalog;

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

    /// Has worker processes come after other owners' where the kernel decides, or among them again. Where it groups no sessions this does
    /// nothing. Returns whether all are where they belong. Blocks for some time.
    pub fn set_back(&self, is_back: bool) -> bool {
        let mut is_done = true;
        for entry in self.entries() {
            if let Err(error) = entry.set_back(is_back) {
                is_done = false;
                let model = entry.spec().name.as_str();
                tracing::debug!(model, is_back, %error, "the kernel does not place a process");
            }
        }
        is_done
    }
}
