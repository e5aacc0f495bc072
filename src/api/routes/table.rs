//! The rows. Every route of the server is here, and nowhere else.

use super::oip::Endpoint as Oip;
use super::{Endpoint, Permission, Route, Verbs};

const fn route(
    verbs: Verbs,
    path: &'static str,
    permission: Permission,
    endpoint: Endpoint,
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
    route(Verbs::ButOptions, "/predictions/{model}", Permission::Predict, Endpoint::Predict),
    route(Verbs::ButOptions, "/predictions/{model}/{version}/*", Permission::Predict, Endpoint::Predict),
    route(Verbs::Options, "/predictions/{model}", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::Options, "/predictions/{model}/{version}/*", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::Any, "/ping/*", Permission::Nothing, Endpoint::Ping),
    route(Verbs::Get, "/health/live", Permission::Nothing, Endpoint::Live),
    route(Verbs::Get, "/health/ready", Permission::Nothing, Endpoint::Ready),
    route(Verbs::ButOptions, "/invocations", Permission::Predict, Endpoint::Invocations),
    route(Verbs::Options, "/invocations", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/models/{model}/invoke", Permission::Predict, Endpoint::Invoke),
    route(Verbs::Options, "/models/{model}/invoke", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/v1/models/{model}:predict", Permission::Predict, Endpoint::PredictKServe),
    route(Verbs::Options, "/v1/models/{model}:predict", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/v1/models/{model}:explain", Permission::Predict, Endpoint::Explain),
    route(Verbs::Options, "/v1/models/{model}:explain", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/explanations/{model}", Permission::Predict, Endpoint::Explain),
    route(Verbs::ButOptions, "/explanations/{model}/{version}/*", Permission::Predict, Endpoint::Explain),
    route(Verbs::Options, "/explanations/{model}", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::Options, "/explanations/{model}/{version}/*", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::Any, "/wfpredict/{workflow}/*", Permission::Predict, Endpoint::PredictWorkflow),
    route(Verbs::Any, "/api-description", Permission::Nothing, Endpoint::ApiDescription),
    route(Verbs::Options, "/", Permission::Nothing, Endpoint::ApiDescription),
];

/// Open Inference Protocol. Its clients know one address, so that what manages models is here as well.
#[rustfmt::skip]
pub(super) const OPEN_INFERENCE: &[Route] = &[
    oip(Verbs::Post, "/v2/models/{model}/infer", Permission::Predict, Oip::Infer),
    oip(Verbs::Post, "/v2/models/{model}/versions/{version}/infer", Permission::Predict, Oip::Infer),
    oip(Verbs::Get, "/v2", Permission::Predict, Oip::ServerMetadata),
    oip(Verbs::Get, "/v2/health/live", Permission::Nothing, Oip::Live),
    oip(Verbs::Get, "/v2/health/ready", Permission::Nothing, Oip::Ready),
    oip(Verbs::Get, "/v2/models/stats", Permission::Predict, Oip::Statistics),
    oip(Verbs::Get, "/v2/models/{model}", Permission::Predict, Oip::ModelMetadata),
    oip(Verbs::Get, "/v2/models/{model}/versions/{version}", Permission::Predict, Oip::ModelMetadata),
    oip(Verbs::Get, "/v2/models/{model}/ready", Permission::Predict, Oip::ModelReady),
    oip(Verbs::Get, "/v2/models/{model}/versions/{version}/ready", Permission::Predict, Oip::ModelReady),
    oip(Verbs::Get, "/v2/models/{model}/config", Permission::Predict, Oip::ModelConfig),
    oip(Verbs::Get, "/v2/models/{model}/versions/{version}/config", Permission::Predict, Oip::ModelConfig),
    oip(Verbs::Get, "/v2/models/{model}/stats", Permission::Predict, Oip::ModelStatistics),
    oip(Verbs::Get, "/v2/models/{model}/versions/{version}/stats", Permission::Predict, Oip::ModelStatistics),
    route(Verbs::Options, "/v2/models/{model}/infer", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/v2/models/{model}/explain", Permission::Predict, Endpoint::Explain),
    oip(Verbs::Post, "/v2/repository/index", Permission::Manage, Oip::Index),
    oip(Verbs::Post, "/v2/repository/models/{model}/load", Permission::Register, Oip::Load),
    oip(Verbs::Post, "/v2/repository/models/{model}/unload", Permission::Register, Oip::Unload),
];

const fn oip(verbs: Verbs, path: &'static str, permission: Permission, endpoint: Oip) -> Route {
    route(verbs, path, permission, Endpoint::OpenInference(endpoint))
}

/// `KServe`'s paths, where no Open Inference Protocol is spoken: the handler gets the body as it is.
#[rustfmt::skip]
pub(super) const KSERVE_V2: &[Route] = &[
    route(Verbs::ButOptions, "/v2/models/{model}/infer", Permission::Predict, Endpoint::PredictKServe),
    route(Verbs::Options, "/v2/models/{model}/infer", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::ButOptions, "/v2/models/{model}/explain", Permission::Predict, Endpoint::Explain),
    route(Verbs::Options, "/v2/models/{model}/explain", Permission::Predict, Endpoint::PredictDescription),
];

/// The paths of TorchServe's predecessor. Any model may be their first segment, so they come after everything else.
#[rustfmt::skip]
pub(super) const LEGACY: &[Route] = &[
    route(Verbs::ButOptions, "/{model}/predict", Permission::Predict, Endpoint::Invoke),
    route(Verbs::ButOptions, "/{model}/{version}/predict", Permission::Predict, Endpoint::Invoke),
    route(Verbs::Options, "/{model}/predict", Permission::Predict, Endpoint::PredictDescription),
    route(Verbs::Options, "/{model}/{version}/predict", Permission::Predict, Endpoint::PredictDescription),
];

/// What `SageMaker` asks of a container, in place of TorchServe's `/ping`.
#[rustfmt::skip]
pub(super) const SAGEMAKER: &[Route] = &[
    route(Verbs::Get, "/ping/*", Permission::Nothing, Endpoint::SageMakerPing),
    route(Verbs::Get, "/execution-parameters", Permission::Nothing, Endpoint::ExecutionParameters),
];

pub(super) const MANAGEMENT: &[Route] = &[
    route(
        Verbs::Options,
        "/",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
    route(
        Verbs::Any,
        "/api-description",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
    route(
        Verbs::Get,
        "/models",
        Permission::Manage,
        Endpoint::ListModels,
    ),
    route(
        Verbs::Post,
        "/models",
        Permission::Register,
        Endpoint::RegisterModel,
    ),
    route(
        Verbs::Get,
        "/models/{model}",
        Permission::Manage,
        Endpoint::DescribeModel,
    ),
    route(
        Verbs::Put,
        "/models/{model}",
        Permission::Manage,
        Endpoint::ScaleModel,
    ),
    route(
        Verbs::Delete,
        "/models/{model}",
        Permission::Register,
        Endpoint::UnregisterModel,
    ),
    route(
        Verbs::Options,
        "/models/{model}",
        Permission::Manage,
        Endpoint::ModelDescription,
    ),
    route(
        Verbs::Get,
        "/models/{model}/{version}",
        Permission::Manage,
        Endpoint::DescribeModel,
    ),
    route(
        Verbs::Put,
        "/models/{model}/{version}",
        Permission::Manage,
        Endpoint::ScaleModel,
    ),
    route(
        Verbs::Delete,
        "/models/{model}/{version}",
        Permission::Register,
        Endpoint::UnregisterModel,
    ),
    route(
        Verbs::Options,
        "/models/{model}/{version}",
        Permission::Manage,
        Endpoint::ModelDescription,
    ),
    route(
        Verbs::Put,
        "/models/{model}/{version}/set-default",
        Permission::Manage,
        Endpoint::SetDefault,
    ),
    // As in TorchServe, other methods mean the default version there, whichever version the path names.
    route(
        Verbs::Get,
        "/models/{model}/{any}/set-default",
        Permission::Manage,
        Endpoint::DescribeModel,
    ),
    route(
        Verbs::Delete,
        "/models/{model}/{any}/set-default",
        Permission::Register,
        Endpoint::UnregisterModel,
    ),
    route(
        Verbs::Options,
        "/models/{model}/{any}/set-default",
        Permission::Manage,
        Endpoint::ModelDescription,
    ),
    route(
        Verbs::Get,
        "/v1/models/{model}",
        Permission::Manage,
        Endpoint::ModelReadiness,
    ),
    route(
        Verbs::Get,
        "/workflows",
        Permission::Manage,
        Endpoint::ListWorkflows,
    ),
    route(
        Verbs::Post,
        "/workflows",
        Permission::Manage,
        Endpoint::RegisterWorkflow,
    ),
    route(
        Verbs::Get,
        "/workflows/{workflow}",
        Permission::Manage,
        Endpoint::Workflow,
    ),
    route(
        Verbs::Delete,
        "/workflows/{workflow}",
        Permission::Manage,
        Endpoint::Workflow,
    ),
    route(
        Verbs::Any,
        "/token",
        Permission::Rotate,
        Endpoint::RotateToken,
    ),
];

pub(super) const METRICS: &[Route] = &[
    route(
        Verbs::Options,
        "/",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
    route(
        Verbs::Any,
        "/metrics/*",
        Permission::Nothing,
        Endpoint::Scrape,
    ),
    route(
        Verbs::Any,
        "/api-description",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
];
