//! Models that keep rows apart and models that do not, tried out and served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::backend::fake::{FakeBackend, Model};
use crate::error::Error;
use crate::model::{DType, Settings, TensorSpec};
use crate::runtime::batcher::Answer;
use crate::runtime::pool::loader::Loader;
use crate::runtime::pool::{JobOptions, Pool, WorkerSupervisor};
use crate::runtime::{Bounds, WorkerIds, testing};
use crate::tensor::{NamedTensor, Tensor};

const HOUR: Duration = Duration::from_hours(1);
/// Columns of the models' input.
const WIDTH: usize = 2;

/// One tensor named `y` that `change` makes of the input's rows.
fn rows_to_rows(inputs: &[NamedTensor], change: impl Fn(&mut Vec<Vec<f32>>)) -> Vec<NamedTensor> {
    let mut rows = read(&inputs[0].tensor);
    change(&mut rows);
    vec![NamedTensor::new("y", tensor(&rows))]
}

fn read(tensor: &Tensor) -> Vec<Vec<f32>> {
    let (bytes, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = bytes
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let width = tensor.shape()[1..].iter().product::<usize>().max(1);
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

fn tensor(rows: &[Vec<f32>]) -> Tensor {
    let data: Vec<u8> = rows
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let width = rows.first().map_or(WIDTH, Vec::len);
    Tensor::new(DType::F32, vec![rows.len(), width], data.into()).unwrap()
}

fn doubles(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| {
        for value in rows.iter_mut().flatten() {
            *value *= 2.0;
        }
    })
}

fn reverses(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| rows.reverse())
}

/// As `CumSum` over axis 0.
fn accumulates(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| {
        for row in 1..rows.len() {
            for column in 0..rows[row].len() {
                rows[row][column] += rows[row - 1][column];
            }
        }
    })
}

/// As `Softmax` over axis 0.
fn competes(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| {
        for column in 0..rows[0].len() {
            let total: f32 = rows.iter().map(|row| row[column].exp()).sum();
            for row in rows.iter_mut() {
                row[column] = row[column].exp() / total;
            }
        }
    })
}

/// As a transposition: as many rows as there are columns.
fn transposes(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| {
        *rows = (0..WIDTH)
            .map(|column| rows.iter().map(|row| row[column]).collect())
            .collect();
    })
}

/// As `NonZero`: positions in all of the batch.
fn locates(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    rows_to_rows(inputs, |rows| {
        let found = rows.iter().enumerate().flat_map(|(index, row)| {
            let large = row.iter().filter(|value| **value > 0.5);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            large.map(move |value| vec![index as f32, *value])
        });
        *rows = found.collect();
    })
}

fn sums_up(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    let sum: f32 = read(&inputs[0].tensor).iter().flatten().sum();
    let scalar = Tensor::new(DType::F32, vec![], sum.to_le_bytes().to_vec().into()).unwrap();
    vec![NamedTensor::new("y", scalar)]
}

const MIXING: [Model; 6] = [
    reverses,
    accumulates,
    competes,
    transposes,
    locates,
    sums_up,
];

fn signature(axis0: Axis0) -> Signature {
    Signature {
        inputs: vec![TensorSpec::new("x", DType::F32, vec![None, Some(WIDTH)])],
        axis0,
        ..Signature::default()
    }
}

struct Served {
    _supervisor: Arc<WorkerSupervisor>,
    pool: Arc<Pool>,
    backend: FakeBackend,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.backend.gate().open();
        self.pool
            .close(&Error::new(crate::error::Kind::Draining, "gone"));
    }
}

/// A version of `model` with a batch size of 4.
async fn serve(
    model: Model,
    signature: Signature,
    mode: BatchingMode,
    verdicts: Verdicts,
) -> Served {
    serve_sized(model, signature, mode, verdicts, 4).await
}

async fn serve_sized(
    model: Model,
    signature: Signature,
    mode: BatchingMode,
    verdicts: Verdicts,
    batch_size: usize,
) -> Served {
    let backend = FakeBackend::new()
        .with_signature(signature)
        .with_model(model);
    let settings = Settings {
        batch_size,
        batching: mode,
        wait_for_full_batches: true,
        max_batch_delay: Duration::from_millis(1),
        ..Settings::default()
    };
    let mut spec = testing::model(settings);
    spec.digest = "ab".repeat(32);
    let spec = Arc::new(spec);
    let loader = Loader::new(Arc::new(backend.clone()), &spec, 1, 1);
    let ids = Arc::new(WorkerIds::from(0));
    let pool = Pool::new(spec, verdicts, &Arc::default());
    let supervisor = WorkerSupervisor::new(Arc::clone(&pool), loader, ids);
    supervisor.scale(Bounds::exactly(1)).await.unwrap();
    Served {
        _supervisor: supervisor,
        pool,
        backend,
    }
}

async fn serve_auto(model: Model, axis0: Axis0) -> Served {
    serve(
        model,
        signature(axis0),
        BatchingMode::Auto,
        Verdicts::default(),
    )
    .await
}

impl Served {
    fn batching(&self) -> Batching {
        self.pool.batching().unwrap()
    }

    /// Sends requests at once, each of its rows, and awaits their answers.
    async fn ask(&self, requests: &[Vec<Vec<f32>>]) -> Vec<Result<Answer, Error>> {
        let sent: Vec<_> = requests
            .iter()
            .map(|rows| {
                let (pool, count) = (Arc::clone(&self.pool), rows.len());
                let inputs = vec![NamedTensor::new("x", tensor(rows))];
                tokio::spawn(async move { pool.infer(inputs, Some(count), options()).await })
            })
            .collect();
        let mut answers = Vec::new();
        for answer in sent {
            answers.push(answer.await.unwrap());
        }
        answers
    }
}

fn options() -> JobOptions {
    testing::options(Instant::now() + HOUR)
}

/// What the model gives each request by itself.
fn alone(model: Model, requests: &[Vec<Vec<f32>>]) -> Vec<Vec<NamedTensor>> {
    let run = |rows: &Vec<Vec<f32>>| model(&[NamedTensor::new("x", tensor(rows))]);
    requests.iter().map(run).collect()
}

fn reason(batching: &Batching) -> &str {
    match batching {
        Batching::Off(reason) => reason,
        other => panic!("not off, but {other}"),
    }
}

#[tokio::test]
async fn a_model_that_keeps_rows_apart_is_confirmed_by_made_samples_where_names_agree() {
    let served = serve_auto(doubles, Axis0::Shared).await;
    assert_eq!(served.batching(), Batching::On(Grounds::Samples));
}

#[tokio::test]
async fn models_that_mix_rows_are_refuted_whatever_their_names() {
    for axis0 in [Axis0::Shared, Axis0::Unknown] {
        for (index, model) in MIXING.into_iter().enumerate() {
            let served = serve_auto(model, axis0.clone()).await;
            let batching = served.batching();
            assert!(
                reason(&batching).contains("output \"y\""),
                "{index}: {batching}"
            );
        }
    }
}

#[tokio::test]
async fn a_refutation_wins_over_the_owner_and_saying_off_over_all() {
    let on = serve(
        accumulates,
        signature(Axis0::Unknown),
        BatchingMode::On,
        Verdicts::default(),
    );
    reason(&on.await.batching());
    let unproven = signature(Axis0::Unknown);
    let on = serve(doubles, unproven, BatchingMode::On, Verdicts::default()).await;
    assert_eq!(on.batching(), Batching::OnByOwner);
    let off = serve(
        doubles,
        signature(Axis0::Shared),
        BatchingMode::Off,
        Verdicts::default(),
    )
    .await;
    assert_eq!(reason(&off.batching()), "as lantern.batching says");
    assert_eq!(
        off.backend
            .runs()
            .iter()
            .filter(|run| run.rows() == 3)
            .count(),
        0,
        "nothing was tried out"
    );
}

#[tokio::test]
async fn models_that_change_in_a_run_or_have_no_batch_axis_are_not_tried_out() {
    let stateful = Signature {
        state: ModelState::Locked,
        ..signature(Axis0::Shared)
    };
    let served = serve(doubles, stateful, BatchingMode::On, Verdicts::default()).await;
    assert_eq!(reason(&served.batching()), "runs change the model");
    let fixed = serve_auto(doubles, Axis0::Refuted("axis 0 is fixed".into())).await;
    assert_eq!(reason(&fixed.batching()), "axis 0 is fixed");
}

#[tokio::test]
async fn what_was_found_out_is_not_found_out_again() {
    let verdicts = Verdicts::default();
    for model in [accumulates, doubles] {
        let served = serve(
            model,
            signature(Axis0::Shared),
            BatchingMode::Auto,
            verdicts.clone(),
        )
        .await;
        reason(&served.batching());
    }
    let served = serve(
        doubles,
        signature(Axis0::Shared),
        BatchingMode::Auto,
        verdicts,
    )
    .await;
    let tried = served.backend.runs();
    assert!(
        tried.iter().all(|run| matches!(run.rows(), 1 | 4)),
        "only the warm-up ran: {tried:?}"
    );
}

#[tokio::test]
async fn the_first_requests_decide_where_nothing_can_be_made_up() {
    for model in [doubles, accumulates] {
        let served = serve(
            model,
            Signature::default(),
            BatchingMode::Auto,
            Verdicts::default(),
        )
        .await;
        assert_eq!(served.batching(), Batching::Trial);
        let mut rounds = 0;
        while served.batching() == Batching::Trial {
            let requests: Vec<_> = (0..2 + rounds % 2)
                .map(|index: u8| vec![vec![f32::from(index + rounds), 1.0]])
                .collect();
            let answers = served.ask(&requests).await;
            for (answer, own) in answers.into_iter().zip(alone(model, &requests)) {
                assert_eq!(answer.unwrap().outputs, own);
            }
            rounds += 1;
            assert!(rounds < 100, "never decided");
        }
        if model as usize == doubles as Model as usize {
            assert_eq!(served.batching(), Batching::On(Grounds::Requests));
        } else {
            reason(&served.batching());
        }
    }
}

#[tokio::test]
async fn outputs_that_cannot_be_parted_refute_a_confirmed_model() {
    /// Keeps rows apart unless a row says otherwise, as a detector does that samples never made find two things.
    fn finds_two(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
        rows_to_rows(inputs, |rows| {
            if rows.iter().any(|row| row[0] > 5.0) {
                rows.push(vec![0.0, 0.0]);
            }
        })
    }
    let served = serve_auto(finds_two, Axis0::Shared).await;
    assert_eq!(served.batching(), Batching::On(Grounds::Samples));
    let requests = [vec![vec![9.0, 1.0]], vec![vec![1.0, 1.0]]];
    for (answer, own) in served
        .ask(&requests)
        .await
        .into_iter()
        .zip(alone(finds_two, &requests))
    {
        assert_eq!(answer.unwrap().outputs, own);
    }
    assert!(reason(&served.batching()).contains("of a stacked run"));
}

/// Two outputs: the rows as they are, and how many rows of the whole batch are large, which made samples never are.
fn counts_large(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    let mut outputs = rows_to_rows(inputs, |_| {});
    let large = |rows: &mut Vec<Vec<f32>>| {
        let count = rows.iter().filter(|row| row[0] > 1.0).count();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let count = count as f32;
        *rows = vec![vec![count]; rows.len()];
    };
    let counted = rows_to_rows(inputs, large);
    outputs.extend(
        counted
            .into_iter()
            .map(|count| NamedTensor::new("z", count.tensor)),
    );
    outputs
}

#[tokio::test]
async fn one_output_that_tells_does_not_vouch_for_another() {
    let served = serve_auto(counts_large, Axis0::Shared).await;
    assert_eq!(served.batching(), Batching::Trial);
    let requests = [vec![vec![5.0, 1.0]], vec![vec![7.0, 1.0]]];
    while served.batching() == Batching::Trial {
        let answers = served.ask(&requests).await;
        for (answer, own) in answers.into_iter().zip(alone(counts_large, &requests)) {
            assert_eq!(answer.unwrap().outputs, own);
        }
    }
    assert!(reason(&served.batching()).contains("output \"z\""));
}

#[tokio::test]
async fn a_full_batch_is_tried_out_and_a_verdict_holds_for_its_size() {
    /// Treats few rows one by one, and mixes many.
    fn mixes_many(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
        let rows = inputs[0].tensor.rows().unwrap();
        if rows > 4 {
            accumulates(inputs)
        } else {
            doubles(inputs)
        }
    }
    let verdicts = Verdicts::default();
    for (batch_size, is_on) in [(4, true), (8, false), (4, true)] {
        let (signature, mode) = (signature(Axis0::Shared), BatchingMode::Auto);
        let served = serve_sized(mixes_many, signature, mode, verdicts.clone(), batch_size).await;
        let batching = served.batching();
        assert_eq!(
            matches!(batching, Batching::On(_)),
            is_on,
            "{batch_size}: {batching}"
        );
    }
}

#[tokio::test]
async fn what_requests_confirmed_is_looked_at_again() {
    /// Mixes rows where one is large.
    fn mixes_large(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
        let rows = read(&inputs[0].tensor);
        let is_large = rows.iter().any(|row| row[0] > 100.0);
        if is_large {
            accumulates(inputs)
        } else {
            doubles(inputs)
        }
    }
    let served = serve(
        mixes_large,
        Signature::default(),
        BatchingMode::Auto,
        Verdicts::default(),
    )
    .await;
    let ask = async |large: f32, rounds: u8| {
        for round in 0..rounds {
            let requests: Vec<_> = (0..2 + round % 2)
                .map(|index| vec![vec![f32::from(index) + large, 1.0]])
                .collect();
            for answer in served.ask(&requests).await {
                answer.unwrap();
            }
        }
    };
    ask(0.0, 40).await;
    assert_eq!(served.batching(), Batching::On(Grounds::Requests));
    let mut rounds = 0;
    while !matches!(served.batching(), Batching::Off(_)) {
        ask(1000.0, 10).await;
        rounds += 1;
        assert!(rounds < 100, "never looked at again");
    }
}

#[tokio::test]
async fn requests_without_rows_in_common_run_by_themselves() {
    let served = serve_auto(doubles, Axis0::Shared).await;
    let before = served.backend.runs().len();
    let ask = |rows: Option<usize>| {
        let inputs = vec![NamedTensor::new("x", tensor(&[vec![1.0, 2.0]]))];
        let pool = Arc::clone(&served.pool);
        tokio::spawn(async move { pool.infer(inputs, rows, options()).await })
    };
    let asked = [ask(None), ask(Some(1)), ask(None), ask(Some(1))];
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    let runs = served.backend.runs();
    let mut rows: Vec<_> = runs[before..]
        .iter()
        .map(crate::backend::fake::Run::rows)
        .collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the model does with its batch, and however much is known of it, each gets its own.
    #[test]
    fn nobody_gets_rows_of_somebody_else(
        which in 0usize..7,
        is_shared in any::<bool>(),
        is_known in any::<bool>(),
        rounds in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(prop::array::uniform2(0f32..10.0), 1..3), 1..6),
            1..16,
        ),
    ) {
        let model = if which == 6 { doubles } else { MIXING[which] };
        let axis0 = if is_shared { Axis0::Shared } else { Axis0::Unknown };
        let signature = if is_known { signature(axis0) } else { Signature::default() };
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(async {
            let served = serve(model, signature, BatchingMode::Auto, Verdicts::default()).await;
            for requests in rounds {
                let requests: Vec<Vec<Vec<f32>>> = requests
                    .iter()
                    .map(|rows| rows.iter().map(|row| row.to_vec()).collect())
                    .collect();
                let answers = served.ask(&requests).await;
                for (answer, own) in answers.into_iter().zip(alone(model, &requests)) {
                    assert_eq!(answer.unwrap().outputs, own);
                }
            }
        });
    }
}
