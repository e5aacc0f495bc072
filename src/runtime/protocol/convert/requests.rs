//! Requests: the head is encoded, the body is raw bytes, divided again without copying.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::budget::Account;
use crate::payload::{Body, Field, Meter, Part, Priority, Request, Schedule};
use crate::tensor::{DType, NamedTensor, Tensor};

use super::{Violation, dtype_from_wire, dtype_to_wire, messages, size};

/// Ages and times left beyond this are cut to it; it keeps instants from overflowing.
const LONGEST: Duration = Duration::from_hours(720);

/// The head of a request, borrowed, and the pieces of its body in order.
pub fn call_to_wire(id: u64, request: &Request) -> (messages::Call<&str>, Vec<&[u8]>) {
    let (layout, body) = body_to_wire(&request.body);
    let now = Instant::now();
    let call = messages::Call {
        id,
        request: request.id.as_str(),
        content_type: request.content_type.as_deref(),
        headers: fields_to_wire(&request.headers),
        layout,
        age: now.saturating_duration_since(request.arrival),
        left: request.deadline.saturating_duration_since(now),
        priority: priority_to_wire(request.schedule.priority),
        begin_within: (request.schedule.begin_by)
            .map(|instant| instant.saturating_duration_since(now)),
    };
    (call, body)
}

/// Whether the data of a tensor need not be looked at to know that it is valid.
pub fn has_any_bytes(tensor: &messages::Tensor<String>) -> bool {
    dtype_from_wire(tensor.dtype).is_ok_and(DType::takes_any_bytes)
}

/// A request from its head and body.
pub fn call_from_wire(call: messages::Call<String>, body: Bytes) -> Result<Request, Violation> {
    let now = Instant::now();
    Ok(Request {
        id: call.request,
        content_type: call.content_type,
        headers: call.headers,
        body: body_from_wire(call.layout, body)?,
        arrival: now.checked_sub(call.age.min(LONGEST)).unwrap_or(now),
        deadline: now + call.left.min(LONGEST),
        schedule: Schedule {
            priority: priority_from_wire(call.priority),
            begin_by: call.begin_within.map(|left| now + left.min(LONGEST)),
        },
        // The front counts.
        account: Account::default(),
        passes_tensors_on: true,
        meter: Meter::default(),
    })
}

const fn priority_to_wire(priority: Priority) -> messages::Priority {
    match priority {
        Priority::High => messages::Priority::High,
        Priority::Normal => messages::Priority::Normal,
        Priority::Low => messages::Priority::Low,
    }
}

const fn priority_from_wire(priority: messages::Priority) -> Priority {
    match priority {
        messages::Priority::High => Priority::High,
        messages::Priority::Normal => Priority::Normal,
        messages::Priority::Low => Priority::Low,
    }
}

/// Headers, borrowed.
pub(super) fn fields_to_wire(fields: &[Field]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn body_to_wire(body: &Body) -> (messages::Layout<&str>, Vec<&[u8]>) {
    match body {
        Body::Raw(bytes) => (messages::Layout::Raw, vec![bytes.as_ref()]),
        Body::Form(parts) => {
            let layout = parts.iter().map(part_to_wire).collect();
            let pieces = parts.iter().map(|part| part.body.as_ref()).collect();
            (messages::Layout::Form(layout), pieces)
        }
        Body::Tensors(tensors) => {
            let (layout, pieces) = tensors_to_wire(tensors);
            (messages::Layout::Tensors(layout), pieces)
        }
    }
}

/// Tensors, borrowed, and their data in order.
pub(super) fn tensors_to_wire(
    tensors: &[NamedTensor],
) -> (Vec<messages::Tensor<&str>>, Vec<&[u8]>) {
    let layout = tensors.iter().map(tensor_to_wire).collect();
    let pieces = tensors.iter().map(|named| named.tensor.data().as_ref());
    (layout, pieces.collect())
}

fn part_to_wire(part: &Part) -> messages::Part<&str> {
    messages::Part {
        name: &part.name,
        filename: part.filename.as_deref(),
        content_type: part.content_type.as_deref(),
        length: part.body.len() as u64,
    }
}

fn tensor_to_wire(named: &NamedTensor) -> messages::Tensor<&str> {
    let tensor = &named.tensor;
    messages::Tensor {
        name: &named.name,
        dtype: dtype_to_wire(tensor.dtype()),
        shape: tensor.shape().iter().map(|axis| *axis as u64).collect(),
        length: tensor.data().len() as u64,
    }
}

fn body_from_wire(layout: messages::Layout<String>, mut body: Bytes) -> Result<Body, Violation> {
    match layout {
        messages::Layout::Raw => Ok(Body::Raw(body)),
        messages::Layout::Form(parts) => {
            let parts = parts
                .into_iter()
                .map(|part| part_from_wire(part, &mut body));
            let form = Body::Form(parts.collect::<Result<_, _>>()?);
            all_belongs(&body)?;
            Ok(form)
        }
        messages::Layout::Tensors(tensors) => tensors_from_wire(tensors, body).map(Body::Tensors),
    }
}

/// Tensors whose data lies in `body`, one after the other.
pub(super) fn tensors_from_wire(
    tensors: Vec<messages::Tensor<String>>,
    mut body: Bytes,
) -> Result<Vec<NamedTensor>, Violation> {
    let tensors = tensors
        .into_iter()
        .map(|tensor| tensor_from_wire(tensor, &mut body));
    let tensors = tensors.collect::<Result<_, _>>()?;
    all_belongs(&body)?;
    Ok(tensors)
}

fn all_belongs(rest: &Bytes) -> Result<(), Violation> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Violation::Message(format!(
        "{} bytes of a body belong to nothing",
        rest.len()
    )))
}

fn part_from_wire(part: messages::Part<String>, body: &mut Bytes) -> Result<Part, Violation> {
    Ok(Part {
        name: part.name,
        filename: part.filename,
        content_type: part.content_type,
        body: piece(body, part.length)?,
    })
}

fn tensor_from_wire(
    tensor: messages::Tensor<String>,
    body: &mut Bytes,
) -> Result<NamedTensor, Violation> {
    let shape = tensor.shape.into_iter().map(size);
    let checked = Tensor::new(
        dtype_from_wire(tensor.dtype)?,
        shape.collect::<Result<_, _>>()?,
        piece(body, tensor.length)?,
    );
    let checked = checked.map_err(|error| Violation::Message(error.to_string()))?;
    Ok(NamedTensor::new(tensor.name, checked))
}

fn piece(body: &mut Bytes, length: u64) -> Result<Bytes, Violation> {
    let length = size(length)?;
    if length > body.len() {
        return Err(Violation::Message(format!(
            "a piece of {length} bytes is longer than the {} left of its body",
            body.len()
        )));
    }
    Ok(body.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(body: Body) -> Request {
        let now = Instant::now();
        Request {
            id: "r-1".into(),
            content_type: Some("image/png".into()),
            headers: vec![("accept".into(), "*/*".into())],
            body,
            arrival: now,
            deadline: now + Duration::from_mins(1),
            schedule: Schedule {
                priority: Priority::Low,
                begin_by: Some(now + Duration::from_secs(1)),
            },
            account: Account::default(),
            passes_tensors_on: false,
            meter: Meter::default(),
        }
    }

    fn sent_and_received(request: &Request) -> Result<Request, Violation> {
        let (call, pieces) = call_to_wire(7, request);
        let encoded = postcard::to_stdvec(&call).unwrap();
        call_from_wire(
            postcard::from_bytes(&encoded).unwrap(),
            pieces.concat().into(),
        )
    }

    fn part() -> impl Strategy<Value = Part> {
        let body = prop::collection::vec(any::<u8>(), 0..50);
        let text = prop::option::of("[a-z./]{0,9}");
        ("[a-z]{0,9}", text.clone(), text, body).prop_map(|(name, filename, content_type, body)| {
            Part {
                name,
                filename,
                content_type,
                body: body.into(),
            }
        })
    }

    fn tensor() -> impl Strategy<Value = NamedTensor> {
        ("[a-z]{0,9}", prop::collection::vec(0usize..4, 0..4)).prop_map(|(name, shape)| {
            let length = shape.iter().product::<usize>() * 4;
            let tensor = Tensor::new(DType::F32, shape, vec![7; length].into());
            NamedTensor::new(name, tensor.unwrap())
        })
    }

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Body::Raw(bytes.into())),
            prop::collection::vec(part(), 0..4).prop_map(Body::Form),
            prop::collection::vec(tensor(), 0..4).prop_map(Body::Tensors),
        ]
    }

    proptest! {
        #[test]
        fn requests_arrive_as_they_were_sent(body in body()) {
            let sent = request(body);
            let received = sent_and_received(&sent).unwrap();
            prop_assert_eq!(received.body, sent.body);
            prop_assert_eq!(received.headers, sent.headers);
            prop_assert_eq!(received.content_type, sent.content_type);
            prop_assert!(received.deadline >= sent.deadline);
            prop_assert_eq!(received.schedule.priority, sent.schedule.priority);
            prop_assert!(received.schedule.begin_by >= sent.schedule.begin_by);
        }
    }

    #[test]
    fn a_body_must_be_as_long_as_its_parts() {
        let request = request(Body::Form(vec![Part {
            name: "data".into(),
            filename: None,
            content_type: None,
            body: Bytes::from_static(b"abc"),
        }]));
        let (call, _) = call_to_wire(7, &request);
        let encoded = postcard::to_stdvec(&call).unwrap();
        for body in ["ab", "abcd"] {
            let call = postcard::from_bytes(&encoded).unwrap();
            assert!(call_from_wire(call, body.into()).is_err());
        }
    }
}
