//! The endpoints that rows of the table lead to: what each is called in documents, its handler, and what it takes and
//! answers.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::IntoResponse as _;
use axum::routing::MethodRouter;
use futures_util::future::{BoxFuture, Either};

use super::{Permission, Route};
use crate::api::audit::{self, AuditedCall};
use crate::api::authority::named;
use crate::api::document::operations::{
    Answer, OBJECT, Operation, Query, STATUS, Takes, document, get, posted, prediction, query,
};
use crate::api::extract::{PathParams, RequestContext};
use crate::api::oip::rest as oip;
use crate::api::{
    Api, Response, archives, health, inference, kserve, logs, management, method_not_allowed,
    not_found, rotate, sagemaker, scrape, tenants,
};

/// What answers the requests of a route.
pub struct Endpoint {
    /// TorchServe's `operationId`.
    pub(in crate::api) id: &'static str,
    /// What it takes and answers.
    pub(in crate::api) operation: Operation,
    /// Adds its handler, behind the permission of a route, for the methods of that route.
    pub(in crate::api) attach: Attach,
}

type Attach = fn(MethodRouter<Arc<Api>>, &Route) -> MethodRouter<Arc<Api>>;

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.id)
    }
}

/// A handler that is asked only if the request has the permission of its route, with the models that are there for whoever asks. No
/// endpoint is reached otherwise.
#[derive(Clone)]
struct Guarded<H> {
    handler: H,
    permission: Permission,
    path: &'static str,
}

impl<T: 'static, H: Handler<T, Arc<Api>>> Handler<T, Arc<Api>> for Guarded<H> {
    type Future = Either<Answering<H::Future>, BoxFuture<'static, Response>>;

    fn call(self, request: Request, api: Arc<Api>) -> Self::Future {
        match self.audited(&request, &api) {
            Some(call) => Either::Right(Box::pin(self.answer(request, api, call))),
            None => Either::Left(
                match api.of_whoever_asks(self.permission, request.headers()) {
                    Ok(api) => Either::Left(self.handler.call(request, api)),
                    Err(error) => Either::Right(ready(error.into_response())),
                },
            ),
        }
    }
}

/// The answer of an endpoint, or a refusal.
type Answering<F> = Either<F, Ready<Response>>;

impl<H> Guarded<H> {
    /// The call that a request is for the audit log, if there is one and the request is for it.
    fn audited(&self, request: &Request, api: &Api) -> Option<AuditedCall> {
        let log = api.services.audit.as_ref();
        let log = log.filter(|_| audit::is_audited(self.permission))?;
        let call = format!("{} {}", request.method(), self.path);
        let principal = api.common.authority.principal(request.headers());
        let context = RequestContext::of(request.extensions());
        let call = AuditedCall::begin(log.clone(), principal, call, context);
        call.notes().named_tenant(named(request.headers()));
        Some(call)
    }

    /// Answers a request that is written down.
    async fn answer<T>(self, request: Request, api: Arc<Api>, call: AuditedCall) -> Response
    where
        H: Handler<T, Arc<Api>>,
    {
        let (mut head, body) = request.into_parts();
        call.notes().path(self.path, &mut head).await;
        let response = match api.of_whoever_asks(self.permission, &head.headers) {
            Ok(api) => {
                let api = Arc::new(api.noting(call.notes()));
                let request = Request::from_parts(head, body);
                self.handler.call(request, api).await
            }
            Err(error) => error.into_response(),
        };
        call.answered(&response);
        response
    }
}

const ROTATE: &[Query] = &[query("type", "string", "`inference` or `management`.")];

const LIST: &[Query] = &[
    query("limit", "integer", "Entries on a page, at most 100."),
    query("next_page_token", "string", "Where the last page ended."),
];
#[rustfmt::skip]
const REGISTER: &[Query] = &[
    query("url", "string", "The archive: a file of the model store, or an address that may be fetched. Required, here or in the body."),
    query("model_name", "string", "The model's name, if not the archive's."),
    query("handler", "string", "The handler, if not the archive's."),
    query("runtime", "string", "What runs the handler."),
    query("batch_size", "integer", "Rows of a batch at most."),
    query("max_batch_delay", "integer", "Milliseconds that a batch waits for more requests."),
    query("response_timeout", "integer", "Seconds that a request may take."),
    query("startup_timeout", "integer", "Seconds that a worker may take to load."),
    query("initial_workers", "integer", "Workers to start with."),
    query("service_envelope", "string", "How requests are wrapped, if not as the archive or the server says."),
    query("synchronous", "boolean", "Whether to answer when the workers are up."),
    query("s3_sse_kms", "boolean", "Whether the object is encrypted with a key of the service."),
];
#[rustfmt::skip]
const SCALE: &[Query] = &[
    query("min_worker", "integer", "Workers at least; 1 if not given."),
    query("max_worker", "integer", "Workers at most; `min_worker` if not given."),
    query("number_gpu", "integer", "Is not used."),
    query("synchronous", "boolean", "Whether to answer when the workers are up."),
    query("timeout", "integer", "Seconds to wait for them."),
];
#[rustfmt::skip]
const DESCRIBE: &[Query] = &[query("customized", "boolean", "Whether the handler is asked, too.")];
#[rustfmt::skip]
const UNREGISTER: &[Query] = &[
    query("synchronous", "boolean", "Is not used: the answer comes when the model is gone."),
    query("timeout", "integer", "Seconds to wait for requests in flight."),
];
#[rustfmt::skip]
const SCRAPE_QUERY: &[Query] = &[query("name[]", "array", "Names of metrics; all if not given.")];
#[rustfmt::skip]
const NAMED: &[Query] = &[query("model_name", "string", "The model; the only one loaded at start-up if not given.")];

#[rustfmt::skip]
const SEND: &[Query] = &[
    query("sha256", "string", "SHA-256 of the archive in hexadecimal. Required."),
    query("offset", "integer", "Bytes that have arrived, to go on from there; the archive begins anew if not given."),
];
#[rustfmt::skip]
const ARRIVED: &[Query] = &[query("sha256", "string", "SHA-256 of an archive of which so much has arrived.")];

#[rustfmt::skip]
const LOGS: &[Query] = &[
    query("lines", "integer", "Lines from before, 200 at most; 100 if not given."),
    query("follow", "boolean", "Whether lines are sent as they come, until the client leaves."),
];

type Answers = &'static [(u16, Answer)];

const HEALTH: Answers = &[(200, STATUS), (500, STATUS)];
const READINESS: Answers = &[(200, STATUS), (503, STATUS)];
const DONE: Answers = &[(200, STATUS)];
const DONE_WITH_OBJECT: Answers = &[(200, OBJECT)];
const STARTED: Answers = &[(200, STATUS), (202, STATUS), (206, STATUS)];
const OIP_READINESS: Answers = &[(200, OBJECT), (400, OBJECT), (503, OBJECT)];
const OIP_MODEL_READINESS: Answers = &[(200, OBJECT), (400, OBJECT), (404, OBJECT), (503, OBJECT)];
const OIP_GIVEN: Answers = &[(200, OBJECT), (400, OBJECT), (404, OBJECT)];
const OIP_LISTED: Answers = &[(200, Answer::Json("List"))];
#[rustfmt::skip]
const OIP_INFERRED: Answers = &[
    (200, Answer::Anything), (400, OBJECT), (404, OBJECT), (408, OBJECT), (415, OBJECT),
    (500, OBJECT), (501, OBJECT), (503, OBJECT), (504, OBJECT), (507, OBJECT),
];
#[rustfmt::skip]
const OIP_CHANGED: Answers = &[
    (200, OBJECT), (400, OBJECT), (404, OBJECT), (405, OBJECT), (500, OBJECT), (507, OBJECT),
];

/// Declares endpoints: name, `operationId`, handler, and what the documents say.
macro_rules! endpoints {
    ($($name:ident = $id:literal, $handler:expr, $operation:expr;)*) => {
        $(pub(super) const $name: &Endpoint = &Endpoint {
            id: $id,
            operation: $operation,
            attach: |methods, route| {
                let (handler, permission, path) = ($handler, route.permission, route.path);
                route.on(methods, Guarded { handler, permission, path })
            },
        };)*
    };
}

endpoints! {
    API_DESCRIPTION = "apiDescription", management::api_description, document("This document.", &[]);
    PREDICT_DESCRIPTION = "predictionsDescription", inference::predict_description, document("What one model takes and answers.", &[400, 404]);
    MODEL_DESCRIPTION = "modelDescription", management::model_description, document("The management calls of one model.", &[404]);
    DEFAULT_DESCRIPTION = "modelDescription", |api, path: PathParams| management::model_description(api, path.of_default_version()), MODEL_DESCRIPTION.operation;
    PING = "ping", health::ping, get("Whether no model has been without a worker for longer than it is restarted; or whether the server is ready.", &[], HEALTH, &[]);
    LIVE = "live", health::live, get("Whether the server lives.", &[], DONE, &[]);
    READY = "ready", health::ready, get("Whether requests should be sent to the server.", &[], READINESS, &[]);
    SAGEMAKER_PING = "sageMakerPing", sagemaker::ping, get("Whether a model has been loaded.", &[], &[(200, Answer::Json("Health")), (503, Answer::Text)], &[]);
    EXECUTION_PARAMETERS = "executionParameters", sagemaker::execution_parameters, get("How batch transform may send requests.", &[], &[(200, Answer::Json("ExecutionParameters"))], &[]);
    PREDICT = "predictions", inference::predict, prediction("A prediction.", &[]);
    PREDICT_KSERVE = "kservePredictions", inference::predict_kserve, prediction("A prediction, by KServe's path.", &[]);
    INVOKE = "invoke", inference::invoke, prediction("A prediction. Parameters of the query are fields of the request.", &[]);
    INVOCATIONS = "invocations", inference::invocations, prediction("A prediction. Parameters of the query are fields of the request.", NAMED);
    EXPLAIN = "explanations", inference::explain, Operation { fails: &[400, 404, 501], answers: &[], ..prediction("An explanation. No handler gives one yet.", &[]) };
    PREDICT_WORKFLOW = "workflowPredictions", management::workflow, Operation { fails: &[404], answers: &[], ..prediction("A prediction of a workflow. There are none.", &[]) };
    LIST_WORKFLOWS = "listWorkflows", management::list_workflows, get("All workflows. There are none.", LIST, &[(200, Answer::Json("Workflows"))], &[]);
    REGISTER_WORKFLOW = "registerWorkflow", management::register_workflow, Operation { takes: Takes::Anything, ..get("Registers a workflow, which is disabled.", &[], &[], &[400]) };
    WORKFLOW = "workflow", management::workflow, get("A workflow. There are none.", &[], &[], &[404]);
    LIST_MODELS = "listModels", management::list_models, get("All models, page by page.", LIST, &[(200, Answer::Json("Models"))], &[]);
    REGISTER_MODEL = "registerModel", management::register_model, Operation { takes: Takes::Registration, ..get("Registers a model.", REGISTER, STARTED, &[400, 404, 405, 408, 409, 415, 500, 507]) };
    DESCRIBE_MODEL = "describeModel", management::describe_model, get("One version, or all with `all` as the version.", DESCRIBE, &[(200, Answer::Json("Descriptions"))], &[404, 500, 503]);
    DESCRIBE_DEFAULT = "describeModel", |api, path: PathParams, query, context| management::describe_model(api, path.of_default_version(), query, context), DESCRIBE_MODEL.operation;
    SCALE_MODEL = "setAutoScale", management::scale_model, get("Changes the number of workers.", SCALE, STARTED, &[400, 404, 500, 507]);
    UNREGISTER_MODEL = "unregisterModel", management::unregister_model, get("Unregisters a version.", UNREGISTER, DONE, &[403, 404, 405, 408, 500]);
    UNREGISTER_DEFAULT = "unregisterModel", |api, path: PathParams| management::unregister_model(api, path.of_default_version()), UNREGISTER_MODEL.operation;
    SET_DEFAULT = "setDefault", management::set_default, get("Makes a version the default.", &[], DONE, &[404]);
    MODEL_READINESS = "modelReady", management::model_readiness, get("Whether the default version serves, as KServe asks.", &[], &[(200, Answer::Json("Readiness"))], &[404, 500, 503]);
    LIST_TENANTS = "listTenants", tenants::list, get("The tenants, what they may have and what they have; a tenant is shown itself.", &[], DONE_WITH_OBJECT, &[]);
    TENANT_USAGE = "tenantUsage", tenants::usage, get("What a tenant has used since it came, or since the server was started.", &[], DONE_WITH_OBJECT, &[404]);
    MODEL_LOGS = "modelLogs", logs::show, get("The last lines that a version logged, and those that come.", LOGS, &[(200, Answer::Text)], &[400, 404, 429]);
    LIST_ARCHIVES = "listArchives", archives::list, get("The archives of a tenant's own.", &[], DONE_WITH_OBJECT, &[404]);
    SEND_ARCHIVE = "sendArchive", archives::send, Operation { takes: Takes::Anything, ..get("Takes an archive, or the rest of one that broke off.", SEND, &[(201, OBJECT)], &[400, 403, 404, 405, 408, 409, 413, 500]) };
    DESCRIBE_ARCHIVE = "describeArchive", archives::describe, get("An archive, or how much has arrived of one that broke off.", ARRIVED, DONE_WITH_OBJECT, &[404]);
    REMOVE_ARCHIVE = "removeArchive", archives::remove, get("Removes an archive that no version comes from.", &[], DONE, &[404, 405, 409, 500]);
    KSERVE_LIVE = "kserveLive", kserve::live, get("Whether the server lives, as KServe asks.", &[], DONE, &[]);
    KSERVE_MODELS = "kserveModels", kserve::models, get("Names of all models.", &[], &[(200, Answer::Json("Names"))], &[]);
    KSERVE_MODEL = "kserveModelReady", kserve::model, get("Whether the default version serves, as KServe asks.", &[], &[(200, Answer::Json("Readiness")), (503, Answer::Json("Readiness"))], &[404]);
    ROTATE_TOKEN = "token", rotate::rotate_token, get("Writes another key to the file of keys, in place of the one of this type.", ROTATE, &[(200, Answer::Anything)], &[400, 404, 500]);
    SCRAPE = "metrics", scrape::scrape, get("Metrics in Prometheus' text format.", SCRAPE_QUERY, &[(200, Answer::Text)], &[]);
    OIP_SERVER_METADATA = "oipServerMetadata", oip::server_metadata, get("What the server is.", &[], OIP_GIVEN, &[]);
    OIP_LIVE = "oipServerLive", oip::live, get("Whether the server lives.", &[], OIP_READINESS, &[]);
    OIP_READY = "oipServerReady", oip::ready, get("Whether requests should be sent to the server.", &[], OIP_READINESS, &[]);
    OIP_MODEL_METADATA = "oipModelMetadata", oip::model_metadata, get("What a model takes and gives.", &[], OIP_GIVEN, &[]);
    OIP_MODEL_READY = "oipModelReady", oip::model_ready, get("Whether a version serves.", &[], OIP_MODEL_READINESS, &[]);
    OIP_MODEL_CONFIG = "oipModelConfig", oip::model_config, get("A model's configuration.", &[], OIP_GIVEN, &[]);
    OIP_MODEL_STATISTICS = "oipModelStatistics", oip::model_statistics, get("What a model has done.", &[], OIP_GIVEN, &[]);
    OIP_STATISTICS = "oipStatistics", oip::statistics, get("What all models have done.", &[], OIP_GIVEN, &[]);
    OIP_INFER = "oipModelInfer", oip::infer, posted("An inference: tensors in JSON, or in binary after it.", OIP_INFERRED);
    OIP_INDEX = "oipRepositoryIndex", oip::repository_index, posted("The list of models.", OIP_LISTED);
    OIP_LOAD = "oipRepositoryModelLoad", oip::load, posted("Has a model serve.", OIP_CHANGED);
    OIP_UNLOAD = "oipRepositoryModelUnload", oip::unload, posted("Has a model serve no more.", OIP_CHANGED);
    // What is answered where no row fits. Neither is in the documents.
    METHOD_NOT_ALLOWED = "methodNotAllowed", (async || method_not_allowed()), get("", &[], &[], &[]);
    NOT_FOUND = "notFound", (async || not_found()), get("", &[], &[], &[]);
}
