//! A socket that was bound.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net as unix_net;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::stream::Io;
use super::unix::{self, SocketFile};
use super::{Address, Connections, Peer, Tls};

/// Most connections that may wait in the kernel to be accepted. With the usual 128, clients of a burst are refused and
/// wait a second before they try again.
pub(super) const BACKLOG: u32 = 1024;
/// How long a client may take nothing of what is written to it, unless somebody says otherwise.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A socket that was bound and accepts nobody yet.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Listener,
    address: Address,
    /// TLS, if it is spoken on this socket.
    pub(super) tls: Option<Tls>,
    /// What its connections are among.
    pub(super) connections: Connections,
    pub(super) write_timeout: Duration,
    /// The file of a Unix socket, removed with it.
    _file: Option<SocketFile>,
}

/// The listening socket of either kind.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener outside tokio: accepting never waits.
pub(super) enum Last {
    Tcp(std::net::TcpListener),
    Unix(unix_net::UnixListener),
}

impl Socket {
    /// Binds `address`. If the address asks for TLS, `tls` must be given; the file of a Unix socket gets `mode`. Must be
    /// called within a tokio runtime.
    pub fn bind(address: &Address, tls: Option<Tls>, mode: u32) -> io::Result<Self> {
        if address.is_tls() && tls.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no certificate",
            ));
        }
        match address {
            Address::Tcp {
                socket,
                tls: is_tls,
            } => {
                let listener = listen_on(*socket)?;
                let socket = listener.local_addr()?;
                Ok(Self {
                    listener: Listener::Tcp(listener),
                    address: Address::Tcp {
                        socket,
                        tls: *is_tls,
                    },
                    tls: tls.filter(|_| *is_tls),
                    connections: Connections::default(),
                    write_timeout: WRITE_TIMEOUT,
                    _file: None,
                })
            }
            Address::Unix(path) => {
                let (listener, file) = unix::listen(path, mode)?;
                Ok(Self {
                    listener: Listener::Unix(UnixListener::from_std(listener)?),
                    address: address.clone(),
                    tls: None,
                    connections: Connections::default(),
                    write_timeout: WRITE_TIMEOUT,
                    _file: Some(file),
                })
            }
        }
    }

    /// The same socket, whose connections are among `connections`, and end when their client takes nothing of what is
    /// written to it for `write_timeout`.
    #[must_use]
    pub fn within(self, connections: Connections, write_timeout: Duration) -> Self {
        Self {
            connections,
            write_timeout,
            ..self
        }
    }

    /// Where it is bound; never port 0.
    pub const fn address(&self) -> &Address {
        &self.address
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that is restarted can bind while connections of the one before are still in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<(Io, Peer)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(tcp),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Io::Unix(stream), Peer::Unix))
            }
        }
    }

    /// The same listener, taken out of tokio.
    pub(super) fn into_last(self) -> io::Result<Last> {
        Ok(match self {
            Self::Tcp(listener) => Last::Tcp(listener.into_std()?),
            Self::Unix(listener) => Last::Unix(listener.into_std()?),
        })
    }
}

impl Last {
    /// A connection that waits in the kernel. Fails with `WouldBlock` if there is none.
    pub(super) fn accept(&self) -> io::Result<(Io, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(tcp((TcpStream::from_std(stream)?, peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Io::Unix(UnixStream::from_std(stream)?), Peer::Unix))
            }
        }
    }
}

fn tcp((stream, peer): (TcpStream, SocketAddr)) -> (Io, Peer) {
    // If this fails, only latency is worse.
    let _ = stream.set_nodelay(true);
    (Io::Tcp(stream), Peer::Tcp(peer))
}
