//! Worker processes that are ended, stopped and left alone, and models whose processes keep dying.

use std::path::Path;
use std::time::Duration;

use lantern::api::Listener;
use lantern::error::Kind;
use lantern::model::Settings;
use lantern::runtime::{CircuitState, Status, WorkerState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::process::{ABORT, Hosted, answer, model, pairs, request};
use crate::support::{Life, Model, Place, TestServer, prediction};

/// Far more than anything here takes: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A row that the fake backend of a worker process holds for ever, as native code does that does not come back.
const STUCK: &[u8; 5] = b"stuck";

/// A request for the handler `passthrough`: one row of bytes.
fn row(bytes: [u8; 5]) -> String {
    let input = json!({"name": "x", "dtype": "uint8", "shape": [1, 5], "data": bytes});
    json!({ "inputs": [input] }).to_string()
}

/// Returns when a process is dead. One that nobody has waited for yet is.
async fn is_dead(pid: u32) {
    let stat = format!("/proc/{pid}/stat");
    let dying = async {
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    let died = tokio::time::timeout(PATIENCE, dying).await;
    died.unwrap_or_else(|_| panic!("process {pid} lives on"));
}

/// Returns when every thread of a process is stopped.
async fn is_stopped(pid: u32) {
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| stat.contains(") T "))
    };
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    while !threads().all(|thread| thread.is_ok_and(is_stopped)) {
        tokio::task::yield_now().await;
    }
}

fn send_signal(pid: u32, signal: Signal) {
    // One that is dead already needs none.
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

#[tokio::test]
async fn a_process_that_is_sent_sigterm_answers_what_it_has_and_what_comes_and_ends() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    let pid = version.pid();
    let first = version.call(b"first").await;
    version.signal(Signal::TERM);
    let second = version.runtime.call(request(*b"other")).await.unwrap();
    assert_eq!(second.timings.batch_rows, 2);
    first.await.unwrap().unwrap();
    let status = version.until(|status| status.last_error.is_some()).await;
    let reason = status.last_error.unwrap();
    assert_eq!(reason.message(), "Worker died: exited with status 0");
    is_dead(pid).await;
    let is_back = |status: &Status| {
        status.workers[0].pid != pid && status.workers[0].state == WorkerState::Ready
    };
    version.until(is_back).await;
}

#[tokio::test]
async fn a_process_that_is_sent_sigterm_and_is_never_idle_ends_after_the_response_timeout() {
    let settings = Settings {
        response_timeout: Duration::from_millis(500),
        ..Settings::default()
    };
    let version = Hosted::start(model(settings), 1).await.unwrap();
    let pid = version.pid();
    version.signal(Signal::TERM);
    while version.pid() == pid {
        version.runtime.call(request(*b"hello")).await.unwrap();
    }
}

#[tokio::test]
async fn signals_of_a_terminal_do_not_end_a_process() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    let pid = version.pid();
    let first = version.call(b"first").await;
    version.signal(Signal::INT);
    version.signal(Signal::HUP);
    version.runtime.call(request(*b"other")).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(version.pid(), pid);
}

#[tokio::test]
async fn a_request_that_killed_two_processes_costs_no_third() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let killed = version.runtime.call(request(*ABORT)).await.unwrap_err();
    assert_eq!(killed.message(), "Worker died: killed by signal 6");
    version.runtime.call(request(*b"hello")).await.unwrap();
    let pid = version.pid();
    let refused = version.runtime.call(request(*ABORT)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::WorkerDied);
    assert!(refused.message().contains("an equal request"), "{refused}");
    version.runtime.call(request(*b"hello")).await.unwrap();
    assert_eq!(version.pid(), pid);
}

/// A server with one model in a worker process.
async fn serving(model: Model) -> (Place, Life, u32) {
    let place = Place::new(&[model]);
    let mut life = place.start(&["--models", "all"]).await;
    life.line("1 of 1 models loaded").await;
    let pid = worker(&life).await;
    (place, life, pid)
}

/// The process id of the only worker.
async fn worker(life: &Life) -> u32 {
    let (_, described) = life.ask("GET", "/models/fake").await;
    let pid = described[0]["workers"][0]["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

/// A request that the server has accepted, and whose body is still to come.
async fn half_sent(life: &Life, body: &str) -> TcpStream {
    let address = life.address("inference").split("http://").nth(1).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /predictions/fake HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 25]).await.unwrap();
    stream
}

/// The first request waits in the worker process for the second one, which comes when both processes have the signal.
#[tokio::test]
async fn requests_in_flight_are_answered_where_sigterm_reaches_the_server_and_its_workers() {
    let waits = Model::fake().in_process().with("batchSize: 2");
    let waits = waits.with("maxBatchDelay: 600000").lantern("batching: on");
    let waits = waits.lantern("waitForFullBatches: true");
    let (_place, mut life, pid) = serving(waits).await;
    let body = row(*b"other");
    let mut second = half_sent(&life, &body).await;
    let first = tokio::spawn(life.asking("fake", row(*b"first")));
    while life.sample("lantern_requests_in_flight{").await != Some(1.0) {
        tokio::task::yield_now().await;
    }
    send_signal(pid, Signal::TERM);
    life.signal(Signal::TERM);
    life.read_until("SIGTERM").await;
    second.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(first.await.unwrap().unwrap(), 200);
    let (status, output) = life.ended().await;
    assert!(status.success(), "{output}");
    is_dead(pid).await;
}

#[tokio::test]
async fn a_process_whose_server_was_killed_ends() {
    let (_place, life, pid) = serving(Model::fake().in_process()).await;
    life.end(Signal::KILL).await;
    is_dead(pid).await;
}

#[tokio::test]
async fn a_stopped_process_whose_server_was_killed_ends() {
    let (_place, life, pid) = serving(Model::fake().in_process()).await;
    send_signal(pid, Signal::STOP);
    // The kernel continues one that is stopped when it is orphaned, and leaves alone one that is stopped later.
    is_stopped(pid).await;
    life.end(Signal::KILL).await;
    is_dead(pid).await;
}

#[tokio::test]
async fn a_process_in_native_code_whose_server_was_killed_ends() {
    for earlier in [0, 60] {
        let (_place, life, pid) = serving(Model::fake().in_process()).await;
        // After some short runs, one is run on the thread that is awake.
        for _ in 0..earlier {
            assert_eq!(life.asking("fake", row(*b"hello")).await.unwrap(), 200);
        }
        let stuck = tokio::spawn(life.asking("fake", row(*STUCK)));
        while life.sample("lantern_requests_in_flight{").await != Some(1.0) {
            tokio::task::yield_now().await;
        }
        life.end(Signal::KILL).await;
        is_dead(pid).await;
        stuck.await.unwrap().unwrap_err();
    }
}

/// What describes the only version of `fake`.
async fn described(server: &TestServer) -> Value {
    server.management("GET", "/models/fake").await.json()[0]["lantern"].take()
}

/// A server whose model has an open circuit: three requests have ended five processes. The third finds it open.
async fn crash_looping() -> TestServer {
    let server = TestServer::with(Model::fake().in_process()).await;
    for mode in ["a", "b", "c"] {
        let request = server.request(Listener::Inference, "POST", "/predictions/fake");
        let request = request.header("content-type", "application/json");
        // Requests that differ, or the second one would be refused as the first.
        let answer = request.header("x-mode", mode).body(row(*ABORT)).send();
        assert!(answer.await.unwrap().status().as_u16() >= 500);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_told_to_clients_probes_and_operators_until_it_is_over() {
    let server = crash_looping().await;
    let refused = server.predict("fake", row(*b"hello")).await;
    assert_eq!(refused.status, 503, "{refused}");
    assert_eq!(refused.json()["type"], "ServiceUnavailableException");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    let mut client = server.grpc_inference();
    let refused = client.predictions(prediction("fake", row(*b"hello"))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));

    let lantern = described(&server).await;
    assert_eq!(lantern["state"], "DEGRADED");
    let reason = lantern["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("Worker died: killed by signal 6, as others before"),
        "{reason}"
    );
    let ready = server.inference("GET", "/health/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["status"]),
        (503, &json!("DEGRADED"))
    );
    let ready = server.inference("GET", "/v1/models/fake").await;
    assert_eq!(
        (ready.status, &ready.json()["state"]),
        (503, &json!("DEGRADED"))
    );
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
    assert_eq!(server.sample("lantern_circuit_open{").await, Some(1.0));
    let deaths = server.sample("lantern_worker_deaths_total{").await;
    assert_eq!(deaths, Some(5.0));

    let scaled = "/models/fake?min_worker=1&synchronous=true";
    assert_eq!(server.management("PUT", scaled).await.status, 200);
    assert_eq!(server.predict("fake", row(*b"hello")).await.status, 200);
    assert_eq!(described(&server).await["state"], "ready");
    assert_eq!(server.inference("GET", "/health/ready").await.status, 200);
    assert_eq!(server.sample("lantern_circuit_open{").await, Some(0.0));
    let deaths = server.sample("lantern_worker_deaths_total{").await;
    assert_eq!(deaths, Some(5.0), "counted once");
}

/// How often the random test disturbs a process: a few times, or as often as whoever attacks the server asks for.
#[expect(clippy::disallowed_methods, reason = "an attack says how long it is")]
fn rounds() -> usize {
    let asked = std::env::var("LANTERN_ATTACK_ROUNDS").ok();
    asked.map_or(3, |rounds| rounds.parse().unwrap())
}

/// Numbers that differ from run to run, by xorshift.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        Self(u64::from(since.subsec_nanos()) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A row of digits, which means nothing to the fake backend.
    fn row(&mut self) -> [u8; 5] {
        let digits = format!("{:05}", self.next() % 100_000);
        digits.as_bytes().try_into().unwrap()
    }
}

/// Asserts that one request is answered with its own row, or with an honest failure, in time. Whether it was the row.
async fn is_answered(version: &Hosted, row: [u8; 5]) -> bool {
    let called = version.runtime.call(request(row));
    let called = tokio::time::timeout(Duration::from_mins(1), called).await;
    match called.expect("no request hangs") {
        Ok(reply) => {
            let answer: Value = serde_json::from_str(&answer(&reply)).unwrap();
            assert_eq!(answer["outputs"][0]["data"], json!(row), "{answer}");
            true
        }
        Err(failure) => {
            assert!(failure.kind().wire().status >= 500, "{failure}");
            false
        }
    }
}

/// Sends requests from several clients until `is_over`, and returns how many were answered with their rows.
async fn is_used(version: &Hosted, random: &mut Random, is_over: impl Fn() -> bool) -> usize {
    let mut answered = 0;
    while !is_over() {
        let rows = [random.row(), random.row(), random.row(), random.row()];
        let calls = rows.map(|row| is_answered(version, row));
        let answers = futures_util::future::join_all(calls).await;
        answered += answers
            .into_iter()
            .filter(|is_answered| *is_answered)
            .count();
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_and_stopped_at_random_give_no_wrong_answer_and_hang_nobody() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let mut random = Random::new();
    for _ in 0..rounds() {
        let pid = version.pid();
        let signal = [Signal::KILL, Signal::STOP][usize::from(random.next().is_multiple_of(4))];
        let quiet = Duration::from_micros(random.next() % 20_000);
        let disturbance = async {
            tokio::time::sleep(quiet).await;
            send_signal(pid, signal);
        };
        let is_replaced = || version.pid() != pid || version.status().circuit == CircuitState::Open;
        let use_ = is_used(&version, &mut random, is_replaced);
        let ((), _) = tokio::join!(disturbance, use_);
        // An operator ends a crash loop, which these deaths are in the end.
        if version.runtime.circuit() != CircuitState::Closed {
            let bounds = lantern::runtime::Bounds::exactly(1);
            version.runtime.scale(bounds).await.unwrap();
        }
        version
            .until(|status| status.workers[0].state == WorkerState::Ready)
            .await;
        assert!(is_answered(&version, random.row()).await);
    }
    assert!(Path::new(&format!("/proc/{}", version.pid())).exists());
}
