//! Whether to stay awake for the next message.
//!
//! Waking a thread that sleeps costs 40 to 50 µs, twice for a request that crosses to a worker process and back, and is
//! nearly all that a lone request costs there. A reader that stays awake for a moment saves that, at the price of a
//! core. So it does where messages were that quick to come before, and nowhere else: an idle process sleeps, and so
//! does one whose model takes its time. `benches/process.rs` shows what it is worth.

use std::time::Duration;

/// How long a reader stays awake at most.
pub const PATIENCE: Duration = Duration::from_micros(200);

/// A wait that ended so soon although the reader slept would have ended within [`PATIENCE`], had both sides been awake.
const SOON: Duration = Duration::from_micros(300);

/// Waits that ended soon until waiting awake is taken up, and what one vain vigil takes back.
const CONVINCED: u8 = 8;

/// What is remembered of earlier waits.
#[derive(Debug, Default)]
pub struct Vigil {
    trust: u8,
}

impl Vigil {
    /// Whether the next message may be expected while awake.
    pub const fn is_worth_it(&self) -> bool {
        self.trust >= CONVINCED
    }

    /// Takes a wait into account that was begun awake or asleep.
    pub fn note(&mut self, waited: Duration, was_awake: bool) {
        self.trust = match was_awake {
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
        let mut vigil = Vigil::default();
        let waits = (0..20).position(|_| {
            vigil.note(SHORT, false);
            vigil.is_worth_it()
        });
        assert_eq!(waits, Some(7));
    }

    #[test]
    fn one_vain_vigil_is_forgiven_and_the_second_is_not() {
        let mut vigil = Vigil { trust: 16 };
        vigil.note(LONG, true);
        assert!(vigil.is_worth_it());
        vigil.note(LONG, true);
        assert!(!vigil.is_worth_it());
    }

    #[test]
    fn a_slow_model_never_convinces() {
        let mut vigil = Vigil::default();
        for _ in 0..100 {
            vigil.note(LONG, false);
            vigil.note(SHORT, false);
            assert!(!vigil.is_worth_it());
        }
    }
}
