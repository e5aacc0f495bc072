//! Handlers that misbehave: only the client of that request gets an error, and the next request is served.

use crate::support::{Answer, Model, ROW, TestServer, prediction, tensor};
use lantern::backend::fake::{FakeBackend, Outcome};
use lantern::error::Kind;

const HONEST: &str = "carry 0";

/// What a handler may answer, and the status that its client gets.
const SENT: [(&str, u16); 11] = [
    ("status 200", 200),
    ("status 299", 299),
    ("status 404", 404),
    ("status 599", 599),
    ("status 600", 600),
    ("status 999", 999),
    ("empty-status 204", 204),
    ("empty-status 304", 304),
    ("headers 64", 200),
    ("header-bytes 32000", 200),
    ("body-bytes 6553500", 200),
];

/// Answers that a handler may not give.
const REFUSED: [&str; 18] = [
    "status 0",
    "status 99",
    "status 101",
    "status 199",
    "status 204",
    "status 1000",
    "status 65535",
    "content-type x",
    "content-type text/\u{e4}",
    "content-type-newline",
    "header x-a \u{e4}",
    "header x-a \u{7f}",
    "header connection close",
    "header-newline",
    "header-name",
    "headers 65",
    "header-bytes 40000",
    "body-bytes 6553501",
];

/// What a handler may log and measure beside its answer, which is a correct one or an error.
const SAID: [(&str, u16); 12] = [
    ("log 5000", 200),
    ("log-bytes 1000000", 200),
    ("log-breaks", 200),
    ("stderr 3000", 200),
    ("metric 9lives", 200),
    ("metric a:b", 200),
    ("metric le", 200),
    ("metric-nan", 200),
    ("metric-labels", 200),
    ("metrics 200", 200),
    ("series 5000", 200),
    ("error-bytes 1000000", 400),
];

async fn hostile() -> TestServer {
    TestServer::with(Model::new("hostile").artifact("linear.onnx")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misdeed_is_one_clients_error() {
    let server = hostile().await;
    let mut answers = Vec::new();
    for act in [
        "trap",
        "panic",
        "loop",
        "allocate",
        "recurse",
        "postprocess/trap",
        "postprocess/panic",
    ] {
        let answer = server.predict("hostile", act).await;
        let message = answer.json();
        answers.push(format!(
            "{act:20} {} {} {}",
            answer.status, message["type"], message["message"]
        ));
        assert_eq!(
            server.predict("hostile", HONEST).await.status,
            200,
            "after {act}"
        );
    }
    insta::assert_snapshot!(answers.join("\n"));
}

/// Id of the process that hosts the model.
async fn pid(server: &TestServer) -> u64 {
    let described = server.management("GET", "/models/hostile").await.json();
    described[0]["workers"][0]["pid"].as_u64().unwrap()
}

/// The answer to an order, as the client sees it, in the phase that is asked for first and in the other one.
async fn answers(server: &TestServer, order: &str) -> [Answer; 2] {
    let later = format!("postprocess/{order}");
    [
        server.predict("hostile", order.to_owned()).await,
        server.predict("hostile", later).await,
    ]
}

/// Asserts that every order is answered as the tables say, and that one process answers all of them.
async fn puts_out_everything(model: Model) {
    let server = TestServer::with(model).await;
    let before = pid(&server).await;
    let refused = REFUSED.map(|order| (order, Kind::HandlerOutput.wire().status));
    for (order, status) in SENT.iter().chain(&refused).chain(&SAID) {
        for answer in answers(&server, order).await {
            let text = String::from_utf8_lossy(&answer.body);
            let text = text.get(..200).unwrap_or(&text);
            assert_eq!(answer.status, *status, "{order}: {text}");
        }
        assert_eq!(pid(&server).await, before, "after {order}");
    }
    assert_eq!(server.predict("hostile", HONEST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_puts_out_is_answered_or_refused_inline() {
    puts_out_everything(Model::new("hostile").artifact("linear.onnx")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_puts_out_is_answered_or_refused_and_ends_no_process() {
    let model = Model::new("hostile").artifact("linear.onnx").in_process();
    puts_out_everything(model).await;
}

/// Headers that act on more than the response that they are in.
const OF_THE_ORIGIN: [&str; 9] = [
    "Set-Cookie a=b",
    "access-control-allow-origin *",
    "strict-transport-security max-age=1",
    "clear-site-data \"*\"",
    "location /models",
    "www-authenticate Basic",
    "service-worker-allowed /",
    "server mine",
    "x-accel-redirect /secret",
];

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_origin_are_the_operators_to_allow() {
    let inline = Model::new("hostile").artifact("linear.onnx");
    for model in [inline.clone(), inline.in_process()] {
        let names = OF_THE_ORIGIN.map(|header| header.split_once(' ').unwrap().0);
        let builder = TestServer::builder().model(model.clone());
        let allowing = builder.set(&format!("lantern_handler_headers={}", names.join(", ")));
        let (server, allowing) = (TestServer::with(model).await, allowing.start().await);
        for header in OF_THE_ORIGIN {
            let (name, value) = header.split_once(' ').unwrap();
            let name = name.to_ascii_lowercase();
            let order = format!("header {header}");
            for refused in answers(&server, &order).await {
                assert_eq!(refused.status, Kind::HandlerOutput.wire().status);
                assert_eq!(refused.header(&name), None);
                let message = refused.json()["message"].as_str().unwrap().to_owned();
                let says = format!(
                    "returned header {name:?}, which acts on more than the response: the operator may allow it (lantern_handler_headers)"
                );
                assert!(message.ends_with(&says), "{message}");
            }
            for allowed in answers(&allowing, &order).await {
                assert_eq!((allowed.status, allowed.header(&name)), (200, Some(value)));
            }
        }
        for reserved in answers(&allowing, "header content-length 9").await {
            assert_eq!(reserved.status, Kind::HandlerOutput.wire().status);
        }
        assert_eq!(server.predict("hostile", HONEST).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_origin_fail_calls_over_grpc_too() {
    let inline = Model::new("hostile").artifact("linear.onnx");
    for model in [inline.clone(), inline.in_process()] {
        let server = TestServer::with(model).await;
        let ask = async |order: &str| {
            let mut client = server.grpc_inference();
            client
                .predictions(prediction("hostile", order.to_owned()))
                .await
        };
        let refused = ask("header set-cookie a=b").await.unwrap_err();
        assert!(
            refused.message().contains("lantern_handler_headers"),
            "{refused}"
        );
        let passed = ask("header x-a b").await.unwrap();
        // Headers of handlers go nowhere over gRPC.
        assert!(passed.metadata().get("x-a").is_none());
    }
}

/// Requests of which each makes the handler trap.
const TRAPS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_traps_at_each_request_costs_its_own_model_alone() {
    let inline = Model::new("hostile").artifact("linear.onnx");
    for hostile in [inline.clone(), inline.in_process()] {
        let builder = TestServer::builder().model(Model::linear());
        let server = builder.model(hostile).start().await;
        let before = pid(&server).await;
        for _ in 0..TRAPS {
            for act in ["trap", "postprocess/trap"] {
                let trapped = server.predict("hostile", act).await;
                assert_eq!(trapped.status, Kind::HandlerTrapped.wire().status);
            }
            assert_eq!(server.predict("linear", ROW).await.status, 200);
        }
        assert_eq!(server.predict("hostile", HONEST).await.status, 200);
        assert_eq!(pid(&server).await, before, "no process died of it");
        assert_eq!(server.inference("GET", "/health/ready").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_fails_alone() {
    let bad: f32 = 666.0;
    let fake = FakeBackend::new().with_mark(bad.to_le_bytes(), Outcome::Fail);
    let model = Model::fake().with("batchSize: 8").lantern("batching: on");
    let server = std::sync::Arc::new(TestServer::builder().fake(fake).model(model).start().await);
    server.gate().shut();
    let mut asked = tokio::task::JoinSet::new();
    for value in [1.0, bad, 2.0] {
        let server = std::sync::Arc::clone(&server);
        asked.spawn(async move { (value.to_bits(), server.predict("fake", tensor(value)).await) });
    }
    server.wait_for_held(1).await;
    server.gate().open();
    for (value, answer) in asked.join_all().await {
        let expected = if value == bad.to_bits() { 503 } else { 200 };
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_show_no_paths_and_no_host_texts() {
    let server = hostile().await;
    for act in ["trap", "panic", "unknown-act", "postprocess/trap"] {
        let text = server.predict("hostile", act).await.text().to_owned();
        for secret in ["/tmp", "/root", "handler.wasm", "wasmtime", "0x", ".rs:"] {
            assert!(!text.contains(secret), "{act}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_next_to_nothing_of_its_surroundings() {
    let server = TestServer::with(Model::new("ambient").in_process()).await;
    let answer = server.predict("ambient", "0").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sight = answer.json();
    assert_eq!(
        (&sight["arguments"], &sight["variables"]),
        (&0.into(), &0.into())
    );
    let step = sight["clock_step"].as_u64().unwrap();
    assert!(step == 0 || step >= 1000, "the clock is coarse: {step} ns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_imports_what_it_may_not_does_not_load() {
    let server = TestServer::builder()
        .in_store(Model::new("forbidden"))
        .start()
        .await;
    let answer = server
        .management("POST", "/models?url=forbidden-1.0.mar")
        .await;
    assert!(answer.status >= 400, "{}", answer.text());
    let message = answer.json()["message"].to_string();
    assert!(message.contains("wasi:"), "{message}");
}
