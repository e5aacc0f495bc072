//! Hostile bodies: too slow, too compressed, nested too deep, too many fields. Each gets an answer in bounded time.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use lantern::api::Listener;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Model, TestServer};

const LIMIT: usize = 1 << 20;

async fn server() -> TestServer {
    let builder = TestServer::builder().api(|api| api.max_request_size = LIMIT);
    builder.model(Model::new("echo")).start().await
}

async fn post(server: &TestServer, encoding: &str, body: Vec<u8>) -> Answer {
    let request = server
        .request(Listener::Inference, "POST", "/predictions/echo")
        .header("content-encoding", encoding)
        .body(body);
    Answer::of(request.send().await.unwrap()).await
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_are_limited_by_what_is_in_them() {
    let server = server().await;
    let most = vec![b'x'; LIMIT];
    assert_eq!(post(&server, "gzip", gzip(&most)).await.body.len(), LIMIT);
    assert_eq!(
        post(&server, "deflate", deflate(&most)).await.body.len(),
        LIMIT
    );
    let members = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(post(&server, "gzip", members).await.text(), "one two");
    let over = vec![b'x'; LIMIT + 1];
    for (encoding, body) in [
        ("gzip", gzip(&over)),
        ("deflate", deflate(&over)),
        ("gzip", gzip(&vec![0; 200 << 20])),
        ("gzip", gzip(&most[..LIMIT / 2]).repeat(3)),
    ] {
        assert!(body.len() < LIMIT);
        let answer = post(&server, encoding, body).await;
        assert_eq!((answer.status, answer.body.len()), (413, 0), "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_that_do_not_unpack_are_the_clients_fault() {
    let server = server().await;
    let whole = gzip(b"a text that is long enough to be cut in two");
    let mut flipped = whole.clone();
    flipped[15] ^= 0xff;
    for (encoding, body) in [
        ("gzip", whole[..whole.len() / 2].to_vec()),
        ("gzip", [whole.clone(), b"after".to_vec()].concat()),
        ("gzip", flipped),
        ("gzip", b"plain".to_vec()),
        ("deflate", deflate(b"abc")[..5].to_vec()),
        ("deflate", vec![0xff; 100]),
    ] {
        let answer = post(&server, encoding, body).await;
        let expected = format!("The body is not valid {encoding}");
        assert_eq!(answer.json()["message"], expected.as_str());
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (400, Some("BadRequestException"))
        );
    }
    for unknown in ["br", "zstd", "gzip, gzip"] {
        let answer = post(&server, unknown, b"x".to_vec()).await;
        assert_eq!(answer.status, 415, "{unknown}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(
            message,
            format!("Content-Encoding must be gzip, deflate or identity, got {unknown:?}")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_come_in_time_are_given_up() {
    let quick = Model::new("echo").with("clientTimeoutInMills: 100");
    let server = TestServer::with(quick).await;
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\n";
    for start in [
        "content-length: 10\r\n\r\n",
        "content-length: 10\r\n\r\nab",
        "transfer-encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let answer = server
            .raw(Listener::Inference, format!("{head}{start}").as_bytes())
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 408 Request Timeout"),
            "{answer}"
        );
        assert!(answer.contains("\"RequestTimeoutException\""), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_given_up_at_its_deadline() {
    let quick = Model::new("echo").with("clientTimeoutInMills: 300");
    let server = TestServer::with(quick).await;
    let (mut reader, mut writer) = server.connect(Listener::Inference).await.into_split();
    let trickle = tokio::spawn(async move {
        let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
        let mut sent = writer.write_all(head.as_bytes()).await;
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(10));
        while sent.is_ok() {
            interval.tick().await;
            sent = writer.write_all(b"x").await;
        }
    });
    let mut answer = vec![0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    trickle.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_chunks_of_one_byte_are_one_body() {
    let server = server().await;
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = "1\r\nx\r\n".repeat(1_000_000);
    let request = format!("{head}{chunks}0\r\n\r\n");
    let answer = server.raw(Listener::Inference, request.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!((body.len(), body.trim_matches('x')), (1_000_000, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_too_deep_is_refused() {
    let server = TestServer::builder().start().await;
    let deep = |depth: usize| format!("{{\"url\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    for body in [
        deep(130),
        deep(400_000),
        "[".repeat(1_000_000),
        "{\"a\":".repeat(100_000),
    ] {
        let request = server
            .request(Listener::Management, "POST", "/models")
            .header("content-type", "application/json");
        let answer = Answer::of(request.body(body).send().await.unwrap()).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (400, Some("BadRequestException"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_do_not_parse_are_the_clients_fault() {
    let server = server().await;
    let multipart = "multipart/form-data; boundary=x";
    let part = "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhi\r\n";
    let headers = format!(
        "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n{}\r\nhi\r\n--x--\r\n",
        "a: b\r\n".repeat(10_000)
    );
    let many = format!("{}--x--\r\n", part.repeat(1025));
    for (content_type, body) in [
        ("multipart/form-data", part),
        ("multipart/form-data; boundary=", part),
        (multipart, part),
        (multipart, "--x\r\n"),
        (
            multipart,
            "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhi",
        ),
        (multipart, &headers),
        (multipart, &many),
        ("application/x-www-form-urlencoded", &"a=1&".repeat(1025)),
    ] {
        let request = server
            .request(Listener::Inference, "POST", "/predictions/echo")
            .header("content-type", content_type);
        let answer = Answer::of(request.body(body.to_owned()).send().await.unwrap()).await;
        let start: String = body.chars().take(60).collect();
        assert_eq!(
            answer.status,
            400,
            "{content_type} {start:?}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["type"], json!("BadRequestException"));
    }
}
