//! The gRPC methods of each listener, as one table: service, method, permission, what serves it. Every method of the
//! server is here, and nowhere else.

use super::{Listener, Permission};

/// What serves a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcService {
    /// TorchServe's predictions.
    Inference,
    /// TorchServe's management of models.
    Management,
    /// Open Inference Protocol, under either of its names.
    OpenInference,
    /// Health, as load balancers ask for it.
    Health,
    /// Descriptors of services, for clients without their `.proto` files.
    Reflection,
    /// The same, as older clients ask for them.
    ReflectionAlpha,
}

/// How many messages a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// One.
    One,
    /// As many as it likes, for as long as it likes.
    Stream,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcRoute {
    /// Full name of the service.
    pub service: &'static str,
    /// Method.
    pub method: &'static str,
    /// What a client sends.
    pub messages: Messages,
    /// What a client must be allowed to do.
    pub permission: Permission,
    /// What serves it.
    pub serves: GrpcService,
}

impl GrpcRoute {
    /// The path of calls.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

/// TorchServe's inference service.
pub const INFERENCE: &str = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
/// TorchServe's management service.
pub const MANAGEMENT: &str = "org.pytorch.serve.grpc.management.ManagementAPIsService";
/// Open Inference Protocol, as everybody but TorchServe names it.
pub const OPEN_INFERENCE: &str = "inference.GRPCInferenceService";
/// Open Inference Protocol, as TorchServe names it.
pub const OPEN_INFERENCE_ALIAS: &str = "org.pytorch.serve.grpc.openinference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

const INFERENCE_ROUTES: &[GrpcRoute] = &[
    ping(),
    predict("Predictions", Messages::One),
    predict("StreamPredictions", Messages::One),
    predict("StreamPredictions2", Messages::Stream),
    health("Check"),
    health("Watch"),
    reflection(REFLECTION, GrpcService::Reflection),
    reflection(REFLECTION_ALPHA, GrpcService::ReflectionAlpha),
];

const MANAGEMENT_ROUTES: &[GrpcRoute] = &[
    manage("DescribeModel"),
    manage("ListModels"),
    register("RegisterModel"),
    manage("ScaleWorker"),
    manage("SetDefault"),
    register("UnregisterModel"),
    health("Check"),
    health("Watch"),
    reflection(REFLECTION, GrpcService::Reflection),
    reflection(REFLECTION_ALPHA, GrpcService::ReflectionAlpha),
];

const OPEN_INFERENCE_ROUTES: &[GrpcRoute] = &open_inference(OPEN_INFERENCE);
const OPEN_INFERENCE_ALIAS_ROUTES: &[GrpcRoute] = &open_inference(OPEN_INFERENCE_ALIAS);

/// Its clients know one address, so that what manages models is here as well.
const fn open_inference(service: &'static str) -> [GrpcRoute; 12] {
    const fn row(
        service: &'static str,
        method: &'static str,
        messages: Messages,
        permission: Permission,
    ) -> GrpcRoute {
        GrpcRoute {
            service,
            method,
            messages,
            permission,
            serves: GrpcService::OpenInference,
        }
    }
    let (predict, manage) = (Permission::Predict, Permission::Manage);
    // As in REST: probes have no tokens, and loading is registering.
    let (nothing, register) = (Permission::Nothing, Permission::Register);
    [
        row(service, "ModelInfer", Messages::One, predict),
        row(service, "ModelStreamInfer", Messages::Stream, predict),
        row(service, "ServerLive", Messages::One, nothing),
        row(service, "ServerReady", Messages::One, nothing),
        row(service, "ModelReady", Messages::One, predict),
        row(service, "ServerMetadata", Messages::One, predict),
        row(service, "ModelMetadata", Messages::One, predict),
        row(service, "ModelConfig", Messages::One, predict),
        row(service, "ModelStatistics", Messages::One, predict),
        row(service, "RepositoryIndex", Messages::One, manage),
        row(service, "RepositoryModelLoad", Messages::One, register),
        row(service, "RepositoryModelUnload", Messages::One, register),
    ]
}

const fn predict(method: &'static str, messages: Messages) -> GrpcRoute {
    GrpcRoute {
        service: INFERENCE,
        method,
        messages,
        permission: Permission::Predict,
        serves: GrpcService::Inference,
    }
}

const fn manage(method: &'static str) -> GrpcRoute {
    GrpcRoute {
        service: MANAGEMENT,
        method,
        messages: Messages::One,
        permission: Permission::Manage,
        serves: GrpcService::Management,
    }
}

const fn register(method: &'static str) -> GrpcRoute {
    GrpcRoute {
        permission: Permission::Register,
        ..manage(method)
    }
}

/// Health as TorchServe answers it. Load balancers have no tokens.
const fn ping() -> GrpcRoute {
    GrpcRoute {
        permission: Permission::Nothing,
        ..predict("Ping", Messages::One)
    }
}

/// Load balancers have no tokens.
const fn health(method: &'static str) -> GrpcRoute {
    GrpcRoute {
        service: HEALTH,
        method,
        messages: Messages::One,
        permission: Permission::Nothing,
        serves: GrpcService::Health,
    }
}

/// What it shows is public: the `.proto` files.
const fn reflection(service: &'static str, serves: GrpcService) -> GrpcRoute {
    GrpcRoute {
        service,
        method: "ServerReflectionInfo",
        messages: Messages::Stream,
        permission: Permission::Nothing,
        serves,
    }
}

/// The table of one listener.
#[derive(Debug, Clone)]
pub struct GrpcTable(Vec<GrpcRoute>);

impl GrpcTable {
    /// The table of `listener`, with Open Inference Protocol or without; empty if the listener speaks no gRPC.
    pub fn new(listener: Listener, oip: bool) -> Self {
        Self(match listener {
            Listener::GrpcInference if oip => [
                OPEN_INFERENCE_ROUTES,
                INFERENCE_ROUTES,
                OPEN_INFERENCE_ALIAS_ROUTES,
            ]
            .concat(),
            Listener::GrpcInference => INFERENCE_ROUTES.to_vec(),
            Listener::GrpcManagement => MANAGEMENT_ROUTES.to_vec(),
            Listener::Inference | Listener::Management | Listener::Metrics => Vec::new(),
        })
    }

    /// Its rows.
    pub fn routes(&self) -> &[GrpcRoute] {
        &self.0
    }

    /// The names of its services, each once.
    pub fn services(&self) -> Vec<&'static str> {
        let mut services: Vec<_> = self.0.iter().map(|route| route.service).collect();
        services.dedup();
        services
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::any;
    use hyper::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn paths_are_matched_whole() {
        let table = GrpcTable::new(Listener::GrpcInference, true);
        let rows = table.routes().iter();
        let router = rows.fold(Router::new(), |router, route| {
            router.route(&route.path(), any(async || ()))
        });
        let status = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap().status()
        };
        assert_eq!(status(&format!("/{INFERENCE}/Ping")).await, StatusCode::OK);
        for path in [
            "/",
            "//",
            &format!("/{INFERENCE}"),
            &format!("/{INFERENCE}/"),
            &format!("/{INFERENCE}/Ping/"),
            &format!("/{INFERENCE}/ping"),
            &format!("/{MANAGEMENT}/ListModels"),
        ] {
            assert_eq!(status(path).await, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn the_table_is_what_was_agreed() {
        let rows = [Listener::GrpcInference, Listener::GrpcManagement].map(|listener| {
            let table = GrpcTable::new(listener, true);
            let rows = table.routes().iter().map(|route| {
                let GrpcRoute {
                    service,
                    method,
                    messages,
                    permission,
                    serves,
                } = route;
                format!("/{service}/{method} {messages:?} {permission:?} {serves:?}")
            });
            format!(
                "{}\n{}",
                listener.name(),
                rows.collect::<Vec<_>>().join("\n")
            )
        });
        insta::assert_snapshot!(rows.join("\n\n"));
    }
}
