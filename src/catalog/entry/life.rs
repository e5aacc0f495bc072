//! The life of a version's runtime: start, scaling, drain, end; one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Entry, Phase};
use crate::catalog::memory::MemoryPromise;
use crate::error::Error;
use crate::runtime::{Bounds, Hosts, ModelFiles, Runtime, Status, WorkerState, failures};

/// How long a runtime that is replaced by nothing may take to end.
const RUNTIME_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at workers that load.
const READY_INTERVAL: Duration = Duration::from_millis(10);

impl Entry {
    /// Shows the version as loading, so that requests wait for the start that follows.
    pub(in crate::catalog) fn expect_workers(&self) {
        self.set_phase(Phase::Loading, self.bounds.lock().min);
    }

    /// Starts the runtime with `min` workers, of which demand may make `max`.
    pub(in crate::catalog) async fn start(
        &self,
        hosts: &Hosts,
        is_asked: bool,
    ) -> Result<(), Error> {
        let _lifecycle = self.lifecycle.lock().await;
        let bounds = *self.bounds.lock();
        self.start_with(hosts, bounds, is_asked).await
    }

    /// Waits, after a start, until all workers are ready or one failed. Whether all are.
    pub(in crate::catalog) async fn all_ready(&self) -> bool {
        let until = Instant::now() + self.spec.settings.startup_timeout;
        loop {
            let workers = self
                .status()
                .map(|status| status.workers)
                .unwrap_or_default();
            let has = |state| workers.iter().any(|worker| worker.state == state);
            if !has(WorkerState::Loading) || Instant::now() > until {
                return !has(WorkerState::Loading) && !has(WorkerState::Failed);
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    /// Starts or stops workers so that there are at least `min` and at most `max`.
    pub(in crate::catalog) async fn scale(
        &self,
        hosts: &Hosts,
        bounds: Bounds,
    ) -> Result<(), Error> {
        let _lifecycle = self.lifecycle.lock().await;
        *self.bounds.lock() = bounds;
        let phase = self.phase.load_full();
        match &*phase {
            Phase::Ready(runtime) => self.scale_running(runtime, bounds).await,
            Phase::Loading | Phase::Empty | Phase::Failed(_) if bounds.min > 0 => {
                self.start_with(hosts, bounds, true).await
            }
            Phase::Loading | Phase::Empty | Phase::Failed(_) => {
                self.set_phase(Phase::Empty, 0);
                Ok(())
            }
        }
    }

    async fn scale_running(&self, runtime: &Runtime, bounds: Bounds) -> Result<(), Error> {
        let now = runtime.status().workers.len();
        let workers = now.clamp(bounds.min, bounds.max);
        if workers == 0 {
            self.set_phase(Phase::Empty, 0);
            runtime.drain(RUNTIME_DRAIN_TIMEOUT).await;
            return Ok(());
        }
        let since = Instant::now();
        // A worker that comes now may load the model anew, or share what others loaded.
        if let Err(error) = self.restore_files().await {
            self.log_missing_files(&error);
        }
        runtime.scale(bounds).await?;
        self.set_running(workers);
        if workers != now {
            self.show_load_times(&runtime.status(), since.elapsed());
        }
        Ok(())
    }

    /// Memory for its process, until that can be measured.
    async fn promised_memory(&self, may_refuse: bool) -> Result<Option<MemoryPromise>, Error> {
        let Some(catalog) = self.catalog.upgrade() else {
            return Ok(None);
        };
        catalog
            .promise_memory(&self.spec, self.digest(), may_refuse)
            .await
    }

    /// Starts the runtime, because somebody asked for it or because it was there before.
    async fn start_with(&self, hosts: &Hosts, bounds: Bounds, is_asked: bool) -> Result<(), Error> {
        if let Some(error) = self.unusable.clone().or_else(|| self.without_time()) {
            self.set_failed(error.clone());
            return Err(error);
        }
        self.set_phase(Phase::Loading, bounds.min);
        let since = Instant::now();
        let _memory = self
            .promised_memory(is_asked)
            .await
            .inspect_err(|error| self.set_failed(error.clone()))?;
        let leaving = self.leaving.lock().clone();
        let sink = Arc::clone(&self.sink) as Arc<_>;
        let hosts = hosts
            .with_files(Arc::new(self.files.clone()))
            .with_counts(Arc::clone(&self.processes));
        let starting = async {
            self.restore_files().await?;
            Runtime::start(&hosts, Arc::clone(&self.spec), bounds, sink).await
        };
        let started = tokio::select! {
            started = starting => started,
            () = leaving.cancelled() => Err(failures::called_off(&self.spec)),
        };
        match started {
            Ok(runtime) => {
                self.log_loaded(&runtime.status(), since.elapsed());
                self.set_phase(Phase::Ready(runtime), bounds.min);
                Ok(())
            }
            Err(error) => {
                self.log_failed(&error, leaving.is_cancelled());
                self.set_failed(error.clone());
                Err(error)
            }
        }
    }

    /// Brings back files of the archive that another program removed.
    async fn restore_files(&self) -> Result<(), Error> {
        let files = self.files.clone();
        let restoring = tokio::task::spawn_blocking(move || ModelFiles::restore(&files));
        // After a panic, which was logged, loading says what is missing.
        restoring.await.unwrap_or(Ok(()))
    }

    /// A version that has no time to start does not, however quick it would have been.
    fn without_time(&self) -> Option<Error> {
        let timeout = self.spec.settings.startup_timeout;
        (timeout.is_zero()).then(|| failures::not_ready_in_time(&self.spec))
    }

    pub(super) fn show_load_times(&self, status: &Status, took: Duration) {
        let ids: Vec<u32> = status.workers.iter().map(|worker| worker.id).collect();
        self.metrics.workers(&ids, took);
    }

    /// Whether it is on its way out of the catalog.
    pub(in crate::catalog) fn is_leaving(&self) -> bool {
        self.admission.is_closed()
    }

    /// Refuses new requests from now on.
    pub(in crate::catalog) fn begin_leaving(&self) {
        self.admission.close();
    }

    /// Refuses new requests and waits for those in flight, at most `timeout`; then ends the runtime. If they take
    /// longer, requests are admitted again. Whether the version is drained.
    pub(in crate::catalog) async fn drain(&self, timeout: Duration) -> bool {
        self.admission.close();
        self.leaving.lock().cancel();
        let since = Instant::now();
        if !self.admission.wait_empty(timeout).await {
            *self.leaving.lock() = CancellationToken::new();
            self.admission.open();
            return false;
        }
        self.end_runtime(timeout.saturating_sub(since.elapsed()))
            .await;
        true
    }

    /// As [`Self::drain`], but the runtime ends in any case.
    pub(in crate::catalog) async fn shut_down(&self, timeout: Duration) {
        self.admission.close();
        self.leaving.lock().cancel();
        let since = Instant::now();
        self.admission.wait_empty(timeout).await;
        self.end_runtime(timeout.saturating_sub(since.elapsed()))
            .await;
    }

    async fn end_runtime(&self, timeout: Duration) {
        let _lifecycle = self.lifecycle.lock().await;
        let phase = self.phase.load_full();
        self.set_phase(Phase::Empty, 0);
        if let Phase::Ready(runtime) = &*phase {
            runtime.drain(timeout).await;
        }
    }

    /// Its runtime did not start. The time without one goes on from the first failure.
    fn set_failed(&self, error: Error) {
        self.failing_since
            .lock()
            .get_or_insert_with(|| Instant::now().into_std());
        self.set_phase(Phase::Failed(error), 0);
    }

    fn set_phase(&self, phase: Phase, workers: usize) {
        if matches!(phase, Phase::Ready(_) | Phase::Empty) {
            *self.failing_since.lock() = None;
        }
        self.phase.store(Arc::new(phase));
        self.set_running(workers);
        self.phase_changed.notify_waiters();
    }

    /// Admits as many requests as the workers can run that demand has brought meanwhile. Whether that is another number.
    pub(super) fn follow_workers(&self) -> bool {
        let Bounds { min, max } = *self.bounds.lock();
        if min == max {
            return false;
        }
        match &**self.phase.load() {
            Phase::Ready(runtime) => {
                let workers = runtime.workers_ready().clamp(min.max(1), max.max(1));
                self.set_running(workers)
            }
            Phase::Loading | Phase::Empty | Phase::Failed(_) => false,
        }
    }

    fn set_running(&self, workers: usize) -> bool {
        self.admission
            .set_running(workers * self.spec.settings.batch_size)
    }
}
