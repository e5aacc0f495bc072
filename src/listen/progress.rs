//! Whether a client takes what is written to it.
//!
//! A socket that is full says nothing of its client: the kernel lets more be written only when a third of what waits is
//! gone, which takes a slow client long. So the kernel is asked how much waits, once in a while.

use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::ioctl::{Getter, Opcode, ioctl};
use tokio::time::{Instant, Sleep};

use crate::refusals::{Limit, Refusals};

/// Bytes that a client must take in each second of the time that it has.
const LEAST_RATE: u64 = 512;
/// `SIOCOUTQ`, which asks for the bytes that wait to be sent or acknowledged.
const OUTPUT_WAITING: Opcode = 0x5411;

/// How far writing to a client gets.
#[derive(Debug)]
pub(super) struct WriteProgress {
    timeout: Duration,
    stalled: Option<Stalled>,
}

/// Writing waits for the client.
#[derive(Debug)]
struct Stalled {
    timer: Pin<Box<Sleep>>,
    /// Bytes that waited in the kernel when the timer was set.
    waiting: Option<u64>,
}

impl WriteProgress {
    /// A client may take next to nothing for `timeout`.
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            stalled: None,
        }
    }

    /// Something was written. Returns whether writing was held up before.
    pub(super) fn moved(&mut self) -> bool {
        self.stalled.take().is_some()
    }

    /// Whether writing was not held up until now.
    pub(super) const fn is_new(&self) -> bool {
        self.stalled.is_none()
    }

    /// Nothing can be written to `socket`. Ready once that has been so for too long.
    pub(super) fn poll_stalled(
        &mut self,
        socket: BorrowedFd<'_>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            timer: Box::pin(tokio::time::sleep(timeout)),
            waiting: waiting(socket),
        });
        while stalled.timer.as_mut().poll(context).is_ready() {
            let now = waiting(socket);
            if !has_moved(stalled.waiting, now, timeout) {
                return Poll::Ready(());
            }
            stalled.waiting = now;
            stalled.timer.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }

    /// Counts that a client was cut off.
    pub(super) fn count(&self, refusals: &Refusals) {
        let timeout = self.timeout;
        refusals.count(
            Limit::WriteTime,
            format_args!("a client that took next to nothing of its answer for {timeout:?}"),
        );
    }
}

/// Whether a client took what it must have taken within `timeout`.
fn has_moved(before: Option<u64>, now: Option<u64>, timeout: Duration) -> bool {
    let least = LEAST_RATE.saturating_mul(timeout.as_secs()).max(1);
    matches!((before, now), (Some(before), Some(now)) if before.saturating_sub(now) >= least)
}

/// Bytes that wait in the kernel for the other side; `None` if the kernel does not say.
#[expect(unsafe_code, reason = "a call that the library has no safe form of")]
fn waiting(socket: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: the kernel answers `SIOCOUTQ` with one `int`, and changes nothing.
    let answer = unsafe { ioctl(socket, Getter::<OUTPUT_WAITING, i32>::new()) };
    u64::try_from(answer.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    #[test]
    fn a_rate_that_is_next_to_nothing_is_none() {
        let least = LEAST_RATE * 2;
        for (before, now, expected) in [
            (Some(10_000), Some(10_000), false),
            (Some(10_000), Some(10_000 - least), true),
            (Some(10_000), Some(10_001 - least), false),
            (Some(10_000), Some(20_000), false),
            (None, Some(0), false),
        ] {
            assert_eq!(
                has_moved(before, now, TIMEOUT),
                expected,
                "{before:?} {now:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_kernel_says_how_much_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(waiting(near.as_fd()), Some(0));
        let chunk = vec![0; 64 << 10];
        let mut written = 0;
        while let Ok(Ok(count)) =
            tokio::time::timeout(Duration::from_millis(100), near.write(&chunk)).await
        {
            written += count;
        }
        let before = waiting(near.as_fd()).unwrap();
        assert!(before > 0, "{written} bytes fit");
        let mut read = vec![0; written];
        far.read_exact(&mut read).await.unwrap();
        assert!(waiting(near.as_fd()).unwrap() < before);
    }
}
