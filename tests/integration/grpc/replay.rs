//! The management calls of TorchServe's own suite over gRPC, each with the code that the suite asserts.
//!
//! As the suite does, what a message cannot say is left out: an empty URL is not sent, and rows whose numbers are none
//! are skipped.

use std::collections::HashMap;

use lantern::api::grpc::proto::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest,
    ScaleWorkerRequest, SetDefaultRequest, UnregisterModelRequest,
};
use tonic::{Response, Status};

use crate::replay;
use crate::support::grpc::ManagementClient;

/// A zero that TorchServe's messages cannot say: without it the call succeeds, which the suite accepts.
const ZERO_IS_NOT_SENT: [usize; 1] = [30];

/// A call's query. Fails where a message has no place for a value.
struct Query(HashMap<String, String>);

struct NotANumber;

impl Query {
    fn text(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn number(&self, name: &str) -> Result<Option<i32>, NotANumber> {
        let value = self.0.get(name).filter(|value| !value.is_empty());
        let number = value.map(|value| value.parse().map_err(|_| NotANumber));
        // Zeros are not sent.
        Ok(number.transpose()?.filter(|number| *number != 0))
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }
}

type Answer = Result<Response<ManagementResponse>, Status>;

async fn call(
    client: &mut ManagementClient,
    method: &str,
    path: &str,
) -> Result<Answer, NotANumber> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = form_urlencoded::parse(query.as_bytes());
    let query = Query(query.into_owned().collect());
    let mut segments = path.trim_matches('/').split('/').skip(1);
    let model_name = segments.next().unwrap_or_default().to_owned();
    let model_version = segments.next().unwrap_or_default().to_owned();
    Ok(match (method, model_name.is_empty()) {
        ("POST", _) => client.register_model(register(&query)?).await,
        ("GET", true) => {
            let list = ListModelsRequest {
                limit: query.number("limit")?,
                next_page_token: query.number("next_page_token")?.unwrap_or(0),
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
                min_worker: query.number("min_worker")?,
                max_worker: query.number("max_worker")?,
                number_gpu: query.number("number_gpu")?.unwrap_or(0),
                synchronous: query.flag("synchronous"),
                timeout: query.number("timeout")?.unwrap_or(0),
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
    })
}

fn register(query: &Query) -> Result<RegisterModelRequest, NotANumber> {
    Ok(RegisterModelRequest {
        url: query.text("url"),
        model_name: query.text("model_name"),
        handler: query.text("handler"),
        runtime: query.text("runtime"),
        batch_size: query.number("batch_size")?.unwrap_or(0),
        initial_workers: query.number("initial_workers")?,
        max_batch_delay: query.number("max_batch_delay")?.unwrap_or(0),
        startup_timeout: query.number("startup_timeout")?.unwrap_or(0),
        // Nobody waits in the suite; here the next row must find what this one did.
        synchronous: true,
        ..RegisterModelRequest::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_original_suite_has_its_code() {
    let (server, origin) = replay::server().await;
    let mut client = server.grpc_management();
    let (mut wrong, mut skipped) = (Vec::new(), Vec::new());
    for row in replay::rows() {
        let path = replay::path(&row, &origin);
        let Ok(answer) = call(&mut client, &row.method, &path).await else {
            skipped.push(row.number);
            continue;
        };
        let code = answer
            .as_ref()
            .map_or_else(|refused| refused.code() as i32, |_| 0);
        if code != row.grpc && !(code == 0 && ZERO_IS_NOT_SENT.contains(&row.number)) {
            wrong.push(format!(
                "{} {}: {answer:?} instead of {}",
                row.number, row.name, row.grpc
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Not numbers: `dd`, `junk`, `nan`.
    assert_eq!(skipped, [35, 37, 62]);
}
