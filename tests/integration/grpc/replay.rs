//! The management calls of TorchServe's own suite over gRPC, each with the code that the suite asserts.
//!
//! As in the suite, calls are left out that a message cannot express: an empty URL, and numbers that are not numbers.

use std::collections::HashMap;

use lantern::api::grpc::proto::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest,
    ScaleWorkerRequest, SetDefaultRequest, UnregisterModelRequest,
};
use tonic::{Response, Status};

use crate::replay;
use crate::support::grpc::ManagementClient;

/// A call's query.
struct Query(HashMap<String, String>);

impl Query {
    fn text(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<i32> {
        self.0.get(name)?.parse().ok()
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }
}

type Answer = Result<Response<ManagementResponse>, Status>;

async fn call(client: &mut ManagementClient, method: &str, path: &str) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = form_urlencoded::parse(query.as_bytes());
    let query = Query(query.into_owned().collect());
    let mut segments = path.trim_matches('/').split('/').skip(1);
    let model_name = segments.next().unwrap_or_default().to_owned();
    let model_version = segments.next().unwrap_or_default().to_owned();
    match (method, model_name.is_empty()) {
        ("POST", _) => client.register_model(register(&query)).await,
        ("GET", true) => {
            let list = ListModelsRequest {
                limit: query.number("limit"),
                next_page_token: query.number("next_page_token").unwrap_or(0),
            };
            client.list_models(list).await
        }
        ("GET", false) => {
            let describe = DescribeModelRequest {
                model_name,
                model_version,
                customized: false,
            };
            client.describe_model(describe).await
        }
        ("PUT", _) if segments.next().is_some() => {
            let set = SetDefaultRequest {
                model_name,
                model_version,
            };
            client.set_default(set).await
        }
        ("PUT", _) => {
            let scale = ScaleWorkerRequest {
                model_name,
                model_version,
                min_worker: query.number("min_worker"),
                max_worker: query.number("max_worker"),
                number_gpu: query.number("number_gpu").unwrap_or(0),
                synchronous: query.flag("synchronous"),
                timeout: query.number("timeout").unwrap_or(0),
            };
            client.scale_worker(scale).await
        }
        _ => {
            let unregister = UnregisterModelRequest {
                model_name,
                model_version,
            };
            client.unregister_model(unregister).await
        }
    }
}

fn register(query: &Query) -> RegisterModelRequest {
    RegisterModelRequest {
        url: query.text("url"),
        model_name: query.text("model_name"),
        handler: query.text("handler"),
        runtime: query.text("runtime"),
        batch_size: query.number("batch_size").unwrap_or(0),
        initial_workers: query.number("initial_workers"),
        max_batch_delay: query.number("max_batch_delay").unwrap_or(0),
        startup_timeout: query.number("startup_timeout"),
        // The suite does not wait; here the next row must find the effect of this one.
        synchronous: true,
        ..RegisterModelRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_original_suite_has_its_code() {
    let (server, origin) = replay::server().await;
    let mut client = server.grpc_management();
    let mut wrong = Vec::new();
    for row in replay::rows() {
        let path = replay::path(&row, &origin);
        let answer = call(&mut client, &row.method, &path).await;
        let code = answer
            .as_ref()
            .map_or_else(|refused| refused.code() as i32, |_| 0);
        if code != row.grpc {
            let (number, name) = (row.number, row.name);
            wrong.push(format!(
                "{number} {name}: {answer:?} instead of {}",
                row.grpc
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
