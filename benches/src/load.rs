//! A closed-loop HTTP/1.1 load generator: every connection sends its next request when the last one was answered.
//!
//! One thread drives all connections, so that it takes as little as possible from the server beside it. It knows just
//! enough HTTP to tell where an answer ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What to send, where to, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// A whole request, head and body.
    pub request: Vec<u8>,
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// Not measured, before the rest.
    pub warm_up: Duration,
    /// Measured.
    pub duration: Duration,
}

/// What came back during the measured time.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Answers a second with status 200.
    pub throughput: f64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile of the latency.
    pub p99: Duration,
    /// Answers with another status, and broken connections.
    pub failures: usize,
}

/// Makes a `POST` whose body is `body`.
pub fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: lantern\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The same request with a token.
pub fn authorized(request: &[u8], key: &str) -> Vec<u8> {
    let end = request.windows(2).position(|pair| pair == b"\r\n");
    let (line, rest) = request.split_at(end.expect("a request has a first line") + 2);
    let header = format!("Authorization: Bearer {key}\r\n");
    [line, header.as_bytes(), rest].concat()
}

/// What the server answers to a `GET`, head and all; empty if it does not.
pub fn get(address: SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let request = format!("GET {path} HTTP/1.1\r\nHost: lantern\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let asked = std::net::TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    asked.map_or_else(|_| String::new(), |_| answer)
}

/// Drives the server and measures.
pub fn drive(load: &Load) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let measured_from = Instant::now() + load.warm_up;
        let until = measured_from + load.duration;
        let connections: Vec<_> = (0..load.connections)
            .map(|_| tokio::spawn(connection(load.clone(), measured_from, until)))
            .collect();
        let mut latencies = Vec::new();
        let mut failures = 0;
        for connection in connections {
            let (some, failed) = connection.await.expect("a connection does not panic");
            latencies.extend(some);
            failures += failed;
        }
        outcome(latencies, failures, load.duration)
    })
}

fn outcome(mut latencies: Vec<Duration>, failures: usize, duration: Duration) -> Outcome {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = latencies.len().saturating_sub(1) * percent / 100;
        latencies.get(index).copied().unwrap_or_default()
    };
    let answers = u32::try_from(latencies.len()).unwrap_or(u32::MAX);
    Outcome {
        throughput: f64::from(answers) / duration.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        failures,
    }
}

async fn connection(load: Load, from: Instant, until: Instant) -> (Vec<Duration>, usize) {
    let mut latencies = Vec::new();
    let mut failures = 0;
    let mut stream = None;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let sent = Instant::now();
        if sent >= until {
            return (latencies, failures);
        }
        let answered = exchange(&mut stream, &load, &mut buffer).await;
        if sent < from {
            continue;
        }
        match answered {
            Ok(200) => latencies.push(sent.elapsed()),
            Ok(_) | Err(_) => failures += 1,
        }
    }
}

/// Sends one request and reads one answer; connects if need be. Returns the status.
async fn exchange(
    slot: &mut Option<TcpStream>,
    load: &Load,
    buffer: &mut Vec<u8>,
) -> std::io::Result<u16> {
    let mut stream = match slot.take() {
        Some(stream) => stream,
        None => connect(load.address).await?,
    };
    stream.write_all(&load.request).await?;
    buffer.clear();
    let (status, close) = read_answer(&mut stream, buffer).await?;
    if !close {
        *slot = Some(stream);
    }
    Ok(status)
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<(u16, bool)> {
    let head = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, buffer).await?;
    };
    let (status, length, close) = parse_head(&buffer[..head])?;
    while buffer.len() < head + length {
        more(stream, buffer).await?;
    }
    Ok((status, close))
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Status, content length and whether the server closes the connection.
fn parse_head(head: &[u8]) -> std::io::Result<(u16, usize, bool)> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(head).map_err(|_| invalid())?;
    let status = text
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .ok_or_else(invalid)?;
    let mut length = 0;
    let mut close = false;
    for line in text.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| invalid())?;
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Ok((status, length, close))
}
