//! gRPC as a client meets it: a release build, started as a process, driven over loopback by tonic's client.
//!
//! `make bench ARGS="--bench grpc"` prints two tables: predictions of a small JSON model beside the same over REST and beside a bare
//! tonic server, in a process of its own, that answers as small a message with what it got, and 600 KB to
//! a handler and back beside a bare tonic server that answers with what it got. Every figure is the median of several runs.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lantern::api::grpc::proto::inference::inference_ap_is_service_client::InferenceApIsServiceClient as Client;
use lantern::api::grpc::proto::inference::inference_ap_is_service_server::{
    InferenceApIsService, InferenceApIsServiceServer,
};
use lantern::api::grpc::proto::inference::{
    PredictionResponse, PredictionsRequest, TorchServeHealthResponse,
};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use lantern_benches::bare::{self, Bare};
use lantern_benches::load::{self, Load};
use lantern_benches::server::{Model, Setup};
use lantern_benches::{fixture, guest};

const RUNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(3);
const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;
/// One picture of 224 by 224 in fp32, three colors.
const TENSOR: usize = 4 * 3 * 224 * 224;
const MESSAGE_LIMIT: usize = 64 << 20;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    if bare::has_served("tonic", bare_tonic) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let bare = Bare::start("tonic");
    small(&runtime, bare.address);
    large(&runtime, bare.address);
}

fn linear() -> Setup {
    let artifact = fixture("linear.onnx");
    let config = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 32\nmaxBatchDelay: 1\nlantern:\n  hosting: inline\n";
    let model = Model {
        name: "linear",
        artifact: &artifact,
        handler: &guest("linear"),
        config: config.to_owned(),
        extra_files: Vec::new(),
    };
    Setup::new(&[model], "")
}

fn small(runtime: &tokio::runtime::Runtime, bare: SocketAddr) {
    println!(
        "\n16-input linear model, JSON in and out, inline, one worker, batch size 32; medians of {RUNS} runs"
    );
    println!(
        "{:<8} {:>10} {:>12}",
        "protocol", "concurrent", "requests/s"
    );
    let setup = linear();
    let _server = setup.start();
    let question = load::post("/predictions/linear", "application/json", X.as_bytes());
    setup.first_answer(&question, Instant::now());
    for concurrent in [1, 32] {
        let request = prediction("linear", X.as_bytes());
        let echo = (0..RUNS).map(|_| runtime.block_on(drive(bare, &request, concurrent)));
        println!(
            "{:<8} {concurrent:>10} {:>12.0}",
            "bare",
            median(echo.collect())
        );
        let grpc = (0..RUNS).map(|_| {
            runtime.block_on(drive(
                setup.grpc,
                &prediction("linear", X.as_bytes()),
                concurrent,
            ))
        });
        println!(
            "{:<8} {concurrent:>10} {:>12.0}",
            "gRPC",
            median(grpc.collect())
        );
        let rest = (0..RUNS).map(|_| {
            let load = Load {
                address: setup.inference,
                request: question.clone(),
                connections: concurrent,
                warm_up: WARM_UP,
                duration: DURATION,
            };
            load::drive(&load).throughput
        });
        println!(
            "{:<8} {concurrent:>10} {:>12.0}",
            "REST",
            median(rest.collect())
        );
    }
}

fn large(runtime: &tokio::runtime::Runtime, bare: SocketAddr) {
    println!("\n{TENSOR} bytes there and back; medians of {RUNS} runs");
    println!("{:<8} {:>10} {:>12}", "server", "concurrent", "requests/s");
    let setup = echo();
    let _server = setup.start();
    let question = load::post("/predictions/echo", "text/plain", b"x");
    setup.first_answer(&question, Instant::now());
    let request = prediction("echo", &vec![7; TENSOR]);
    for concurrent in [1, 32] {
        for (name, address) in [("bare", bare), ("lantern", setup.grpc)] {
            let runs = (0..RUNS).map(|_| runtime.block_on(drive(address, &request, concurrent)));
            println!(
                "{name:<8} {concurrent:>10} {:>12.0}",
                median(runs.collect())
            );
        }
    }
}

fn echo() -> Setup {
    let config = "minWorkers: 1\nmaxWorkers: 1\nlantern:\n  hosting: inline\n";
    let artifact = fixture("linear.onnx");
    let model = Model {
        name: "echo",
        artifact: &artifact,
        handler: &guest("echo"),
        config: config.to_owned(),
        extra_files: Vec::new(),
    };
    Setup::new(&[model], "")
}

fn prediction(model: &str, data: &[u8]) -> PredictionsRequest {
    PredictionsRequest {
        model_name: model.to_owned(),
        input: [("data".to_owned(), data.to_vec().into())].into(),
        ..PredictionsRequest::default()
    }
}

/// Answers a second, of `concurrent` clients on one connection each of which sends its next request when the last one was
/// answered.
async fn drive(address: SocketAddr, request: &PredictionsRequest, concurrent: usize) -> f64 {
    let from = Instant::now() + WARM_UP;
    let until = from + DURATION;
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("the address is a URI");
    let channel = channel
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("the server listens");
    let clients: Vec<_> = (0..concurrent)
        .map(|_| tokio::spawn(client(channel.clone(), request.clone(), from, until)))
        .collect();
    let mut answers = 0;
    for client in clients {
        answers += client.await.expect("a client does not panic");
    }
    f64::from(answers) / DURATION.as_secs_f64()
}

async fn client(
    channel: Channel,
    request: PredictionsRequest,
    from: Instant,
    until: Instant,
) -> u32 {
    let mut client = Client::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
    let mut answers = 0;
    while Instant::now() < until {
        let answer = client.predictions(request.clone()).await;
        answer.expect("the server answers");
        answers += u32::from(Instant::now() >= from);
    }
    answers
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Answers with what it got.
struct Echo;

/// Serves [`Echo`] with nothing around it.
async fn bare_tonic(listener: TcpListener) {
    let echo = InferenceApIsServiceServer::new(Echo).max_decoding_message_size(MESSAGE_LIMIT);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder().serve_with_incoming(echo, connections);
    served.await.expect("the bare server serves");
}

#[tonic::async_trait]
impl InferenceApIsService for Echo {
    type StreamPredictionsStream = Empty<Result<PredictionResponse, Status>>;
    type StreamPredictions2Stream = Empty<Result<PredictionResponse, Status>>;

    async fn ping(&self, _: Request<()>) -> Result<Response<TorchServeHealthResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn predictions(
        &self,
        request: Request<PredictionsRequest>,
    ) -> Result<Response<PredictionResponse>, Status> {
        let prediction = request.into_inner().input.remove("data");
        Ok(Response::new(PredictionResponse {
            prediction: prediction.unwrap_or_default(),
            ..PredictionResponse::default()
        }))
    }

    async fn stream_predictions(
        &self,
        _: Request<PredictionsRequest>,
    ) -> Result<Response<Self::StreamPredictionsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn stream_predictions2(
        &self,
        _: Request<tonic::Streaming<PredictionsRequest>>,
    ) -> Result<Response<Self::StreamPredictions2Stream>, Status> {
        Err(Status::unimplemented(""))
    }
}
