//! A thousand of each kind of bad request: the server goes on serving, its answers reveal nothing about it, and its memory
//! does not grow with the requests.

use lantern::api::Listener;

use crate::support::{Model, TestServer};

const ROUNDS: usize = 1000;
/// Most bytes by which memory may grow over all rounds. A leak of a hundred bytes per request would exceed it, and so would
/// one of two kilobytes per request of one kind.
const GROWTH_LIMIT: usize = 2 << 20;
/// Texts that no client may see: paths, process ids, addresses in memory.
const SECRETS: [&str; 9] = [
    "/tmp",
    "/root",
    "/home",
    "/proc",
    "/usr",
    ".rs:",
    "0x",
    "lantern::",
    "panicked",
];

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let post = |head: &str, body: &str| {
        let length = body.len();
        format!("POST {head}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let to = |path: &str| format!("{path} HTTP/1.1\r\nhost: x\r\n");
    let echo = to("/predictions/echo");
    let packed = format!("{echo}content-encoding: gzip\r\n");
    let form = format!("{echo}content-type: multipart/form-data; boundary=x\r\n");
    let json = format!("{}content-type: application/json\r\n", to("/models"));
    vec![
        ("not HTTP", b"hello\r\n\r\n".to_vec()),
        (
            "many headers",
            format!("GET {}{}\r\n", to("/ping"), "a: b\r\n".repeat(200)).into_bytes(),
        ),
        (
            "long header",
            format!("GET {}a: {}\r\n\r\n", to("/ping"), "b".repeat(100_000)).into_bytes(),
        ),
        (
            "long target",
            format!("GET {}\r\n", to(&format!("/{}", "x".repeat(60_000)))).into_bytes(),
        ),
        (
            "bad escape",
            format!("GET {}\r\n", to("/ping%zz")).into_bytes(),
        ),
        ("unknown path", post(&to("/nowhere"), "x")),
        ("unknown model", post(&to("/predictions/nomodel"), "x")),
        (
            "parent",
            post(&to("/predictions/%2e%2e%2f..%2fetc%2fpasswd"), "x"),
        ),
        ("nul and RTL", post(&to("/predictions/a%00%E2%80%AEx"), "x")),
        (
            "long name",
            post(&to(&format!("/predictions/{}", "n".repeat(300))), "x"),
        ),
        (
            "too large",
            format!("POST {echo}content-length: 99999999\r\n\r\n").into_bytes(),
        ),
        (
            "bad length",
            format!("POST {echo}content-length: x\r\n\r\n").into_bytes(),
        ),
        (
            "bad chunk",
            format!("POST {echo}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        ),
        (
            "chunk extension",
            format!(
                "POST {echo}transfer-encoding: chunked\r\n\r\n1;{}\r\n",
                "e".repeat(50_000)
            )
            .into_bytes(),
        ),
        (
            "bad expectation",
            format!("POST {echo}expect: x\r\ncontent-length: 1\r\n\r\n").into_bytes(),
        ),
        ("bad gzip", post(&packed, "plain")),
        ("bad form", post(&form, "--x\r\n")),
        (
            "fault of the handler",
            post(&to("/predictions/hostile"), "status 99"),
        ),
        ("no model named", post(&to("/invocations"), "x")),
        ("no explanation", post(&to("/explanations/echo"), "x")),
        ("registration is not here", post(&json, &"[".repeat(10_000))),
    ]
}

async fn round(server: &TestServer, requests: &[(&str, Vec<u8>)]) {
    for (what, request) in requests {
        let answer = server.raw(Listener::Inference, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{what}: {answer}"
        );
        for secret in SECRETS {
            assert!(!answer.contains(secret), "{what}: {secret:?} in {answer}");
        }
    }
    server.forget_access_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_of_each_bad_request_leave_memory_flat() {
    let hostile = Model::new("hostile").artifact("linear.onnx");
    let builder = TestServer::builder().model(Model::new("echo"));
    let server = builder.model(hostile).start().await;
    let requests = requests();
    let mut growths = Vec::new();
    // A leak grows with each round; memory that the allocator keeps does not.
    while growths.last().is_none_or(|growth| *growth > GROWTH_LIMIT) {
        assert!(growths.len() < 3, "memory grew by {growths:?} bytes");
        let before = private_memory();
        for _ in 0..ROUNDS {
            round(&server, &requests).await;
        }
        growths.push(private_memory().saturating_sub(before));
    }
    assert_eq!(server.predict("echo", "hi").await.text(), "hi");
}

/// Bytes that belong to this process alone and were written to.
pub fn private_memory() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Private_Dirty:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<usize>().unwrap() << 10
}
