//! TorchServe's `ManagementAPIsService`: the operations of `manage`, from messages and to messages.
//!
//! Numbers have presence: what a client does not send is the default, as over REST, and a zero that it does send is a
//! zero. TorchServe's own clients send no zeros.

use serde::Serialize;
use tonic::{Request, Response, Status};

use super::call::Caller;
use super::proto::management::management_ap_is_service_server::ManagementApIsService;
use super::proto::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest,
    ScaleWorkerRequest, SetDefaultRequest, UnregisterModelRequest,
};
use crate::api::manage::{
    DescribeParams, ListParams, Operations, Outcome, RegisterParams, ScaleParams,
};
use crate::error::{Error, Kind};

type Answer = Result<Response<ManagementResponse>, Status>;

/// The management service.
pub(super) struct ManagementService {
    enable_model_api: bool,
}

impl ManagementService {
    /// The service; models come and go only with `enable_model_api`.
    pub(super) const fn new(enable_model_api: bool) -> Self {
        Self { enable_model_api }
    }

    fn operations(&self, caller: &Caller) -> Operations {
        caller.operations(self.enable_model_api)
    }

    async fn register(
        &self,
        caller: &Caller,
        request: RegisterModelRequest,
    ) -> Result<Outcome, Error> {
        let operations = self.operations(caller);
        operations.register(register_params(&request)).await
    }

    async fn unregister(
        &self,
        caller: &Caller,
        request: UnregisterModelRequest,
    ) -> Result<Outcome, Error> {
        if request.model_name.is_empty() {
            // TorchServe's text, which is that of registration.
            let message = "Parameter url is required.";
            return Err(Error::new(Kind::BadRequest, message));
        }
        let version = given(&request.model_version);
        self.operations(caller)
            .unregister(&request.model_name, version)
            .await
    }
}

#[tonic::async_trait]
impl ManagementApIsService for ManagementService {
    async fn describe_model(&self, request: Request<DescribeModelRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let operations = self.operations(&caller);
        let described = operations.describe(DescribeParams {
            version: given(&request.model_version).map(str::to_owned),
            customized: Some(request.customized),
            request: caller.id().to_owned(),
            model: request.model_name,
        });
        json(&caller, described.await)
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = self.operations(&caller).list(ListParams {
            limit: request.limit.map(i64::from),
            next_page_token: Some(request.next_page_token.into()),
        });
        json(&caller, Ok(page))
    }

    async fn register_model(&self, request: Request<RegisterModelRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        text(&caller, self.register(&caller, request.into_inner()).await)
    }

    async fn scale_worker(&self, request: Request<ScaleWorkerRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        let operations = self.operations(&caller);
        let scaled = operations.scale(scale_params(request.into_inner()));
        text(&caller, scaled.await)
    }

    async fn set_default(&self, request: Request<SetDefaultRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        let SetDefaultRequest {
            model_name,
            model_version,
        } = request.into_inner();
        let operations = self.operations(&caller);
        let set = operations.set_default(&model_name, &model_version).await;
        text(&caller, set)
    }

    async fn unregister_model(&self, request: Request<UnregisterModelRequest>) -> Answer {
        let caller = Caller::of(&request)?;
        text(
            &caller,
            self.unregister(&caller, request.into_inner()).await,
        )
    }
}

fn register_params(request: &RegisterModelRequest) -> RegisterParams {
    RegisterParams {
        url: given(&request.url).map(str::to_owned),
        model_name: given(&request.model_name).map(str::to_owned),
        handler: given(&request.handler).map(str::to_owned),
        runtime: given(&request.runtime).map(str::to_owned),
        batch_size: number(request.batch_size),
        max_batch_delay: number(request.max_batch_delay),
        initial_workers: request.initial_workers.map(i64::from),
        response_timeout: number(request.response_timeout),
        startup_timeout: request.startup_timeout.map(i64::from),
        // The message has no field for it.
        service_envelope: None,
        synchronous: Some(request.synchronous),
    }
}

fn scale_params(request: ScaleWorkerRequest) -> ScaleParams {
    ScaleParams {
        version: given(&request.model_version).map(str::to_owned),
        min_worker: request.min_worker.map(i64::from),
        max_worker: request.max_worker.map(i64::from),
        synchronous: Some(request.synchronous),
        model: request.model_name,
    }
}

/// A text that was sent.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A number that was sent, of those without presence.
fn number(number: i32) -> Option<i64> {
    Some(number.into()).filter(|number| *number != 0)
}

fn text(caller: &Caller, outcome: Result<Outcome, Error>) -> Answer {
    let outcome = outcome.map_err(|error| caller.fail(&error))?;
    Ok(answer(outcome.message))
}

/// JSON as TorchServe prints it, without a line break at the end.
fn json(caller: &Caller, shown: Result<impl Serialize, Error>) -> Answer {
    let shown = shown.map_err(|error| caller.fail(&error))?;
    let printed = serde_json::to_string_pretty(&shown).map_err(|error| {
        caller.fail(&Error::new(Kind::Internal, "The answer has no JSON form").with_detail(error))
    })?;
    Ok(answer(printed))
}

fn answer(msg: String) -> Response<ManagementResponse> {
    Response::new(ManagementResponse { msg })
}
