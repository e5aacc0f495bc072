//! Predictions and health.

use lantern::api::Listener;
use serde_json::json;

use crate::support::{Answer, Model, ROW, TestServer, fixture, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_model_answers_through_a_real_handler() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let server = TestServer::with(model).await;
        let answer = server.predict("linear", ROW).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["y"].as_array().unwrap().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_runtime_that_exported_the_model() {
    let reference = std::fs::read(fixture("linear.onnx.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&reference).unwrap();
    let tolerance = reference["tolerance"]["absolute"].as_f64().unwrap();
    let server = TestServer::with(Model::linear()).await;
    for case in reference["cases"].as_array().unwrap() {
        let (Some(outputs), Some(input)) = (
            case["outputs"].as_array(),
            case["inputs"][0]["data"].as_array(),
        ) else {
            continue;
        };
        let rows: Vec<_> = input.chunks(16).collect();
        let answer = server
            .predict("linear", json!({ "x": rows }).to_string())
            .await
            .json();
        let got = answer["y"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap());
        let expected = outputs[0]["data"].as_array().unwrap();
        for (got, expected) in got.zip(expected) {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!(
                (got - expected).abs() <= tolerance + 1e-5 * expected.abs(),
                "{got} {expected}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_elements_are_answered_with_raw_elements() {
    let raw = Model::new("raw").artifact("linear.onnx");
    let server = TestServer::with(raw.with("handler: {input: x, shape: [16]}")).await;
    let answer = server.predict("raw", vec![0; 2 * 64]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 2 * 16));
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    let answer = server.predict("raw", vec![0; 63]).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let expected = "the body has 63 bytes; expected rows of 64 bytes, fp32 [16]";
    assert!(answer.text().contains(expected), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_method_predicts_and_both_forms_of_the_path_work() {
    let server = TestServer::with(Model::new("echo")).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
        for path in [
            "/predictions/echo",
            "/predictions/echo/1.0",
            "/predictions/echo/1.0/a/b",
            "/predictions/echo/",
        ] {
            let request = server.request(Listener::Inference, method, path).body("hi");
            let answer = Answer::of(request.send().await.unwrap()).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, "hi"),
                "{method} {path}"
            );
        }
    }
    let (head, get) = (
        server.inference("HEAD", "/ping").await,
        server.inference("GET", "/ping").await,
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_form_reach_the_handler() {
    let server = TestServer::with(Model::new("echo")).await;
    let path = "/predictions/echo";
    let post = || server.request(Listener::Inference, "POST", path);
    let typed = Answer::of(
        post()
            .header("content-type", "text/csv; charset=utf-8")
            .body("1,2")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (typed.header("content-type"), typed.text()),
        (Some("text/csv"), "1,2")
    );
    let part = reqwest::multipart::Part::bytes(vec![0, 1, 2]).file_name("a.bin");
    let form = reqwest::multipart::Form::new()
        .text("note", "n")
        .part("data", part);
    let multipart = Answer::of(post().multipart(form).send().await.unwrap()).await;
    assert_eq!(multipart.body, [0, 1, 2]);
    let form = Answer::of(post().form(&[("data", "a b&c")]).send().await.unwrap()).await;
    assert_eq!(form.text(), "a b&c");
    let empty = Answer::of(post().send().await.unwrap()).await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn success_has_the_common_headers() {
    let server = TestServer::with(Model::new("echo")).await;
    let request = server
        .request(Listener::Inference, "POST", "/predictions/echo")
        .body("hi");
    insta::assert_snapshot!(Answer::of(request.send().await.unwrap()).await);
    insta::assert_snapshot!(server.inference("GET", "/ping").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_versions_and_paths_are_told_apart() {
    let server = TestServer::with(Model::new("echo")).await;
    insta::assert_snapshot!("unknown_model", server.predict("nomodel", "").await);
    insta::assert_snapshot!("unknown_version", server.predict("echo/2.0", "").await);
    for path in ["/nowhere", "/predictions", "//ping", "/metrics", "/models"] {
        let answer = server.inference("POST", path).await;
        assert_eq!(answer.json()["type"], "ResourceNotFoundException", "{path}");
    }
    insta::assert_snapshot!("unknown_path", server.inference("GET", "/nowhere").await);
    insta::assert_snapshot!("root_is_for_options", server.inference("GET", "/").await);
    insta::assert_snapshot!("api_description", server.inference("OPTIONS", "/").await);
    insta::assert_snapshot!(
        "predict_description",
        server.inference("OPTIONS", "/predictions/echo").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let model = Model::fake().with("jobQueueSize: 2");
    let server = std::sync::Arc::new(TestServer::with(model).await);
    server.gate().shut();
    let mut admitted = tokio::task::JoinSet::new();
    for value in 0..3u8 {
        let server = std::sync::Arc::clone(&server);
        admitted.spawn(async move {
            server
                .predict("fake", tensor(f32::from(value)))
                .await
                .status
        });
    }
    server.wait_for_held(1).await;
    while server
        .sample("lantern_queue_depth{model_name=\"fake\"")
        .await
        != Some(2.0)
    {
        tokio::task::yield_now().await;
    }
    let described = server.management("GET", "/models/fake").await.json();
    assert_eq!(
        described[0]["jobQueueStatus"],
        json!({ "remainingCapacity": 0, "pendingRequests": 2 })
    );
    insta::assert_snapshot!("queue_full", server.predict("fake", tensor(9.0)).await);
    insta::assert_snapshot!(
        "queue_full_of_a_version",
        server.predict("fake/1.0", tensor(9.0)).await
    );
    server.gate().open();
    assert_eq!(admitted.join_all().await, [200, 200, 200]);
    assert_eq!(
        server
            .sample("lantern_rejected_requests_total{model_name=\"fake\"")
            .await,
        Some(2.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_deadline_passes_is_answered_and_counted() {
    let model = Model::fake().with("clientTimeoutInMills: 50");
    let server = TestServer::with(model).await;
    server.gate().shut();
    insta::assert_snapshot!("expired", server.predict("fake", tensor(1.0)).await);
    assert_eq!(
        server
            .sample("lantern_expired_requests_total{model_name=\"fake\"")
            .await,
        Some(1.0)
    );
    server.gate().open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_counted_as_cancelled() {
    let server = TestServer::with(Model::fake()).await;
    server.gate().shut();
    let request = server
        .request(Listener::Inference, "POST", "/predictions/fake")
        .body(tensor(1.0));
    let left = tokio::spawn(request.header("content-type", "application/json").send());
    server.wait_for_held(1).await;
    left.abort();
    while server
        .sample("lantern_cancelled_requests_total{model_name=\"fake\"")
        .await
        != Some(1.0)
    {
        tokio::task::yield_now().await;
    }
    server.gate().open();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_leave_a_line_in_the_access_log() {
    let server = TestServer::with(Model::new("echo")).await;
    server.inference("GET", "/ping?a=b%20c").await;
    let log = server.access_log();
    assert!(log.contains("\"GET /ping?a=b%20c HTTP/1.1\" 200 "), "{log}");
    assert!(log.starts_with("/127.0.0.1:"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_headers_are_sent_where_configured() {
    let server = TestServer::builder()
        .set("cors_allowed_origin=https://example.org")
        .start()
        .await;
    let answer = server.inference("GET", "/ping").await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://example.org")
    );
    assert_eq!(answer.header("access-control-allow-methods"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_came_as_a_form_is_refused_with_the_header_to_send() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let server = TestServer::with(model).await;
        let post = async |content_type: &str, body: &'static str| {
            let request = server.request(Listener::Inference, "POST", "/predictions/linear");
            let request = request.header("content-type", content_type).body(body);
            Answer::of(request.send().await.unwrap()).await
        };
        let form = "application/x-www-form-urlencoded";
        let says = "The body came as a form (application/x-www-form-urlencoded) and looks like JSON: send it with the \
                    header Content-Type: application/json";
        let refused = post(form, r#"{"x": [1, 2], "k": "a==&b"}"#).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(says), "{}", refused.text());
        for (content_type, body) in [(form, "a=1&b=2"), ("application/json", r#"{"x": 1}"#)] {
            let refused = post(content_type, body).await;
            assert_eq!(refused.status, 400, "{}", refused.text());
            assert!(
                !refused.text().contains("Content-Type"),
                "{}",
                refused.text()
            );
        }
    }
}
