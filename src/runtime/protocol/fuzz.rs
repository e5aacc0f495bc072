//! What the fuzzer calls: the protocol between the front and a worker process, in both directions.

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::convert::{
    batching_from_wire, bounds_from_wire, call_from_wire, call_to_wire, check_signature,
    failure_from_wire, inferred_from_wire, log_from_wire, model_from_wire, observation_from_wire,
    observation_to_wire, reply_from_wire, reply_to_wire, signature_from_wire, spent_from_wire,
    verdict_from_wire,
};
use super::frame::{self, Body, Decoder, FrameLimits, ReadBody};
use super::messages::{Order, Report};
use super::{Violation, messages};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// So low that the fuzzer reaches them.
const LIMITS: FrameLimits = FrameLimits {
    header: 4 << 10,
    body: 4 << 10,
};

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 2] = [("orders", orders), ("reports", reports)];

fn orders(bytes: &[u8]) {
    for (order, body) in frames(bytes) {
        let _ = take_order(order, &content(&body));
    }
}

fn reports(bytes: &[u8]) {
    for (report, body) in frames(bytes) {
        let _ = take_report(report, &content(&body));
    }
}

/// The bytes of a body; zeros for one in shared memory, of which there is none here.
fn content(body: &ReadBody) -> Bytes {
    match body {
        ReadBody::Here(bytes) => bytes.clone(),
        ReadBody::Shared(place) => {
            let length = usize::try_from(place.length).expect("within the limits");
            vec![0; length].into()
        }
    }
}

/// The frames in `bytes`, after a byte that says how the stream is cut: it makes no difference. Each is encoded again.
fn frames<H: DeserializeOwned + Serialize + Debug>(bytes: &[u8]) -> Vec<(H, ReadBody)> {
    let Some((cut, stream)) = bytes.split_first() else {
        return Vec::new();
    };
    let (whole, violation) = decoded::<H>([stream].into_iter());
    let (cut, same) = decoded::<H>(stream.chunks(usize::from(*cut) + 1));
    assert_eq!(
        (format!("{cut:?}"), same),
        (format!("{whole:?}"), violation)
    );
    whole.iter().for_each(check_encoding);
    whole
}

fn decoded<'a, H: DeserializeOwned>(
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<(H, ReadBody)>, Option<Violation>) {
    let mut decoder = Decoder::new(LIMITS);
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.space().extend_from_slice(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(violation) => return (found, Some(violation)),
            }
        }
    }
    (found, None)
}

/// What was decoded is encoded in one way, and arrives.
fn check_encoding<H: DeserializeOwned + Serialize>((header, body): &(H, ReadBody)) {
    assert!(content(body).len() <= LIMITS.body);
    let encode = |header: &H| {
        let mut encoded = Vec::new();
        let written = match body {
            ReadBody::Here(bytes) => {
                frame::encode(&mut encoded, LIMITS, header, Body::Here(&[bytes]))
            }
            ReadBody::Shared(place) => {
                frame::encode(&mut encoded, LIMITS, header, Body::Shared(*place))
            }
        };
        written.map(|()| encoded)
    };
    // One that came in fewer bytes than its shortest form cannot be.
    let encoded = encode(header).expect("a header is never longer than it came");
    let (again, violation) = decoded::<H>([&encoded[..]].into_iter());
    assert_eq!(violation, None);
    let again = again.first().map(|(header, _)| encode(header));
    assert_eq!(again, Some(Ok(encoded)));
}

fn take_order(order: Order<String>, body: &Bytes) -> Result<(), Violation> {
    match order {
        Order::Start(start) => {
            let workers = bounds_from_wire(start.workers)?;
            assert!(workers.min <= workers.max);
            model_from_wire(start.model)?;
            start.verdict.map(verdict_from_wire);
        }
        Order::Call(call) => {
            let id = call.id;
            let request = call_from_wire(call, body.clone())?;
            let (_, pieces) = call_to_wire(id, &request);
            assert_eq!(pieces.concat(), *body);
        }
        Order::Scale { workers, .. } => drop(bounds_from_wire(workers)?),
        Order::Describe { .. }
        | Order::Cancel { .. }
        | Order::Drain { .. }
        | Order::Released { .. } => {}
    }
    Ok(())
}

fn take_report(report: Report<String>, body: &Bytes) -> Result<(), Violation> {
    match report {
        Report::Ready { signature, .. } => {
            let signature = signature_from_wire(signature)?;
            let _ = check_signature(&signature);
        }
        Report::Reply(reply) => {
            let id = reply.id;
            let spent = spent_from_wire(reply.spent)?;
            let reply = reply_from_wire(reply, body.clone())?;
            let (_, pieces) = reply_to_wire(id, &reply, spent);
            assert_eq!(pieces.concat(), *body);
        }
        Report::Inferred(inferred) => {
            let id = inferred.id;
            let spent = spent_from_wire(inferred.spent)?;
            let reply = inferred_from_wire(inferred, body.clone())?;
            let (_, pieces) = reply_to_wire(id, &reply, spent);
            assert_eq!(pieces.concat(), *body);
        }
        Report::Failed(failure)
        | Report::Refused { failure, .. }
        | Report::Scaled {
            failure: Some(failure),
            ..
        } => drop(failure_from_wire(&failure)),
        Report::Batching { batching, verdict } => {
            batching_from_wire(batching);
            verdict.map(verdict_from_wire);
        }
        Report::Log(line) => drop(log_from_wire(line)),
        Report::Observe(observe) => check_observation(observe)?,
        Report::Scaled { failure: None, .. }
        | Report::Workers(_)
        | Report::Walls(_)
        | Report::Alive { .. }
        | Report::Released { .. } => {}
    }
    Ok(())
}

/// An observation that is taken is taken again as it is passed on.
fn check_observation(observe: messages::Observe<String>) -> Result<(), Violation> {
    let observation = observation_from_wire(observe)?;
    assert!(observation.value.is_finite());
    let encoded = postcard::to_stdvec(&observation_to_wire(&observation));
    let encoded = encoded.map_err(Violation::Header)?;
    let again = postcard::from_bytes(&encoded).map_err(Violation::Header)?;
    assert_eq!(observation_from_wire(again), Ok(observation));
    Ok(())
}

#[cfg(test)]
mod tests;
