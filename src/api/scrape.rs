//! The endpoint of the metrics listener.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::{Api, Call, Response, reply, uri};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl Api {
    pub(super) fn scrape(&self, call: &Call) -> Response {
        self.services.catalog.measure();
        let query = uri::decode_query(&call.head.uri).into_iter();
        let names: Vec<String> = query
            .filter(|(name, _)| name == "name[]")
            .map(|(_, value)| value)
            .collect();
        let text = self.services.metrics.scrape(self.cfg.metrics_mode, &names);
        reply::with_type(StatusCode::OK, TEXT, text)
    }
}
