//! The servers that tonic generates, with their limits, as routes: one for each row of the table.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use futures_util::FutureExt as _;
use tonic::Status;
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tower::{Service, ServiceExt as _, service_fn};

use super::call::Caller;
use super::health::HealthService;
use super::inbound::Inbound;
use super::inference::InferenceService;
use super::management::ManagementService;
use super::open_inference::{OpenInferenceService, infer};
use super::proto::DESCRIPTORS;
use super::proto::inference::inference_ap_is_service_server::InferenceApIsServiceServer;
use super::proto::management::management_ap_is_service_server::ManagementApIsServiceServer;
use super::proto::open_inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use super::{Grpc, status};
use crate::api::routes::grpc::{GrpcRoute, GrpcService, OPEN_INFERENCE};

/// The method that has a way of its own.
const MODEL_INFER: &str = "ModelInfer";

/// What answers calls.
pub(super) trait GrpcServer:
    Service<
        hyper::Request<Inbound>,
        Response = hyper::Response<tonic::body::Body>,
        Error = Infallible,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcServer for S where
    S: Service<
            hyper::Request<Inbound>,
            Response = hyper::Response<tonic::body::Body>,
            Error = Infallible,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// Bytes of a message that asks for health or descriptors, which holds a name.
const SMALL: usize = 16 << 10;

/// The router of `api`'s listener: a route for each row of its table. What is received has a limit here; what is sent has
/// it in the runtime, whatever the protocol.
pub(super) fn router(api: &Arc<Grpc>) -> Router {
    let cfg = &api.api;
    let names = api.table.services();
    let inference = InferenceApIsServiceServer::new(InferenceService::new(cfg))
        .max_decoding_message_size(cfg.max_request_size)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate);
    let management = ManagementService::new(cfg.enable_model_api);
    let management = ManagementApIsServiceServer::new(management)
        .max_decoding_message_size(cfg.max_request_size)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate);
    let open_inference = OpenInferenceService::new(cfg.enable_model_api);
    let open_inference = GrpcInferenceServiceServer::new(open_inference)
        .max_decoding_message_size(cfg.max_request_size)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate);
    let health =
        HealthServer::new(HealthService::new(names.clone())).max_decoding_message_size(SMALL);
    let reflection = descriptors(&names).build_v1();
    let reflection = reflection
        .expect("the build made the descriptors")
        .max_decoding_message_size(SMALL);
    let reflection_alpha = descriptors(&names).build_v1alpha();
    let reflection_alpha = reflection_alpha
        .expect("the build made the descriptors")
        .max_decoding_message_size(SMALL);
    let rows = api.table.routes().iter().copied();
    let router = rows.fold(Router::new(), |router, route| match route.serves {
        GrpcService::Inference => serving(router, api, route, inference.clone()),
        GrpcService::Management => serving(router, api, route, management.clone()),
        GrpcService::OpenInference => {
            let server = open_inference.clone();
            let server = server.map_request(move |request| renamed(route, request));
            if route.method == MODEL_INFER {
                return serving(router, api, route, inferring(api, server));
            }
            serving(router, api, route, server)
        }
        GrpcService::Health => serving(router, api, route, health.clone()),
        GrpcService::Reflection => serving(router, api, route, reflection.clone()),
        GrpcService::ReflectionAlpha => serving(router, api, route, reflection_alpha.clone()),
    });
    router.fallback(no_such_method)
}

/// `server`, but for calls to `ModelInfer` that it need not unpack.
fn inferring<S>(api: &Grpc, server: S) -> impl GrpcServer<Future: Send>
where
    S: GrpcServer<Future: Send>,
{
    let limit = api.api.max_request_size;
    service_fn(move |request: hyper::Request<Inbound>| {
        if infer::is_plain(request.headers()) {
            let answer = infer::answer(limit, request);
            return answer.map(Ok).left_future();
        }
        server.clone().oneshot(request).right_future()
    })
}

/// `router` with `server` for the calls of `route`.
fn serving<S>(router: Router, api: &Arc<Grpc>, route: GrpcRoute, server: S) -> Router
where
    S: GrpcServer<Future: Send>,
{
    let (path, api) = (route.path(), Arc::clone(api));
    let service = service_fn(move |request| {
        let answer = super::call(Arc::clone(&api), route, server.clone(), request);
        answer.map(|answer| Ok::<_, Infallible>(answer.unwrap_or_else(Status::into_http)))
    });
    router.route_service(&path, service)
}

async fn no_such_method(request: Request) -> hyper::Response<tonic::body::Body> {
    let error = status::no_such_method(request.uri().path());
    let caller = Caller::within(request.extensions());
    caller
        .map_or_else(|status| status, |caller| caller.fail(&error))
        .into_http()
}

/// The request as one to the service under the name that the generated server knows.
fn renamed(route: GrpcRoute, mut request: hyper::Request<Inbound>) -> hyper::Request<Inbound> {
    if route.service != OPEN_INFERENCE
        && let Ok(path) = format!("/{OPEN_INFERENCE}/{}", route.method).parse()
    {
        *request.uri_mut() = path;
    }
    request
}

/// Every descriptor there is; of the services, those that the listener has.
fn descriptors(services: &[&str]) -> Builder<'static> {
    let sets = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let builder = Builder::configure().include_reflection_service(false);
    let builder = sets
        .into_iter()
        .fold(builder, Builder::register_encoded_file_descriptor_set);
    services
        .iter()
        .fold(builder, |builder, name| builder.with_service_name(*name))
}
