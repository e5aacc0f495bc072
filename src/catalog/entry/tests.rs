//! The life of one version on a paused clock, with worker processes that a test drives.
use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::archive::{Location, MANIFEST, UnpackLimits, UnpackStore};
use crate::catalog::describe::Condition;
use crate::model::Hosting;
use crate::runtime::process::testing::{FakeProcess, FakePrograms, request};
use crate::runtime::{Hosts, testing};

const MODEL: &str = r#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;

struct Version {
    entry: Arc<Entry>,
    hosts: Hosts,
    programs: Arc<FakePrograms>,
    processes: UnboundedReceiver<FakeProcess>,
    _files: TempDir,
}

fn version() -> Version {
    let settings = Settings {
        hosting: Hosting::Process,
        startup_timeout: Duration::from_mins(1),
        max_retry_timeout: Duration::from_secs(20),
        job_queue_size: 1,
        ..Settings::default()
    };
    let files = tempfile::tempdir().unwrap();
    let opened = Opened {
        spec: testing::model(settings),
        runtime: "",
        is_profiled: false,
        warnings: Vec::new(),
        files: unpacked(&files),
        unusable: None,
        download: None,
        source: "m".to_owned(),
        pin: None,
        handler: None,
        envelope: None,
        url: "m".to_owned(),
        loaded_at_startup: false,
    };
    let metrics = Metrics::new(&crate::metrics::Config::default());
    let (programs, processes) = FakePrograms::new();
    Version {
        entry: Arc::new(Entry::new(
            opened,
            &Arc::default(),
            &metrics,
            None,
            Weak::new(),
        )),
        hosts: programs.hosts(),
        programs,
        processes,
        _files: files,
    }
}

fn unpacked(files: &TempDir) -> Unpacked {
    let model = files.path().join("m");
    fs::create_dir_all(model.join("MAR-INF")).unwrap();
    fs::write(model.join(MANIFEST), MODEL).unwrap();
    fs::write(model.join("h.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    let limits = UnpackLimits {
        entries: 100,
        total: 1 << 20,
        file: 1 << 20,
        ratio: 100,
    };
    let store = UnpackStore::open(&files.path().join("unpacked"), limits).unwrap();
    store.unpack(&Location::local(&model).unwrap()).unwrap()
}

/// Lets every task go on until all of them wait.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Version {
    async fn next(&mut self) -> FakeProcess {
        self.processes.recv().await.unwrap()
    }

    fn start(&self) -> JoinHandle<Result<(), Error>> {
        let (entry, hosts) = (Arc::clone(&self.entry), self.hosts.clone());
        tokio::spawn(async move { entry.start(&hosts, true).await })
    }

    fn scale(&self, workers: usize) -> JoinHandle<Result<(), Error>> {
        let (entry, hosts) = (Arc::clone(&self.entry), self.hosts.clone());
        tokio::spawn(async move { entry.scale(&hosts, Bounds::exactly(workers)).await })
    }

    fn drain(&self, timeout: Duration) -> JoinHandle<bool> {
        let entry = Arc::clone(&self.entry);
        tokio::spawn(async move { entry.drain(timeout).await })
    }

    fn call(&self) -> JoinHandle<Result<Reply, Error>> {
        let entry = Arc::clone(&self.entry);
        tokio::spawn(async move { entry.call(request("r"), false).await })
    }

    async fn started(&mut self) -> FakeProcess {
        let start = self.start();
        let mut process = self.next().await;
        process.load().await;
        start.await.unwrap().unwrap();
        process
    }

    async fn refusal(&self) -> Kind {
        self.call().await.unwrap().unwrap_err().kind()
    }

    fn condition(&self) -> Condition {
        self.entry.describe().condition
    }

    fn is_healthy(&self) -> bool {
        self.entry.is_healthy_at(Instant::now().into_std())
    }
}

async fn answer(process: &mut FakeProcess) {
    let id = process.peer.call().await.id;
    process.peer.reply(id, b"").await;
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_start_and_are_answered() {
    let mut version = version();
    assert_eq!(version.refusal().await, Kind::NoWorker);
    version.entry.expect_workers();
    let waiting = version.call();
    settled().await;
    let mut process = version.started().await;
    answer(&mut process).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(version.condition(), Condition::Ready);
    assert!(version.entry.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_shown_and_counts_from_the_first_failure() {
    let mut version = version();
    version.programs.set_fails(true);
    version.start().await.unwrap().unwrap_err();
    assert!(matches!(version.condition(), Condition::Failed(_)));
    assert_eq!(version.refusal().await, Kind::NoWorker);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(version.is_healthy());
    version.scale(1).await.unwrap().unwrap_err();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!version.is_healthy());
    version.programs.set_fails(false);
    while version.processes.try_recv().is_ok() {}
    version.started().await;
    assert!(version.is_healthy());
}

#[tokio::test(start_paused = true)]
async fn workers_decide_how_many_requests_are_admitted() {
    let mut version = version();
    let mut process = version.started().await;
    let calls = [version.call(), version.call()];
    settled().await;
    assert_eq!(version.refusal().await, Kind::QueueFull);
    let scaled = version.scale(2);
    let orders = [process.peer.call().await.id, process.peer.call().await.id];
    process.scaled().await;
    scaled.await.unwrap().unwrap();
    let third = version.call();
    let last = process.peer.call().await.id;
    for id in orders.into_iter().chain([last]) {
        process.peer.reply(id, b"").await;
    }
    for call in calls.into_iter().chain([third]) {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn scaling_to_none_ends_the_process_and_scaling_up_starts_one() {
    let mut version = version();
    let process = version.started().await;
    let scaled = version.scale(0);
    settled().await;
    process.die(0);
    scaled.await.unwrap().unwrap();
    assert_eq!(version.condition(), Condition::Empty);
    assert_eq!(version.refusal().await, Kind::NoWorker);
    assert!(version.is_healthy());
    let scaled = version.scale(2);
    version.next().await.load().await;
    scaled.await.unwrap().unwrap();
    assert_eq!(version.entry.workers_ready(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_unregistered_finishes_its_requests() {
    let mut version = version();
    let mut process = version.started().await;
    let call = version.call();
    settled().await;
    let drained = version.drain(Duration::from_secs(30));
    settled().await;
    assert_eq!(version.condition(), Condition::Draining);
    assert_eq!(version.refusal().await, Kind::Draining);
    answer(&mut process).await;
    call.await.unwrap().unwrap();
    settled().await;
    process.die(0);
    assert!(drained.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_drain_in_time_serves_again() {
    let mut version = version();
    let mut process = version.started().await;
    let call = version.call();
    settled().await;
    let begun = Instant::now();
    assert!(!version.drain(Duration::from_secs(3)).await.unwrap());
    assert_eq!(begun.elapsed().as_secs(), 3);
    answer(&mut process).await;
    call.await.unwrap().unwrap();
    let call = version.call();
    answer(&mut process).await;
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn unregistering_calls_a_start_off() {
    let mut version = version();
    let start = version.start();
    let mut process = version.next().await;
    process.started().await;
    assert!(version.drain(Duration::from_secs(30)).await.unwrap());
    process.killed().await;
    assert_eq!(start.await.unwrap().unwrap_err().kind(), Kind::Conflict);
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_logged_within_a_request_names_the_version() {
    use tracing::Instrument as _;

    let written = Written::default();
    let writer = written.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _logs = tracing::subscriber::set_default(lines.with_ansi(false).finish());
    let version = version();
    let call = async {
        version.entry.call(request("r"), false).await.unwrap_err();
        tracing::info!("refused");
    };
    call.instrument(crate::payload::request_span("r")).await;
    let text = String::from_utf8(written.0.lock().clone()).unwrap();
    assert!(
        text.contains(r#"request_id="r" model="m" version="1""#),
        "{text}"
    );
}
