//! The routes of each listener, as one table: method, path, permission, endpoint. `routes/table.rs` has the rows.
//!
//! Paths are matched after decoding, segment by segment; `{model}` and `{version}` take one segment and a final `*`
//! takes the rest, which may be empty. The first row that fits wins.

use hyper::Method;

mod table;

use table::{INFERENCE, MANAGEMENT, METRICS};

/// A socket the server listens on, by what is served there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Predictions.
    Inference,
    /// Models.
    Management,
    /// Metrics.
    Metrics,
}

impl Listener {
    /// The name in logs and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Management => "management",
            Self::Metrics => "metrics",
        }
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
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The listener's document.
    ApiDescription,
    /// Health.
    Ping,
    /// A prediction.
    Predict,
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
    /// Metrics.
    Scrape,
}

impl Endpoint {
    /// TorchServe's `operationId`.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::ApiDescription => "apiDescription",
            Self::Ping => "ping",
            Self::Predict => "predictions",
            Self::PredictDescription => "predictionsDescription",
            Self::ListModels => "listModels",
            Self::RegisterModel => "registerModel",
            Self::DescribeModel => "describeModel",
            Self::ScaleModel => "setAutoScale",
            Self::UnregisterModel => "unregisterModel",
            Self::ModelDescription => "modelDescription",
            Self::SetDefault => "setDefault",
            Self::Scrape => "metrics",
        }
    }
}

/// Which methods a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Every method.
    Any,
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
            Self::Get => *method == Method::GET || *method == Method::HEAD,
            Self::Post => *method == Method::POST,
            Self::Put => *method == Method::PUT,
            Self::Delete => *method == Method::DELETE,
            Self::Options => *method == Method::OPTIONS,
        }
    }

    /// The method as documents write it; predictions are documented as POST.
    pub const fn documented(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Any | Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Options => "options",
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
    /// `{model}`; empty where the path has none.
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
    /// The path exists, the method does not.
    OtherMethod,
    /// The path does not exist.
    Nothing,
}

/// The table of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    listener: Listener,
    routes: &'static [Route],
}

impl Router {
    /// The table of `listener`.
    pub const fn new(listener: Listener) -> Self {
        let routes = match listener {
            Listener::Inference => INFERENCE,
            Listener::Management => MANAGEMENT,
            Listener::Metrics => METRICS,
        };
        Self { listener, routes }
    }

    /// Whose table it is.
    pub const fn listener(&self) -> Listener {
        self.listener
    }

    /// Its rows.
    pub const fn routes(&self) -> &'static [Route] {
        self.routes
    }

    /// The first row that takes `method` and the decoded `path`.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Matched<'static, 'p> {
        let path = path.trim_end_matches('/');
        let mut matched = Matched::Nothing;
        for route in self.routes {
            let Some(params) = params(route.path, path) else {
                continue;
            };
            if route.verbs.take(method) {
                return Matched::Route(route, params);
            }
            matched = Matched::OtherMethod;
        }
        matched
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
            "{model}" => params.model = segment,
            "{version}" => params.version = Some(segment),
            literal if literal == segment => {}
            _ => return None,
        }
        left = rest;
    }
    left.is_empty().then_some(params)
}

/// Splits `/a/b` into `a` and `/b`.
fn next_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'p>(
        listener: Listener,
        method: &Method,
        path: &'p str,
    ) -> Option<(Endpoint, Params<'p>)> {
        match Router::new(listener).find(method, path) {
            Matched::Route(route, params) => Some((route.endpoint, params)),
            Matched::OtherMethod | Matched::Nothing => None,
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
        let management = Router::new(Listener::Management);
        assert_eq!(
            management.find(&Method::DELETE, "/models"),
            Matched::OtherMethod
        );
        assert_eq!(
            management.find(&Method::POST, "/models/m"),
            Matched::OtherMethod
        );
        assert_eq!(management.find(&Method::GET, "/"), Matched::OtherMethod);
        assert_eq!(
            management.find(&Method::GET, "/models/m/1/2/3"),
            Matched::Nothing
        );
        assert_eq!(management.find(&Method::GET, "/nowhere"), Matched::Nothing);
    }

    #[test]
    fn the_table_is_what_was_agreed() {
        let tables =
            [Listener::Inference, Listener::Management, Listener::Metrics].map(|listener| {
                let rows = Router::new(listener).routes().iter().map(|route| {
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
