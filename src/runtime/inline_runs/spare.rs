//! The spare thread: a thread of tokio that is kept from running tasks until another one is held.

use std::sync::mpsc::{self, Receiver, Sender};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// The spare thread, if there is one.
#[derive(Default)]
pub(super) struct Spare(Mutex<State>);

#[derive(Default)]
struct State {
    is_wanted: bool,
    /// Dropping it releases the thread that is kept.
    kept: Option<Sender<()>>,
}

impl Spare {
    /// Keeps a thread of `tasks`, from now on whenever it is not needed.
    pub(super) fn keep(&self, tasks: &Handle) {
        self.0.lock().is_wanted = true;
        self.keep_again(tasks);
    }

    /// Keeps a thread again that was released.
    pub(super) fn keep_again(&self, tasks: &Handle) {
        let mut state = self.0.lock();
        if state.is_wanted && state.kept.is_none() {
            let (kept, released) = mpsc::channel();
            state.kept = Some(kept);
            tasks.spawn(async move { keep(&released) });
        }
    }

    /// Whether a thread is kept, or about to be.
    #[cfg(test)]
    pub(super) fn is_kept(&self) -> bool {
        self.0.lock().kept.is_some()
    }

    /// Lets the thread run tasks.
    pub(super) fn release(&self) {
        self.0.lock().kept = None;
    }
}

/// Holds the thread of the task that calls this. Before, it moves the tasks that only this thread could run, those that
/// yielded and the one that was woken last, to the thread's queue, and spawns two tasks that wake a thread to steal from there.
/// If another thread has taken over the queue meanwhile, a thread for blocking calls is held instead of one that runs tasks.
/// Until a run is long and this is done again, one more thread runs tasks, which slows short runs down ([`super`]), and one
/// thread less is there for blocking calls.
fn keep(released: &Receiver<()>) {
    tokio::task::block_in_place(|| ());
    for _ in 0..2 {
        tokio::spawn(async {});
    }
    let _ = released.recv();
}
