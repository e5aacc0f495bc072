//! Real worker processes, with a real handler and a backend that fails when a request tells it to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lantern::backend::Signature;
use lantern::budget::Account;
use lantern::error::{Error, Kind};
use lantern::handler::{Code, LogLine, Observation, Sink};
use lantern::model::{
    BackendKind, Declared, Limits, ModelName, ModelSpec, Settings, TensorsTo, Version,
};
use lantern::payload::{Body, Meter, Output, Reply, Request, Schedule};
use lantern::runtime::process::{ProcessConfig, SandboxConfig};
use lantern::runtime::{
    Bounds, CodeSource, CompileLimits, Compiler, Hosts, Runtime, Status, WorkerIds, WorkerState,
};
use lantern::sandbox::{Demand, Demands};
use lantern::tensor::{DType, NamedTensor, Tensor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A row that makes the fake backend abort the process.
pub(crate) const ABORT: &[u8; 5] = b"abort";

/// A row that makes the fake backend lose its device, after which the process ends itself.
const FATAL: &[u8; 5] = b"fatal";

/// A row that makes the session panic.
const PANIC: &[u8; 5] = b"panic";

/// A row whose run never ends.
const STUCK: &[u8; 5] = b"stuck";

/// How often the server checks a process. One that is stopped at every check for 2 s is given up.
const LOOKS: Duration = Duration::from_millis(250);

/// Signal numbers as they appear in messages.
const SIGABRT: &str = "Worker died: killed by signal 6";

struct Lines(mpsc::UnboundedSender<LogLine>);

impl Sink for Lines {
    fn log(&self, line: LogLine) {
        let _ = self.0.send(line);
    }
    fn observe(&self, _observation: Observation) {}
}

/// The specification of a version that is hosted in a worker process.
pub(crate) struct Hosted {
    pub(crate) runtime: Runtime,
    lines: mpsc::UnboundedReceiver<LogLine>,
}

/// Starts versions in worker processes of the program under test.
pub(crate) fn hosts() -> Hosts {
    Hosts {
        verdicts: lantern::runtime::Verdicts::default(),
        code: compiler(),
        engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline here"))),
        backends: Arc::default(),
        processes: ProcessConfig {
            lantern: env!("CARGO_BIN_EXE_lantern").into(),
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 2,
        inline_runs: Arc::default(),
    }
}

fn compiler() -> Arc<Compiler> {
    let program = env!("CARGO_BIN_EXE_lantern").into();
    Arc::new(Compiler::new(program, None, CompileLimits::default()))
}

/// A version of the fake backend.
pub(crate) fn model(settings: Settings) -> ModelSpec {
    ModelSpec {
        digest: String::new(),
        samples: None,
        name: ModelName::new("m").unwrap(),
        version: Version::new("1").unwrap(),
        directory: guests(),
        artifact: "model".into(),
        handler: "passthrough.wasm".into(),
        backend: BackendKind::Fake,
        declared: Declared::default(),
        manifest: "{}".into(),
        config: "{}".into(),
        properties: [].into(),
        settings: Settings {
            tensors_to: TensorsTo::Handler,
            ..settings
        },
        limits: Limits::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are told where guests lie")]
fn guests() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/target/wasm32-wasip2/release");
    std::env::var_os("LANTERN_GUESTS").map_or(built, PathBuf::from)
}

/// Settings under which a request waits in a batch until another one joins it.
pub(crate) fn pairs() -> Settings {
    Settings {
        batch_size: 2,
        batching: lantern::model::BatchingMode::On,
        max_batch_delay: Duration::from_mins(10),
        wait_for_full_batches: true,
        ..Settings::default()
    }
}

impl Hosted {
    pub(crate) async fn start(model: ModelSpec, workers: usize) -> Result<Self, Error> {
        Self::start_with(&hosts(), model, workers).await
    }

    async fn start_with(hosts: &Hosts, model: ModelSpec, workers: usize) -> Result<Self, Error> {
        let (sender, lines) = mpsc::unbounded_channel();
        let sink = Arc::new(Lines(sender));
        let runtime =
            Runtime::start(hosts, Arc::new(model), Bounds::exactly(workers), sink).await?;
        Ok(Self { runtime, lines })
    }

    /// Calls in a task of its own, and returns when the request has been sent to the process.
    pub(crate) async fn call(&self, row: &[u8; 5]) -> JoinHandle<Result<Reply, Error>> {
        let (runtime, request) = (self.runtime.clone(), request(*row));
        let before = self.status().in_flight;
        let call = tokio::spawn(async move { runtime.call(request).await });
        self.until(|status| status.in_flight > before).await;
        call
    }

    pub(crate) fn status(&self) -> Status {
        self.runtime.status()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.status().workers[0].pid
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn line(&mut self, text: &str) -> LogLine {
        loop {
            let line = self.lines.recv().await.unwrap();
            if line.message.contains(text) {
                return line;
            }
        }
    }

    /// Returns when the process has been stopped for longer than the server needs to notice.
    async fn is_seen_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.pid());
        let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
        while !is_stopped() {
            tokio::task::yield_now().await;
        }
        let since = std::time::Instant::now();
        while since.elapsed() < 3 * LOOKS {
            assert!(is_stopped());
            tokio::task::yield_now().await;
        }
    }

    fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

pub(crate) fn request(row: [u8; 5]) -> Request {
    let tensor = Tensor::new(DType::U8, vec![1, 5], Bytes::copy_from_slice(&row)).unwrap();
    // Tokio's clock is used, which a test may have advanced.
    let now = Instant::now().into_std();
    Request {
        id: "r".into(),
        content_type: None,
        headers: vec![],
        body: Body::Tensors(vec![NamedTensor::new("x", tensor)]),
        arrival: now,
        deadline: now + Duration::from_secs(50),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

async fn is_gone(pid: u32) {
    while Path::new(&format!("/proc/{pid}")).exists() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn answer(reply: &Reply) -> String {
    match &reply.output {
        Output::Response(response) => String::from_utf8(response.body().to_vec()).unwrap(),
        Output::Tensors(tensors) => panic!("no response, but {tensors:?}"),
    }
}

#[tokio::test]
async fn tensors_go_straight_to_a_model_in_a_worker_process() {
    let mut straight = model(Settings::default());
    straight.settings.tensors_to = TensorsTo::Model;
    let version = Hosted::start(straight, 1).await.unwrap();
    let sent = request(*b"hello");
    let reply = version.runtime.call(sent.clone()).await.unwrap();
    let Output::Tensors(outputs) = reply.output else {
        panic!("no tensors, but {:?}", reply.output)
    };
    assert_eq!(Body::Tensors(outputs), sent.body);
    assert_eq!((reply.timings.rows, reply.timings.batch_rows), (1, 1));
    assert!(reply.timings.leads_batch);
}

/// Counts how often code is asked for.
struct Counted {
    compiler: Arc<Compiler>,
    asked: AtomicUsize,
}

impl CodeSource for Counted {
    fn code(&self, model: &ModelSpec) -> Result<Code, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.compiler.code(model)
    }
}

#[tokio::test]
async fn a_process_that_is_started_again_gets_the_code_that_is_there() {
    let counted = Arc::new(Counted {
        compiler: compiler(),
        asked: AtomicUsize::new(0),
    });
    let hosts = Hosts {
        code: counted.clone(),
        ..hosts()
    };
    let version = Hosted::start_with(&hosts, model(Settings::default()), 1).await;
    let version = version.unwrap();
    let first = version.pid();
    version.kill();
    let is_next =
        |status: &Status| status.workers.iter().any(|worker| worker.pid != first) && is_up(status);
    version.until(is_next).await;
    version.runtime.call(request(*b"hello")).await.unwrap();
    assert_eq!(counted.asked.load(Ordering::SeqCst), 1);
}

fn is_up(status: &Status) -> bool {
    let mut workers = status.workers.iter();
    workers.any(|worker| worker.state == WorkerState::Ready)
}

#[tokio::test]
async fn a_request_is_answered_by_a_worker_process() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let reply = version.runtime.call(request(*b"hello")).await.unwrap();
    assert!(answer(&reply).contains("104"), "{}", answer(&reply));
    assert_eq!(reply.timings.batch_rows, 1);
    let status = version.until(|status| status.workers[0].memory() > 0).await;
    assert_eq!(status.workers[0].id, 9000);
    assert_eq!(status.workers[0].state, WorkerState::Ready);
    assert_ne!(status.workers[0].pid, std::process::id());
    assert_eq!(status.in_flight, 0);
    assert_eq!(
        version.runtime.signature(),
        Some(Arc::new(Signature::default()))
    );
}

#[tokio::test]
async fn a_request_in_a_killed_process_is_answered_by_the_next() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    let pid = version.pid();
    let first = version.call(b"first").await;
    version.kill();
    let is_back = |status: &Status| {
        status.workers[0].pid != pid && status.workers[0].state == WorkerState::Ready
    };
    let status = version.until(is_back).await;
    assert_eq!(status.workers[0].id, 9000);
    let second = version.runtime.call(request(*b"other")).await.unwrap();
    assert_eq!(second.timings.batch_rows, 2);
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_request_that_kills_two_processes_fails_with_the_reason() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let error = version.runtime.call(request(*ABORT)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WorkerDied);
    assert_eq!(error.message(), SIGABRT);
    let status = version.status();
    assert_eq!(
        status.last_error.map(|e| e.message().to_owned()),
        Some(SIGABRT.to_owned())
    );
    // The next request is served.
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
}

/// Of one that stayed, the next would get the place in its batch, and the one after that would wait alone. The process drops a
/// cancelled request beside the next ones, which may be quicker: then the round says nothing, and there is another.
#[tokio::test]
async fn a_cancelled_request_leaves_the_process() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    for _ in 0..5 {
        let first = version.call(b"first").await;
        first.abort();
        version.until(|status| status.in_flight == 0).await;
        let mut two = [version.call(b"other").await, version.call(b"third").await];
        let both = futures_util::future::join_all(&mut two);
        if let Ok(answers) = tokio::time::timeout(Duration::from_secs(5), both).await {
            for answer in answers {
                assert_eq!(answer.unwrap().unwrap().timings.batch_rows, 2);
            }
            return;
        }
        two.iter().for_each(JoinHandle::abort);
        version.until(|status| status.in_flight == 0).await;
    }
    panic!("cancelled requests stay in the process");
}

#[tokio::test]
async fn workers_come_and_go() {
    let version = Hosted::start(
        model(Settings {
            max_workers: 3,
            ..Settings::default()
        }),
        1,
    )
    .await
    .unwrap();
    version.runtime.scale(Bounds::exactly(3)).await.unwrap();
    let status = version.until(|status| status.workers.len() == 3).await;
    let ids: Vec<_> = status.workers.iter().map(|worker| worker.id).collect();
    assert_eq!(ids, [9000, 9001, 9002]);
    let pid = version.pid();
    version.runtime.scale(Bounds::exactly(0)).await.unwrap();
    is_gone(pid).await;
    assert_eq!(
        version
            .runtime
            .call(request(*b"hello"))
            .await
            .unwrap_err()
            .kind(),
        Kind::NoWorker
    );
    version.runtime.scale(Bounds::exactly(1)).await.unwrap();
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    assert_eq!(version.status().workers[0].id, 9003);
}

#[tokio::test]
async fn draining_waits_for_what_was_accepted() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    let pid = version.pid();
    let first = version.call(b"first").await;
    let second = version.call(b"other").await;
    version.runtime.drain(Duration::from_secs(40)).await;
    assert!(first.await.unwrap().is_ok());
    assert!(second.await.unwrap().is_ok());
    assert_eq!(
        version
            .runtime
            .call(request(*b"later"))
            .await
            .unwrap_err()
            .kind(),
        Kind::Draining
    );
    is_gone(pid).await;
}

#[tokio::test]
async fn a_dropped_runtime_leaves_no_process() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let pid = version.pid();
    drop(version);
    is_gone(pid).await;
}

#[tokio::test]
async fn a_version_that_does_not_load_is_an_error_and_leaves_no_process() {
    let mut broken = model(Settings::default());
    broken.handler = "nothing.wasm".into();
    let error = Hosted::start(broken, 1).await.err().unwrap();
    assert_eq!(error.kind().wire().status / 100, 5);
    let mut slow = model(Settings::default());
    slow.settings.startup_timeout = Duration::ZERO;
    let error = Hosted::start(slow, 1).await.err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert!(
        error.message().contains("did not respond in given time"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_program_is_named_with_what_to_do() {
    let mut hosts = hosts();
    hosts.processes.lantern_torch = "missing/lantern-torch".into();
    let mut torch = model(Settings::default());
    torch.backend = BackendKind::Torch;
    let error = Hosted::start_with(&hosts, torch, 1).await.err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    let detail = error.detail().unwrap();
    assert!(
        detail.contains("missing/lantern-torch") && detail.contains("make build"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_version_that_keeps_failing_is_given_up() {
    let mut impatient = model(Settings {
        max_retry_timeout: Duration::ZERO,
        ..Settings::default()
    });
    let directory = tempfile::tempdir().unwrap();
    let [archive, aside] = ["archive", "aside"].map(|name| directory.path().join(name));
    std::fs::create_dir(&archive).unwrap();
    let handler = archive.join("handler.wasm");
    std::fs::copy(guests().join("passthrough.wasm"), &handler).unwrap();
    impatient.directory.clone_from(&archive);
    impatient.handler = "handler.wasm".into();
    let version = Hosted::start(impatient, 1).await.unwrap();
    std::fs::rename(&archive, &aside).unwrap();
    version.kill();
    version.until(|status| status.given_up).await;
    assert_eq!(
        version
            .runtime
            .call(request(*b"hello"))
            .await
            .unwrap_err()
            .kind(),
        Kind::NoWorker
    );
    // Scaling starts it again, after an operator has removed the cause.
    std::fs::rename(&aside, &archive).unwrap();
    version.runtime.scale(Bounds::exactly(1)).await.unwrap();
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    assert!(!version.status().given_up);
}

#[tokio::test]
async fn a_process_whose_device_is_lost_says_so_and_is_replaced() {
    let mut version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let pid = version.pid();
    let _ = version.runtime.call(request(*FATAL)).await;
    let status = version.until(|status| !status.last_output.is_empty()).await;
    let word = status.last_output.last().unwrap().clone();
    let line = version.line(&word).await;
    assert_eq!(line.fields, [("stream".to_owned(), "stderr".to_owned())]);
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    assert_ne!(version.pid(), pid);
}

/// An id as the server makes them; no other is taken from a line.
const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

#[tokio::test]
async fn a_line_of_a_worker_thread_carries_the_id_of_its_request() {
    let mut version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let failing = Request {
        id: ID.into(),
        ..request(*PANIC)
    };
    let error = version.runtime.call(failing).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InferenceFailed);
    let line = version.line("ERROR the session panicked").await;
    assert_eq!(line.request_id, ID);
    assert!(!line.message.contains("request_id"), "{}", line.message);
}

#[tokio::test]
async fn a_stopped_process_is_replaced_long_before_it_would_count_as_silent() {
    let version = Hosted::start(model(Settings::default()), 1).await.unwrap();
    let pid = version.pid();
    version.signal(rustix::process::Signal::STOP);
    let noticed = version.until(|status| status.last_error.is_some());
    // Ten seconds for what takes three: the machine may be busy.
    let status = tokio::time::timeout(Duration::from_secs(10), noticed).await;
    let error = status.unwrap().last_error.unwrap();
    assert_eq!(
        error.message(),
        "Worker died: was stopped by a signal for 2 s"
    );
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    assert_ne!(version.pid(), pid);
}

/// A version whose runs were short so far, so that they run inline.
async fn quick(workers: usize) -> Hosted {
    quick_with(workers, Settings::default()).await
}

async fn quick_with(workers: usize, settings: Settings) -> Hosted {
    let settings = Settings {
        max_workers: workers,
        ..settings
    };
    let version = Hosted::start(model(settings), workers).await.unwrap();
    for _ in 0..60 {
        version.runtime.call(request(*b"hello")).await.unwrap();
    }
    version
}

fn stuck_until(deadline: Duration) -> Request {
    let request = request(*STUCK);
    Request {
        deadline: request.arrival + deadline,
        ..request
    }
}

#[tokio::test]
async fn a_run_that_takes_long_keeps_nobody_waiting_whom_others_can_serve() {
    let version = quick(4).await;
    let pid = version.pid();
    let stuck = version.call(STUCK).await;
    for _ in 0..200 {
        version.runtime.call(request(*b"hello")).await.unwrap();
    }
    assert!(!stuck.is_finished());
    assert_eq!(version.pid(), pid);
}

#[tokio::test]
async fn a_run_that_takes_long_does_not_keep_the_process_from_answering() {
    let version = quick(1).await;
    let pid = version.pid();
    let stuck = version.call(STUCK).await;
    let soon = std::time::Instant::now() + Duration::from_secs(40);
    for _ in 0..200 {
        version.runtime.describe("r", soon).await.unwrap();
    }
    assert!(!stuck.is_finished());
    assert_eq!(version.pid(), pid);
}

#[tokio::test]
async fn a_run_that_does_not_end_costs_its_own_requests_alone() {
    let settings = Settings {
        response_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let version = quick_with(1, settings).await;
    let pid = version.pid();
    for id in 9001..9003 {
        let stuck = stuck_until(Duration::from_millis(200));
        let expired = version.runtime.call(stuck).await.unwrap_err();
        assert_eq!(expired.kind(), Kind::Expired);
        // The worker that replaces the one in the endless run answers.
        assert!(version.runtime.call(request(*b"hello")).await.is_ok());
        version.until(|status| status.workers[0].id == id).await;
        assert_eq!(version.pid(), pid);
    }
    // When too many threads are left behind, the process ends and they end with it.
    let stuck = stuck_until(Duration::from_millis(200));
    let expired = version.runtime.call(stuck).await.unwrap_err();
    assert_eq!(expired.kind(), Kind::Expired);
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    assert_ne!(version.pid(), pid);
}

#[tokio::test]
async fn a_process_that_was_stopped_for_a_moment_goes_on() {
    let version = Hosted::start(model(pairs()), 1).await.unwrap();
    let pid = version.pid();
    let first = version.call(b"first").await;
    version.signal(rustix::process::Signal::STOP);
    version.is_seen_stopped().await;
    version.signal(rustix::process::Signal::CONT);
    assert!(version.runtime.call(request(*b"other")).await.is_ok());
    assert!(first.await.unwrap().is_ok());
    assert_eq!(version.pid(), pid);
    assert!(version.status().last_error.is_none());
}

#[tokio::test]
async fn each_process_works_in_a_directory_of_its_own_where_there_are_no_walls() {
    let home = tempfile::tempdir().unwrap();
    let mut hosts = hosts();
    hosts.processes.sandbox = SandboxConfig::new(Demands::all(Demand::Off));
    hosts.processes.directory = Some(home.path().to_owned());
    let version = Hosted::start_with(&hosts, model(Settings::default()), 1).await;
    let version = version.unwrap();
    let process = PathBuf::from(format!("/proc/{}", version.pid()));
    let directory = std::fs::read_link(process.join("cwd")).unwrap();
    assert_eq!(directory.parent(), Some(home.path()));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let variables = std::fs::read(process.join("environ")).unwrap();
    let variables = String::from_utf8(variables).unwrap();
    let place = directory.display();
    for expected in [
        format!("HOME={place}"),
        format!("TMPDIR={place}"),
        "ORT_DISABLE_TELEMETRY=1".to_owned(),
    ] {
        assert!(
            variables.split('\0').any(|one| one == expected),
            "{variables}"
        );
    }
    version.runtime.drain(Duration::ZERO).await;
    while directory.exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn paths_are_seen_from_where_the_server_works() {
    let relative = |path: &Path| {
        let here = std::env::current_dir().unwrap();
        let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
        up.join(path.strip_prefix("/").unwrap())
    };
    let mut hosts = hosts();
    hosts.processes.lantern = relative(&hosts.processes.lantern);
    hosts.processes.sandbox = SandboxConfig::new(Demands::all(Demand::Off));
    let mut near = model(Settings::default());
    near.directory = relative(&near.directory);
    let version = Hosted::start_with(&hosts, near, 1).await.unwrap();
    assert!(version.runtime.call(request(*b"hello")).await.is_ok());
    let directory = format!("/proc/{}/cwd", version.pid());
    assert_eq!(std::fs::read_link(directory).unwrap(), Path::new("/"));
}

#[tokio::test]
async fn what_a_program_says_that_does_not_start_is_told() {
    let mut hosts = hosts();
    hosts.processes.lantern = "/bin/cat".into();
    let error = Hosted::start_with(&hosts, model(Settings::default()), 1).await;
    let error = error.err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert_eq!(
        error.message(),
        "Worker died: exited with status 1 while it loaded the model"
    );
    assert!(error.detail().unwrap().contains("No such file"), "{error}");
}

#[test]
fn a_worker_process_started_by_hand_says_what_it_is() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"));
    let output = command.arg("worker").stdin(std::process::Stdio::null());
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("started by `lantern serve`"), "{said}");
}

#[tokio::test]
async fn a_process_of_an_owner_beside_others_can_be_set_back() {
    let own = std::fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    if own.is_empty() {
        return println!("skipped: the kernel here does not group sessions");
    }
    let mut hosts = hosts();
    hosts.processes.weight = Some(Arc::default());
    let hosted = Hosted::start_with(&hosts, model(Settings::default()), 1).await;
    let runtime = hosted.unwrap().runtime;
    let pid = runtime.status().workers[0].pid;
    let nice = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap();
        text.trim_end().rsplit(' ').next().unwrap().to_owned()
    };
    for (is_back, expected) in [(true, "10"), (false, "0")] {
        runtime.set_back(is_back).unwrap();
        assert_eq!(nice(), expected);
    }
    assert_eq!(
        std::fs::read_to_string("/proc/self/autogroup").unwrap(),
        own
    );
}
