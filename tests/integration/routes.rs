//! The paths of the inference API, and what the handler gets of query, headers and body on each.

use lantern::api::Listener;
use serde_json::{Value, json};

use crate::support::{Answer, Model, TestServer};

/// Without Open Inference Protocol, so that `KServe`'s paths lead to the handler.
async fn mirror() -> TestServer {
    let server = TestServer::builder().model(Model::new("mirror"));
    server.api(|api| api.oip = false).start().await
}

/// The request as the handler got it.
async fn seen(server: &TestServer, path: &str, content_type: &str, body: &str) -> Value {
    let request = server.request(Listener::Inference, "POST", path);
    let request = match content_type {
        "" => request,
        _ => request.header("content-type", content_type),
    };
    let answer = Answer::of(request.body(body.to_owned()).send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn post(server: &TestServer, path: &str) -> Answer {
    server.inference("POST", path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_a_prediction_reaches_the_handler() {
    let server = mirror().await;
    for (path, headers) in [
        (
            "/predictions/mirror",
            json!({"explain": "False", "url_path": ""}),
        ),
        (
            "/predictions/mirror/1.0",
            json!({"explain": "False", "url_path": ""}),
        ),
        (
            "/predictions/mirror/1.0/v1/chat",
            json!({"explain": "False", "url_path": "v1/chat"}),
        ),
        (
            "/predictions/mirror?data=qq",
            json!({"explain": "False", "url_path": ""}),
        ),
        ("/v1/models/mirror:predict", json!({"explain": "False"})),
        ("/v2/models/mirror/infer", json!({"explain": "False"})),
        ("/models/mirror/invoke", json!({})),
        ("/invocations", json!({})),
        ("/mirror/predict", json!({})),
        ("/mirror/1.0/predict", json!({})),
    ] {
        let seen = seen(&server, path, "", "hi").await;
        let own = ["explain", "url_path"].map(|name| seen["headers"].get(name).cloned());
        let expected = ["explain", "url_path"].map(|name| headers.get(name).cloned());
        assert_eq!(own, expected, "{path}");
        assert_eq!(seen["body"], json!({"raw": "hi"}), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_predicts_on_every_path() {
    let server = mirror().await;
    for method in ["GET", "PUT", "PATCH", "DELETE", "POST", "PURGE"] {
        for path in [
            "/v1/models/mirror:predict",
            "/v2/models/mirror/infer",
            "/models/mirror/invoke",
            "/invocations",
            "/mirror/predict",
        ] {
            assert_eq!(
                server.inference(method, path).await.status,
                200,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_prediction_is_the_models_document() {
    let server = mirror().await;
    for path in [
        "/predictions/mirror",
        "/predictions/mirror/1.0",
        "/explanations/mirror",
        "/v1/models/mirror:predict",
        "/v1/models/mirror:explain",
        "/v2/models/mirror/infer",
        "/v2/models/mirror/explain",
        "/models/mirror/invoke",
        "/invocations",
        "/mirror/predict",
        "/mirror/1.0/predict",
    ] {
        let answer = server.inference("OPTIONS", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(
            answer.json()["info"]["title"],
            "RESTful API for: mirror",
            "{path}"
        );
    }
    for (path, kind) in [
        ("/predictions/nomodel", "ModelNotFoundException"),
        ("/predictions/mirror/7", "ModelVersionNotFoundException"),
        ("/v1/models/nomodel:predict", "ModelNotFoundException"),
    ] {
        let answer = server.inference("OPTIONS", path).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (404, Some(kind)),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explanations_say_that_the_handler_gives_none() {
    let server = mirror().await;
    for path in [
        "/explanations/mirror",
        "/explanations/mirror/1.0",
        "/v1/models/mirror:explain",
        "/v2/models/mirror/explain",
    ] {
        let answer = post(&server, path).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_u64()),
            (501, Some(501)),
            "{path}"
        );
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with("Model \"mirror\" does not explain"),
            "{message}"
        );
    }
    assert_eq!(
        post(&server, "/explanations/nomodel").await.json()["type"],
        "ModelNotFoundException"
    );
    assert_eq!(
        post(&server, "/explanations").await.json()["type"],
        "ResourceNotFoundException"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn query_parameters_are_fields_on_sagemakers_and_the_old_paths() {
    let server = mirror().await;
    for path in [
        "/invocations?model_name=mirror",
        "/models/mirror/invoke?model_name=mirror",
        "/mirror/predict?model_name=mirror",
    ] {
        let seen = seen(
            &server,
            &format!("{path}&data=q+q"),
            "application/json; charset=utf-8",
            "zzz",
        )
        .await;
        let expected = json!({"form": [
            ["model_name", null, "mirror"],
            ["data", null, "q q"],
            ["body", "application/json", "zzz"],
        ]});
        assert_eq!(seen["body"], expected, "{path}");
    }
    let noop = server
        .inference("GET", "/mirror/predict?data=test")
        .await
        .json();
    assert_eq!(
        noop["body"],
        json!({"form": [["data", null, "test"], ["body", null, ""]]})
    );
    let plain = seen(&server, "/predictions/mirror?data=qq", "", "zzz").await;
    assert_eq!(plain["body"], json!({"raw": "zzz"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_find_their_model() {
    let form = "application/x-www-form-urlencoded";
    let builder = TestServer::builder().model(Model::new("mirror"));
    let server = builder.in_store(Model::new("echo")).start().await;
    let registered = server
        .management("POST", "/models?url=echo-1.0.mar&initial_workers=1")
        .await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let by_start = seen(&server, "/invocations", form, "a=b").await;
    assert_eq!(
        by_start["body"],
        json!({"form": [["a", null, "b"]]}),
        "the only model of the start"
    );
    let empty = seen(&server, "/invocations?model_name=", "", "x").await;
    assert_eq!(empty["body"]["form"][0], json!(["model_name", null, ""]));
    assert_eq!(
        post(&server, "/invocations?model_name=echo").await.status,
        200
    );
    let unknown = post(&server, "/invocations?model_name=nomodel").await;
    assert_eq!(unknown.json()["message"], "Model not found: nomodel");

    let builder = TestServer::builder().model(Model::new("mirror"));
    let two = builder.model(Model::new("echo")).start().await;
    let required = post(&two, "/invocations").await;
    insta::assert_snapshot!("model_name_required", required);
    let by_field = seen(&two, "/invocations", form, "model_name=mirror&a=b").await;
    let expected = json!({"form": [["model_name", null, "mirror"], ["a", null, "b"]]});
    assert_eq!(by_field["body"], expected);
    let options = two.inference("OPTIONS", "/invocations").await;
    assert_eq!(
        options.json()["message"],
        "Parameter model_name is required."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_reach_the_handler_as_torchserve_parses_them() {
    let server = mirror().await;
    let path = "/predictions/mirror";
    for (content_type, body, content_type_seen, body_seen) in [
        ("", "x", Value::Null, json!({"raw": "x"})),
        ("", "", Value::Null, json!({"raw": ""})),
        (
            "application/json",
            "{}",
            json!("application/json"),
            json!({"raw": "{}"}),
        ),
        (
            "text/csv; charset=utf-8",
            "1,2",
            json!("text/csv"),
            json!({"raw": "1,2"}),
        ),
        (
            "application/x-www-form-urlencoded",
            "a=1+2&b=%26&a=3",
            json!("application/x-www-form-urlencoded"),
            json!({"form": [["a", null, "1 2"], ["b", null, "&"], ["a", null, "3"]]}),
        ),
        (
            "multipart/form-data; boundary=x",
            "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhi\r\n\
             --x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\nf\r\n\
             --x\r\nContent-Disposition: form-data; name=\"j\"; filename=\"b\"\r\n\
             Content-Type: application/json\r\n\r\n{}\r\n--x--\r\n",
            json!("multipart/form-data"),
            json!({"form": [["t", null, "hi"], ["f", "application/octet-stream", "f"], ["j", "application/json", "{}"]]}),
        ),
    ] {
        let seen = seen(&server, path, content_type, body).await;
        assert_eq!(seen["content_type"], content_type_seen, "{content_type}");
        assert_eq!(seen["body"], body_seen, "{content_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_reach_the_handler_without_credentials() {
    let server = mirror().await;
    let request = server
        .request(Listener::Inference, "POST", "/predictions/mirror/1.0/a")
        .header("X-Req", "1")
        .header("X-Req", "2")
        .header("authorization", "Bearer secret")
        .header("cookie", "secret")
        .header("explain", "True")
        .header("url_path", "mine")
        .header("x-request-id", "mine");
    let answer = Answer::of(request.body("x").send().await.unwrap()).await;
    let seen = answer.json();
    assert_eq!(seen["headers"]["x-req"], "2");
    assert_eq!(seen["headers"]["explain"], "False");
    assert_eq!(seen["headers"]["url_path"], "a");
    assert_eq!(seen["headers"]["content-length"], "1");
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    assert_eq!(seen["id"].as_str(), answer.header("x-request-id"));
    assert_ne!(answer.header("x-request-id"), Some("mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_unknown() {
    let server = TestServer::builder().start().await;
    insta::assert_snapshot!("unknown_workflow", post(&server, "/wfpredict/dog").await);
    assert_eq!(
        post(&server, "/wfpredict").await.json()["type"],
        "ResourceNotFoundException"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_handlers_are_sent_as_they_are() {
    let server = TestServer::with(Model::new("hostile").artifact("linear.onnx")).await;
    let answer = |act: &'static str| server.predict("hostile", act);
    for status in [201, 299, 404, 418, 499, 507, 599, 600, 999] {
        let order = format!("status {status}");
        let answer = server.predict("hostile", order).await;
        assert_eq!((answer.status, answer.text()), (status, "hostile"));
        let connection = if status < 400 { "keep-alive" } else { "close" };
        assert_eq!(answer.header("connection"), Some(connection), "{status}");
    }
    for bad in ["status 99", "status 100", "status 1000", "status 204"] {
        let refused = answer(bad).await;
        assert_eq!(refused.json()["type"], "InternalServerException", "{bad}");
        assert_eq!(refused.status, 503, "{bad}");
    }
    let dummy = answer("header dummy 1").await;
    assert_eq!(dummy.header("dummy"), Some("1"));
    for name in ["x-request-id", "pragma", "cache-control", "expires"] {
        let order = format!("header {name} mine");
        let answer = server.predict("hostile", order).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_ne!(answer.header(name), Some("mine"), "the server's own wins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_unpacked() {
    use std::io::Write as _;
    let server = mirror().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(b"{\"a\": 1}").unwrap();
    let packed = encoder.finish().unwrap();
    let request = server
        .request(Listener::Inference, "POST", "/predictions/mirror")
        .header("content-encoding", "gzip")
        .header("content-type", "application/json");
    let answer = Answer::of(request.body(packed).send().await.unwrap()).await;
    let seen = answer.json();
    assert_eq!(seen["body"], json!({"raw": "{\"a\": 1}"}));
    assert_eq!(seen["headers"].get("content-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_no_length() {
    let server = TestServer::with(Model::new("hostile").artifact("linear.onnx")).await;
    for (status, length) in [(204, None), (304, None), (205, Some("0"))] {
        let order = format!("empty-status {status}");
        let answer = server.predict("hostile", order).await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (status, length)
        );
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_at_both_places() {
    let server = TestServer::builder().start().await;
    let root = server.inference("OPTIONS", "/").await.json();
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let described = server.inference(method, "/api-description").await;
        assert_eq!(
            (described.status, &described.json()),
            (200, &root),
            "{method}"
        );
    }
    assert_eq!(root["openapi"], "3.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_open_protocol_its_paths_are_unknown() {
    let server = mirror().await;
    for path in [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/mirror",
        "/v2/models/mirror/ready",
        "/v2/models/mirror/versions/1.0/infer",
    ] {
        let answer = server.inference("GET", path).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (404, Some("ResourceNotFoundException")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_without_workers_say_what_to_do() {
    let server = TestServer::builder()
        .in_store(Model::new("echo").without_workers())
        .start()
        .await;
    let registered = server.management("POST", "/models?url=echo-1.0.mar").await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    for (path, start) in [
        (
            "echo",
            "Model \"echo\" has no worker to serve inference request. Please use scale",
        ),
        (
            "echo/1.0",
            "Model \"echo\" Version 1.0\" has no worker to serve inference request. Please",
        ),
    ] {
        let answer = server.predict(path, "x").await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (503, Some("ServiceUnavailableException"))
        );
        assert!(message.starts_with(start), "{message}");
    }
}
