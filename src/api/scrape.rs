//! The endpoint of the metrics listener.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use super::{Api, Call, Response, reply, uri};
use crate::error::{Error, Kind};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl Api {
    /// What Prometheus asks for. Of many models that is megabytes: they are written on a thread that serves nobody else,
    /// one scrape at a time.
    pub(super) async fn scrape(&self, call: &Call) -> Result<Response, Error> {
        let query = uri::decode_query(&call.head.uri).into_iter();
        let names: Vec<String> = query
            .filter(|(name, _)| name == "name[]")
            .map(|(_, value)| value)
            .collect();
        let _turn = self.scraping.acquire().await;
        let (catalog, metrics) = (&self.services.catalog, &self.services.metrics);
        let (catalog, metrics) = (catalog.clone(), metrics.clone());
        let written = tokio::task::spawn_blocking(move || {
            catalog.measure();
            metrics.scrape(&names)
        });
        let text = written.await.map_err(|error| {
            Error::new(Kind::Internal, "The metrics could not be written").with_detail(error)
        })?;
        Ok(reply::with_type(StatusCode::OK, TEXT, text))
    }
}
