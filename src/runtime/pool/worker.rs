//! A worker's thread: it loads the model, makes a session, and then does what the pool orders until it is to end.
//!
//! It sleeps while there is no order, and holds no lock then.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Pool;
use super::loader::Loader;
use super::session::WorkerSession;
use super::state::Order;
use super::warmup::warm_up;
use crate::backend::BackendError;
use crate::model::Device;
use crate::runtime::failures::not_loaded;

/// The stack of a worker's thread: as large as that of a main thread, which native code relies on.
const STACK: usize = 8 << 20;
/// The first pause before a session is made again. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What a worker's thread works with.
pub(super) struct WorkerThread {
    pub(super) pool: Arc<Pool>,
    pub(super) loader: Arc<Loader>,
    pub(super) id: u32,
    pub(super) device: Device,
}

impl WorkerThread {
    /// Starts the thread.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name(format!("worker-{}", self.id))
            .stack_size(STACK)
            .spawn(move || self.work())
    }

    fn work(&self) {
        match self.load() {
            Ok(session) => self.pool.set_session(self.id, session),
            Err(error) => return self.give_up(&error),
        }
        loop {
            match self.pool.next_order(self.id) {
                Order::Run(session, taken) => self.pool.run(self.id, session, taken, true),
                Order::Rebuild(session) => self.rebuild(session),
                Order::Sleep(None) => std::thread::park(),
                Order::Sleep(Some(until)) => {
                    std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
                Order::End(None) => return,
                Order::End(Some((worker, unserved))) => {
                    return self.pool.drop_worker(worker, unserved);
                }
            }
        }
    }

    fn load(&self) -> Result<WorkerSession, BackendError> {
        caught(|| {
            let mut session = self.loader.session(self.device)?;
            let run = warm_up(&mut session, self.pool.model.settings.batch_size);
            self.pool.learn(&mut session, run)?;
            Ok(session)
        })
    }

    fn give_up(&self, error: &BackendError) {
        let error = not_loaded(&self.pool.model, error);
        tracing::error!(worker = self.id, "{error}");
        self.pool.give_up(self.id, &error);
    }

    /// Makes a session again, with pauses, for as long as the version's retry window; gives up then.
    fn rebuild(&self, mut session: WorkerSession) {
        let first = Instant::now();
        let window = self.pool.model.settings.max_retry_timeout;
        let mut pause = FIRST_PAUSE;
        while let Err(error) = caught(|| session.rebuild()) {
            if first.elapsed() > window || !self.pool.set_failed(self.id) {
                return self.give_up(&error);
            }
            tracing::warn!(worker = self.id, %error, "the session cannot be made yet");
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.pool.set_session(self.id, session);
    }
}

/// Calls the backend and makes its panic an error.
fn caught<T>(call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(BackendError::Load("the backend panicked".into())))
}
