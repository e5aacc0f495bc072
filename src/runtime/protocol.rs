//! The messages between the front and a worker process, and how they are encoded on the socket.
//!
//! One stream socket, one greeting each way, then frames: an encoded header and a raw body, which lies in memory that both
//! processes share where it is large ([`super::shared`]). The front sends
//! [`Order`](messages::Order)s, the worker process [`Report`](messages::Report)s. A worker process runs foreign code, so
//! whatever it sends is bounded, decoded and checked here before anything else sees it; what breaks a rule is a
//! [`Violation`], and ends the connection. This module knows neither processes nor pipelines.

mod busy_poll;
pub(super) mod convert;
pub(super) mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(super) mod incoming;
pub(super) mod messages;
pub(super) mod outbox;

use frame::FrameLimits;

/// Raised whenever a message changes its meaning or encoding.
pub(super) const VERSION: u8 = 8;

/// The first bytes that each side sends.
pub(super) const GREETING: [u8; 8] = [b'l', b'a', b'n', b't', b'e', b'r', b'n', VERSION];

/// Both programs must come from one build.
pub(super) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What an order may hold. The front bounds bodies far below by its own setting.
pub(super) const ORDER_LIMITS: FrameLimits = FrameLimits {
    header: 16 << 20,
    body: 2 << 30,
};

/// What the header of a report may hold: a signature, a response's headers, a log line.
pub(super) const REPORT_HEADER_LIMIT: usize = 1 << 20;

/// What the inputs and outputs of a model may take of it, encoded: the rest is for its workers.
pub(super) const SIGNATURE_LIMIT: usize = REPORT_HEADER_LIMIT - (64 << 10);

/// A rule of the protocol that the other side broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// The other side is not of this protocol, or of another version of it.
    #[error("greeted with {0:02x?}, expected {GREETING:02x?}")]
    Greeting([u8; 8]),
    /// A frame that is longer than may be.
    #[error("a frame's {part} has {length} bytes, the limit is {limit}")]
    TooLong {
        /// `header` or `body`.
        part: &'static str,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A frame whose header is longer than the frame.
    #[error("a frame of {frame} bytes announces a header of {header}")]
    Lengths {
        /// Bytes of the frame.
        frame: usize,
        /// Bytes of its header.
        header: usize,
    },
    /// A header that does not decode.
    #[error("a header does not decode: {0}")]
    Header(postcard::Error),
    /// It sent more than it may, for too long.
    #[error("{0}")]
    Flood(String),
    /// A message that makes no sense at this point, or a value that breaks a rule.
    #[error("{0}")]
    Message(String),
}
