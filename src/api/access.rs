//! The access log: one line for each request, with TorchServe's message.
//!
//! What becomes of a line, its time and its file are not known here.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;

use super::extract::RequestContext;
use crate::listen::Peer;

/// Takes the lines of requests that were answered. Called for every request: must not block.
#[derive(Clone)]
pub struct AccessLog(Arc<Take>);

type Take = dyn Fn(AccessLine) + Send + Sync;

/// One request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLine {
    /// `/127.0.0.1:39750 "GET /ping HTTP/1.1" 200 28`, without a line break.
    pub message: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// From arrival until the answer.
    pub took: Duration,
    /// The request's id.
    pub request_id: String,
    /// What the client calls it, if that is another id.
    pub client_request_id: Option<Box<str>>,
}

/// The ids of a request.
pub(super) struct Ids {
    /// The server's.
    pub own: String,
    /// The client's, if it gave another.
    pub client: Option<Box<str>>,
}

impl From<RequestContext> for Ids {
    fn from(context: RequestContext) -> Self {
        Self {
            own: context.id,
            client: context.client_id,
        }
    }
}

/// The part of a line that is known when the request arrives.
pub(super) struct LineStart(Vec<u8>);

impl AccessLog {
    /// A log that hands lines to `take`.
    pub fn new(take: impl Fn(AccessLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Hands over the line of a request that was answered.
    pub(super) fn finish(&self, begun: LineStart, ids: Ids, status: u16, took: Duration) {
        let mut message = begun.0;
        let _ = write!(message, " {status} {}", took.as_millis());
        (self.0)(AccessLine {
            message,
            status,
            took,
            request_id: ids.own,
            client_request_id: ids.client,
        });
    }
}

/// `/127.0.0.1:39750 "GET /ping HTTP/1.1"`. The URI is as received: it holds no line break or the parser would have
/// refused it.
pub(super) fn begin<B>(peer: Peer, request: &Request<B>) -> LineStart {
    let mut line = Vec::with_capacity(160);
    let (method, version) = (request.method(), request.version());
    let target = request.uri().path_and_query();
    let target = target.map_or("", |target| target.as_str());
    let _ = write!(line, "/{peer} \"{method} {target} {version:?}\"");
    LineStart(line)
}

/// The same of a call over gRPC: `/127.0.0.1:39750 "gRPC package.Service/Method HTTP/2.0"`.
pub(super) fn begin_grpc(peer: Peer, path: &str) -> LineStart {
    let mut line = Vec::with_capacity(128);
    let method = path.strip_prefix('/').unwrap_or(path);
    let _ = write!(line, "/{peer} \"gRPC {method} HTTP/2.0\"");
    LineStart(line)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn lines_have_torchserves_format() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        let log = AccessLog::new(move |line| taken.lock().push(line));
        let request = Request::get("/ping?a=b").body(()).unwrap();
        let begun = begin(Peer::Tcp("127.0.0.1:39750".parse().unwrap()), &request);
        let took = Duration::from_millis(28);
        let ids = Ids {
            own: "r-1".to_owned(),
            client: Some("c-1".into()),
        };
        log.finish(begun, ids, 200, took);
        let expected = AccessLine {
            message: b"/127.0.0.1:39750 \"GET /ping?a=b HTTP/1.1\" 200 28".to_vec(),
            status: 200,
            took,
            request_id: "r-1".to_owned(),
            client_request_id: Some("c-1".into()),
        };
        assert_eq!(*lines.lock(), [expected]);
    }
}
