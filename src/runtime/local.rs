//! A runtime in this process: a handler, and a pool that runs the model.
//!
//! It takes a request through preprocess, pool and postprocess and keeps its deadline; tensors of a client go straight
//! to the pool unless the version has its handler take them. It knows neither sessions
//! nor threads, which are the pool's, nor wasm, which is the handler's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::compiler;
use super::envelope::{self, Opened, Row, Wrapped};
use super::failures::{
    backend_missing, draining, expired, load_failed, not_ready_in_time, outputs_too_large,
};
use super::pool::loader::Loader;
use super::pool::{JobOptions, Pool, WorkerSupervisor};
use super::source::{ModelInputs, is_for_the_model_log};
use super::{Batching, Bounds, CircuitState, Hosts, InFlight, Status, Verdict};
use crate::backend::Signature;
use crate::error::{Error, Kind};
use crate::handler::{Code, Handler, HandlerSpec, Prepared, Sink, Step};
use crate::model::{Device, Envelope, ModelSpec, TensorsTo};
use crate::payload::{Body, Meter, Output, Reply, Request, Response, Schedule, Timings};
use crate::sandbox::Outcomes;
use crate::tensor::NamedTensor;

/// Rows of an envelope that are under way at a time.
const ROWS_AT_ONCE: usize = 64;

/// Rows of a request that may share a run; more cannot be counted in a batch.
const MAX_ROWS: usize = u32::MAX as usize / 2;

/// How long workers may take to end once nothing is under way.
const WORKERS_END_TIMEOUT: Duration = Duration::from_secs(1);

/// A loaded model version in this process. Cheap to clone. The last clone to go ends the workers.
#[derive(Clone)]
pub struct LocalRuntime(Arc<Inner>);

struct Inner {
    handler: Handler,
    workers: Arc<WorkerSupervisor>,
    in_flight: InFlight,
    tensors_to: TensorsTo,
    envelope: Envelope,
}

impl LocalRuntime {
    /// Loads handler and model side by side, starts `bounds.min` workers, and waits until the first is ready, for as
    /// long as the version's startup timeout. An error is of [`Kind::LoadFailed`] or the handler's own.
    pub async fn start(
        hosts: &Hosts,
        model: Arc<ModelSpec>,
        bounds: Bounds,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, Error> {
        let workers = supervisor(hosts, &model, bounds.max)?;
        let timeout = model.settings.startup_timeout;
        let (tensors_to, envelope) = (model.tensors_to(), model.settings.envelope);
        // Compiling has limits of its own.
        let code = compiler::code(Arc::clone(&hosts.code), Arc::clone(&model)).await?;
        let load = async {
            tokio::try_join!(
                load_handler(hosts, Arc::clone(&model), code, sink),
                workers.start(bounds)
            )
        };
        let loaded = tokio::time::timeout(timeout, load).await;
        let (handler, ()) = loaded.map_err(|_| not_ready_in_time(&model))??;
        workers.follow_demand();
        workers.watch_overdue_runs();
        Ok(Self(Arc::new(Inner {
            handler,
            workers,
            in_flight: InFlight::default(),
            tensors_to,
            envelope,
        })))
    }

    /// Takes one request through preprocess, inference and postprocess. Dropping the future cancels the request: its
    /// handler call ends, and its job leaves the queue.
    pub async fn call(&self, request: Request) -> Result<Reply, Error> {
        let Some(_ticket) = self.0.in_flight.enter() else {
            return Err(draining(self.pool().model()));
        };
        if request.deadline <= Instant::now() {
            return Err(expired("before it was begun"));
        }
        let deadline = tokio::time::Instant::from_std(request.deadline);
        let answered = tokio::time::timeout_at(deadline, self.0.run(request)).await;
        answered.unwrap_or_else(|_| Err(expired("before it was answered")))
    }

    /// Asks the handler what it says of its model: a text that should be a JSON object. Dropping the future ends the call.
    pub async fn describe(&self, request_id: &str, deadline: Instant) -> Result<Response, Error> {
        let Some(_ticket) = self.0.in_flight.enter() else {
            return Err(draining(self.pool().model()));
        };
        let described = self.0.handler.describe(request_id);
        let described = tokio::time::timeout_at(deadline.into(), described).await;
        described.unwrap_or_else(|_| Err(expired("before the handler described its model")))
    }

    /// Starts or stops workers until there are as many as `bounds` allow, and waits until the new ones are ready.
    /// Workers that stop finish the batch they are in. Demand keeps to the bounds from now on.
    pub async fn scale(&self, bounds: Bounds) -> Result<(), Error> {
        self.0.workers.scale(bounds).await
    }

    /// The runtime at this moment. Asks nobody.
    pub fn status(&self) -> Status {
        let (workers, last_error, given_up) = self.pool().report();
        Status {
            walls: Outcomes::new(),
            workers,
            given_up,
            circuit: CircuitState::Closed,
            last_output: Vec::new(),
            last_error,
            in_flight: self.0.in_flight.count(),
            batching: self.batching(),
        }
    }

    /// How long an answer may take.
    pub fn response_timeout(&self) -> Duration {
        self.pool().model().settings.response_timeout
    }

    /// How many workers take jobs.
    pub fn workers_ready(&self) -> usize {
        self.pool().workers_ready()
    }

    /// How requests are stacked, once a worker loaded the model.
    pub fn batching(&self) -> Option<Batching> {
        self.pool().batching()
    }

    /// What was found out about batching, if anything.
    pub fn verdict(&self) -> Option<Verdict> {
        self.pool().verdict()
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub fn without_worker_since(&self) -> Option<Instant> {
        self.pool().without_worker_since()
    }

    /// Inputs and outputs of the model, once loaded.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        self.pool().signature().cloned()
    }

    /// Resolves with the reason when the device or process cannot be used any more, or too many runs do not end. In a worker
    /// process it is time to exit then.
    pub async fn failure(&self) -> Error {
        self.pool().failure().await
    }

    /// Refuses new requests, waits at most `timeout` for those under way, then ends the workers.
    pub async fn drain(&self, timeout: Duration) {
        self.0.in_flight.close();
        let _ = tokio::time::timeout(timeout, self.0.in_flight.emptied()).await;
        self.pool().close(&draining(self.pool().model()));
        if tokio::time::timeout(WORKERS_END_TIMEOUT, self.0.workers.ended())
            .await
            .is_err()
        {
            tracing::warn!("a worker is still in its batch and is left behind");
        }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.0.workers.pool()
    }
}

impl Inner {
    async fn run(&self, request: Request) -> Result<Reply, Error> {
        let pool = self.workers.pool();
        pool.admit()?;
        let signature = match pool.signature() {
            Some(signature) => signature,
            None => loaded(pool).await?,
        };
        let options = job_options(&request);
        match request.body {
            Body::Tensors(tensors) if self.tensors_to == TensorsTo::Model => {
                let inputs = ModelInputs::of_client(tensors, &request.id);
                let meter = &request.meter;
                self.infer_straight(signature, inputs, options, meter).await
            }
            Body::Raw(_) | Body::Form(_) if self.envelope != Envelope::None => {
                // Boxed, so that requests without one pay nothing for it.
                Box::pin(self.run_enveloped(signature, request, options)).await
            }
            _ => self.run_handler(signature, request, options).await,
        }
    }

    /// Straight to the model and back.
    async fn infer_straight(
        &self,
        signature: &Signature,
        inputs: ModelInputs<'_>,
        options: JobOptions,
        meter: &Meter,
    ) -> Result<Reply, Error> {
        let mut timings = Timings::default();
        let outputs = self.infer(signature, inputs, options, &mut timings);
        let outputs = outputs.await?;
        count_run(meter, &timings);
        self.check_size(&outputs)?;
        let output = Output::Tensors(outputs);
        Ok(Reply { output, timings })
    }

    /// Outputs that are the response are bounded as a handler's response is.
    fn check_size(&self, outputs: &[NamedTensor]) -> Result<(), Error> {
        let limit = self.workers.pool().model().limits.response;
        let size = outputs.iter().map(|output| output.tensor.data().len());
        let size: usize = size.sum();
        if size > limit {
            return Err(outputs_too_large(size, limit));
        }
        Ok(())
    }

    /// Takes the envelope off, has its rows answered side by side, and wraps the answers. The first row
    /// that fails fails the request.
    async fn run_enveloped(
        &self,
        signature: &Signature,
        request: Request,
        options: JobOptions,
    ) -> Result<Reply, Error> {
        let model = self.workers.pool().model();
        let settings = &model.settings;
        let (wrapped, rows) = match envelope::open(self.envelope, request).await? {
            Opened::Whole(request) => return self.run_handler(signature, request, options).await,
            Opened::Wrapped(wrapped, rows) => (wrapped, rows),
        };
        let at_once = settings.batch_size.max(settings.max_workers);
        let rows = stream::iter(rows.into_iter().enumerate());
        let answers = rows
            .map(|row| self.run_row(signature, &wrapped, row, options))
            .buffered(at_once.clamp(1, ROWS_AT_ONCE));
        let answers: Vec<(Response, Timings)> = answers.try_collect().await?;
        let (responses, timings): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let timings = timings.into_iter().reduce(Timings::beside);
        Ok(Reply {
            output: Output::Response(wrapped.close(model, &responses)?),
            timings: timings.unwrap_or_default(),
        })
    }

    async fn run_row(
        &self,
        signature: &Signature,
        wrapped: &Wrapped,
        (place, row): (usize, Row),
        options: JobOptions,
    ) -> Result<(Response, Timings), Error> {
        let answered = self.run_handler(signature, wrapped.request(row), options);
        let answered = answered.await.and_then(|reply| {
            let timings = reply.timings;
            Ok((reply.into_response()?, timings))
        });
        answered.map_err(|error| wrapped.failed(place, error))
    }

    /// Through preprocess, model and postprocess.
    async fn run_handler(
        &self,
        signature: &Signature,
        request: Request,
        options: JobOptions,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        let step = self.handler.preprocess(&request).await?;
        let mut timings = Timings {
            preprocess: started.elapsed(),
            ..Timings::default()
        };
        let Prepared { inputs, carry } = match step {
            Step::Infer(prepared) => prepared,
            Step::Done(response) => {
                let output = Output::Response(response);
                return Ok(Reply { output, timings });
            }
        };
        let inputs = ModelInputs::of_handler(inputs, &request.body, &request.id);
        // Not needed any more, and maybe large.
        drop(request.body);
        let outputs = self.infer(signature, inputs, options, &mut timings);
        let outputs = outputs.await?;
        let inferred = Instant::now();
        let (id, meter) = (&request.id, &request.meter);
        count_run(meter, &timings);
        let response = self.handler.postprocess(id, meter, outputs, carry);
        let output = Output::Response(response.await?);
        timings.postprocess = inferred.elapsed();
        Ok(Reply { output, timings })
    }

    /// Checks inputs and has them run. What is wrong with them is the fault of whoever made them, and the reason is in the
    /// model's log.
    async fn infer(
        &self,
        signature: &Signature,
        inputs: ModelInputs<'_>,
        options: JobOptions,
        timings: &mut Timings,
    ) -> Result<Vec<NamedTensor>, Error> {
        let (source, request_id) = (inputs.source, inputs.request_id);
        let outputs = self.infer_checked(signature, inputs.tensors, options, timings);
        outputs.await.map_err(|error| {
            let error = source.blame(error);
            if is_for_the_model_log(&error) {
                self.handler.log_failure(&error.to_string(), request_id);
            }
            error
        })
    }

    async fn infer_checked(
        &self,
        signature: &Signature,
        inputs: Vec<NamedTensor>,
        options: JobOptions,
        timings: &mut Timings,
    ) -> Result<Vec<NamedTensor>, Error> {
        signature.check(&inputs)?;
        let rows = signature.rows(&inputs).filter(|rows| *rows <= MAX_ROWS);
        let inputs = signature.arrange(inputs);
        let answer = self.workers.pool().infer(inputs, rows, options).await?;
        timings.queue = answer.queue;
        timings.infer = answer.infer;
        timings.batch_rows = u32::try_from(answer.batch_rows).unwrap_or(u32::MAX);
        timings.rows = u32::try_from(rows.unwrap_or(1)).unwrap_or(u32::MAX);
        timings.leads_batch = answer.leads_batch;
        Ok(answer.outputs)
    }
}

/// Counts a request's part of the run that it was in.
fn count_run(meter: &Meter, timings: &Timings) {
    meter.add_run(
        timings.infer,
        timings.rows as usize,
        timings.batch_rows as usize,
    );
}

fn job_options(request: &Request) -> JobOptions {
    let Schedule { priority, begin_by } = request.schedule;
    JobOptions {
        begin_by: begin_by.map_or(request.deadline, |by| by.min(request.deadline)),
        deadline: request.deadline,
        priority,
    }
}

/// Waits for the first worker of a version that was started without any.
async fn loaded(pool: &Pool) -> Result<&Arc<Signature>, Error> {
    pool.first_ready().await?;
    let signature = pool.signature();
    signature.ok_or_else(|| Error::new(Kind::Internal, "The model has no signature"))
}

fn supervisor(
    hosts: &Hosts,
    model: &Arc<ModelSpec>,
    workers: usize,
) -> Result<Arc<WorkerSupervisor>, Error> {
    let Some(backend) = hosts.backends.get(&model.backend) else {
        return Err(backend_missing(model));
    };
    let loader = Loader::new(Arc::clone(backend), model, workers, hosts.cores);
    let verdicts = hosts.verdicts.clone();
    let pool = Pool::new(Arc::clone(model), verdicts, &hosts.inline_runs);
    Ok(WorkerSupervisor::new(
        pool,
        loader,
        Arc::clone(&hosts.worker_ids),
    ))
}

async fn load_handler(
    hosts: &Hosts,
    model: Arc<ModelSpec>,
    code: Code,
    sink: Arc<dyn Sink>,
) -> Result<Handler, Error> {
    let factory = Arc::clone(&hosts.engine);
    let made = tokio::task::spawn_blocking(move || factory()).await;
    let engine =
        made.map_err(|error| load_failed("the handler engine does not start", &error))??;
    let spec = HandlerSpec {
        device: first_device(&model),
        limits: model.limits.clone(),
        code,
        sink,
        model,
    };
    Handler::load(&engine, spec).await
}

fn first_device(model: &ModelSpec) -> Device {
    let first = model.settings.devices.first();
    first.copied().unwrap_or(Device::Cpu)
}

#[cfg(test)]
pub(super) mod tests;
