//! `OpenAPI` documents, made from the table of routes.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::routes::{Listener, Route, Router, Surface};
use super::{Response, reply};

/// The document of a listener.
pub(super) fn listener(router: &Router) -> Response {
    let info = json!({
        "title": "Lantern APIs",
        "description": format!("Lantern serves TorchScript and ONNX models: {}", names(router.listeners())),
        "version": env!("CARGO_PKG_VERSION"),
    });
    document(&info, &paths(router.routes().iter(), str::to_owned))
}

/// The document of one model's predictions.
pub(super) fn predictions(model: &str) -> Response {
    let info = json!({ "title": format!("RESTful API for: {model}"), "version": "1.0.0" });
    let router = Router::new(&[Listener::Inference], Surface::default());
    let rows = of_models(router.routes(), "/predictions/{model}");
    document(&info, &paths(rows, |path| path.replace("{model}", model)))
}

/// The document of one model's management.
pub(super) fn management(router: &Router, model: &str) -> Response {
    let info = json!({
        "title": format!("RESTful Management API for: {model}"),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let rows = of_models(router.routes(), "/models/{model}");
    document(&info, &paths(rows, |path| path.replace("{model}", model)))
}

fn names(listeners: &[Listener]) -> String {
    let names: Vec<_> = listeners.iter().map(|listener| listener.name()).collect();
    names.join(", ")
}

fn of_models<'r>(routes: &'r [Route], prefix: &'static str) -> impl Iterator<Item = &'r Route> {
    routes
        .iter()
        .filter(move |route| route.path.starts_with(prefix))
}

fn document(info: &Value, paths: &Map<String, Value>) -> Response {
    let whole = json!({ "openapi": "3.0.1", "info": info, "paths": paths });
    reply::json(StatusCode::OK, &whole)
}

fn paths<'r>(
    routes: impl Iterator<Item = &'r Route>,
    rename: impl Fn(&str) -> String,
) -> Map<String, Value> {
    let mut paths = Map::new();
    // A path whose version does not matter is another spelling of one that names none.
    for route in routes.filter(|route| !route.path.contains("{any}")) {
        let path = rename(route.path.trim_end_matches("/*"));
        let path = if path.is_empty() {
            "/".to_owned()
        } else {
            path
        };
        let item = paths
            .entry(path.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(item) = item {
            item.insert(route.verbs.documented().to_owned(), operation(route, &path));
        }
    }
    paths
}

fn operation(route: &Route, path: &str) -> Value {
    let names = ["model", "version", "workflow"].into_iter();
    let parameters: Vec<Value> = names
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }))
        .collect();
    json!({
        "operationId": route.endpoint.operation(),
        "parameters": parameters,
        "responses": { "200": { "description": "Success" }, "default": { "description": "Failure" } },
    })
}
