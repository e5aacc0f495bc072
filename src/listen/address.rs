//! Addresses to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen, or where a socket was bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// Interface and port; port 0 is any that is free.
        socket: SocketAddr,
        /// Whether TLS is spoken there.
        tls: bool,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl Address {
    /// A TCP port without TLS.
    pub const fn plain(socket: SocketAddr) -> Self {
        Self::Tcp { socket, tls: false }
    }

    /// Interface and port; `None` for a Unix socket.
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { socket, .. } => Some(*socket),
            Self::Unix(_) => None,
        }
    }

    /// Whether TLS is spoken there.
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Whether only programs on this machine can reach it.
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp { socket, .. } => socket.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// The form in which `config.properties` has addresses.
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { socket, tls: false } => write!(formatter, "http://{socket}"),
            Self::Tcp { socket, tls: true } => write!(formatter, "https://{socket}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
