//! REST over HTTP/2: the same answers, within the same limits, on the same listeners as HTTP/1.

use std::time::Duration;

use lantern::api::Listener;
use reqwest::Version;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile_memory::private_memory;
use crate::support::frames::{
    END_STREAM, GOAWAY, PREFACE, call, frame, frame_types, headers_frame, message,
};
use crate::support::{Answer, Model, ROW, TestServer, tensor};

const LIMIT: usize = 10_000;
const REST: [Listener; 3] = [Listener::Inference, Listener::Management, Listener::Metrics];

/// A client that speaks nothing else.
fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap()
}

async fn server() -> TestServer {
    let builder = TestServer::builder().api(|api| api.max_request_size = LIMIT);
    builder.model(Model::new("mirror")).start().await
}

/// A request over HTTP/2, and the same over HTTP/1.
fn both(
    server: &TestServer,
    method: &str,
    path: &str,
    change: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> [reqwest::RequestBuilder; 2] {
    let url = format!("http://{}{path}", server.address(Listener::Inference));
    let ask = |client: reqwest::Client| change(client.request(method.parse().unwrap(), &url));
    [ask(client()), ask(reqwest::Client::new())]
}

async fn answer(request: reqwest::RequestBuilder, version: Version) -> Answer {
    let response = request.send().await.unwrap();
    assert_eq!(response.version(), version);
    Answer::of(response).await
}

/// Sends `frames` after the preface, and reads until the server ends the connection or `is_enough`.
async fn exchange(
    server: &TestServer,
    frames: &[u8],
    is_enough: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut stream = server.connect(Listener::Inference).await;
    stream.write_all(&[PREFACE, frames].concat()).await.unwrap();
    let mut read = Vec::new();
    while !is_enough(&read) && stream.read_buf(&mut read).await.unwrap() > 0 {}
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_http_1() {
    let server = server().await;
    let (long_path, long_value) = (format!("/{}", "x".repeat(5000)), "x".repeat(9000));
    for (method, path, header, body) in [
        ("GET", "/ping", "a", 0),
        ("HEAD", "/ping", "a", 0),
        ("OPTIONS", "/", "a", 0),
        ("POST", "/predictions/nope", "a", 9),
        ("DELETE", "/ping", "a", 0),
        ("GET", "/nowhere", "a", 0),
        ("GET", "/v2/models/nope", "a", 0),
        ("GET", "/ping%zz", "a", 0),
        ("GET", &*long_path, "a", 0),
        ("GET", "/ping", &*long_value, 0),
        ("POST", "/predictions/mirror", "a", LIMIT + 1),
    ] {
        let change =
            |request: reqwest::RequestBuilder| request.header("x-a", header).body(vec![b'x'; body]);
        let [two, one] = both(&server, method, path, change);
        let two = answer(two, Version::HTTP_2).await;
        let one = answer(one, Version::HTTP_11).await;
        let what = format!("{method} {path:.30}");
        assert_eq!((two.status, &two.body), (one.status, &one.body), "{what}");
        let without_connection = |answer: &Answer| -> Vec<_> {
            let headers = answer.headers.iter().cloned();
            let headers = headers.filter(|(name, _)| name != "connection");
            let mut headers: Vec<_> = headers
                .map(|(name, value)| match &*name {
                    "x-request-id" => (name, value.len().to_string()),
                    _ => (name, value),
                })
                .collect();
            headers.sort();
            headers
        };
        assert_eq!(two.header("connection"), None, "{what}");
        let length = ("content-length".to_owned(), "0".to_owned());
        let mut expected = without_connection(&one);
        let mut found = without_connection(&two);
        // Where there is no body, HTTP/2 has other ways to say so.
        expected.retain(|header| *header != length);
        found.retain(|header| *header != length);
        assert_eq!(found, expected, "{what}");
    }
    let many = |mut request: reqwest::RequestBuilder| {
        for index in 0..101 {
            request = request.header(format!("a{index}"), "b");
        }
        request
    };
    for (request, version) in both(&server, "GET", "/ping", many)
        .into_iter()
        .zip([Version::HTTP_2, Version::HTTP_11])
    {
        let answer = answer(request, version).await;
        assert_eq!(answer.json()["message"], "Invalid HTTP message.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rest_listener_speaks_it_and_logs_and_counts_it() {
    let server = server().await;
    for listener in REST {
        let url = format!("http://{}/nowhere", server.address(listener));
        let nowhere = client().get(url).send().await.unwrap();
        assert_eq!(
            (nowhere.version(), nowhere.status().as_u16()),
            (Version::HTTP_2, 404)
        );
    }
    let url = format!(
        "http://{}/predictions/mirror?a=b",
        server.address(Listener::Inference)
    );
    let sent = client().post(url).header("x-request-id", "mine").body("{}");
    let seen = answer(sent, Version::HTTP_2).await;
    let id = seen.header("x-request-id").unwrap().to_owned();
    let seen = seen.json();
    assert_eq!(seen["id"], id.as_str());
    let host = server.address(Listener::Inference).to_string();
    assert_eq!(seen["headers"]["host"], host.as_str(), "as over HTTP/1");
    let log = server.access_log();
    assert!(log.contains("\"GET /nowhere HTTP/2.0\" 404 "), "{log}");
    assert!(
        log.contains("\"POST /predictions/mirror?a=b HTTP/2.0\" 200 "),
        "{log}"
    );
    assert!(log.contains(" client mine\n"), "{log}");
    assert_eq!(server.sample("Requests4XX{").await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection() {
    let server = server().await;
    let client = client();
    let mut asked = tokio::task::JoinSet::new();
    for index in 0..500 {
        let url = format!(
            "http://{}/predictions/mirror",
            server.address(Listener::Inference)
        );
        let sent = index.to_string();
        let request = client.post(url).body(sent.clone());
        asked.spawn(async move { (sent, Answer::of(request.send().await.unwrap()).await) });
    }
    for (sent, answer) in asked.join_all().await {
        // A full queue answers with an error.
        let is_own = answer.status != 200 || answer.json()["body"]["raw"] == sent;
        assert!(is_own, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_for_one_host() {
    let server = server().await;
    let request = |more: &[(&str, &str)]| {
        let head = [(":method", "GET"), (":scheme", "http"), (":path", "/ping")];
        headers_frame(&[&head[..], more].concat(), END_STREAM, 1)
    };
    let cases: [(&[(&str, &str)], u16); 8] = [
        (&[(":authority", "x")], 200),
        (&[("host", "x")], 200),
        (&[(":authority", "x"), ("host", "x")], 200),
        (&[], 400),
        (&[("host", "")], 400),
        (&[("host", "x"), ("host", "x")], 400),
        (&[(":authority", "x"), ("host", "y")], 400),
        (&[(":authority", "u@x")], 400),
    ];
    for (headers, status) in cases {
        let before = server
            .access_log()
            .matches(&format!("HTTP/2.0\" {status} "))
            .count();
        let is_answered = |read: &[u8]| frame_types(read).iter().any(|kind| *kind < 2);
        exchange(&server, &request(headers), is_answered).await;
        let after = server
            .access_log()
            .matches(&format!("HTTP/2.0\" {status} "))
            .count();
        assert_eq!(after, before + 1, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_beyond_all_limits_are_refused_below_the_api() {
    let server = server().await;
    let [two, _] = both(&server, "GET", "/ping", |request| {
        request.header("x-a", "x".repeat(20_000))
    });
    assert_eq!(two.send().await.unwrap().status(), 431);
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_not_sure_are_answered_in_http_1() {
    let server = server().await;
    // An upgrade within HTTP/1, which the newest specification of HTTP/2 does not have any more.
    let request = "GET /ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings, close\r\n\
                   upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = server.raw(Listener::Inference, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // Beginnings that are almost the preface.
    for almost in [
        "PRI * HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
        "PRI / HTTP/1.1\r\nhost: x\r\n\r\n",
        "P",
    ] {
        let answer = server
            .raw_and_no_more(Listener::Inference, almost.as_bytes())
            .await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{almost:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_told_that_this_is_no_grpc() {
    let server = server().await;
    for listener in REST {
        let path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping";
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let answer = server
            .call(listener, path, &grpc, message(0, b""))
            .await
            .unwrap();
        assert_eq!((answer.status, answer.code()), (200, Some(12)));
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
    }
    let address = format!("http://{}", server.address(Listener::Inference));
    let channel = tonic::transport::Channel::from_shared(address).unwrap();
    let mut health =
        tonic_health::pb::health_client::HealthClient::new(channel.connect().await.unwrap());
    let refused = health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_requests_end_after_their_time() {
    let builder = TestServer::builder().set("lantern_keep_alive=1");
    let server = builder.model(Model::fake()).start().await;
    server.gate().shut();
    let url = format!(
        "http://{}/predictions/fake",
        server.address(Listener::Inference)
    );
    let predict = client()
        .post(url)
        .header("content-type", "application/json");
    let predicted = tokio::spawn(predict.body(tensor(1.0)).send());
    server.wait_for_held(1).await;
    // Some of the preface, all of it, and a request that was answered.
    let ping = headers_frame(
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/ping"),
            (":authority", "x"),
        ],
        END_STREAM,
        1,
    );
    let begun = [
        b"P".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n".to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &ping].concat(),
    ];
    let ends = begun.iter().map(async |begun| {
        let answer = server.bytes(Listener::Inference, begun).await;
        let is_http2 = begun.starts_with(PREFACE);
        let kinds = frame_types(&answer);
        assert_eq!(kinds.contains(&GOAWAY), is_http2, "{kinds:?}");
    });
    futures_util::future::join_all(ends).await;
    server.gate().open();
    assert_eq!(
        predicted.await.unwrap().unwrap().status(),
        200,
        "it was not idle"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_that_comes_slowly_is_a_preface() {
    let server = server().await;
    let mut stream = server.connect(Listener::Inference).await;
    for byte in PREFACE {
        stream.write_u8(*byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut first = [0; 9];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(frame_types(&first), [4], "the server's SETTINGS");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_when_the_server_stops() {
    let mut server = TestServer::with(Model::fake()).await;
    let address = server.address(Listener::Inference);
    server.gate().shut();
    let url = format!("http://{address}/predictions/fake");
    let predict = client()
        .post(url)
        .header("content-type", "application/json");
    let predicted = tokio::spawn(predict.body(tensor(1.0)).send());
    server.wait_for_held(1).await;
    let mut idle = server.connect(Listener::Inference).await;
    idle.write_all(PREFACE).await.unwrap();
    let gate = server.gate().clone();
    let stopping = server.begin_stop();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let mut told = Vec::new();
    while !frame_types(&told).contains(&GOAWAY) {
        assert_ne!(idle.read_buf(&mut told).await.unwrap(), 0);
    }
    drop(idle);
    gate.open();
    assert_eq!(predicted.await.unwrap().unwrap().status(), 200);
    tokio::time::timeout(Duration::from_secs(20), stopping)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_arrive_whole_when_the_server_stops() {
    let mut server = TestServer::with(Model::new("echo")).await;
    let url = format!(
        "http://{}/predictions/echo",
        server.address(Listener::Inference)
    );
    let mut response = client()
        .post(url)
        .body(vec![b'x'; 4 << 20])
        .send()
        .await
        .unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let stopping = server.begin_stop();
    let mut length = first.len();
    while let Some(piece) = response.chunk().await.unwrap() {
        length += piece.len();
    }
    assert_eq!(length, 4 << 20);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_their_connection_and_leave_no_memory() {
    let server = server().await;
    let streams = |count: u32| (0..count).map(|index| 2 * index + 1);
    let resets = streams(20_000).flat_map(|stream| {
        let reset = frame(3, 0, stream, &8_u32.to_be_bytes());
        [call("/predictions/mirror", 0, stream), reset].concat()
    });
    let resets = [PREFACE.to_vec(), resets.collect()].concat();
    let headers = frame(1, 0, 1, &[]);
    let more = frame(9, 0, 1, &[0x40; 16_000]).repeat(1000);
    let continued = [PREFACE, &headers, &more].concat();
    let settings = [PREFACE, &frame(4, 0, 0, &[]).repeat(50_000)].concat();
    let pings = [PREFACE, &frame(6, 0, 0, &[0; 8]).repeat(50_000)].concat();
    let mut before = 0;
    for round in 0..4 {
        for flood in [&resets, &continued, &settings, &pings] {
            let attack = server.bytes(Listener::Inference, flood);
            // Some floods are only slowed down: the connection stays open and nothing more is sent.
            let _ = tokio::time::timeout(Duration::from_millis(500), attack).await;
        }
        assert_eq!(server.predict("mirror", "{}").await.status, 200);
        if round == 1 {
            before = private_memory();
        }
    }
    let grown = private_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_agree_on_it_within_tls() {
    let builder = TestServer::builder().set("inference_address=https://127.0.0.1:0");
    let server = builder.model(Model::linear()).start().await;
    let insecure = || reqwest::Client::builder().danger_accept_invalid_certs(true);
    for (client, version) in [
        (insecure(), Version::HTTP_2),
        (insecure().http1_only(), Version::HTTP_11),
        (insecure().http2_prior_knowledge(), Version::HTTP_2),
    ] {
        let url = format!(
            "https://{}/predictions/linear",
            server.address(Listener::Inference)
        );
        let request = client.build().unwrap().post(url);
        let request = request.header("content-type", "application/json").body(ROW);
        let answer = answer(request, version).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert!(answer.json() != Value::Null);
    }
}
