//! Clients that do not read, uploads and calls that stall, sockets that nobody uses: what they hold is bounded, is given back,
//! and others are served meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lantern::api::Listener;
use lantern::api::grpc::proto::inference::PredictionsRequest;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::frames::{END_STREAM, PREFACE, call, frame, message};
use crate::support::{Builder, Life, Model, Place, TestServer, prediction};

const MIB: usize = 1 << 20;
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// The kind of a frame of HTTP/2.
const WINDOW_UPDATE: u8 = 8;
/// Bytes of an answer or a body that is large here.
const LARGE: usize = 3_000_000;

/// A server with little room, and little patience.
fn small() -> Builder {
    TestServer::builder()
        .set("lantern_bytes_in_flight=8MiB")
        .set("lantern_bytes_in_flight_of_peer=8MiB")
        .set("lantern_bytes_timeout=1")
        .set("lantern_head_timeout=1")
        .set("lantern_body_timeout=1")
        .set("lantern_write_timeout=1")
}

/// The handler that answers as many bytes as it is told to, in both hostings.
fn generous() -> [Model; 2] {
    let model = || Model::new("hostile").artifact("linear.onnx");
    [model(), model().in_process()]
}

async fn refused(server: &TestServer, limit: &str) -> f64 {
    let sample = format!("lantern_refusals_total{{limit=\"{limit}\"");
    server.sample(&sample).await.unwrap()
}

async fn in_flight(server: &TestServer) -> f64 {
    server.sample("lantern_bytes_in_flight").await.unwrap()
}

/// Looks again and again until it `is_so`, and fails if that takes too long.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < PATIENCE,
            "not so after {PATIENCE:?}: {what}"
        );
        tokio::task::yield_now().await;
    }
}

/// A connection whose client has room for next to nothing.
async fn narrow(server: &TestServer, listener: Listener) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(server.address(listener)).await.unwrap()
}

/// A request whose head announces `length` bytes.
fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

/// Everything that the server says until it ends the connection, whichever way.
async fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count.min(100)]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_are_cut_and_hold_little_until_then() {
    for model in generous() {
        let server = small().model(model).start().await;
        let mut clients = Vec::new();
        for _ in 0..12 {
            let mut client = narrow(&server, Listener::Inference).await;
            let order = format!("body-bytes {LARGE}");
            let request = head("/predictions/hostile", order.len()) + &order;
            client.write_all(request.as_bytes()).await.unwrap();
            clients.push(client);
        }
        until("somebody is refused, and somebody cut", async || {
            assert!(in_flight(&server).await <= 9.0 * 1_048_576.0);
            assert_eq!(server.predict("hostile", "body-bytes 10").await.status, 200);
            let refused = async |limit| refused(&server, limit).await > 0.0;
            (refused("bytes_of_peer").await || refused("bytes_in_flight").await)
                && refused("write_time").await
        })
        .await;
        until("everything is given back", async || {
            in_flight(&server).await == 0.0
        })
        .await;
        drop(clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stall_are_cut_and_hold_little_until_then() {
    let server = small().model(Model::new("echo")).start().await;
    let mut clients = Vec::new();
    for index in 0..10 {
        let (mut client, body) = (server.connect(Listener::Inference).await, vec![b'x'; LARGE]);
        let (start, size) = if index % 2 == 0 {
            (head("/predictions/echo", LARGE + 1), String::new())
        } else {
            let head =
                "POST /predictions/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
            (head.to_owned(), format!("{:x}\r\n", LARGE + 1))
        };
        clients.push(tokio::spawn(async move {
            // The server may answer and end the connection before everything was sent.
            let _ = client.write_all((start + &size).as_bytes()).await;
            let _ = client.write_all(&body).await;
            rest(client).await
        }));
    }
    until("they are cut", async || {
        assert!(in_flight(&server).await <= 9.0 * 1_048_576.0);
        assert_eq!(server.predict("echo", "small").await.status, 200);
        clients.iter().all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for client in clients {
        let said = client.await.unwrap();
        assert!(
            said.contains(" 408 ") || said.contains(" 503 ") || said.is_empty(),
            "{said}"
        );
    }
    assert!(refused(&server, "body_time").await > 0.0);
    assert!(in_flight(&server).await < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_cut() {
    let server = small().model(Model::new("echo")).start().await;
    let (mut reader, mut writer) = server.connect(Listener::Inference).await.into_split();
    let start = head("/predictions/echo", LARGE);
    let trickling = tokio::spawn(async move {
        writer.write_all(start.as_bytes()).await.unwrap();
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut said = [0; 12];
    reader.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 408");
    trickling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_stalls_is_cut_and_an_idle_connection_is_not() {
    let server = small().model(Model::new("echo")).start().await;
    let mut idle = server.connect(Listener::Inference).await;
    let ping = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n";
    idle.write_all(ping).await.unwrap();
    let mut slow = server.connect(Listener::Inference).await;
    slow.write_all(&ping[..20]).await.unwrap();
    assert_eq!(rest(slow).await, "");
    assert!(refused(&server, "head_time").await > 0.0);
    // By now the other one has been idle for as long.
    idle.write_all(&ping[..ping.len() - 4]).await.unwrap();
    idle.write_all(b"\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut said = String::new();
    idle.read_to_string(&mut said).await.unwrap();
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_to_more_than_there_is_room_for_is_refused() {
    let server = small()
        .set("lantern_body_timeout=60")
        .model(Model::new("echo"))
        .api(|api| api.max_request_size = 6 * MIB)
        .start()
        .await;
    let mut packed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![0; 5 * MIB]).unwrap();
    encoder.finish().unwrap();
    // Half of the room is taken by a body that is still coming.
    let mut client = server.connect(Listener::Inference).await;
    let start = head("/predictions/echo", 4 * MIB + 1);
    client.write_all(start.as_bytes()).await.unwrap();
    client.write_all(&vec![b'x'; 4 * MIB]).await.unwrap();
    // All of it, or the other one finds room before the rest of this one has come.
    until("the body is there", async || in_flight(&server).await > 4e6).await;
    let request = server.request(Listener::Inference, "POST", "/predictions/echo");
    let request = request.header("content-encoding", "gzip").body(packed);
    assert_eq!(request.send().await.unwrap().status(), 503);
    drop(client);
    until("everything is given back", async || {
        in_flight(&server).await == 0.0
    })
    .await;
}

/// A connection over HTTP/2 that has been greeted by the server, whose windows are open then.
async fn greeted(server: &TestServer, settings: &[u8]) -> TcpStream {
    let mut stream = narrow(server, Listener::GrpcInference).await;
    let preface = [&PREFACE[..PREFACE.len() - 9], settings].concat();
    stream.write_all(&preface).await.unwrap();
    // The last of what it says of its own is how much all calls together may send.
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == WINDOW_UPDATE {
            return stream;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_stall_within_a_message_end_and_hold_little_until_then() {
    for path in [
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/inference.GRPCInferenceService/ModelInfer",
    ] {
        let builder = small().set("lantern_bytes_in_flight=2MiB");
        let server = builder.model(Model::new("echo")).start().await;
        let mut connections = Vec::new();
        for _ in 0..3 {
            let mut stream = greeted(&server, &frame(4, 0, 0, &[])).await;
            let mut bytes = Vec::new();
            for index in 0..20 {
                let id = 2 * index + 1;
                bytes.extend(call(path, 0, id));
                // The data of a tensor, which `ModelInfer` reads by itself.
                let data = [&[0x3a, 0x9c, 0x8d, 0x06][..], &vec![0; 99_996]].concat();
                let begun = message(0, &data);
                for piece in begun[..60_000].chunks(16_384) {
                    bytes.extend(frame(0, 0, id, piece));
                }
            }
            stream.write_all(&bytes).await.unwrap();
            connections.push(stream);
        }
        until("they stall, and end", async || {
            assert!(in_flight(&server).await <= 2.3 * 1_048_576.0);
            refused(&server, "body_time").await > 0.0 && in_flight(&server).await == 0.0
        })
        .await;
        let refusals =
            refused(&server, "bytes_of_peer").await + refused(&server, "bytes_in_flight").await;
        assert!(refusals > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_http_2_that_takes_nothing_is_cut() {
    for model in generous() {
        let server = small().model(model).start().await;
        // SETTINGS_INITIAL_WINDOW_SIZE is 0: no answer may be sent.
        let closed = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let mut stream = greeted(&server, &closed).await;
        let request: PredictionsRequest = prediction("hostile", "body-bytes 100000");
        let path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
        let body = message(0, &request.encode_to_vec());
        let bytes = [call(path, 0, 1), frame(0, END_STREAM, 1, &body)].concat();
        stream.write_all(&bytes).await.unwrap();
        rest(stream).await;
        assert!(refused(&server, "write_time").await > 0.0);
        until("everything is given back", async || {
            in_flight(&server).await == 0.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_others() {
    for (total, of_peer, limit) in [(8, 99, "connections"), (99, 4, "connections_of_peer")] {
        let server = TestServer::builder()
            .set(&format!("lantern_max_connections={total}"))
            .set(&format!("lantern_max_connections_of_peer={of_peer}"))
            .model(Model::new("echo"))
            .start()
            .await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            idle.push(server.connect(Listener::Inference).await);
        }
        assert_eq!(server.predict("echo", "hi").await.status, 200);
        assert!(refused(&server, limit).await >= 12.0);
        // As many were closed: the oldest of those that were idle by then.
        let is_closed = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        until("as many are closed", async || {
            idle.iter().filter(|stream| is_closed(stream)).count() >= 12
        })
        .await;
        // Of the eight, the one of the prediction, and those that the client keeps for metrics.
        let shown = server.sample("lantern_connections").await.unwrap();
        assert!(shown <= 12.0, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_in_use_are_kept_and_others_refused_and_management_is_in_reach() {
    let server = TestServer::builder()
        .set("lantern_max_connections=8")
        .set("lantern_max_connections_of_peer=99")
        .model(Model::new("echo"))
        .start()
        .await;
    let mut used = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect(Listener::Inference).await;
        let start =
            head("/predictions/echo", 4).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
        stream.write_all(start.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 25]).await.unwrap();
        used.push(stream);
    }
    assert_eq!(rest(server.connect(Listener::Inference).await).await, "");
    assert_eq!(server.management("GET", "/models").await.status, 200);
    assert!(refused(&server, "connections").await > 0.0);
    for stream in &mut used {
        stream.write_all(b"body").await.unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200");
    }
}

/// The process id of the only worker of a model; `None` while there is none.
async fn worker(life: &Life, model: &str) -> Option<i32> {
    let (_, described) = life.ask("GET", &format!("/models/{model}")).await;
    let pid = described[0]["workers"][0]["pid"].as_i64()?;
    i32::try_from(pid).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_descriptors_idle_sockets_keep_nobody_out() {
    let place = Place::new(&[Model::new("echo").in_process()]).with_descriptors(300);
    let mut life = place.start(&["--models", "all"]).await;
    life.line("1 of 1 models loaded").await;
    let address = life.address("inference").split("http://").nth(1).unwrap();
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(life.predict("echo", None).await, 200);
    let before = worker(&life, "echo").await.unwrap();
    assert!(
        life.sample("lantern_refusals_total{limit=\"descriptors\"")
            .await
            .unwrap()
            > 0.0
    );
    kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
    until("another process serves", async || {
        worker(&life, "echo").await.is_some_and(|pid| pid != before)
    })
    .await;
    assert_eq!(life.predict("echo", None).await, 200);
}

/// Memory of a process that is resident.
fn resident(process: Pid) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.as_raw_pid()));
    let pages = statm
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap();
    pages * rustix::param::page_size()
}

/// Sends bodies at once that stall shortly before their end. Once they are there, so many clients go at a time.
async fn flood(life: &Life, model: &str, leaves: &[usize]) {
    let address = life.address("inference").split("http://").nth(1).unwrap();
    let bodies = (0..leaves.iter().sum()).map(|_| async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let start = head(&format!("/predictions/{model}"), LARGE + 1);
        stream.write_all(start.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; LARGE]).await.unwrap();
        stream
    });
    let mut streams = join_all(bodies).await;
    // Something small is kept among what is freed.
    assert_eq!(life.predict(model, None).await, 200);
    let all: usize = leaves.iter().sum();
    until("they are there", async || {
        resident(life.id()) >= all * LARGE
    })
    .await;
    for count in leaves {
        let left = resident(life.id()) - count * LARGE / 2;
        drop(streams.drain(..count));
        until("they are gone", async || resident(life.id()) <= left).await;
    }
}

/// Waits until the memory is back that a flood took whose clients go so many at a time.
async fn memory_is_back(model: Model, leaves: &[usize]) {
    let place = Place::new(&[model]).set("lantern_bytes_in_flight=1GiB");
    let mut life = place.start(&["--models", "all"]).await;
    life.line("1 of 1 models loaded").await;
    assert_eq!(life.predict("echo", None).await, 200);
    let before = resident(life.id());
    flood(&life, "echo", leaves).await;
    until("memory is back", async || {
        resident(life.id()) <= before + 16 * MIB
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_comes_back_after_a_flood() {
    memory_is_back(Model::new("echo"), &[80]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_comes_back_after_a_flood_to_a_model_in_a_process() {
    memory_is_back(Model::new("echo").in_process(), &[80]).await;
}

/// What was given back in between counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn memory_comes_back_after_a_flood_that_ends_in_steps() {
    memory_is_back(Model::new("echo").in_process(), &[50, 30]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_worker_processes_comes_back() {
    let place = Place::new(&[Model::new("echo").in_process()]);
    let mut life = place.start(&["--models", "all"]).await;
    life.line("1 of 1 models loaded").await;
    assert_eq!(life.predict("echo", None).await, 200);
    let (_, described) = life.ask("GET", "/models/echo").await;
    let worker = described[0]["workers"][0]["pid"].as_i64().unwrap();
    let worker = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
    let before = resident(worker);
    let calls = (0..16).map(|_| async {
        let url = format!("{}/predictions/echo", life.address("inference"));
        let request = reqwest::Client::new().post(url).body(vec![b'x'; LARGE]);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap().len(), LARGE);
    });
    join_all(calls).await;
    assert!(resident(worker) > before + 16 * MIB, "it takes memory");
    until("memory is back", async || {
        resident(worker) <= before + 16 * MIB
    })
    .await;
}
