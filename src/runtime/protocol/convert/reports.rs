//! What a worker process reports: replies, workers, log lines, observations. All of it is foreign and is checked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::handler::{Level, LogLine, MetricKind, Observation, unit_named};
use crate::nanos::nanos;
use crate::payload::{Output, Reply, Response, Spent, Timings};
use crate::runtime::{WorkerState, WorkerStatus};
use crate::sandbox::{Outcome, Outcomes, Wall};
use crate::tensor::{MAX_NAME, MAX_TENSORS};

use super::requests::{fields_to_wire, tensors_from_wire, tensors_to_wire};
use super::{Violation, device_to_wire, messages, truncated};

/// The longest time of a phase that is believed.
const LONGEST_PHASE: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// More rows than the largest batch has.
const MOST_ROWS: u32 = 1 << 28;

/// Bytes of what a process says of a wall that are kept.
const WALL_TEXT: usize = 256;

/// Bytes of a request's id that are kept.
const REQUEST_ID: usize = 128;

/// The report that answers a call, borrowed, and the pieces of its body in order.
pub fn reply_to_wire(id: u64, reply: &Reply, spent: Spent) -> (messages::Report<&str>, Vec<&[u8]>) {
    let (timings, spent) = (timings_to_wire(&reply.timings), spent_to_wire(spent));
    match &reply.output {
        Output::Response(response) => {
            let head = response_to_wire(id, response, timings, spent);
            (messages::Report::Reply(head), vec![response.body()])
        }
        Output::Tensors(tensors) => {
            let (tensors, pieces) = tensors_to_wire(tensors);
            let inferred = messages::Inferred {
                id,
                tensors,
                timings,
                spent,
            };
            (messages::Report::Inferred(inferred), pieces)
        }
    }
}

fn response_to_wire(
    id: u64,
    response: &Response,
    timings: messages::Timings,
    spent: messages::Spent,
) -> messages::Reply<&str> {
    messages::Reply {
        id,
        status: response.status(),
        content_type: response.content_type(),
        headers: fields_to_wire(response.headers()),
        timings,
        spent,
    }
}

/// Tensors that answer a call, checked.
pub fn inferred_from_wire(
    inferred: messages::Inferred<String>,
    body: Bytes,
) -> Result<Reply, Violation> {
    let (count, longest) = (inferred.tensors.len(), MAX_NAME);
    if count > MAX_TENSORS {
        let text = format!("answered {count} tensors, the limit is {MAX_TENSORS}");
        return Err(Violation::Message(text));
    }
    let mut lengths = inferred.tensors.iter().map(|tensor| tensor.name.len());
    if let Some(length) = lengths.find(|length| *length > longest) {
        let text =
            format!("answered a tensor with a name of {length} bytes, the limit is {longest}");
        return Err(Violation::Message(text));
    }
    Ok(Reply {
        timings: timings_from_wire(&inferred.timings)?,
        output: Output::Tensors(tensors_from_wire(inferred.tensors, body)?),
    })
}

/// A reply that can be sent to a client as it is: what a handler's output must be, a report's must.
pub fn reply_from_wire(reply: messages::Reply<String>, body: Bytes) -> Result<Reply, Violation> {
    let response = Response::new(reply.status, reply.content_type, reply.headers, body);
    let response = response.map_err(|error| Violation::Message(format!("answered {error}")))?;
    Ok(Reply {
        output: Output::Response(response),
        timings: timings_from_wire(&reply.timings)?,
    })
}

fn timings_to_wire(timings: &Timings) -> messages::Timings {
    messages::Timings {
        preprocess: nanos(timings.preprocess),
        queue: nanos(timings.queue),
        infer: nanos(timings.infer),
        postprocess: nanos(timings.postprocess),
        batch_rows: timings.batch_rows,
        rows: timings.rows,
        leads_batch: timings.leads_batch,
    }
}

fn timings_from_wire(timings: &messages::Timings) -> Result<Timings, Violation> {
    let rows = timings.rows.max(timings.batch_rows);
    if rows > MOST_ROWS {
        return Err(Violation::Message(format!("no batch has {rows} rows")));
    }
    Ok(Timings {
        preprocess: phase(timings.preprocess)?,
        queue: phase(timings.queue)?,
        infer: phase(timings.infer)?,
        postprocess: phase(timings.postprocess)?,
        batch_rows: timings.batch_rows,
        rows: timings.rows,
        leads_batch: timings.leads_batch,
    })
}

/// What a call used.
pub fn spent_to_wire(spent: Spent) -> messages::Spent {
    messages::Spent {
        handler: nanos(spent.handler),
        inference: nanos(spent.inference),
    }
}

/// What a call used, as its process says.
pub fn spent_from_wire(spent: messages::Spent) -> Result<Spent, Violation> {
    Ok(Spent {
        handler: phase(spent.handler)?,
        inference: phase(spent.inference)?,
    })
}

fn phase(nanos: u64) -> Result<Duration, Violation> {
    if nanos > LONGEST_PHASE {
        return Err(Violation::Message(format!("no phase takes {nanos} ns")));
    }
    Ok(Duration::from_nanos(nanos))
}

/// Workers of this process.
pub fn workers_to_wire(workers: &[WorkerStatus]) -> Vec<messages::Worker> {
    workers
        .iter()
        .map(|worker| messages::Worker {
            id: worker.id,
            device: device_to_wire(worker.device),
            state: match worker.state {
                WorkerState::Loading => messages::State::Loading,
                WorkerState::Ready => messages::State::Ready,
                WorkerState::Failed => messages::State::Failed,
            },
        })
        .collect()
}

/// A log line, borrowed.
pub fn log_to_wire(line: &LogLine) -> messages::Log<&str> {
    messages::Log {
        level: match line.level {
            Level::Trace => messages::Level::Trace,
            Level::Debug => messages::Level::Debug,
            Level::Info => messages::Level::Info,
            Level::Warn => messages::Level::Warn,
            Level::Error => messages::Level::Error,
        },
        message: &line.message,
        fields: fields_to_wire(&line.fields),
        request: &line.request_id,
    }
}

/// A log line, cut to its limits.
pub fn log_from_wire(log: messages::Log<String>) -> LogLine {
    let line = LogLine {
        level: match log.level {
            messages::Level::Trace => Level::Trace,
            messages::Level::Debug => Level::Debug,
            messages::Level::Info => Level::Info,
            messages::Level::Warn => Level::Warn,
            messages::Level::Error => Level::Error,
        },
        message: log.message,
        fields: log.fields,
        request_id: log.request,
    };
    line.cut()
}

/// What became of the walls: each once, texts cut to what `describe` shows.
pub fn walls_from_wire(outcomes: Outcomes) -> Result<Outcomes, Violation> {
    let is_first = |(index, (wall, _)): (usize, &(Wall, Outcome))| {
        outcomes[..index].iter().all(|(before, _)| before != wall)
    };
    if outcomes.len() > Wall::ALL.len() || !outcomes.iter().enumerate().all(is_first) {
        let text = format!("{} walls, of {} there are", outcomes.len(), Wall::ALL.len());
        return Err(Violation::Message(text));
    }
    let cut = |text: String| truncated(&text, WALL_TEXT).to_owned();
    let outcomes = outcomes.into_iter().map(|(wall, outcome)| {
        let outcome = match outcome {
            Outcome::Up(text) => Outcome::Up(cut(text)),
            Outcome::Missing(text) => Outcome::Missing(cut(text)),
            Outcome::NotNeeded(text) => Outcome::NotNeeded(cut(text)),
            Outcome::Off => Outcome::Off,
        };
        (wall, outcome)
    });
    Ok(outcomes.collect())
}

/// An observation, borrowed.
pub fn observation_to_wire(observation: &Observation) -> messages::Observe<&str> {
    messages::Observe {
        name: &observation.name,
        kind: match observation.kind {
            MetricKind::Counter => messages::MetricKind::Counter,
            MetricKind::Gauge => messages::MetricKind::Gauge,
            MetricKind::Histogram => messages::MetricKind::Histogram,
        },
        unit: observation.unit,
        label_names: observation.label_names.iter().map(String::as_str).collect(),
        label_values: observation
            .label_values
            .iter()
            .map(String::as_str)
            .collect(),
        value: observation.value,
        request: &observation.request_id,
    }
}

/// An observation whose names can be registered as they are: it keeps to the rules that a handler's do.
pub fn observation_from_wire(observe: messages::Observe<String>) -> Result<Observation, Violation> {
    let refuse =
        |reason: String| Violation::Message(format!("a metric is against the rules: {reason}"));
    let unit = unit_named(&observe.unit);
    let observation = Observation {
        name: Arc::from(observe.name),
        kind: match observe.kind {
            messages::MetricKind::Counter => MetricKind::Counter,
            messages::MetricKind::Gauge => MetricKind::Gauge,
            messages::MetricKind::Histogram => MetricKind::Histogram,
        },
        unit: unit.ok_or_else(|| refuse("an unknown unit".to_owned()))?,
        label_names: observe.label_names.into(),
        label_values: observe.label_values,
        value: observe.value,
        request_id: truncated(&observe.request, REQUEST_ID).to_owned(),
    };
    observation.check().map_err(refuse)?;
    Ok(observation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::any_response;
    use crate::runtime::protocol::REPORT_HEADER_LIMIT;
    use crate::runtime::protocol::frame::{self, FrameLimits};

    const BODY: Bytes = Bytes::from_static(b"[1]");

    fn reply() -> Reply {
        Reply {
            output: Output::Response(
                Response::new(
                    200,
                    "application/json".into(),
                    vec![("x-model".into(), "digits".into())],
                    BODY,
                )
                .unwrap(),
            ),
            timings: Timings {
                preprocess: Duration::from_micros(3),
                queue: Duration::from_nanos(1),
                infer: Duration::from_millis(2),
                postprocess: Duration::ZERO,
                batch_rows: 4,
                rows: 2,
                leads_batch: true,
            },
        }
    }

    /// What arrives of `reply`.
    fn report(reply: &Reply) -> messages::Report<String> {
        let (report, _) = reply_to_wire(9, reply, Spent::default());
        postcard::from_bytes(&postcard::to_stdvec(&report).unwrap()).unwrap()
    }

    fn owned(reply: &Reply) -> messages::Reply<String> {
        match report(reply) {
            messages::Report::Reply(reply) => reply,
            other => panic!("no response, but {other:?}"),
        }
    }

    #[test]
    fn a_reply_arrives_as_it_was_sent() {
        let received = reply_from_wire(owned(&reply()), BODY).unwrap();
        assert_eq!(received, reply());
    }

    #[test]
    fn tensors_arrive_as_they_were_sent_and_belong_to_their_body() {
        let sent = Reply {
            output: Output::Tensors(crate::runtime::testing::rows(b"abc", 5)),
            ..reply()
        };
        let (_, pieces) = reply_to_wire(9, &sent, Spent::default());
        let body = pieces.concat();
        let received = |body: &[u8]| match report(&sent) {
            messages::Report::Inferred(inferred) => {
                inferred_from_wire(inferred, Bytes::copy_from_slice(body))
            }
            other => panic!("no tensors, but {other:?}"),
        };
        assert_eq!(received(&body), Ok(sent.clone()));
        assert!(received(&body[1..]).is_err());
        assert!(received(&[&body[..], b"x"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn every_response_of_a_handler_arrives_as_it_was_sent(response in any_response()) {
            if let Ok(response) = response {
                let sent = Reply { output: Output::Response(response.clone()), ..reply() };
                let received = reply_from_wire(owned(&sent), response.into_body());
                prop_assert_eq!(received, Ok(sent));
            }
        }
    }

    #[test]
    fn the_largest_response_fits_into_a_frame() {
        let mut headers = vec![("n".repeat(16 << 10), "v".repeat((16 << 10) - 126))];
        headers.extend(vec![("a".to_owned(), "b".to_owned()); 63]);
        let content_type = format!("a/{}", "b".repeat(253));
        let response = Response::new(999, content_type, headers, BODY).unwrap();
        let sent = Reply {
            output: Output::Response(response),
            ..reply()
        };
        let limits = FrameLimits {
            header: REPORT_HEADER_LIMIT,
            body: BODY.len(),
        };
        let (report, pieces) = reply_to_wire(9, &sent, Spent::default());
        frame::encode(&mut Vec::new(), limits, &report, frame::Body::Here(&pieces)).unwrap();
    }

    #[test]
    fn responses_that_would_break_a_client_are_refused() {
        let refused = |change: fn(&mut messages::Reply<String>)| {
            let mut reply = owned(&reply());
            change(&mut reply);
            reply_from_wire(reply, Bytes::new()).is_err()
        };
        assert!(refused(|reply| reply.status = 99));
        assert!(refused(|reply| reply.status = 101));
        assert!(refused(|reply| reply.status = 1000));
        assert!(refused(
            |reply| reply.content_type = "a\r\nset-cookie: b".into()
        ));
        assert!(refused(|reply| reply.headers[0].0 = "x y".into()));
        assert!(refused(|reply| reply.headers[0].1 = "a\nb".into()));
        assert!(refused(|reply| reply.timings.infer = u64::MAX));
        assert!(refused(|reply| reply.timings.batch_rows = u32::MAX));
        assert!(refused(|reply| reply.timings.rows = u32::MAX));
    }

    #[test]
    fn metrics_that_cannot_be_registered_are_refused() {
        let sent = Observation {
            name: "confidence".into(),
            kind: MetricKind::Counter,
            unit: "count",
            label_names: ["class".to_owned()].into(),
            label_values: vec!["7".into()],
            value: 1.0,
            request_id: "r".into(),
        };
        let encoded = postcard::to_stdvec(&observation_to_wire(&sent)).unwrap();
        let owned = || postcard::from_bytes::<messages::Observe<String>>(&encoded).unwrap();
        assert_eq!(observation_from_wire(owned()).unwrap(), sent);
        let refused = |change: fn(&mut messages::Observe<String>)| {
            let mut observe = owned();
            change(&mut observe);
            observation_from_wire(observe).is_err()
        };
        assert!(refused(|observe| observe.name = "9lives".into()));
        assert!(refused(|observe| observe.unit = "furlongs".into()));
        assert!(refused(|observe| observe.label_values.clear()));
        assert!(refused(|observe| observe.label_names[0] = "a-b".into()));
        assert!(refused(|observe| observe.label_names[0] = "le".into()));
        assert!(refused(|observe| observe.label_values[0] = "x".repeat(129)));
        assert!(refused(|observe| observe.value = f64::NAN));
        assert!(refused(|observe| observe.value = -1.0));
    }

    #[test]
    fn texts_of_a_log_line_are_cut_as_a_handlers_are() {
        let text = || "ä".repeat(1 << 18);
        let line = messages::Log {
            level: messages::Level::Warn,
            message: text(),
            fields: vec![(text(), text()); 100],
            request: text(),
        };
        let line = log_from_wire(line);
        assert_eq!(line, line.clone().cut());
        assert!(line.bytes() < 32 << 10);
        assert!(line.request_id.len() <= REQUEST_ID);
    }

    #[test]
    fn walls_are_reported_once_each_in_short_texts() {
        let walls = |walls: &[Wall], text: &str| -> Outcomes {
            let outcome = Outcome::Missing(text.to_owned());
            walls.iter().map(|wall| (*wall, outcome.clone())).collect()
        };
        let taken = walls_from_wire(walls(&Wall::ALL, &"x".repeat(1 << 18))).unwrap();
        assert!(
            taken
                .iter()
                .all(|(_, outcome)| outcome.detail().len() == WALL_TEXT)
        );
        let [first, ..] = Wall::ALL;
        assert!(walls_from_wire(walls(&[first; 2], "")).is_err());
        assert!(walls_from_wire(walls(&[first; 10_000], "")).is_err());
    }

    #[test]
    fn tensors_beyond_what_a_model_may_have_are_refused() {
        let tensor = |name: usize| messages::Tensor {
            name: "n".repeat(name),
            dtype: 0,
            shape: vec![0],
            length: 0,
        };
        let answered = |tensors: Vec<messages::Tensor<String>>| {
            let timings = timings_to_wire(&Timings::default());
            let inferred = messages::Inferred {
                id: 1,
                tensors,
                timings,
                spent: messages::Spent::default(),
            };
            inferred_from_wire(inferred, Bytes::new()).is_ok()
        };
        assert!(answered(vec![tensor(MAX_NAME); MAX_TENSORS]));
        assert!(!answered(vec![tensor(1); MAX_TENSORS + 1]));
        assert!(!answered(vec![tensor(MAX_NAME + 1)]));
    }
}
