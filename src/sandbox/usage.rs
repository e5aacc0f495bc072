//! What a process uses, as the kernel says from outside.

/// What a process uses at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory in use that are no file's: its own, what it shares, what was swapped out, and what the kernel needs to map them.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
}

/// The lines that say what memory is in use.
const MEMORY: [&str; 4] = ["RssAnon", "RssShmem", "VmSwap", "VmPTE"];

/// What the process `pid` uses; `None` if it is gone, or no process of which this one may know.
pub fn of(pid: u32) -> Option<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    read(&status)
}

/// The lines are the kernel's, but the first, which holds the name that a process chooses for itself, escaped.
fn read(status: &str) -> Option<Usage> {
    let number = |name: &str| {
        let line = status
            .lines()
            .skip(1)
            .find_map(|line| line.strip_prefix(name))?;
        let digits = line.trim_start_matches(':').trim();
        let digits = digits.split(' ').next()?;
        digits.parse::<u64>().ok()
    };
    let kibibytes = |name: &str| number(name).map(|count| count.saturating_mul(1024));
    Some(Usage {
        // A process that is ending has no memory any more.
        memory: MEMORY.into_iter().filter_map(kibibytes).sum(),
        threads: number("Threads")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_threads_are_read() {
        let status = "Name:\tThreads:\\n9\nVmRSS:\t 99 kB\nVmPTE:\t 4 kB\nRssAnon:\t      12 kB\nRssFile:\t 70 kB\nRssShmem:\t 3 kB\nThreads:\t4\n";
        let usage = Usage {
            memory: 19 << 10,
            threads: 4,
        };
        assert_eq!(read(status), Some(usage));
        assert_eq!(
            read("Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n").map(|usage| usage.memory),
            Some(0)
        );
        assert_eq!(read(""), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = of(std::process::id()).unwrap();
        assert!(usage.memory > 0 && usage.threads > 0, "{usage:?}");
        assert_eq!(of(0), None);
    }
}
