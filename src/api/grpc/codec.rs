//! The codec of the services that are made from `proto/`: protobuf, as prost reads it, but for messages of more fields than anybody needs. An empty element of a
//! list is two bytes on the wire and hundreds in memory. Buffers are small at first.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// Fields that a message may have, each element of a list counted; what is in a field is not.
pub(super) const FIELDS: usize = 16 << 10;

/// Bytes that are made room for before anything is known of a message. tonic makes room for 8 KiB, in both directions of each call,
/// which costs a small one more than its bytes do.
const BUFFER: usize = 512;
/// Bytes of a stream's messages that are written at once: as many as tonic writes.
const YIELD_FROM: usize = 32 << 10;

/// The codec. Messages of type `T` are written, those of type `U` are read.
#[derive(Debug, Clone)]
pub struct CountedFields<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for CountedFields<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, YIELD_FROM)
}

impl<T, U> Codec for CountedFields<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountingDecoder(ProstCodec::<T, U>::raw_decoder(buffers()))
    }
}

/// Reads messages of type `U`.
#[derive(Debug, Clone)]
pub struct CountingDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for CountingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        check(message.chunk())?;
        self.0.decode(message)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Refuses a message of too many fields.
fn check(message: &[u8]) -> Result<(), Status> {
    // A field takes two bytes and more.
    if message.len() <= 2 * FIELDS || fields(message) <= FIELDS {
        return Ok(());
    }
    let text = format!("A message may have {FIELDS} fields, this one has more");
    Err(Status::invalid_argument(text))
}

/// How many fields a message has, up to the first that breaks protobuf's rules, or one more than there may be.
fn fields(mut message: &[u8]) -> usize {
    (0..=FIELDS)
        .take_while(|_| skip(&mut message).is_some())
        .count()
}

/// Goes on behind a field.
fn skip(message: &mut &[u8]) -> Option<()> {
    let varint = |message: &mut &[u8]| prost::encoding::decode_varint(message).ok();
    let length = match varint(message)? & 7 {
        0 => return varint(message).map(drop),
        1 => 8,
        2 => usize::try_from(varint(message)?).ok()?,
        5 => 4,
        // The ends of groups, which nothing here has: they count as they are.
        3 | 4 => 0,
        _ => return None,
    };
    *message = message.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_too_many_fields_are_refused_whatever_the_fields_are() {
        let fields: [&[u8]; 5] = [
            &[0x2a, 0],
            &[0x0a, 1, b'x'],
            &[0x08, 0xff, 1],
            &[0x0d, 1, 2, 3, 4],
            &[0x09, 1, 2, 3, 4, 5, 6, 7, 8],
        ];
        for field in fields {
            assert!(check(&field.repeat(FIELDS)).is_ok(), "{field:?}");
            assert!(check(&field.repeat(FIELDS + 1)).is_err(), "{field:?}");
        }
        let large = [&[0x0a, 0x80, 0x80, 0x04][..], &vec![0; 1 << 16]].concat();
        assert!(check(&large).is_ok());
        assert!(
            check(&vec![0xff; 1 << 16]).is_ok(),
            "what is no message is the decoder's"
        );
    }
}
