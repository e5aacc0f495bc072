//! The walls around worker processes: what one may read and use, as a policy for the kernel, and what is watched from here.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ProcessConfig;
use super::spawn::{absolute, from_anywhere};
use crate::model::{Device, Limits, ModelSpec};
use crate::sandbox::cgroup::{Delegated, Leaf};
use crate::sandbox::{
    self, Calls, Demand, Demands, Outcome, OwnUser, Policy, Users, Wall, handover, usage,
};

/// Between two looks at what a process uses.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Bytes of a process's scratch directory.
const SCRATCH: u64 = 64 << 20;

/// Files that a process may have open: those of its archive and of libraries. Each can hold some memory of the kernel's.
const OPEN_FILES: u64 = 256;

/// Files that a process with GPUs may have open.
const OPEN_FILES_OF_CUDA: u64 = 8192;

/// The kernel ends a worker process before the server when memory runs out.
const OOM_SCORE: u16 = 500;

/// What every process with native libraries reads: libraries, time zones, what the machine has.
const SYSTEM: [&str; 17] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/proc/filesystems",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

/// Devices without which libraries do not work.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/random", "/dev/urandom"];

/// What CUDA reads beside them.
const CUDA: [&str; 12] = [
    "/usr/local/cuda",
    "/usr/share/nvidia",
    "/etc/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/driver/nvidia",
    "/proc/driver/nvidia-uvm",
    "/sys/bus/pci",
    "/sys/class",
    "/sys/devices",
    "/sys/module",
    "/sys/fs/cgroup",
];

/// How worker processes are walled in.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// Which walls are wanted.
    pub demands: Demands,
    /// The users that processes become, where the server is root.
    pub users: Users,
    /// The group that was delegated to the server, or why there is none.
    pub groups: Result<Arc<Delegated>, String>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            demands: Demands::default(),
            users: Users::default(),
            groups: Err("no group was looked for".to_owned()),
        }
    }
}

impl SandboxConfig {
    /// With a group of the kernel's for each process, where one was delegated to this process.
    pub fn new(demands: Demands) -> Self {
        let groups = if demands.of(Wall::Cgroup) == Demand::Off {
            Err("it is off".to_owned())
        } else {
            Delegated::find().map(Arc::new)
        };
        Self {
            demands,
            users: Users::default(),
            groups,
        }
    }
}

/// What a process has to reach, and what it may use.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The unpacked archive.
    pub directory: Option<&'a Path>,
    /// Whether it computes on a GPU.
    pub has_gpu: bool,
    /// What it may use.
    pub limits: &'a Limits,
}

impl<'a> Needs<'a> {
    /// Of a process that hosts `model`.
    pub fn of(model: &'a ModelSpec) -> Self {
        let mut devices = model.settings.devices.iter();
        Self {
            directory: Some(&model.directory),
            has_gpu: devices.any(|device| matches!(device, Device::Cuda(_))),
            limits: &model.limits,
        }
    }
}

/// Numbers the groups of processes.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// The walls of one process. They must outlive it.
#[derive(Debug)]
pub struct Walls {
    policy: Policy,
    /// Kept for this process.
    _user: Option<OwnUser>,
    leaf: Option<Leaf>,
    cgroup: Outcome,
}

impl Walls {
    /// For a process with these needs.
    pub fn new(cfg: &ProcessConfig, needs: &Needs<'_>) -> Self {
        let user = cfg.sandbox.users.take();
        let (leaf, cgroup) = match leaf(cfg, needs.limits) {
            Ok(leaf) => (Some(leaf), Outcome::Up(String::new())),
            Err(outcome) => (None, outcome),
        };
        Self {
            policy: policy(cfg, needs, user.as_ref().map(OwnUser::number)),
            _user: user,
            leaf,
            cgroup,
        }
    }

    /// Tells the process at the other end of `socket`, as the first message, what its walls are.
    pub fn send(&self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        handover::send(socket.as_fd(), &self.policy, descriptors)
    }

    /// Has the kernel count the process, and says what came of it. A process that needs that and does not have it must not
    /// go on.
    pub fn take(&mut self, pid: u32) -> Result<(), String> {
        if let Some(Err(error)) = self.leaf.as_ref().map(|leaf| leaf.take(pid)) {
            self.cgroup = Outcome::Missing(error.to_string());
        }
        let is_required = self.policy.demands.of(Wall::Cgroup) == Demand::Require;
        match &self.cgroup {
            Outcome::Missing(reason) if is_required => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// What became of the wall that is put up from outside.
    pub fn cgroup(&self) -> (Wall, Outcome) {
        (Wall::Cgroup, self.cgroup.clone())
    }

    /// Whether the kernel ended a process because the memory of the group was used up.
    pub fn ran_out_of_memory(&self) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| leaf.kills() > 0)
    }
}

fn leaf(cfg: &ProcessConfig, limits: &Limits) -> Result<Leaf, Outcome> {
    let weight = cfg.weight.as_ref();
    let weight = weight.map(|weight| weight.load(Ordering::Relaxed).saturating_mul(100));
    let cfg = &cfg.sandbox;
    if cfg.demands.of(Wall::Cgroup) == Demand::Off {
        return Err(Outcome::Off);
    }
    let missing = |reason: String| Outcome::Missing(reason);
    let groups = cfg.groups.clone().map_err(missing)?;
    let number = GROUPS.fetch_add(1, Ordering::Relaxed);
    let name = format!("worker-{number}");
    let made = groups.leaf(
        &name,
        limited(limits.process_memory),
        limited(limits.threads),
        weight,
    );
    made.map_err(|error| missing(error.to_string()))
}

fn bytes(limits: &Limits) -> u64 {
    limits.process_memory as u64
}

/// A limit that nobody set is none.
fn limited(most: usize) -> Option<u64> {
    (most < usize::MAX).then_some(most as u64)
}

/// What a process with these needs may do.
fn policy(cfg: &ProcessConfig, needs: &Needs<'_>, user: Option<u32>) -> Policy {
    let has_gpu = needs.has_gpu;
    let mut readable: Vec<PathBuf> = SYSTEM.map(PathBuf::from).into();
    readable.extend(library_path(&cfg.environment));
    let directories: Vec<PathBuf> = needs.directory.into_iter().map(absolute).collect();
    let mut libraries = Vec::new();
    if let Some(library) = cfg.libraries.onnxruntime.as_deref() {
        let library = from_anywhere(library);
        libraries.extend(
            library
                .parent()
                .filter(|parent| parent.is_absolute())
                .map(Path::to_owned),
        );
    }
    if has_gpu {
        readable.extend(CUDA.map(PathBuf::from));
        readable.extend(libraries.iter().filter_map(|directory| beside(directory)));
    }
    Policy {
        own_session: cfg.weight.is_some(),
        demands: cfg.sandbox.demands.clone(),
        user,
        directories,
        libraries,
        readable,
        devices: devices(has_gpu),
        scratch: Some(SCRATCH),
        limits: sandbox::Limits {
            // CUDA maps more than it uses; what is in use is watched.
            memory: limited(needs.limits.process_memory).filter(|_| !has_gpu),
            threads: limited(needs.limits.threads),
            files: Some(if has_gpu {
                OPEN_FILES_OF_CUDA
            } else {
                OPEN_FILES
            }),
            file_size: Some(SCRATCH),
            cpu: None,
        },
        calls: if has_gpu { Calls::Cuda } else { Calls::Native },
        oom_score: OOM_SCORE,
    }
}

/// Directories in which the dynamic linker searches.
fn library_path(environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let mut variables = environment.iter();
    let found = variables.find(|(name, _)| name == "LD_LIBRARY_PATH");
    let paths = found.map(|(_, paths)| std::env::split_paths(paths).collect::<Vec<_>>());
    let paths = paths.unwrap_or_default().into_iter();
    paths.filter(|path| path.is_absolute()).collect()
}

/// Where packages of Python's keep NVIDIA's libraries: `nvidia` beside the package that `directory` lies in.
pub fn beside(directory: &Path) -> Option<PathBuf> {
    Some(directory.parent()?.parent()?.join("nvidia"))
}

fn devices(has_gpu: bool) -> Vec<PathBuf> {
    let mut devices: Vec<PathBuf> = DEVICES.map(PathBuf::from).into();
    if has_gpu {
        let found = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let names = found.map(|entry| entry.file_name());
        let nvidia = names.filter(|name| name.to_string_lossy().starts_with("nvidia"));
        devices.extend(nvidia.map(|name| Path::new("/dev").join(name)));
    }
    devices
}

/// What a process uses more of than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Bytes of memory that it may use.
    Memory(u64),
    /// Threads that it may have.
    Threads(u64),
}

impl fmt::Display for Excess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(most) => write!(
                formatter,
                "used more than the {most} bytes of memory that it may (lantern.limits.processMemory, \
                 lantern_max_process_memory)"
            ),
            Self::Threads(most) => write!(
                formatter,
                "had more than the {most} threads that it may (lantern.limits.threads, lantern_max_threads)"
            ),
        }
    }
}

/// What the process uses too much of at this moment. Of its memory, `shared` bytes are the front's.
pub fn excess(pid: u32, limits: &Limits, shared: u64) -> Option<Excess> {
    let usage = usage::of(pid)?;
    if usage.memory.saturating_sub(shared) > bytes(limits) {
        return Some(Excess::Memory(bytes(limits)));
    }
    let threads = limits.threads as u64;
    (usage.threads > threads).then_some(Excess::Threads(threads))
}

/// Resolves when the process uses more than it may. For a process that is not watched otherwise yet.
pub async fn exceeded(pid: u32, limits: &Limits) -> Excess {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(excess) = excess(pid, limits, 0) {
            return excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_uses_too_much_is_named_with_the_setting() {
        let pid = std::process::id();
        let limits = |process_memory, threads| Limits {
            process_memory,
            threads,
            ..Limits::default()
        };
        assert_eq!(excess(pid, &limits(usize::MAX, 100_000), 0), None);
        assert_eq!(excess(pid, &limits(1, 100_000), 0), Some(Excess::Memory(1)));
        let threads = excess(pid, &limits(usize::MAX, 0), 0).unwrap();
        assert!(threads.to_string().contains("lantern_max_threads"));
        assert_eq!(excess(0, &limits(1, 1), 0), None);
    }

    #[test]
    fn libraries_are_read_where_the_linker_searches() {
        let environment = [("LD_LIBRARY_PATH".into(), "/a/lib:relative::/b".into())];
        assert_eq!(
            library_path(&environment),
            [Path::new("/a/lib"), Path::new("/b")]
        );
        let capi = Path::new("/site-packages/onnxruntime/capi");
        assert_eq!(beside(capi), Some("/site-packages/nvidia".into()));
    }
}
