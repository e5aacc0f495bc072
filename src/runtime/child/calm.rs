//! Memory that runs needed goes back when few calls come: to the allocator from the framework, and from there to the kernel.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::host::Host;
use crate::{backend, memory};

/// How often it is looked whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(1);

/// Calls in that time that are few.
const FEW: u64 = 16;

/// Looks that are left out after memory was given back.
const REST: u32 = 4;

/// What calls leave behind.
#[derive(Debug, Default)]
struct Calm {
    /// Calls that had begun at the last look.
    seen: u64,
    /// Calls that had begun when memory was given back; loading and trying out the model leave something behind, too.
    given_back: Option<u64>,
    resting: u32,
}

impl Calm {
    /// Whether memory is to be given back now that so many calls have begun, and all of them ended if it `is_idle`.
    fn is_due(&mut self, begun: u64, is_idle: bool) -> bool {
        let are_few = begun - self.seen <= FEW;
        self.seen = begun;
        self.resting = self.resting.saturating_sub(1);
        let is_due = is_idle && are_few && self.given_back != Some(begun) && self.resting == 0;
        if is_due {
            (self.given_back, self.resting) = (Some(begun), REST);
        }
        is_due
    }
}

/// Gives memory back for as long as there is a host.
pub async fn give_memory_back(host: Weak<Host>) {
    let mut calm = Calm::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(host) = host.upgrade() else { return };
        if calm.is_due(host.begun(), host.is_idle()) {
            // A thread that serves would be held up for milliseconds. Where there is none for this, memory stays.
            let given_back = std::thread::Builder::new().spawn(|| {
                backend::give_back();
                memory::give_back();
            });
            drop(given_back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_calls_and_when_few_come() {
        let mut calm = Calm::default();
        for (begun, is_idle, expected) in [
            (0, true, true),
            (0, true, false),
            (0, true, false),
            (0, true, false),
            (1000, false, false),
            (2000, true, false),
            (2001, false, false),
            (2001, true, true),
            (2001, true, false),
            (2002, true, false),
            (2002, true, false),
            (2002, true, true),
            (2002, true, false),
        ] {
            assert_eq!(calm.is_due(begun, is_idle), expected, "{begun} {is_idle}");
        }
    }
}
