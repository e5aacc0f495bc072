//! `OpenAPI` documents, made from the table of routes, so that no route is without an entry and no entry without a
//! route. What an endpoint takes and answers is in `document/operations.rs`; what bodies look like in
//! `document/schemas.rs`.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::routes::{Listener, Permission, Route, RouteTable, Verbs};
use super::{Response, reply};

pub(super) mod operations;
mod schemas;

use operations::Takes;

/// The document of a socket.
pub(super) fn listener(table: &RouteTable) -> Response {
    let served = names(table.listeners());
    let info = json!({
        "title": "Lantern APIs",
        "description": format!("Lantern serves TorchScript and ONNX models: {served}"),
        "version": env!("CARGO_PKG_VERSION"),
    });
    document(&info, &paths(table.routes().iter(), None))
}

/// The document of one model's predictions.
pub(super) fn predictions(table: &RouteTable, model: &str) -> Response {
    let info = json!({ "title": format!("RESTful API for: {model}"), "version": "1.0.0" });
    let rows = of_models(table, Permission::Predict);
    document(&info, &paths(rows, Some(model)))
}

/// The document of one model's management.
pub(super) fn management(table: &RouteTable, model: &str) -> Response {
    let info = json!({
        "title": format!("RESTful Management API for: {model}"),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let rows = of_models(table, Permission::Manage);
    document(&info, &paths(rows, Some(model)))
}

fn names(listeners: &[Listener]) -> String {
    let names: Vec<_> = listeners.iter().map(|listener| listener.name()).collect();
    names.join(", ")
}

/// The rows that name a model and are not about documents.
fn of_models(table: &RouteTable, permission: Permission) -> impl Iterator<Item = &Route> {
    table.routes().iter().filter(move |route| {
        route.permission == permission
            && route.path.contains("{model}")
            && route.verbs != Verbs::Options
    })
}

fn document(info: &Value, paths: &Map<String, Value>) -> Response {
    let whole = json!({
        "openapi": "3.0.1",
        "info": info,
        "paths": paths,
        "components": { "schemas": schemas::all() },
    });
    reply::json(StatusCode::OK, &whole)
}

/// The entries of `routes`, with `model` in place of the parameter if it is known.
fn paths<'r>(routes: impl Iterator<Item = &'r Route>, model: Option<&str>) -> Map<String, Value> {
    let (mut paths, mut ids) = (Map::new(), Vec::new());
    // A path whose version does not matter is another spelling of one that names none.
    for route in routes.filter(|route| is_documented(route)) {
        let path = documented_path(route.path, model);
        let item = paths.entry(path.clone()).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            // The first row that fits a request answers it.
            item.entry(method(route))
                .or_insert_with(|| operation(route, &path, &mut ids));
        }
    }
    paths
}

fn is_documented(route: &Route) -> bool {
    !route.path.contains("{any}")
}

/// `/predictions/{model}/{version}/*` as `/predictions/{model_name}/{model_version}`.
fn documented_path(path: &str, model: Option<&str>) -> String {
    let path = path.strip_suffix("/*").unwrap_or(path);
    path.replace("{model}", model.unwrap_or("{model_name}"))
        .replace("{version}", "{model_version}")
        .replace("{workflow}", "{workflow_name}")
}

/// The method as it is documented: that of most clients where a route takes several.
fn method(route: &Route) -> &'static str {
    match route.verbs {
        Verbs::Get => "get",
        Verbs::Post => "post",
        Verbs::Put => "put",
        Verbs::Delete => "delete",
        Verbs::Options => "options",
        Verbs::Connect => "connect",
        Verbs::Any | Verbs::ButOptions => match route.endpoint.operation.takes {
            Takes::Nothing => "get",
            Takes::Anything | Takes::Registration => "post",
        },
    }
}

fn operation(route: &Route, path: &str, ids: &mut Vec<String>) -> Value {
    let described = route.endpoint.operation;
    let id = operation_id(route, path, ids);
    let parameters: Vec<Value> = operations::path_parameters(path)
        .chain(described.query.iter().map(operations::query_parameter))
        .collect();
    let mut operation = json!({
        "description": described.says,
        "operationId": id,
        "parameters": parameters,
        "responses": operations::responses(&described, path),
    });
    if let (Some(body), Value::Object(members)) =
        (operations::request_body(described.takes), &mut operation)
    {
        members.insert("requestBody".to_owned(), body);
    }
    operation
}

/// TorchServe's name for the operation; aliases have the path in theirs, since no two operations may be called the same.
fn operation_id(route: &Route, path: &str, ids: &mut Vec<String>) -> String {
    let versioned = if path.contains("{model_version}") {
        "version_"
    } else {
        ""
    };
    let mut id = format!("{versioned}{}", route.endpoint.id);
    if ids.contains(&id) {
        let words = path.split(|letter: char| !letter.is_ascii_alphanumeric());
        let mut words: Vec<_> = words
            .filter(|word| !matches!(*word, "" | "model" | "name"))
            .collect();
        if words.is_empty() {
            words.push(method(route));
        }
        id = format!("{id}_{}", words.join("_"));
    }
    ids.push(id.clone());
    id
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::routes::Surface;
    use super::*;

    const ALL: [Listener; 3] = [Listener::Inference, Listener::Management, Listener::Metrics];

    fn tables() -> Vec<RouteTable> {
        let plain = Surface::default();
        let full = Surface {
            sagemaker: true,
            oip: true,
            kserve: true,
            tenants: true,
        };
        let mut tables = vec![RouteTable::new(&ALL, plain), RouteTable::new(&ALL, full)];
        tables.extend(ALL.map(|listener| RouteTable::new(&[listener], plain)));
        tables
    }

    fn operations(paths: &Map<String, Value>) -> Vec<&Value> {
        let items = paths.values().filter_map(Value::as_object);
        items.flat_map(Map::values).collect()
    }

    #[test]
    fn every_route_has_an_entry() {
        for table in tables() {
            let paths = paths(table.routes().iter(), None);
            for route in table.routes().iter().filter(|route| is_documented(route)) {
                let item = &paths[&documented_path(route.path, None)];
                assert!(item.get(method(route)).is_some(), "{route:?}");
            }
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        for table in tables() {
            let paths = paths(table.routes().iter(), None);
            let ids: Vec<_> = operations(&paths)
                .into_iter()
                .map(|operation| operation["operationId"].as_str().unwrap())
                .collect();
            let unique: BTreeSet<_> = ids.iter().collect();
            assert_eq!(unique.len(), ids.len(), "{ids:?}");
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_declared() {
        let table = RouteTable::new(&ALL, Surface::default());
        let paths = paths(table.routes().iter(), None);
        for (path, item) in &paths {
            for operation in item.as_object().unwrap().values() {
                let declared = operation["parameters"].as_array().unwrap().iter();
                let declared = declared
                    .filter(|parameter| parameter["in"] == "path")
                    .count();
                assert_eq!(declared, path.matches('{').count(), "{path}");
            }
        }
    }

    #[test]
    fn the_document_of_a_model_names_it() {
        let table = RouteTable::new(&ALL, Surface::default());
        let rows = of_models(&table, Permission::Manage);
        let paths = paths(rows, Some("m"));
        let known: Vec<_> = paths.keys().map(String::as_str).collect();
        for path in ["/models/m", "/models/m/{model_version}/set-default"] {
            assert!(known.contains(&path), "{known:?}");
        }
        assert!(!known.contains(&"/models/m/invoke"), "{known:?}");
    }
}
