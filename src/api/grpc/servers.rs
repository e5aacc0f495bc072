//! The servers that tonic generates, with their limits, and the way from a row of the table to one of them.

use std::pin::Pin;

use tonic::body::Body;
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic::codegen::Service;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use super::health::HealthService;
use super::inbound::Inbound;
use super::inference::InferenceService;
use super::management::ManagementService;
use super::open_inference::OpenInferenceService;
use super::proto::DESCRIPTORS;
use super::proto::inference::inference_ap_is_service_server::InferenceApIsServiceServer;
use super::proto::management::management_ap_is_service_server::ManagementApIsServiceServer;
use super::proto::open_inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::api::Services;
use crate::api::routes::grpc::{GrpcRoute, GrpcRouter, GrpcService, OPEN_INFERENCE};

/// Bytes of a message that asks for health or descriptors, which holds a name.
const SMALL: usize = 16 << 10;
/// Bytes that a response has beside its payload.
const FRAMING: usize = 64 << 10;

type Request = hyper::Request<Inbound>;
type Response = hyper::Response<Body>;
type Served = Pin<Box<dyn Future<Output = Response> + Send>>;
type Reflect = Box<dyn Fn(Request) -> Served + Send + Sync>;

/// A server for each service.
pub(super) struct Servers {
    inference: InferenceApIsServiceServer<InferenceService>,
    management: ManagementApIsServiceServer<ManagementService>,
    open_inference: GrpcInferenceServiceServer<OpenInferenceService>,
    health: HealthServer<HealthService>,
    reflection: Reflect,
    reflection_alpha: Reflect,
}

impl Servers {
    /// Servers of the services that `router` names.
    pub(super) fn new(router: &GrpcRouter, services: &Services, cfg: &crate::api::Config) -> Self {
        let inference = InferenceService::new(services.catalog.clone(), cfg);
        let management = ManagementService::new(services.catalog.clone(), cfg.enable_model_api);
        let open_inference =
            OpenInferenceService::new(services.catalog.clone(), cfg.enable_model_api);
        let health = HealthService::new(services.catalog.clone(), router.services());
        let names = router.services();
        let v1 = descriptors(&names).build_v1();
        let alpha = descriptors(&names).build_v1alpha();
        Self {
            inference: InferenceApIsServiceServer::new(inference)
                .max_decoding_message_size(cfg.max_request_size)
                .max_encoding_message_size(cfg.max_response_size.saturating_add(FRAMING))
                .accept_compressed(Gzip)
                .accept_compressed(Deflate),
            management: ManagementApIsServiceServer::new(management)
                .max_decoding_message_size(cfg.max_request_size)
                .accept_compressed(Gzip)
                .accept_compressed(Deflate),
            open_inference: GrpcInferenceServiceServer::new(open_inference)
                .max_decoding_message_size(cfg.max_request_size)
                .max_encoding_message_size(cfg.max_response_size.saturating_add(FRAMING))
                .accept_compressed(Gzip)
                .accept_compressed(Deflate),
            health: HealthServer::new(health).max_decoding_message_size(SMALL),
            reflection: reflect(
                v1.expect("the build made the descriptors")
                    .max_decoding_message_size(SMALL),
            ),
            reflection_alpha: reflect(
                alpha
                    .expect("the build made the descriptors")
                    .max_decoding_message_size(SMALL),
            ),
        }
    }

    /// Serves a call to the method of `route`.
    pub(super) async fn call(&self, route: &GrpcRoute, request: Request) -> Response {
        match route.serves {
            GrpcService::Inference => served(self.inference.clone(), request).await,
            GrpcService::Management => served(self.management.clone(), request).await,
            GrpcService::OpenInference => {
                served(self.open_inference.clone(), renamed(route, request)).await
            }
            GrpcService::Health => served(self.health.clone(), request).await,
            GrpcService::Reflection => (self.reflection)(request).await,
            GrpcService::ReflectionAlpha => (self.reflection_alpha)(request).await,
        }
    }
}

/// The request as one to the service under the name that the generated server knows.
fn renamed(route: &GrpcRoute, mut request: Request) -> Request {
    if route.service != OPEN_INFERENCE
        && let Ok(path) = format!("/{OPEN_INFERENCE}/{}", route.method).parse()
    {
        *request.uri_mut() = path;
    }
    request
}

async fn served<S>(mut server: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible>,
{
    match server.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Reflection's server has a type without a name.
fn reflect<S>(server: S) -> Reflect
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Box::new(move |request| Box::pin(served(server.clone(), request)))
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
