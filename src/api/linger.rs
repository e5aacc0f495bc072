//! The end of a connection: what the client still sends is read and thrown away for a moment, so that a response which
//! came before the end of the request is not lost to a reset.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

/// How long, and how much, is read after the end.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMIT: usize = 64 << 20;

/// A connection that was shut down, and is still read from.
pub(super) struct Lingering {
    timer: Pin<Box<Sleep>>,
    discarded: usize,
}

impl Lingering {
    pub(super) fn new() -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(TIMEOUT)),
            discarded: 0,
        }
    }

    /// Reads until the client ends too, or the time or the bytes are used up.
    pub(super) fn poll_discard<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        while self.discarded < LIMIT && self.timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.discarded += buffer.filled().len();
        }
        Poll::Ready(())
    }
}
