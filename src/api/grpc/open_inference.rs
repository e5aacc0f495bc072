//! Open Inference Protocol's `GRPCInferenceService`, for both of its packages: the operations of `api::oip`, from
//! messages and to messages.

use std::pin::Pin;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::call::Caller;
use super::proto::open_inference as wire;
use super::proto::open_inference::grpc_inference_service_server::GrpcInferenceService;
use crate::api::manage::Operations;
use crate::api::oip::{self, Origin, Target, config, metadata, repository, statistics};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::payload::request_span;

mod describe;
mod divided;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::api) mod fuzz;
pub(super) mod infer;
mod request;
mod response;

/// Requests of one stream that are run at the same time. They are answered in order.
const STREAMED_AT_ONCE: usize = 16;
/// With this, a stream ends at its first failure, in a status instead of a message.
const STATUS_WANTED: &str = "triton_grpc_error";

type Answer<T> = Result<Response<T>, Status>;
type Responses = Pin<Box<dyn Stream<Item = Result<wire::ModelStreamInferResponse, Status>> + Send>>;

/// The service.
pub(super) struct OpenInferenceService {
    enable_model_api: bool,
}

impl OpenInferenceService {
    /// The service; models come and go only with `enable_model_api`.
    pub(super) const fn new(enable_model_api: bool) -> Self {
        Self { enable_model_api }
    }

    fn operations(&self, caller: &Caller) -> Operations {
        caller.operations(self.enable_model_api)
    }
}

/// Waits until a version has loaded or failed to.
async fn loaded(caller: &Caller, target: Target<'_>) -> Result<(), Error> {
    let (arrival, own) = (caller.arrival(), caller.own_deadline());
    let loaded = target.loaded(caller.catalog(), arrival, own);
    loaded.await.map(drop)
}

/// The version that a message names; an empty one is the server's choice.
fn target<'a>(model: &'a str, version: &'a str) -> Target<'a> {
    Target {
        model,
        version: Some(version).filter(|version| !version.is_empty()),
    }
}

fn answer<T>(caller: &Caller, result: Result<T, Error>) -> Answer<T> {
    let result = result.map(Response::new);
    result.map_err(|error| caller.fail_open_inference(&error))
}

async fn infer(
    catalog: &Catalog,
    origin: Origin,
    message: wire::ModelInferRequest,
) -> Result<wire::ModelInferResponse, Error> {
    let is_raw = is_raw(&message);
    let (name, version) = (message.model_name.clone(), message.model_version.clone());
    let request = request::decode(message)?;
    // Raw data were charged with their message; of elements, more is made than came.
    let made = if is_raw {
        0
    } else {
        oip::size(&request.inputs)
    };
    let _charge = origin.account.charge(made).await?;
    let response = oip::infer(catalog, target(&name, &version), request, origin).await?;
    Ok(response::encode(response, is_raw))
}

/// Whether a message has the data of its tensors as they are: its answer has, too.
fn is_raw(message: &wire::ModelInferRequest) -> bool {
    !message.raw_input_contents.is_empty()
}

/// What the failure of one message of a stream says; the stream goes on.
fn failed(caller: &Caller, error: &Error, id: String) -> wire::ModelStreamInferResponse {
    caller.record(error);
    wire::ModelStreamInferResponse {
        error_message: error.message().to_owned(),
        infer_response: Some(wire::ModelInferResponse {
            id,
            ..wire::ModelInferResponse::default()
        }),
    }
}

/// One message of a stream, answered.
async fn stream_one(
    caller: Caller,
    message: Result<wire::ModelInferRequest, Status>,
    wants_status: bool,
) -> Result<wire::ModelStreamInferResponse, Status> {
    let message = message?;
    caller
        .check_access()
        .map_err(|error| caller.fail_open_inference(&error))?;
    let id = message.id.clone();
    let arrival = Instant::now();
    let origin = origin(&caller, arrival, is_raw(&message));
    match infer(caller.catalog(), origin, message).await {
        Ok(response) => Ok(streamed(response)),
        Err(error) if wants_status => Err(caller.fail_open_inference(&error)),
        Err(error) => Ok(failed(&caller, &error, id)),
    }
}

/// A response of a stream, which says that it is its request's last.
fn streamed(mut response: wire::ModelInferResponse) -> wire::ModelStreamInferResponse {
    let is_last = wire::InferParameter {
        parameter_choice: Some(wire::infer_parameter::ParameterChoice::BoolParam(true)),
    };
    let name = "triton_final_response".to_owned();
    response.parameters.insert(name, is_last);
    wire::ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    }
}

fn origin(caller: &Caller, arrival: Instant, wants_bytes: bool) -> Origin {
    Origin {
        id: caller.id().to_owned(),
        headers: Vec::new(),
        arrival,
        deadline: caller.own_deadline(),
        account: caller.account().clone(),
        wants_bytes,
    }
}

fn wants_status(metadata: &MetadataMap) -> bool {
    let value = metadata.get(STATUS_WANTED);
    value.is_some_and(|value| value.as_bytes() == b"true")
}

#[tonic::async_trait]
impl GrpcInferenceService for OpenInferenceService {
    type ModelStreamInferStream = Responses;

    async fn server_live(
        &self,
        _request: Request<wire::ServerLiveRequest>,
    ) -> Answer<wire::ServerLiveResponse> {
        Ok(Response::new(wire::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        request: Request<wire::ServerReadyRequest>,
    ) -> Answer<wire::ServerReadyResponse> {
        let ready = Caller::of(&request)?.catalog().is_ready();
        Ok(Response::new(wire::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<wire::ModelReadyRequest>,
    ) -> Answer<wire::ModelReadyResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let ready = oip::is_ready(caller.catalog(), target(&request.name, &request.version));
        answer(
            &caller,
            ready.map(|ready| wire::ModelReadyResponse { ready }),
        )
    }

    async fn server_metadata(
        &self,
        _request: Request<wire::ServerMetadataRequest>,
    ) -> Answer<wire::ServerMetadataResponse> {
        Ok(Response::new(describe::server(&metadata::server())))
    }

    async fn model_metadata(
        &self,
        request: Request<wire::ModelMetadataRequest>,
    ) -> Answer<wire::ModelMetadataResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let target = target(&request.name, &request.version);
        let has_loaded = loaded(&caller, target).await;
        let metadata = has_loaded.and_then(|()| metadata::model(caller.catalog(), target));
        answer(&caller, metadata.map(describe::model))
    }

    async fn model_infer(
        &self,
        request: Request<wire::ModelInferRequest>,
    ) -> Answer<wire::ModelInferResponse> {
        let caller = Caller::of(&request)?;
        let message = request.into_inner();
        let origin = origin(&caller, caller.arrival(), is_raw(&message));
        let inferred = infer(caller.catalog(), origin, message).await;
        answer(&caller, inferred)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<wire::ModelInferRequest>>,
    ) -> Answer<Responses> {
        let caller = Caller::of(&request)?;
        let wants_status = wants_status(request.metadata());
        let answers = request.into_inner().map(move |message| {
            let span = request_span(caller.id());
            let charges = caller.take_kept();
            let answer = stream_one(caller.clone(), message, wants_status);
            let answer = async move {
                let answer = answer.await;
                drop(charges);
                answer
            };
            answer.instrument(span)
        });
        Ok(Response::new(Box::pin(answers.buffered(STREAMED_AT_ONCE))))
    }

    async fn model_config(
        &self,
        request: Request<wire::ModelConfigRequest>,
    ) -> Answer<wire::ModelConfigResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let target = target(&request.name, &request.version);
        let has_loaded = loaded(&caller, target).await;
        let config = has_loaded.and_then(|()| config::config(caller.catalog(), target));
        answer(&caller, config.map(describe::config))
    }

    async fn model_statistics(
        &self,
        request: Request<wire::ModelStatisticsRequest>,
    ) -> Answer<wire::ModelStatisticsResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let statistics = if request.name.is_empty() {
            Ok(statistics::of_server(caller.catalog()))
        } else {
            let target = target(&request.name, &request.version);
            statistics::of_model(caller.catalog(), target, caller.arrival()).await
        };
        answer(&caller, statistics.map(describe::statistics))
    }

    async fn repository_index(
        &self,
        request: Request<wire::RepositoryIndexRequest>,
    ) -> Answer<wire::RepositoryIndexResponse> {
        let caller = Caller::of(&request)?;
        let ready = request.into_inner().ready;
        let index = repository::index(caller.catalog(), ready).await;
        answer(&caller, index.map(describe::index))
    }

    async fn repository_model_load(
        &self,
        request: Request<wire::RepositoryModelLoadRequest>,
    ) -> Answer<wire::RepositoryModelLoadResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let parameters = request.parameters.keys().map(String::as_str);
        let model = request.model_name.as_str();
        let loaded = repository::load(
            caller.catalog(),
            &self.operations(&caller),
            model,
            parameters,
        )
        .await;
        answer(
            &caller,
            loaded.map(|()| wire::RepositoryModelLoadResponse {}),
        )
    }

    async fn repository_model_unload(
        &self,
        request: Request<wire::RepositoryModelUnloadRequest>,
    ) -> Answer<wire::RepositoryModelUnloadResponse> {
        let caller = Caller::of(&request)?;
        let model = request.into_inner().model_name;
        let unloaded =
            repository::unload(caller.catalog(), &self.operations(&caller), &model).await;
        answer(
            &caller,
            unloaded.map(|()| wire::RepositoryModelUnloadResponse {}),
        )
    }
}
