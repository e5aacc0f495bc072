//! Threads of tokio that are held, and what goes on meanwhile. What fails here hangs.

#![allow(clippy::unwrap_used)]

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::model::Settings;
use crate::runtime::pool::loader::Loader;
use crate::runtime::{Verdicts, WorkerIds, testing};

fn leaders() -> Arc<Leaders> {
    let leaders = Arc::<Leaders>::default();
    leaders.bind(&Handle::current());
    leaders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn places_are_fewer_than_threads() {
    let leaders = leaders();
    let now = Instant::now();
    let taken = [leaders.enter(now), leaders.enter(now)];
    assert!(taken.iter().all(Option::is_some) && !leaders.has_place());
    assert!(leaders.enter(now).is_none());
    drop(taken);
    assert!(leaders.has_place() && leaders.enter(now).is_some());
}

#[tokio::test]
async fn the_only_thread_is_no_place() {
    let leaders = leaders();
    assert!(!leaders.has_place() && leaders.enter(Instant::now()).is_none());
}

/// A run that holds its thread until it is told.
struct Held {
    release: std::sync::mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Held {
    /// Begins it, and returns when the thread is held.
    async fn begin(leaders: &Arc<Leaders>) -> Self {
        let (release, released) = std::sync::mpsc::channel();
        let (entered, is_held) = oneshot::channel();
        let leaders = Arc::clone(leaders);
        let task = tokio::spawn(async move {
            let _place = leaders.enter(Instant::now()).unwrap();
            entered.send(()).unwrap();
            released.recv().unwrap();
        });
        is_held.await.unwrap();
        Self { release, task }
    }

    async fn end(self) {
        self.release.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// What needs a thread that looks at sockets and timers.
async fn timers_and_tasks_go_on() {
    let sleep = async { tokio::time::sleep(Duration::from_millis(1)).await };
    tokio::spawn(sleep).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_thread_leaves_sockets_and_timers_to_another() {
    let leaders = leaders();
    for _ in 0..10 {
        let held = Held::begin(&leaders).await;
        timers_and_tasks_go_on().await;
        held.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spare_thread_takes_over_and_steps_back() {
    let leaders = Arc::<Leaders>::default();
    leaders.keep_spare(&Handle::current());
    for _ in 0..3 {
        while !leaders.spare.is_kept() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let held = Held::begin(&leaders).await;
        timers_and_tasks_go_on().await;
        while leaders.spare.is_kept() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        held.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_yielded_on_a_held_thread_comes_back_on_another() {
    let leaders = leaders();
    let (release, released) = std::sync::mpsc::channel();
    let (yielding, yielded) = oneshot::channel();
    let holding = tokio::spawn(async move {
        yielded.await.unwrap();
        let _place = leaders.enter(Instant::now()).unwrap();
        released.recv().unwrap();
    });
    let back = tokio::spawn(async move {
        // The other task is woken to be the next on this thread, before this one comes back to it.
        yielding.send(()).unwrap();
        yield_now().await;
        release.send(()).unwrap();
    });
    back.await.unwrap();
    holding.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watcher_sleeps_when_nobody_leads() {
    let leaders = leaders();
    for _ in 0..2 {
        drop(leaders.enter(Instant::now()).unwrap());
        assert!(!leaders.is_asleep.load(Ordering::SeqCst));
        while !leaders.is_asleep.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_busy_keeps_none_from_being_added() {
    let leaders = leaders();
    let model = Arc::new(testing::model(Settings::default()));
    let loader = Loader::new(Arc::new(FakeBackend::new()), &model, 1, 2);
    let ids = Arc::new(WorkerIds::from(9000));
    let pool = Pool::new(loader, model, ids, Verdicts::default(), &leaders);
    let relieving = Arc::clone(&leaders);
    let state = pool.state.lock();
    let relieving = std::thread::spawn(move || relieving.relieve());
    while Arc::strong_count(&pool) == 1 || leaders.pools.is_locked() {
        std::thread::yield_now();
    }
    drop(state);
    relieving.join().unwrap();
}
