//! The end of a worker process that nobody orders: it was sent SIGTERM, or its front is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::Signal;
use tokio::time::Instant;

/// A process that was sent SIGTERM ends when it has had no call for so long. Whoever sends it to a whole group or service
/// sends it to the front as well, which goes on sending requests until it drains.
const IDLE: Duration = Duration::from_secs(1);

/// Between two looks at the calls under way.
const LOOK: Duration = Duration::from_millis(100);

/// How long a process whose front is gone may take to end in order, which it cannot while native code holds its threads or the
/// exit of a library hangs.
const GRACE: Duration = Duration::from_secs(2);

/// Resolves when a process that is sent SIGTERM is to end: when it has been idle for a while, and at the latest when every call
/// that it had at the signal should have been answered, `longest` after it. Calls that come meanwhile are answered, and those
/// that are under way at the end are answered by the next process.
pub async fn asked(terminate: &mut Signal, is_idle: impl Fn() -> bool, longest: Duration) {
    if terminate.recv().await.is_none() {
        return std::future::pending().await;
    }
    let idle_for_a_while = async {
        let mut busy_at = Instant::now();
        while busy_at.elapsed() < IDLE {
            tokio::time::sleep(LOOK).await;
            if !is_idle() {
                busy_at = Instant::now();
            }
        }
    };
    let _ = tokio::time::timeout(longest, idle_for_a_while).await;
}

/// Sees to it that this process does not outlive its front, whatever holds its threads: kills it when the other end of `socket`
/// has been closed for a while.
pub fn end_with_front(socket: &impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd().try_clone_to_owned()?;
    std::thread::Builder::new()
        .name("lantern-orphan".to_owned())
        .spawn(move || {
            wait_until_closed(&socket);
            std::thread::park_timeout(GRACE);
            let _ = kill_process(getpid(), Number::KILL);
        })?;
    Ok(())
}

/// Returns when the other end of `socket` is closed.
fn wait_until_closed(socket: &OwnedFd) {
    loop {
        // Nothing is asked for: that the other end is gone is always told.
        let mut ends = [PollFd::new(socket, PollFlags::empty())];
        let polled = poll(&mut ends, None);
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if polled.is_ok() && ends[0].revents().intersects(gone) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;

    /// Sends this process a signal that nothing else of it listens to.
    fn asking() -> (Signal, impl Fn()) {
        let listening = signal(SignalKind::user_defined2()).unwrap();
        let ask = || kill_process(getpid(), Number::USR2).unwrap();
        (listening, ask)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_ends_when_it_has_been_idle_for_a_while() {
        let (mut signal, ask) = asking();
        ask();
        signal.recv().await;
        ask();
        let since = Instant::now();
        let is_idle = || since.elapsed() > Duration::from_secs(5);
        asked(&mut signal, is_idle, Duration::from_mins(2)).await;
        assert_eq!(since.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_never_idle_ends_all_the_same() {
        let (mut signal, ask) = asking();
        ask();
        let since = Instant::now();
        asked(&mut signal, || false, Duration::from_mins(2)).await;
        assert_eq!(since.elapsed().as_secs(), 120);
    }

    #[test]
    fn that_the_other_end_is_closed_is_told_although_data_waits() {
        use std::io::Write as _;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"order").unwrap();
        let is_closing = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                wait_until_closed(&ours.into());
                is_closing.load(Ordering::SeqCst)
            });
            is_closing.store(true, Ordering::SeqCst);
            drop(theirs);
            assert!(waiting.join().unwrap());
        });
    }
}
