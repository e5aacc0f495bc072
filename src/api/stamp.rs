//! Timestamps as TorchServe's logs have them: `2026-11-20T15:20:39,500`. In UTC.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

const DAY: u64 = 24 * 60 * 60;

/// A moment of the calendar, in UTC.
struct Calendar {
    year: u64,
    month: u64,
    day: u64,
    seconds: u64,
    milliseconds: u32,
}

/// Appends `time` with `mark` between seconds and milliseconds: a comma in logs, a point in JSON.
pub fn write_timestamp(line: &mut Vec<u8>, time: SystemTime, mark: char) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let Calendar {
        year,
        month,
        day,
        seconds,
        milliseconds,
    } = calendar(since.unwrap_or_default());
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
    );
}

/// Howard Hinnant's `civil_from_days`, for days from 1970 on.
fn calendar(since_epoch: Duration) -> Calendar {
    let days = since_epoch.as_secs() / DAY + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is month 0 here, so that the leap day is the year's last.
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    Calendar {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * shifted + 2) / 5 + 1,
        seconds: since_epoch.as_secs() % DAY,
        milliseconds: since_epoch.subsec_millis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seconds: u64, milliseconds: u64) -> String {
        let time = SystemTime::UNIX_EPOCH
            + Duration::from_secs(seconds)
            + Duration::from_millis(milliseconds);
        let mut line = Vec::new();
        write_timestamp(&mut line, time, ',');
        String::from_utf8_lossy(&line).into_owned()
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00,000");
        assert_eq!(shown(951_782_399, 7), "2000-02-28T23:59:59,007");
        assert_eq!(shown(951_782_400, 0), "2000-02-29T00:00:00,000");
        assert_eq!(shown(951_868_800, 0), "2000-03-01T00:00:00,000");
        assert_eq!(shown(4_102_444_799, 999), "2099-12-31T23:59:59,999");
    }
}
