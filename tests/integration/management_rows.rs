//! A table of simple calls of the management API: request, status, and a part of the answer.

use lantern::api::Listener;
use serde_json::{Value, json};

use crate::support::{Answer, Model, TestServer};

/// Method, path, status, and the member of the answer that is checked, with its value.
type Row<'a> = (&'a str, &'a str, u16, &'a str, &'a str);

const NOT_ALLOWED: &str = "Requested method is not allowed, please refer to API document.";
const NOT_FOUND: &str = "Requested resource is not found, please refer to API document.";

async fn each_is_answered(server: &TestServer, rows: &[Row<'_>]) {
    for (method, path, status, pointer, value) in rows {
        let answer = server.management(method, path).await;
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
        let body = answer.json();
        let found = body.pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(*value), "{method} {path}: {}", answer.text());
    }
}

/// Two versions of `echo`, the first the default.
async fn two_versions() -> TestServer {
    let builder = TestServer::builder()
        .model(Model::new("echo"))
        .in_store(Model::new("echo").version("2.0"))
        .in_store(Model::new("echo").named("idle").without_workers());
    let server = builder.start().await;
    let added = server.management("POST", "/models?url=echo-2.0.mar").await;
    assert_eq!(added.status, 200, "{}", added.text());
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_its_methods_and_no_others() {
    let server = two_versions().await;
    each_is_answered(
        &server,
        &[
            ("OPTIONS", "/", 200, "/openapi", "3.0.1"),
            ("POST", "/api-description", 200, "/openapi", "3.0.1"),
            ("GET", "/", 405, "/message", NOT_ALLOWED),
            ("PUT", "/models", 405, "/message", NOT_ALLOWED),
            ("PATCH", "/models", 405, "/message", NOT_ALLOWED),
            ("DELETE", "/models", 405, "/message", NOT_ALLOWED),
            ("OPTIONS", "/models", 405, "/message", NOT_ALLOWED),
            ("POST", "/models/echo", 405, "/message", NOT_ALLOWED),
            ("PATCH", "/models/echo/1.0", 405, "/message", NOT_ALLOWED),
            (
                "POST",
                "/models/echo/1.0/set-default",
                405,
                "/message",
                NOT_ALLOWED,
            ),
            ("OPTIONS", "/models/echo", 200, "/openapi", "3.0.1"),
            ("OPTIONS", "/models/echo/2.0", 200, "/openapi", "3.0.1"),
            (
                "OPTIONS",
                "/models/nope",
                404,
                "/message",
                "Model not found: nope",
            ),
            ("POST", "/v1/models/echo", 405, "/message", NOT_ALLOWED),
            ("GET", "/nowhere", 404, "/message", NOT_FOUND),
            ("GET", "//models", 404, "/message", NOT_FOUND),
            ("GET", "/models/echo/1.0/other", 404, "/message", NOT_FOUND),
            ("GET", "/predictions/echo", 404, "/message", NOT_FOUND),
        ],
    )
    .await;
    assert_eq!(server.management("GET", "/models/").await.status, 200);
    assert_eq!(server.management("GET", "/models/echo/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_on_set_default_mean_the_default_version() {
    let server = two_versions().await;
    each_is_answered(
        &server,
        &[
            (
                "GET",
                "/models/echo/2.0/set-default",
                200,
                "/0/modelVersion",
                "1.0",
            ),
            (
                "GET",
                "/models/echo/set-default",
                404,
                "/message",
                "Model version: set-default does not exist for model: echo",
            ),
            (
                "OPTIONS",
                "/models/echo/9/set-default",
                200,
                "/openapi",
                "3.0.1",
            ),
            (
                "DELETE",
                "/models/echo/2.0/set-default",
                403,
                "/message",
                "Cannot remove default version for model echo",
            ),
            (
                "DELETE",
                "/models/echo/2.0",
                200,
                "/status",
                "Model \"echo\" unregistered",
            ),
            (
                "DELETE",
                "/models/echo/2.0/set-default",
                200,
                "/status",
                "Model \"echo\" unregistered",
            ),
            (
                "GET",
                "/models/echo",
                404,
                "/message",
                "Model not found: echo",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_that_of_the_default_versions_workers() {
    let server = two_versions().await;
    let ready = server.management("GET", "/v1/models/echo").await;
    assert_eq!(
        ready.text(),
        "{\n  \"name\": \"echo\",\n  \"ready\": true\n}\n"
    );
    let idle = server.management("POST", "/models?url=idle-1.0.mar").await;
    assert_eq!(idle.status, 200);
    let idle = server.management("GET", "/v1/models/idle").await;
    assert_eq!(
        (idle.status, idle.json()),
        (200, json!({"name": "idle", "ready": false}))
    );
    let gone = server.management("GET", "/v1/models/nope").await;
    assert_eq!(
        (gone.status, &gone.json()["type"]),
        (404, &json!("ModelNotFoundException"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_answered_as_by_the_last_torchserve() {
    let server = TestServer::builder()
        .api(|api| api.enable_model_api = false)
        .start()
        .await;
    let disabled = "Registering new workflows is disabled.";
    let unknown = "Workflow not found: w";
    each_is_answered(
        &server,
        &[
            ("POST", "/workflows", 400, "/message", disabled),
            (
                "POST",
                "/workflows?url=http://127.0.0.1:1/x.war",
                400,
                "/message",
                disabled,
            ),
            ("GET", "/workflows/w", 404, "/message", unknown),
            (
                "DELETE",
                "/workflows/w",
                404,
                "/type",
                "WorkflowNotFoundException",
            ),
            ("PUT", "/workflows", 405, "/message", NOT_ALLOWED),
            ("PUT", "/workflows/w", 405, "/message", NOT_ALLOWED),
            ("POST", "/workflows/w", 405, "/message", NOT_ALLOWED),
        ],
    )
    .await;
    let list = server.management("GET", "/workflows").await;
    assert_eq!(list.text(), "{\n  \"workflows\": []\n}\n");
    let none = server.management("GET", "/workflows?limit=0").await;
    assert_eq!(none.json(), json!({"nextPageToken": "0", "workflows": []}));
}

async fn register_json(server: &TestServer, body: &str) -> Answer {
    let request = server
        .request(Listener::Management, "POST", "/models?url=ignored")
        .header("content-type", "application/json; charset=utf-8");
    Answer::of(request.body(body.to_owned()).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_lenient_json_register_with_the_defaults_for_what_they_leave_out() {
    let server = two_versions().await;
    for body in [
        r#"{"url": "idle-1.0.mar", "batch_size": 2}"#,
        "{'url': 'idle-1.0.mar', 'batch_size': '2', 'unknown': 1}",
        "{url: idle-1.0.mar, batch_size: 2, max_batch_delay: null}",
    ] {
        let answer = register_json(&server, body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let described = server.management("GET", "/models/idle").await.json();
        assert_eq!(described[0]["batchSize"], 2, "{body}");
        assert_eq!(described[0]["maxBatchDelay"], 100, "{body}");
        assert_eq!(described[0]["loadedAtStartup"], false);
        server.management("DELETE", "/models/idle").await;
    }
    let form = server
        .request(Listener::Management, "POST", "/models")
        .form(&[("url", "idle-1.0.mar")]);
    let answer = Answer::of(form.send().await.unwrap()).await;
    assert_eq!(answer.json()["message"], "Parameter url is required.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_registration_and_scaling_say() {
    let server = two_versions().await;
    let none = "Model \"idle\" Version: 1.0 registered with 0 initial workers. Use scale workers API to add workers for \
                the model.";
    let gone = "Model \"idle\" unregistered";
    let one = "Model \"idle\" Version: 1.0 registered with 1 initial workers";
    each_is_answered(
        &server,
        &[
            (
                "POST",
                "/models?url=idle-1.0.mar&initial_workers=-1",
                200,
                "/status",
                none,
            ),
            (
                "DELETE",
                "/models/idle?synchronous=false&timeout=0",
                200,
                "/status",
                gone,
            ),
            (
                "POST",
                "/models?url=idle-1.0.mar&initial_workers=2&startup_timeout=0",
                500,
                "/type",
                "InternalServerException",
            ),
            ("GET", "/models/idle", 200, "/0/lantern/state", "failed"),
            (
                "POST",
                "/models?url=idle-1.0.mar&initial_workers=1&handler=other:handle",
                500,
                "/type",
                "InternalServerException",
            ),
            ("GET", "/models/idle", 200, "/0/lantern/state", "failed"),
            (
                "POST",
                "/models?url=idle-1.0.mar&initial_workers=1",
                200,
                "/status",
                one,
            ),
            (
                "POST",
                "/models?url=idle-1.0.mar",
                409,
                "/type",
                "ConflictStatusException",
            ),
            (
                "PUT",
                "/models/idle?number_gpu=3&timeout=-1&synchronous=true",
                200,
                "/status",
                "Workers scaled to 1 for model: idle",
            ),
            (
                "PUT",
                "/models/idle?model_version=1.0&synchronous=true",
                200,
                "/status",
                "Workers scaled to 1 for model: idle, version: 1.0",
            ),
            (
                "PUT",
                "/models/idle/1.0?synchronous=Nan",
                202,
                "/status",
                "Processing worker updates...",
            ),
            (
                "PUT",
                "/models/idle/7",
                404,
                "/message",
                "Model version: 7 does not exist for model: idle",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_gets_more_than_the_operator_allows() {
    let builder = TestServer::builder()
        .set("lantern_max_workers=2")
        .set("lantern_max_batch_size=4")
        .in_store(Model::new("echo").without_workers());
    let server = builder.start().await;
    for (method, path, says) in [
        (
            "POST",
            "/models?url=echo-1.0.mar&initial_workers=3",
            "maxWorkers must be at most 2",
        ),
        (
            "POST",
            "/models?url=echo-1.0.mar&batch_size=5",
            "batchSize must be at most 4",
        ),
    ] {
        let answer = server.management(method, path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    let added = server
        .management("POST", "/models?url=echo-1.0.mar&batch_size=4")
        .await;
    assert_eq!(added.status, 200);
    let refused = server.management("PUT", "/models/echo?min_worker=3").await;
    assert_eq!(refused.status, 400);
    let scaled = server
        .management("PUT", "/models/echo?min_worker=2&synchronous=true")
        .await;
    assert_eq!(scaled.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptions_show_what_the_author_said() {
    let model = Model::linear()
        .with("clientTimeoutInMills: 1500")
        .with("maxRetryTimeoutInSec: 7");
    let server = TestServer::with(model).await;
    let described = server.management("GET", "/models/linear/1.0").await.json();
    assert_eq!(described[0]["clientTimeoutInMills"], 1500);
    assert_eq!(described[0]["maxRetryTimeoutInSec"], 7);
    assert_eq!(described[0]["loadedAtStartup"], true);
    assert_eq!(described[0]["modelUrl"], "linear-1.0.mar");
    assert!(described[0].get("deviceIds").is_none());
}
