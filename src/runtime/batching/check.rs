//! The self-check: it runs samples alone, stacked in different orders, and stacked to a full batch.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::compare::{Finding, Single, compare};
use super::samples::Sample;
use crate::backend::{BackendError, Interrupt};
use crate::runtime::pool::session::WorkerSession;
use crate::tensor::{NamedTensor, Tensor};

/// At most this many different orders are run.
const STACKS: usize = 3;
/// The orders in which three samples are stacked. The first that fit the batch size are run.
const ORDERS: [&[usize]; 5] = [&[0, 1, 2], &[2, 0, 1], &[1, 0], &[0, 2], &[2, 1]];
/// A full batch has at most this many rows: a model that treats so many one by one does so with more.
const FULL: usize = 64;
/// One input of a stack has at most this many bytes.
const STACK_LIMIT: usize = 64 << 20;
/// Runs are ended after this, where the backend can: a slower model is tried out by its first requests.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two attempts to end a run.
const AGAIN: Duration = Duration::from_millis(100);

/// What samples show; `None` where they do not run by themselves, take too long, or cannot be stacked. A stacked run that fails
/// while single ones do not is a difference.
pub(super) fn check(
    session: &mut WorkerSession,
    samples: &[Sample],
    batch_size: usize,
) -> Option<Finding> {
    let started = Instant::now();
    let _limit = session.interrupter().map(Limit::start);
    let is_in_time = || started.elapsed() < CHECK_LIMIT;
    let stacks = stacks(samples, batch_size);
    if stacks.is_empty() {
        return None;
    }
    let singles: Option<Vec<Single>> = samples
        .iter()
        .map(|sample| alone(session, sample).filter(|_| is_in_time()))
        .collect();
    let singles = singles?;
    let (mut is_telling, mut is_exact) = (false, true);
    for Stack { order, inputs } in stacks {
        let together: Vec<&Single> = order.iter().map(|index| &singles[*index]).collect();
        match run(session, inputs, &together).filter(|_| is_in_time())? {
            Finding::Same {
                is_telling: tells,
                is_exact: exact,
            } => {
                is_telling |= tells;
                is_exact &= exact;
            }
            different @ Finding::Different(_) => return Some(different),
        }
    }
    Some(Finding::Same {
        is_telling,
        is_exact,
    })
}

/// Whether any two of the samples fit into a batch.
pub(super) fn has_stacks(samples: &[Sample], batch_size: usize) -> bool {
    orders(samples, batch_size).next().is_some()
}

fn alone(session: &mut WorkerSession, sample: &Sample) -> Option<Single> {
    let outputs = session.try_out(sample.inputs.clone());
    let outputs = outputs.inspect_err(|error| {
        tracing::debug!(%error, "a sample does not run, and shows nothing about batching");
    });
    Some(Single {
        rows: sample.rows,
        outputs: outputs.ok()?,
    })
}

/// What a stacked run shows; `None` where it ran out of memory or lost the device.
fn run(
    session: &mut WorkerSession,
    inputs: Vec<NamedTensor>,
    together: &[&Single],
) -> Option<Finding> {
    match session.try_out(inputs) {
        Ok(outputs) => Some(compare(together, &outputs)),
        Err(BackendError::OutOfMemory(_) | BackendError::Fatal(_)) => None,
        Err(error) => {
            let text = format!("a stacked run fails: {}", first_line(&error));
            Some(Finding::Different(text))
        }
    }
}

fn first_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

/// Samples that are run together, in order.
struct Stack {
    order: Vec<usize>,
    inputs: Vec<NamedTensor>,
}

/// Stacks that fit the batch size: of different orders, and one that fills it.
fn stacks(samples: &[Sample], batch_size: usize) -> Vec<Stack> {
    let orders = orders(samples, batch_size)
        .take(STACKS)
        .map(<[usize]>::to_vec);
    let full = full(samples, batch_size.min(FULL));
    orders
        .chain(full)
        .filter_map(|order| {
            let inputs = stack(samples, &order)?;
            Some(Stack { order, inputs })
        })
        .collect()
}

fn orders(samples: &[Sample], batch_size: usize) -> impl Iterator<Item = &'static [usize]> {
    let fits = move |order: &&[usize]| {
        let rows: Option<Vec<_>> = order
            .iter()
            .map(|index| Some(samples.get(*index)?.rows))
            .collect();
        rows.is_some_and(|rows| rows.iter().sum::<usize>() <= batch_size)
    };
    ORDERS.into_iter().filter(fits)
}

/// The samples in turn until the batch is full; `None` where each sample once fills it.
fn full(samples: &[Sample], batch_size: usize) -> Option<Vec<usize>> {
    let (mut order, mut rows) = (Vec::new(), 0);
    for index in (0..samples.len()).cycle() {
        rows += samples[index].rows;
        if rows > batch_size {
            break;
        }
        order.push(index);
    }
    (order.len() > samples.len()).then_some(order)
}

fn stack(samples: &[Sample], order: &[usize]) -> Option<Vec<NamedTensor>> {
    let first = &samples[*order.first()?].inputs;
    let stack = |(place, input): (usize, &NamedTensor)| {
        let tensors = order
            .iter()
            .map(|index| &samples[*index].inputs[place].tensor);
        let tensors: Vec<_> = tensors.collect();
        let bytes: usize = tensors.iter().map(|tensor| tensor.data().len()).sum();
        let stacked = Tensor::stack(&tensors)
            .ok()
            .filter(|_| bytes <= STACK_LIMIT)?;
        Some(NamedTensor::new(input.name.clone(), stacked))
    };
    first.iter().enumerate().map(stack).collect()
}

/// Ends runs that take longer than [`CHECK_LIMIT`], from a thread of its own, until it is dropped.
struct Limit {
    _over: mpsc::Sender<()>,
}

impl Limit {
    fn start(interrupt: Arc<dyn Interrupt>) -> Self {
        let (over, is_over) = mpsc::channel();
        std::thread::spawn(move || {
            let mut pause = CHECK_LIMIT;
            // This is repeated, as it ends one run and others follow.
            while is_over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
                pause = AGAIN;
            }
        });
        Self { _over: over }
    }
}
