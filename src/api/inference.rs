//! Endpoints of the inference listener: health and predictions.

use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};

use super::routes::Params;
use super::{Api, Call, Response, decode, document, reply};
use crate::error::{Error, Kind};
use crate::payload::{self, Request, Schedule};

/// Headers that belong to the server and the connection, whatever a handler says.
const RESERVED: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TRAILER,
];

impl Api {
    /// Whether the default version of every model can serve.
    pub(super) fn ping(&self) -> Response {
        if self.services.catalog.is_healthy() {
            reply::status(StatusCode::OK, "Healthy")
        } else {
            reply::status(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
        }
    }

    /// One prediction.
    pub(super) async fn predict(&self, call: Call, params: Params<'_>) -> Result<Response, Error> {
        let entry = self.services.catalog.find(params.model, params.version)?;
        let body = self.decoder.collect(call.body).await?;
        let headers = &call.head.headers;
        let (content_type, body) = self.decoder.payload(headers, body).await?;
        let request = Request {
            id: call.id,
            content_type,
            headers: decode::headers_for_handler(headers, params.rest),
            body,
            arrival: call.arrival,
            deadline: entry.deadline(call.arrival),
            schedule: Schedule::default(),
        };
        let reply = entry.call(request, params.version.is_some()).await?;
        from_handler(reply.into_response()?)
    }

    /// The document of one model's predictions.
    pub(super) fn predict_description(&self, params: Params<'_>) -> Result<Response, Error> {
        self.services.catalog.find(params.model, params.version)?;
        Ok(document::predictions(params.model))
    }
}

/// A handler's response. It has a content type only if the handler said one.
fn from_handler(response: payload::Response) -> Result<Response, Error> {
    let mut sent = Response::new(Full::new(response.body));
    *sent.status_mut() = StatusCode::from_u16(response.status)
        .map_err(|_| output_error(&format!("status {}", response.status)))?;
    let headers = sent.headers_mut();
    for (name, value) in &response.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| output_error(&format!("header name {name:?}")))?;
        if !RESERVED.contains(&name) {
            headers.append(name, header_value(value)?);
        }
    }
    if !response.content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, header_value(&response.content_type)?);
    }
    Ok(sent)
}

fn header_value(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| output_error(&format!("header value {value:?}")))
}

fn output_error(what: &str) -> Error {
    Error::new(
        Kind::HandlerOutput,
        "The handler's response is not valid HTTP",
    )
    .with_detail(what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn response(status: u16, content_type: &str, headers: &[(&str, &str)]) -> payload::Response {
        let headers = headers.iter();
        payload::Response {
            status,
            content_type: content_type.to_owned(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: Bytes::from_static(b"x"),
        }
    }

    #[test]
    fn only_what_the_handler_said_is_sent() {
        let sent = from_handler(response(
            201,
            "",
            &[("Dummy", "1"), ("Content-Length", "9")],
        ))
        .unwrap();
        assert_eq!(sent.status(), 201);
        let headers: Vec<_> = sent.headers().iter().collect();
        assert_eq!(
            headers,
            [(
                &HeaderName::from_static("dummy"),
                &HeaderValue::from_static("1")
            )]
        );
    }

    #[test]
    fn responses_that_are_not_http_are_the_handlers_fault() {
        for bad in [
            response(99, "", &[]),
            response(1000, "", &[]),
            response(200, "a\nb", &[]),
            response(200, "", &[("a b", "")]),
            response(200, "", &[("a", "b\r\nc: d")]),
        ] {
            assert_eq!(from_handler(bad).unwrap_err().kind(), Kind::HandlerOutput);
        }
    }
}
