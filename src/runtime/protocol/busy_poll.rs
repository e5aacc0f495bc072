//! Whether a reader should busy-poll for the next message.
//!
//! Waking a thread that sleeps costs 40 to 50 µs, twice for a request that crosses to a worker process and back, and is
//! nearly all that a lone request costs there. A reader that polls for a moment saves that, at the price of a core. It
//! does so only where earlier messages came that quickly: an idle process sleeps, and so does one whose model is slow. `benches/process.rs` shows what it is worth.

use std::time::Duration;

/// How long a reader polls at most.
pub const PATIENCE: Duration = Duration::from_micros(200);

/// A wait of a sleeping reader that ended within this time would have ended within [`PATIENCE`] if both sides had polled.
const SOON: Duration = Duration::from_micros(300);

/// Short waits after which a reader begins to poll, and what one poll without a message takes back.
const CONVINCED: u8 = 8;

/// How long earlier waits took.
#[derive(Debug, Default)]
pub struct BusyPoll {
    trust: u8,
}

impl BusyPoll {
    /// Whether the next message may be expected within [`PATIENCE`].
    pub const fn is_worth_it(&self) -> bool {
        self.trust >= CONVINCED
    }

    /// Takes a wait into account, during which the reader polled or slept.
    pub fn note(&mut self, waited: Duration, has_polled: bool) {
        self.trust = match has_polled {
            true if waited > PATIENCE => self.trust.saturating_sub(CONVINCED),
            false if waited > SOON => self.trust.saturating_sub(1),
            _ => (self.trust + 1).min(2 * CONVINCED),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(50);

    #[test]
    fn quick_messages_convince() {
        let mut busy_poll = BusyPoll::default();
        let waits = (0..20).position(|_| {
            busy_poll.note(SHORT, false);
            busy_poll.is_worth_it()
        });
        assert_eq!(waits, Some(7));
    }

    #[test]
    fn one_poll_in_vain_is_tolerated_and_the_second_is_not() {
        let mut busy_poll = BusyPoll { trust: 16 };
        busy_poll.note(LONG, true);
        assert!(busy_poll.is_worth_it());
        busy_poll.note(LONG, true);
        assert!(!busy_poll.is_worth_it());
    }

    #[test]
    fn a_slow_model_never_convinces() {
        let mut busy_poll = BusyPoll::default();
        for _ in 0..100 {
            busy_poll.note(LONG, false);
            busy_poll.note(SHORT, false);
            assert!(!busy_poll.is_worth_it());
        }
    }
}
