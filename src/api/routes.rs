//! The routes of each listener, as one table: method, path, permission, endpoint. `routes/table.rs` has the rows, and
//! `routes/endpoints.rs` what they lead to.
//!
//! Each socket has one axum `Router`, made from the tables of the listeners that it serves. In a row's path `{model}`,
//! `{workflow}` and `{version}` take one segment, `{any}` one that does not matter, `{model}:predict` one with that
//! custom verb in it, and a final `*` takes the rest, which may be empty. The path that names more literally wins, and of
//! its rows the first that takes the method.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, any, any_service};

mod endpoints;
pub mod grpc;
mod table;

use super::uri::{self, NormalizePath};
pub use endpoints::Endpoint;
use endpoints::{METHOD_NOT_ALLOWED, NOT_FOUND};
use table::{
    INFERENCE, KSERVE, KSERVE_V2, LEGACY, MANAGEMENT, METRICS, OPEN_INFERENCE, SAGEMAKER, TENANTS,
};

/// A socket the server listens on, by what is served there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// Predictions.
    Inference,
    /// Models.
    Management,
    /// Metrics.
    Metrics,
    /// Predictions over gRPC.
    GrpcInference,
    /// Models over gRPC.
    GrpcManagement,
}

impl Listener {
    /// The name in logs and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Management => "management",
            Self::Metrics => "metrics",
            Self::GrpcInference => "gRPC inference",
            Self::GrpcManagement => "gRPC management",
        }
    }

    /// Whether it speaks gRPC.
    pub const fn is_grpc(self) -> bool {
        matches!(self, Self::GrpcInference | Self::GrpcManagement)
    }
}

/// What a client must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: everybody may.
    Nothing,
    /// Run models.
    Predict,
    /// See and change models.
    Manage,
    /// Add and remove models: as `Manage`, and only where the model API is on.
    Register,
    /// Make new keys.
    Rotate,
    /// Run models or manage them.
    Either,
    /// See metrics: everybody may, unless there are tenants.
    Observe,
    /// See what models log: as `Manage` for the operator, and as `Observe` for a tenant.
    Logs,
}

/// Which methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Every method but CONNECT.
    Any,
    /// Every method but CONNECT and OPTIONS, which asks for a document.
    ButOptions,
    /// GET, and HEAD, which is GET without the body.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// CONNECT, which asks a proxy for a tunnel. No row takes it.
    Connect,
}

impl Verbs {
    /// What a row for these methods does not take, where it would take it as axum has them.
    const fn closed(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Connect],
            Self::ButOptions => &[Self::Connect, Self::Options],
            _ => &[],
        }
    }

    /// As axum has it, which answers HEAD where it answers GET; `None` for every method that no other row takes.
    const fn filter(self) -> Option<MethodFilter> {
        match self {
            Self::Any | Self::ButOptions => None,
            Self::Get => Some(MethodFilter::GET),
            Self::Post => Some(MethodFilter::POST),
            Self::Put => Some(MethodFilter::PUT),
            Self::Delete => Some(MethodFilter::DELETE),
            Self::Options => Some(MethodFilter::OPTIONS),
            Self::Connect => Some(MethodFilter::CONNECT),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// Methods.
    pub verbs: Verbs,
    /// Path.
    pub path: &'static str,
    /// What a client must be allowed to do.
    pub permission: Permission,
    /// What answers.
    pub endpoint: &'static Endpoint,
}

impl Route {
    /// What is answered where no row fits: to learn that, too, a client needs `permission`.
    const fn refusal(permission: Permission, endpoint: &'static Endpoint) -> Self {
        Self {
            verbs: Verbs::Any,
            path: "/*",
            permission,
            endpoint,
        }
    }

    /// The same for other methods.
    const fn of(self, verbs: Verbs) -> Self {
        Self { verbs, ..self }
    }

    /// Whether any model may be the first segment, so that the row is asked after all others.
    fn is_legacy(&self) -> bool {
        self.path.starts_with("/{model}")
    }

    /// Adds `handler` to `methods` for the methods of this row.
    fn on<S, T, H>(&self, methods: MethodRouter<S>, handler: H) -> MethodRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        T: 'static,
        H: Handler<T, S>,
    {
        match self.verbs.filter() {
            Some(filter) => methods.on(filter, handler),
            None => methods.fallback(handler),
        }
    }

    /// The paths of this row as axum writes them: a final `*` may be empty there only in a path of its own.
    fn paths(&self) -> Vec<String> {
        let path = self
            .path
            .replace("{workflow}", "{model}")
            .replace("{any}", "{version}");
        match (path.strip_suffix("/*"), path.split_once("}:")) {
            (Some(short), _) => vec![short.to_owned(), format!("{short}/{{*rest}}")],
            (None, Some((model, verb))) => vec![format!("{model}}}{}", uri::verb_segment(verb))],
            (None, None) => vec![path],
        }
    }
}

/// What a socket serves beside the tables of its listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a part of the surface"
)]
pub struct Surface {
    /// Open Inference Protocol: its own `/v2`, in place of `KServe`'s two paths.
    pub oip: bool,
    /// What `SageMaker` asks of a container.
    pub sagemaker: bool,
    /// What KServe asks of a container, where TorchServe answers that the method is not allowed.
    pub kserve: bool,
    /// What tenants have.
    pub tenants: bool,
}

/// The table of one socket.
#[derive(Debug, Clone)]
pub struct RouteTable {
    listeners: Vec<Listener>,
    routes: Vec<Route>,
}

impl RouteTable {
    /// The table of a socket that serves `listeners`. Of rows for the same methods and path the first stays.
    pub fn new(listeners: &[Listener], surface: Surface) -> Self {
        let tables = listeners
            .iter()
            .flat_map(|listener| tables(*listener, surface));
        let mut tables: Vec<&[Route]> = tables.collect();
        if listeners.contains(&Listener::Inference) {
            tables.push(LEGACY);
        }
        let mut routes: Vec<Route> = Vec::new();
        for route in tables.concat() {
            let is_same = |row: &Route| row.verbs == route.verbs && row.path == route.path;
            if !routes.iter().any(is_same) {
                routes.push(route);
            }
        }
        Self {
            listeners: listeners.to_vec(),
            routes,
        }
    }

    /// Whose tables these are.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Its rows.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The router of the socket. `attach` adds what answers a row for the row's methods.
    pub(super) fn router<S>(
        &self,
        state: S,
        attach: impl Fn(MethodRouter<S>, &Route) -> MethodRouter<S>,
    ) -> NormalizePath
    where
        S: Clone + Send + Sync + 'static,
    {
        // Without a handler of its own axum would tell in `Allow` which methods there are.
        let unhandled = || any(async || ());
        let refusal = |route: &Route| attach(unhandled(), route);
        let (legacy, rows): (Vec<_>, Vec<_>) =
            self.routes.iter().partition(|route| route.is_legacy());
        let legacy = router(&legacy, |_| unhandled(), &attach);
        let not_found = refusal(&Route::refusal(self.unmatched(), NOT_FOUND));
        let otherwise = |refusal| legacy.clone().fallback(refusal).with_state(state.clone());
        let not_allowed = |route: &Route| {
            let refusal = refusal(&Route::refusal(route.permission, METHOD_NOT_ALLOWED));
            any_service(otherwise(refusal))
        };
        let router = router(&rows, not_allowed, &attach).fallback_service(otherwise(not_found));
        NormalizePath::new(router.with_state(state.clone()), self.custom_verbs())
    }

    /// The permission required to learn that a path does not exist: the one that most existing paths need.
    fn unmatched(&self) -> Permission {
        let serves = |listener| self.listeners.contains(&listener);
        match (serves(Listener::Inference), serves(Listener::Management)) {
            (true, true) => Permission::Either,
            (true, false) => Permission::Predict,
            (false, true) => Permission::Manage,
            (false, false) => Permission::Nothing,
        }
    }

    /// The custom verbs of its paths, in order.
    fn custom_verbs(&self) -> Arc<[&'static str]> {
        let verbs = self
            .routes
            .iter()
            .filter(|route| route.verbs != Verbs::Options);
        verbs
            .filter_map(|route| Some(route.path.split_once("}:")?.1))
            .collect()
    }
}

/// The router of `rows`. Of a path, `otherwise` is what answers the methods that no row takes; its first row says more.
fn router<S>(
    rows: &[&Route],
    otherwise: impl Fn(&Route) -> MethodRouter<S>,
    attach: impl Fn(MethodRouter<S>, &Route) -> MethodRouter<S>,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let has_options = |path| {
        rows.iter()
            .any(|row| row.path == path && row.verbs == Verbs::Options)
    };
    let mut paths: BTreeMap<String, MethodRouter<S>> = BTreeMap::new();
    for route in rows {
        let has_options = has_options(route.path);
        let closed = route.verbs.closed().iter();
        let closed = closed.filter(|verbs| !(has_options && **verbs == Verbs::Options));
        let refusal = |verbs| Route::refusal(route.permission, METHOD_NOT_ALLOWED).of(verbs);
        let refusals: Vec<_> = closed.map(|verbs| refusal(*verbs)).collect();
        for path in route.paths() {
            let methods = paths.remove(&path).unwrap_or_else(|| otherwise(route));
            let methods = attach(methods, route);
            paths.insert(path, refusals.iter().fold(methods, &attach));
        }
    }
    let paths = paths.into_iter();
    paths.fold(Router::new(), |router, (path, methods)| {
        router.route(&path, methods)
    })
}

/// The tables of `listener`, in order.
fn tables(listener: Listener, surface: Surface) -> Vec<&'static [Route]> {
    match listener {
        Listener::Inference => {
            let before: &[Route] = if surface.sagemaker { SAGEMAKER } else { &[] };
            let v2: &[Route] = if surface.oip {
                OPEN_INFERENCE
            } else {
                KSERVE_V2
            };
            let kserve: &[Route] = if surface.kserve { KSERVE } else { &[] };
            vec![before, INFERENCE, v2, kserve]
        }
        Listener::Management if surface.tenants => vec![MANAGEMENT, TENANTS],
        Listener::Management => vec![MANAGEMENT],
        Listener::Metrics => vec![METRICS],
        Listener::GrpcInference | Listener::GrpcManagement => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use hyper::{Method, Request, StatusCode};
    use tower::ServiceExt as _;

    use super::endpoints::*;
    use super::*;
    use crate::api::extract::PathParams;
    use crate::error::Error;

    fn table(listener: Listener) -> RouteTable {
        RouteTable::new(&[listener], Surface::default())
    }

    fn params(model: &str, version: Option<&str>, rest: &str) -> PathParams {
        PathParams {
            model: model.to_owned(),
            version: version.map(str::to_owned),
            rest: rest.to_owned(),
        }
    }

    /// What the router makes of a request: endpoint, permission and what the path named.
    async fn routed(table: &RouteTable, method: &Method, path: &str) -> String {
        let router = table.router((), |methods, route| {
            let (id, permission) = (route.endpoint.id, route.permission);
            // No success, as axum takes the body from one that answers CONNECT.
            let answer = async move |params: Result<PathParams, Error>| {
                let text = shown(id, permission, &params.unwrap_or_default());
                (StatusCode::IM_A_TEAPOT, text)
            };
            route.on(methods, answer)
        });
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(answer.to_vec()).unwrap()
    }

    fn shown(id: &str, permission: Permission, params: &PathParams) -> String {
        format!("{id} {permission:?} {params:?}")
    }

    /// The endpoint alone.
    async fn endpoint(table: &RouteTable, method: &Method, path: &str) -> String {
        let routed = routed(table, method, path).await;
        routed.split(' ').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn predictions_take_any_method_a_version_and_a_rest() {
        let table = table(Listener::Inference);
        for method in [
            Method::GET,
            Method::PUT,
            Method::PATCH,
            Method::POST,
            Method::DELETE,
            Method::from_bytes(b"PROPFIND").unwrap(),
        ] {
            let params = params("m", Some("1.0"), "v1/chat");
            assert_eq!(
                routed(&table, &method, "/predictions/m/1.0/v1/chat").await,
                shown(PREDICT.id, Permission::Predict, &params)
            );
        }
        assert_eq!(
            endpoint(&table, &Method::OPTIONS, "/predictions/m").await,
            PREDICT_DESCRIPTION.id
        );
    }

    #[tokio::test]
    async fn no_row_takes_connect() {
        let surface = Surface {
            oip: true,
            sagemaker: true,
            kserve: true,
            tenants: true,
        };
        let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
        for listeners in [&listeners[..], &listeners[..1]] {
            let table = RouteTable::new(listeners, surface);
            for route in table.routes() {
                let path = route.path.replace(['{', '}', '*'], "");
                let found = endpoint(&table, &Method::CONNECT, &path).await;
                assert_eq!(found, METHOD_NOT_ALLOWED.id, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn trailing_slashes_do_not_matter_and_leading_ones_do() {
        let table = table(Listener::Inference);
        for path in ["/ping", "/ping/", "/ping///", "/ping/x/y"] {
            assert_eq!(
                endpoint(&table, &Method::GET, path).await,
                PING.id,
                "{path}"
            );
        }
        for path in ["//ping", "/pingx", "/predictions", "/predictions/", "*"] {
            let found = endpoint(&table, &Method::GET, path).await;
            assert_eq!(found, NOT_FOUND.id, "{path}");
        }
        assert_ne!(endpoint(&table, &Method::GET, "ping").await, PING.id);
    }

    #[tokio::test]
    async fn empty_segments_and_decoded_slashes_count() {
        let table = table(Listener::Inference);
        for (path, params) in [
            ("/predictions//1.0", params("", Some("1.0"), "")),
            (
                "/predictions/m/1.0//x%20y/",
                params("m", Some("1.0"), "/x y"),
            ),
            ("/predictions%2Fm%2f1.0", params("m", Some("1.0"), "")),
            ("/predictions/a%3Fb%2525", params("a?b%25", None, "")),
        ] {
            let expected = shown(PREDICT.id, Permission::Predict, &params);
            assert_eq!(routed(&table, &Method::GET, path).await, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_known_path_with_another_method_is_told_apart() {
        let table = table(Listener::Management);
        for (method, path, expected) in [
            (Method::DELETE, "/models", "methodNotAllowed Manage"),
            (Method::POST, "/models/m", "methodNotAllowed Manage"),
            (Method::GET, "/", "methodNotAllowed Nothing"),
            (Method::GET, "/models/m/1/2/3", "notFound Manage"),
            (Method::GET, "/nowhere", "notFound Manage"),
        ] {
            let found = routed(&table, &method, path).await;
            assert!(found.starts_with(expected), "{method} {path}: {found}");
        }
    }

    #[tokio::test]
    async fn every_alias_of_a_prediction_is_found() {
        let table = table(Listener::Inference);
        for (path, endpoint, version) in [
            ("/models/m/invoke", INVOKE, None),
            ("/m/predict", INVOKE, None),
            ("/m/1.0/predict/", INVOKE, Some("1.0")),
            ("/v1/models/m:predict", PREDICT_KSERVE, None),
            ("/v1/models/m:x:predictor", PREDICT_KSERVE, None),
            ("/v1/models/m:explain", EXPLAIN, None),
            ("/v2/models/m/infer", PREDICT_KSERVE, None),
            ("/v2/models/m/explain", EXPLAIN, None),
            ("/explanations/m", EXPLAIN, None),
            ("/explanations/m/1.0", EXPLAIN, Some("1.0")),
        ] {
            let params = params("m", version, "");
            let expected = shown(endpoint.id, Permission::Predict, &params);
            assert_eq!(
                routed(&table, &Method::POST, path).await,
                expected,
                "{path}"
            );
        }
        for path in ["/v1/models/m", "/v1/models/mpredict"] {
            let found = endpoint(&table, &Method::POST, path).await;
            assert_eq!(found, METHOD_NOT_ALLOWED.id, "{path}");
        }
        for path in [
            "/v1/models/m/%3Apredict",
            "/v2/models/m",
            "/v2/models/m/versions/1/infer",
            "/invocations/x",
            "/models/m/1.0/invoke",
            "/explanations",
            "/wfpredict",
        ] {
            let found = endpoint(&table, &Method::POST, path).await;
            assert_eq!(found, NOT_FOUND.id, "{path}");
        }
    }

    #[tokio::test]
    async fn one_socket_serves_all_tables_and_the_exact_row_wins() {
        let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
        let all = RouteTable::new(&listeners, Surface::default());
        for (method, path, expected) in [
            (Method::GET, "/models/m/1.0", DESCRIBE_MODEL),
            (Method::GET, "/models/m/all", DESCRIBE_MODEL),
            (Method::GET, "/models/m/predict", DESCRIBE_MODEL),
            (Method::DELETE, "/models/m/1.0", UNREGISTER_MODEL),
            (Method::POST, "/models/m/invoke", INVOKE),
            (Method::PUT, "/models/m/1.0/set-default", SET_DEFAULT),
            (Method::POST, "/m/predict", INVOKE),
            (Method::POST, "/models/m/predict", INVOKE),
            (Method::POST, "/models/predict", INVOKE),
            (Method::POST, "/models/m", METHOD_NOT_ALLOWED),
            (Method::GET, "/metrics", SCRAPE),
            (Method::OPTIONS, "/models/m", MODEL_DESCRIPTION),
        ] {
            let found = endpoint(&all, &method, path).await;
            assert_eq!(found, expected.id, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn the_predecessors_paths_are_asked_last() {
        let listeners = [Listener::Inference, Listener::Management];
        let all = RouteTable::new(&listeners, Surface::default());
        for (path, params) in [
            ("/models/m/predict", params("models", Some("m"), "")),
            ("/models/predict", params("models", None, "")),
            ("/v1/models/predict", params("v1", Some("models"), "")),
        ] {
            let expected = shown(INVOKE.id, Permission::Predict, &params);
            assert_eq!(routed(&all, &Method::POST, path).await, expected, "{path}");
        }
        let other = routed(&all, &Method::POST, "/models/m").await;
        assert!(other.starts_with("methodNotAllowed Manage"), "{other}");
        let nothing = routed(&all, &Method::POST, "/nowhere").await;
        assert!(nothing.starts_with("notFound Either"), "{nothing}");
    }

    #[tokio::test]
    async fn custom_verbs_are_part_of_a_name_where_no_route_has_them() {
        let table = table(Listener::Management);
        let params = params("m:predict", None, "");
        assert_eq!(
            routed(&table, &Method::GET, "/v1/models/m:predict").await,
            shown(MODEL_READINESS.id, Permission::Manage, &params)
        );
    }

    #[tokio::test]
    async fn sagemaker_has_its_own_health_and_oip_takes_v2() {
        let surface = Surface {
            sagemaker: true,
            oip: true,
            kserve: false,
            tenants: true,
        };
        let table = RouteTable::new(&[Listener::Inference], surface);
        for (path, expected) in [
            ("/ping", SAGEMAKER_PING),
            ("/execution-parameters", EXECUTION_PARAMETERS),
            ("/v2/models/m/infer", METHOD_NOT_ALLOWED),
        ] {
            let found = endpoint(&table, &Method::GET, path).await;
            assert_eq!(found, expected.id, "{path}");
        }
    }

    #[tokio::test]
    async fn kserve_asks_the_root_whether_the_server_lives_and_torchserve_does_not() {
        for (kserve, expected) in [(true, KSERVE_LIVE), (false, METHOD_NOT_ALLOWED)] {
            let surface = Surface {
                kserve,
                ..Surface::default()
            };
            for listeners in [
                &[Listener::Inference][..],
                &[Listener::Inference, Listener::Management],
            ] {
                let table = RouteTable::new(listeners, surface);
                assert_eq!(endpoint(&table, &Method::GET, "/").await, expected.id);
                let document = endpoint(&table, &Method::OPTIONS, "/").await;
                assert_eq!(document, API_DESCRIPTION.id);
            }
            let management = RouteTable::new(&[Listener::Management], surface);
            let found = endpoint(&management, &Method::GET, "/").await;
            assert_eq!(found, METHOD_NOT_ALLOWED.id);
        }
    }

    #[tokio::test]
    async fn kserve_finds_models_where_predictions_are() {
        let table = table(Listener::Inference);
        for (path, expected, model) in [
            ("/v1/models", KSERVE_MODELS, ""),
            ("/v1/models/m", KSERVE_MODEL, "m"),
            ("/v1/models/m:x", KSERVE_MODEL, "m:x"),
        ] {
            let params = params(model, None, "");
            let expected = shown(expected.id, Permission::Either, &params);
            assert_eq!(routed(&table, &Method::GET, path).await, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn rows_for_all_methods_but_options_do_not_take_options() {
        for (oip, sagemaker) in [(false, false), (false, true), (true, false), (true, true)] {
            let surface = Surface {
                oip,
                sagemaker,
                ..Surface::default()
            };
            let table = RouteTable::new(&[Listener::Inference], surface);
            for route in table.routes() {
                let path = route.path.replace(['{', '}', '*'], "");
                let found = endpoint(&table, &Method::OPTIONS, &path).await;
                let takes_options = |row: &&Route| {
                    row.path == route.path && matches!(row.verbs, Verbs::Any | Verbs::Options)
                };
                let row = table.routes().iter().find(takes_options);
                let expected = row.map_or(METHOD_NOT_ALLOWED, |row| row.endpoint).id;
                assert_eq!(found, expected, "{path} {surface:?}");
            }
        }
    }

    #[test]
    fn the_table_is_what_was_agreed() {
        let tables =
            [Listener::Inference, Listener::Management, Listener::Metrics].map(|listener| {
                let table = table(listener);
                let rows = table.routes().iter().map(|route| {
                    format!(
                        "{:?} {} {:?} {:?}",
                        route.verbs, route.path, route.permission, route.endpoint
                    )
                });
                format!(
                    "{}\n{}",
                    listener.name(),
                    rows.collect::<Vec<_>>().join("\n")
                )
            });
        insta::assert_snapshot!(tables.join("\n\n"));
    }
}
