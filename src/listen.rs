//! Sockets: addresses, accepting, and the streams that connections are read from and written to.
//!
//! It owns what happens below a protocol: TCP ports and Unix sockets, TLS, how many connections there may be, and that
//! none is lost when the server stops. It knows no HTTP: whoever calls [`accept`] says what becomes of a connection.

mod accept;
mod address;
mod certificate;
mod socket;
mod stream;
mod tls;
mod unix;

pub use accept::accept;
pub use address::Address;
pub use certificate::{CertificateError, Certificates};
pub use socket::Socket;
pub use stream::{Peer, Stream};
pub use tls::Tls;
