//! Proof by attack: a program of hostile native code in the place of a worker process, and what comes of what it tries.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lantern::error::Error;
use lantern::handler::{LogLine, Observation, Sink};
use lantern::model::{Limits, ModelSpec, Settings};
use lantern::runtime::process::SandboxConfig;
use lantern::runtime::{Bounds, CodeSource, CompileHere, Hosts, ProcessCounts, Runtime};
use lantern::sandbox::{Demands, Outcome, Outcomes, Wall};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::process::{Hosted, hosts, model, request};
use crate::support::guest;
use report::{
    Expectation, Flood, Line, MARK, MOST_MEMORY, MOST_THREADS, Plan, Row, SECRET, Targets, VARIABLE,
};

#[path = "../attack/report.rs"]
mod report;

/// A byte that the probe must not write.
static BYTE: AtomicU8 = AtomicU8::new(0);

/// Since which release of landlock it stops an attempt; those that are not listed it always did.
const SINCE: [(&str, u32); 3] = [
    ("truncate a file for everybody by its path", 3),
    ("connect to a port of the server", 4),
    ("listen on a port", 4),
];

/// Whatever the probe may find, made for one test.
struct Scene {
    _directory: TempDir,
    archive: PathBuf,
    /// Compiles the handler once, which the probe never runs.
    code: Arc<dyn CodeSource>,
    /// Everything that has to stay open.
    _listeners: (std::net::TcpListener, [UnixListener; 3], [UnixDatagram; 2]),
    _left_open: OwnedFd,
    targets: Targets,
}

struct Silence;

impl Sink for Silence {
    fn log(&self, _line: LogLine) {}
    fn observe(&self, _observation: Observation) {}
}

/// What the probe said.
#[derive(Debug)]
struct Told {
    walls: Outcomes,
    rows: Vec<Row>,
    facts: Vec<(String, String)>,
    error: Error,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        allow(root, 0o755);
        let path = |name: &str| root.join(name);
        for name in [
            "public",
            "public/store",
            "public/unpacked",
            "public/anyones",
            "private",
            "private/work",
            "archive",
        ] {
            fs::create_dir(path(name)).unwrap();
            allow(&path(name), 0o755);
        }
        allow(&path("private"), 0o700);
        allow(&path("public/anyones"), 0o777);
        for (name, mode) in [
            ("archive/model", 0o644),
            ("archive/program", 0o755),
            ("public/everybodys", 0o666),
            ("public/program", 0o755),
            ("public/store/other.mar", 0o644),
            ("public/store/removed.mar", 0o644),
            ("public/store/renamed.mar", 0o644),
            ("public/unpacked/model", 0o644),
            ("private/key_file.json", 0o600),
            ("private/cache.key", 0o600),
            ("private/left-open", 0o600),
        ] {
            fs::write(path(name), "something").unwrap();
            allow(&path(name), mode);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("lantern-attack-{}", std::process::id());
        let abstracted = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let streams = [
            UnixListener::bind_addr(&abstracted(&name)).unwrap(),
            UnixListener::bind(path("public/socket")).unwrap(),
            UnixListener::bind(path("private/socket")).unwrap(),
        ];
        let datagrams = [
            UnixDatagram::bind_addr(&abstracted(&format!("{name}-datagrams"))).unwrap(),
            UnixDatagram::bind(path("public/datagrams")).unwrap(),
        ];
        for socket in ["public/socket", "public/datagrams"] {
            allow(&path(socket), 0o777);
        }
        let namespace = |name: &str| {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            (name.to_owned(), link)
        };
        Self {
            archive: path("archive"),
            _left_open: left_open(&path("private/left-open")),
            targets: Targets {
                plan: Plan::Table,
                front: std::process::id(),
                user: rustix::process::geteuid().as_raw(),
                secret: SECRET.as_ptr().expose_provenance(),
                byte: BYTE.as_ptr().expose_provenance(),
                private: path("private"),
                public: path("public"),
                archive: path("archive"),
                port: port.local_addr().unwrap().port(),
                name,
                namespaces: ["net", "ipc", "uts", "mnt"].map(namespace).into(),
            },
            code: Arc::new(CompileHere.code(&attacked()).unwrap()),
            _listeners: (port, streams, datagrams),
            _directory: directory,
        }
    }

    /// Starts the probe behind `walls` and returns what it says.
    async fn attack(&self, plan: Plan, walls: &str, limits: Limits) -> Told {
        let started = self.start(plan, walls, limits, Arc::default()).await;
        Told::of(started.err().unwrap())
    }

    /// Starts the probe behind `walls` as the worker process of a version.
    async fn start(
        &self,
        plan: Plan,
        walls: &str,
        limits: Limits,
        counts: Arc<ProcessCounts>,
    ) -> Result<Runtime, Error> {
        let targets = Targets {
            plan,
            ..self.targets.clone()
        };
        let targets = serde_json::to_string(&targets).unwrap();
        let hosts = Hosts {
            code: self.code.clone(),
            ..hosts()
        };
        let mut hosts = hosts.with_counts(counts);
        hosts.processes.lantern = probe();
        hosts.processes.sandbox = SandboxConfig::new(walls.parse::<Demands>().unwrap());
        hosts
            .processes
            .environment
            .push((VARIABLE.into(), targets.into()));
        let mut attacked = attacked();
        attacked.directory.clone_from(&self.archive);
        attacked.limits = limits;
        let (attacked, bounds) = (Arc::new(attacked), Bounds::exactly(1));
        Runtime::start(&hosts, attacked, bounds, Arc::new(Silence)).await
    }
}

/// A version with a handler that its own directory does not hold.
fn attacked() -> ModelSpec {
    let mut attacked = model(Settings::default());
    attacked.handler = guest("passthrough");
    attacked
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A descriptor that programs inherit, as a careless caller of the server may leave one.
fn left_open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap()
}

/// The probe is built beside the program.
fn probe() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_lantern"));
    let probe = program.with_file_name("examples").join("attack-probe");
    assert!(
        probe.exists(),
        "no {}: cargo builds it with the tests",
        probe.display()
    );
    probe
}

impl Told {
    fn of(error: Error) -> Self {
        let mut told = Self {
            walls: Vec::new(),
            rows: Vec::new(),
            facts: Vec::new(),
            error,
        };
        let detail = told.error.detail().unwrap_or_default().to_owned();
        for line in detail.lines() {
            let Some((_, line)) = line.split_once(MARK) else {
                continue;
            };
            match serde_json::from_str(line).unwrap() {
                Line::Walls(walls) => told.walls = walls,
                Line::Rows(rows) => told.rows.extend(rows),
                Line::Fact(name, value) => told.facts.push((name, value)),
            }
        }
        told
    }
}

impl Told {
    /// Whether the wall is up, for an attempt that newer kernels alone stop.
    fn is_up(&self, wall: Wall, attempt: &str) -> bool {
        let Some((_, Outcome::Up(detail))) = self.walls.iter().find(|(found, _)| *found == wall)
        else {
            return false;
        };
        let Some((_, since)) = SINCE.iter().find(|(name, _)| *name == attempt) else {
            return true;
        };
        let release = detail
            .strip_prefix("ABI ")
            .and_then(|release| release.parse::<u32>().ok());
        wall != Wall::Landlock || release.is_some_and(|release| release >= *since)
    }

    /// Fails for each attempt that a wall should have stopped, or that no wall may stop. Returns those that nothing here
    /// is to stop.
    fn holds(&self, what: &str) -> Vec<&Row> {
        assert!(self.rows.len() > 100, "{what}: {self:?}");
        let (mut open, mut wrong) = (Vec::new(), Vec::new());
        for row in &self.rows {
            let is_stopped = row.error.is_some();
            match &row.expectation {
                Expectation::Works if is_stopped => wrong.push(row),
                Expectation::Works => {}
                Expectation::StoppedBy(walls)
                    if walls.iter().any(|wall| self.is_up(*wall, &row.name)) =>
                {
                    if !is_stopped {
                        wrong.push(row);
                    }
                }
                Expectation::StoppedBy(_) => open.push(row),
            }
        }
        assert!(
            wrong.is_empty(),
            "{what}, with {:?}: {wrong:#?}",
            self.walls
        );
        open
    }

    fn fact(&self, name: &str) -> &str {
        let (_, value) = self.facts.iter().find(|(found, _)| found == name).unwrap();
        value
    }
}

/// The program that stands for the probe ends when it has reported.
const ENDED: &str = "Worker died: exited with status 0";

#[tokio::test]
async fn walls_stop_what_they_are_there_to_stop() {
    let scene = Scene::new();
    let told = scene.attack(Plan::Table, "prefer", Limits::default()).await;
    assert!(told.error.message().starts_with(ENDED), "{told:?}");
    for row in told.holds("all walls") {
        eprintln!("skipped: {}: of {:?} none is up", row.name, row.expectation);
    }
    assert_eq!(BYTE.load(Ordering::Relaxed), 0);
}

/// What is stopped by several walls has to be stopped by each: where one is missing, others are there.
#[tokio::test]
async fn each_wall_holds_without_the_others_and_the_others_without_it() {
    let scene = Scene::new();
    for wall in Wall::ALL {
        for walls in [format!("off, {wall}=prefer"), format!("prefer, {wall}=off")] {
            let told = scene.attack(Plan::Table, &walls, Limits::default()).await;
            told.holds(&walls);
        }
    }
}

/// What does not succeed without walls either: there is no such directory, the probe closes what was left open all the same,
/// and whoever starts the tests may have neither groups nor the right to raise limits.
const NOT_SHOWN: [&str; 5] = [
    "write more than the scratch directory holds",
    "map a file of the scratch directory as code",
    "see a file that was left open",
    "have groups",
    "raise a limit of its own",
];

/// An attempt that fails on any machine says nothing of a wall.
#[tokio::test]
async fn without_walls_the_attacks_succeed() {
    let scene = Scene::new();
    let told = scene.attack(Plan::Table, "off", Limits::default()).await;
    let open = told.holds("no walls");
    let is_missing = |(number, _): &(i32, String)| {
        matches!(*number, libc::ENOSYS | libc::EAFNOSUPPORT | libc::ENODEV)
    };
    let failed = |row: &&&Row| row.error.as_ref().is_some_and(|error| !is_missing(error));
    let failed = open
        .iter()
        .filter(failed)
        .filter(|row| !NOT_SHOWN.contains(&&*row.name));
    let failed: Vec<_> = failed.map(|row| &*row.name).collect();
    if rustix::process::geteuid().is_root() && has_capabilities() {
        assert!(failed.is_empty(), "{failed:?}");
    }
    for attack in OF_ANYONE {
        assert!(open.iter().any(|row| row.name == attack), "{attack}");
        assert!(!failed.contains(&attack), "{attack}");
    }
    assert_eq!(BYTE.load(Ordering::Relaxed), 1);
}

/// What succeeds for every user where there are no walls.
const OF_ANYONE: [&str; 16] = [
    "read /etc/passwd",
    "read the key file",
    "read the cache's key",
    "read an archive of the model store",
    "read what another archive holds",
    "read the front's environment",
    "write into the model store",
    "overwrite the own archive",
    "read the front's memory by a call",
    "write the front's memory by a call",
    "connect to a port of the server",
    "connect to an abstract socket",
    "connect to a socket by its path",
    "kill the front",
    "fork",
    "execute a program",
];

/// Whether the tests run with the rights of an administrator, and not in a container without them.
fn has_capabilities() -> bool {
    const ADMINISTRATOR: u32 = 1 << 21;
    const PTRACE: u32 = 1 << 19;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    let capabilities = u64::from_str_radix(line.trim(), 16).unwrap();
    let wanted = u64::from(ADMINISTRATOR | PTRACE);
    capabilities & wanted == wanted
}

#[tokio::test]
async fn a_process_gets_nothing_but_what_is_listed() {
    let scene = Scene::new();
    let told = scene.attack(Plan::Table, "prefer", Limits::default()).await;
    assert_eq!(
        told.fact("variables"),
        "ATTACK HOME ORT_DISABLE_TELEMETRY TMPDIR"
    );
    let archive = scene.archive.display().to_string();
    let descriptors = told.fact("descriptors").split(' ');
    let is_own = |link: &str| link == archive || link == "/" || is_process(link);
    let mut kinds: Vec<_> = descriptors
        .map(|link| {
            if is_own(link) {
                "own"
            } else {
                link.split(':').next().unwrap()
            }
        })
        .collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        ["socket", "pipe", "own"],
        "{}",
        told.fact("descriptors")
    );
}

/// The directory of a process in `/proc`.
fn is_process(link: &str) -> bool {
    let number = link.strip_prefix("/proc/");
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn limits() -> Limits {
    Limits {
        process_memory: MOST_MEMORY,
        threads: MOST_THREADS,
        ..Limits::default()
    }
}

/// What is over a limit fails in the process, or ends it with a text that names the setting.
async fn is_bounded(plan: Plan, wall: Wall, setting: &str) {
    let scene = Scene::new();
    let told = scene.attack(plan, "prefer", limits()).await;
    if told.is_up(wall, "") {
        assert!(told.error.message().starts_with(ENDED), "{told:?}");
        assert!(
            told.rows.len() == 1 && told.rows[0].error.is_some(),
            "{told:?}"
        );
    } else {
        assert!(told.error.message().contains(setting), "{told:?}");
    }
    // Without the wall, the front watches.
    let told = scene.attack(plan, "off", limits()).await;
    assert!(told.error.message().contains(setting), "{told:?}");
}

#[tokio::test]
async fn memory_is_bounded() {
    is_bounded(Plan::Memory, Wall::Memory, "lantern.limits.processMemory").await;
}

#[tokio::test]
async fn memory_that_others_could_share_is_watched_where_it_can_be_mapped() {
    let scene = Scene::new();
    let demands = "prefer, seccomp=off";
    let told = scene.attack(Plan::SharedMemory, demands, limits()).await;
    let message = told.error.message();
    assert!(message.contains("lantern.limits.processMemory"), "{told:?}");
}

#[tokio::test]
async fn threads_are_bounded() {
    is_bounded(Plan::Threads, Wall::Threads, "lantern.limits.threads").await;
}

/// A kernel without programs of 32 bits ends the process with another signal, which is as good.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_call_of_another_architecture_ends_the_process() {
    let scene = Scene::new();
    let told = scene
        .attack(Plan::OtherArchitecture, "prefer", Limits::default())
        .await;
    if told.is_up(Wall::Seccomp, "") {
        let message = told.error.message();
        assert!(
            message.starts_with("Worker died: killed by signal "),
            "{told:?}"
        );
    }
}

/// Bytes of memory that this process may have grown by while all floods go on: each takes some for what is read at a time.
const MOST_GROWTH: u64 = 128 << 20;

/// Everything that a process may flood the front with.
const FLOODS: [Flood; 6] = [
    Flood::Workers,
    Flood::Lines,
    Flood::LongLines,
    Flood::Observations,
    Flood::LongLabels,
    Flood::SignsOfLife,
];

/// What the front says when it ends a process that sends this.
const fn reason(flood: Flood) -> &'static str {
    match flood {
        Flood::Workers => "lists of workers in ",
        Flood::Lines => "log lines in ",
        Flood::LongLines => "bytes of log lines in ",
        Flood::Observations => "observations in ",
        Flood::LongLabels => "a label's value has 250000 bytes, at most 128 are taken",
        Flood::SignsOfLife => "signs of life in ",
    }
}

/// Bytes of memory that this process has in use.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages = pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    pages * rustix::param::page_size() as u64
}

/// All floods at once, beside a version that is asked without a pause. Each flooding version has a request that is lost with
/// its process, and once more with the next.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_flood_are_ended_and_their_neighbours_are_unharmed() {
    let scene = Scene::new();
    let neighbour = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let (pid, before) = (neighbour.pid(), resident());
    let mut floods = Vec::new();
    // A share that a front without optimizations reads many times over.
    let limits = Limits {
        observations_per_second: 1000,
        ..Limits::default()
    };
    for flood in FLOODS {
        let (plan, counts) = (Plan::Flood(flood), Arc::<ProcessCounts>::default());
        let started = scene.start(plan, "prefer", limits.clone(), counts.clone());
        let runtime = started.await.unwrap();
        let lost = tokio::spawn(async move { runtime.call(request(*b"hello")).await });
        floods.push((flood, counts, lost));
    }
    let mut most = before;
    while floods.iter().any(|(_, _, lost)| !lost.is_finished()) {
        neighbour.runtime.call(request(*b"hello")).await.unwrap();
        most = most.max(resident());
    }
    for (flood, counts, lost) in floods {
        let error = lost.await.unwrap().unwrap_err();
        assert!(
            error.message().contains(reason(flood)),
            "{flood:?}: {error}"
        );
        let is_refused = flood == Flood::LongLabels;
        assert_eq!(counts.take_floods() > 0, !is_refused, "{flood:?}");
    }
    assert_eq!(neighbour.pid(), pid);
    let growth = most - before;
    assert!(growth < MOST_GROWTH, "{growth} bytes");
}
