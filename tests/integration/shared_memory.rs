//! Large bodies between the server and worker processes: in shared memory, beside it where there is no room, and after a
//! process died.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use lantern::api::Listener;
use lantern::api::grpc::proto::open_inference::ModelInferRequest;
use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;

use super::oip::{bytes, divided, infer_binary, multi, values};
use super::support::grpc::OpenInferenceClient;
use super::support::{Builder, Model, TestServer};

/// Bodies that are just too small to be shared, the smallest that is, and larger ones.
const LENGTHS: [usize; 5] = [0, (32 << 10) - 1, 32 << 10, 600_000, 3 << 20];

fn server(model: Model) -> Builder {
    Builder::default().model(model)
}

/// A body of which no two pages are alike.
fn body(length: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at / 1024 + seed).to_le_bytes()[0] ^ at.to_le_bytes()[0];
    (0..length).map(byte).collect()
}

/// Answers as they have to be, for each length.
async fn echoes(server: &TestServer) {
    for length in LENGTHS {
        let sent = body(length, length);
        let answer = server.predict("echo", sent.clone()).await;
        assert_eq!(answer.status, 200, "{length}");
        assert!(answer.body == sent, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_back_as_they_were_sent_however_much_is_shared() {
    let inline = TestServer::with(Model::new("echo")).await;
    echoes(&inline).await;
    for size in ["0", "1MiB", "64MiB"] {
        let shared = format!("lantern_shared_memory={size}");
        let server = server(Model::new("echo").in_process()).set(&shared).start();
        echoes(&server.await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_at_the_same_time_are_not_mixed_up_where_there_is_room_for_a_few() {
    let model = Model::new("echo").in_process().with("jobQueueSize: 1000");
    let server = server(model)
        .set("lantern_shared_memory=2MiB")
        .start()
        .await;
    for round in 0..4 {
        let sent: Vec<_> = (0..12)
            .map(|seed| body(500_000, 12 * round + seed))
            .collect();
        let answers = sent.iter().map(|sent| server.predict("echo", sent.clone()));
        let answers = join_all(answers).await;
        for (answer, sent) in answers.into_iter().zip(sent) {
            assert_eq!(answer.status, 200);
            assert!(answer.body == sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_and_tensors_are_shared_too() {
    const ROWS: usize = 20_000;
    for model in [multi(), multi().in_process()] {
        let server = server(model)
            .model(Model::new("echo").in_process())
            .start()
            .await;
        let (a, b): (Vec<_>, Vec<_>) = (0u16..)
            .map(|at| (f32::from(at), 1.0))
            .take(3 * ROWS)
            .unzip();
        let input = |name: &str| {
            json!({"name": name, "shape": [ROWS, 3], "datatype": "FP32",
                "parameters": {"binary_data_size": 12 * ROWS}})
        };
        for binary in [true, false] {
            let request = json!({"inputs": [input("a"), input("b")],
                "outputs": [{"name": "sum", "parameters": {"binary_data": binary}}]});
            let data = [bytes(&a), bytes(&b)].concat();
            let answer = infer_binary(&server, "multi", &request, &data).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let sums: Vec<f32> = if binary {
                values(divided(&answer).1)
            } else {
                let json = answer.json();
                serde_json::from_value(json["outputs"][0]["data"].clone()).unwrap()
            };
            let expected: Vec<_> = a.iter().map(|a| a + 1.0).collect();
            assert!(sums == expected);
        }
        let file = body(400_000, 7);
        let part = reqwest::multipart::Part::bytes(file.clone()).file_name("f");
        let form = reqwest::multipart::Form::new()
            .text("note", "n")
            .part("data", part);
        let request = server.request(Listener::Inference, "POST", "/predictions/echo");
        let answer = request.multipart(form).send().await.unwrap();
        assert!(answer.bytes().await.unwrap() == file);
    }
}

/// An answer's tensor `sum` for inputs `a` and `b` of `rows` rows, raw.
async fn sums(client: &mut OpenInferenceClient, a: &[f32], b: &[f32]) -> Vec<f32> {
    let rows = i64::try_from(a.len() / 3).unwrap();
    let input = |name: &str| InferInputTensor {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![rows, 3],
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "multi".to_owned(),
        inputs: vec![input("a"), input("b")],
        raw_input_contents: [a, b].map(|values| bytes(values).into()).into(),
        ..ModelInferRequest::default()
    };
    let answer = client.model_infer(request).await.unwrap().into_inner();
    values(&answer.raw_output_contents[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_tensors_over_grpc_are_those_that_were_sent_whatever_their_size_and_coding() {
    for model in [multi(), multi().in_process()] {
        let server = server(model).start().await;
        let plain = server
            .grpc_open_inference()
            .max_decoding_message_size(64 << 20);
        let packed = plain.clone().send_compressed(CompressionEncoding::Gzip);
        for mut client in [plain, packed] {
            let calls = [1, 300, 3000, 60_000].map(|rows| {
                let (a, b): (Vec<_>, Vec<_>) = (0u16..=u16::MAX)
                    .cycle()
                    .map(|at| (f32::from(at), 2.0))
                    .take(3 * rows)
                    .unzip();
                let mut client = client.clone();
                async move {
                    let expected: Vec<_> = a.iter().map(|a| a + 2.0).collect();
                    assert!(sums(&mut client, &a, &b).await == expected, "{rows}");
                }
            });
            join_all(calls).await;
            assert!(sums(&mut client, &[], &[]).await.is_empty());
        }
    }
}

/// The process that hosts `echo`.
async fn worker(server: &TestServer) -> Pid {
    let described = server.management("GET", "/models/echo").await.json();
    let pid = described[0]["workers"][0]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Regions that this process has mapped.
fn regions() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter(|line| line.contains("lantern-shared"));
    names.count()
}

/// Waits until so many are left.
async fn until_regions(count: usize) {
    let is_so = async {
        while regions() != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_so)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_the_memory_of_a_version_that_is_gone() {
    let server = server(Model::new("echo").in_process()).start().await;
    assert_eq!(regions(), 2);
    let sent = body(600_000, 1);
    assert!(server.predict("echo", sent.clone()).await.body == sent);
    let answer = server.management("DELETE", "/models/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    until_regions(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_leaves_its_memory_and_the_next_one_has_its_own() {
    let server = server(Model::new("echo").in_process()).start().await;
    let sent = body(600_000, 2);
    for _ in 0..3 {
        assert!(server.predict("echo", sent.clone()).await.body == sent);
        kill_process(worker(&server).await, Signal::KILL).unwrap();
        // It waits for the next process.
        assert!(server.predict("echo", sent.clone()).await.body == sent);
        assert!(regions() <= 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_began_in_the_memory_of_a_process_that_died_goes_to_the_next_one() {
    let server = server(Model::new("echo").in_process()).start().await;
    let sent = body(600_000, 3);
    assert!(server.predict("echo", sent.clone()).await.body == sent);
    let address = server.address(Listener::Inference);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /predictions/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        sent.len()
    );
    let (first, rest) = sent.split_at(200_000);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(first).await.unwrap();
    let before = worker(&server).await;
    kill_process(before, Signal::KILL).unwrap();
    // Answered by the next process.
    assert!(server.predict("echo", sent.clone()).await.body == sent);
    assert_ne!(worker(&server).await, before);
    stream.write_all(rest).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(answer.ends_with(&sent));
    drop(answer);
    // Only the next process's are left.
    until_regions(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_back_beside_clients_that_began_theirs_and_stopped() {
    let server = server(Model::new("echo").in_process())
        .set("lantern_shared_memory=2MiB")
        .start()
        .await;
    let address = server.address(Listener::Inference);
    let head = "POST /predictions/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n";
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![7; 40_000]).await.unwrap();
        stalled.push(stream);
    }
    echoes(&server).await;
    drop(stalled);
    echoes(&server).await;
}
