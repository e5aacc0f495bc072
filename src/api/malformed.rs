//! Bytes that are not HTTP get the answer that TorchServe's clients know.
//!
//! hyper answers such bytes itself, with a status and nothing else, before the API hears of them. [`ReplacedRefusals`]
//! stands between hyper and the socket, recognizes that answer, and sends the API's in its place. It knows nothing of requests
//! that hyper understood.
//!
//! Requests whose end is in doubt ([`Framing`]) never reach hyper whole: instead of the line with the doubt it reads what
//! it refuses, and then the end of the connection. So nothing that follows is answered.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Response;
use super::framing::{Doubt, Framing};

/// An answer of hyper's own is shorter than this.
const BARE_LIMIT: usize = 100;
/// What hyper answers to what it does not understand: a bad message, a target or headers over its own limits.
const BARE_STATUSES: [&[u8]; 3] = [b"400", b"414", b"431"];
/// What no head may hold, wherever it has got to, and the end of it: hyper looks at a head when that is there.
const NO_HEAD: &[u8] = b"\0\r\n\r\n";

/// A stream on which the answer to what is not HTTP is replaced.
pub(super) struct ReplacedRefusals<'c, S, M> {
    stream: S,
    /// Whether the API has answered since all was written: then what is written next is its answer, not hyper's.
    is_answered: &'c AtomicBool,
    /// Makes the answer, head and body.
    make: M,
    /// What is left of the answer to be written.
    answer: Option<Bytes>,
    framing: Framing,
    /// Set once a request was refused: what hyper still reads, before the end.
    last_words: Option<&'static [u8]>,
}

impl<'c, S, M: FnMut() -> Bytes> ReplacedRefusals<'c, S, M> {
    /// `stream`, with answers that `make` makes. Whoever answers a request sets `is_answered`.
    pub(super) const fn new(stream: S, is_answered: &'c AtomicBool, make: M) -> Self {
        Self {
            stream,
            is_answered,
            make,
            answer: None,
            framing: Framing::new(),
            last_words: None,
        }
    }

    fn is_hypers_own(&self, bytes: &[u8]) -> bool {
        bytes.len() < BARE_LIMIT && is_bare(bytes) && !self.is_answered.load(Ordering::Relaxed)
    }
}

/// Whether `bytes` are one of the heads that hyper makes without being asked.
fn is_bare(bytes: &[u8]) -> bool {
    let after_version = bytes
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..));
    let is_refusal = after_version
        .is_some_and(|rest| BARE_STATUSES.iter().any(|status| rest.starts_with(status)));
    is_refusal && bytes.ends_with(b"content-length: 0\r\n\r\n")
}

/// A response as it stands on the wire.
pub(super) fn written(response: Response) -> Bytes {
    let (head, body) = response.into_parts();
    // A body that is all there does not wait.
    let body = body.collect().now_or_never().and_then(Result::ok);
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    wire.extend_from_slice(&body);
    wire.into()
}

impl<S: AsyncWrite + Unpin, M: FnMut() -> Bytes + Unpin> ReplacedRefusals<'_, S, M> {
    /// Writes the API's answer in place of `bare`, which counts as written once the answer is.
    fn poll_replaced(&mut self, context: &mut Context<'_>, bare: usize) -> Poll<io::Result<usize>> {
        let make = &mut self.make;
        let left = self.answer.get_or_insert_with(make);
        while left.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(written);
        }
        Poll::Ready(Ok(bare))
    }
}

impl<S, M> ReplacedRefusals<'_, S, M> {
    /// Ends what hyper reads. In a head it refuses what it reads last; a body that ends too early is refused as it is.
    fn refuse(&mut self, doubt: Doubt) {
        tracing::debug!("a request was refused: {}", doubt.reason);
        self.last_words = Some(if doubt.is_in_head { NO_HEAD } else { &[] });
    }
}

impl<S: AsyncRead + Unpin, M: Unpin> AsyncRead for ReplacedRefusals<'_, S, M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.last_words.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            if let Err(doubt) = this.framing.read(&buffer.filled()[before..]) {
                buffer.set_filled(before + doubt.sound);
                this.refuse(doubt);
            }
        }
        if let Some(last) = &mut this.last_words {
            let (now, later) = last.split_at(last.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *last = later;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, M> AsyncWrite for ReplacedRefusals<'_, S, M>
where
    S: AsyncWrite + Unpin,
    M: FnMut() -> Bytes + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_hypers_own(bytes) {
            return self.poll_replaced(context, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && self.is_hypers_own(only)
        {
            return self.poll_replaced(context, only.len());
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    /// hyper flushes when it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_answered.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const BARE: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    async fn passed(bytes: &[u8], is_answered: bool) -> Vec<u8> {
        let flag = AtomicBool::new(is_answered);
        // So small that the answer takes several writes.
        let (near, mut far) = tokio::io::duplex(2);
        let mut stream = ReplacedRefusals::new(near, &flag, || Bytes::from_static(b"the answer"));
        let write = async {
            stream.write_all(bytes).await.unwrap();
            drop(stream);
        };
        let mut read = Vec::new();
        let ((), end) = tokio::join!(write, far.read_to_end(&mut read));
        end.unwrap();
        read
    }

    #[tokio::test]
    async fn hypers_own_answer_is_replaced() {
        assert_eq!(passed(BARE, false).await, b"the answer");
        let too_large = String::from_utf8(BARE.to_vec()).unwrap();
        let too_large = too_large.replace("400 Bad Request", "431 Request Header Fields Too Large");
        assert_eq!(passed(too_large.as_bytes(), false).await, b"the answer");
    }

    #[tokio::test]
    async fn everything_else_passes() {
        assert_eq!(passed(BARE, true).await, BARE);
        for other in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.",
            "",
        ] {
            assert_eq!(passed(other.as_bytes(), false).await, other.as_bytes());
        }
    }
}
