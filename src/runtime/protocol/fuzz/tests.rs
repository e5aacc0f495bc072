//! Both targets on streams of every message as it is encoded now.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::messages::{
    Arity, Axis0, Batching, Bounds, Call, Device, Failure, FailureKind, Grounds, Inferred, Layout,
    Level, Log, MetricKind, Model, ModelState, Observe, Part, Priority, Reply, Signature, Spent,
    Start, State, Tensor, TensorSpec, Timings, Verdict, Worker,
};
use super::*;
use crate::model::{Limits, Settings};
use crate::sandbox::{Outcome, Wall};

fn failure() -> Failure<String> {
    Failure {
        kind: FailureKind::LoadFailed,
        message: "The model does not load".into(),
        detail: Some("no such file".into()),
    }
}

fn tensor() -> Tensor<String> {
    Tensor {
        name: "x".into(),
        dtype: 8,
        shape: vec![1, 2],
        length: 8,
    }
}

const SPENT: Spent = Spent {
    handler: 5_000,
    inference: 750,
};

fn timings() -> Timings {
    Timings {
        preprocess: 1_000,
        queue: 2_000,
        infer: 3_000,
        postprocess: 4_000,
        batch_rows: 4,
        rows: 1,
        leads_batch: true,
    }
}

fn spec(shape: Option<Vec<Option<u64>>>) -> TensorSpec {
    TensorSpec {
        name: "x".into(),
        dtype: Some(8),
        shape,
        arity: Arity::One,
    }
}

fn start() -> Order<String> {
    Order::Start(Box::new(Start {
        build: "0.1.0".into(),
        model: Model {
            name: "digits".into(),
            version: "1.0".into(),
            directory: b"/srv/models/digits".to_vec(),
            artifact: b"model.onnx".to_vec(),
            handler: b"handler.wasm".to_vec(),
            backend: "onnx".into(),
            digest: "ab".repeat(32),
            inputs: vec![spec(Some(vec![None, Some(2)]))],
            outputs: vec![],
            samples: Some(b"samples.json".to_vec()),
            manifest: "{}".into(),
            config: "{}".into(),
            properties: vec![("key".into(), "value".into())],
            settings: Settings::default(),
            limits: Limits::default(),
        },
        workers: Bounds { min: 1, max: 2 },
        cores: 2,
        onnxruntime: Some(b"libonnxruntime.so".to_vec()),
        verdict: Some(Verdict::Confirmed(Grounds::Samples)),
    }))
}

fn call(layout: Layout<String>) -> Order<String> {
    Order::Call(Call {
        id: 1,
        request: "r-1".into(),
        content_type: Some("application/json".into()),
        headers: vec![("accept".into(), "*/*".into())],
        layout,
        age: Duration::from_millis(1),
        left: Duration::from_secs(1),
        priority: Priority::Normal,
        begin_within: Some(Duration::from_millis(5)),
    })
}

fn form() -> Layout<String> {
    Layout::Form(vec![Part {
        name: "data".into(),
        filename: Some("a.txt".into()),
        content_type: None,
        length: 8,
    }])
}

/// Each order, and its body.
fn orders() -> Vec<(Order<String>, &'static [u8])> {
    const BODY: &[u8] = b"\0\0\x80\x3f\0\0\0\x40";
    vec![
        (start(), b""),
        (call(Layout::Raw), BODY),
        (call(form()), BODY),
        (call(Layout::Tensors(vec![tensor()])), BODY),
        (
            Order::Describe {
                id: 2,
                request: "r-2".into(),
                left: Duration::from_secs(1),
            },
            b"",
        ),
        (Order::Cancel { id: 1 }, b""),
        (
            Order::Scale {
                id: 3,
                workers: Bounds { min: 1, max: 4 },
            },
            b"",
        ),
        (
            Order::Drain {
                timeout: Duration::from_secs(5),
            },
            b"",
        ),
        (Order::Released { offset: 4096 }, b""),
    ]
}

fn ready() -> Report<String> {
    Report::Ready {
        signature: Signature {
            inputs: vec![spec(Some(vec![None, Some(16)]))],
            outputs: vec![spec(None)],
            is_open: false,
            axis0: Axis0::Refuted("a map".into()),
            state: ModelState::Stateless,
        },
        workers: workers(),
    }
}

fn workers() -> Vec<Worker> {
    vec![Worker {
        id: 0,
        device: Device::Cuda(1),
        state: State::Ready,
    }]
}

fn log() -> Report<String> {
    Report::Log(Log {
        level: Level::Warn,
        message: "two\nlines".into(),
        fields: vec![("stage".into(), "preprocess".into())],
        request: "r-1".into(),
    })
}

fn observe() -> Report<String> {
    Report::Observe(Observe {
        name: "confidence".into(),
        kind: MetricKind::Histogram,
        unit: "percent".into(),
        label_names: vec!["class".into()],
        label_values: vec!["seven".into()],
        value: 0.5,
        request: "r-1".into(),
    })
}

fn reply() -> Report<String> {
    Report::Reply(Reply {
        id: 1,
        status: 200,
        content_type: "application/json".into(),
        headers: vec![("x-model".into(), "digits".into())],
        timings: timings(),
        spent: SPENT,
    })
}

/// Each report, and its body.
fn reports() -> Vec<(Report<String>, &'static [u8])> {
    vec![
        (
            Report::Walls(vec![(Wall::ALL[0], Outcome::Up("ABI 7".into()))]),
            b"",
        ),
        (ready(), b""),
        (Report::Failed(failure()), b""),
        (reply(), b"[1]"),
        (
            Report::Inferred(Inferred {
                id: 1,
                tensors: vec![tensor()],
                timings: timings(),
                spent: SPENT,
            }),
            b"\0\0\x80\x3f\0\0\0\x40",
        ),
        (
            Report::Refused {
                id: 1,
                spent: SPENT,
                failure: failure(),
            },
            b"",
        ),
        (
            Report::Scaled {
                id: 3,
                failure: Some(failure()),
            },
            b"",
        ),
        (
            Report::Batching {
                batching: Batching::Off("a sample differs".into()),
                verdict: Some(Verdict::Refuted("a sample differs".into())),
            },
            b"",
        ),
        (Report::Workers(workers()), b""),
        (log(), b""),
        (observe(), b""),
        (
            Report::Alive {
                stuck: Duration::from_millis(3),
            },
            b"",
        ),
    ]
}

/// A stream of all messages, and one of each.
fn streams<H: Serialize>(messages: &[(H, &[u8])]) -> Vec<Vec<u8>> {
    let frame = |(header, body): &(H, &[u8])| {
        let mut stream = Vec::new();
        frame::encode(&mut stream, LIMITS, header, Body::Here(&[body])).unwrap();
        stream
    };
    let frames: Vec<_> = messages.iter().map(frame).collect();
    let all = frames.concat();
    let streams = std::iter::once(all).chain(frames);
    streams.map(|stream| [vec![6], stream].concat()).collect()
}

/// Keeps the streams as seeds, where that is asked for: messages change.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever runs the test asks for new seeds"
)]
fn keep(target: &str, streams: &[Vec<u8>]) {
    if std::env::var_os("UPDATE_SEEDS").is_none() {
        return;
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (number, stream) in streams.iter().enumerate() {
        let path = seeds.join(target).join(format!("message-{number}"));
        fs::write(path, stream).unwrap();
    }
}

#[test]
fn both_targets_hold_on_streams_of_every_message() {
    let (orders, reports) = (streams(&orders()), streams(&reports()));
    for stream in &orders {
        super::orders(stream);
    }
    for stream in &reports {
        super::reports(stream);
    }
    keep("orders", &orders);
    keep("reports", &reports);
}

#[test]
fn every_message_is_taken() {
    for (order, body) in orders() {
        assert_eq!(take_order(order, &Bytes::from_static(body)), Ok(()));
    }
    for (report, body) in reports() {
        assert_eq!(take_report(report, &Bytes::from_static(body)), Ok(()));
    }
}
