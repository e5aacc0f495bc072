//! What clients are told, asked of both hostings.
use std::sync::Arc;
use std::time::Duration;

use crate::backend::fake::{FakeBackend, Outcome};
use crate::error::{Error, Kind};
use crate::model::{Hosting, ModelSpec, Settings};
use crate::payload::{Body, Request};
use crate::runtime::local::tests as inline;
use crate::runtime::process::testing::{FakeProcess, FakePrograms, Log, request};
use crate::runtime::testing::rows;
use crate::runtime::{Bounds, Hosts, Runtime};

/// Longer than anything here takes that is not held.
const TIMEOUT: Duration = Duration::from_millis(50);

/// A version in each hosting, and what stands behind it.
struct Both {
    backend: FakeBackend,
    processes: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<FakeProcess>>,
    hosts: [Hosts; 2],
    settings: Settings,
}

impl Both {
    fn new(settings: Settings) -> Self {
        let backend = FakeBackend::new().with_mark([9], Outcome::Fatal);
        let (programs, processes) = FakePrograms::new();
        Self {
            hosts: [inline::hosts(&backend), programs.hosts()],
            backend,
            processes: processes.into(),
            settings,
        }
    }

    async fn start(&self, hosting: Hosting, workers: usize) -> Result<Runtime, Error> {
        let mut model = ModelSpec::clone(&inline::model("passthrough", self.settings.clone()));
        model.settings.hosting = hosting;
        let hosts = match hosting {
            Hosting::Inline => &self.hosts[0],
            Hosting::Process => &self.hosts[1],
        };
        let bounds = Bounds::exactly(workers);
        Runtime::start(hosts, Arc::new(model), bounds, Arc::new(Log::default())).await
    }

    /// Both with a worker.
    async fn started(&self) -> ([Runtime; 2], FakeProcess) {
        let inline = self.start(Hosting::Inline, 1).await.ok().unwrap();
        let hosted = self.start(Hosting::Process, 1);
        let load = async {
            let mut process = self.processes.lock().await.recv().await.unwrap();
            process.load().await;
            process
        };
        let (hosted, process) = tokio::join!(hosted, load);
        ([inline, hosted.ok().unwrap()], process)
    }
}

fn tensors(mark: u8) -> Request {
    Request {
        body: Body::Tensors(rows(&[mark], 1)),
        ..request("r")
    }
}

async fn refusals(runtimes: &[Runtime; 2], request: impl Fn() -> Request) -> [Error; 2] {
    let [inline, hosted] = runtimes;
    let (inline, hosted) = tokio::join!(inline.call(request()), hosted.call(request()));
    [inline, hosted].map(Result::unwrap_err)
}

async fn no_worker() -> [Error; 2] {
    let both = Both::new(Settings::default());
    let inline = both.start(Hosting::Inline, 0).await.ok().unwrap();
    let hosted = both.start(Hosting::Process, 0).await.ok().unwrap();
    refusals(&[inline, hosted], || tensors(1)).await
}

async fn draining() -> [Error; 2] {
    let both = Both::new(Settings::default());
    let (runtimes, process) = both.started().await;
    process.die(0);
    for runtime in &runtimes {
        runtime.drain(Duration::ZERO).await;
    }
    refusals(&runtimes, || tensors(1)).await
}

async fn expired() -> [Error; 2] {
    let both = Both::new(Settings::default());
    let (runtimes, _process) = both.started().await;
    both.backend.gate().shut();
    let refused = refusals(&runtimes, || {
        let request = tensors(1);
        let deadline = request.arrival + TIMEOUT;
        Request {
            deadline,
            ..request
        }
    });
    let refused = refused.await;
    both.backend.gate().open();
    refused
}

async fn not_ready_in_time() -> [Error; 2] {
    let both = Both::new(Settings {
        startup_timeout: TIMEOUT,
        ..Settings::default()
    });
    both.backend.load_gate().shut();
    let inline = both.start(Hosting::Inline, 1).await;
    let hosted = both.start(Hosting::Process, 1).await;
    both.backend.load_gate().open();
    [inline, hosted].map(|started| started.err().unwrap())
}

#[tokio::test]
async fn both_hostings_say_the_same() {
    let asked = [
        (Kind::NoWorker, no_worker().await),
        (Kind::Draining, draining().await),
        (Kind::Expired, expired().await),
        (Kind::LoadFailed, not_ready_in_time().await),
    ];
    for (kind, [inline, hosted]) in asked {
        assert_eq!((inline.kind(), hosted.kind()), (kind, kind));
        assert_eq!(inline.message(), hosted.message(), "{kind:?}");
    }
}

#[tokio::test]
async fn both_hostings_say_why_a_worker_died() {
    let mut both = Both::new(Settings::default());
    let ([inline, hosted], mut process) = both.started().await;
    let inline = inline.call(tensors(9)).await.unwrap_err();
    let killed = tokio::spawn(async move { hosted.call(tensors(9)).await });
    process.peer.call().await;
    process.die(11);
    process = both.processes.get_mut().recv().await.unwrap();
    process.load().await;
    process.peer.call().await;
    process.die(9);
    let hosted = killed.await.unwrap().unwrap_err();
    for (error, why) in [
        (inline, "it cannot be used any more"),
        (hosted, "killed by signal 9"),
    ] {
        assert_eq!(error.kind(), Kind::WorkerDied);
        assert_eq!(error.message(), format!("Worker died: {why}"));
    }
}
