//! The start of a server: listed models are known before it listens, requests for them wait within their deadlines, and
//! probes show what is missing.

use std::sync::Arc;
use std::time::Duration;

use lantern::api::Listener;
use lantern::api::grpc::proto::open_inference::ModelReadyRequest;
use lantern::backend::fake::FakeBackend;
use serde_json::{Value, json};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::origin::Origin;
use crate::support::{Answer, Builder, Model, ROW, TestServer, prediction, tensor};

/// An origin that holds `model`'s archive until it is released.
async fn held(model: &Model) -> Origin {
    Origin::serving(model.packed()).await.hold()
}

/// A server that is fetching `model` from the origin, under a name that the settings give.
async fn fetching(model: &Model) -> (Origin, Builder) {
    let origin = held(model).await;
    let listed = format!("linear={}", origin.url("/linear.mar"));
    let builder = TestServer::builder().list(&listed);
    (origin, builder)
}

fn both() -> [Model; 2] {
    [Model::linear(), Model::linear().in_process()]
}

async fn described(server: &TestServer, path: &str) -> Value {
    let answer = server.management("GET", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Waits until so many requests wait for the model.
async fn wait_for_pending(server: &TestServer, path: &str, requests: usize) {
    loop {
        let described = described(server, path).await;
        if described[0]["jobQueueStatus"]["pendingRequests"] == requests {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn status(server: &TestServer, path: &str) -> u16 {
    server.inference("GET", path).await.status
}

fn row_of_tensors() -> String {
    let row: Value = serde_json::from_str(ROW).unwrap();
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 16], "data": row["x"]});
    json!({"inputs": [input], "outputs": [{"name": "y"}]}).to_string()
}

async fn post(server: &TestServer, path: &str, body: String) -> Answer {
    let request = server.request(Listener::Inference, "POST", path);
    let request = request.header("content-type", "application/json");
    Answer::of(request.body(body).send().await.unwrap()).await
}

/// Sends a request to each path of a prediction, and one over gRPC; none has been answered.
fn ask_everywhere(server: &Arc<TestServer>) -> tokio::task::JoinSet<(String, u16, String)> {
    let mut asked = tokio::task::JoinSet::new();
    for (path, body) in [
        ("/predictions/linear", ROW.to_owned()),
        ("/predictions/linear/1.0", ROW.to_owned()),
        ("/v1/models/linear:predict", ROW.to_owned()),
        ("/invocations", ROW.to_owned()),
        ("/invocations?model_name=linear", ROW.to_owned()),
        ("/models/linear/invoke", ROW.to_owned()),
        ("/linear/predict", ROW.to_owned()),
        ("/v2/models/linear/infer", row_of_tensors()),
    ] {
        let server = Arc::clone(server);
        asked.spawn(async move {
            let answer = post(&server, path, body).await;
            (path.to_owned(), answer.status, answer.text().to_owned())
        });
    }
    let server = Arc::clone(server);
    asked.spawn(async move {
        let answer = server
            .grpc_inference()
            .predictions(prediction("linear", ROW))
            .await;
        ("gRPC".to_owned(), 200, format!("{:?}", answer.unwrap()))
    });
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_model_that_is_fetched_wait_for_it_in_both_hosts() {
    for model in both() {
        let (origin, builder) = fetching(&model).await;
        let server = Arc::new(builder.begin());
        let shown = described(&server, "/models/linear").await;
        assert_eq!(shown[0]["lantern"]["state"], "loading", "{shown}");
        assert_eq!(
            (&shown[0]["workers"], &shown[0]["loadedAtStartup"]),
            (&json!([]), &json!(true))
        );
        let asked = ask_everywhere(&server);
        wait_for_pending(&server, "/models/linear", asked.len()).await;
        origin.release();
        for (path, status, text) in asked.join_all().await {
            assert_eq!(status, 200, "{path}: {text}");
        }
        let shown = described(&server, "/models/linear").await;
        assert_eq!(shown[0]["lantern"]["state"], "ready", "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_told_that_a_model_is_still_to_come() {
    let (origin, builder) = fetching(&Model::linear()).await;
    let mut server = builder.begin();
    let mut health = server.grpc_health(Listener::GrpcInference);
    let mut of = async |service: &str| {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await;
        answer.unwrap().into_inner().status()
    };
    let paths = [
        "/ping",
        "/health/live",
        "/v2/health/live",
        "/health/ready",
        "/v2/health/ready",
        "/v2/models/linear/ready",
    ];
    for (path, expected) in paths.into_iter().zip([200, 200, 200, 503, 503, 503]) {
        assert_eq!(status(&server, path).await, expected, "{path}");
    }
    for service in ["", "linear", "linear/1.0"] {
        assert_eq!(of(service).await, ServingStatus::NotServing, "{service:?}");
    }
    let kserve = server.management("GET", "/v1/models/linear").await;
    assert_eq!(kserve.json(), json!({"name": "linear", "ready": false}));
    let ready = ModelReadyRequest {
        name: "linear".to_owned(),
        version: String::new(),
    };
    let ready = server
        .grpc_open_inference()
        .model_ready(ready)
        .await
        .unwrap();
    assert!(!ready.into_inner().ready);
    let list = server.management("GET", "/models").await.json();
    assert_eq!(list["models"][0]["modelName"], "linear");
    let index = Answer::of(
        server
            .request(Listener::Inference, "POST", "/v2/repository/index")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(index.json()[0]["state"], "LOADING", "{}", index.text());
    origin.release();
    server.loaded().await;
    for path in paths {
        assert_eq!(status(&server, path).await, 200, "{path}");
    }
    for service in ["", "linear", "linear/1.0"] {
        assert_eq!(of(service).await, ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_the_deadline_is_to_be_asked_again() {
    let (_origin, builder) = fetching(&Model::linear()).await;
    let server = builder.set("default_response_timeout=1").begin();
    for (path, body) in [
        ("/predictions/linear", ROW.to_owned()),
        ("/invocations", ROW.to_owned()),
        ("/v1/models/linear:predict", ROW.to_owned()),
        ("/v2/models/linear/infer", row_of_tensors()),
    ] {
        let refused = post(&server, path, body).await;
        let seen = (refused.status, refused.header("retry-after"));
        assert_eq!(seen, (503, Some("1")), "{path}: {}", refused.text());
    }
    let refused = post(&server, "/predictions/linear", ROW.to_owned())
        .await
        .json();
    assert_eq!(
        refused,
        json!({"code": 503, "type": "ServiceUnavailableException", "message": "Model \"linear\" is still loading"})
    );
    // The client's own deadline counts if it is sooner.
    let mut request = tonic::Request::new(prediction("linear", ROW));
    request.set_timeout(Duration::from_mins(1));
    let refused = server
        .grpc_inference()
        .predictions(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_name_is_not_known_yet_may_be_any() {
    for model in both() {
        let origin = held(&model.named("secret")).await;
        let builder = TestServer::builder().list(&origin.url("/archive.mar"));
        let server = Arc::new(builder.begin());
        let ask = |model: &'static str| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.predict(model, ROW).await })
        };
        let (secret, unknown) = (ask("secret"), ask("unknown"));
        while origin.heads().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!secret.is_finished() && !unknown.is_finished());
        origin.release();
        assert_eq!(secret.await.unwrap().status, 200);
        assert_eq!(unknown.await.unwrap().status, 404);
    }
}

#[tokio::test]
async fn what_lies_in_the_store_is_known_before_anything_runs() {
    let fake = || Model::fake().version("3.1").with("responseTimeout: 7");
    for builder in [
        TestServer::builder().model(fake()),
        TestServer::builder().in_store(fake()).list("all"),
    ] {
        // No other task runs on this thread before the first await.
        let mut server = builder.begin();
        let catalog = server.catalog().clone();
        assert!(!catalog.is_ready());
        assert_eq!(
            catalog.is_version_ready("fake", Some("3.1")).ok(),
            Some(false)
        );
        assert!(catalog.is_version_ready("fake", Some("3.2")).is_err());
        assert!(catalog.is_version_ready("other", None).is_err());
        let shown = catalog.describe_expected("fake", lantern::catalog::Which::Default);
        assert_eq!(shown[0].condition.name(), "loading");
        assert_eq!(
            shown[0].spec.settings.response_timeout,
            Duration::from_secs(7)
        );
        assert_eq!(shown[0].backend, Some(lantern::model::BackendKind::Fake));
        server.loaded().await;
        assert!(catalog.is_ready());
        assert_eq!(
            catalog.is_version_ready("fake", Some("3.1")).ok(),
            Some(true)
        );
        assert!(
            catalog
                .describe_expected("fake", lantern::catalog::Which::All)
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_while_the_weights_load() {
    let fake = FakeBackend::new();
    fake.load_gate().shut();
    let builder = TestServer::builder()
        .fake(fake)
        .model(Model::fake().with("responseTimeout: 1"));
    let server = Arc::new(builder.begin());
    let refused = server.predict("fake", tensor(1.0)).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{}",
        refused.text()
    );
    assert_eq!(status(&server, "/health/ready").await, 503);
    assert_eq!(
        described(&server, "/models/fake").await[0]["lantern"]["state"],
        "loading"
    );
    server.load_gate().open();
    while status(&server, "/health/ready").await != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_to_be_the_default_is_waited_for_and_holds_up_nobody_else() {
    let origin = held(&Model::linear()).await;
    let first = format!("linear={}", origin.url("/first.mar"));
    let second = Model::linear().version("2.0");
    let builder = TestServer::builder().list(&first).model(second);
    let server = Arc::new(builder.model(Model::new("echo")).begin());
    // Requests for another model or another version do not wait for the archive that is fetched.
    assert_eq!(server.predict("echo", "hi").await.text(), "hi");
    assert_eq!(server.predict("linear/2.0", ROW).await.status, 200);
    let asked = Arc::clone(&server);
    let default = tokio::spawn(async move {
        post(&asked, "/v2/models/linear/infer", row_of_tensors())
            .await
            .json()
    });
    wait_for_pending(&server, "/models/linear/1.0", 1).await;
    assert!(!default.is_finished());
    origin.release();
    let answer = default.await.unwrap();
    assert_eq!(answer["model_version"], "1.0", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_named_as_the_default_waits_for_no_other() {
    let origin = held(&Model::linear()).await;
    let first = format!("linear={}", origin.url("/first.mar"));
    let builder = TestServer::builder().list(&first);
    let named =
        r#"models={"linear": {"2.0": {"defaultVersion": true, "marName": "linear-2.0.mar"}}}"#;
    let builder = builder.model(Model::linear().version("2.0")).set(named);
    let mut server = builder.begin();
    let path = "/v2/models/linear/infer";
    let answer = post(&server, path, row_of_tensors()).await.json();
    // Version 2.0 answers, although the archive that is fetched may turn out to be version 2.0 as well.
    assert_eq!(answer["model_version"], "2.0", "{answer}");
    origin.release();
    server.loaded().await;
    let answer = post(&server, path, row_of_tensors()).await.json();
    assert_eq!(answer["model_version"], "2.0", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_wait_as_the_queue_takes() {
    let (origin, builder) = fetching(&Model::linear()).await;
    let server = Arc::new(builder.set("job_queue_size=2").begin());
    let ask = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.predict("linear", ROW).await.status })
    };
    let waiting = [ask(), ask()];
    wait_for_pending(&server, "/models/linear", 2).await;
    assert_eq!(ask().await.unwrap(), 503);
    origin.release();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn management_waits_as_well() {
    let (origin, builder) = fetching(&Model::linear()).await;
    let server = Arc::new(builder.begin());
    let call = |method: &'static str, path: &'static str| {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.management(method, path).await.status })
    };
    let scaled = call("PUT", "/models/linear?min_worker=2&synchronous=true");
    wait_for_pending(&server, "/models/linear", 1).await;
    origin.release();
    assert_eq!(scaled.await.unwrap(), 200);
    assert_eq!(
        described(&server, "/models/linear").await[0]["minWorkers"],
        2
    );
    assert_eq!(call("DELETE", "/models/linear").await.unwrap(), 200);
    assert_eq!(server.management("GET", "/models/linear").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_server_stops_is_told() {
    let (_origin, builder) = fetching(&Model::linear()).await;
    let mut server = builder.begin();
    let request = server
        .request(Listener::Inference, "POST", "/predictions/linear")
        .body(ROW);
    let waiting = tokio::spawn(async move { request.send().await.unwrap().status() });
    wait_for_pending(&server, "/models/linear", 1).await;
    let stopped = server.begin_stop();
    assert_eq!(waiting.await.unwrap(), 503);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_opened_is_one_failed_model() {
    for (setting, ready) in [("all", 503), ("any", 200), ("none", 200)] {
        let builder = TestServer::builder()
            .model(Model::new("echo"))
            .list("lost=nope.mar");
        let setting = format!("lantern_ready_requires={setting}");
        let server = builder.set(&setting).start().await;
        assert_eq!(status(&server, "/health/ready").await, ready, "{setting}");
        assert_eq!(
            status(&server, "/v2/health/ready").await,
            ready,
            "{setting}"
        );
        assert_eq!(status(&server, "/ping").await, 200);
        assert_eq!(server.predict("echo", "hi").await.text(), "hi");
        let shown = described(&server, "/models/lost").await;
        assert_eq!(shown[0]["lantern"]["state"], "failed");
        assert_eq!(
            shown[0]["lantern"]["reason"],
            "Model not found at: nope.mar"
        );
        let refused = server.predict("lost", "hi").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, None));
        // Where archives lie is for those who manage models.
        assert!(refused.text().contains("could not be loaded"));
        assert!(!refused.text().contains("nope"), "{}", refused.text());
        let failed = server
            .sample("lantern_load_failed{model_name=\"lost\"")
            .await;
        assert_eq!(failed, Some(1.0));
        assert_eq!(
            server.management("DELETE", "/models/lost").await.status,
            200
        );
        assert_eq!(
            server.management("DELETE", "/models/lost").await.status,
            404
        );
        assert_eq!(server.management("GET", "/models/lost").await.status, 404);
        assert_eq!(status(&server, "/health/ready").await, 200, "{setting}");
        assert_eq!(
            server
                .sample("lantern_load_failed{model_name=\"lost\"")
                .await,
            None
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_registered_again_has_not_failed() {
    let fresh = Model::new("echo").named("late");
    let server = TestServer::builder()
        .list("late=late-1.0.mar")
        .start()
        .await;
    assert_eq!(status(&server, "/health/ready").await, 503);
    fresh.pack_into(&server.store());
    let register = "/models?url=late-1.0.mar&initial_workers=1";
    assert_eq!(server.management("POST", register).await.status, 200);
    assert_eq!(status(&server, "/health/ready").await, 200);
    assert_eq!(
        described(&server, "/models/late").await[0]["lantern"]["state"],
        "ready"
    );
}
