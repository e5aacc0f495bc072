//! One worker's session to the model: runs one batch and answers each of its jobs.
//!
//! Whoever holds the session runs it, on whichever thread. It knows sessions and jobs; it knows neither queues nor
//! threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{BackendError, Interrupt, LoadedModel, Session};
use crate::error::{Error, Kind};
use crate::runtime::batcher::{Answer, Job, expired};
use crate::runtime::batching::{Finding, Single, compare};
use crate::tensor::{NamedTensor, Tensor, TensorError};

/// A session, the model it came from, and a buffer for the batch in it.
pub(crate) struct WorkerSession {
    session: Box<dyn Session>,
    model: Arc<dyn LoadedModel>,
    /// The batch to be run; empty between runs. Kept for its memory.
    pub(crate) batch: Vec<Job>,
}

/// How a run left the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Fit for the next batch.
    Usable,
    /// The session panicked and must be made anew.
    Broken,
    /// The device or the process cannot be used any more; the text is the backend's.
    Fatal(String),
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How the run left the session.
    pub(crate) condition: Condition,
    /// Time in the session.
    pub(crate) infer: Duration,
    /// Whether the jobs that are still in the session's batch have to be run one by one.
    pub(crate) again: bool,
    /// What the run showed about stacking, if it did.
    pub(crate) compared: Option<Compared>,
}

/// A stacked run beside the runs of its jobs.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Whether they gave the same.
    pub(crate) finding: Finding,
    /// Rows of the stacked run.
    pub(crate) rows: usize,
}

impl WorkerSession {
    /// A session on one of `model`'s sessions.
    pub(crate) fn new(model: Arc<dyn LoadedModel>) -> Result<Self, BackendError> {
        let session = model.session()?;
        Ok(Self {
            session,
            model,
            batch: Vec::new(),
        })
    }

    /// Makes the session anew after a panic.
    pub(crate) fn rebuild(&mut self) -> Result<(), BackendError> {
        self.session = self.model.session()?;
        Ok(())
    }

    /// What ends the session's runs from another thread, if anything does.
    pub(crate) fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        self.session.interrupter()
    }

    /// The model the session leads to.
    pub(crate) fn model(&self) -> &Arc<dyn LoadedModel> {
        &self.model
    }

    /// Runs the session on inputs that nobody waits for.
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

    /// Runs the batch once and answers every job in it. If several jobs were in a run that failed, none is
    /// answered: each has to be run by itself, so that one job's failure is its own.
    pub(crate) fn run(&mut self, taken: Instant) -> Ran {
        let rows = self.batch.iter().map(|job| job.rows).sum();
        let inputs = stacked(&mut self.batch);
        let started = Instant::now();
        let result = inputs.and_then(|inputs| self.infer(inputs));
        let infer = started.elapsed();
        let (mut condition, mut compared) = (Condition::Usable, None);
        let outcome = match result {
            Ok(outputs) => {
                let delivered = self.deliver(outputs, taken, infer, rows);
                delivered.map_err(|Unparted { error, finding }| {
                    compared = Some(Compared { finding, rows });
                    error
                })
            }
            Err(failure) => {
                condition = failure.condition;
                Err(failure.error)
            }
        };
        let again = match outcome {
            Ok(()) => false,
            Err(error) => self.fail(&error, &condition),
        };
        Ran {
            condition,
            infer,
            again,
            compared,
        }
    }

    /// Runs each job of the batch by itself and answers it, then all of them stacked, and compares.
    pub(crate) fn run_both_ways(&mut self, taken: Instant) -> Ran {
        if self.batch.len() < 2 {
            return self.run(taken);
        }
        let rows = self.batch.iter().map(|job| job.rows).sum();
        let expires = self.batch.iter().map(|job| job.expires).max();
        let inputs = stacked(&mut self.batch);
        let mut jobs = std::mem::take(&mut self.batch).into_iter();
        let mut ran = Ran {
            condition: Condition::Usable,
            infer: Duration::ZERO,
            again: false,
            compared: None,
        };
        let mut singles = Vec::with_capacity(jobs.len());
        for job in jobs.by_ref() {
            singles.push(self.run_alone(job, taken, &mut ran));
            if ran.condition != Condition::Usable {
                break;
            }
        }
        let is_whole = jobs.len() == 0 && singles.iter().all(Option::is_some);
        self.batch.extend(jobs);
        ran.again = !self.batch.is_empty();
        let singles: Vec<Single> = singles.into_iter().flatten().collect();
        if let (true, Ok(inputs)) = (is_whole, inputs) {
            let finding = self.compare(inputs, &singles, &mut ran.condition);
            // A run that outlives its requests is ended, which says nothing of stacking.
            let is_in_time = expires.is_some_and(|expires| Instant::now() < expires);
            let finding = finding.filter(|_| is_in_time);
            ran.compared = finding.map(|finding| Compared { finding, rows });
        }
        ran
    }

    /// Runs one job and answers it; gives what the model gave, unless the run failed.
    fn run_alone(&mut self, mut job: Job, taken: Instant, ran: &mut Ran) -> Option<Single> {
        let (inputs, rows) = (std::mem::take(&mut job.inputs), job.rows);
        let started = Instant::now();
        let result = self.infer(inputs);
        ran.infer = started.elapsed();
        match result {
            Ok(outputs) => {
                answer(job, outputs.clone(), taken, ran.infer);
                Some(Single { rows, outputs })
            }
            Err(failure) => {
                ran.condition = failure.condition;
                job.answer(Err(failure.error));
                None
            }
        }
    }

    /// What the stacked run shows; `None` where it failed for want of memory or lost the session.
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
            Err(panic) => Err(Failure {
                error: prediction_failed(&panic_text(panic.as_ref())),
                condition: Condition::Broken,
            }),
        }
    }

    fn deliver(
        &mut self,
        outputs: Vec<NamedTensor>,
        taken: Instant,
        infer: Duration,
        batch_rows: usize,
    ) -> Result<(), Unparted> {
        let parts = self.parts(outputs)?;
        let mut is_counted = false;
        for (job, outputs) in self.batch.drain(..).zip(parts) {
            let queue = taken.saturating_duration_since(job.arrival);
            let leads_batch = !is_counted && !job.is_abandoned();
            is_counted |= leads_batch;
            job.answer(Ok(Answer {
                outputs,
                queue,
                infer,
                batch_rows,
                leads_batch,
            }));
        }
        Ok(())
    }

    /// Each job's outputs. A job that was alone gets what the model gave, whatever its shape: nothing has to be parted.
    fn parts(&self, outputs: Vec<NamedTensor>) -> Result<Vec<Vec<NamedTensor>>, Unparted> {
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
            let split = split.map_err(|error| Unparted::of(&output.name, &error))?;
            for (part, tensor) in parts.iter_mut().zip(split) {
                part.push(NamedTensor::new(Arc::clone(&output.name), tensor));
            }
        }
        Ok(parts)
    }

    /// Answers the jobs of a failed run, or leaves them to be run one by one.
    fn fail(&mut self, error: &Error, condition: &Condition) -> bool {
        if self.batch.len() > 1 && !matches!(condition, Condition::Fatal(_)) {
            return true;
        }
        let now = Instant::now();
        for job in self.batch.drain(..) {
            let is_late = job.expires <= now;
            // Its run was ended because nobody waits for it.
            let late = is_late.then(|| expired("before its run ended"));
            job.answer(Err(late.unwrap_or_else(|| error.clone())));
        }
        false
    }
}

/// The answer of a run that `job` was alone in.
fn answer(job: Job, outputs: Vec<NamedTensor>, taken: Instant, infer: Duration) {
    let (batch_rows, leads_batch) = (job.rows, !job.is_abandoned());
    let queue = taken.saturating_duration_since(job.arrival);
    job.answer(Ok(Answer {
        outputs,
        queue,
        infer,
        batch_rows,
        leads_batch,
    }));
}

/// Outputs of a stacked run that do not have the batch's rows: axis 0 is not the batch.
struct Unparted {
    error: Error,
    finding: Finding,
}

impl Unparted {
    fn of(output: &str, error: &TensorError) -> Self {
        let output: String = output.chars().take(64).collect();
        Self {
            error: prediction_failed(error),
            finding: Finding::Different(format!("output {output:?} of a stacked run: {error}")),
        }
    }
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
            error: client_error(error),
            condition,
        }
    }
}

/// What a client is told of a failed run; the framework's text goes to the log.
fn client_error(error: &BackendError) -> Error {
    match error {
        BackendError::Input(_) => Error::new(
            Kind::InvalidInput,
            "Prediction failed: the model refused the shapes or values of its inputs",
        )
        .with_detail(error),
        BackendError::OutOfMemory(_) => {
            Error::new(Kind::OutOfMemory, "Out of resources").with_detail(error)
        }
        BackendError::Fatal(text) => super::worker_died(text),
        BackendError::Library(_)
        | BackendError::Load(_)
        | BackendError::Refused(_)
        | BackendError::Infer(_) => prediction_failed(error),
    }
}

fn prediction_failed(detail: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::InferenceFailed,
        "Prediction failed: the model failed to run",
    )
    .with_detail(detail)
}

/// The jobs' inputs as one batch. A job that is alone gives its inputs away; of several each keeps its own, for
/// they may have to be run again.
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
    stacked.map_err(|error| Failure {
        error: Error::new(Kind::Internal, "The requests could not be batched").with_detail(error),
        condition: Condition::Usable,
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}
