//! A worker's session: runs one batch and answers each of its jobs.
//!
//! Whoever holds the session runs it, on whichever thread. It knows jobs; it knows neither queues nor threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::failures::{not_stacked, prediction_failed, run_failed};
use crate::backend::{BackendError, Interrupt, LoadedModel, Session};
use crate::error::{Error, Kind};
use crate::runtime::batcher::{Answer, Job};
use crate::runtime::batching::compare::{Finding, Single, compare};
use crate::runtime::failures::expired;
use crate::tensor::{NamedTensor, Tensor, TensorError};

/// A backend's session, the model it came from, and the batch it is to run.
pub(crate) struct WorkerSession {
    session: Box<dyn Session>,
    model: Arc<dyn LoadedModel>,
    /// Empty between runs. It is kept for its memory.
    pub(super) batch: Vec<Job>,
}

/// How a run left the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Fit for the next batch.
    Usable,
    /// The session panicked and must be made again.
    Broken,
    /// The device or the process cannot be used any more. The text is the backend's.
    Fatal(String),
}

/// The result of a run. Jobs that are still in the session's batch have to be run one by one.
#[derive(Debug)]
pub(super) struct RunResult {
    pub(super) condition: Condition,
    /// Time in the session.
    pub(super) infer: Duration,
    /// What the run showed about stacking, if it did.
    pub(super) comparison: Option<Comparison>,
}

/// A stacked run compared with the runs of its jobs.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) finding: Finding,
    /// Rows of the stacked run.
    pub(super) rows: usize,
}

impl WorkerSession {
    /// Makes one of `model`'s sessions.
    pub(crate) fn new(model: Arc<dyn LoadedModel>) -> Result<Self, BackendError> {
        let session = model.session()?;
        Ok(Self {
            session,
            model,
            batch: Vec::new(),
        })
    }

    /// Makes the session again after a panic.
    pub(super) fn rebuild(&mut self) -> Result<(), BackendError> {
        self.session = self.model.session()?;
        Ok(())
    }

    /// What ends the session's runs from another thread, if the backend has that.
    pub(crate) fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        self.session.interrupter()
    }

    /// The model that the session runs.
    pub(crate) fn model(&self) -> &Arc<dyn LoadedModel> {
        &self.model
    }

    /// Runs the session on inputs of no request.
    pub(crate) fn try_out(
        &mut self,
        inputs: Vec<NamedTensor>,
    ) -> Result<Vec<NamedTensor>, BackendError> {
        match catch_unwind(AssertUnwindSafe(|| self.session.infer(inputs))) {
            Ok(result) => result,
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                self.rebuild()?;
                Err(BackendError::Infer(format!("the session panicked: {text}")))
            }
        }
    }

    /// Runs the batch once and answers every job in it. If a run of several jobs fails, none is answered: each has to be run
    /// by itself, so that it fails by itself.
    pub(super) fn run(&mut self, taken: Instant) -> RunResult {
        let rows = self.batch.iter().map(|job| job.rows).sum();
        let inputs = stacked(&mut self.batch);
        let started = Instant::now();
        let span = own_span(&mut self.batch);
        let outputs = inputs.and_then(|inputs| span.in_scope(|| self.infer(inputs)));
        let mut result = RunResult {
            condition: Condition::Usable,
            infer: started.elapsed(),
            comparison: None,
        };
        let parts = outputs.and_then(|outputs| {
            let parts = self.parts(outputs);
            parts.map_err(|(output, error)| {
                let text = format!("output {output:?} of a stacked run: {error}");
                let finding = Finding::Different(text);
                result.comparison = Some(Comparison { finding, rows });
                Failure::usable(prediction_failed(&error))
            })
        });
        match parts {
            Ok(parts) => self.answer_all(parts, taken, result.infer, rows),
            Err(failure) => {
                self.fail(&failure);
                result.condition = failure.condition;
            }
        }
        result
    }

    /// Runs each job of the batch by itself and answers it, then all of them stacked, and compares.
    pub(super) fn run_both_ways(&mut self, taken: Instant) -> RunResult {
        if self.batch.len() < 2 {
            return self.run(taken);
        }
        let rows = self.batch.iter().map(|job| job.rows).sum();
        let expires = self.batch.iter().map(|job| job.expires).max();
        let inputs = stacked(&mut self.batch);
        let mut jobs = std::mem::take(&mut self.batch).into_iter();
        let mut result = RunResult {
            condition: Condition::Usable,
            infer: Duration::ZERO,
            comparison: None,
        };
        let mut singles = Vec::with_capacity(jobs.len());
        for job in jobs.by_ref() {
            singles.push(self.run_alone(job, taken, &mut result));
            if result.condition != Condition::Usable {
                break;
            }
        }
        let is_whole = jobs.len() == 0 && singles.iter().all(Option::is_some);
        self.batch.extend(jobs);
        let singles: Vec<Single> = singles.into_iter().flatten().collect();
        if let (true, Ok(inputs)) = (is_whole, inputs) {
            let finding = self.compare(inputs, &singles, &mut result.condition);
            // A run that outlives its requests is ended, which says nothing about stacking.
            let is_in_time = expires.is_some_and(|expires| Instant::now() < expires);
            let finding = finding.filter(|_| is_in_time);
            result.comparison = finding.map(|finding| Comparison { finding, rows });
        }
        result
    }

    /// Runs one job and answers it. Returns what the model gave, unless the run failed.
    fn run_alone(
        &mut self,
        mut job: Job,
        taken: Instant,
        result: &mut RunResult,
    ) -> Option<Single> {
        let (inputs, rows) = (std::mem::take(&mut job.inputs), job.rows);
        let started = Instant::now();
        let outputs = job.span.in_scope(|| self.infer(inputs));
        result.infer = started.elapsed();
        match outputs {
            Ok(outputs) => {
                let leads_batch = !job.is_abandoned();
                answer(job, outputs.clone(), taken, result.infer, rows, leads_batch);
                Some(Single { rows, outputs })
            }
            Err(failure) => {
                result.condition = failure.condition;
                job.answer(Err(failure.error));
                None
            }
        }
    }

    /// What the stacked run shows. `None` if it ran out of memory or lost the session.
    fn compare(
        &mut self,
        inputs: Vec<NamedTensor>,
        singles: &[Single],
        condition: &mut Condition,
    ) -> Option<Finding> {
        let singles: Vec<&Single> = singles.iter().collect();
        match self.infer(inputs) {
            Ok(outputs) => Some(compare(&singles, &outputs)),
            Err(failure) => {
                let is_model = failure.condition == Condition::Usable
                    && failure.error.kind() != Kind::OutOfMemory;
                *condition = failure.condition;
                let text = "a stacked run fails where single ones do not";
                is_model.then(|| Finding::Different(text.to_owned()))
            }
        }
    }

    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Failure> {
        match catch_unwind(AssertUnwindSafe(|| self.session.infer(inputs))) {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(panic) => {
                let error = panic_text(panic.as_ref());
                tracing::error!(error, "the session panicked");
                Err(Failure {
                    error: prediction_failed(&error),
                    condition: Condition::Broken,
                })
            }
        }
    }

    /// Each job's outputs. A job that was alone gets what the model gave, whatever its shape: there is nothing to split. The error
    /// names an output that does not have the batch's rows: axis 0 is not the batch.
    fn parts(
        &self,
        outputs: Vec<NamedTensor>,
    ) -> Result<Vec<Vec<NamedTensor>>, (String, TensorError)> {
        if self.batch.len() == 1 {
            return Ok(vec![outputs]);
        }
        let rows: Vec<_> = self.batch.iter().map(|job| job.rows).collect();
        let mut parts: Vec<_> = rows
            .iter()
            .map(|_| Vec::with_capacity(outputs.len()))
            .collect();
        for output in outputs {
            let split = output.tensor.split(&rows);
            let split = split.map_err(|error| (output.name.chars().take(64).collect(), error))?;
            for (part, tensor) in parts.iter_mut().zip(split) {
                part.push(NamedTensor::new(Arc::clone(&output.name), tensor));
            }
        }
        Ok(parts)
    }

    /// Answers each job with its part. The batch is counted with the first job that somebody waits for.
    fn answer_all(
        &mut self,
        parts: Vec<Vec<NamedTensor>>,
        taken: Instant,
        infer: Duration,
        rows: usize,
    ) {
        let mut is_counted = false;
        for (job, outputs) in self.batch.drain(..).zip(parts) {
            let leads_batch = !is_counted && !job.is_abandoned();
            is_counted |= leads_batch;
            answer(job, outputs, taken, infer, rows, leads_batch);
        }
    }

    /// Answers the jobs of a failed run, unless they have to be run one by one.
    fn fail(&mut self, failure: &Failure) {
        if self.batch.len() > 1 && !matches!(failure.condition, Condition::Fatal(_)) {
            return;
        }
        let now = Instant::now();
        for job in self.batch.drain(..) {
            let is_late = job.expires <= now;
            // The run was ended because no request waits for it.
            let late = is_late.then(|| expired("before its run ended"));
            job.answer(Err(late.unwrap_or_else(|| failure.error.clone())));
        }
    }
}

fn answer(
    job: Job,
    outputs: Vec<NamedTensor>,
    taken: Instant,
    infer: Duration,
    batch_rows: usize,
    leads_batch: bool,
) {
    let queue = taken.saturating_duration_since(job.arrival);
    job.answer(Ok(Answer {
        outputs,
        queue,
        infer,
        batch_rows,
        leads_batch,
    }));
}

/// A run that failed.
struct Failure {
    error: Error,
    condition: Condition,
}

impl Failure {
    fn of(error: &BackendError) -> Self {
        let condition = match error {
            BackendError::Fatal(text) => Condition::Fatal(text.clone()),
            _ => Condition::Usable,
        };
        Self {
            error: run_failed(error),
            condition,
        }
    }

    const fn usable(error: Error) -> Self {
        Self {
            error,
            condition: Condition::Usable,
        }
    }
}

/// The jobs' inputs as one batch. A job that is alone gives its inputs away; of several each keeps its own, as they may have
/// to be run again.
fn stacked(batch: &mut [Job]) -> Result<Vec<NamedTensor>, Failure> {
    if let [job] = batch {
        return Ok(std::mem::take(&mut job.inputs));
    }
    let inputs = batch.first().map_or(0, |job| job.inputs.len());
    let stack = |index: usize| {
        let tensors: Vec<&Tensor> = batch.iter().map(|job| &job.inputs[index].tensor).collect();
        let name = Arc::clone(&batch[0].inputs[index].name);
        Tensor::stack(&tensors).map(|tensor| NamedTensor::new(name, tensor))
    };
    let stacked: Result<_, _> = (0..inputs).map(stack).collect();
    stacked.map_err(|error| Failure::usable(not_stacked(&error)))
}

/// The span of the only job. What a run of several logs belongs to none of their requests.
fn own_span(batch: &mut [Job]) -> Span {
    match batch {
        [job] => std::mem::replace(&mut job.span, Span::none()),
        _ => Span::none(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}
