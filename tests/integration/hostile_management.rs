//! Hostile input to the management API: each call gets the right status and body, reveals nothing and leaves nothing behind.

use lantern::api::Listener;
use serde_json::Value;

use crate::support::{Model, TestServer};

/// One call as it is written to the socket.
struct Attack {
    head: String,
    body: Vec<u8>,
    status: u16,
}

fn call(method: &str, path: &str, status: u16) -> Attack {
    Attack {
        head: format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"),
        body: Vec::new(),
        status,
    }
}

fn json(body: impl Into<Vec<u8>>, status: u16) -> Attack {
    let attack = call("POST", "/models", status);
    Attack {
        head: format!("{}content-type: application/json\r\n", attack.head),
        body: body.into(),
        ..attack
    }
}

impl Attack {
    fn bytes(&self) -> Vec<u8> {
        let head = format!("{}content-length: {}\r\n\r\n", self.head, self.body.len());
        [head.as_bytes(), &self.body].concat()
    }
}

fn paths() -> Vec<Attack> {
    let long = "n".repeat(300);
    let mut attacks = Vec::new();
    for name in [
        "..",
        "%2e%2e",
        "a%00b",
        "%20",
        "%E2%80%AEx",
        "a%0d%0ab",
        &long,
    ] {
        for (method, path) in [
            ("GET", format!("/models/{name}")),
            ("PUT", format!("/models/{name}?min_worker=1")),
            ("DELETE", format!("/models/{name}")),
            ("OPTIONS", format!("/models/{name}")),
            ("GET", format!("/models/echo/{name}")),
            ("PUT", format!("/models/echo/{name}")),
            ("DELETE", format!("/models/echo/{name}")),
            ("PUT", format!("/models/echo/{name}/set-default")),
            ("PUT", format!("/models/{name}/1.0/set-default")),
            ("GET", format!("/v1/models/{name}")),
            ("GET", format!("/workflows/{name}")),
            ("DELETE", format!("/workflows/{name}")),
        ] {
            attacks.push(call(method, &path, 404));
        }
    }
    attacks.push(call("GET", "/models/a%2fb%2fc%2fd%2fe", 404));
    attacks.push(call("GET", "/models/%zz", 403));
    attacks
}

fn numbers() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for huge in ["9223372036854775807", "4294967296", "1025"] {
        attacks.push(call("PUT", &format!("/models/echo?min_worker={huge}"), 400));
        let register = format!("/models?url=echo-1.0.mar&initial_workers={huge}");
        attacks.push(call("POST", &register, 400));
    }
    for query in [
        "batch_size=-1",
        "batch_size=9223372036854775807",
        "max_batch_delay=-9223372036854775808",
        "max_batch_delay=99999999999",
        "response_timeout=0",
        "response_timeout=-5",
        "startup_timeout=-1",
        "runtime=python%00",
    ] {
        attacks.push(call(
            "POST",
            &format!("/models?url=echo-1.0.mar&{query}"),
            400,
        ));
    }
    for (query, status) in [
        ("min_worker=-9223372036854775808", 500),
        ("min_worker=1&max_worker=-9223372036854775808", 400),
        // A number over 64 bits counts as no number, as in TorchServe.
        ("min_worker=99999999999999999999", 202),
        ("min_worker=1e3", 202),
        ("min_worker=0x10", 202),
    ] {
        attacks.push(call("PUT", &format!("/models/echo?{query}"), status));
    }
    for query in [
        "limit=99999999999999999999",
        "limit=-9223372036854775808",
        "next_page_token=9223372036854775807",
    ] {
        attacks.push(call("GET", &format!("/models?{query}"), 200));
    }
    attacks
}

fn names() -> Vec<Attack> {
    let long = "n".repeat(300);
    let names = [
        "..",
        "..%2fx",
        "a%2fb",
        "a%00b",
        "%20",
        "%E2%80%AEx",
        "a%E2%80%A8b",
        &long,
    ];
    let names = names.map(|name| {
        call(
            "POST",
            &format!("/models?url=echo-1.0.mar&model_name={name}"),
            400,
        )
    });
    let urls = [
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "%2f",
        ".",
        "a%00b",
        "file:%2f%2f%2fetc%2fpasswd",
        "http:%2f%2f127.0.0.1:1%2fx.mar",
        "s3:%2f%2fb%2fx.mar",
        &long,
    ];
    let urls = urls.map(|url| call("POST", &format!("/models?url={url}"), 404));
    names.into_iter().chain(urls).collect()
}

fn bodies() -> Vec<Attack> {
    let deep = format!("{{\"url\": {}1{}}}", "[".repeat(101), "]".repeat(101));
    let members: Vec<_> = (0..1000).map(|index| format!("\"a{index}\": 1")).collect();
    vec![
        json("", 400),
        json("null", 400),
        json(deep, 400),
        json("[".repeat(1_000_000), 400),
        json(format!("{{\"a\": {}", "{\"a\":".repeat(200_000)), 400),
        json(r#"{"url": "echo-1.0.mar", "url": "other.mar"}"#, 400),
        json(r#"{"url": "echo-1.0.mar", "batch_size": "two"}"#, 400),
        json(r#"{"url": "echo-1.0.mar", "batch_size": 1e400}"#, 400),
        json(r#"{"url": {"a": 1}}"#, 400),
        json(r#"{"url": "a\u0000b"}"#, 404),
        json(r#"{"url": "a\ud800"}"#, 400),
        json(b"{\"url\": \"\xff\"}".to_vec(), 400),
        json(format!("{{{}}}", members.join(",")), 400),
        json(format!("{{\"url\": \"{}\"}}", "u".repeat(1_000_000)), 404),
        json(vec![b' '; 7_000_000], 413),
    ]
}

fn all() -> Vec<Attack> {
    let attacks = [paths(), numbers(), names(), bodies()];
    attacks.into_iter().flatten().collect()
}

async fn server() -> TestServer {
    TestServer::with(Model::new("echo").with("jobQueueSize: 2")).await
}

/// Sends a call, and checks status and body.
async fn send(server: &TestServer, attack: &Attack) {
    let answer = server.raw(Listener::Management, &attack.bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let shown = &attack.head;
    assert!(
        head.starts_with(&format!("HTTP/1.1 {} ", attack.status)),
        "{shown}: {answer}"
    );
    if attack.status == 413 || attack.status < 400 {
        return;
    }
    let body: Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{shown}: {error}: {answer}"));
    assert_eq!(body["code"], attack.status, "{shown}");
    assert!(
        body["type"].as_str().is_some_and(|name| !name.is_empty()),
        "{shown}"
    );
    let message = body["message"].as_str().unwrap();
    assert!(
        message.len() < 6000,
        "{shown}: a message of {} bytes",
        message.len()
    );
    for secret in ["/tmp", "/proc", "0x", ".rs:", "os error"] {
        assert!(
            !message.contains(secret) || shown.contains(secret),
            "{shown}: {message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_has_its_code_and_changes_nothing() {
    let server = server().await;
    for attack in all() {
        send(&server, &attack).await;
    }
    let models = server.management("GET", "/models").await.json();
    assert_eq!(models["models"].as_array().unwrap().len(), 1);
    let described = server.management("GET", "/models/echo").await.json();
    assert_eq!(
        (&described[0]["minWorkers"], &described[0]["maxWorkers"]),
        (&1.into(), &1.into())
    );
    assert_eq!(server.predict("echo", "hi").await.status, 200);
}

/// Private bytes of memory of this process, in which the server runs.
fn private_memory() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let dirty = rollup
        .lines()
        .find(|line| line.starts_with("Private_Dirty"));
    let kilobytes = dirty.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kilobytes.unwrap() * 1024
}

/// One call of each kind, small enough to be sent a thousand times.
fn repeated() -> Vec<Attack> {
    vec![
        call("GET", "/models/a%00b", 404),
        call("PUT", "/models/echo?min_worker=9223372036854775807", 400),
        call("POST", "/models?url=..%2fx", 404),
        call("POST", "/models?url=echo-1.0.mar&model_name=a%2fb", 400),
        json(format!("{{\"url\": {}", "[".repeat(10_000)), 400),
        json(r#"{"url": "x", "url": "y"}"#, 400),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_after_a_thousand_of_each() {
    let server = server().await;
    let round = async |count: usize| {
        for attack in repeated() {
            for _ in 0..count {
                send(&server, &attack).await;
            }
        }
    };
    round(300).await;
    let before = private_memory();
    round(1000).await;
    let grown = private_memory().saturating_sub(before);
    assert!(grown < 4 << 20, "memory has grown by {grown} bytes");
}
