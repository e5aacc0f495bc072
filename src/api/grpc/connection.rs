//! Connections that speak gRPC.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Grpc;
use crate::api::extract::RequestContext;
use crate::api::http2::{self, Lifetime};
use crate::api::layers::HttpService;
use crate::listen::{Peer, Stream};

/// Serves one connection until its client closes it; until `stop`, or until it is too old, and then until its calls
/// have been answered.
pub(in crate::api) async fn serve(
    stream: Stream,
    peer: Peer,
    api: Arc<Grpc>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let lifetime = Lifetime {
        age: api.cfg.max_connection_age,
        grace: api.cfg.max_connection_age_grace,
        idle: None,
    };
    let adopts = api.api.adopt_request_id;
    let answer = move |mut request: axum::extract::Request, call| {
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        request.extensions_mut().insert(context);
        // It goes where the response goes, whose body may last.
        request.extensions_mut().insert::<http2::Call>(call);
        service.clone().oneshot(request)
    };
    http2::serve(stream, peer, lifetime, answer, stop).await;
}
