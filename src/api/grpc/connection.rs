//! Connections that speak gRPC.

use std::sync::Arc;

use axum::extract::Request;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Grpc;
use crate::api::extract::RequestContext;
use crate::api::http2::{self, Connected, Lifetime, Rules};
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
    let rules = Rules {
        lifetime: Lifetime {
            age: api.cfg.max_connection_age,
            grace: api.cfg.max_connection_age_grace,
            idle: None,
        },
        limits: api.api.http2,
        write_timeout: api.api.write_timeout,
        refusals: api.services.refusals.clone(),
    };
    let adopts = api.api.adopt_request_id;
    let (account, activity) = (stream.account().clone(), stream.activity().clone());
    let answer = move |mut request: Request, connected| {
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        let context = context.of_account(account.clone());
        request.extensions_mut().insert(context);
        // The call begins where its answer is made, with which it goes.
        request.extensions_mut().insert::<Connected>(connected);
        service.clone().oneshot(request)
    };
    http2::serve(stream, (peer, activity), rules, answer, stop).await;
}
