//! Lantern and TorchServe 0.12 side by side: the same models, the same load, the same machine, in turn.
//!
//! `make bench-peers` sets up the peer (see `benches/peers/README.md`) and runs this. Both servers are up during a
//! comparison and are driven alternately, so that a drift of the machine meets both; figures are medians.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lantern_benches::load::{self, Load, Outcome};
use lantern_benches::server::{self, Model, Setup};
use lantern_benches::{guest, root};

const RUNS: usize = 3;
const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;

/// One model on both servers.
struct Contest {
    name: &'static str,
    artifact: PathBuf,
    guest: &'static str,
    extra: Option<PathBuf>,
    inputs: &'static str,
    request: Vec<u8>,
}

fn main() {
    let Some(peer) = std::env::var_os("LANTERN_PEER_VENV").map(PathBuf::from) else {
        println!("peers: skipped; `make bench-peers` sets up TorchServe and runs this");
        return;
    };
    println!("| model | connections | | Lantern | TorchServe | ratio |");
    println!("|---|---|---|---|---|---|");
    for contest in [linear(), digits()] {
        compare(&contest, &peer);
    }
}

fn linear() -> Contest {
    Contest {
        name: "linear",
        artifact: root().join("tests/fixtures/linear.pt"),
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
        artifact: examples.join("digits.pt"),
        guest: "digits",
        extra: Some(examples.join("index_to_name.json")),
        inputs: "[{name: image, dtype: fp32, shape: [-1, 1, 28, 28]}]\n  outputs: [{name: logits, dtype: fp32, shape: [-1, 10]}]",
        request: load::post("/predictions/digits", "image/jpeg", &picture),
    }
}

fn compare(contest: &Contest, venv: &Path) {
    let setup = lantern(contest);
    let started = Instant::now();
    let ours = setup.start();
    let our_start = setup.first_answer(&contest.request, started);
    let theirs = Peer::start(venv, contest.name);
    for connections in [1, 32] {
        let (mut us, mut them) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            us.push(measure(setup.inference, contest, connections));
            them.push(measure(theirs.inference, contest, connections));
        }
        print_speed(contest.name, connections, median(us), median(them));
    }
    let (front, workers) = ours.private_memory();
    let (their_front, their_workers) = theirs.private_memory();
    print_row(
        contest.name,
        "memory per worker, MiB",
        mib(workers.iter().sum()),
        mib(their_workers),
    );
    print_row(
        contest.name,
        "memory of the front, MiB",
        mib(front),
        mib(their_front),
    );
    print_row(
        contest.name,
        "start to first answer, s",
        our_start.as_secs_f64(),
        theirs.ready.as_secs_f64(),
    );
}

fn lantern(contest: &Contest) -> Setup {
    let guest = guest(contest.guest);
    let config = format!(
        "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 8\nmaxBatchDelay: 1\nlantern:\n  inputs: {}\n",
        contest.inputs
    );
    let extra_files = contest.extra.iter().map(PathBuf::as_path).collect();
    let artifact = &contest.artifact;
    let model = Model {
        name: contest.name,
        artifact,
        handler: &guest,
        config,
        extra_files,
    };
    Setup::new(&[model], "")
}

fn measure(address: SocketAddr, contest: &Contest, connections: usize) -> Outcome {
    load::drive(&Load {
        address,
        request: contest.request.clone(),
        connections,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(4),
    })
}

/// The run with the median throughput.
fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    outcomes[outcomes.len() / 2]
}

fn print_speed(name: &str, connections: usize, us: Outcome, them: Outcome) {
    assert_eq!(
        (us.failures, them.failures),
        (0, 0),
        "{name}: requests failed under load"
    );
    let name = format!("{name} | {connections}");
    print_cells(&name, "requests/s", us.throughput, them.throughput);
    print_cells(&name, "p50, ms", millis(us.p50), millis(them.p50));
    print_cells(&name, "p99, ms", millis(us.p99), millis(them.p99));
}

fn print_row(name: &str, what: &str, us: f64, them: f64) {
    print_cells(&format!("{name} |"), what, us, them);
}

fn print_cells(name: &str, what: &str, us: f64, them: f64) {
    let digits = if us.min(them) < 10.0 { 2 } else { 0 };
    println!(
        "| {name} | {what} | {us:.digits$} | {them:.digits$} | {:.2} |",
        us / them
    );
}

/// A running TorchServe; ends when dropped, with its stdin.
struct Peer {
    child: Child,
    inference: SocketAddr,
    ready: Duration,
    front: u32,
    workers: Vec<u32>,
    _store: tempfile::TempDir,
}

impl Peer {
    fn start(venv: &Path, model: &str) -> Self {
        let store = tempfile::tempdir().expect("a temporary directory can be made");
        let packed = peer(venv, "archive")
            .arg("--store")
            .arg(store.path())
            .status();
        assert!(
            packed.is_ok_and(|status| status.success()),
            "the peer's archives cannot be packed"
        );
        let mut child = peer(venv, "serve")
            .arg("--store")
            .arg(store.path())
            .args([
                "--model",
                model,
                "--workers",
                "1",
                "--batch-size",
                "8",
                "--max-batch-delay",
                "1",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the peer says when it is ready");
        let facts: serde_json::Value =
            serde_json::from_str(&line).expect("the peer says so in JSON");
        let number = |value: &serde_json::Value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.expect("the peer's facts are small numbers")
        };
        let port = number(&facts["ports"]["inference"]);
        Self {
            child,
            inference: format!("127.0.0.1:{port}")
                .parse()
                .expect("a port makes an address"),
            ready: Duration::from_millis(number(&facts["ready_ms"]).into()),
            front: number(&facts["front_pid"]),
            workers: facts["worker_pids"]
                .as_array()
                .into_iter()
                .flatten()
                .map(number)
                .collect(),
            _store: store,
        }
    }

    fn private_memory(&self) -> (u64, u64) {
        let workers = self.workers.iter().copied().map(server::private).sum();
        (server::private(self.front), workers)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn peer(venv: &Path, command: &str) -> Command {
    let mut python = Command::new("python3");
    python
        .arg(root().join("benches/peers/peer.py"))
        .arg(command)
        .arg("--venv")
        .arg(venv);
    python
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(
    clippy::cast_precision_loss,
    reason = "megabytes are shown to one digit"
)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
