//! Whether to stay awake for the next message.
//!
//! Waking a thread that sleeps costs 40 to 50 µs, twice for a request that crosses to a worker process and back, and is
//! nearly all that a lone request costs there. A reader that stays awake for a moment saves that, at the price of a
//! core. So it does where messages were that quick to come before, and nowhere else: an idle process sleeps, and so
//! does one whose model takes its time.

use std::time::Duration;

/// How long a reader stays awake at most.
pub const PATIENCE: Duration = Duration::from_micros(150);

/// Waits that ended within [`PATIENCE`] until waiting awake is taken up; as many that did not end it.
const CONVINCED: u8 = 4;

/// What is remembered of earlier waits.
#[derive(Debug, Default)]
pub struct Vigil {
    quick: u8,
}

impl Vigil {
    /// Whether the next message may be expected while awake.
    pub const fn is_worth_it(&self) -> bool {
        self.quick >= CONVINCED
    }

    /// Takes a wait into account, asleep or awake.
    pub fn note(&mut self, waited: Duration) {
        self.quick = if waited <= PATIENCE {
            (self.quick + 1).min(2 * CONVINCED)
        } else {
            self.quick.saturating_sub(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_messages_convince_and_slow_ones_dissuade() {
        let mut vigil = Vigil::default();
        let quick = (0..20).position(|_| {
            vigil.note(Duration::from_micros(50));
            vigil.is_worth_it()
        });
        let slow = (0..20).position(|_| {
            vigil.note(Duration::from_millis(50));
            !vigil.is_worth_it()
        });
        assert_eq!((quick, slow), (Some(3), Some(0)));
    }
}
