//! Threads of tokio that are held, and what goes on meanwhile. What fails here hangs.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::handler::yield_now;

fn inline_runs() -> Arc<InlineRuns> {
    let inline_runs = Arc::<InlineRuns>::default();
    inline_runs.bind(&Handle::current());
    inline_runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn places_are_fewer_than_threads() {
    let inline_runs = inline_runs();
    let now = Instant::now();
    let taken = [inline_runs.begin(now), inline_runs.begin(now)];
    assert!(taken.iter().all(Option::is_some) && !inline_runs.has_free_slot());
    assert!(inline_runs.begin(now).is_none());
    drop(taken);
    assert!(inline_runs.has_free_slot() && inline_runs.begin(now).is_some());
}

#[tokio::test]
async fn with_one_thread_there_is_no_slot() {
    let inline_runs = inline_runs();
    assert!(!inline_runs.has_free_slot() && inline_runs.begin(Instant::now()).is_none());
}

/// A run that holds its thread until it is told.
struct Held {
    release: std::sync::mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Held {
    /// Begins it, and returns when the thread is held.
    async fn begin(inline_runs: &Arc<InlineRuns>) -> Self {
        let (release, released) = std::sync::mpsc::channel();
        let (entered, is_held) = oneshot::channel();
        let inline_runs = Arc::clone(inline_runs);
        let task = tokio::spawn(async move {
            let _slot = inline_runs.begin(Instant::now()).unwrap();
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
    let inline_runs = inline_runs();
    for _ in 0..10 {
        let held = Held::begin(&inline_runs).await;
        timers_and_tasks_go_on().await;
        held.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spare_thread_takes_over_and_steps_back() {
    let inline_runs = Arc::<InlineRuns>::default();
    inline_runs.keep_spare_thread(&Handle::current());
    for _ in 0..3 {
        while !inline_runs.spare.is_kept() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let held = Held::begin(&inline_runs).await;
        timers_and_tasks_go_on().await;
        while inline_runs.spare.is_kept() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        held.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_yielded_on_a_held_thread_comes_back_on_another() {
    let inline_runs = inline_runs();
    let (release, released) = std::sync::mpsc::channel();
    let (yielding, yielded) = oneshot::channel();
    let holding = tokio::spawn(async move {
        yielded.await.unwrap();
        let _slot = inline_runs.begin(Instant::now()).unwrap();
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
async fn the_watcher_sleeps_without_inline_runs() {
    let inline_runs = inline_runs();
    for _ in 0..2 {
        drop(inline_runs.begin(Instant::now()).unwrap());
        assert!(!inline_runs.is_asleep.load(Ordering::SeqCst));
        while !inline_runs.is_asleep.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A pool whose state is locked.
#[derive(Default)]
struct Locked(Mutex<()>);

impl WakeWorkers for Locked {
    fn wake_workers(&self) {
        drop(self.0.lock());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_busy_keeps_none_from_being_added() {
    let inline_runs = inline_runs();
    let pool = Arc::<Locked>::default();
    let weak = Arc::downgrade(&pool);
    inline_runs.add_pool(weak, &Handle::current());
    let handing_over = Arc::clone(&inline_runs);
    let locked = pool.0.lock();
    let handing_over = std::thread::spawn(move || handing_over.hand_over());
    while Arc::strong_count(&pool) == 1 || inline_runs.pools.is_locked() {
        std::thread::yield_now();
    }
    drop(locked);
    handing_over.join().unwrap();
}
