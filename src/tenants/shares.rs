//! Which tenants' processes use more of the processors than their share, so that the kernel may have them come after others.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Whoever uses less than this part of a processor leaves all of it to the others.
const IDLE: f64 = 0.02;
/// How much more than a share is still taken for one: what is measured in ticks is not exact.
const TOLERANCE: f64 = 1.25;

/// CPU seconds of a tenant's processes since it came, and its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// What the ledger knows it by.
    pub(super) number: u64,
    pub(super) weight: u32,
    pub(super) seconds: f64,
}

/// What each had used when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Shares {
    looked: Option<Instant>,
    seconds: HashMap<u64, f64>,
}

impl Shares {
    /// Those that used more than their share of so many cores in the time since the last look, beside others that used some, too. A share
    /// is that of those who used some, by their weights.
    pub(super) fn beyond(&mut self, all: &[Used], cores: usize, now: Instant) -> HashSet<u64> {
        let seconds = all.iter().map(|one| (one.number, one.seconds)).collect();
        let before = std::mem::replace(&mut self.seconds, seconds);
        let Some(looked) = self.looked.replace(now) else {
            return HashSet::new();
        };
        let held = (now - looked).as_secs_f64().max(f64::EPSILON);
        let rate = |one: &Used| {
            let before = before.get(&one.number).copied().unwrap_or(one.seconds);
            (one.seconds - before) / held
        };
        let active: Vec<_> = all
            .iter()
            .map(|one| (one, rate(one)))
            .filter(|(_, rate)| *rate >= IDLE)
            .collect();
        let weights: f64 = active.iter().map(|(one, _)| f64::from(one.weight)).sum();
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let cores = cores as f64;
        let is_beyond = |(one, rate): &(&Used, f64)| {
            let share = cores * f64::from(one.weight) / weights;
            *rate > share * TOLERANCE
        };
        let beyond = active.into_iter().filter(is_beyond);
        beyond.map(|(one, _)| one.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Who of tenants with such weights is beyond its share of two cores, of what each uses in a second.
    fn beyond(all: &[(u32, f64)]) -> Vec<u64> {
        let used = |from: f64| -> Vec<Used> {
            (0..)
                .zip(all)
                .map(|(number, (weight, seconds))| Used {
                    number,
                    weight: *weight,
                    seconds: 7.0 + seconds * from,
                })
                .collect()
        };
        let (mut shares, now) = (Shares::default(), Instant::now());
        assert!(shares.beyond(&used(0.0), 2, now).is_empty());
        let beyond = shares.beyond(&used(1.0), 2, now + Duration::from_secs(1));
        let mut beyond: Vec<_> = beyond.into_iter().collect();
        beyond.sort_unstable();
        beyond
    }

    #[test]
    fn only_who_takes_from_others_is_beyond_its_share() {
        for (all, expected) in [
            (&[][..], &[][..]),
            (&[(1, 2.0)], &[]),
            (&[(1, 2.0), (1, 0.0)], &[]),
            (&[(1, 1.8), (1, 0.2)], &[0]),
            (&[(1, 1.0), (1, 1.0)], &[]),
            (&[(1, 1.2), (1, 0.8)], &[]),
            (&[(1, 1.0), (3, 1.0)], &[0]),
            (&[(1, 0.5), (3, 1.5)], &[]),
            (&[(1, 0.3), (1, 0.3), (1, 1.4)], &[2]),
        ] {
            assert_eq!(beyond(all), expected, "{all:?}");
        }
    }
}
