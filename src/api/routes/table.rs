//! The rows. Every route of the server is here, and nowhere else.

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

pub(super) const INFERENCE: &[Route] = &[
    route(
        Verbs::Options,
        "/",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
    route(
        Verbs::Options,
        "/predictions/{model}",
        Permission::Predict,
        Endpoint::PredictDescription,
    ),
    route(
        Verbs::Options,
        "/predictions/{model}/{version}/*",
        Permission::Predict,
        Endpoint::PredictDescription,
    ),
    route(
        Verbs::Any,
        "/predictions/{model}",
        Permission::Predict,
        Endpoint::Predict,
    ),
    route(
        Verbs::Any,
        "/predictions/{model}/{version}/*",
        Permission::Predict,
        Endpoint::Predict,
    ),
    route(Verbs::Any, "/ping/*", Permission::Nothing, Endpoint::Ping),
    route(
        Verbs::Any,
        "/api-description",
        Permission::Nothing,
        Endpoint::ApiDescription,
    ),
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
        Permission::Manage,
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
        Permission::Manage,
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
        Permission::Manage,
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
