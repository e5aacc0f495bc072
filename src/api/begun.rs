//! Which version of HTTP a client speaks, told by its first bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 sends first, where nothing else has said that it is one.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes were looked at. They are read again by whoever reads it.
pub(super) struct Begun<S> {
    first: [u8; PREFACE.len()],
    /// How many of `first` have arrived, and how many of those were read again.
    arrived: usize,
    read: usize,
    stream: S,
}

impl<S> Begun<S> {
    /// `stream`, of which nothing was read.
    pub(super) const fn new(stream: S) -> Self {
        Self {
            first: [0; PREFACE.len()],
            arrived: 0,
            read: 0,
            stream,
        }
    }

    /// The stream itself.
    pub(super) const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The same, with the stream changed.
    pub(super) fn map(self, change: impl FnOnce(S) -> S) -> Self {
        Self {
            stream: change(self.stream),
            ..self
        }
    }

    /// Whether anything has arrived.
    pub(super) const fn has_begun(&self) -> bool {
        self.arrived > 0
    }
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Whether the client begins with the preface of HTTP/2. Waits for as many bytes as that takes. Nothing is lost where
    /// it is dropped.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        while self.arrived < PREFACE.len() && PREFACE.starts_with(&self.first[..self.arrived]) {
            match self.stream.read(&mut self.first[self.arrived..]).await? {
                0 => break,
                arrived => self.arrived += arrived,
            }
        }
        Ok(self.first[..self.arrived] == *PREFACE)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let first = &this.first[this.read..this.arrived];
        if first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let now = first.len().min(buffer.remaining());
        buffer.put_slice(&first[..now]);
        this.read += now;
        // What has arrived since goes along, so that a request which came whole is read whole.
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Pending => Poll::Ready(Ok(())),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
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
        Pin::new(&mut self.stream).poll_shutdown(context)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is made of a client that sends `pieces` one after the other and no more.
    async fn begun(pieces: Vec<Vec<u8>>) -> (bool, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let send = async move {
            for piece in pieces {
                far.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            let mut stream = Begun::new(near);
            let is_http2 = stream.is_http2().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            (is_http2, all)
        };
        tokio::join!(send, read).1
    }

    proptest! {
        #[test]
        fn nothing_is_lost_wherever_it_is_cut(
            of_preface in 0..=PREFACE.len(), rest in prop::collection::vec(any::<u8>(), 0..40), at in 1usize..30,
        ) {
            let sent = [&PREFACE[..of_preface], &rest].concat();
            let pieces = sent.chunks(at).map(<[u8]>::to_vec).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (is_http2, read) = runtime.block_on(begun(pieces));
            prop_assert_eq!(is_http2, sent.starts_with(PREFACE));
            prop_assert_eq!(read, sent);
        }
    }
}
