//! tonic's clients of each service.

use lantern::api::Listener;
use lantern::api::grpc::proto::inference::PredictionsRequest;
use lantern::api::grpc::proto::inference::inference_ap_is_service_client::InferenceApIsServiceClient;
use lantern::api::grpc::proto::management::management_ap_is_service_client::ManagementApIsServiceClient;
use lantern::api::grpc::proto::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;

use super::TestServer;

/// A client of predictions.
pub type InferenceClient = InferenceApIsServiceClient<Channel>;
/// A client of Open Inference Protocol.
pub type OpenInferenceClient = GrpcInferenceServiceClient<Channel>;
/// A client of management.
pub type ManagementClient = ManagementApIsServiceClient<Channel>;

impl TestServer {
    /// A connection to a listener, made when it is needed.
    pub fn channel(&self, listener: Listener) -> Channel {
        let url = format!("http://{}", self.address(listener));
        Endpoint::from_shared(url).unwrap().connect_lazy()
    }

    /// A client of predictions.
    pub fn grpc_inference(&self) -> InferenceClient {
        InferenceClient::new(self.channel(Listener::GrpcInference))
    }

    /// A client of Open Inference Protocol.
    pub fn grpc_open_inference(&self) -> OpenInferenceClient {
        OpenInferenceClient::new(self.channel(Listener::GrpcInference))
    }

    /// A client of management.
    pub fn grpc_management(&self) -> ManagementClient {
        ManagementClient::new(self.channel(Listener::GrpcManagement))
    }

    /// A client of health, on a listener.
    pub fn grpc_health(&self, listener: Listener) -> HealthClient<Channel> {
        HealthClient::new(self.channel(listener))
    }
}

/// A request for a prediction, with one input `data`.
pub fn prediction(model: &str, data: impl Into<Vec<u8>>) -> PredictionsRequest {
    PredictionsRequest {
        model_name: model.to_owned(),
        input: [("data".to_owned(), data.into().into())].into(),
        ..PredictionsRequest::default()
    }
}
