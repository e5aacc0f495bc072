//! The access log: one line for each request, in TorchServe's format.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::http::request::Parts;

use super::stamp::write_timestamp;
use crate::listen::Peer;

/// Takes finished lines, each with its line break. Called for every request: must not block.
#[derive(Clone)]
pub struct AccessLog(Arc<Write>);

type Write = dyn Fn(&[u8]) + Send + Sync;

/// The part of a line that is known when the request arrives.
pub(super) struct Begun(Vec<u8>);

impl AccessLog {
    /// A log that hands lines to `write`.
    pub fn new(write: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Writes the line of a request that was answered.
    pub(super) fn finish(&self, begun: &Begun, status: u16, took: Duration) {
        let mut line = Vec::with_capacity(begun.0.len() + 48);
        write_timestamp(&mut line, SystemTime::now(), ',');
        line.extend_from_slice(b" - ");
        line.extend_from_slice(&begun.0);
        let _ = writeln!(line, " {status} {}", took.as_millis());
        (self.0)(&line);
    }
}

/// `/127.0.0.1:39750 "GET /ping HTTP/1.1"`. The URI is as received: it holds no line break or the parser would have
/// refused it.
pub(super) fn begin(peer: Peer, head: &Parts) -> Begun {
    let mut line = Vec::with_capacity(128);
    let (method, version) = (&head.method, head.version);
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let _ = write!(line, "/{peer} \"{method} {target} {version:?}\"");
    Begun(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn lines_have_torchserves_format() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&written);
        let log = AccessLog::new(move |line| lines.lock().extend_from_slice(line));
        let (head, ()) = hyper::Request::get("/ping?a=b")
            .body(())
            .unwrap()
            .into_parts();
        let begun = begin(Peer::Tcp("127.0.0.1:39750".parse().unwrap()), &head);
        log.finish(&begun, 200, Duration::from_millis(28));
        let line = String::from_utf8(written.lock().clone()).unwrap();
        let (stamp, message) = line.split_once(" - ").unwrap();
        assert_eq!(stamp.len(), "2026-11-20T15:20:39,500".len());
        assert_eq!(
            message,
            "/127.0.0.1:39750 \"GET /ping?a=b HTTP/1.1\" 200 28\n"
        );
    }
}
