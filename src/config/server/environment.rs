//! What the process finds around it: variables, the current directory, libraries and programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::place;

use super::super::model::VersionLimits;
use super::memory;

/// Where the Python package keeps the library, below a directory of packages.
const IN_PACKAGES: &str = "onnxruntime/capi";
/// Where systems keep libraries.
const SYSTEM: [&str; 4] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib",
];

/// Where everybody's temporary files lie. The second is in memory, and is there in containers that have no other place.
const VOLATILE: [&str; 2] = ["/tmp", "/dev/shm"];

const MIB: u64 = 1 << 20;

/// Bytes that a worker is counted with: the stack of its thread, its session, and the tensors of a small batch.
const WORKER_MEMORY: u64 = 64 * MIB;
/// Workers that a version may have on the smallest machine.
const LEAST_WORKERS: usize = 16;

/// Variables about proxies.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

/// What the process finds around it. Made once, by the program; tests make their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// The directory that relative paths start from.
    pub current_directory: PathBuf,
    /// The directory of the running program.
    pub program_directory: PathBuf,
    /// Bytes of memory that this process and its children may use together; `None` where nothing tells.
    pub memory: Option<u64>,
}

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let program = std::env::current_exe().ok();
        let program = program
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned);
        Self {
            variables: variables.collect(),
            current_directory: std::env::current_dir().unwrap_or_default(),
            program_directory: program.unwrap_or_default(),
            memory: memory::of_machine(Path::new("/")),
        }
    }

    /// Workers that a version may have unless the operator says otherwise: as many as have room in the machine's memory.
    pub fn most_workers(&self) -> usize {
        let fitting = self.memory.map(|bytes| bytes / WORKER_MEMORY);
        let fitting = fitting.and_then(|count| usize::try_from(count).ok());
        let most = VersionLimits::WORKERS;
        fitting.unwrap_or(most).clamp(LEAST_WORKERS, most)
    }

    /// Bytes that one worker process may have unless the operator says otherwise: three quarters of the machine's memory, in
    /// whole MiB, so that one version leaves something to the server; no limit where nobody knows the memory.
    pub fn most_process_memory(&self) -> usize {
        let share = self.memory.map(|bytes| (bytes / 4 * 3).max(MIB));
        let whole = share.and_then(|bytes| usize::try_from(bytes / MIB * MIB).ok());
        whole.unwrap_or(usize::MAX)
    }

    /// Bytes that may be in flight unless the operator says otherwise: a quarter of the machine's memory, in whole MiB; 1 GiB
    /// where nobody knows the memory.
    pub fn most_bytes_in_flight(&self) -> usize {
        let share = self.memory.map_or(1 << 30, |bytes| bytes / 4);
        usize::try_from((share / MIB).max(1) * MIB).unwrap_or(usize::MAX)
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Variables whose names start with `start`.
    pub fn starting_with(&self, start: &str) -> BTreeMap<String, String> {
        let mut variables = self.variables.clone();
        variables.retain(|name, _| name.starts_with(start));
        variables
    }

    /// The variables that say through which proxy others are reached, which are written in either case. Those in capitals
    /// count more.
    pub fn proxies(&self) -> BTreeMap<String, String> {
        let value = |name: &str| self.said(name).or_else(|| self.said(&name.to_lowercase()));
        let said = |name: &str| Some((name.to_owned(), value(name)?.to_owned()));
        PROXIES.into_iter().filter_map(said).collect()
    }

    /// `path` as seen from the current directory.
    pub fn path(&self, path: &str) -> PathBuf {
        self.current_directory.join(path)
    }

    /// Where log files go: `LOG_LOCATION`, else `logs` in the current directory.
    pub fn log_directory(&self) -> PathBuf {
        self.path(self.said("LOG_LOCATION").unwrap_or("logs"))
    }

    /// Where metrics go that are log lines: `METRICS_LOCATION`, else `logs` in the current directory.
    pub fn metrics_directory(&self) -> PathBuf {
        self.path(self.said("METRICS_LOCATION").unwrap_or("logs"))
    }

    /// Where snapshots of the catalog go.
    pub fn snapshot_directory(&self) -> PathBuf {
        self.log_directory().join("config")
    }

    /// Where TorchServe's launcher, which is Python, puts temporary files.
    pub fn launcher_temp_directory(&self) -> PathBuf {
        let named = ["TMPDIR", "TEMP", "TMP"].map(|name| self.said(name));
        let mut usable = named.into_iter().flatten().map(|path| self.path(path));
        let found = usable.find(|path| path.is_dir());
        found.unwrap_or_else(|| "/tmp".into())
    }

    fn said(&self, name: &str) -> Option<&str> {
        self.variable(name).filter(|value| !value.is_empty())
    }

    /// `lantern-torch` beside the running program.
    pub fn lantern_torch(&self) -> Option<PathBuf> {
        let path = self.program_directory.join("lantern-torch");
        path.is_file().then_some(path)
    }

    /// ONNX Runtime's library: what `ORT_DYLIB_PATH` names, there or not (the loader's error then names it), else the one
    /// beside the program, in `lib` beside the program's directory, in `.runtime` beside the program, above it, or
    /// in the current directory, else the system's.
    pub fn onnxruntime(&self) -> Option<PathBuf> {
        if let Some(named) = self.variable("ORT_DYLIB_PATH") {
            return Some(named.into());
        }
        let near = self.program_directory.ancestors().take(4);
        let near = near
            .map(Path::to_owned)
            .chain([self.current_directory.clone()]);
        self.with_program()
            .or_else(|| {
                near.into_iter()
                    .find_map(|directory| in_runtime(&directory))
            })
            .or_else(|| {
                SYSTEM
                    .iter()
                    .find_map(|directory| library(Path::new(directory)))
            })
    }

    /// The library that was put where the program is, as the dynamic linker finds those of `lantern-torch`.
    fn with_program(&self) -> Option<PathBuf> {
        let above = || Some(self.program_directory.parent()?.join("lib"));
        library(&self.program_directory).or_else(|| library(&above()?))
    }

    /// Where compiled handlers are kept: a directory of this user's, for as long as the machine lives.
    pub fn cache_directory(&self) -> PathBuf {
        let base = self.absolute("XDG_CACHE_HOME");
        let base = base.or_else(|| Some(self.home()?.join(".cache")));
        base.map_or_else(
            || self.temp_directory().join(place::own_name()).join("cache"),
            |base| base.join("lantern"),
        )
    }

    /// Where archives may be unpacked, the first that can be written to: where temporary files go if that is said, else where
    /// state is kept. What lies among everybody's temporary files comes last, because there cleaners remove what was not
    /// used for some days.
    pub fn unpack_directories(&self) -> Vec<PathBuf> {
        let named = self.named_temp_directory();
        let volatile = VOLATILE.map(PathBuf::from);
        let temporary = |directory: PathBuf| {
            let is_there = directory.is_dir();
            is_there.then(|| directory.join(place::own_name()))
        };
        let named = named.into_iter().filter_map(temporary);
        let state = self.state_directory();
        named
            .chain(state.map(|state| state.join("unpacked")))
            .chain(volatile.into_iter().filter_map(temporary))
            .collect()
    }

    /// The first of them.
    pub fn unpack_directory(&self) -> PathBuf {
        let first = self.unpack_directories().into_iter().next();
        first.unwrap_or_else(|| self.temp_directory().join(place::own_name()))
    }

    /// Where this server may keep files from one start to the next: systemd's directory for the service, else the desktop's
    /// for the user.
    fn state_directory(&self) -> Option<PathBuf> {
        let services = self.said("STATE_DIRECTORY");
        let service = services.and_then(|all| all.split(':').find(|one| one.starts_with('/')));
        let users = || self.absolute("XDG_STATE_HOME");
        let home = || Some(self.home()?.join(".local/state"));
        let user = || users().or_else(home).map(|base| base.join("lantern"));
        service.map(PathBuf::from).or_else(user)
    }

    /// The user's home. Users without one have `/`, which is nobody's to write to.
    fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME").filter(|home| home != Path::new("/"))
    }

    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        let path = self.said(variable).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    }

    /// Where temporary files go: `TEMP` as TorchServe has it, else `TMPDIR`, else `/tmp`.
    pub fn temp_directory(&self) -> PathBuf {
        self.named_temp_directory()
            .unwrap_or_else(|| VOLATILE[0].into())
    }

    /// Where temporary files go, if that is said.
    pub fn named_temp_directory(&self) -> Option<PathBuf> {
        let named = self.said("TEMP").or_else(|| self.said("TMPDIR"));
        named.map(|path| self.path(path))
    }
}

/// In a virtual environment under `.runtime`.
fn in_runtime(directory: &Path) -> Option<PathBuf> {
    children(&directory.join(".runtime"))
        .into_iter()
        .flat_map(|environment| children(&environment.join("lib")))
        .find_map(|python| library(&python.join("site-packages").join(IN_PACKAGES)))
}

fn library(directory: &Path) -> Option<PathBuf> {
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
    };
    children(directory).into_iter().find(is_library)
}

/// In the order of names, so that the same one is found every time.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn the_library_is_found_near_the_program() {
        let root = tempfile::tempdir().unwrap();
        let library = root
            .path()
            .join(".runtime/python/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.23.0");
        touch(&library);
        touch(&library.with_file_name("libonnxruntime_providers_shared.so"));
        let environment = Environment {
            program_directory: root.path().join("target/debug"),
            ..Environment::default()
        };
        assert_eq!(environment.onnxruntime(), Some(library));
    }

    /// Each place is looked into before those that were filled earlier.
    #[test]
    fn the_library_that_moves_with_the_program_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let environment = Environment {
            program_directory: root.path().join("bin"),
            ..Environment::default()
        };
        for place in [
            ".runtime/python/lib/python3.11/site-packages/onnxruntime/capi",
            "lib",
            "bin",
        ] {
            let library = root.path().join(place).join("libonnxruntime.so.1.23.0");
            touch(&library);
            assert_eq!(environment.onnxruntime(), Some(library));
        }
    }

    #[test]
    fn a_named_library_that_is_missing_is_not_replaced_by_another() {
        let environment = Environment {
            variables: BTreeMap::from([("ORT_DYLIB_PATH".into(), "/nowhere/lib.so".into())]),
            ..Environment::default()
        };
        assert_eq!(environment.onnxruntime(), Some("/nowhere/lib.so".into()));
    }

    fn with(pairs: &[(&str, &str)]) -> Environment {
        let pairs = pairs.iter();
        Environment {
            variables: pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Environment::default()
        }
    }

    #[test]
    fn caches_follow_the_desktop_rule() {
        let among_temporary_files = format!("/t/{}/cache", place::own_name());
        let cases = [
            (
                with(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]),
                "/c/lantern",
            ),
            (
                with(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]),
                "/h/.cache/lantern",
            ),
            (with(&[("TMPDIR", "/t")]), among_temporary_files.as_str()),
            (
                with(&[("TMPDIR", "/t"), ("HOME", "/")]),
                among_temporary_files.as_str(),
            ),
        ];
        for (environment, expected) in cases {
            assert_eq!(environment.cache_directory(), Path::new(expected));
        }
    }

    #[test]
    fn archives_are_unpacked_where_no_cleaner_of_temporary_files_comes() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().to_str().unwrap();
        let own = format!("{root}/{}", place::own_name());
        let cases: [(&[(&str, &str)], &str); 6] = [
            // What the operator says comes first.
            (&[("TEMP", root), ("STATE_DIRECTORY", "/s")], &own),
            (&[("TMPDIR", root), ("HOME", "/h")], &own),
            (
                &[("STATE_DIRECTORY", "/s:/t"), ("HOME", "/h")],
                "/s/unpacked",
            ),
            (
                &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")],
                "/x/lantern/unpacked",
            ),
            (
                &[("XDG_STATE_HOME", "x"), ("HOME", "/h")],
                "/h/.local/state/lantern/unpacked",
            ),
            // What is not there is passed over.
            (
                &[("TEMP", "/nowhere"), ("STATE_DIRECTORY", "/s")],
                "/s/unpacked",
            ),
        ];
        for (variables, expected) in cases {
            let directory = with(variables).unpack_directory();
            assert_eq!(directory, Path::new(expected), "{variables:?}");
        }
        let last = with(&[("HOME", "/"), ("STATE_DIRECTORY", "relative")]).unpack_directories();
        let expected = VOLATILE.map(|directory| Path::new(directory).join(place::own_name()));
        let is_there = |path: &&PathBuf| path.parent().is_some_and(Path::is_dir);
        let expected: Vec<_> = expected.iter().filter(is_there).cloned().collect();
        assert_eq!(last, expected);
    }
}
