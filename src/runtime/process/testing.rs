//! Worker processes that do what a test says, on the other end of a real connection.
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::spawn::{ChildProcess, Spawn, Spawned};
use super::*;
use crate::backend::Signature;
use crate::budget::Account;
use crate::error::Kind;
use crate::handler::{Code, LogLine, Observation};
use crate::payload::{Body, Meter, Output, Response, Schedule, Spent, Timings};
use crate::runtime::protocol::convert::{reply_to_wire, signature_to_wire};
use crate::runtime::protocol::messages::{self, Order, Report};
use crate::runtime::protocol::{GREETING, ORDER_LIMITS, frame};
use crate::runtime::{Verdicts, WorkerIds};
use crate::sandbox::{Policy, handover};

/// Keeps the log lines of a handler.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<LogLine>>);

impl Sink for Log {
    fn log(&self, line: LogLine) {
        self.0.lock().push(line);
    }
    fn observe(&self, _observation: Observation) {}
}

/// The worker process's end of a connection.
pub(crate) struct Peer {
    stream: UnixStream,
    decoder: frame::Decoder,
    is_greeted: bool,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: frame::Decoder::new(ORDER_LIMITS),
            is_greeted: false,
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn greet(&mut self) {
        self.write(&GREETING).await;
    }

    async fn read(&mut self) {
        assert_ne!(self.stream.read_buf(self.decoder.space()).await.unwrap(), 0);
    }

    pub(crate) async fn order(&mut self) -> Order<String> {
        self.next().await.0
    }

    /// The next order and its body.
    pub(crate) async fn next(&mut self) -> (Order<String>, frame::ReadBody) {
        while !self.is_greeted {
            self.is_greeted = self.decoder.take() == Some(GREETING);
            if !self.is_greeted {
                self.read().await;
            }
        }
        loop {
            if let Some(next) = self.decoder.next().unwrap() {
                return next;
            }
            self.read().await;
        }
    }

    pub(crate) async fn call(&mut self) -> messages::Call<String> {
        match self.order().await {
            Order::Call(call) => call,
            other => panic!("no call, but {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, report: &Report<&str>, body: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, ORDER_LIMITS, report, frame::Body::Here(&[body])).unwrap();
        self.write(&bytes).await;
    }

    /// Sends one report again and again, as fast as it is read, until nobody reads any more.
    pub(crate) async fn flood(&mut self, report: &Report<&str>) {
        let mut bytes = Vec::new();
        while bytes.len() < 64 << 10 {
            frame::encode(&mut bytes, ORDER_LIMITS, report, frame::Body::Here(&[])).unwrap();
        }
        while self.stream.write_all(&bytes).await.is_ok() {}
    }

    pub(crate) async fn reply(&mut self, id: u64, body: &[u8]) {
        let reply = reply();
        let (report, _) = reply_to_wire(id, &reply, Spent::default());
        self.send(&report, body).await;
    }
}

/// A request with a body of its own: requests of the same id are equal.
pub(crate) fn request(id: &str) -> Request {
    let now = Instant::now().into_std();
    Request {
        id: id.to_owned(),
        content_type: None,
        headers: vec![],
        body: Body::Raw(id.to_owned().into()),
        arrival: now,
        deadline: now + Duration::from_mins(1),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

pub(crate) fn reply() -> Reply {
    Reply {
        output: Output::Response(Response::json(bytes::Bytes::new())),
        timings: Timings::default(),
    }
}

/// A process that a test drives.
pub(crate) struct FakeProcess {
    pub(crate) peer: Peer,
    /// When it was started.
    pub(crate) at: Instant,
    exit: Exit,
}

/// How a process ended, once it did.
type Exit = Arc<watch::Sender<Option<ExitStatus>>>;

impl FakeProcess {
    /// Takes the handshake and says that its version is loaded, with as many workers as it must have.
    pub(crate) async fn load(&mut self) {
        let workers = self.started().await.min;
        self.ready(workers).await;
    }

    /// Takes the handshake: the workers that it must and may have.
    pub(crate) async fn started(&mut self) -> messages::Bounds {
        self.peer.greet().await;
        match self.peer.order().await {
            Order::Start(start) => start.workers,
            other => panic!("no handshake, but {other:?}"),
        }
    }

    pub(crate) async fn ready(&mut self, workers: u32) {
        let report = Report::Ready {
            signature: signature_to_wire(&Signature::default()),
            workers: (0..workers).map(worker).collect(),
        };
        self.peer.send(&report, b"").await;
    }

    /// Gives signs of life for so many seconds.
    pub(crate) async fn live(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let stuck = Duration::ZERO;
            self.peer.send(&Report::Alive { stuck }, b"").await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Answers a call with a failure of the handler.
    pub(crate) async fn refuse(&mut self, id: u64) {
        let failure = messages::Failure {
            kind: messages::FailureKind::HandlerTrapped,
            message: "trap",
            detail: None,
        };
        let spent = messages::Spent::default();
        let report = Report::Refused { id, spent, failure };
        self.peer.send(&report, b"").await;
    }

    /// Takes an order to scale, which it carries out.
    pub(crate) async fn scaled(&mut self) -> messages::Bounds {
        let Order::Scale { id, workers } = self.peer.order().await else {
            panic!("no order to scale");
        };
        let list = (0..workers.min).map(worker).collect();
        self.peer.send(&Report::Workers(list), b"").await;
        let done = Report::Scaled { id, failure: None };
        self.peer.send(&done, b"").await;
        workers
    }

    /// Ends by a signal.
    pub(crate) fn die(self, signal: i32) {
        end(&self.exit, ExitStatus::from_raw(signal));
    }

    /// Waits until the front has killed it.
    pub(crate) async fn killed(self) {
        let mut exit = self.exit.subscribe();
        let status = *exit.wait_for(Option::is_some).await.unwrap();
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
    }
}

fn worker(id: u32) -> messages::Worker {
    messages::Worker {
        id,
        device: messages::Device::Cpu,
        state: messages::State::Ready,
    }
}

fn end(exit: &Exit, status: ExitStatus) {
    exit.send_if_modified(|ended| ended.is_none() && ended.replace(status).is_none());
}

struct FakeChild(Exit);

impl ChildProcess for FakeChild {
    fn wait(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>> {
        let mut exit = self.0.subscribe();
        Box::pin(async move { Ok(exit.wait_for(Option::is_some).await.unwrap().unwrap()) })
    }

    fn kill(&mut self) -> BoxFuture<'_, io::Result<()>> {
        end(&self.0, ExitStatus::from_raw(9));
        Box::pin(async { Ok(()) })
    }
}

impl Drop for FakeChild {
    fn drop(&mut self) {
        end(&self.0, ExitStatus::from_raw(9));
    }
}

/// Starts processes that a test drives.
pub(crate) struct FakePrograms {
    started: mpsc::UnboundedSender<FakeProcess>,
    fails: AtomicBool,
}

impl FakePrograms {
    /// Together with the processes that are started.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<FakeProcess>) {
        let (started, processes) = mpsc::unbounded_channel();
        let fails = AtomicBool::new(false);
        (Arc::new(Self { started, fails }), processes)
    }

    /// Whether processes end before they load anything.
    pub(crate) fn set_fails(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Hosts whose worker processes come from here.
    pub(crate) fn hosts(self: &Arc<Self>) -> Hosts {
        Hosts {
            verdicts: Verdicts::default(),
            code: Arc::new(Code::none()),
            engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline"))),
            backends: Arc::default(),
            processes: ProcessConfig {
                spawn: self.clone(),
                ..ProcessConfig::default()
            },
            worker_ids: Arc::new(WorkerIds::from(9000)),
            cores: 1,
            inline_runs: Arc::default(),
        }
    }
}

impl Spawn for FakePrograms {
    fn spawn(
        &self,
        _cfg: &ProcessConfig,
        _model: &ModelSpec,
        socket: OwnedFd,
        _directory: &Path,
    ) -> Result<Spawned, Error> {
        let _: (Policy, _) = handover::receive(socket.as_fd()).unwrap();
        let exit = Exit::default();
        let process = FakeProcess {
            peer: Peer::new(UnixStream::from_std(StdUnixStream::from(socket)).unwrap()),
            at: Instant::now(),
            exit: exit.clone(),
        };
        let _ = self.started.send(process);
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::LoadFailed, "no process could be started"));
        }
        Ok(Spawned {
            pid: 0,
            child: Box::new(FakeChild(exit)),
            stdout: Box::new(tokio::io::empty()),
            stderr: Box::new(tokio::io::empty()),
        })
    }
}
