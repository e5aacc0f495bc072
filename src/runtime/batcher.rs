//! The batcher: which waiting jobs go into the next batch, and which are too late for it.
//!
//! A plain data structure that gets the time from its caller. It knows neither threads nor locks nor sessions: the pool
//! keeps it behind its lock and passes batches to workers.
//!
//! - Jobs whose inputs have the same names, dtypes and shapes behind axis 0 share a queue and may be stacked. Jobs without
//!   rows in common run by themselves.
//! - Within a queue the order is that of arrival. Of several queues the one whose first job is oldest goes first, so that
//!   none starves.
//! - A batch is what is there, up to the batch size. No job waits for others unless the operator asked for full batches, and
//!   then not longer than the delay, counted from the arrival of the oldest job.
//! - Jobs of a higher priority go before all of a lower one. A batch holds both if they stack.
//! - Jobs that expired or were abandoned are left out, the first in the queue included.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

use super::failures::expired;
use crate::error::Error;
use crate::payload::Priority;
use crate::tensor::NamedTensor;

/// This many empty queues are kept for their buffers.
const SPARE_QUEUES: usize = 1;

/// The answer to a job: its own rows of the outputs, and how they came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Axis 0 of each holds the job's rows.
    pub outputs: Vec<NamedTensor>,
    /// Time from the push until the job was taken for the run that succeeded.
    pub queue: Duration,
    /// Time in the session, for the whole batch.
    pub infer: Duration,
    /// Rows of the batch.
    pub batch_rows: usize,
    /// Whether the batch is counted with this job. It is with one of the jobs that are answered.
    pub leads_batch: bool,
}

/// The sender of a job's answer. Dropping the receiver abandons the job.
pub type ReplyTo = oneshot::Sender<Result<Answer, Error>>;

/// Tensors of one request waiting for inference.
#[derive(Debug)]
pub struct Job {
    /// Inputs, in the model's order.
    pub inputs: Vec<NamedTensor>,
    /// Rows on axis 0; at least 1.
    pub rows: usize,
    /// Whether it may share a run: its inputs have rows in common.
    pub stacks: bool,
    /// When it was pushed.
    pub arrival: Instant,
    /// When a run of it must have begun.
    pub deadline: Instant,
    /// When no client waits for its answer any more.
    pub expires: Instant,
    /// Which jobs go first.
    pub priority: Priority,
    /// It runs in a batch of its own, because it was in a batch that failed.
    pub is_alone: bool,
    /// The request's span, for what is logged on the thread that runs it.
    pub span: Span,
    /// The sender of the answer.
    pub reply: ReplyTo,
}

impl Job {
    /// Answers the job. Nothing happens if it was abandoned.
    pub fn answer(self, answer: Result<Answer, Error>) {
        let _ = self.reply.send(answer);
    }

    /// Whether the receiver of the answer was dropped.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Rows that a batch of such jobs may have: those that it stacks with have as many elements in each.
    fn most_rows(&self, cfg: &BatcherConfig) -> usize {
        let Some(most) = cfg.max_batch_elements else {
            return cfg.batch_size;
        };
        let shapes = self.inputs.iter().map(|input| input.tensor.shape());
        let elements: usize = shapes
            .map(|shape| shape.iter().skip(1).product::<usize>())
            .sum();
        (most / elements.max(1)).clamp(1, cfg.batch_size.max(1))
    }

    /// Lower goes first: jobs that run alone, then by priority.
    fn order(&self) -> (bool, Priority) {
        (!self.is_alone, self.priority)
    }

    /// Whether both may share a queue: they stack, or neither does.
    fn queues_with(&self, other: &Self) -> bool {
        (!self.stacks && !other.stacks) || self.stacks_with(other)
    }

    fn stacks_with(&self, other: &Self) -> bool {
        (self.stacks && other.stacks)
            && self.inputs.len() == other.inputs.len()
            && self
                .inputs
                .iter()
                .zip(&other.inputs)
                .all(|(one, two)| one.name == two.name && stacks(one, two))
    }
}

fn stacks(one: &NamedTensor, two: &NamedTensor) -> bool {
    let (one, two) = (&one.tensor, &two.tensor);
    one.dtype() == two.dtype() && one.shape().get(1..) == two.shape().get(1..)
}

/// How batches are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatcherConfig {
    /// Rows a batch may have; at least 1. A job with more rows makes a batch by itself.
    pub batch_size: usize,
    /// Elements of all inputs together that a batch may have. A job with more makes a batch by itself.
    pub max_batch_elements: Option<usize>,
    /// How long the oldest job may wait for a full batch, if batches wait at all.
    pub max_batch_delay: Duration,
    /// Wait for full batches even while a worker is idle.
    pub wait_for_full_batches: bool,
}

/// The jobs that wait. `catalog` bounds how many there are.
#[derive(Debug)]
pub struct Batcher {
    cfg: BatcherConfig,
    queues: Vec<Queue>,
    jobs: usize,
    abandoned: usize,
}

/// Jobs that stack, in order of arrival.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    rows: usize,
}

impl Batcher {
    /// An empty batcher.
    pub const fn new(cfg: BatcherConfig) -> Self {
        Self {
            cfg,
            queues: Vec::new(),
            jobs: 0,
            abandoned: 0,
        }
    }

    /// Changes the batch size of later batches.
    pub const fn set_batch_size(&mut self, batch_size: usize) {
        self.cfg.batch_size = batch_size;
    }

    /// Whether batches wait for more jobs while a worker is idle.
    pub const fn waits_for_full_batches(&self) -> bool {
        self.cfg.wait_for_full_batches
    }

    /// How many jobs wait, those that expired or were abandoned meanwhile included.
    pub const fn len(&self) -> usize {
        self.jobs
    }

    /// Whether no job waits.
    pub const fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// The least number of batches that the waiting jobs make.
    pub fn batches(&self) -> usize {
        let queues = self.queues.iter();
        queues.map(|queue| queue.batches(&self.cfg)).sum()
    }

    /// Adds a job.
    pub fn push(&mut self, job: Job) {
        self.jobs += 1;
        self.queue_for(&job).push(job);
    }

    /// Adds jobs of a failed batch again, to be run one by one before all others.
    pub fn push_back_alone(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        for mut job in jobs.rev() {
            job.is_alone = true;
            self.jobs += 1;
            self.queue_for(&job).push_front(job);
        }
    }

    /// Fills `batch` with the jobs that go next; with none if batches wait to be full. Answers jobs that expired.
    pub fn take(&mut self, now: Instant, batch: &mut Vec<Job>) {
        debug_assert!(batch.is_empty(), "a batch is taken into an empty buffer");
        while batch.is_empty()
            && let Some(index) = self.next_queue(now)
        {
            let queue = &mut self.queues[index];
            let before = queue.jobs.len();
            queue.take(now, &self.cfg, batch);
            self.jobs -= before - queue.jobs.len();
            self.retire(index);
        }
    }

    /// Whether [`Self::take`] would look at a job now.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.next_queue(now).is_some()
    }

    /// When the oldest job stops waiting for a full batch; `None` if no job waits.
    pub fn next_due(&self) -> Option<Instant> {
        let fronts = self.queues.iter().filter_map(|queue| queue.jobs.front());
        fronts
            .map(|job| job.arrival + self.cfg.max_batch_delay)
            .min()
    }

    /// How long the oldest job has waited.
    pub fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        let fronts = self.queues.iter().filter_map(|queue| queue.jobs.front());
        fronts
            .map(|job| now.saturating_duration_since(job.arrival))
            .max()
    }

    /// Notes that a job was abandoned. The jobs are freed when half of all jobs were abandoned, so that one costs a constant
    /// time on average.
    pub fn note_abandoned(&mut self) {
        self.abandoned += 1;
        if self.abandoned * 2 <= self.jobs {
            return;
        }
        self.abandoned = 0;
        for queue in &mut self.queues {
            queue.jobs.retain(|job| !job.is_abandoned());
            queue.rows = queue.jobs.iter().map(|job| job.rows).sum();
        }
        self.queues.retain(|queue| !queue.jobs.is_empty());
        self.jobs = self.queues.iter().map(|queue| queue.jobs.len()).sum();
    }

    /// Empties the batcher.
    pub fn take_all(&mut self) -> Vec<Job> {
        self.jobs = 0;
        let queues = std::mem::take(&mut self.queues);
        queues.into_iter().flat_map(|queue| queue.jobs).collect()
    }

    fn queue_for(&mut self, job: &Job) -> &mut Queue {
        let fits = |queue: &Queue| {
            queue
                .jobs
                .front()
                .is_some_and(|first| first.queues_with(job))
        };
        let index = self
            .queues
            .iter()
            .position(fits)
            .or_else(|| self.queues.iter().position(|queue| queue.jobs.is_empty()));
        let index = index.unwrap_or_else(|| {
            self.queues.push(Queue::default());
            self.queues.len() - 1
        });
        &mut self.queues[index]
    }

    /// The queue, of those that need not wait, whose first job goes first by priority, then by age.
    fn next_queue(&self, now: Instant) -> Option<usize> {
        let ready = self.queues.iter().enumerate().filter_map(|(index, queue)| {
            let first = queue.jobs.front()?;
            self.need_not_wait(queue, first, now)
                .then_some((first.order(), first.arrival, index))
        });
        ready.min().map(|(_, _, index)| index)
    }

    fn need_not_wait(&self, queue: &Queue, first: &Job, now: Instant) -> bool {
        !self.cfg.wait_for_full_batches
            || first.is_alone
            || !first.stacks
            || queue.rows >= first.most_rows(&self.cfg)
            || first.arrival + self.cfg.max_batch_delay <= now
    }

    fn retire(&mut self, index: usize) {
        if self.queues[index].jobs.is_empty() && self.queues.len() > SPARE_QUEUES {
            self.queues.swap_remove(index);
        }
    }
}

impl Queue {
    /// The least number of batches that its jobs make.
    fn batches(&self, cfg: &BatcherConfig) -> usize {
        let jobs = self.jobs.len();
        match self.jobs.front() {
            // A job that is larger than a batch makes one batch.
            Some(first) if first.stacks => self.rows.div_ceil(first.most_rows(cfg)).min(jobs),
            _ => jobs,
        }
    }

    /// Puts a job behind those of its priority.
    fn push(&mut self, job: Job) {
        self.rows += job.rows;
        let goes_before = |other: &Job| other.order() <= job.order();
        match self.jobs.back() {
            Some(last) if !goes_before(last) => {
                let index = self.jobs.partition_point(goes_before);
                self.jobs.insert(index, job);
            }
            _ => self.jobs.push_back(job),
        }
    }

    fn push_front(&mut self, job: Job) {
        self.rows += job.rows;
        self.jobs.push_front(job);
    }

    fn take(&mut self, now: Instant, cfg: &BatcherConfig, batch: &mut Vec<Job>) {
        let mut rows = 0;
        while let Some(first) = self.jobs.front() {
            let runs_alone = first.is_alone || !first.stacks;
            if !batch.is_empty() && (runs_alone || rows + first.rows > first.most_rows(cfg)) {
                return;
            }
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            self.rows -= job.rows;
            if let Some(job) = still_wanted(job, now) {
                rows += job.rows;
                batch.push(job);
                if runs_alone {
                    return;
                }
            }
        }
    }
}

/// The job, unless it was abandoned or has expired; an expired job is answered.
fn still_wanted(job: Job, now: Instant) -> Option<Job> {
    if job.is_abandoned() {
        return None;
    }
    if job.deadline <= now {
        job.answer(Err(expired("while it waited for a worker")));
        return None;
    }
    Some(job)
}

#[cfg(test)]
mod tests;
