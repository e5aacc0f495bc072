//! Sockets: addresses, accepting, and the streams that connections are read from and written to.
//!
//! This module owns what is below a protocol: TCP ports and Unix sockets, TLS, the limits on connections and on clients that
//! take nothing, and accepting the last connections when the server stops. It knows no HTTP: the caller of [`accept`] says how a connection is served.

mod accept;
mod address;
mod certificate;
mod clients;
mod connections;
mod heads;
mod progress;
mod socket;
mod stint;
mod stream;
mod tls;
mod unix;

pub use accept::accept;
pub use address::Address;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use certificate::fuzz;
pub use certificate::{CertificateError, CertificateSource, Certificates, Password};
pub use clients::ClientAuthorities;
pub use connections::{Activity, Busy, ConnectionLimits, Connections};
pub use socket::Socket;
pub use stream::{Peer, Stream};
pub use tls::{HandshakeLimits, Tls};
