//! Open Inference Protocol with a tensor of 600 KB, there and back through a model that copies it, against a bare tonic
//! service that echoes the same message.
//!
//! `make bench ARGS="--bench oip"` prints requests a second over gRPC for the echo and for both hosts, each as a part of the
//! echo's, and over REST with the binary tensor data extension.

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
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use lantern_benches::guest;
use lantern_benches::load::{self, Load};
use lantern_benches::server::{Model, Setup};

/// Elements of the tensor, fp32.
const ELEMENTS: usize = 150_000;
const LIMIT: usize = 16 << 20;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(3);
/// Windows like the server's, so that the two differ in nothing else.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let tokio = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let echo = tokio.block_on(echo());
    println!("\nfp32[1, {ELEMENTS}] through gRPC, raw; requests/s, and as a part of the echo's");
    println!(
        "{:<10} {:>6} {:>10} {:>6}",
        "server", "calls", "requests/s", "part"
    );
    for calls in [1, 4, 16] {
        let bare = tokio.block_on(drive(echo, calls));
        println!("{:<10} {calls:>6} {bare:>10.0} {:>6.2}", "echo", 1.0);
        for hosting in ["inline", "process"] {
            let setup = identity(hosting);
            let _server = setup.start();
            setup.first_answer(&question(), Instant::now());
            let rate = tokio.block_on(drive(setup.grpc, calls));
            println!("{hosting:<10} {calls:>6} {rate:>10.0} {:>6.2}", rate / bare);
        }
    }
    rest();
}

/// The same tensor over REST, in binary form.
fn rest() {
    println!("\nThe same over REST, in binary form");
    for hosting in ["inline", "process"] {
        let setup = identity(hosting);
        let _server = setup.start();
        setup.first_answer(&question(), Instant::now());
        for connections in [1, 4, 16] {
            let outcome = load::drive(&Load {
                address: setup.inference,
                request: question(),
                connections,
                warm_up: WARM_UP,
                duration: MEASURED,
            });
            println!(
                "{hosting:<10} {connections:>6} {:>10.0} {:>6} failures",
                outcome.throughput, outcome.failures
            );
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

/// Starts the bare service.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream
                .set_nodelay(true)
                .expect("a TCP socket has the option");
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    address
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
