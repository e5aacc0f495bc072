//! The worker process's side: what `lantern worker` and `lantern-torch` run.
//!
//! The process takes its orders from a socket that is its stdin. The first says what to load; when the socket closes, the
//! front is gone and so is the process, whatever it was doing. SIGTERM ends it too, once it has answered what it has. Nothing
//! is read from the environment or the command line.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::batching;
use super::failures::{not_loaded, not_walled_in, other_build, too_much_to_report};
use super::local::LocalRuntime;
use super::process::ProcessConfig;
use super::protocol::convert::{
    bounds_from_wire, failure_to_wire, model_from_wire, path_from_wire, signature_to_wire,
    verdict_from_wire, workers_to_wire,
};
use super::protocol::frame::FrameLimits;
use super::protocol::incoming::{Ending, Incoming};
use super::protocol::messages::{Order, Report, Start};
use super::protocol::outbox::{Outbox, Urgency};
use super::protocol::{BUILD, GREETING, ORDER_LIMITS, REPORT_HEADER_LIMIT};
use super::shared::{Ends, Regions};
use super::{Hosts, InlineRuns, NativeLibraries, Verdicts, WorkerIds};
use crate::backend::{Backend, BackendError};
use crate::error::{Error, Kind};
use crate::handler::{Code, HandlerEngine};
use crate::model::{BackendKind, ModelSpec};
use crate::sandbox::{Entered, handover};
use host::Host;
use reporter::Reporter;
pub use walls::enter;

mod calm;
mod heartbeat;
mod host;
mod leaving;
mod reporter;
mod walls;

/// Makes the backend of a kind.
pub trait MakeBackend:
    FnOnce(BackendKind, &NativeLibraries) -> Result<Arc<dyn Backend>, BackendError> + Send + 'static
{
}

impl<F> MakeBackend for F where
    F: FnOnce(BackendKind, &NativeLibraries) -> Result<Arc<dyn Backend>, BackendError>
        + Send
        + 'static
{
}

/// Runtime threads of a worker process, at most: they run handlers, one per core that workers leave.
const MOST_THREADS: usize = 16;

/// Threads that a worker process has beside those: of its watch, its heartbeat, its first worker and the engine.
const OTHER_THREADS: usize = 6;

/// Puts up the walls and tells whoever started the process what came of it: what a worker process does first.
pub fn probe() -> ExitCode {
    let told = walls::enter()
        .and_then(|(within, _)| handover::send(io::stdin().as_fd(), &within.outcomes, &[]));
    told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Hosts one version until the front goes away or orders it to end. `backend` makes the backend of the version's kind
/// from what the front says of native libraries. It is called before any handler code exists in the process: the handler
/// engine's signal handlers have to be installed after those of native libraries.
pub fn run(backend: impl MakeBackend) -> ExitCode {
    // Before there is a second thread, and before anything foreign.
    match walls::enter().and_then(|(within, files)| try_run(within, files, backend)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(within: Entered, files: Vec<OwnedFd>, backend: impl MakeBackend) -> io::Result<()> {
    let mut files = files.into_iter();
    let code = files.next();
    let code = code.ok_or_else(|| io::Error::other("the handler's code did not come"))?;
    let code = Code::received(code)?;
    let shared = files.next().zip(files.next());
    let shared = shared.map(|(orders, reports)| Regions::received([orders, reports]).of_worker());
    let shared = shared.transpose()?;
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    // One more, for the spare.
    let threads = threads.clamp(1, MOST_THREADS) + 1;
    can_start(threads + OTHER_THREADS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    // In a task, on a runtime thread: calls then start on the thread that read them.
    let inline_runs = Arc::<InlineRuns>::default();
    inline_runs.keep_spare_thread(runtime.handle());
    let served = runtime
        .block_on(async { tokio::spawn(serve(within, code, shared, backend, inline_runs)).await });
    // Workers may be inside native code that does not come back.
    runtime.shutdown_background();
    served.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// Fails unless so many threads can run at a time. A runtime that gets some of its threads and not the others waits without end
/// for those that it has.
fn can_start(count: usize) -> io::Result<()> {
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let shut = gate.lock();
    let start = |_| {
        let gate = gate.clone();
        std::thread::Builder::new().spawn(move || drop(gate.lock()))
    };
    let started: Vec<_> = (0..count).map(start).collect();
    drop(shut);
    let needs =
        |error| io::Error::other(format!("a worker process needs {count} threads: {error}"));
    for thread in started {
        let _ = thread.map_err(needs)?.join();
    }
    Ok(())
}

async fn serve(
    within: Entered,
    code: Code,
    shared: Option<Ends>,
    backend: impl MakeBackend,
    inline_runs: Arc<InlineRuns>,
) -> io::Result<()> {
    let stream = Arc::new(stdin_socket()?);
    leaving::end_with_front(stream.as_ref())?;
    let _signals = leave_to_front()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (arena, view) = shared.map(|ends| (ends.out, ends.into)).unzip();
    let mut incoming = Incoming::new(stream.clone(), ORDER_LIMITS, view.clone());
    let start = match incoming.next(|| false).await {
        Ok((Order::<String>::Start(start), _)) => *start,
        Ok(_) => return Err(io::Error::other("the first message is not the handshake")),
        Err(ending) => return over(ending),
    };
    let limits = FrameLimits {
        header: REPORT_HEADER_LIMIT,
        body: start.model.limits.response,
    };
    let outbox = Arc::new(Outbox::new(stream, limits, arena, &GREETING));
    if let Some(view) = view {
        view.on_release(reporter::of_release(&outbox));
    }
    let flusher = outbox.clone();
    tokio::spawn(async move { flusher.run_flusher().await });
    heartbeat::start(&outbox)?;
    let walls = Report::Walls(within.outcomes.clone());
    send(&outbox, &walls, Urgency::Now);
    if let Some((wall, reason)) = within.missing() {
        refuse(&not_walled_in(wall, reason), &outbox).await;
        return Ok(());
    }
    let loaded = tokio::select! {
        loaded = load(&within, start, code, backend, inline_runs, &outbox) => loaded,
        // There is nothing to finish.
        _ = terminate.recv() => return Ok(()),
        // Nothing is ordered before the version is loaded, so this is the end.
        ended = incoming.next::<Order<String>>(|| false) => return ended.map_or_else(over, |_| {
            Err(io::Error::other("an order came before the version was loaded"))
        }),
    };
    match loaded {
        Ok(runtime) => host(runtime, incoming, &outbox, terminate).await,
        Err(error) => {
            refuse(&error, &outbox).await;
            Ok(())
        }
    }
}

/// Says why the version does not load.
async fn refuse(error: &Error, outbox: &Outbox) {
    send(
        outbox,
        &Report::Failed(failure_to_wire(error)),
        Urgency::Now,
    );
    outbox.flush_all().await;
}

/// The process's stdin as the socket that it must be.
fn stdin_socket() -> io::Result<UnixStream> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let stream = StdUnixStream::from(stdin);
    stream.peer_addr().map_err(walls::not_by_hand)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Signals of a terminal are the front's to act on; a process that catches one and does nothing is not ended by it.
fn leave_to_front() -> io::Result<[Signal; 2]> {
    Ok([
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ])
}

async fn load(
    within: &Entered,
    start: Start,
    code: Code,
    backend: impl MakeBackend,
    inline_runs: Arc<InlineRuns>,
    outbox: &Arc<Outbox>,
) -> Result<LocalRuntime, Error> {
    if start.build != BUILD {
        return Err(other_build(&start.build, BUILD));
    }
    let invalid = |violation| {
        Error::new(Kind::Internal, "the handshake does not make sense").with_detail(violation)
    };
    let bounds = bounds_from_wire(start.workers).map_err(invalid)?;
    let mut model = model_from_wire(start.model).map_err(invalid)?;
    model.directory = within.path(&model.directory);
    let model: Arc<ModelSpec> = Arc::new(model);
    let verdicts = Verdicts::default();
    if let Some(verdict) = start.verdict {
        let key = batching::key(&model.digest, model.settings.batch_size);
        verdicts.keep(&key, &verdict_from_wire(verdict));
    }
    let libraries = NativeLibraries {
        onnxruntime: (start.onnxruntime.map(path_from_wire)).map(|path| within.path(&path)),
    };
    let backend = backend(model.backend, &libraries).map_err(|error| not_loaded(&model, &error))?;
    let hosts = Hosts {
        code: Arc::new(code),
        engine: Arc::new(HandlerEngine::lazy()),
        backends: Arc::new(HashMap::from([(model.backend, backend)])),
        processes: ProcessConfig::default(),
        worker_ids: Arc::new(WorkerIds::from(0)),
        cores: start.cores as usize,
        verdicts,
        inline_runs,
    };
    LocalRuntime::start(
        &hosts,
        model,
        bounds,
        Arc::new(Reporter::new(outbox.clone())),
    )
    .await
}

/// Answers calls until the front goes away or orders the end, somebody else asks for it, or the version cannot go on: then the
/// process ends, and the front starts another.
async fn host(
    runtime: LocalRuntime,
    incoming: Incoming,
    outbox: &Arc<Outbox>,
    mut terminate: Signal,
) -> io::Result<()> {
    let signature = runtime.signature().unwrap_or_default();
    reporter::report_batching(&runtime, outbox);
    let ready = Report::<&str>::Ready {
        signature: signature_to_wire(&signature),
        workers: workers_to_wire(&runtime.status().workers),
    };
    if let Err(violation) = outbox.send(&ready, &[], Urgency::Now) {
        refuse(&too_much_to_report(&violation), outbox).await;
        return Ok(());
    }
    tokio::spawn(reporter::report_workers(runtime.clone(), outbox.clone()));
    let host = Arc::new(Host::new(runtime.clone(), outbox.clone()));
    tokio::spawn(calm::give_memory_back(Arc::downgrade(&host)));
    let longest = runtime.response_timeout();
    tokio::select! {
        served = follow(incoming, &host, outbox) => served,
        () = leaving::asked(&mut terminate, || host.is_idle(), longest) => {
            outbox.flush_all().await;
            Ok(())
        }
        failure = runtime.failure() => {
            // Answers that are there still go; the front sends the rest to the next process.
            outbox.flush_all().await;
            Err(io::Error::other(failure.to_string()))
        }
    }
}

/// Does what the front orders, until it goes away or orders the end.
async fn follow(mut incoming: Incoming, host: &Arc<Host>, outbox: &Outbox) -> io::Result<()> {
    loop {
        match incoming.next::<Order<String>>(|| host.is_lively()).await {
            Ok((Order::Call(call), body)) => host.call(call, body.unchanged()),
            Ok((Order::Describe { id, request, left }, _)) => host.describe(id, request, left),
            Ok((Order::Cancel { id }, _)) => host.cancel(id),
            Ok((Order::Released { offset }, _)) => drop(outbox.released(offset)),
            Ok((Order::Scale { id, workers }, _)) => {
                let bounds = bounds_from_wire(workers).map_err(io::Error::other)?;
                host.scale(id, bounds);
            }
            Ok((Order::Drain { timeout }, _)) => {
                host.drain(timeout).await;
                outbox.flush_all().await;
                return Ok(());
            }
            Ok((Order::Start(_), _)) => return Err(io::Error::other("a second handshake came")),
            Err(ending) => return over(ending),
        }
    }
}

/// That the front closed the socket is how a worker process ends.
fn over(ending: Ending) -> io::Result<()> {
    match ending {
        Ending::Closed => Ok(()),
        Ending::Failed(error) => Err(error),
        Ending::Violated(violation) => Err(io::Error::other(violation.to_string())),
    }
}

/// Sends a report that keeps to the limits by what it is.
fn send(outbox: &Outbox, report: &Report<&str>, urgency: Urgency) {
    if let Err(violation) = outbox.send(report, &[], urgency) {
        eprintln!("a report was not sent: {violation}");
    }
}
