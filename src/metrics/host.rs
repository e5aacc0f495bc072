//! The machine's own metrics, as TorchServe's collector has them: processor, memory, disk and NVIDIA's devices; or what
//! a command prints that the operator names.
//!
//! They are collected at an interval, beside everything else: a scrape shows the last values and reads nothing from
//! the machine.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use super::listing::ts;
use super::{Metrics, MetricsState};

mod command;
mod gpu;

use gpu::Gpus;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const GIGABYTE: f64 = 1024.0 * MEGABYTE;

/// The host's name, as the kernel has it.
pub(super) fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// How the machine is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// From one collection to the next.
    pub interval: Duration,
    /// A program and its arguments that print metrics, instead of what the server measures.
    pub command: Vec<String>,
    /// The whole environment of that program.
    pub environment: Vec<(OsString, OsString)>,
}

/// Collects the machine's metrics.
pub struct SystemCollector {
    state: Arc<MetricsState>,
    system: System,
}

impl Metrics {
    /// Collects the machine's metrics as `system` says.
    pub fn collector(&self, system: System) -> SystemCollector {
        SystemCollector {
            state: Arc::clone(&self.0),
            system,
        }
    }
}

impl SystemCollector {
    /// Collects at once and then at every interval. Never ends.
    pub async fn run(self) {
        let mut interval = tokio::time::interval(self.system.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut machine = Machine::new();
        loop {
            interval.tick().await;
            if self.system.command.is_empty() {
                machine = self.measure(machine).await;
            } else {
                self.run_command().await;
            }
        }
    }

    /// Measures on a thread where it may block, as a driver may be slow.
    async fn measure(&self, mut machine: Machine) -> Machine {
        let state = Arc::clone(&self.state);
        let measured = tokio::task::spawn_blocking(move || {
            machine.measure(&state);
            machine
        });
        // The task fails only if it panics, which is logged where it happens.
        measured.await.unwrap_or_else(|_| Machine::new())
    }

    async fn run_command(&self) {
        match command::run(&self.system).await {
            Ok(output) => {
                let lines = output.lines().filter(|line| !line.trim().is_empty());
                let strange = lines.filter(|line| !self.state.server.take_line(line));
                if let Some(line) = strange.take(1).next() {
                    let line: String = line.chars().take(200).collect();
                    tracing::warn!(
                        "system_metrics_cmd printed a line that is no metric of ts_metrics: {line:?}"
                    );
                }
            }
            Err(error) => tracing::warn!("system_metrics_cmd: {error}"),
        }
    }
}

/// What measuring the machine needs to keep between two measurements.
struct Machine {
    /// `None` on an operating system that the library does not support.
    system: Option<sysinfo::System>,
    gpus: Gpus,
}

impl Machine {
    fn new() -> Self {
        Self {
            system: sysinfo::System::new().ok(),
            gpus: Gpus::Unknown,
        }
    }

    fn measure(&mut self, state: &MetricsState) {
        if let Some(system) = &mut self.system {
            measure_system(system, state);
        }
        if let Some(disk) = Disk::root() {
            let whole = (disk.used + disk.available).max(1.0);
            state.set(ts::DISK_USAGE, None, disk.used / GIGABYTE);
            state.set(ts::DISK_AVAILABLE, None, disk.available / GIGABYTE);
            state.set(ts::DISK_UTILIZATION, None, 100.0 * disk.used / whole);
        }
        for gpu in self.gpus.measure() {
            let (index, used) = (Some(gpu.index.as_str()), gpu.memory_used);
            let percent = 100.0 * used / gpu.memory_total.max(1.0);
            state.set(ts::GPU_UTILIZATION, index, gpu.utilization);
            state.set(ts::GPU_MEMORY_USED, index, used / MEGABYTE);
            state.set(ts::GPU_MEMORY_UTILIZATION, index, percent);
        }
    }
}

fn measure_system(system: &mut sysinfo::System, state: &MetricsState) {
    system.refresh_cpu_usage();
    system.refresh_memory();
    let processor = f64::from(system.global_cpu_usage());
    let (total, available) = (system.total_memory(), system.available_memory());
    let used = total.saturating_sub(available);
    state.set(ts::CPU_UTILIZATION, None, processor);
    state.set(ts::MEMORY_USED, None, float(used) / MEGABYTE);
    state.set(ts::MEMORY_AVAILABLE, None, float(available) / MEGABYTE);
    let percent = 100.0 * float(used) / float(total.max(1));
    state.set(ts::MEMORY_UTILIZATION, None, percent);
}

impl MetricsState {
    /// Sets a metric of the machine, or of its device `device`, if it is listed.
    fn set(&self, name: &str, device: Option<&str>, value: f64) {
        let hostname = self.server.hostname.as_str();
        let bound = match device {
            None => self.server.bind(name, &["Host", hostname]),
            Some(device) => self.server.bind(name, &["Host", device, hostname]),
        };
        bound.update(value, "");
    }
}

/// Bytes of a file system.
struct Disk {
    used: f64,
    available: f64,
}

impl Disk {
    /// Those of the file system at `/`. The kernel is asked for it by path, since libraries that list disks leave out the
    /// file systems that containers run on.
    fn root() -> Option<Self> {
        let disk = rustix::fs::statvfs("/").ok()?;
        let bytes = |blocks| float(blocks) * float(disk.f_frsize);
        Some(Self {
            used: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
            available: bytes(disk.f_bavail),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
const fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
