//! Warm-up: runs a model on zeros before the first request does. The first runs would otherwise pay for what frameworks put
//! off until then: memory, kernels, specialised code.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::session::WorkerSession;
use crate::backend::{BackendError, ModelState, Signature};
use crate::model::{Arity, TensorSpec};
use crate::tensor::{NamedTensor, Tensor};

/// Runs of each size. Some frameworks specialise during the second.
const RUNS: usize = 2;
/// No further run starts after this.
const WARM_UP_LIMIT: Duration = Duration::from_secs(5);
/// Larger inputs, in bytes, are not made up.
const INPUT_LIMIT: usize = 64 << 20;

/// Runs the session on one row and on full batches, if the signature says what a row is. Returns the shortest time of a run on
/// one row. A model that fails on zeros is only logged, as it may serve other inputs.
pub(crate) fn warm_up(session: &mut WorkerSession, batch_size: usize) -> Option<Duration> {
    let started = Instant::now();
    let signature = session.model().signature().clone();
    if signature.state != ModelState::Stateless {
        // The model's state must come from the requests of clients alone.
        return None;
    }
    let mut shortest = None;
    for rows in sizes(&signature, batch_size) {
        let inputs = zeros(&signature, rows)?;
        for _ in 0..RUNS {
            if started.elapsed() > WARM_UP_LIMIT {
                return shortest;
            }
            match timed(session, &inputs) {
                Ok(time) if rows == 1 => shortest = Some(shortest.unwrap_or(time).min(time)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(rows, %error, "warming up failed; the model may still serve");
                    return shortest;
                }
            }
        }
    }
    shortest
}

fn timed(session: &mut WorkerSession, inputs: &[NamedTensor]) -> Result<Duration, BackendError> {
    let started = Instant::now();
    session.try_out(inputs.to_vec())?;
    Ok(started.elapsed())
}

/// Full batches come first, so that the time of one row is that of a warm model.
fn sizes(signature: &Signature, batch_size: usize) -> Vec<usize> {
    let mut required = signature.inputs.iter();
    let has_rows = required.all(|spec| spec.arity == Arity::Optional || spec.has_free_rows());
    if has_rows && signature.is_batchable() && batch_size > 1 {
        vec![batch_size, 1]
    } else {
        vec![1]
    }
}

/// Inputs of `rows` rows that hold zeros; `None` where a size is unknown or too large.
fn zeros(signature: &Signature, rows: usize) -> Option<Vec<NamedTensor>> {
    if signature.inputs.is_empty() {
        return None;
    }
    let required = signature.inputs.iter();
    let required = required.filter(|spec| spec.arity != Arity::Optional);
    let inputs = required.map(|spec| zero(spec, rows));
    inputs.collect()
}

fn zero(spec: &TensorSpec, rows: usize) -> Option<NamedTensor> {
    if spec.arity == Arity::Many {
        return None;
    }
    let (dtype, axes) = (spec.dtype?, spec.shape.as_ref()?);
    let shape: Option<Vec<usize>> = axes
        .iter()
        .enumerate()
        .map(|(axis, size)| size.or((axis == 0).then_some(rows)))
        .collect();
    let shape = shape?;
    // A string is four bytes of length and its text, so four zeros are an empty string.
    let size = dtype.size().unwrap_or(size_of::<u32>());
    let bytes = shape
        .iter()
        .try_fold(size, |bytes, &axis| bytes.checked_mul(axis))
        .filter(|bytes| *bytes <= INPUT_LIMIT)?;
    let tensor = Tensor::new(dtype, shape, Bytes::from(vec![0; bytes])).ok()?;
    Some(NamedTensor::new(spec.name.clone(), tensor))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::fake::{FakeBackend, Outcome, Run};
    use crate::model::Settings;
    use crate::runtime::{pool::loader::Loader, testing};
    use crate::tensor::DType;

    fn warmed(inputs: Vec<TensorSpec>, marks: &[(Vec<u8>, Outcome)]) -> (FakeBackend, bool) {
        let signature = Signature {
            inputs,
            ..Signature::default()
        };
        let mut backend = FakeBackend::new().with_signature(signature);
        for (mark, outcome) in marks {
            backend = backend.with_mark(mark.clone(), *outcome);
        }
        let model = testing::model(Settings::default());
        let loader = Loader::new(Arc::new(backend.clone()), &model, 1, 1);
        let mut session = loader.session(crate::model::Device::Cpu).unwrap();
        let is_timed = warm_up(&mut session, 4).is_some();
        (backend, is_timed)
    }

    fn spec(dtype: DType, shape: &[Option<usize>]) -> TensorSpec {
        TensorSpec::new("x", dtype, shape.to_vec())
    }

    #[test]
    fn full_batches_and_single_rows_are_run() {
        for dtype in DType::ALL {
            let (backend, is_timed) = warmed(vec![spec(dtype, &[None, Some(3)])], &[]);
            let rows: Vec<_> = backend.runs().iter().map(Run::rows).collect();
            assert_eq!(rows, [4, 4, 1, 1]);
            assert!(is_timed);
        }
    }

    #[test]
    fn fixed_rows_are_kept() {
        let (backend, _) = warmed(vec![spec(DType::F32, &[Some(2), Some(3)])], &[]);
        let rows: Vec<_> = backend.runs().iter().map(Run::rows).collect();
        assert_eq!(rows, [2, 2]);
    }

    #[test]
    fn unknown_and_huge_shapes_are_left_cold() {
        for shape in [
            vec![None, None],
            vec![None, Some(usize::MAX)],
            vec![None, Some(1 << 30)],
        ] {
            let (backend, is_timed) = warmed(vec![spec(DType::F32, &shape)], &[]);
            assert!(backend.runs().is_empty() && !is_timed, "{shape:?}");
        }
    }

    #[test]
    fn a_model_that_fails_or_panics_on_zeros_is_left_alone() {
        for outcome in [Outcome::Fail, Outcome::Panic] {
            let inputs = vec![spec(DType::U8, &[None, Some(1)])];
            let (backend, is_timed) = warmed(inputs, &[(vec![0], outcome)]);
            assert_eq!(backend.runs().len(), 1);
            assert!(!is_timed);
        }
    }
}
