//! The front's end against a peer that follows a script, hostile ones included.
use tokio::task::JoinHandle;

use super::super::counts::ProcessCounts;
use super::super::findings::Findings;
use super::super::roster::Roster;
use super::super::testing::{Log, Peer, reply, request};
use super::*;
use crate::backend::Signature;
use crate::error::Kind;
use crate::handler::LogLine;
use crate::metrics::ReportKind;
use crate::model::{Limits, Settings};
use crate::runtime::protocol::convert::{reply_to_wire, signature_to_wire};
use crate::runtime::protocol::frame;
use crate::runtime::protocol::messages::{self, Failure, FailureKind};
use crate::runtime::testing;
use crate::runtime::{Verdicts, WorkerIds};
use crate::sandbox::{Outcome, Outcomes, Wall};

mod shared;

struct Front {
    connection: Arc<Connection>,
    reader: JoinHandle<Ending>,
    log: Arc<Log>,
    roster: Arc<Roster>,
    counts: Arc<ProcessCounts>,
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
        observations_per_second: 100,
        ..Limits::default()
    };
    let model = Arc::new(ModelSpec {
        limits,
        ..testing::model(Settings::default())
    });
    let counts = Arc::<ProcessCounts>::default();
    let (connection, incoming) = Connection::new(ours, model.limits.response, shared);
    let log = Arc::new(Log::default());
    let roster = Arc::new(Roster::new(Arc::new(WorkerIds::from(9000))));
    let findings = Arc::new(Findings::new(&model, Verdicts::default()));
    let reports = ReportReceiver::new(
        log.clone(),
        roster.clone(),
        findings,
        (Wall::Cgroup, Outcome::Off),
        &model,
        &counts,
    );
    let (reader, flusher) = (connection.clone(), connection.clone());
    tokio::spawn(async move { flusher.run_flusher().await });
    let front = Front {
        reader: tokio::spawn(async move { reader.read(incoming, reports).await }),
        connection,
        log,
        roster,
        counts,
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
    let spent = messages::Spent {
        handler: 5,
        inference: 7,
    };
    let report = Report::Refused { id, spent, failure };
    peer.send(&report, b"").await;
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
    let (report, _) = reply_to_wire(id, &reply, Spent::default());
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

/// What a process may send at any time, with the name of its kind.
fn reports() -> [(ReportKind, Report<&'static str>); 6] {
    let log = messages::Log {
        level: messages::Level::Error,
        message: "flood",
        fields: vec![("name", "value")],
        request: "",
    };
    let observe = messages::Observe {
        name: "flood",
        kind: messages::MetricKind::Counter,
        unit: "count",
        label_names: vec!["label"],
        label_values: vec!["value"],
        value: 1.0,
        request: "",
    };
    let batching = Report::Batching {
        batching: messages::Batching::Off("no".to_owned()),
        verdict: Some(messages::Verdict::Refuted("no".to_owned())),
    };
    let stuck = Duration::ZERO;
    [
        (ReportKind::Log, Report::Log(log)),
        (ReportKind::Observation, Report::Observe(observe)),
        (ReportKind::Workers, Report::Workers(workers(100))),
        (ReportKind::Batching, batching),
        (ReportKind::Walls, Report::Walls(walls())),
        (ReportKind::Alive, Report::Alive { stuck }),
    ]
}

fn workers(count: u32) -> Vec<messages::Worker> {
    let worker = |id| messages::Worker {
        id,
        device: messages::Device::Cpu,
        state: messages::State::Ready,
    };
    (0..count).map(worker).collect()
}

fn walls() -> Outcomes {
    let up = |wall| (wall, Outcome::Up(String::new()));
    Wall::ALL.map(up).into()
}

#[tokio::test(start_paused = true)]
async fn who_keeps_flooding_is_ended_and_what_was_too_much_is_counted() {
    for (kind, report) in reports() {
        let (front, mut peer) = pair();
        let counts = front.counts.clone();
        let flood = tokio::spawn(async move {
            peer.greet().await;
            peer.flood(&report).await;
        });
        let reason = front.violation().await;
        assert!(
            reason.contains("of which it may send"),
            "{kind:?}: {reason}"
        );
        assert!(counts.take_dropped(kind) > 0, "{kind:?}");
        flood.abort();
    }
}

/// Answers to a call that was answered before.
#[tokio::test(start_paused = true)]
async fn who_keeps_answering_what_was_answered_is_ended() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let call = front.call("a");
    let id = peer.call().await.id;
    peer.reply(id, b"first").await;
    call.await.unwrap().unwrap().unwrap();
    let counts = front.counts.clone();
    let flood = tokio::spawn(async move {
        let reply = reply();
        peer.flood(&reply_to_wire(id, &reply, Spent::default()).0)
            .await;
    });
    let reason = front.violation().await;
    assert!(reason.contains("answers that nobody waits for"), "{reason}");
    assert!(counts.take_dropped(ReportKind::Answer) > 0);
    flood.abort();
}

#[tokio::test]
async fn answers_to_cancelled_calls_are_no_flood() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let mut ids = Vec::new();
    for _ in 0..1000 {
        let call = front.call("a");
        ids.push(peer.call().await.id);
        call.abort();
        assert!(matches!(peer.order().await, Order::Cancel { .. }));
    }
    for id in ids {
        peer.reply(id, b"late").await;
    }
    drop(peer);
    assert!(matches!(front.reader.await.unwrap(), Ending::Closed));
    assert_eq!(front.counts.take_dropped(ReportKind::Answer), 0);
}

#[tokio::test]
async fn a_report_with_a_body_ends_the_connection() {
    for (_, report) in reports() {
        let (front, mut peer) = pair();
        peer.greet().await;
        peer.send(&report, b"body").await;
        let violation = front.violation().await;
        assert!(violation.contains("with a body of 4 bytes"), "{violation}");
    }
}

/// Messages that are there already are read without waiting for anything, so other tasks would never run.
#[tokio::test]
async fn the_messages_of_one_process_do_not_keep_others_from_running() {
    const MESSAGES: u64 = 4000;
    let (front, mut peer) = pair();
    let (mut bytes, stuck) = (GREETING.to_vec(), Duration::ZERO);
    for _ in 0..MESSAGES {
        let alive = Report::<&str>::Alive { stuck };
        frame::encode(&mut bytes, ORDER_LIMITS, &alive, frame::Body::Here(&[])).unwrap();
    }
    peer.write(&bytes).await;
    let mut received = 0;
    while received == 0 {
        tokio::task::yield_now().await;
        received = front.connection.observed().received;
    }
    assert!(received < MESSAGES / 10, "{received}");
}

/// Texts of 250 KB each: what is kept of a line is what a handler's line may have.
#[tokio::test]
async fn long_texts_are_cut_or_refused() {
    let (front, mut peer) = pair();
    peer.greet().await;
    let text: &str = &"x".repeat(250_000);
    let line = messages::Log {
        level: messages::Level::Error,
        message: text,
        fields: vec![("name", text), (text, "value")],
        request: text,
    };
    for _ in 0..100 {
        peer.send(&Report::Log(line.clone()), b"").await;
    }
    let observe = messages::Observe {
        name: "flood",
        kind: messages::MetricKind::Counter,
        unit: "count",
        label_names: vec!["label"],
        label_values: vec![text],
        value: 1.0,
        request: "",
    };
    peer.send(&Report::Observe(observe), b"").await;
    let (lines, roster) = (front.log.clone(), front.roster.clone());
    let violation = front.violation().await;
    assert!(
        violation.contains("a label's value has 250000 bytes"),
        "{violation}"
    );
    let lines = lines.0.lock();
    assert!((1..10).contains(&lines.len()), "{}", lines.len());
    let bytes = |line: &LogLine| line.bytes() + line.request_id.len();
    assert!(lines.iter().all(|line| bytes(line) < 10 << 10));
    assert!(roster.workers().is_empty());
}
