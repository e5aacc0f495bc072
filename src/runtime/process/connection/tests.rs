//! The front's end against a peer that follows a script, hostile ones included.
use tokio::task::JoinHandle;

use super::super::findings::Findings;
use super::super::roster::Roster;
use super::super::testing::{Log, Peer, reply, request};
use super::*;
use crate::backend::Signature;
use crate::error::Kind;
use crate::model::{Limits, Settings};
use crate::runtime::protocol::convert::{reply_to_wire, signature_to_wire};
use crate::runtime::protocol::frame;
use crate::runtime::protocol::messages::{self, Failure, FailureKind};
use crate::runtime::testing;
use crate::runtime::{Verdicts, WorkerIds};
use crate::sandbox::{Outcome, Wall};

mod shared;

struct Front {
    connection: Arc<Connection>,
    reader: JoinHandle<Ending>,
    log: Arc<Log>,
}

fn pair() -> (Front, Peer) {
    pair_with(None)
}

/// A pair of which the front shares memory with its peer, if `shared` is there.
fn pair_with(shared: Option<Ends>) -> (Front, Peer) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let limits = Limits {
        response: 1 << 20,
        log_lines_per_second: 5,
        ..Limits::default()
    };
    let (connection, incoming) = Connection::new(ours, limits.response, shared);
    let log = Arc::new(Log::default());
    let roster = Arc::new(Roster::new(Arc::new(WorkerIds::from(9000))));
    let findings = Arc::new(Findings::new(
        &testing::model(Settings::default()),
        Verdicts::default(),
    ));
    let reports = ReportReceiver::new(
        log.clone(),
        roster,
        findings,
        (Wall::Cgroup, Outcome::Off),
        &limits,
    );
    let (reader, flusher) = (connection.clone(), connection.clone());
    tokio::spawn(async move { flusher.run_flusher().await });
    let front = Front {
        reader: tokio::spawn(async move { reader.read(incoming, reports).await }),
        connection,
        log,
    };
    (front, Peer::new(theirs))
}

impl Front {
    fn call(&self, id: &str) -> JoinHandle<Result<Result<Reply, Error>, Lost>> {
        let (connection, request) = (self.connection.clone(), request(id));
        tokio::spawn(async move { connection.call(&request, false).await })
    }

    async fn violation(self) -> String {
        match self.reader.await.unwrap() {
            Ending::Violated(violation) => violation.to_string(),
            other => panic!("no violation, but {other:?}"),
        }
    }
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let calls: Vec<_> = ["a", "b", "c", "d"].map(|id| front.call(id)).into();
    let mut received = Vec::new();
    for _ in &calls {
        received.push(peer.call().await);
    }
    for call in received.iter().rev() {
        peer.reply(call.id, call.request.as_bytes()).await;
    }
    for (call, id) in calls.into_iter().zip(["a", "b", "c", "d"]) {
        let reply = call.await.unwrap().unwrap().unwrap();
        assert_eq!(reply.into_response().unwrap().into_body(), id.as_bytes());
    }
}

#[tokio::test]
async fn a_failure_keeps_its_kind() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    let failure = Failure {
        kind: FailureKind::HandlerTrapped,
        message: "trap",
        detail: Some("unreachable"),
    };
    peer.send(&Report::Refused { id, failure }, b"").await;
    let error = call.await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::HandlerTrapped);
    assert_eq!(error.detail(), Some("unreachable"));
}

#[tokio::test]
async fn a_request_without_a_client_is_cancelled() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    call.abort();
    assert_eq!(peer.order().await, Order::Cancel { id });
    // The answer may have been on its way.
    peer.reply(id, b"late").await;
    let next = front.call("b");
    let id = peer.call().await.id;
    peer.reply(id, b"on time").await;
    assert!(next.await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_second_answer_is_ignored() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    peer.reply(id, b"first").await;
    peer.reply(id, b"second").await;
    let reply = call.await.unwrap().unwrap().unwrap();
    assert_eq!(reply.into_response().unwrap().into_body(), "first");
    drop(peer);
    assert!(matches!(front.reader.await.unwrap(), Ending::Closed));
}

#[tokio::test]
async fn an_answer_to_nothing_ends_the_connection() {
    let (front, mut peer) = pair();
    peer.greet().await;
    peer.reply(7, b"").await;
    assert_eq!(front.violation().await, "7 was never asked");
}

#[tokio::test]
async fn a_call_answered_as_an_order_ends_the_connection() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let _call = front.call("a");
    let id = peer.call().await.id;
    peer.send(&Report::Scaled { id, failure: None }, b"").await;
    assert!(front.violation().await.contains("answered as an order"));
}

#[tokio::test]
async fn a_second_handshake_ends_the_connection() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let ready = Report::Ready {
        signature: signature_to_wire(&Signature::default()),
        workers: vec![],
    };
    peer.send(&ready, b"").await;
    assert_eq!(front.violation().await, "unexpected message: ready");
}

#[tokio::test]
async fn a_stranger_is_not_listened_to() {
    let (front, mut peer) = pair();
    peer.write(b"HTTP/1.1 200 OK\r\n").await;
    assert!(front.violation().await.starts_with("greeted with"));
}

#[tokio::test]
async fn another_version_is_not_listened_to() {
    let (front, mut peer) = pair();
    let mut greeting = GREETING;
    greeting[7] += 1;
    peer.write(&greeting).await;
    assert!(front.violation().await.starts_with("greeted with"));
}

#[tokio::test]
async fn a_response_over_its_limit_ends_the_connection() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    let body = vec![0; (1 << 20) + 1];
    let writer = tokio::spawn(async move { peer.reply(id, &body).await });
    assert!(front.violation().await.contains("the limit is 1048576"));
    writer.abort();
    call.abort();
}

#[tokio::test]
async fn a_truncated_frame_is_the_end_and_no_answer() {
    let (mut front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    let mut bytes = Vec::new();
    let reply = reply();
    let (report, _) = reply_to_wire(id, &reply);
    frame::encode(
        &mut bytes,
        ORDER_LIMITS,
        &report,
        frame::Body::Here(&[b"body"]),
    )
    .unwrap();
    peer.write(&bytes[..bytes.len() - 1]).await;
    drop(peer);
    assert!(matches!((&mut front.reader).await.unwrap(), Ending::Closed));
    let reason: Arc<str> = Arc::from("killed by signal 9");
    front.connection.lose(&reason, true);
    let lost = Lost {
        reason: Some(reason),
        is_suspect: false,
        had_cancelled: false,
    };
    assert_eq!(call.await.unwrap(), Err(lost));
    let late = front.call("b").await.unwrap();
    assert_eq!(late, Err(Lost::UNSENT));
}

/// Which of the requests that a process had are suspects after its death, by whether each was suspected before.
async fn suspects(suspected: &[bool], may_be_poison: bool) -> Vec<bool> {
    let (front, mut peer) = pair();
    peer.greet().await;
    let mut calls = Vec::new();
    for is_suspected in suspected.iter().copied() {
        let (connection, request) = (front.connection.clone(), request("a"));
        let call = async move { connection.call(&request, is_suspected).await };
        calls.push(tokio::spawn(call));
        peer.call().await;
    }
    front.connection.lose(&Arc::from("gone"), may_be_poison);
    let mut suspects = Vec::new();
    for call in calls {
        suspects.push(call.await.unwrap().unwrap_err().is_suspect);
    }
    suspects
}

#[tokio::test]
async fn only_a_request_that_alone_was_suspected_is_a_suspect() {
    for (suspected, expected) in [
        ([true, false, false], [true, false, false]),
        ([true, true, false], [false; 3]),
        ([false; 3], [false; 3]),
    ] {
        assert_eq!(suspects(&suspected, true).await, expected);
        assert_eq!(suspects(&suspected, false).await, [false; 3]);
    }
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut() {
    let (front, mut peer) = pair();
    peer.greet().await;
    for _ in 0..100 {
        let log = messages::Log {
            level: messages::Level::Error,
            message: "flood",
            fields: vec![],
            request: "",
        };
        peer.send(&Report::Log(log), b"").await;
    }
    drop(peer);
    front.reader.await.unwrap();
    let lines = front.log.0.lock().len();
    assert!((5..100).contains(&lines), "{lines}");
}

#[tokio::test(start_paused = true)]
async fn overdue_requests_are_answered_by_the_front() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let mut overdue = request("a");
    overdue.deadline = tokio::time::Instant::now().into_std();
    let connection = front.connection.clone();
    let call = tokio::spawn(async move { connection.call(&overdue, false).await });
    let id = peer.call().await.id;
    let other = front.call("b");
    let _ = peer.call().await;
    front.connection.expire(Duration::ZERO);
    let error = call.await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    assert_eq!(peer.order().await, Order::Cancel { id });
    assert!(!other.is_finished());
}
