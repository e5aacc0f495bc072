//! Whether a reader should busy-poll for the next message.
//!
//! Waking a thread that sleeps costs 40 to 50 µs, twice for a request that crosses to a worker process and back, and is
//! nearly all that a lone request costs there. A reader that polls for a moment saves that, at the price of a core. It
//! does so only where earlier messages came that quickly: an idle process sleeps, and so does one whose model is slow. `benches/process.rs` shows what it is worth.

use std::time::Duration;

/// How long a reader polls at most.
pub const POLL_LIMIT: Duration = Duration::from_micros(200);

/// A wait of a sleeping reader that ended within this time would have ended within [`POLL_LIMIT`] if both sides had polled.
const SHORT_WAIT: Duration = Duration::from_micros(300);

/// Short waits after which a reader begins to poll, and what one poll without a message takes back.
const SHORT_WAITS_NEEDED: u8 = 8;

/// How long earlier waits took.
#[derive(Debug, Default)]
pub struct BusyPoll {
    short_waits: u8,
}

impl BusyPoll {
    /// Whether the next message may be expected within [`POLL_LIMIT`].
    pub const fn is_worth_it(&self) -> bool {
        self.short_waits >= SHORT_WAITS_NEEDED
    }

    /// Takes a wait into account, during which the reader polled or slept.
    pub fn note(&mut self, waited: Duration, has_polled: bool) {
        self.short_waits = match has_polled {
            true if waited > POLL_LIMIT => self.short_waits.saturating_sub(SHORT_WAITS_NEEDED),
            false if waited > SHORT_WAIT => self.short_waits.saturating_sub(1),
            _ => (self.short_waits + 1).min(2 * SHORT_WAITS_NEEDED),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(50);

    #[test]
    fn short_waits_start_polling() {
        let mut busy_poll = BusyPoll::default();
        let waits = (0..20).position(|_| {
            busy_poll.note(SHORT, false);
            busy_poll.is_worth_it()
        });
        assert_eq!(waits, Some(7));
    }

    #[test]
    fn one_poll_in_vain_is_tolerated_and_the_second_is_not() {
        let mut busy_poll = BusyPoll { short_waits: 16 };
        busy_poll.note(LONG, true);
        assert!(busy_poll.is_worth_it());
        busy_poll.note(LONG, true);
        assert!(!busy_poll.is_worth_it());
    }

    #[test]
    fn a_slow_model_never_starts_polling() {
        let mut busy_poll = BusyPoll::default();
        for _ in 0..100 {
            busy_poll.note(LONG, false);
            busy_poll.note(SHORT, false);
            assert!(!busy_poll.is_worth_it());
        }
    }
}
