//! `grpc-timeout`: how long the client will wait.

use std::time::{Duration, Instant};

use hyper::HeaderMap;

use crate::error::{Error, Kind};

const HEADER: &str = "grpc-timeout";
/// As many digits as the protocol allows.
const DIGITS: usize = 8;
/// What a service gets to say itself that the deadline has passed: it knows what it was waiting for.
const GRACE: Duration = Duration::from_millis(100);

/// When a client that called at `arrival` stops waiting.
pub(super) fn deadline(headers: &HeaderMap, arrival: Instant) -> Result<Option<Instant>, Error> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let timeout = parse(value.as_bytes()).ok_or_else(|| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let message = format!(
            "grpc-timeout must be up to {DIGITS} digits and one of H, M, S, m, u, n, got {value:?}"
        );
        Error::new(Kind::BadRequest, message)
    })?;
    Ok(arrival.checked_add(timeout))
}

/// When the dispatcher gives a call up.
pub(super) fn with_grace(deadline: Instant) -> tokio::time::Instant {
    (deadline + GRACE).into()
}

/// The failure of a call that took longer.
pub(super) fn expired() -> Error {
    Error::new(Kind::Expired, "The deadline of the call passed")
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("30S", Duration::from_secs(30)),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "1.5S",
            "123456789S",
            "1 S",
            "S1",
            "+1S",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
