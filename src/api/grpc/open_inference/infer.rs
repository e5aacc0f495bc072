//! `ModelInfer` without the copies that tonic's buffers would cost: data of tensors are gathered where the model takes them from, and
//! sent from where it left them. Calls that are compressed go tonic's way.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::header::{self, HeaderMap, HeaderValue};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::{Code, Status};

use super::divided::{Divided, Named, Refusal};
use super::wire::{ModelInferRequest, ModelInferResponse};
use super::{infer, is_raw, origin, target};
use crate::api::grpc::call::Caller;
use crate::api::grpc::inbound::Inbound;
use crate::api::grpc::outbound::Charged;
use crate::api::grpc::status;
use crate::api::pieces::Pieces;
use crate::budget::Account;
use crate::catalog::{Catalog, Room};

const ENCODING: &str = "grpc-encoding";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// The field of a response that holds the data of tensors.
const RAW_OUTPUT_CONTENTS: u32 = 6;
/// Data of so many bytes and fewer are copied behind what comes before.
const COPIED: usize = 4 << 10;
/// In front of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Bytes of a key and a length, at most.
const KEY_AND_LENGTH: usize = 11;

type Response = hyper::Response<tonic::body::Body>;

/// Whether the messages of a call with `headers` are as they are.
pub(in crate::api::grpc) fn is_plain(headers: &HeaderMap) -> bool {
    let encoding = headers.get(ENCODING);
    encoding.is_none_or(|encoding| encoding.as_bytes() == b"identity")
}

/// Answers a call.
pub(in crate::api::grpc) async fn answer(
    limit: usize,
    request: hyper::Request<Inbound>,
) -> Response {
    let (head, body) = request.into_parts();
    let answered = async {
        let caller = Caller::within(&head.extensions)?;
        let message = received(&caller, limit, body).await?;
        let origin = origin(&caller, caller.arrival(), is_raw(&message));
        let response = infer(caller.catalog(), origin, message).await;
        let response = response.map_err(|error| caller.fail_open_inference(&error))?;
        Ok(sent(pieces(response, caller.account())?))
    };
    answered
        .await
        .unwrap_or_else(|status: Status| status.into_http())
}

/// The message of a call.
async fn received(
    caller: &Caller,
    limit: usize,
    mut body: Inbound,
) -> Result<ModelInferRequest, Status> {
    let mut divided = Divided::new(limit);
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            let pushed = divided.push(&piece, |named, length| {
                room(caller.catalog(), &named, length)
            });
            pushed.map_err(|refusal| match refusal {
                Refusal::Broken(status) => status,
                Refusal::TooLong => caller.fail(&status::too_large(limit)),
                Refusal::Invalid(error) => caller.fail_open_inference(&error),
            })?;
        }
    }
    divided.message()
}

/// Room for data of a model, if there is such a model.
fn room(catalog: &Catalog, Named { model, version }: &Named, length: usize) -> Room {
    let entry = target(model, version).find(catalog);
    entry.map_or_else(|_| Room::own(length), |entry| entry.room(length))
}

/// A response as it is sent: its tensors' data were charged when they came, the rest is here.
fn pieces(mut response: ModelInferResponse, account: &Account) -> Result<Vec<Bytes>, Status> {
    let data = std::mem::take(&mut response.raw_output_contents);
    let length = encoded_length(&response, &data);
    let length = u32::try_from(length)
        .map_err(|_| Status::resource_exhausted("The response has more than 4 GiB"))?;
    let mut pieces = Vec::with_capacity(1 + 2 * data.len());
    let room = PREFIX + response.encoded_len() + data.len() * KEY_AND_LENGTH;
    let mut between = BytesMut::with_capacity(room);
    between.put_u8(0);
    between.put_u32(length);
    response.encode_raw(&mut between);
    for data in data {
        encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut between);
        encode_varint(data.len() as u64, &mut between);
        if data.len() <= COPIED {
            between.put_slice(&data);
        } else {
            // The message it was made of was charged, and is gone.
            pieces.push(account.hold_anyway(between.split().freeze()));
            pieces.push(data);
        }
    }
    pieces.push(account.hold_anyway(between.freeze()));
    Ok(pieces)
}

/// Bytes of a response with `data`.
fn encoded_length(response: &ModelInferResponse, data: &[Bytes]) -> usize {
    let key = prost::encoding::key_len(RAW_OUTPUT_CONTENTS);
    let field =
        |data: &Bytes| key + prost::encoding::encoded_len_varint(data.len() as u64) + data.len();
    response.encoded_len() + data.iter().map(field).sum::<usize>()
}

fn sent(pieces: Vec<Bytes>) -> Response {
    let ok = HeaderValue::from(Code::Ok as u16);
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, ok)]);
    let body = Pieces::new(pieces).with_trailers(trailers);
    let mut response = hyper::Response::new(tonic::body::Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response.extensions_mut().insert(Charged);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_message_that_the_encoder_makes() {
        for lengths in [
            &[][..],
            &[0],
            &[COPIED],
            &[COPIED + 1],
            &[3, COPIED + 1, 200, 1 << 20],
        ] {
            let response = ModelInferResponse {
                model_name: "model".to_owned(),
                raw_output_contents: lengths
                    .iter()
                    .map(|length| vec![7; *length].into())
                    .collect(),
                ..ModelInferResponse::default()
            };
            let message = response.encode_to_vec();
            let pieces = pieces(response, &Account::default()).unwrap().concat();
            let length = u32::try_from(message.len()).unwrap();
            assert_eq!(pieces[..PREFIX], [&[0][..], &length.to_be_bytes()].concat());
            assert!(pieces[PREFIX..] == message, "{lengths:?}");
        }
    }
}
