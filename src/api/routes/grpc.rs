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

/// TorchServe's inference service.
pub const INFERENCE: &str = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
/// TorchServe's management service.
pub const MANAGEMENT: &str = "org.pytorch.serve.grpc.management.ManagementAPIsService";
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

/// Health, in TorchServe's words. Load balancers have no tokens.
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
#[derive(Debug, Clone, Copy)]
pub struct GrpcRouter(&'static [GrpcRoute]);

impl GrpcRouter {
    /// The table of `listener`; empty if it speaks no gRPC.
    pub const fn new(listener: Listener) -> Self {
        Self(match listener {
            Listener::GrpcInference => INFERENCE_ROUTES,
            Listener::GrpcManagement => MANAGEMENT_ROUTES,
            Listener::Inference | Listener::Management | Listener::Metrics => &[],
        })
    }

    /// Its rows.
    pub const fn routes(&self) -> &'static [GrpcRoute] {
        self.0
    }

    /// The row of `/service/method`.
    pub fn find(&self, path: &str) -> Option<&'static GrpcRoute> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let mut routes = self.0.iter();
        routes.find(|route| route.method == method && route.service == service)
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
    use super::*;

    #[test]
    fn paths_are_matched_whole() {
        let router = GrpcRouter::new(Listener::GrpcInference);
        let found = router.find(&format!("/{INFERENCE}/Ping"));
        assert_eq!(found.map(|route| route.method), Some("Ping"));
        for path in [
            "",
            "/",
            "//",
            &format!("/{INFERENCE}"),
            &format!("/{INFERENCE}/"),
            &format!("/{INFERENCE}/Ping/"),
            &format!("/{INFERENCE}/ping"),
            &format!("{INFERENCE}/Ping"),
            &format!("/{MANAGEMENT}/ListModels"),
        ] {
            assert_eq!(router.find(path), None, "{path}");
        }
    }

    #[test]
    fn the_table_is_what_was_agreed() {
        let rows = [Listener::GrpcInference, Listener::GrpcManagement].map(|listener| {
            let rows = GrpcRouter::new(listener).routes().iter().map(|route| {
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
