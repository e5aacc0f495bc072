//! The self-check: samples alone, stacked, and stacked in other orders.

use std::time::{Duration, Instant};

use super::compare::{Finding, Single, compare};
use super::samples::Sample;
use crate::backend::BackendError;
use crate::runtime::lane::Lane;
use crate::tensor::{NamedTensor, Tensor};

/// Stacked runs at most.
const STACKS: usize = 3;
/// No further run starts after this: a model that is so slow is left to its first requests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Orders in which the first three samples are stacked; the first ones that fit the batch size are run.
const ORDERS: [&[usize]; 5] = [&[0, 1, 2], &[2, 0, 1], &[1, 0], &[0, 2], &[2, 1]];

/// What samples show. `None` where they do not run by themselves, take too long, or nothing could be stacked. A stacked run that fails
/// while single ones do not is a difference.
pub(super) fn check(lane: &mut Lane, samples: &[Sample], batch_size: usize) -> Option<Finding> {
    let stacks = stacks(samples, batch_size);
    if stacks.is_empty() {
        return None;
    }
    let started = Instant::now();
    let singles: Option<Vec<Single>> = samples
        .iter()
        .map(|sample| alone(lane, sample).filter(|_| started.elapsed() < PATIENCE))
        .collect();
    let singles = singles?;
    let (mut is_telling, mut is_exact) = (true, true);
    for (order, inputs) in stacks {
        if started.elapsed() > PATIENCE {
            return None;
        }
        let together: Vec<&Single> = order.iter().map(|index| &singles[*index]).collect();
        match run(lane, inputs, &together)? {
            Finding::Same {
                is_telling: tells,
                is_exact: exact,
            } => {
                is_telling &= tells;
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

fn alone(lane: &mut Lane, sample: &Sample) -> Option<Single> {
    let outputs = lane.try_out(sample.inputs.clone());
    let outputs = outputs.inspect_err(|error| {
        tracing::debug!(%error, "a sample does not run, and shows nothing about batching");
    });
    Some(Single {
        rows: sample.rows,
        outputs: outputs.ok()?,
    })
}

/// What a stacked run shows; `None` where it failed for want of memory or of the device.
fn run(lane: &mut Lane, inputs: Vec<NamedTensor>, together: &[&Single]) -> Option<Finding> {
    match lane.try_out(inputs) {
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
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// Stacks that fit the batch size, each with the samples in it.
fn stacks(samples: &[Sample], batch_size: usize) -> Vec<(&'static [usize], Vec<NamedTensor>)> {
    let fits = |order: &&[usize]| {
        let rows: Option<Vec<_>> = order
            .iter()
            .map(|index| Some(samples.get(*index)?.rows))
            .collect();
        rows.is_some_and(|rows| rows.iter().sum::<usize>() <= batch_size)
    };
    let orders = ORDERS.into_iter().filter(fits).take(STACKS);
    orders
        .filter_map(|order| Some((order, stack(samples, order)?)))
        .collect()
}

fn stack(samples: &[Sample], order: &[usize]) -> Option<Vec<NamedTensor>> {
    let first = &samples[*order.first()?].inputs;
    let stack = |(place, input): (usize, &NamedTensor)| {
        let tensors: Vec<_> = order
            .iter()
            .map(|index| &samples[*index].inputs[place].tensor)
            .collect();
        let stacked = Tensor::stack(&tensors).ok()?;
        Some(NamedTensor::new(input.name.clone(), stacked))
    };
    first.iter().enumerate().map(stack).collect()
}
