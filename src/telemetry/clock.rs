//! Times in logs: `2026-11-20T15:20:39,500` in local time in text, RFC 3339 in UTC in JSON.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// The time zone of the logs.
#[derive(Debug, Clone)]
pub(super) struct Clock(TimeZone);

impl Clock {
    /// A clock in the zone that the system is set to, or in UTC if it is set to none.
    pub fn of_system() -> Self {
        Self(TimeZone::system())
    }

    /// A clock in a given zone.
    #[cfg(test)]
    pub const fn of_zone(zone: TimeZone) -> Self {
        Self(zone)
    }

    /// The day that `time` falls on.
    pub fn day(&self, time: SystemTime) -> Date {
        self.0.to_datetime(timestamp(time)).date()
    }

    /// Appends `time` in local time, to the millisecond.
    pub fn write_local(&self, line: &mut Vec<u8>, time: SystemTime) {
        write(line, self.0.to_datetime(timestamp(time)), b',');
    }

    /// Appends `time` in UTC.
    pub fn write_utc(line: &mut Vec<u8>, time: SystemTime) {
        write(line, TimeZone::UTC.to_datetime(timestamp(time)), b'.');
        line.push(b'Z');
    }
}

/// Converts a time. One that the calendar does not have comes from a wrong clock, and becomes the default, not an error.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Digit by digit, as every line begins with a time and `format!` takes longer for it than for the rest of the line.
fn write(line: &mut Vec<u8>, at: DateTime, mark: u8) {
    let (date, time) = (at.date(), at.time());
    let mut text = *b"0000-00-00T00:00:00,000";
    text[19] = mark;
    set_digits(&mut text[0..4], date.year().unsigned_abs());
    set_digits(&mut text[20..23], time.millisecond().unsigned_abs());
    for (at, value) in [
        (5, date.month()),
        (8, date.day()),
        (11, time.hour()),
        (14, time.minute()),
        (17, time.second()),
    ] {
        set_digits(&mut text[at..at + 2], value.unsigned_abs().into());
    }
    line.extend_from_slice(&text);
}

/// Sets `digits` to the last digits of `value`.
fn set_digits(digits: &mut [u8], mut value: u16) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[usize::from(value % 10)];
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz;

    use super::*;

    #[test]
    fn text_is_in_local_time_and_json_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_399_007);
        let clock = Clock::of_zone(TimeZone::fixed(tz::offset(2)));
        let mut line = Vec::new();
        clock.write_local(&mut line, time);
        line.push(b' ');
        Clock::write_utc(&mut line, time);
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "2000-02-29T01:59:59,007 2000-02-28T23:59:59.007Z");
        assert_eq!(clock.day(time).day(), 29);
    }
}
