//! Draining: no request that was accepted is lost when the server ends.

use std::sync::Arc;

use lantern::api::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Model, ROW, TestServer, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_and_new_connections_refused() {
    let mut server = TestServer::with(Model::fake()).await;
    let address = server.address(Listener::Inference);
    server.gate().shut();
    let body = tensor(1.0);
    let request = format!(
        "POST /predictions/fake HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect(Listener::Inference).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    server.wait_for_held(1).await;
    let gate = server.gate().clone();
    let stopping = server.begin_stop();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_accepted_request_is_answered() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let mut server = TestServer::with(model).await;
        let address = server.address(Listener::Inference);
        let request = Arc::new(format!(
            "POST /predictions/linear HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ROW}",
            ROW.len()
        ));
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..8 {
            let (request, answered) = (Arc::clone(&request), answered.clone());
            tokio::spawn(async move {
                // Each connection that is accepted carries one request, sent at once.
                while let Ok(mut stream) = TcpStream::connect(address).await {
                    let mut answer = String::new();
                    let sent = stream.write_all(request.as_bytes()).await;
                    let read = stream.read_to_string(&mut answer).await;
                    let _ = answered.send((sent.is_ok() && read.is_ok(), answer));
                }
            });
        }
        drop(answered);
        for _ in 0..100 {
            assert!(answers.recv().await.unwrap().1.starts_with("HTTP/1.1 200"));
        }
        server.stop().await;
        while let Some((complete, answer)) = answers.recv().await {
            assert!(
                complete && answer.starts_with("HTTP/1.1 200"),
                "{complete} {answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let mut server = TestServer::with(Model::new("echo")).await;
    let mut stream = server.connect(Listener::Inference).await;
    server.stop().await;
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
}
