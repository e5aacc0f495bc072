//! The host's own series: processor, memory, disk. Read from the kernel when a scrape asks for them.

use parking_lot::Mutex;

use super::families::Families;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const GIGABYTE: f64 = 1024.0 * MEGABYTE;

/// The host's name, as the kernel has it.
pub(super) fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Processor time since boot, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    total: u64,
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

/// Measures the host.
pub(super) struct Host {
    pub(super) hostname: String,
    last: Mutex<Ticks>,
}

impl Host {
    pub(super) fn new(hostname: String) -> Self {
        Self {
            hostname,
            last: Mutex::default(),
        }
    }

    /// Sets the host's gauges. Three small reads from `/proc` and one system call, none of which waits for a disk.
    pub(super) fn measure(&self, families: &Families) {
        let labels = ["Host", self.hostname.as_str()];
        if let Some(percent) = self.processor() {
            families
                .cpu_utilization
                .with_label_values(&labels)
                .set(percent);
        }
        if let Some(memory) = read_memory() {
            let used = memory.total.saturating_sub(memory.available);
            families
                .memory_used
                .with_label_values(&labels)
                .set(float(used) / 1024.0);
            families
                .memory_available
                .with_label_values(&labels)
                .set(float(memory.available) / 1024.0);
            families
                .memory_utilization
                .with_label_values(&labels)
                .set(percent(used, memory.total));
        }
        Self::measure_disk(families, &labels);
    }

    fn measure_disk(families: &Families, labels: &[&str]) {
        let Ok(disk) = rustix::fs::statvfs("/") else {
            return;
        };
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        let gigabytes = |blocks: u64| float(blocks) * float(disk.f_frsize) / GIGABYTE;
        families
            .disk_used
            .with_label_values(labels)
            .set(gigabytes(used));
        families
            .disk_available
            .with_label_values(labels)
            .set(gigabytes(disk.f_bavail));
        families
            .disk_utilization
            .with_label_values(labels)
            .set(percent(used, used + disk.f_bavail));
    }

    /// Share of processor time in use since the last call; since boot at the first.
    fn processor(&self) -> Option<f64> {
        let now = parse_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let before = std::mem::replace(&mut *self.last.lock(), now);
        let total = now.total.saturating_sub(before.total);
        Some(percent(now.busy.saturating_sub(before.busy), total))
    }
}

fn read_memory() -> Option<Memory> {
    parse_memory(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// The first line of `/proc/stat`: `cpu user nice system idle iowait irq softirq steal …`.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let total = ticks.iter().sum();
    Some(Ticks {
        busy: total - idle,
        total,
    })
}

fn parse_memory(text: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Some(Memory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    100.0 * float(part) / float(whole)
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_understood() {
        let stat = "cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1 2 3 4\n";
        assert_eq!(
            parse_ticks(stat),
            Some(Ticks {
                busy: 20,
                total: 100
            })
        );
        let memory = "MemTotal:  100 kB\nMemFree: 10 kB\nMemAvailable:   40 kB\n";
        assert_eq!(
            parse_memory(memory),
            Some(Memory {
                total: 100,
                available: 40
            })
        );
    }

    #[test]
    fn odd_kernel_files_give_nothing() {
        for text in ["", "cpu", "cpu x y", "intr 1 2"] {
            assert_eq!(parse_ticks(text), None);
            assert_eq!(parse_memory(text), None);
        }
    }
}
