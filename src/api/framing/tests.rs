//! Framing alone, and hyper behind it: what is valid passes unharmed, and nothing after what is refused is answered.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::api::malformed::ReplacedRefusals;

/// What refuses a request below the service.
const REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 7\r\n\r\nrefused";

/// A request that is valid, as it is sent, with target and body that the service should see.
#[derive(Debug, Clone)]
struct Valid {
    sent: Vec<u8>,
    seen: (String, Vec<u8>),
}

/// Requests with all that HTTP/1 has and few clients send.
fn valid() -> impl Strategy<Value = Valid> {
    let body = prop_oneof![
        Just(Framed::default()),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| {
            let head = format!("Content-length:\t{} \r\n", body.len());
            Framed {
                head,
                sent: body.clone(),
                body,
            }
        }),
        (prop::collection::vec(chunk(), 0..4), last_chunk()).prop_map(|(chunks, last)| {
            let (sent, body): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
            Framed {
                head: "transfer-Encoding: Chunked\r\n".to_owned(),
                sent: [sent.concat(), last.into_bytes()].concat(),
                body: body.concat(),
            }
        }),
    ];
    let header = "[A-Za-z][a-z-]{0,12}: ?[ -~]{0,20}\r\n";
    let headers = prop::collection::vec(header, 0..4);
    let is_http_10 = any::<bool>();
    ("(\r\n){0,2}", "/[a-z]{0,8}", is_http_10, headers, body).prop_map(
        |(before, target, is_http_10, headers, framed)| {
            // HTTP/1.0 has no chunks.
            let is_http_10 = is_http_10 && !framed.head.contains("Chunked");
            let version = if is_http_10 {
                "1.0\r\nconnection: keep-alive"
            } else {
                "1.1"
            };
            let headers = headers.iter().map(|header| format!("x-{header}"));
            let headers: String = headers.collect();
            let head = format!(
                "{before}POST {target} HTTP/{version}\r\nhost: x\r\n{headers}{}\r\n",
                framed.head
            );
            Valid {
                sent: [head.into_bytes(), framed.sent].concat(),
                seen: (target, framed.body),
            }
        },
    )
}

/// The headers of a body, the body as it is sent and as it is.
#[derive(Debug, Clone, Default)]
struct Framed {
    head: String,
    sent: Vec<u8>,
    body: Vec<u8>,
}

/// A chunk as it is sent, and its data.
fn chunk() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let extension = prop_oneof![Just(""), Just(";a"), Just(" ; a=\"b c\""), Just(";a;b=\t1")];
    let zeros = prop_oneof![Just(""), Just("000")];
    let data = prop::collection::vec(any::<u8>(), 1..40);
    (zeros, extension, data).prop_map(|(zeros, extension, data)| {
        let line = format!("{zeros}{:X}{extension}\r\n", data.len());
        ([line.as_bytes(), &data, b"\r\n"].concat(), data)
    })
}

fn last_chunk() -> impl Strategy<Value = String> {
    let ends = vec!["0\r\n\r\n", "000;x\r\n\r\n", "0\r\na: b\r\nc: d\r\n\r\n"];
    prop::sample::select(ends).prop_map(str::to_owned)
}

/// Requests that leave it in doubt where they end, or that hyper refuses. The last are refused in their bodies, where the
/// service hears of it.
const DOUBTFUL: &[&str] = &[
    "content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "content-length: 1, 1\r\n\r\na",
    "content-length: +1\r\n\r\na",
    "content-length: 0x1\r\n\r\na",
    "content-length: -1\r\n\r\na",
    "content-length:\r\n\r\n",
    "content-length: 1 1\r\n\r\na",
    "content-length: 18446744073709551616\r\n\r\na",
    "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ncontent-length: x\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: identity\r\n\r\n",
    "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding:\r\n\r\n",
    "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "content-length : 1\r\n\r\na",
    "content-length\t: 1\r\n\r\na",
    " content-length: 1\r\n\r\na",
    "a: b\r\n c\r\n\r\n",
    "a: b\n\r\n",
    "a: b\r\n\n",
    "a: b\n\n",
    "a: b\rc: d\r\n\r\n",
    "a: b\r\r\n\r\n",
    "a: b\0\r\n\r\n",
    "a: b\u{1}\r\n\r\n",
    "a\0: b\r\n\r\n",
    "a b: c\r\n\r\n",
    ": a\r\n\r\n",
    "a\r\n\r\n",
];
const DOUBTFUL_CHUNKS: &[&str] = &[
    "1\na\r\n0\r\n\r\n",
    "1\r\na\n0\r\n\r\n",
    "1\r\na\r\n0\n\r\n",
    "1\r\na\r\n0\r\n\n",
    "1\r\nab\r\n0\r\n\r\n",
    "1\r\na0\r\n\r\n",
    "2\r\na\r\n0\r\n\r\n",
    "+1\r\na\r\n0\r\n\r\n",
    "-1\r\na\r\n0\r\n\r\n",
    "0x1\r\na\r\n0\r\n\r\n",
    "1 \r\na\r\n0\r\n\r\n",
    " 1\r\na\r\n0\r\n\r\n",
    "1 2\r\na\r\n0\r\n\r\n",
    "1\u{b}\r\na\r\n0\r\n\r\n",
    "g\r\na\r\n0\r\n\r\n",
    "\r\na\r\n0\r\n\r\n",
    "1;a\nb\r\na\r\n0\r\n\r\n",
    "1;a\rb\r\na\r\n0\r\n\r\n",
    "1;a\0\r\na\r\n0\r\n\r\n",
    "10000000000000001\r\na\r\n0\r\n\r\n",
    "00000000000000001\r\na\r\n0\r\n\r\n",
    "0\r\na: b\n\r\n",
    "0\r\na: b\r\n\n",
    "0\r\na: b\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
];
/// Beginnings that are none.
const DOUBTFUL_LINES: &[&str] = &[
    "\nPOST / HTTP/1.1\r\nhost: x\r\n\r\n",
    "\r\n\nPOST / HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST / HTTP/1.1\nhost: x\r\n\r\n",
    "POST / HTTP/1.1\n\n",
    "POST  / HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST / HTTP/1.1 \r\nhost: x\r\n\r\n",
    "POST / HTTP/1.2\r\nhost: x\r\n\r\n",
    "POST / HTTP/0.9\r\nhost: x\r\n\r\n",
    "POST / http/1.1\r\nhost: x\r\n\r\n",
    "POST /\r\n",
    "POST /a\0 HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /\rHTTP/1.1\r\nhost: x\r\n\r\n",
    "PO\tST / HTTP/1.1\r\nhost: x\r\n\r\n",
    "\0\r\n\r\n",
    "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\ntransfer-encoding: identity\r\n\r\n",
];

fn doubtful() -> Vec<String> {
    let head = "POST / HTTP/1.1\r\nhost: x\r\n";
    let heads = DOUBTFUL.iter().map(|rest| format!("{head}{rest}"));
    let chunks = DOUBTFUL_CHUNKS.iter();
    let chunks = chunks.map(|rest| format!("{head}transfer-encoding: chunked\r\n\r\n{rest}"));
    let lines = DOUBTFUL_LINES.iter().map(|line| (*line).to_owned());
    heads.chain(chunks).chain(lines).collect()
}

/// Sends `bytes` in pieces of `piece` to hyper behind [`ReplacedRefusals`], with a service that remembers target and body
/// of each request that it has read whole. Returns those, and everything that was answered.
async fn served(bytes: &[u8], piece: usize) -> (Vec<(String, Vec<u8>)>, String) {
    let (near, mut far) = tokio::io::duplex(4096);
    let (seen, is_answered) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| async {
        let target = request.uri().path().to_owned();
        let body = request.into_body().collect().await;
        is_answered.store(true, Ordering::Relaxed);
        let mut response = Response::new(Full::new(Bytes::from_static(b"good")));
        let mut connection = "keep-alive";
        if let Ok(body) = body {
            seen.lock().push((target, body.to_bytes().to_vec()));
        } else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            connection = "close";
        }
        let connection = HeaderValue::from_static(connection);
        response
            .headers_mut()
            .insert(header::CONNECTION, connection);
        Ok::<_, Infallible>(response)
    });
    let stream = ReplacedRefusals::new(near, &is_answered, || Bytes::from_static(REFUSAL));
    let stream = TokioIo::new(stream);
    // Without, hyper drops a request whose client ends its side before the service was asked.
    let mut builder = http1::Builder::new();
    builder.half_close(true);
    let serve = async {
        let _ = builder.serve_connection(stream, service).await;
    };
    let exchange = async {
        for piece in bytes.chunks(piece) {
            if far.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = far.shutdown().await;
        let mut answers = Vec::new();
        let _ = far.read_to_end(&mut answers).await;
        String::from_utf8(answers).unwrap()
    };
    let ((), answers) = tokio::join!(serve, exchange);
    (seen.into_inner(), answers)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

/// What is made of `bytes` in pieces of `piece`: where the doubt is, if there is one.
fn read(bytes: &[u8], piece: usize) -> Result<Framing, (usize, Doubt)> {
    let mut framing = Framing::new();
    for (index, bytes) in bytes.chunks(piece).enumerate() {
        framing
            .read(bytes)
            .map_err(|doubt| (index * piece, doubt))?;
    }
    Ok(framing)
}

#[test]
fn each_doubtful_request_is_refused_and_nothing_after_it_answered() {
    let good = "POST /good HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab";
    for bad in doubtful() {
        for piece in [1, 7, 10_000] {
            let sent = format!("{good}{bad}{good}");
            let (seen, answers) = block_on(served(sent.as_bytes(), piece));
            assert_eq!(seen.len(), 1, "{bad:?} in pieces of {piece}: {answers}");
            let statuses: Vec<_> = answers
                .split("HTTP/1.1 ")
                .skip(1)
                .map(|one| &one[..3])
                .collect();
            assert_eq!(statuses, ["200", "400"], "{bad:?} in pieces of {piece}");
        }
    }
}

#[test]
fn lines_may_be_long_but_not_without_end() {
    let headers = |length| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(length));
    for piece in [1, 1000, 100_000] {
        let fits = headers(LINE_LIMIT - "a: \r".len());
        assert_eq!(
            read(fits.as_bytes(), piece).unwrap().place,
            Place::Line(Kind::Request)
        );
        let over = headers(LINE_LIMIT - "a: \r".len() + 1);
        let (_, doubt) = read(over.as_bytes(), piece).unwrap_err();
        assert_eq!(doubt.reason, "a line is too long");
    }
    let endless = "x".repeat(LINE_LIMIT * 4);
    assert!(read(endless.as_bytes(), 1000).is_err());
}

proptest! {
    #[test]
    fn valid_requests_pass_unharmed_however_they_are_cut(
        requests in prop::collection::vec(valid(), 1..5), piece in 1usize..300,
    ) {
        let sent: Vec<_> = requests.iter().flat_map(|request| request.sent.clone()).collect();
        let (seen, answers) = block_on(served(&sent, piece));
        let expected: Vec<_> = requests.into_iter().map(|request| request.seen).collect();
        prop_assert_eq!(seen, expected, "{}", answers);
        let end = read(&sent, piece).unwrap();
        prop_assert_eq!(end.place, Place::Line(Kind::Request));
        prop_assert!(end.line.is_empty());
    }

    #[test]
    fn nothing_after_a_doubtful_request_is_answered(
        before in prop::collection::vec(valid(), 0..3),
        bad in prop::sample::select(doubtful()),
        after in prop::collection::vec(valid(), 1..3),
        piece in 1usize..300,
    ) {
        let sent = |requests: &[Valid]| -> Vec<u8> {
            requests.iter().flat_map(|request| request.sent.clone()).collect()
        };
        let all = [sent(&before), bad.into_bytes(), sent(&after)].concat();
        let (seen, answers) = block_on(served(&all, piece));
        let expected: Vec<_> = before.into_iter().map(|request| request.seen).collect();
        prop_assert_eq!(seen.len(), expected.len());
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(answers.matches(" 400 Bad Request").count(), 1, "{}", answers);
        prop_assert_eq!(answers.matches("HTTP/1.").count(), answers.matches(" 200 OK").count() + 1);
    }

    /// Whatever is sent, hyper sees no more requests than framing does, and framing does not depend on how it is cut.
    #[test]
    fn hyper_sees_requests_where_framing_does(
        requests in prop::collection::vec(valid(), 1..4),
        changes in prop::collection::vec((any::<Index>(), prop::sample::select(&b"\r\n\0 \t:;,0a1xXG\xff"[..]), any::<bool>()), 0..3),
        piece in 1usize..300,
    ) {
        let mut sent: Vec<_> = requests.iter().flat_map(|request| request.sent.clone()).collect();
        for (at, byte, inserts) in changes {
            let at = at.index(sent.len());
            if inserts { sent.insert(at, byte) } else { sent[at] = byte }
        }
        let mut framing = Framing::new();
        // Complete requests before the doubt, if there is one.
        let (mut ended, mut is_doubtful) = (0, false);
        for byte in &sent {
            let was = framing.place;
            if framing.read(&[*byte]).is_err() {
                is_doubtful = true;
                break;
            }
            let is_idle = framing.place == Place::Line(Kind::Request);
            ended += usize::from(is_idle && was != framing.place);
        }
        prop_assert_eq!(read(&sent, piece).is_err(), is_doubtful);
        let (seen, answers) = block_on(served(&sent, piece));
        prop_assert!(seen.len() <= ended, "{} of {}: {}", seen.len(), ended, answers);
    }
}
