//! Hostile HTTP/2 and gRPC. Each is refused as the protocol says, and the server goes on serving.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use lantern::api::Listener;
use prost::Message as _;
use tonic::Code;

use crate::support::frames::{END_STREAM, PREFACE, RawAnswer, call, frame, message};
use crate::support::{Model, TestServer, prediction};

const LIMIT: usize = 10_000;
const PREDICTIONS: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const PING: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping";
const GRPC: (&str, &str) = ("content-type", "application/grpc");

async fn server() -> TestServer {
    let builder = TestServer::builder().api(|api| api.max_request_size = LIMIT);
    builder.model(Model::new("echo")).start().await
}

async fn serves_on(server: &TestServer) {
    let answer = server
        .grpc_inference()
        .predictions(prediction("echo", "x"))
        .await;
    assert!(answer.is_ok(), "{answer:?}");
}

async fn predict(server: &TestServer, headers: &[(&str, &str)], body: Vec<u8>) -> RawAnswer {
    let headers = [&[GRPC], headers].concat();
    let answer = server.call(Listener::GrpcInference, PREDICTIONS, &headers, body);
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_is_refused_in_the_words_of_http() {
    let server = server().await;
    for media in [
        "",
        "application/json",
        "application/grpc-web",
        "application/grpc+json",
        "application/grpcx",
        "text/plain; application/grpc",
    ] {
        let headers = [("content-type", media)];
        let answer = server.call(Listener::GrpcInference, PING, &headers, message(0, b""));
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.code()), (415, None), "{media}");
    }
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let url = format!("http://{}{PING}", server.address(Listener::GrpcInference));
    let answer = client.build().unwrap().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 405);
    for media in ["application/grpc+proto", "Application/gRPC; charset=x"] {
        let headers = [("content-type", media)];
        let answer = server.call(Listener::GrpcInference, PING, &headers, message(0, b""));
        assert_eq!(answer.await.unwrap().status, 200, "{media}");
    }
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_are_named() {
    let server = server().await;
    for path in [
        "/",
        "/x",
        "/x/y",
        "//",
        "/org.pytorch.serve.grpc.inference.InferenceAPIsService/",
        "/org.pytorch.serve.grpc.inference.InferenceAPIsService/ping",
        "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
        "/%2e%2e/etc",
    ] {
        let answer = server.call(Listener::GrpcInference, path, &[GRPC], message(0, b""));
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.code()), (200, Some(12)), "{path}");
        let message = answer.header("grpc-message").unwrap();
        assert!(message.starts_with("Method%20not%20found:%20"), "{message}");
    }
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_has_the_headers_of_grpc() {
    let server = server().await;
    let unknown = prediction("nope", "x").encode_to_vec();
    for (path, body, code) in [
        ("/x/y", message(0, b""), 12),
        (PREDICTIONS, message(0, &unknown), 13),
    ] {
        let answer = server.call(Listener::GrpcInference, path, &[GRPC], body);
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.code()), (200, Some(code)), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(answer.header("content-length"), None, "{path}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_none_are_refused() {
    let server = server().await;
    let honest = prediction("echo", "x").encode_to_vec();
    for (what, body, code) in [
        ("no message", Vec::new(), 13),
        ("half a head", vec![0, 0, 0], 13),
        ("less than it says", vec![0, 0, 0, 0, 100, 1, 2, 3], 13),
        ("no protobuf", message(0, &[0xff; 3]), 13),
        ("an endless varint", message(0, &[0x80; 100]), 13),
        (
            "a field that is longer than the message",
            message(0, &[0x0a, 0xff, 0x7f]),
            13,
        ),
        ("no UTF-8", message(0, &[0x0a, 2, 0xc3, 0x28]), 13),
        ("groups in groups", message(0, &[0x7b; 5000]), 13),
        ("an unknown flag", message(7, &honest), 13),
        ("compressed, without saying how", message(1, &honest), 13),
    ] {
        let answer = predict(&server, &[], body).await;
        assert_eq!((answer.status, answer.code()), (200, Some(code)), "{what}");
    }
    let odd = predict(&server, &[("grpc-encoding", "br")], message(1, &honest)).await;
    assert_eq!(odd.code(), Some(12));
    let broken = predict(&server, &[("grpc-encoding", "gzip")], message(1, &honest)).await;
    assert_eq!(broken.code(), Some(13));
    assert_eq!(server.sample("Requests5XX{").await, Some(0.0));
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_over_the_limit_are_refused_before_they_are_read() {
    let server = server().await;
    let mut client = server.grpc_inference();
    let over = client.predictions(prediction("echo", vec![0; LIMIT])).await;
    let refused = over.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused
            .message()
            .starts_with("The message is larger than 10000 bytes")
    );
    let fits = client
        .predictions(prediction("echo", vec![0; LIMIT - 20]))
        .await;
    assert!(fits.is_ok(), "{fits:?}");
    // Only the head of it is sent.
    let claims = predict(&server, &[], vec![0, 0xff, 0xff, 0xff, 0xff]).await;
    assert_eq!(claims.code(), Some(8));
    let mut zipped = GzEncoder::new(Vec::new(), Compression::best());
    zipped.write_all(&vec![0; 5_000_000]).unwrap();
    let bomb = zipped.finish().unwrap();
    assert!(bomb.len() < LIMIT);
    let bomb = predict(&server, &[("grpc-encoding", "gzip")], message(1, &bomb)).await;
    assert_eq!(bomb.code(), Some(8));
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_that_are_none_are_named() {
    let server = server().await;
    let body = message(0, &prediction("echo", "x").encode_to_vec());
    for timeout in ["", "1", "S", "-1S", "1.5S", "999999999S", "1 S", "0x1S"] {
        let answer = predict(&server, &[("grpc-timeout", timeout)], body.clone()).await;
        assert_eq!(answer.code(), Some(3), "{timeout}");
        let message = answer.header("grpc-message").unwrap();
        assert!(
            message.starts_with("grpc-timeout%20must%20be%20up%20to%208"),
            "{message}"
        );
    }
    let expired = predict(&server, &[("grpc-timeout", "0n")], body.clone()).await;
    assert_eq!(expired.code(), Some(4));
    let never = predict(&server, &[("grpc-timeout", "99999999H")], body).await;
    assert_eq!((never.status, never.code()), (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_comes_back_short_and_harmless() {
    let server = server().await;
    let mut client = server.grpc_inference();
    for name in [
        "x".repeat(9000),
        "\r\ngrpc-status: 0\r\n".to_owned(),
        "\0\u{202e}".to_owned(),
    ] {
        let refused = client.predictions(prediction(&name, "")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);
        assert!(
            refused.message().len() < 2000,
            "{}",
            refused.message().len()
        );
    }
    let long = "y".repeat(20_000);
    let refused = server
        .call(
            Listener::GrpcInference,
            PING,
            &[GRPC, ("x-long", &long)],
            message(0, b""),
        )
        .await;
    assert!(refused.map_or(true, |answer| answer.status == 431));
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http2_end_their_connection() {
    let server = server().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a client hello, of TLS",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand then no frame at all, but text",
        &[0; 4096],
        &[0xff; 4096],
    ] {
        server.bytes(Listener::GrpcInference, garbage).await;
    }
    for broken in [
        // A frame over the largest size, a HEADERS frame of stream 0, headers that do not decode, DATA of a stream that
        // is not open, a window of zero, a window beyond all bounds, an even stream.
        frame(0, 0, 1, &vec![0; 100_000]),
        call(PING, END_STREAM, 0),
        frame(1, 5, 1, &[0xff; 64]),
        frame(0, 1, 9, b"x"),
        frame(8, 0, 0, &[0; 4]),
        frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        call(PING, END_STREAM, 2),
    ] {
        server
            .bytes(Listener::GrpcInference, &[PREFACE, &broken].concat())
            .await;
    }
    serves_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_their_connection_and_leave_no_memory() {
    let server = server().await;
    let streams = |count: u32| (0..count).map(|index| 2 * index + 1);
    // Thousands of calls, each cancelled at once.
    let resets = streams(20_000).flat_map(|stream| {
        let reset = frame(3, 0, stream, &8_u32.to_be_bytes());
        [call(PREDICTIONS, 0, stream), reset].concat()
    });
    let resets = [PREFACE.to_vec(), resets.collect()].concat();
    // Headers that never end.
    let headers = frame(1, 0, 1, &[]);
    let more = frame(9, 0, 1, &[0x40; 16_000]).repeat(1000);
    let continued = [PREFACE, &headers, &more].concat();
    // Settings and pings, whose answers are never read.
    let settings = [PREFACE, &frame(4, 0, 0, &[]).repeat(50_000)].concat();
    let pings = [PREFACE, &frame(6, 0, 0, &[0; 8]).repeat(50_000)].concat();
    let mut before = 0;
    for round in 0..4 {
        for flood in [&resets, &continued, &settings, &pings] {
            let attack = server.bytes(Listener::GrpcInference, flood);
            // Some floods are only slowed down: the connection stays open and nothing more is sent.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(500), attack).await;
        }
        serves_on(&server).await;
        if round == 1 {
            before = anonymous_memory();
        }
    }
    let grown = anonymous_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

/// Anonymous memory of this process, in bytes.
fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_the_limit_wait_and_are_served() {
    let server = server().await;
    let client = server.grpc_inference();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut client = client.clone();
        asked.spawn(async move { client.predictions(prediction("echo", "x")).await });
    }
    for answer in asked.join_all().await {
        // A full queue answers with an error.
        assert!(answer.map_or_else(|refused| refused.code() == Code::Internal, |_| true));
    }
    serves_on(&server).await;
}
