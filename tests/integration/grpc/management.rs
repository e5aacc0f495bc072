//! `ManagementAPIsService`.

use lantern::api::grpc::proto::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest,
    ScaleWorkerRequest, SetDefaultRequest, UnregisterModelRequest,
};
use serde_json::Value;
use tonic::{Code, Response, Status};

use crate::support::{Model, TestServer};

async fn store() -> TestServer {
    let builder = TestServer::builder().in_store(Model::new("echo"));
    let builder = builder.in_store(Model::new("echo").version("2.0"));
    let broken = Model::linear().named("broken").artifact("broken.onnx");
    builder.in_store(broken).start().await
}

fn register(url: &str) -> RegisterModelRequest {
    RegisterModelRequest {
        url: url.to_owned(),
        initial_workers: Some(1),
        synchronous: true,
        ..RegisterModelRequest::default()
    }
}

fn unregister(model: &str, version: &str) -> UnregisterModelRequest {
    UnregisterModelRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
    }
}

fn scale(model: &str, min: Option<i32>, max: Option<i32>) -> ScaleWorkerRequest {
    ScaleWorkerRequest {
        model_name: model.to_owned(),
        min_worker: min,
        max_worker: max,
        synchronous: true,
        ..ScaleWorkerRequest::default()
    }
}

fn describe(model: &str, version: &str) -> DescribeModelRequest {
    DescribeModelRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        customized: false,
    }
}

/// The text of an answer, or the code and first line of a failure.
fn told(answer: Result<Response<ManagementResponse>, Status>) -> Result<String, (Code, String)> {
    match answer {
        Ok(answer) => Ok(answer.into_inner().msg),
        Err(refused) => {
            let first = refused.message().lines().next().unwrap_or_default();
            Err((refused.code(), first.to_owned()))
        }
    }
}

fn refused(code: Code, message: &str) -> Result<String, (Code, String)> {
    Err((code, message.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go() {
    let server = store().await;
    let mut client = server.grpc_management();
    let answer = client.register_model(register("echo-1.0.mar")).await;
    let message = "Model \"echo\" Version: 1.0 registered with 1 initial workers";
    assert_eq!(told(answer).as_deref(), Ok(message));
    let asynchronous = RegisterModelRequest {
        synchronous: false,
        ..register("echo-2.0.mar")
    };
    let answer = client.register_model(asynchronous).await;
    assert_eq!(told(answer).as_deref(), Ok("Processing worker updates..."));
    let answer = client.register_model(register("echo-1.0.mar")).await;
    let message = "Model version 1.0 is already registered for model echo";
    assert_eq!(told(answer), refused(Code::AlreadyExists, message));
    let answer = client.unregister_model(unregister("echo", "")).await;
    let message = "Cannot remove default version for model echo";
    assert_eq!(told(answer), refused(Code::FailedPrecondition, message));
    for version in ["2.0", "1.0"] {
        let answer = client.unregister_model(unregister("echo", version)).await;
        assert_eq!(told(answer).as_deref(), Ok("Model \"echo\" unregistered"));
    }
    let answer = client.unregister_model(unregister("echo", "")).await;
    assert_eq!(
        told(answer),
        refused(Code::NotFound, "Model not found: echo")
    );
    let answer = client.unregister_model(unregister("", "")).await;
    assert_eq!(
        told(answer),
        refused(Code::InvalidArgument, "Parameter url is required.")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_registrations_have_torchserves_codes() {
    let server = store().await;
    let mut client = server.grpc_management();
    let answer = client.register_model(register("")).await;
    assert_eq!(
        told(answer),
        refused(Code::InvalidArgument, "Parameter url is required.")
    );
    let runtime = RegisterModelRequest {
        runtime: "python4".to_owned(),
        ..register("echo-1.0.mar")
    };
    let answer = client.register_model(runtime).await;
    let message = "Invalid RuntimeType value: python4";
    assert_eq!(told(answer), refused(Code::InvalidArgument, message));
    let negative = RegisterModelRequest {
        batch_size: -1,
        ..register("echo-1.0.mar")
    };
    let (code, _) = told(client.register_model(negative).await).unwrap_err();
    assert_eq!(code, Code::InvalidArgument);
    let (code, _) = told(client.register_model(register("nowhere.mar")).await).unwrap_err();
    assert_eq!(code, Code::NotFound);
    let (code, message) =
        told(client.register_model(register("broken-1.0.mar")).await).unwrap_err();
    assert_eq!(code, Code::Internal);
    assert!(
        message.starts_with("Failed to start workers for model broken"),
        "{message}"
    );
    let list = client.list_models(ListModelsRequest::default()).await;
    assert_eq!(told(list).as_deref(), Ok("{\n  \"models\": []\n}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_model_api_models_neither_come_nor_go() {
    let builder = TestServer::builder().api(|api| api.enable_model_api = false);
    let server = builder.model(Model::new("echo")).start().await;
    let mut client = server.grpc_management();
    let denied = refused(Code::PermissionDenied, "Model API disabled");
    assert_eq!(told(client.register_model(register("x.mar")).await), denied);
    assert_eq!(
        told(client.unregister_model(unregister("echo", "")).await),
        denied
    );
    assert!(
        client
            .scale_worker(scale("echo", Some(1), None))
            .await
            .is_ok()
    );
    assert!(client.describe_model(describe("echo", "")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_scaled_to_none_and_back() {
    let server = store().await;
    let mut client = server.grpc_management();
    client
        .register_model(register("echo-1.0.mar"))
        .await
        .unwrap();
    for (min, max, message) in [
        (Some(2), Some(3), "Workers scaled to 2 for model: echo"),
        (Some(0), None, "Workers scaled to 0 for model: echo"),
        // A number that is not sent counts as 1, as in TorchServe.
        (None, None, "Workers scaled to 1 for model: echo"),
    ] {
        let answer = client.scale_worker(scale("echo", min, max)).await;
        assert_eq!(told(answer).as_deref(), Ok(message));
    }
    let asynchronous = ScaleWorkerRequest {
        synchronous: false,
        model_version: "1.0".to_owned(),
        ..scale("echo", Some(1), None)
    };
    let answer = client.scale_worker(asynchronous).await;
    assert_eq!(told(answer).as_deref(), Ok("Processing worker updates..."));
    let answer = client.scale_worker(scale("echo", Some(2), Some(1))).await;
    let message = "max_worker cannot be less than min_worker.";
    assert_eq!(told(answer), refused(Code::InvalidArgument, message));
    let (code, _) = told(client.scale_worker(scale("echo", Some(-1), None)).await).unwrap_err();
    assert_eq!(code, Code::Internal);
    for model in ["nope", ""] {
        let answer = client.scale_worker(scale(model, Some(1), None)).await;
        assert_eq!(
            told(answer),
            refused(Code::NotFound, &format!("Model not found: {model}"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptions_are_those_of_rest_without_the_line_break() {
    let server = store().await;
    let mut client = server.grpc_management();
    client
        .register_model(register("echo-1.0.mar"))
        .await
        .unwrap();
    client
        .register_model(register("echo-2.0.mar"))
        .await
        .unwrap();
    for (version, path) in [
        ("", "/models/echo"),
        ("2.0", "/models/echo/2.0"),
        ("all", "/models/echo/all"),
    ] {
        let answer = told(client.describe_model(describe("echo", version)).await).unwrap();
        assert!(answer.starts_with("[\n  {\n    \"modelName\"") && answer.ends_with(']'));
        let (mut here, mut there): (Value, Value) = (
            serde_json::from_str(&answer).unwrap(),
            server.management("GET", path).await.json(),
        );
        for one in [&mut here, &mut there] {
            // These values differ from run to run.
            for version in one.as_array_mut().unwrap() {
                version["workers"] = Value::Null;
            }
        }
        assert_eq!(here, there);
    }
    for (model, version, message) in [
        ("nope", "", "Model not found: nope"),
        ("", "", "Model not found: "),
        (
            "echo",
            "9",
            "Model version: 9 does not exist for model: echo",
        ),
    ] {
        let answer = client.describe_model(describe(model, version)).await;
        assert_eq!(told(answer), refused(Code::NotFound, message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages() {
    let server = store().await;
    let mut client = server.grpc_management();
    client
        .register_model(register("echo-1.0.mar"))
        .await
        .unwrap();
    let all = "{\n  \"models\": [\n    {\n      \"modelName\": \"echo\",\n      \"modelUrl\": \
               \"echo-1.0.mar\"\n    }\n  ]\n}";
    let none = "{\n  \"nextPageToken\": \"0\",\n  \"models\": []\n}";
    for (limit, expected) in [
        (None, all),
        (Some(1000), all),
        (Some(-1), all),
        (Some(0), none),
    ] {
        let request = ListModelsRequest {
            limit,
            next_page_token: 0,
        };
        let answer = told(client.list_models(request).await).unwrap();
        assert_eq!(answer, expected, "{limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_version_is_changed() {
    let server = store().await;
    let mut client = server.grpc_management();
    client
        .register_model(register("echo-1.0.mar"))
        .await
        .unwrap();
    client
        .register_model(register("echo-2.0.mar"))
        .await
        .unwrap();
    let set = |model: &str, version: &str| SetDefaultRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
    };
    let answer = client.set_default(set("echo", "2.0")).await;
    let message = "Default version successfully updated for model \"echo\" to \"2.0\"";
    assert_eq!(told(answer).as_deref(), Ok(message));
    let described = told(client.describe_model(describe("echo", "")).await).unwrap();
    assert!(
        described.contains("\"modelVersion\": \"2.0\""),
        "{described}"
    );
    for (model, version) in [("echo", "9"), ("nope", "1.0"), ("echo", "")] {
        let (code, _) = told(client.set_default(set(model, version)).await).unwrap_err();
        assert_eq!(code, Code::NotFound, "{model} {version}");
    }
}
