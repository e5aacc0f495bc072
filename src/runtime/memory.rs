//! What a process takes of the machine, as Linux says.

use std::time::Duration;

/// Resident memory of a process in bytes; 0 when it is gone.
pub(super) fn resident(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * rustix::param::page_size() as u64
}

/// The most resident memory that a process has had, in bytes; 0 when it is gone.
pub(super) fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kib(&status, "VmHWM:").unwrap_or(0)
}

/// Bytes of memory that the machine can give without swapping; `None` if it does not say.
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    kib(&text, "MemAvailable:")
}

/// Bytes on the line of `text` that begins with `name`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number.saturating_mul(1024))
}

/// CPU time that a process has used so far, all its threads together; zero when it is gone.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let each = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    Duration::from_nanos(ticks.saturating_mul(each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_of_this_process_are_known_and_of_none_are_nothing() {
        let pid = std::process::id();
        let before = cpu_time(pid);
        let mut sum = 0u64;
        while cpu_time(pid) == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident(pid) > 0 && peak(pid) > 0 && available() > Some(0));
        assert_eq!(
            (cpu_time(u32::MAX), resident(u32::MAX)),
            (Duration::ZERO, 0)
        );
    }
}
