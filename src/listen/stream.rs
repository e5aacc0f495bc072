//! The byte stream of one connection: TCP, TLS or a Unix socket. It ends if the client takes nothing that is written.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::connections::{Activity, Seat};
use super::heads::HeadWatch;
use super::progress::WriteProgress;
use super::stint::{Stint, first_of};
use crate::budget::Account;

/// An accepted connection.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    progress: WriteProgress,
    activity: Activity,
    account: Account,
    heads: Option<HeadWatch>,
    stint: Stint,
}

/// What bytes are read from and written to.
#[derive(Debug)]
pub(super) enum Io {
    /// A TCP connection without TLS.
    Tcp(TcpStream),
    /// A connection of a Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Address of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The client's address and port.
    Tcp(SocketAddr),
    /// A program on this machine.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

/// Calls the same method on each kind of stream.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Io::Tcp($inner) => $call,
            Io::Unix($inner) => $call,
            Io::Tls($inner) => $call,
        }
    };
}

impl Io {
    /// The number of its descriptor.
    pub(super) fn descriptor(&self) -> usize {
        usize::try_from(self.as_fd().as_raw_fd()).unwrap_or(0)
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl Stream {
    /// The connection in `seat`, which ends when its client takes next to nothing for as long as `progress` says.
    pub(super) fn new(io: Io, progress: WriteProgress, seat: &Seat) -> Self {
        Self {
            io,
            progress,
            activity: seat.activity(),
            account: seat.account().clone(),
            heads: None,
            stint: Stint::new(seat.crowd()),
        }
    }

    /// The same connection, for requests one after the other: the head of each may take `timeout`.
    #[must_use]
    pub fn with_heads_within(self, timeout: Duration) -> Self {
        Self {
            heads: Some(HeadWatch::new(timeout)),
            ..self
        }
    }

    /// The same connection, for requests beside one another.
    #[must_use]
    pub fn without_heads(self) -> Self {
        Self {
            heads: None,
            ..self
        }
    }

    /// What client and server agreed to speak within TLS, if they did.
    pub fn agreed_protocol(&self) -> Option<&[u8]> {
        match &self.io {
            Io::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Io::Tcp(_) | Io::Unix(_) => None,
        }
    }

    /// Its client's share of the bytes in flight.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// What is told whether the connection is idle.
    pub const fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What became of writing, unless it has been held up for too long.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Self {
            io,
            progress,
            activity,
            ..
        } = self;
        if written.is_ready() {
            if progress.moved() {
                activity.set_blocked(false);
            }
            return written;
        }
        if progress.is_new() {
            activity.set_blocked(true);
        }
        if progress.poll_stalled(io.as_fd(), context).is_pending() {
            return Poll::Pending;
        }
        progress.count(activity.refusals());
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Reads, but no more than `most` bytes.
fn poll_read_at_most(
    most: usize,
    stream: Pin<&mut impl AsyncRead>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buffer.remaining() <= most {
        return stream.poll_read(context, buffer);
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
    ready!(stream.poll_read(context, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            io,
            heads,
            activity,
            stint,
            ..
        } = self.get_mut();
        ready!(stint.poll_begin(context));
        let before = buffer.filled().len();
        let most = stint.limit(buffer.remaining());
        let read = each!(io, stream => poll_read_at_most(most, Pin::new(stream), context, buffer));
        stint.moved(read.is_ready().then(|| buffer.filled().len() - before));
        let Some(heads) = heads else {
            return read;
        };
        if read.is_ready() {
            if buffer.filled().len() > before {
                heads.arrived(activity);
            }
            return read;
        }
        let late = heads.poll_late(activity, context);
        late.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.stint.poll_begin(context));
        let bytes = &bytes[..this.stint.limit(bytes.len())];
        let written = each!(&mut this.io, stream => Pin::new(stream).poll_write(context, bytes));
        this.stint.wrote(&written);
        this.watched(context, written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = each!(&mut this.io, stream => Pin::new(stream).poll_flush(context));
        this.stint.finished(&flushed);
        match &this.io {
            Io::Tls(_) => this.watched(context, flushed),
            // What was written to these is in the kernel: there is nothing to flush.
            Io::Tcp(_) | Io::Unix(_) => flushed,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = each!(&mut this.io, stream => Pin::new(stream).poll_shutdown(context));
        this.stint.finished(&shut);
        this.watched(context, shut)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let most = self
            .stint
            .limit(slices.iter().map(|slice| slice.len()).sum());
        if let Some(first) = slices.iter().find(|slice| !slice.is_empty())
            && first.len() > most
        {
            return self.poll_write(context, first);
        }
        let this = self.get_mut();
        ready!(this.stint.poll_begin(context));
        let slices = first_of(slices, most);
        let written = each!(
            &mut this.io,
            stream => Pin::new(stream).poll_write_vectored(context, slices)
        );
        this.stint.wrote(&written);
        this.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.io, stream => stream.is_write_vectored())
    }
}
