//! A request for inference as it arrives: the message, and beside it the raw data of its tensors, which are gathered where the model
//! takes them from. What the message says of the data is in it as ever; only the data are not.
//!
//! Nothing is decoded here but what tells fields apart: keys and lengths. A message that breaks protobuf's rules is left to the
//! decoder, which says what is wrong with it.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use tonic::Status;

use super::wire::ModelInferRequest;
use crate::api::grpc::codec::FIELDS;
use crate::api::oip::invalid;
use crate::catalog::Room;
use crate::error::Error;
use crate::tensor::MAX_TENSORS;

/// In front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Bytes of a number, at most.
const NUMBER: usize = 10;

/// Fields of the message.
const INPUTS: u64 = 5;
const OUTPUTS: u64 = 6;
const RAW_INPUT_CONTENTS: u64 = 7;

/// Why a message is not read on.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It breaks a rule of gRPC's.
    Broken(Status),
    /// It has more bytes than a message may have.
    TooLong,
    /// It has too many parts.
    Invalid(Error),
}

/// What names the model of a message.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Named {
    #[prost(string, tag = "1")]
    pub(super) model: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// A message that arrives.
#[derive(Debug)]
pub(super) struct Divided {
    limit: usize,
    state: State,
    /// Bytes of the message that are to come.
    left: usize,
    /// A prefix, a key or a length, as far as it is there; of a key, until it is known what it is the key of.
    begun: Vec<u8>,
    /// The message but for raw data.
    message: BytesMut,
    /// Raw data, one after the other.
    data: Option<Room>,
    lengths: Vec<usize>,
    fields: usize,
    inputs: usize,
    outputs: usize,
    /// The model whose worker process sees the data.
    gathered_for: Option<Named>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prefix,
    Key,
    /// The length of a field, whose key is this long.
    Length {
        key: usize,
        field: u64,
    },
    Varint,
    /// So many bytes that belong to the message.
    Message(usize),
    /// So many bytes of raw data.
    Raw(usize),
    /// Nothing that is told apart.
    Rest,
    Done,
}

impl Divided {
    /// Nothing yet of a message of `limit` bytes at most.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: State::Prefix,
            left: 0,
            begun: Vec::with_capacity(2 * NUMBER),
            message: BytesMut::new(),
            data: None,
            lengths: Vec::new(),
            fields: 0,
            inputs: 0,
            outputs: 0,
            gathered_for: None,
        }
    }

    /// Goes on with `piece`. Before the first raw data `room` is asked for memory for all that may come, of the model that the message
    /// names so far.
    pub(super) fn push(
        &mut self,
        mut piece: &[u8],
        room: impl Fn(Named, usize) -> Room,
    ) -> Result<(), Refusal> {
        while !piece.is_empty() {
            let taken = match self.state {
                State::Prefix => self.prefix(piece)?,
                State::Key | State::Length { .. } => self.number(piece[0], &room)?,
                State::Varint => self.varint(piece),
                State::Message(length) => self.of_message(piece, length),
                State::Raw(length) => self.raw(piece, length),
                State::Rest => self.of_message(piece, self.left),
                State::Done => return Err(Refusal::Broken(too_much())),
            };
            piece = &piece[taken..];
        }
        Ok(())
    }

    /// The message and its data.
    pub(super) fn message(self) -> Result<ModelInferRequest, Status> {
        match self.state {
            State::Done => {}
            State::Prefix if self.begun.is_empty() => {
                return Err(Status::internal("Missing request message."));
            }
            _ => return Err(Status::internal("Unexpected EOF decoding stream.")),
        }
        let mut message = ModelInferRequest::decode(self.message.freeze())
            .map_err(|error| Status::internal(error.to_string()))?;
        if let Some(Named { model, version }) = self.gathered_for
            && (&model, &version) != (&message.model_name, &message.model_version)
        {
            return Err(Status::invalid_argument(
                "The model is to be named once, and before raw_input_contents",
            ));
        }
        let mut data = self.data.map_or_else(Bytes::new, Room::into_bytes);
        let raw = self.lengths.into_iter().map(|length| data.split_to(length));
        // What was not told apart comes behind.
        message.raw_input_contents = raw.chain(message.raw_input_contents).collect();
        Ok(message)
    }

    fn prefix(&mut self, piece: &[u8]) -> Result<usize, Refusal> {
        let taken = piece.len().min(PREFIX - self.begun.len());
        self.begun.extend_from_slice(&piece[..taken]);
        let &[flag, a, b, c, d] = &self.begun[..] else {
            return Ok(taken);
        };
        self.begun.clear();
        if flag != 0 {
            return Err(Refusal::Broken(compressed(flag)));
        }
        self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if self.left > self.limit {
            return Err(Refusal::TooLong);
        }
        self.state = State::Key;
        self.end_if_all_is_there();
        Ok(taken)
    }

    /// One byte of a key or a length.
    fn number(&mut self, byte: u8, room: impl Fn(Named, usize) -> Room) -> Result<usize, Refusal> {
        self.begun.push(byte);
        self.left -= 1;
        let from = match self.state {
            State::Length { key, .. } => key,
            _ => 0,
        };
        let is_whole = byte < 0x80;
        if !is_whole && self.begun.len() - from < NUMBER {
            self.end_if_all_is_there();
            return Ok(1);
        }
        let number = number(&self.begun[from..]).filter(|_| is_whole);
        self.state = match (self.state, number) {
            (State::Length { field, .. }, Some(length)) => self.field(field, length, room)?,
            (_, Some(key)) => {
                count("fields", FIELDS, &mut self.fields)?;
                self.after_key(key)
            }
            (_, None) => self.is_of_message(State::Rest),
        };
        self.end_if_all_is_there();
        Ok(1)
    }

    fn after_key(&mut self, key: u64) -> State {
        let field = key >> 3;
        match key & 7 {
            2 => State::Length {
                key: self.begun.len(),
                field,
            },
            // Each field of the message has a length. Of a map, prost takes what follows for one whatever the key says.
            _ if (1..=RAW_INPUT_CONTENTS).contains(&field) => self.is_of_message(State::Rest),
            0 => self.is_of_message(State::Varint),
            1 => self.is_of_message(State::Message(8)),
            5 => self.is_of_message(State::Message(4)),
            _ => self.is_of_message(State::Rest),
        }
    }

    /// What follows the length of a field.
    fn field(
        &mut self,
        field: u64,
        length: u64,
        room: impl Fn(Named, usize) -> Room,
    ) -> Result<State, Refusal> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.left {
            return Ok(self.is_of_message(State::Rest));
        }
        match field {
            INPUTS => count("inputs", MAX_TENSORS, &mut self.inputs)?,
            OUTPUTS => count("outputs", MAX_TENSORS, &mut self.outputs)?,
            RAW_INPUT_CONTENTS => return self.data(length, room),
            _ => {}
        }
        Ok(match length {
            0 => self.is_of_message(State::Key),
            length => self.is_of_message(State::Message(length)),
        })
    }

    fn data(
        &mut self,
        length: usize,
        room: impl Fn(Named, usize) -> Room,
    ) -> Result<State, Refusal> {
        let mut count_of_all = self.lengths.len();
        count("raw_input_contents", MAX_TENSORS, &mut count_of_all)?;
        self.begun.clear();
        self.lengths.push(length);
        if length > 0 && self.data.is_none() {
            // Of a message that is not valid so far, the decoder will say so.
            let named = Named::decode(&self.message[..]).unwrap_or_default();
            let room = room(named.clone(), self.left);
            let is_shared = matches!(room, Room::Shared(_));
            self.gathered_for = is_shared.then_some(named);
            self.data = Some(room);
        }
        Ok(if length > 0 {
            State::Raw(length)
        } else {
            State::Key
        })
    }

    /// What was held back belongs to the message.
    fn is_of_message(&mut self, next: State) -> State {
        self.message.put_slice(&self.begun);
        self.begun.clear();
        next
    }

    fn varint(&mut self, piece: &[u8]) -> usize {
        let piece = &piece[..piece.len().min(self.left)];
        let end = piece.iter().position(|byte| *byte < 0x80);
        let taken = end.map_or(piece.len(), |end| end + 1);
        self.message.put_slice(&piece[..taken]);
        self.left -= taken;
        if end.is_some() {
            self.state = State::Key;
        }
        self.end_if_all_is_there();
        taken
    }

    fn of_message(&mut self, piece: &[u8], length: usize) -> usize {
        let taken = piece.len().min(length).min(self.left);
        self.message.put_slice(&piece[..taken]);
        self.passed(taken, length, State::Message)
    }

    fn raw(&mut self, piece: &[u8], length: usize) -> usize {
        let taken = piece.len().min(length);
        if let Some(data) = &mut self.data {
            data.push(&piece[..taken]);
        }
        self.passed(taken, length, State::Raw)
    }

    /// So many bytes were taken of a part of `length` bytes, of which the rest is `part`.
    fn passed(&mut self, taken: usize, length: usize, part: impl Fn(usize) -> State) -> usize {
        self.left -= taken;
        if self.state != State::Rest {
            self.state = match length - taken {
                0 => State::Key,
                rest => part(rest),
            };
        }
        self.end_if_all_is_there();
        taken
    }

    fn end_if_all_is_there(&mut self) {
        if self.left == 0 {
            self.state = self.is_of_message(State::Done);
        }
    }
}

/// Counts one more part.
fn count(what: &str, most: usize, parts: &mut usize) -> Result<(), Refusal> {
    *parts += 1;
    if *parts <= most {
        return Ok(());
    }
    let text = format!("a request may have {most} {what}, this one has more");
    Err(Refusal::Invalid(invalid(text)))
}

/// The number that a varint is.
fn number(mut varint: &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(&mut varint).ok()
}

fn too_much() -> Status {
    Status::internal("There is something behind the only message of the call")
}

/// The status that tonic gives a message that says it is compressed in a call that does not.
fn compressed(flag: u8) -> Status {
    if flag == 1 {
        return Status::internal(
            "protocol error: received message with compressed-flag but no grpc-encoding was specified",
        );
    }
    Status::internal(format!(
        "protocol error: received message with invalid compression flag: {flag} (valid flags are 0 and 1)"
    ))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::api::grpc::open_inference::wire::model_infer_request::{
        InferInputTensor, InferRequestedOutputTensor,
    };

    const LIMIT: usize = 1 << 16;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), message].concat()
    }

    /// The message in `bytes`, which come in pieces of `cut` bytes.
    fn divided(bytes: &[u8], cut: usize) -> Result<ModelInferRequest, String> {
        let mut divided = Divided::new(LIMIT);
        for piece in bytes.chunks(cut) {
            let pushed = divided.push(piece, |_, length| Room::own(length));
            pushed.map_err(|refusal| format!("{refusal:?}"))?;
        }
        divided
            .message()
            .map_err(|status| status.message().to_owned())
    }

    fn message() -> impl Strategy<Value = ModelInferRequest> {
        let tensor = ("[a-z]{0,3}", prop::collection::vec(any::<i64>(), 0..3));
        let inputs = prop::collection::vec(tensor, 0..4);
        let raw = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4);
        let outputs = prop::collection::vec("[a-z]{0,3}", 0..3);
        ("[a-z]{0,5}", "[0-9]{0,2}", inputs, outputs, raw).prop_map(
            |(model_name, model_version, inputs, outputs, raw)| {
                let input = |(name, shape)| InferInputTensor {
                    name,
                    shape,
                    ..InferInputTensor::default()
                };
                let output = |name| InferRequestedOutputTensor {
                    name,
                    ..InferRequestedOutputTensor::default()
                };
                ModelInferRequest {
                    model_name,
                    model_version,
                    inputs: inputs.into_iter().map(input).collect(),
                    outputs: outputs.into_iter().map(output).collect(),
                    raw_input_contents: raw.into_iter().map(Bytes::from).collect(),
                    ..ModelInferRequest::default()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn messages_are_what_the_decoder_makes_of_them(message in message(), cut in 1usize..400) {
            prop_assert_eq!(divided(&framed(&message.encode_to_vec()), cut), Ok(message));
        }

        #[test]
        fn what_is_damaged_is_judged_by_the_decoder(
            message in message(),
            cut in 1usize..400,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = message.encode_to_vec();
            for (place, byte) in damage {
                if !bytes.is_empty() {
                    *place.get_mut(&mut bytes) = byte;
                }
            }
            let whole = ModelInferRequest::decode(&bytes[..]).map_err(|error| error.to_string());
            let by_parts = divided(&framed(&bytes), cut);
            prop_assert_eq!(by_parts.is_ok(), whole.is_ok(), "{:?} {:?}", by_parts, whole);
            if let (Ok(by_parts), Ok(whole)) = (by_parts, whole) {
                prop_assert_eq!(by_parts, whole);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let _ = divided(&bytes, cut);
            let _ = divided(&framed(&bytes), cut);
        }
    }

    #[test]
    fn room_is_asked_for_once_and_for_the_model_that_is_named() {
        let message = ModelInferRequest {
            model_name: "model".to_owned(),
            model_version: "2".to_owned(),
            raw_input_contents: vec![Bytes::new(), "one".into(), "three".into()],
            ..ModelInferRequest::default()
        };
        let asked = RefCell::new(Vec::new());
        let mut divided = Divided::new(LIMIT);
        let pushed = divided.push(&framed(&message.encode_to_vec()), |named, length| {
            asked
                .borrow_mut()
                .push((named.model, named.version, length));
            Room::own(length)
        });
        pushed.unwrap();
        let room = 3 + 2 + 5;
        let expected = ("model".to_owned(), "2".to_owned(), room);
        assert_eq!(*asked.borrow(), [expected]);
        assert_eq!(divided.message().unwrap(), message);
    }

    #[test]
    fn nothing_may_follow_the_message() {
        let message = framed(&ModelInferRequest::default().encode_to_vec());
        for rest in [&message[..], b"\0"] {
            let bytes = [&message, rest].concat();
            for cut in [1, 200] {
                assert!(divided(&bytes, cut).unwrap_err().contains("behind"));
            }
        }
    }

    #[test]
    fn a_message_that_breaks_a_rule_is_refused_before_it_is_there() {
        let of = |flag: u8, length: u32| [&[flag][..], &length.to_be_bytes()].concat();
        for (bytes, says) in [
            (vec![], "Missing request message."),
            (of(0, 1), "Unexpected EOF"),
            (of(0, 0)[..3].to_vec(), "Unexpected EOF"),
            (of(1, 1), "no grpc-encoding was specified"),
            (of(2, 1), "invalid compression flag: 2"),
            (of(0, u32::MAX), "TooLong"),
        ] {
            let refused = divided(&bytes, 3).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn a_field_of_another_kind_is_left_to_the_decoder() {
        for field in 1..=RAW_INPUT_CONTENTS {
            for kind in [0, 1, 5] {
                let key = u8::try_from(field << 3 | kind).unwrap();
                // Raw data behind it, or, if it has a length, within it.
                let data = [0x3a, 32].into_iter().chain([b' '; 32]);
                let bytes: Vec<_> = [key, 32].repeat(14).into_iter().chain(data).collect();
                let whole = ModelInferRequest::decode(&bytes[..]);
                let by_parts = divided(&framed(&bytes), 7);
                assert_eq!(by_parts.ok(), whole.ok(), "{field} {kind}");
            }
        }
    }

    #[test]
    fn lists_are_limited_while_they_arrive() {
        for field in [INPUTS, OUTPUTS, RAW_INPUT_CONTENTS] {
            let one = [u8::try_from(field << 3 | 2).unwrap(), 0];
            let mut divided = Divided::new(LIMIT);
            let bytes = framed(&one.repeat(MAX_TENSORS + 1));
            let pushed = divided.push(&bytes, |_, length| Room::own(length));
            assert!(matches!(pushed, Err(Refusal::Invalid(_))), "{field}");
        }
    }
}
