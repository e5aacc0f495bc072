//! Layers of `tower-http` around the routers, REST's and gRPC's alike.

use std::any::Any;
use std::convert::Infallible;
use std::fmt::Display;

use axum::BoxError;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use hyper::header::{self, HeaderName};
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanic;
use tower_http::classify::{ServerErrorsAsFailures, SharedClassifier};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::trace::{MakeSpan, TraceLayer};
use tracing::Span;

use super::Response;
use super::extract::RequestContext;
use crate::error::{Error, Kind};
use crate::payload::request_span;

/// Headers that are never shown where headers are.
const CREDENTIALS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

type Classifier = SharedClassifier<ServerErrorsAsFailures>;
type PanicHandler = fn(Box<dyn Any + Send>) -> Response;

/// What answers the requests of a connection. It has no failures: each is a response.
pub(super) trait HttpService:
    Service<
        Request,
        Response = hyper::Response<Self::ResponseBody>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request, Response = hyper::Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type ResponseBody = B;
}

/// `router` within the layers that REST and gRPC share. `answer` asks the router, and has the last word on the response.
pub(super) fn around<R, F, B>(
    router: R,
    answer: impl Fn(CatchPanic<R, PanicHandler>, Request) -> F + Clone + Send + 'static,
) -> impl HttpService
where
    R: HttpService,
    F: Future<Output = Result<hyper::Response<B>, Infallible>> + Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError> + Display> + Send + 'static,
{
    let catching = CatchPanic::custom(router, failed as PanicHandler);
    ServiceBuilder::new()
        .layer(trace())
        .layer(SetSensitiveRequestHeadersLayer::new(CREDENTIALS))
        .service_fn(move |request| answer(catching.clone(), request))
}

/// Makes the span of a request. Model and version are recorded once the catalog has found them.
#[derive(Debug, Clone, Copy)]
struct RequestSpan;

impl<B> MakeSpan<B> for RequestSpan {
    fn make_span(&mut self, request: &hyper::Request<B>) -> Span {
        let context = request.extensions().get::<RequestContext>();
        let span = request_span(context.map_or("", |context| context.id.as_str()));
        if let Some(client) = context.and_then(|context| context.client_id.as_deref()) {
            span.record("client_request_id", client);
        }
        span
    }
}

/// A span for each request. The access log has what `tower-http` would log of it.
fn trace() -> TraceLayer<Classifier, RequestSpan, (), (), (), (), ()> {
    TraceLayer::new_for_http()
        .make_span_with(RequestSpan)
        .on_request(())
        .on_response(())
        .on_body_chunk(())
        .on_eos(())
        .on_failure(())
}

/// A panic is a failure of the request, and of nothing else.
#[expect(clippy::needless_pass_by_value, reason = "the layer passes it so")]
fn failed(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(Kind::Internal, "The server failed to process the request")
        .with_detail(text.unwrap_or("a panic without a text"))
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_of_its_request() {
        let router = service_fn(async |request: Request| {
            assert!(request.uri().path() != "/panic", "the endpoint's text");
            Ok(Response::default())
        });
        let service = around(router, tower::ServiceExt::oneshot);
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            service.clone().oneshot(request).await.unwrap()
        };
        let failed = ask("/panic").await;
        let error = failed.extensions().get::<Error>().unwrap();
        assert_eq!(
            (failed.status().as_u16(), error.kind()),
            (500, Kind::Internal)
        );
        assert_eq!(error.detail(), Some("the endpoint's text"));
        assert_eq!(ask("/").await.status(), 200);
    }
}
