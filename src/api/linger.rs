//! The end of a connection: what the client still sends is read and thrown away for a moment, so that a response which
//! came before the end of the request is not lost to a reset.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long, and how much, is read after the end.
const TIMEOUT: Duration = Duration::from_secs(2);
const LIMIT: usize = 64 << 20;

/// A connection that was shut down, and is still read from.
struct Lingering {
    timer: Pin<Box<Sleep>>,
    discarded: usize,
}

impl Lingering {
    fn new() -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(TIMEOUT)),
            discarded: 0,
        }
    }

    /// Reads until the client ends too, or the time or the bytes are used up.
    fn poll_discard<S: AsyncRead + Unpin>(
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

/// A stream that lingers when it is shut down.
pub(super) struct Lingers<S> {
    stream: S,
    /// Set once the stream has been shut down.
    lingering: Option<Lingering>,
}

impl<S> Lingers<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            lingering: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingers<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingers<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let lingering = this.lingering.get_or_insert_with(Lingering::new);
        lingering.poll_discard(&mut this.stream, context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
