//! Lantern and other model servers side by side: the same models, the same load, the same machine, in turn.
//!
//! `make bench-peers` sets the peers up (see `benches/peers/README.md`) and runs this. Lantern is up beside one peer at a time,
//! and both are driven alternately, so that a drift of the machine meets both; figures are medians. Each peer is asked in the form
//! that it takes, for the same answer.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lantern_benches::load::{self, Load, Outcome};
use lantern_benches::server::{self, Model, Server, Setup};
use lantern_benches::{guest, root};

const RUNS: usize = 3;
const CONNECTIONS: [usize; 2] = [1, 32];
/// Rows that a batch may have, of every server.
const BATCH: &str = "32";
/// Milliseconds that the first row waits for others, of every server that has such a setting.
const DELAY: &str = "1";
const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;

/// One model on all servers. Its weights are there in both of Lantern's formats.
struct Contest {
    name: &'static str,
    /// Without its extension.
    artifact: PathBuf,
    guest: &'static str,
    extra: Option<PathBuf>,
    inputs: &'static str,
    request: Vec<u8>,
}

/// How Lantern hosts a model.
#[derive(Debug, Clone, Copy)]
enum Hosting {
    /// TorchScript, as the peers have it, in a worker process.
    TorchScript,
    /// ONNX in a worker process.
    Onnx,
    /// ONNX in the server's process.
    Inline,
}

/// A server that is up, and what the table says of it.
struct Contestant {
    name: String,
    settings: String,
    address: SocketAddr,
    request: Vec<u8>,
    ready: Duration,
    /// Of all its processes, taken after the load.
    memory: Box<dyn Fn() -> u64>,
    /// Ends it when dropped.
    _process: Box<dyn std::any::Any>,
}

fn main() {
    let Some(venvs) = std::env::var_os("LANTERN_PEER_VENVS").map(PathBuf::from) else {
        println!("peers: skipped; `make bench-peers` sets them up and runs this");
        return;
    };
    println!(
        "Batches of at most {BATCH} rows, a delay of {DELAY} ms, {} s a run, medians of {RUNS}.\n",
        seconds()
    );
    println!(
        "| model | server | settings | connections | requests/s | p50, ms | p99, ms | Lantern beside it | Lantern / it | memory, MiB | start, s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for contest in [linear(), digits()] {
        compare(&contest, &venvs);
    }
}

/// Seconds that one run is measured.
fn seconds() -> u64 {
    let given = std::env::var("LANTERN_PEER_SECONDS");
    given.map_or(4, |text| {
        text.parse().expect("LANTERN_PEER_SECONDS is a number")
    })
}

fn linear() -> Contest {
    Contest {
        name: "linear",
        artifact: root().join("tests/fixtures/linear"),
        guest: "linear",
        extra: None,
        inputs: "[{name: x, dtype: fp32, shape: [-1, 16]}]\n  outputs: [{name: y, dtype: fp32, shape: [-1, 4]}]",
        request: load::post("/predictions/linear", "application/json", X.as_bytes()),
    }
}

fn digits() -> Contest {
    let examples = root().join("examples/digits");
    let picture = std::fs::read(examples.join("samples/seven.jpg")).expect("the sample is there");
    Contest {
        name: "digits",
        artifact: examples.join("digits"),
        guest: "digits",
        extra: Some(examples.join("index_to_name.json")),
        inputs: "[{name: image, dtype: fp32, shape: [-1, 1, 28, 28]}]\n  outputs: [{name: logits, dtype: fp32, shape: [-1, 10]}]",
        request: load::post("/predictions/digits", "image/jpeg", &picture),
    }
}

fn compare(contest: &Contest, venvs: &Path) {
    let ours = lantern(contest, Hosting::TorchScript);
    for hosting in [Hosting::Onnx, Hosting::Inline] {
        measure_beside(contest, &ours, &lantern(contest, hosting));
    }
    measure_beside(contest, &ours, &torchserve(contest, venvs));
    for name in ["mosec", "litserve", "bentoml"] {
        measure_beside(contest, &ours, &script(contest, venvs, name));
    }
    let (memory, ready) = (mib((ours.memory)()), ours.ready.as_secs_f64());
    println!(
        "| {} | {} | {} | | | | | | | {memory:.0} | {ready:.2} |",
        contest.name, ours.name, ours.settings
    );
}

/// Drives both in turn and prints what `other` did.
fn measure_beside(contest: &Contest, ours: &Contestant, other: &Contestant) {
    for connections in CONNECTIONS {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            us.push(measure(ours, connections));
            them.push(measure(other, connections));
        }
        let (us, them) = (median(us), median(them));
        assert_eq!(
            (us.failures, them.failures),
            (0, 0),
            "{}: requests failed",
            other.name
        );
        println!(
            "| {} | {} | {} | {connections} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} |",
            contest.name,
            other.name,
            other.settings,
            them.throughput,
            millis(them.p50),
            millis(them.p99),
            us.throughput,
            us.throughput / them.throughput,
            mib((other.memory)()),
            other.ready.as_secs_f64(),
        );
    }
}

fn measure(contestant: &Contestant, connections: usize) -> Outcome {
    load::drive(&Load {
        address: contestant.address,
        request: contestant.request.clone(),
        connections,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(seconds()),
    })
}

/// The run with the median throughput.
fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    outcomes[outcomes.len() / 2]
}

fn lantern(contest: &Contest, hosting: Hosting) -> Contestant {
    let (extension, host, settings) = match hosting {
        Hosting::TorchScript => ("pt", "process", "TorchScript, worker process"),
        Hosting::Onnx => ("onnx", "process", "ONNX, worker process"),
        Hosting::Inline => ("onnx", "inline", "ONNX, inline"),
    };
    let config = format!(
        "minWorkers: 1\nmaxWorkers: 1\nbatchSize: {BATCH}\nmaxBatchDelay: {DELAY}\nlantern:\n  hosting: {host}\n  inputs: {}\n",
        contest.inputs
    );
    let setup = Setup::new(
        &[Model {
            name: contest.name,
            artifact: &contest.artifact.with_extension(extension),
            handler: &guest(contest.guest),
            config,
            extra_files: contest.extra.iter().map(PathBuf::as_path).collect(),
        }],
        "",
    );
    let started = Instant::now();
    let server = std::rc::Rc::new(setup.start());
    let ready = setup.first_answer(&contest.request, started);
    let of_memory = std::rc::Rc::clone(&server);
    Contestant {
        name: "Lantern".to_owned(),
        settings: format!("{settings}, 1 worker"),
        address: setup.inference,
        request: contest.request.clone(),
        ready,
        memory: Box::new(move || private_memory(&of_memory)),
        _process: Box::new((server, setup)),
    }
}

fn private_memory(server: &Server) -> u64 {
    let (front, workers) = server.private_memory();
    front + workers.iter().sum::<u64>()
}

fn torchserve(contest: &Contest, venvs: &Path) -> Contestant {
    let store = tempfile::tempdir().expect("a temporary directory can be made");
    let command = |name: &str| {
        let mut python = python("peer.py", name);
        python.arg("--venv").arg(venvs.join("torchserve"));
        python.arg("--store").arg(store.path());
        python
    };
    let packed = command("archive").status();
    assert!(
        packed.is_ok_and(|status| status.success()),
        "the peer's archives cannot be packed"
    );
    let mut serve = command("serve");
    serve.args(["--model", contest.name, "--workers", "1"]);
    let (process, facts) = Process::start(&mut serve);
    let pids = numbers(&facts["front_pid"]).chain(numbers(&facts["worker_pids"]));
    let pids = pids.collect();
    Contestant {
        name: "TorchServe 0.12.0".to_owned(),
        settings: "1 worker".to_owned(),
        request: contest.request.clone(),
        ..Contestant::peer(&facts, pids, (process, store))
    }
}

fn script(contest: &Contest, venvs: &Path, name: &str) -> Contestant {
    let mut serve = python("scripts.py", "serve");
    serve.arg("--venvs").arg(venvs);
    serve.args(["--peer", name, "--model", contest.name]);
    let (process, facts) = Process::start(&mut serve);
    let text =
        |value: &serde_json::Value| value.as_str().expect("a peer's facts are texts").to_owned();
    let asked = &facts["request"];
    let body = hex(&text(&asked["body"]));
    let request = load::post(&text(&asked["path"]), &text(&asked["content_type"]), &body);
    let pids = numbers(&facts["pids"]).collect();
    Contestant {
        name: format!("{name} {}", text(&facts["version"])),
        settings: text(&facts["settings"]),
        request,
        ..Contestant::peer(&facts, pids, process)
    }
}

impl Contestant {
    /// A peer whose processes are `pids`, without a name and a request yet.
    fn peer(facts: &serde_json::Value, pids: Vec<u32>, process: impl std::any::Any) -> Self {
        let number = |value| numbers(value).next().expect("a peer's facts are numbers");
        let port = number(&facts["ports"]["inference"]);
        Self {
            name: String::new(),
            settings: String::new(),
            address: format!("127.0.0.1:{port}")
                .parse()
                .expect("a port makes an address"),
            request: Vec::new(),
            ready: Duration::from_millis(number(&facts["ready_ms"]).into()),
            memory: Box::new(move || pids.iter().copied().map(server::private).sum()),
            _process: Box::new(process),
        }
    }
}

/// A number, or those in a list.
fn numbers(value: &serde_json::Value) -> impl Iterator<Item = u32> {
    let list = value
        .as_array()
        .map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    list.iter()
        .filter_map(|number| u32::try_from(number.as_u64()?).ok())
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    bytes.collect::<Option<_>>().expect("a body is hexadecimal")
}

/// A script of `benches/peers` that serves; ends when dropped, with its stdin.
struct Process(Child);

impl Process {
    /// Starts it with the settings that all have. Returns what it says when it is ready.
    fn start(serve: &mut Command) -> (Self, serde_json::Value) {
        let mut child = serve
            .args(["--batch-size", BATCH, "--max-batch-delay", DELAY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the peer says when it is ready");
        let facts = serde_json::from_str(&line).expect("the peer says so in JSON");
        (Self(child), facts)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn python(script: &str, command: &str) -> Command {
    let mut python = Command::new("python3");
    python
        .arg(root().join("benches/peers").join(script))
        .arg(command);
    python
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(
    clippy::cast_precision_loss,
    reason = "megabytes are shown without digits after the point"
)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
