//! How much memory this machine has for the process: all of it, or what a control group leaves.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows control groups.
const CONTROL_GROUPS: &str = "sys/fs/cgroup";

/// Bytes that the machine whose files lie below `root` has for this process: its memory, or the limit of the control group
/// that the process is in, or of one above it, if that is smaller. `None` where neither is told.
pub fn of_machine(root: &Path) -> Option<u64> {
    let limits = limit_files(root).into_iter().filter_map(limit);
    limits.chain(total(root)).min()
}

/// `MemTotal`, which the kernel writes in kB and means KiB.
fn total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// A limit in bytes; `None` where the file is missing, or says `max`.
fn limit(file: PathBuf) -> Option<u64> {
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok();
    bytes.filter(|bytes| *bytes > 0)
}

/// The files that may hold limits for this process.
fn limit_files(root: &Path) -> Vec<PathBuf> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let files = groups.lines().filter_map(|line| files_of_group(root, line));
    files.flatten().collect()
}

/// The files of a line `NUMBER:CONTROLLERS:PATH`. A container may not see its own path, and has its files at the top then.
fn files_of_group(root: &Path, line: &str) -> Option<Vec<PathBuf>> {
    let (_, line) = line.split_once(':')?;
    let (controllers, path) = line.split_once(':')?;
    let base = root.join(CONTROL_GROUPS);
    let (base, name) = match controllers {
        "" => (base, "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            (base.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    Some(groups.map(|group| base.join(group).join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name and a text.
    type File = (&'static str, &'static str);

    /// A machine that shows these files.
    fn machine(files: &[File]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        of_machine(root.path())
    }

    const TOTAL: File = (
        "proc/meminfo",
        "MemTotal:        8388608 kB\nMemFree:         1024 kB\n",
    );
    const SECOND: File = ("proc/self/cgroup", "0::/pods/one\n");
    const FIRST: File = (
        "proc/self/cgroup",
        "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n",
    );

    #[test]
    fn the_smallest_of_memory_and_limits_counts() {
        let at = |path: &'static str, text: &'static str| (path, text);
        let cases: [(&[File], Option<u64>); 9] = [
            (&[], None),
            (&[("proc/meminfo", "MemTotal: many kB\n")], None),
            (&[TOTAL], Some(8 << 30)),
            (
                &[
                    TOTAL,
                    SECOND,
                    at("sys/fs/cgroup/pods/one/memory.max", "max\n"),
                ],
                Some(8 << 30),
            ),
            (
                &[
                    TOTAL,
                    SECOND,
                    at("sys/fs/cgroup/pods/one/memory.max", "1073741824\n"),
                ],
                Some(1 << 30),
            ),
            // The group above has less.
            (
                &[
                    TOTAL,
                    SECOND,
                    at("sys/fs/cgroup/pods/one/memory.max", "1073741824\n"),
                    at("sys/fs/cgroup/pods/memory.max", "536870912\n"),
                ],
                Some(512 << 20),
            ),
            // A container sees its own group at the top.
            (
                &[
                    TOTAL,
                    FIRST,
                    at("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
                ],
                Some(1 << 30),
            ),
            // The first version writes a very large number where there is no limit.
            (
                &[
                    TOTAL,
                    FIRST,
                    at(
                        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                Some(8 << 30),
            ),
            (
                &[
                    SECOND,
                    at("sys/fs/cgroup/pods/one/memory.max", "1073741824\n"),
                ],
                Some(1 << 30),
            ),
        ];
        for (files, expected) in cases {
            assert_eq!(machine(files), expected, "{files:?}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(of_machine(Path::new("/")).is_some_and(|bytes| bytes > 0));
    }
}
