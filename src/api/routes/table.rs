//! The rows. Every route of the server is here, and nowhere else.

#[allow(clippy::wildcard_imports, reason = "the table uses every endpoint")]
use super::endpoints::*;
use super::{Endpoint, Permission, Route, Verbs};

const fn route(
    verbs: Verbs,
    path: &'static str,
    permission: Permission,
    endpoint: &'static Endpoint,
) -> Route {
    Route {
        verbs,
        path,
        permission,
        endpoint,
    }
}

#[rustfmt::skip]
pub(super) const INFERENCE: &[Route] = &[
    route(Verbs::ButOptions, "/predictions/{model}", Permission::Predict, PREDICT),
    route(Verbs::ButOptions, "/predictions/{model}/{version}/*", Permission::Predict, PREDICT),
    route(Verbs::Options, "/predictions/{model}", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Options, "/predictions/{model}/{version}/*", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Any, "/ping/*", Permission::Nothing, PING),
    route(Verbs::Get, "/health/live", Permission::Nothing, LIVE),
    route(Verbs::Get, "/health/ready", Permission::Nothing, READY),
    route(Verbs::ButOptions, "/invocations", Permission::Predict, INVOCATIONS),
    route(Verbs::Options, "/invocations", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::ButOptions, "/models/{model}/invoke", Permission::Predict, INVOKE),
    route(Verbs::Options, "/models/{model}/invoke", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::ButOptions, "/v1/models/{model}:predict", Permission::Predict, PREDICT_KSERVE),
    route(Verbs::Options, "/v1/models/{model}:predict", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::ButOptions, "/v1/models/{model}:explain", Permission::Predict, EXPLAIN),
    route(Verbs::Options, "/v1/models/{model}:explain", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Get, "/v1/models", Permission::Either, KSERVE_MODELS),
    route(Verbs::Get, "/v1/models/{model}", Permission::Either, KSERVE_MODEL),
    route(Verbs::ButOptions, "/explanations/{model}", Permission::Predict, EXPLAIN),
    route(Verbs::ButOptions, "/explanations/{model}/{version}/*", Permission::Predict, EXPLAIN),
    route(Verbs::Options, "/explanations/{model}", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Options, "/explanations/{model}/{version}/*", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Any, "/wfpredict/{workflow}/*", Permission::Predict, PREDICT_WORKFLOW),
    route(Verbs::Any, "/api-description", Permission::Nothing, API_DESCRIPTION),
    route(Verbs::Options, "/", Permission::Nothing, API_DESCRIPTION),
];

/// Open Inference Protocol. Its clients know one address, so that what manages models is here as well.
#[rustfmt::skip]
pub(super) const OPEN_INFERENCE: &[Route] = &[
    route(Verbs::Post, "/v2/models/{model}/infer", Permission::Predict, OIP_INFER),
    route(Verbs::Post, "/v2/models/{model}/versions/{version}/infer", Permission::Predict, OIP_INFER),
    route(Verbs::Get, "/v2", Permission::Predict, OIP_SERVER_METADATA),
    route(Verbs::Get, "/v2/health/live", Permission::Nothing, OIP_LIVE),
    route(Verbs::Get, "/v2/health/ready", Permission::Nothing, OIP_READY),
    route(Verbs::Get, "/v2/models/stats", Permission::Predict, OIP_STATISTICS),
    route(Verbs::Get, "/v2/models/{model}", Permission::Predict, OIP_MODEL_METADATA),
    route(Verbs::Get, "/v2/models/{model}/versions/{version}", Permission::Predict, OIP_MODEL_METADATA),
    route(Verbs::Get, "/v2/models/{model}/ready", Permission::Predict, OIP_MODEL_READY),
    route(Verbs::Get, "/v2/models/{model}/versions/{version}/ready", Permission::Predict, OIP_MODEL_READY),
    route(Verbs::Get, "/v2/models/{model}/config", Permission::Predict, OIP_MODEL_CONFIG),
    route(Verbs::Get, "/v2/models/{model}/versions/{version}/config", Permission::Predict, OIP_MODEL_CONFIG),
    route(Verbs::Get, "/v2/models/{model}/stats", Permission::Predict, OIP_MODEL_STATISTICS),
    route(Verbs::Get, "/v2/models/{model}/versions/{version}/stats", Permission::Predict, OIP_MODEL_STATISTICS),
    route(Verbs::Options, "/v2/models/{model}/infer", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::ButOptions, "/v2/models/{model}/explain", Permission::Predict, EXPLAIN),
    route(Verbs::Post, "/v2/repository/index", Permission::Manage, OIP_INDEX),
    route(Verbs::Post, "/v2/repository/models/{model}/load", Permission::Register, OIP_LOAD),
    route(Verbs::Post, "/v2/repository/models/{model}/unload", Permission::Register, OIP_UNLOAD),
];

/// `KServe`'s paths, where no Open Inference Protocol is spoken: the handler gets the body as its envelope says.
#[rustfmt::skip]
pub(super) const KSERVE_V2: &[Route] = &[
    route(Verbs::ButOptions, "/v2/models/{model}/infer", Permission::Predict, PREDICT_KSERVE),
    route(Verbs::Options, "/v2/models/{model}/infer", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::ButOptions, "/v2/models/{model}/explain", Permission::Predict, EXPLAIN),
    route(Verbs::Options, "/v2/models/{model}/explain", Permission::Predict, PREDICT_DESCRIPTION),
];

/// What the liveness probe of KServe's container asks.
#[rustfmt::skip]
pub(super) const KSERVE: &[Route] = &[
    route(Verbs::Get, "/", Permission::Nothing, KSERVE_LIVE),
];

/// The paths of TorchServe's predecessor. Any model may be their first segment, so they come after everything else.
#[rustfmt::skip]
pub(super) const LEGACY: &[Route] = &[
    route(Verbs::ButOptions, "/{model}/predict", Permission::Predict, INVOKE),
    route(Verbs::ButOptions, "/{model}/{version}/predict", Permission::Predict, INVOKE),
    route(Verbs::Options, "/{model}/predict", Permission::Predict, PREDICT_DESCRIPTION),
    route(Verbs::Options, "/{model}/{version}/predict", Permission::Predict, PREDICT_DESCRIPTION),
];

/// What `SageMaker` asks of a container, in place of TorchServe's `/ping`.
#[rustfmt::skip]
pub(super) const SAGEMAKER: &[Route] = &[
    route(Verbs::Get, "/ping/*", Permission::Nothing, SAGEMAKER_PING),
    route(Verbs::Get, "/execution-parameters", Permission::Nothing, EXECUTION_PARAMETERS),
];

#[rustfmt::skip]
pub(super) const MANAGEMENT: &[Route] = &[
    route(Verbs::Options, "/", Permission::Nothing, API_DESCRIPTION),
    route(Verbs::Any, "/api-description", Permission::Nothing, API_DESCRIPTION),
    route(Verbs::Get, "/models", Permission::Manage, LIST_MODELS),
    route(Verbs::Post, "/models", Permission::Register, REGISTER_MODEL),
    route(Verbs::Get, "/models/{model}", Permission::Manage, DESCRIBE_MODEL),
    route(Verbs::Put, "/models/{model}", Permission::Manage, SCALE_MODEL),
    route(Verbs::Delete, "/models/{model}", Permission::Register, UNREGISTER_MODEL),
    route(Verbs::Options, "/models/{model}", Permission::Manage, MODEL_DESCRIPTION),
    route(Verbs::Get, "/models/{model}/{version}", Permission::Manage, DESCRIBE_MODEL),
    route(Verbs::Put, "/models/{model}/{version}", Permission::Manage, SCALE_MODEL),
    route(Verbs::Delete, "/models/{model}/{version}", Permission::Register, UNREGISTER_MODEL),
    route(Verbs::Options, "/models/{model}/{version}", Permission::Manage, MODEL_DESCRIPTION),
    route(Verbs::Put, "/models/{model}/{version}/set-default", Permission::Manage, SET_DEFAULT),
    // As in TorchServe, other methods mean the default version there, whichever version the path names.
    route(Verbs::Get, "/models/{model}/{any}/set-default", Permission::Manage, DESCRIBE_DEFAULT),
    route(Verbs::Delete, "/models/{model}/{any}/set-default", Permission::Register, UNREGISTER_DEFAULT),
    route(Verbs::Options, "/models/{model}/{any}/set-default", Permission::Manage, DEFAULT_DESCRIPTION),
    route(Verbs::Get, "/v1/models/{model}", Permission::Manage, MODEL_READINESS),
    route(Verbs::Get, "/workflows", Permission::Manage, LIST_WORKFLOWS),
    route(Verbs::Post, "/workflows", Permission::Manage, REGISTER_WORKFLOW),
    route(Verbs::Get, "/workflows/{workflow}", Permission::Manage, WORKFLOW),
    route(Verbs::Delete, "/workflows/{workflow}", Permission::Manage, WORKFLOW),
    route(Verbs::Any, "/token", Permission::Rotate, ROTATE_TOKEN),
    route(Verbs::Get, "/lantern/v1/models/{model}/logs", Permission::Logs, MODEL_LOGS),
    route(Verbs::Get, "/lantern/v1/models/{model}/{version}/logs", Permission::Logs, MODEL_LOGS),
];

/// What tenants have.
#[rustfmt::skip]
pub(super) const TENANTS: &[Route] = &[
    route(Verbs::Get, "/lantern/v1/tenants", Permission::Observe, LIST_TENANTS),
    route(Verbs::Get, "/lantern/v1/tenants/{tenant}/usage", Permission::Observe, TENANT_USAGE),
    route(Verbs::Get, "/lantern/v1/archives", Permission::Manage, LIST_ARCHIVES),
    route(Verbs::Put, "/lantern/v1/archives/{model}", Permission::Register, SEND_ARCHIVE),
    route(Verbs::Get, "/lantern/v1/archives/{model}", Permission::Manage, DESCRIBE_ARCHIVE),
    route(Verbs::Delete, "/lantern/v1/archives/{model}", Permission::Register, REMOVE_ARCHIVE),
];

#[rustfmt::skip]
pub(super) const METRICS: &[Route] = &[
    route(Verbs::Options, "/", Permission::Nothing, API_DESCRIPTION),
    route(Verbs::Any, "/metrics/*", Permission::Observe, SCRAPE),
    route(Verbs::Any, "/api-description", Permission::Nothing, API_DESCRIPTION),
];
