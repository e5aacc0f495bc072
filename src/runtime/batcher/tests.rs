//! Properties of the batcher: no job lost, duplicated, over size or answered twice.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::runtime::testing::{Receiver, job, marks};

const DELAY: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_hours(1);

fn config(batch_size: usize) -> BatcherConfig {
    BatcherConfig {
        batch_size,
        max_batch_elements: None,
        max_batch_delay: DELAY,
        wait_for_full_batches: false,
    }
}

fn full(batch_size: usize) -> Batcher {
    Batcher::new(BatcherConfig {
        wait_for_full_batches: true,
        ..config(batch_size)
    })
}

fn pushed(batcher: &mut Batcher, mark: u8, arrival: Instant) -> Receiver {
    let (job, answer) = job(&[mark], 1, arrival);
    batcher.push(job);
    answer
}

fn taken(batcher: &mut Batcher, now: Instant) -> Vec<u8> {
    let mut batch = Vec::new();
    batcher.take(now, &mut batch);
    batch.iter().flat_map(|job| marks(&job.inputs)).collect()
}

#[test]
fn what_is_there_is_taken_at_once_in_order() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(3));
    let _answers: Vec<_> = (0..5).map(|i| pushed(&mut batcher, i, now)).collect();
    assert_eq!(batcher.batches(), 2);
    assert_eq!(taken(&mut batcher, now), [0, 1, 2]);
    assert_eq!(taken(&mut batcher, now), [3, 4]);
    assert!(taken(&mut batcher, now).is_empty());
    assert!(batcher.is_empty());
}

#[test]
fn a_batch_has_no_more_elements_than_it_may() {
    let now = Instant::now();
    // Marks are in rows of as many elements as they are wide.
    for (elements, width, taken_at_once) in
        [(5, 1, 5), (5, 2, 2), (5, 5, 1), (5, 9, 1), (900, 9, 8)]
    {
        let mut batcher = Batcher::new(BatcherConfig {
            max_batch_elements: Some(elements),
            ..config(8)
        });
        let _answers: Vec<_> = (0..10)
            .map(|mark| {
                let (job, answer) = job(&[mark], width, now);
                batcher.push(job);
                answer
            })
            .collect();
        assert_eq!(
            batcher.batches(),
            10usize.div_ceil(taken_at_once),
            "{elements} {width}"
        );
        let mut batch = Vec::new();
        batcher.take(now, &mut batch);
        assert_eq!(batch.len(), taken_at_once, "{elements} {width}");
    }
}

#[test]
fn jobs_that_do_not_stack_are_a_batch_each() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(8));
    for mark in 0..3 {
        let (single, _) = job(&[mark], 1, now);
        batcher.push(Job {
            stacks: false,
            ..single
        });
    }
    assert_eq!(batcher.batches(), 3);
    let _stacked = [3, 4].map(|mark| pushed(&mut batcher, mark, now));
    assert_eq!(batcher.batches(), 4);
}

#[test]
fn a_job_larger_than_a_batch_runs_by_itself() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(2));
    let _first = pushed(&mut batcher, 1, now);
    let (large, _large) = job(&[2, 3, 4], 1, now);
    batcher.push(large);
    assert_eq!(batcher.batches(), 2);
    let _last = pushed(&mut batcher, 5, now);
    assert_eq!(taken(&mut batcher, now), [1]);
    assert_eq!(taken(&mut batcher, now), [2, 3, 4]);
    assert_eq!(taken(&mut batcher, now), [5]);
}

#[test]
fn shapes_do_not_mix_and_the_oldest_goes_first() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(8));
    let at = |millis| now + Duration::from_millis(millis);
    let jobs = [
        job(&[1], 4, at(0)),
        job(&[2], 5, at(1)),
        job(&[3], 4, at(2)),
        job(&[4], 6, at(3)),
    ];
    let (jobs, _answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    for job in jobs {
        batcher.push(job);
    }
    assert_eq!(taken(&mut batcher, at(4)), [1, 3]);
    assert_eq!(taken(&mut batcher, at(4)), [2]);
    assert_eq!(taken(&mut batcher, at(4)), [4]);
}

#[test]
fn names_and_dtypes_do_not_mix_either() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(8));
    let (first, _first) = job(&[1], 2, now);
    let (mut named, _named) = job(&[2], 2, now);
    named.inputs[0].name = "y".into();
    let (mut signed, _signed) = job(&[3], 2, now);
    let data = signed.inputs[0].tensor.data().clone();
    signed.inputs[0].tensor =
        crate::tensor::Tensor::new(crate::tensor::DType::I8, vec![1, 2], data).unwrap();
    for job in [first, named, signed] {
        batcher.push(job);
    }
    assert_eq!(taken(&mut batcher, now).len(), 1);
    assert_eq!(taken(&mut batcher, now).len(), 1);
    assert_eq!(taken(&mut batcher, now).len(), 1);
}

#[test]
fn expired_first_job_is_answered_and_left_out() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(8));
    let mut first = pushed(&mut batcher, 1, now.checked_sub(HOUR).unwrap());
    let _second = pushed(&mut batcher, 2, now);
    assert_eq!(taken(&mut batcher, now), [2]);
    let error = first.try_recv().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
}

#[test]
fn abandoned_jobs_are_left_out_and_give_their_memory_back() {
    let now = Instant::now();
    let mut batcher = Batcher::new(config(8));
    drop(pushed(&mut batcher, 1, now));
    let _second = pushed(&mut batcher, 2, now);
    assert_eq!(taken(&mut batcher, now), [2]);

    let _kept = pushed(&mut batcher, 3, now);
    for mark in 4..100 {
        drop(pushed(&mut batcher, mark, now));
        batcher.note_abandoned();
    }
    assert!(batcher.len() <= 3, "{} jobs are kept", batcher.len());
    assert_eq!(taken(&mut batcher, now), [3]);
}

#[test]
fn the_delay_counts_from_the_arrival_of_the_oldest() {
    let now = Instant::now();
    let mut batcher = full(3);
    let _first = pushed(&mut batcher, 1, now);
    let _second = pushed(&mut batcher, 2, now + DELAY / 2);
    assert_eq!(batcher.next_due(), Some(now + DELAY));
    let early = now + DELAY.checked_sub(Duration::from_nanos(1)).unwrap();
    assert!(!batcher.is_ready(early));
    assert!(taken(&mut batcher, early).is_empty());
    assert!(batcher.is_ready(now + DELAY));
    assert_eq!(taken(&mut batcher, now + DELAY), [1, 2]);
}

#[test]
fn a_full_batch_does_not_wait_behind_an_older_one_that_does() {
    let now = Instant::now();
    let mut batcher = full(2);
    let (wide, _wide) = job(&[9], 7, now);
    batcher.push(wide);
    let _first = pushed(&mut batcher, 1, now);
    let _second = pushed(&mut batcher, 2, now);
    assert_eq!(taken(&mut batcher, now), [1, 2]);
    assert!(taken(&mut batcher, now).is_empty());
    assert_eq!(taken(&mut batcher, now + DELAY), [9]);
}

#[test]
fn jobs_of_a_failed_batch_run_one_by_one_before_all_others() {
    let now = Instant::now();
    for mut batcher in [Batcher::new(config(4)), full(4)] {
        let _answers: Vec<_> = (1..=6).map(|i| pushed(&mut batcher, i, now)).collect();
        let mut batch = Vec::new();
        batcher.take(now, &mut batch);
        batcher.push_back_alone(batch.drain(..));
        for mark in 1..=4 {
            assert_eq!(taken(&mut batcher, now), [mark]);
        }
        assert_eq!(taken(&mut batcher, now + DELAY), [5, 6]);
    }
}

/// One thing that happens to a batcher.
#[derive(Debug, Clone)]
enum Event {
    /// A job of so many rows and such a width arrives, with so many milliseconds left.
    Push {
        rows: usize,
        width: usize,
        timeout: u64,
    },
    /// The client of one of the jobs leaves.
    Abandon(usize),
    /// So many milliseconds pass.
    Pass(u64),
    /// A worker comes. Its run may fail.
    Take { fails: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1usize..6, 1usize..4, 1u64..400).prop_map(|(rows, width, timeout)| Event::Push {
            rows,
            width,
            timeout
        }),
        1 => any::<usize>().prop_map(Event::Abandon),
        2 => (0u64..150).prop_map(Event::Pass),
        3 => any::<bool>().prop_map(|fails| Event::Take { fails }),
    ]
}

/// A batcher, its clients, and what became of each job, by its number.
struct World {
    batcher: Batcher,
    cfg: BatcherConfig,
    now: Instant,
    clients: Vec<Option<Receiver>>,
    deadlines: Vec<Instant>,
    runs: Vec<usize>,
    answered: Vec<usize>,
    last_run_of_width: [Option<usize>; 4],
}

impl World {
    fn new(cfg: BatcherConfig) -> Self {
        Self {
            batcher: Batcher::new(cfg),
            cfg,
            now: Instant::now(),
            clients: Vec::new(),
            deadlines: Vec::new(),
            runs: Vec::new(),
            answered: Vec::new(),
            last_run_of_width: [None; 4],
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Push {
                rows,
                width,
                timeout,
            } => self.push(rows, width, timeout),
            Event::Abandon(index) => self.abandon(index),
            Event::Pass(millis) => self.now += Duration::from_millis(millis),
            Event::Take { fails } => self.take(fails),
        }
    }

    fn push(&mut self, rows: usize, width: usize, timeout: u64) {
        let number = u8::try_from(self.clients.len()).unwrap();
        let (mut job, answer) = job(&vec![number; rows], width, self.now);
        job.deadline = self.now + Duration::from_millis(timeout);
        self.deadlines.push(job.deadline);
        self.clients.push(Some(answer));
        self.runs.push(0);
        self.answered.push(0);
        self.batcher.push(job);
    }

    fn abandon(&mut self, index: usize) {
        let count = self.clients.len().max(1);
        if let Some(client) = self.clients.get_mut(index % count)
            && client.take().is_some()
        {
            self.batcher.note_abandoned();
        }
    }

    fn take(&mut self, fails: bool) {
        let mut batch = Vec::new();
        self.batcher.take(self.now, &mut batch);
        self.check(&batch);
        if batch.is_empty() {
            self.check_rest();
            return;
        }
        if fails && batch.len() > 1 {
            self.batcher.push_back_alone(batch.into_iter());
            return;
        }
        for job in batch {
            let number = usize::from(marks(&job.inputs)[0]);
            let width = job.inputs[0].tensor.shape()[1];
            assert!(
                self.last_run_of_width[width].is_none_or(|last| last < number),
                "order"
            );
            self.last_run_of_width[width] = Some(number);
            self.answered[number] += 1;
            job.answer(Err(Error::new(Kind::Internal, "run")));
        }
    }

    /// A batch holds jobs that stack, fits, and has nobody in it who left or came too late.
    fn check(&mut self, batch: &[Job]) {
        let rows: usize = batch.iter().map(|job| job.rows).sum();
        assert!(rows <= self.cfg.batch_size || batch.len() == 1, "over size");
        let inputs = batch.iter().flat_map(|job| &job.inputs);
        let elements: usize = inputs
            .map(|input| input.tensor.shape().iter().product::<usize>())
            .sum();
        let most = self.cfg.max_batch_elements.unwrap_or(usize::MAX);
        assert!(elements <= most || batch.len() == 1, "over elements");
        assert!(batch.iter().all(|job| job.stacks_with(&batch[0])), "mixed");
        assert!(
            batch.len() == 1 || batch.iter().all(|job| !job.is_alone),
            "not alone"
        );
        for job in batch {
            let number = usize::from(marks(&job.inputs)[0]);
            assert!(self.clients[number].is_some(), "abandoned");
            assert!(self.deadlines[number] > self.now, "expired");
            self.runs[number] += 1;
            assert!(self.runs[number] <= 2, "run more than twice");
        }
    }

    /// A worker that goes away empty-handed left nobody behind who should not wait.
    fn check_rest(&self) {
        if self.cfg.wait_for_full_batches {
            assert!(self.batcher.next_due().is_none_or(|due| due > self.now));
        } else {
            assert!(self.batcher.is_empty(), "an idle worker left a job behind");
        }
    }

    /// Runs what is left and checks that every client who stayed was answered once.
    fn finish(mut self) {
        self.now += DELAY;
        while !self.batcher.is_empty() {
            self.take(false);
        }
        assert_eq!(self.batcher.batches(), 0);
        for (number, client) in self.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            let error = client.try_recv().unwrap().unwrap_err();
            let was_run = self.answered[number] == 1;
            assert_eq!(error.kind() == Kind::Internal, was_run);
            assert_eq!(error.kind() == Kind::Expired, !was_run);
        }
    }
}

proptest! {
    #[test]
    fn every_job_is_run_once_expired_or_abandoned(
        batch_size in 1usize..9,
        max_batch_elements in prop::option::of(1usize..20),
        wait_for_full_batches in any::<bool>(),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let cfg = BatcherConfig { max_batch_elements, wait_for_full_batches, ..config(batch_size) };
        let mut world = World::new(cfg);
        for event in &events {
            world.apply(event);
        }
        world.finish();
    }
}
