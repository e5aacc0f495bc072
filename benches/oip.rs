//! Open Inference Protocol with a tensor of 600 KB, there and back through a model that copies it, against bare servers that echo the
//! same: one of tonic, one of axum, each in a process of its own as the server is.
//!
//! `make bench ARGS="--bench oip"` prints requests a second over gRPC and over REST with the binary tensor data extension, for the
//! echo and for both hostings, each as a part of the echo's. All are up, and are driven in turn; figures are medians.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lantern::api::grpc::proto::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use lantern::api::grpc::proto::open_inference::{ModelInferRequest, ModelInferResponse};
use tokio::net::TcpListener;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use lantern_benches::bare::{self, Bare};
use lantern_benches::guest;
use lantern_benches::load::{self, Load};
use lantern_benches::server::{Model, Setup};

/// Elements of the tensor, fp32.
const ELEMENTS: usize = 150_000;
const LIMIT: usize = 16 << 20;
const ROUNDS: usize = 5;
const CALLS: [usize; 3] = [1, 4, 16];
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1500);
/// Windows like the server's, so that the two differ in nothing else.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    if bare::has_served("tonic", bare_tonic) || bare::has_served("axum", bare_axum) {
        return;
    }
    let servers = ["inline", "process"].map(|hosting| {
        let setup = identity(hosting);
        let server = setup.start();
        setup.first_answer(&question(), Instant::now());
        (hosting, setup, server)
    });
    let tokio = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let (tonic, axum) = (Bare::start("tonic"), Bare::start("axum"));
    let grpc = servers
        .each_ref()
        .map(|(hosting, setup, _)| (*hosting, setup.grpc));
    println!("\nfp32[1, {ELEMENTS}] over gRPC, raw; requests/s, and as a part of the echo's");
    compare(tonic.address, grpc, |address, calls| {
        tokio.block_on(drive(address, calls))
    });
    let rest = servers
        .each_ref()
        .map(|(hosting, setup, _)| (*hosting, setup.inference));
    println!("\nThe same over REST, in binary form");
    compare(axum.address, rest, |address, connections| {
        let outcome = load::drive(&Load {
            address,
            request: question(),
            connections,
            warm_up: WARM_UP,
            duration: MEASURED,
        });
        assert_eq!(outcome.failures, 0, "every request is answered");
        outcome.throughput
    });
}

/// Prints what `rate` says of a bare server and of others, in turn.
fn compare(
    bare: SocketAddr,
    others: [(&str, SocketAddr); 2],
    rate: impl Fn(SocketAddr, usize) -> f64,
) {
    println!(
        "{:<10} {:>6} {:>10} {:>6}",
        "server", "calls", "requests/s", "part"
    );
    let [inline, process] = others;
    let servers = [("echo", bare), inline, process];
    for calls in CALLS {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| servers.map(|(_, address)| rate(address, calls)))
            .collect();
        let median = |server: usize| {
            let mut rates: Vec<f64> = rounds.iter().map(|round| round[server]).collect();
            rates.sort_by(f64::total_cmp);
            rates[ROUNDS / 2]
        };
        for (place, (name, _)) in servers.iter().enumerate() {
            let (rate, part) = (median(place), median(place) / median(0));
            println!("{name:<10} {calls:>6} {rate:>10.0} {part:>6.2}");
        }
    }
}

/// A server of a model whose output is its input.
fn identity(hosting: &str) -> Setup {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let artifact = directory.path().join("identity.onnx");
    std::fs::write(&artifact, onnx()).expect("the model can be written");
    let model = Model {
        name: "identity",
        artifact: &artifact,
        handler: &guest("linear"),
        config: format!("minWorkers: 1\nmaxWorkers: 1\nlantern:\n  hosting: {hosting}\n"),
        extra_files: Vec::new(),
    };
    Setup::new(&[model], "")
}

/// `y = Identity(x)` as ONNX: messages of numbered fields, written by hand.
fn onnx() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("the model is small");
        [&[number << 3 | 2, length], content].concat()
    };
    let axes = [field(1, &field(2, b"n")), field(1, &field(2, b"m"))].concat();
    let tensor = [&[1 << 3, 1], &field(2, &axes)[..]].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [
        field(1, &node),
        field(2, b"identity"),
        field(11, &value(b"x")),
        field(12, &value(b"y")),
    ];
    let opset = [2 << 3, 13];
    [
        &[1 << 3, 8],
        &field(7, &graph.concat())[..],
        &field(8, &opset),
    ]
    .concat()
}

/// A whole request over REST.
fn question() -> Vec<u8> {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,{ELEMENTS}],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        ELEMENTS * 4
    );
    let head = format!(
        "POST /v2/models/identity/infer HTTP/1.1\r\nhost: bench\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        json.len(),
        json.len() + ELEMENTS * 4
    );
    [head.as_bytes(), json.as_bytes(), &vec![0; ELEMENTS * 4]].concat()
}

fn message() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "identity".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 150_000],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from(vec![0; ELEMENTS * 4])],
        ..ModelInferRequest::default()
    }
}

/// Requests a second with `calls` under way, each on a connection of its own.
async fn drive(address: SocketAddr, calls: usize) -> f64 {
    let callers: Vec<_> = (0..calls)
        .map(|_| {
            let client = client(address);
            tokio::spawn(call_for(client))
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.expect("a caller ends well");
    }
    f64::from(answered) / MEASURED.as_secs_f64()
}

fn client(address: SocketAddr) -> GrpcInferenceServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a URL");
    let channel = endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_lazy();
    GrpcInferenceServiceClient::new(channel)
        .max_decoding_message_size(LIMIT)
        .max_encoding_message_size(LIMIT)
}

/// Answers within the measured time.
async fn call_for(mut client: GrpcInferenceServiceClient<Channel>) -> u32 {
    let message = message();
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < WARM_UP + MEASURED {
        let answer = client.model_infer(message.clone()).await;
        let answer = answer.expect("the request is answered").into_inner();
        assert_eq!(answer.raw_output_contents[0].len(), ELEMENTS * 4);
        answered += u32::from(begun.elapsed() > WARM_UP);
    }
    answered
}

async fn bare_tonic(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo(stream));
    }
}

async fn bare_axum(listener: TcpListener) {
    let router = axum::Router::new()
        .fallback(async |body: Bytes| body)
        .layer(axum::extract::DefaultBodyLimit::max(LIMIT));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo_rest(stream, router.clone()));
    }
}

/// The bare service on one connection.
async fn echo(stream: tokio::net::TcpStream) {
    stream
        .set_nodelay(true)
        .expect("a TCP socket has the option");
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let served = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
    // The client ends it.
    let _ = served.await;
}

/// A bare router on one connection.
async fn echo_rest(stream: tokio::net::TcpStream, router: axum::Router) {
    stream
        .set_nodelay(true)
        .expect("a TCP socket has the option");
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        router.clone().call(request.map(axum::body::Body::new))
    });
    let builder = hyper::server::conn::http1::Builder::new();
    // The client ends it.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<tonic::body::Body>, Infallible> {
    let codec = ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
    let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(LIMIT);
    Ok(grpc.unary(Echo, request).await)
}

struct Echo;

impl Service<tonic::Request<ModelInferRequest>> for Echo {
    type Response = tonic::Response<ModelInferResponse>;
    type Error = tonic::Status;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(ModelInferResponse {
            raw_output_contents: request.into_inner().raw_input_contents,
            ..ModelInferResponse::default()
        })))
    }
}
