//! Groups of the kernel's second kind (cgroup v2), where one was delegated to this process.
//!
//! A group that has members cannot limit those below it, so this process first moves into a leaf of its own; then each
//! process that it starts gets another. Tested on a directory that looks like one; not verified on a delegated group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where groups of the second kind are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";
/// The group that this process moves into.
const FRONT: &str = "lantern-front";
/// What has to be counted in the groups below.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// The most that `cpu.weight` may say.
const HEAVIEST: &str = "10000";
/// Where the kernel says whether it groups the processes of a session.
const AUTOGROUP: &str = "/proc/sys/kernel/sched_autogroup_enabled";

/// How the kernel divides the processor among worker processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// By weight, with `cpu.weight`.
    Weights,
    /// Each session gets as much as another.
    Sessions,
    /// Each thread gets as much as another.
    Threads,
}

impl Division {
    /// How it is for processes that this one starts.
    pub fn find() -> Self {
        if Delegated::find().is_ok_and(|groups| groups.has_processor()) {
            return Self::Weights;
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let is_on = fs::read_to_string(AUTOGROUP).is_ok_and(|text| text.trim() == "1");
        if is_on && is_root_of_processor(&groups) {
            Self::Sessions
        } else {
            Self::Threads
        }
    }
}

/// Whether a process in these groups is in none that divides the processor: only then automatic groups count.
fn is_root_of_processor(groups: &str) -> bool {
    let mut groups = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    groups.all(|(controllers, path)| {
        let counts = controllers.is_empty() || controllers.split(',').any(|name| name == "cpu");
        !counts || path == "/"
    })
}

/// A group that was delegated to this process, whose members it may divide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    root: PathBuf,
}

/// The group of one process. It is removed with this value, which must outlive the process.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
}

impl Delegated {
    /// The group that this process is in, if it may divide it. The reason is for people.
    pub fn find() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let path = own_group(&own).ok_or("this process is in no cgroup v2")?;
        let root = Path::new(MOUNTED).join(path.trim_start_matches('/'));
        if rustix::process::geteuid().is_root() && path != "/" && !is_marked(&root) {
            return Err("root may divide it, but nobody delegated it to the server".to_owned());
        }
        Self::at(&root)
    }

    /// The group at `root`, which this process is in.
    pub fn at(root: &Path) -> Result<Self, String> {
        let file = |name: &str| fs::read_to_string(root.join(name));
        let available =
            file("cgroup.controllers").map_err(|_| "no cgroup v2 is mounted".to_owned())?;
        for controller in CONTROLLERS {
            if !available.split_whitespace().any(|name| name == controller) {
                return Err(format!("the controller {controller} is not delegated"));
            }
        }
        let front = root.join(FRONT);
        let delegate = || -> io::Result<()> {
            make(&front)?;
            write(&front.join("cgroup.procs"), &std::process::id().to_string())?;
            let enabled = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
            write(&root.join("cgroup.subtree_control"), &enabled)
        };
        delegate().map_err(|error| format!("the cgroup is not delegated: {error}"))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Has the processor divided among the groups by weight, if that is delegated; this process comes before all.
    pub fn divide_processor(&self) -> io::Result<()> {
        write(&self.root.join("cgroup.subtree_control"), "+cpu")?;
        write(&self.root.join(FRONT).join("cpu.weight"), HEAVIEST)
    }

    /// Whether the processor can be divided.
    fn has_processor(&self) -> bool {
        let available = fs::read_to_string(self.root.join("cgroup.controllers"));
        available.is_ok_and(|names| names.split_whitespace().any(|name| name == "cpu"))
    }

    /// A group named `name` with limits on bytes of memory and on threads, and a part of the processor in hundredths of what others have.
    pub fn leaf(
        &self,
        name: &str,
        memory: Option<u64>,
        threads: Option<u64>,
        weight: Option<u32>,
    ) -> io::Result<Leaf> {
        let leaf = Leaf {
            path: self.root.join(name),
        };
        make(&leaf.path)?;
        let most = |limit: Option<u64>| limit.map_or("max".to_owned(), |limit| limit.to_string());
        write(&leaf.path.join("memory.max"), &most(memory))?;
        write(&leaf.path.join("pids.max"), &most(threads))?;
        if let Some(weight) = weight {
            // There is no such file where the processor is not divided.
            let _ = write(
                &leaf.path.join("cpu.weight"),
                &weight.clamp(1, 10_000).to_string(),
            );
        }
        // Not all kernels have these; without them the kernel ends one thread's process all the same.
        let _ = write(&leaf.path.join("memory.swap.max"), "0");
        let _ = write(&leaf.path.join("memory.oom.group"), "1");
        Ok(leaf)
    }
}

impl Leaf {
    /// Moves a process into the group.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    /// How many processes the kernel ended here because the memory was used up.
    pub fn kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let mut lines = events.lines();
        let kills = lines.find_map(|line| line.strip_prefix("oom_kill "));
        kills
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // The kernel removes the files in it. One whose process is not gone yet stays.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether systemd says that the group was delegated.
fn is_marked(root: &Path) -> bool {
    let mut value = [0; 8];
    let marks = ["trusted.delegate", "user.delegate"];
    marks.into_iter().any(|mark| {
        let length = rustix::fs::getxattr(root, mark, &mut value);
        length.is_ok_and(|length| value[..length] == *b"1")
    })
}

/// The path in the line of `/proc/self/cgroup` that is of the second kind.
fn own_group(lines: &str) -> Option<&str> {
    lines.lines().find_map(|line| line.strip_prefix("0::"))
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(controllers: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        root
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn this_process_moves_to_a_leaf_before_others_get_theirs() {
        let root = tree("cpu memory pids");
        let delegated = Delegated::at(root.path()).unwrap();
        let own = root.path().join("lantern-front/cgroup.procs");
        assert_eq!(read(&own), std::process::id().to_string());
        let enabled = root.path().join("cgroup.subtree_control");
        assert_eq!(read(&enabled), "+memory +pids");
        let leaf = delegated
            .leaf("worker-1", Some(1 << 30), None, Some(300))
            .unwrap();
        leaf.take(77).unwrap();
        for (file, text) in [
            ("memory.max", "1073741824"),
            ("pids.max", "max"),
            ("cpu.weight", "300"),
            ("memory.oom.group", "1"),
            ("cgroup.procs", "77"),
        ] {
            assert_eq!(
                read(&root.path().join("worker-1").join(file)),
                text,
                "{file}"
            );
        }
        delegated.divide_processor().unwrap();
        assert_eq!(read(&enabled), "+cpu");
        assert_eq!(read(&root.path().join("lantern-front/cpu.weight")), "10000");
        // A second time, after a restart.
        assert_eq!(Delegated::at(root.path()), Ok(delegated));
    }

    #[test]
    fn what_is_not_delegated_has_a_reason() {
        let none = tempfile::tempdir().unwrap();
        assert!(Delegated::at(none.path()).unwrap_err().contains("mounted"));
        let error = Delegated::at(tree("cpu memory").path()).unwrap_err();
        assert!(error.contains("pids"), "{error}");
        assert!(Delegated::at(Path::new("/proc/self")).is_err());
    }

    #[test]
    fn kills_are_counted() {
        let root = tree("memory pids");
        let leaf = Delegated::at(root.path())
            .unwrap()
            .leaf("w", None, None, None)
            .unwrap();
        assert_eq!(leaf.kills(), 0);
        fs::write(
            root.path().join("w/memory.events"),
            "low 0\noom 3\noom_kill 2\n",
        )
        .unwrap();
        assert_eq!(leaf.kills(), 2);
    }

    #[test]
    fn automatic_groups_count_outside_of_others() {
        for (groups, is_root) in [
            ("0::/\n", true),
            ("4:memory:/a\n2:cpu,cpuacct:/\n0::/\n", true),
            ("2:cpu,cpuacct:/docker/1\n0::/\n", false),
            ("0::/system.slice/lantern.service\n", false),
        ] {
            assert_eq!(is_root_of_processor(groups), is_root, "{groups}");
        }
    }

    #[test]
    fn the_own_group_is_that_of_the_second_kind() {
        let both = "4:memory:/a\n0::/system.slice/lantern.service\n";
        assert_eq!(own_group(both), Some("/system.slice/lantern.service"));
        assert_eq!(own_group("4:memory:/a\n"), None);
    }
}
