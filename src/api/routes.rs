//! The routes of each listener, as one table: method, path, permission, endpoint. `routes/table.rs` has the rows.
//!
//! Paths are matched after decoding, segment by segment; `{model}`, `{workflow}` and `{version}` take one segment, `{any}`
//! one that does not matter, `{model}:predict` one with that verb in it, and a final `*` takes the rest, which may be empty. The first row that fits wins. A socket
//! may serve the tables of several listeners.

use hyper::Method;

pub mod grpc;
mod table;

use super::oip;
use table::{INFERENCE, KSERVE_V2, LEGACY, MANAGEMENT, METRICS, OPEN_INFERENCE, SAGEMAKER};

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
    /// Run models, or see them: what every client of a socket with both can do.
    Either,
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The listener's document.
    ApiDescription,
    /// Health, as TorchServe means it.
    Ping,
    /// Whether the server lives.
    Live,
    /// Whether requests should be sent to the server.
    Ready,
    /// A prediction.
    Predict,
    /// A prediction by `KServe`'s paths.
    PredictKServe,
    /// A prediction by `SageMaker`'s path of one model, or by the paths of TorchServe's predecessor.
    Invoke,
    /// A prediction by `SageMaker`'s path that names no model.
    Invocations,
    /// An explanation.
    Explain,
    /// A prediction of a workflow.
    PredictWorkflow,
    /// Health as `SageMaker` asks for it.
    SageMakerPing,
    /// How `SageMaker` may send batches.
    ExecutionParameters,
    /// The document of one model's predictions.
    PredictDescription,
    /// The list of models.
    ListModels,
    /// Registration.
    RegisterModel,
    /// A model's description.
    DescribeModel,
    /// The number of workers.
    ScaleModel,
    /// Unregistration.
    UnregisterModel,
    /// The document of one model's management.
    ModelDescription,
    /// The default version.
    SetDefault,
    /// Whether a model takes requests.
    ModelReadiness,
    /// The list of workflows.
    ListWorkflows,
    /// Registration of a workflow.
    RegisterWorkflow,
    /// A workflow.
    Workflow,
    /// Metrics.
    Scrape,
    /// A new key.
    RotateToken,
    /// Open Inference Protocol.
    OpenInference(oip::Endpoint),
}

impl Endpoint {
    /// TorchServe's `operationId`.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::ApiDescription => "apiDescription",
            Self::Ping => "ping",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Predict => "predictions",
            Self::PredictKServe => "kservePredictions",
            Self::Invoke => "invoke",
            Self::Invocations => "invocations",
            Self::Explain => "explanations",
            Self::PredictWorkflow => "workflowPredictions",
            Self::SageMakerPing => "sageMakerPing",
            Self::ExecutionParameters => "executionParameters",
            Self::PredictDescription => "predictionsDescription",
            Self::ListModels => "listModels",
            Self::RegisterModel => "registerModel",
            Self::DescribeModel => "describeModel",
            Self::ScaleModel => "setAutoScale",
            Self::UnregisterModel => "unregisterModel",
            Self::ModelDescription => "modelDescription",
            Self::SetDefault => "setDefault",
            Self::ModelReadiness => "modelReady",
            Self::ListWorkflows => "listWorkflows",
            Self::RegisterWorkflow => "registerWorkflow",
            Self::Workflow => "workflow",
            Self::Scrape => "metrics",
            Self::RotateToken => "token",
            Self::OpenInference(endpoint) => endpoint.operation(),
        }
    }
}

/// Which methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Every method.
    Any,
    /// Every method but OPTIONS, which asks for a document.
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
}

impl Verbs {
    fn take(self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::ButOptions => *method != Method::OPTIONS,
            Self::Get => *method == Method::GET || *method == Method::HEAD,
            Self::Post => *method == Method::POST,
            Self::Put => *method == Method::PUT,
            Self::Delete => *method == Method::DELETE,
            Self::Options => *method == Method::OPTIONS,
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Methods.
    pub verbs: Verbs,
    /// Path.
    pub path: &'static str,
    /// What a client must be allowed to do.
    pub permission: Permission,
    /// What answers.
    pub endpoint: Endpoint,
}

/// What a path named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Params<'p> {
    /// `{model}` or `{workflow}`; empty where the path has none.
    pub model: &'p str,
    /// `{version}`.
    pub version: Option<&'p str>,
    /// What `*` took, without the slash before it.
    pub rest: &'p str,
}

/// What the table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched<'r, 'p> {
    /// This route answers.
    Route(&'r Route, Params<'p>),
    /// The path exists, the method does not; this is what the path needs.
    OtherMethod(Permission),
    /// The path does not exist.
    Nothing,
}

/// What a socket serves beside the tables of its listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surface {
    /// Open Inference Protocol: its own `/v2`, in place of `KServe`'s two paths.
    pub oip: bool,
    /// What `SageMaker` asks of a container.
    pub sagemaker: bool,
}

/// The table of one socket.
#[derive(Debug, Clone)]
pub struct Router {
    listeners: Vec<Listener>,
    routes: Vec<Route>,
}

impl Router {
    /// The table of a socket that serves `listeners`.
    pub fn new(listeners: &[Listener], surface: Surface) -> Self {
        let tables = listeners
            .iter()
            .flat_map(|listener| tables(*listener, surface));
        let mut tables: Vec<&[Route]> = tables.collect();
        if listeners.contains(&Listener::Inference) {
            // Last: its rows take any first segment.
            tables.push(LEGACY);
        }
        Self {
            listeners: listeners.to_vec(),
            routes: tables.concat(),
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

    /// What a client needs for what the table said.
    pub fn permission(&self, matched: &Matched<'_, '_>) -> Permission {
        match matched {
            Matched::Route(route, _) => route.permission,
            Matched::OtherMethod(permission) => *permission,
            Matched::Nothing => self.unmatched(),
        }
    }

    /// What a client needs to be told that a path does not exist: what it would need for any that does.
    fn unmatched(&self) -> Permission {
        let serves = |listener| self.listeners.contains(&listener);
        match (serves(Listener::Inference), serves(Listener::Management)) {
            (true, true) => Permission::Either,
            (true, false) => Permission::Predict,
            (false, true) => Permission::Manage,
            (false, false) => Permission::Nothing,
        }
    }

    /// The first row that takes `method` and the decoded `path`.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Matched<'_, 'p> {
        let path = path.trim_end_matches('/');
        let mut matched = Matched::Nothing;
        for route in &self.routes {
            let Some(params) = params(route.path, path) else {
                continue;
            };
            if route.verbs.take(method) {
                return Matched::Route(route, params);
            }
            if matched == Matched::Nothing {
                matched = Matched::OtherMethod(route.permission);
            }
        }
        matched
    }
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
            vec![before, INFERENCE, v2]
        }
        Listener::Management => vec![MANAGEMENT],
        Listener::Metrics => vec![METRICS],
        Listener::GrpcInference | Listener::GrpcManagement => Vec::new(),
    }
}

/// What `path`, without trailing slashes, names in terms of `pattern`; `None` if it does not fit.
fn params<'p>(pattern: &'static str, path: &'p str) -> Option<Params<'p>> {
    let mut params = Params::default();
    let mut left = path;
    for piece in pattern.trim_end_matches('/').split('/').skip(1) {
        if piece == "*" {
            params.rest = left.strip_prefix('/').unwrap_or(left);
            return Some(params);
        }
        let (segment, rest) = next_segment(left)?;
        match piece {
            "{model}" | "{workflow}" => params.model = segment,
            "{any}" => {}
            "{version}" => params.version = Some(segment),
            literal if literal == segment => {}
            _ => params.model = model_before_verb(piece, segment)?,
        }
        left = rest;
    }
    left.is_empty().then_some(params)
}

/// The model that `segment` names if `piece` is `{model}:VERB`. As in TorchServe the verb may stand anywhere after the
/// model's name, which ends at the first colon.
fn model_before_verb<'p>(piece: &str, segment: &'p str) -> Option<&'p str> {
    let verb = piece.strip_prefix("{model}")?;
    let (model, _) = segment.split_once(':')?;
    segment[model.len()..].contains(verb).then_some(model)
}

/// Splits `/a/b` into `a` and `/b`.
fn next_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(listener: Listener) -> Router {
        Router::new(&[listener], Surface::default())
    }

    fn found<'p>(
        listener: Listener,
        method: &Method,
        path: &'p str,
    ) -> Option<(Endpoint, Params<'p>)> {
        match router(listener).find(method, path) {
            Matched::Route(route, params) => Some((route.endpoint, params)),
            Matched::OtherMethod(_) | Matched::Nothing => None,
        }
    }

    #[test]
    fn predictions_take_any_method_a_version_and_a_rest() {
        for method in [
            Method::GET,
            Method::PUT,
            Method::PATCH,
            Method::POST,
            Method::HEAD,
        ] {
            let params = Params {
                model: "m",
                version: Some("1.0"),
                rest: "v1/chat",
            };
            let path = "/predictions/m/1.0/v1/chat";
            assert_eq!(
                found(Listener::Inference, &method, path),
                Some((Endpoint::Predict, params))
            );
        }
        let options = found(Listener::Inference, &Method::OPTIONS, "/predictions/m");
        assert_eq!(
            options.map(|(endpoint, _)| endpoint),
            Some(Endpoint::PredictDescription)
        );
    }

    #[test]
    fn trailing_slashes_do_not_matter_and_leading_ones_do() {
        let ping =
            |path| found(Listener::Inference, &Method::GET, path).map(|(endpoint, _)| endpoint);
        for path in ["/ping", "/ping/", "/ping///", "/ping/x/y"] {
            assert_eq!(ping(path), Some(Endpoint::Ping), "{path}");
        }
        for path in ["//ping", "ping", "/pingx", "/predictions", "/predictions/"] {
            assert_eq!(ping(path), None, "{path}");
        }
    }

    #[test]
    fn a_known_path_with_another_method_is_told_apart() {
        let management = router(Listener::Management);
        assert_eq!(
            management.find(&Method::DELETE, "/models"),
            Matched::OtherMethod(Permission::Manage)
        );
        assert_eq!(
            management.find(&Method::POST, "/models/m"),
            Matched::OtherMethod(Permission::Manage)
        );
        assert_eq!(
            management.find(&Method::GET, "/"),
            Matched::OtherMethod(Permission::Nothing)
        );
        assert_eq!(
            management.find(&Method::GET, "/models/m/1/2/3"),
            Matched::Nothing
        );
        assert_eq!(management.find(&Method::GET, "/nowhere"), Matched::Nothing);
    }

    #[test]
    fn every_alias_of_a_prediction_is_found() {
        let find = |path| found(Listener::Inference, &Method::POST, path);
        let of = |endpoint, version| {
            let params = Params {
                model: "m",
                version,
                rest: "",
            };
            Some((endpoint, params))
        };
        for (path, endpoint, version) in [
            ("/models/m/invoke", Endpoint::Invoke, None),
            ("/m/predict", Endpoint::Invoke, None),
            ("/m/1.0/predict/", Endpoint::Invoke, Some("1.0")),
            ("/v1/models/m:predict", Endpoint::PredictKServe, None),
            ("/v1/models/m:x:predictor", Endpoint::PredictKServe, None),
            ("/v1/models/m:explain", Endpoint::Explain, None),
            ("/v2/models/m/infer", Endpoint::PredictKServe, None),
            ("/v2/models/m/explain", Endpoint::Explain, None),
            ("/explanations/m", Endpoint::Explain, None),
            ("/explanations/m/1.0", Endpoint::Explain, Some("1.0")),
        ] {
            assert_eq!(find(path), of(endpoint, version), "{path}");
        }
        for path in [
            "/v1/models/m",
            "/v1/models/mpredict",
            "/v2/models/m",
            "/v2/models/m/versions/1/infer",
            "/invocations/x",
            "/models/m/1.0/invoke",
            "/explanations",
            "/wfpredict",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn one_socket_serves_all_tables_and_the_exact_row_wins() {
        let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
        let all = Router::new(&listeners, Surface::default());
        for (method, path, endpoint) in [
            (Method::GET, "/models/m/1.0", Endpoint::DescribeModel),
            (Method::GET, "/models/m/all", Endpoint::DescribeModel),
            (Method::GET, "/models/m/predict", Endpoint::DescribeModel),
            (Method::DELETE, "/models/m/1.0", Endpoint::UnregisterModel),
            (Method::POST, "/models/m/invoke", Endpoint::Invoke),
            (
                Method::PUT,
                "/models/m/1.0/set-default",
                Endpoint::SetDefault,
            ),
            (Method::POST, "/m/predict", Endpoint::Invoke),
            (Method::GET, "/metrics", Endpoint::Scrape),
            (Method::OPTIONS, "/models/m", Endpoint::ModelDescription),
        ] {
            let Matched::Route(route, _) = all.find(&method, path) else {
                panic!("no row for {method} {path}")
            };
            assert_eq!(route.endpoint, endpoint, "{method} {path}");
        }
    }

    #[test]
    fn sagemaker_has_its_own_health_and_oip_takes_v2() {
        let surface = Surface {
            sagemaker: true,
            oip: true,
        };
        let router = Router::new(&[Listener::Inference], surface);
        let find = |path| match router.find(&Method::GET, path) {
            Matched::Route(route, _) => Some(route.endpoint),
            Matched::OtherMethod(_) | Matched::Nothing => None,
        };
        assert_eq!(find("/ping"), Some(Endpoint::SageMakerPing));
        assert_eq!(
            find("/execution-parameters"),
            Some(Endpoint::ExecutionParameters)
        );
        assert_ne!(find("/v2/models/m/infer"), Some(Endpoint::PredictKServe));
    }

    #[test]
    fn the_table_is_what_was_agreed() {
        let tables =
            [Listener::Inference, Listener::Management, Listener::Metrics].map(|listener| {
                let router = router(listener);
                let rows = router.routes().iter().map(|route| {
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
