//! Hostile HTTP. Each request gets an answer or a closed connection, and the server goes on serving.

use std::time::{Duration, Instant};

use lantern::api::Listener;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Model, TestServer, tensor};

const LIMIT: usize = 10_000;

async fn server() -> TestServer {
    let builder = TestServer::builder().api(|api| api.max_request_size = LIMIT);
    builder.model(Model::new("echo")).start().await
}

/// The status that `request` gets; empty if the server ends the connection without one.
async fn status(server: &TestServer, request: &str) -> String {
    let answer = server.raw(Listener::Inference, request.as_bytes()).await;
    status_of(server, &answer).await
}

async fn status_of(server: &TestServer, answer: &str) -> String {
    let status = answer.split(' ').nth(1).unwrap_or("").to_owned();
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_the_limit_are_invalid_messages() {
    let server = server().await;
    let path = format!("/{}", "x".repeat(5000));
    insta::assert_snapshot!("long_line", server.inference("GET", &path).await);
    let request = server
        .request(Listener::Inference, "GET", "/ping")
        .header("x-long", "y".repeat(9000));
    assert_eq!(
        Answer::of(request.send().await.unwrap()).await.json()["message"],
        "Invalid HTTP message."
    );
    for (count, why) in [
        (101, "more than the parser takes"),
        (100_000, "more than fits"),
    ] {
        let many = "a: b\r\n".repeat(count);
        let request = format!("GET /ping HTTP/1.1\r\nhost: x\r\n{many}\r\n");
        assert_invalid(&server, request.as_bytes(), why).await;
    }
    let huge = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(300 << 10));
    assert_invalid(&server, huge.as_bytes(), "a target larger than the buffer").await;
    let huge = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(300 << 10));
    assert_invalid(&server, huge.as_bytes(), "a header larger than the buffer").await;
}

/// Asserts that `bytes` get TorchServe's answer to bytes that are not HTTP, and that the server goes on serving.
async fn assert_invalid(server: &TestServer, bytes: &[u8], why: &str) {
    let answer = server.raw(Listener::Inference, bytes).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    assert!(
        head.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{why}: {answer}"
    );
    let length = format!("content-length: {}", body.len());
    for line in [
        "connection: close",
        "content-type: application/json",
        &length,
    ] {
        assert!(
            head.lines().any(|one| one == line),
            "{why}: no {line:?} in {answer}"
        );
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected =
        json!({"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."});
    assert_eq!(body, expected, "{why}");
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_http_are_refused() {
    let server = server().await;
    for garbage in [
        "\0\u{1}\u{2}\r\n\r\n",
        "hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\r\na b: space in a name\r\n\r\n",
        "GET / HTTP/1.1\r\na: nul \0\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nhost: x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
    ] {
        assert_invalid(&server, garbage.as_bytes(), garbage).await;
    }
    let line = "\"GET /bad-request HTTP/1.0\" 400 0\n";
    assert_eq!(server.access_log().matches(line).count(), 10);
    assert_eq!(
        server.sample("Requests4XX{").await,
        Some(10.0),
        "they are counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_bad_bytes_has_the_common_headers() {
    let builder = TestServer::builder().set("cors_allowed_origin=https://example.org");
    let server = builder.start().await;
    let answer = server.raw(Listener::Inference, b"hello\r\n\r\n").await;
    let id = answer
        .split("x-request-id: ")
        .nth(1)
        .unwrap()
        .get(..36)
        .unwrap();
    insta::assert_snapshot!(answer.replace(id, "[uuid]").replace('\r', ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_no_lengths_are_invalid_messages() {
    let server = server().await;
    for lie in [
        "content-length: -5",
        "content-length: five",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: 99999999999999999999999",
        "content-length: 2\r\ncontent-length: 3",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
    ] {
        let request = format!("POST /predictions/echo HTTP/1.1\r\nhost: x\r\n{lie}\r\n\r\nhello");
        assert_invalid(&server, request.as_bytes(), lie).await;
    }
    let old = "POST /predictions/echo HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = server.raw(Listener::Inference, old.as_bytes()).await;
    assert!(answer.contains("Invalid HTTP message."), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_before_bad_bytes_is_answered() {
    let server = server().await;
    let both =
        "POST /predictions/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nahello\r\n\r\n";
    let answer = server.raw(Listener::Inference, both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 Bad Request"), "{answer}");
}

/// Requests that two readers may see end at different places, as far as the body goes. The parser's own refusals are beside
/// those that it would let pass; `api::framing` has more of each kind.
const DOUBTFUL: [&str; 24] = [
    "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: identity\r\n\r\n",
    "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "content-length: 1\r\ncontent-length: 2\r\n\r\na",
    "content-length: 1, 1\r\n\r\na",
    "content-length: 0x1\r\n\r\na",
    "a: b\ncontent-length: 1\r\n\r\na",
    "content-length: 1\r\n\na",
    "a: b\r\n continued\r\n\r\n",
    "a: b\rcontent-length: 1\r\n\r\na",
    "transfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1;\0\r\na\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nb: c\n\r\n",
];

/// What follows a request that must not be answered.
const SMUGGLED: &str = "GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_after_a_request_with_a_doubtful_end_is_answered() {
    let server = server().await;
    for doubtful in DOUBTFUL {
        let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\n";
        let request = format!("{head}{doubtful}{SMUGGLED}");
        assert_invalid(&server, request.as_bytes(), doubtful).await;
        let request = format!("{SMUGGLED}{request}");
        let answer = server.raw(Listener::Inference, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{doubtful:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{doubtful:?}");
        assert!(answer.contains("Invalid HTTP message."), "{answer}");
    }
    for listener in [Listener::Management, Listener::Metrics] {
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{}{SMUGGLED}", DOUBTFUL[0]);
        let answer = server.raw(listener, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_for_one_host() {
    let server = server().await;
    for (start, hosts) in [
        ("GET /ping HTTP/1.1", ""),
        ("GET /ping HTTP/1.1", "host: x\r\nhost: x\r\n"),
        ("GET /ping HTTP/1.1", "host: x\r\nHost: y\r\n"),
        ("GET /ping HTTP/1.1", "host:\r\n"),
        ("GET /ping HTTP/1.1", "host: a b\r\n"),
        ("GET /ping HTTP/1.1", "host: x/y\r\n"),
        ("GET /ping HTTP/1.1", "host: u@x\r\n"),
        ("GET /ping HTTP/1.1", "host: x:y\r\n"),
        ("GET /ping HTTP/1.0", "host: x\r\nhost: x\r\n"),
        ("GET http://x/ping HTTP/1.1", ""),
        ("GET http://x/ping HTTP/1.1", "host: y\r\n"),
        ("GET http://x:81/ping HTTP/1.1", "host: x\r\n"),
        ("GET http://u@x/ping HTTP/1.1", "host: x\r\n"),
    ] {
        let request = format!("{start}\r\n{hosts}\r\n{SMUGGLED}");
        let answer = server.raw(Listener::Inference, request.as_bytes()).await;
        let what = format!("{start} {hosts:?}: {answer}");
        assert!(answer.contains(" 400 Bad Request\r\n"), "{what}");
        assert!(answer.contains("connection: close\r\n"), "{what}");
        assert!(answer.contains("Invalid HTTP message."), "{what}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}");
    }
    for (start, hosts) in [
        ("GET /ping HTTP/1.0", ""),
        ("GET /ping HTTP/1.0", "host: x\r\n"),
        ("GET /ping HTTP/1.1", "host: [::1]:8080\r\n"),
        ("GET http://x/ping HTTP/1.1", "host: X:80\r\n"),
    ] {
        let request = format!("{start}\r\n{hosts}connection: close\r\n\r\n");
        assert_eq!(status(&server, &request).await, "200", "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_when_either_side_says_so() {
    let server = server().await;
    for (request, version, connection) in [
        (
            "GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "HTTP/1.1",
            "close",
        ),
        (
            "GET /ping HTTP/1.1\r\nhost: x\r\nconnection: x, Close\r\n\r\n",
            "HTTP/1.1",
            "close",
        ),
        ("GET /ping HTTP/1.0\r\n\r\n", "HTTP/1.0", "close"),
        (
            "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
            "HTTP/1.1",
            "close",
        ),
    ] {
        let answer = server.raw(Listener::Inference, request.as_bytes()).await;
        assert!(answer.starts_with(version), "{answer}");
        let lines: Vec<_> = answer
            .lines()
            .filter(|line| line.starts_with("connection:"))
            .collect();
        assert_eq!(lines, [format!("connection: {connection}")], "{request}");
    }
    let kept = "GET /ping HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /ping HTTP/1.0\r\n\r\n";
    let answer = server.raw(Listener::Inference, kept.as_bytes()).await;
    assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
}

/// A connection closes that waits for a request, or for the rest of its head, and none whose request is being answered.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_next_request_end_after_their_time() {
    let builder = TestServer::builder().set("lantern_keep_alive=1");
    let server = builder.model(Model::fake()).start().await;
    server.gate().shut();
    let begun = Instant::now();
    let predict = server.request(Listener::Inference, "POST", "/predictions/fake");
    let predict = predict.header("content-type", "application/json");
    let predicted = tokio::spawn(predict.body(tensor(1.0)).send());
    server.wait_for_held(1).await;
    for _ in 0..2 {
        for begun_head in ["", "GET /ping HT"] {
            let request = format!("GET /ping HTTP/1.1\r\nhost: x\r\n\r\n{begun_head}");
            let answer = server.raw(Listener::Inference, request.as_bytes()).await;
            assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
            assert!(answer.contains("connection: keep-alive"), "{answer}");
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(4));
    server.gate().open();
    assert_eq!(predicted.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_alone_have_the_length_of_the_body() {
    let server = server().await;
    for (path, body) in [
        ("/predictions/echo", ""),
        ("/predictions/echo", "abc"),
        ("/ping", ""),
        ("/nowhere", ""),
    ] {
        let ask = |method| {
            server
                .request(Listener::Inference, method, path)
                .body(body)
                .send()
        };
        let whole = Answer::of(ask("POST").await.unwrap()).await;
        let head = Answer::of(ask("HEAD").await.unwrap()).await;
        assert_eq!((head.status, head.body.len()), (whole.status, 0), "{path}");
        let length = whole.body.len().to_string();
        assert_eq!(
            head.header("content-length"),
            Some(length.as_str()),
            "{path} {body:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_escapes_are_forbidden() {
    let server = server().await;
    let answer = server
        .raw(
            Listener::Inference,
            b"GET /ping%zz HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(
        answer.contains("\"type\": \"IllegalArgumentException\""),
        "{answer}"
    );
    assert!(
        answer.contains("invalid hex byte 'zz' at index 6 of '/ping%zz'"),
        "{answer}"
    );
    assert_eq!(
        status(
            &server,
            "GET /models/%2e%2e%2fetc HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        .await,
        "404"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_get_the_bare_status() {
    let server = server().await;
    let post = |body: Vec<u8>| {
        server
            .request(Listener::Inference, "POST", "/predictions/echo")
            .body(body)
    };
    assert_eq!(post(vec![b'x'; LIMIT]).send().await.unwrap().status(), 200);
    let answer = Answer::of(post(vec![b'x'; LIMIT + 1]).send().await.unwrap()).await;
    insta::assert_snapshot!("too_large", answer);
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let request = format!(
        "POST /predictions/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(3)
    );
    assert_eq!(status(&server, &request).await, "413");
    assert_eq!(
        server.sample("Requests4XX{").await,
        Some(0.0),
        "the transport's refusals are not counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met_or_refused() {
    let server = server().await;
    let mut stream = server.connect(Listener::Inference).await;
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = [0; 25];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let large = head.replace("content-length: 2", "content-length: 999999");
    assert_eq!(status(&server, &large).await, "413");
    assert_eq!(
        status(&server, &head.replace("100-continue", "200-ok")).await,
        "417"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_very_many_chunks_is_one_body() {
    let server = TestServer::with(Model::new("echo")).await;
    let chunks = "1;ext=\"y\"\r\nx\r\n".repeat(100_000);
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = server
        .raw(
            Listener::Inference,
            format!("{head}{chunks}0\r\n\r\n").as_bytes(),
        )
        .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // The parser limits chunk extensions: either a refusal or an answer is right.
    assert!(
        head.starts_with("HTTP/1.1 4") || body.len() == 100_000,
        "{head}"
    );
    let chunks = "1\r\nx\r\n".repeat(100_000);
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = server
        .raw(
            Listener::Inference,
            format!("{head}{chunks}0\r\n\r\n").as_bytes(),
        )
        .await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!((body.len(), body.trim_matches('x')), (100_000, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_harm_nobody() {
    let server = server().await;
    for lie in [
        "content-length: 5\r\n\r\nhi",
        "content-length: -5\r\n\r\nhi",
        "content-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        "content-length: 99999999999999999999999\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nhi",
    ] {
        let request = format!("POST /predictions/echo HTTP/1.1\r\nhost: x\r\n{lie}");
        let answer = server
            .raw_and_no_more(Listener::Inference, request.as_bytes())
            .await;
        let status = status_of(&server, &answer).await;
        assert!(
            status.starts_with('4') || status.is_empty(),
            "{lie:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row_on_one_connection_are_answered_in_order() {
    let server = server().await;
    let one = |more: &str, body: &str| {
        format!(
            "POST /predictions/echo HTTP/1.1\r\nhost: x\r\n{more}content-length: 1\r\n\r\n{body}"
        )
    };
    let both = format!("{}{}", one("", "a"), one("connection: close\r\n", "b"));
    let answer = server.raw(Listener::Inference, both.as_bytes()).await;
    let bodies: Vec<_> = answer
        .split("\r\n\r\n")
        .skip(1)
        .map(|rest| &rest[..1])
        .collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_break_the_rule_are_unknown_models() {
    let server = server().await;
    for name in [
        "..",
        "%2e%2e",
        "a%00b",
        "%20",
        "a%2fb%2fc",
        "%E2%80%AEx",
        &"n".repeat(300),
    ] {
        let answer = status(
            &server,
            &format!("POST /predictions/{name} HTTP/1.1\r\nhost: x\r\n\r\n"),
        )
        .await;
        assert_eq!(answer, "404", "{name}");
    }
}
