//! Frames: two little-endian lengths, an encoded header, and a raw body or the place of one in shared memory. Knows no
//! message.
//!
//! ```text
//! | u32: bytes of header and body | u32: bytes of header, top bit 0 | header (postcard) | body |
//! | u32: bytes of header and place | u32: bytes of header, top bit 1 | header (postcard) | place (postcard) |
//! ```

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Violation;
use crate::runtime::shared::Place;

/// Marks a frame whose body is in shared memory.
const SHARED: u32 = 1 << 31;

/// Most bytes of an encoded place.
const PLACE_LIMIT: usize = 20;

/// The two lengths in front of every frame.
const PREFIX: usize = 8;

/// Bodies up to this size are copied out of the read buffer, so that it can be used again at once; larger ones
/// share it.
const COPIED_BODY: usize = 16 << 10;

/// Room made for one read.
const READ_SIZE: usize = 64 << 10;

/// How long the parts of a frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of a header.
    pub header: usize,
    /// Bytes of a body.
    pub body: usize,
}

/// The body of a frame that is written.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// These parts, one after the other.
    Here(&'a [&'a [u8]]),
    /// What lies there in shared memory.
    Shared(Place),
}

/// The body of a frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadBody {
    /// These bytes.
    Here(Bytes),
    /// What lies there in shared memory. Its length is within the limits; whether it lies within the memory is not known here.
    Shared(Place),
}

/// Appends one frame to `buffer`; leaves it as it was if the frame would break `limits`.
pub fn encode<H: Serialize>(
    buffer: &mut Vec<u8>,
    limits: FrameLimits,
    header: &H,
    body: Body<'_>,
) -> Result<(), Violation> {
    let start = buffer.len();
    let encoded = append(buffer, limits, header, body);
    if encoded.is_err() {
        buffer.truncate(start);
    }
    encoded
}

fn append<H: Serialize>(
    buffer: &mut Vec<u8>,
    limits: FrameLimits,
    header: &H,
    body: Body<'_>,
) -> Result<(), Violation> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX]);
    postcard::to_io(header, &mut *buffer).map_err(Violation::Header)?;
    let header_length = buffer.len() - start - PREFIX;
    check("header", header_length, limits.header)?;
    let mark = match body {
        Body::Here(parts) => {
            check("body", length_of(parts), limits.body)?;
            to_u32(header_length + length_of(parts))?;
            for part in parts {
                buffer.extend_from_slice(part);
            }
            0
        }
        Body::Shared(place) => {
            postcard::to_io(&place, &mut *buffer).map_err(Violation::Header)?;
            SHARED
        }
    };
    let length = to_u32(buffer.len() - start - PREFIX)?;
    let marked = to_u32(header_length)? | mark;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..start + PREFIX].copy_from_slice(&marked.to_le_bytes());
    Ok(())
}

/// Bytes of a body in `parts`.
pub fn length_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Takes frames out of what was read.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limits: FrameLimits,
}

impl Decoder {
    /// Refuses frames beyond `limits`.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            limits,
        }
    }

    /// Where the next bytes are to be read to. Has room for one read; it grows with what came, not with what a frame
    /// announces.
    pub fn space(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_SIZE.max(self.buffer.len()));
        &mut self.buffer
    }

    /// The next `N` raw bytes, once they are there.
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.buffer.first_chunk::<N>()?;
        self.buffer.advance(N);
        Some(bytes)
    }

    /// The next frame, once it is there as a whole: its decoded header and its body.
    pub fn next<H: DeserializeOwned>(&mut self) -> Result<Option<(H, ReadBody)>, Violation> {
        let Some(lengths) = self.lengths()? else {
            return Ok(None);
        };
        if self.buffer.len() < PREFIX + lengths.header + lengths.body {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let header = decode(&self.buffer[..lengths.header])?;
        self.buffer.advance(lengths.header);
        let body = self.body(lengths.body);
        let body = if lengths.is_shared {
            let place: Place = decode(&body)?;
            let length = usize::try_from(place.length).unwrap_or(usize::MAX);
            check("body", length, self.limits.body)?;
            ReadBody::Shared(place)
        } else {
            ReadBody::Here(body)
        };
        Ok(Some((header, body)))
    }

    /// Lengths of the parts of the next frame, checked.
    fn lengths(&self) -> Result<Option<Lengths>, Violation> {
        let Some((frame, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some(header) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let frame = u32::from_le_bytes(*frame) as usize;
        let marked = u32::from_le_bytes(*header);
        let header = (marked & !SHARED) as usize;
        let body = frame
            .checked_sub(header)
            .ok_or(Violation::Lengths { frame, header })?;
        let is_shared = marked & SHARED != 0;
        check("header", header, self.limits.header)?;
        let limit = if is_shared {
            PLACE_LIMIT
        } else {
            self.limits.body
        };
        check("body", body, limit)?;
        Ok(Some(Lengths {
            header,
            body,
            is_shared,
        }))
    }

    fn body(&mut self, length: usize) -> Bytes {
        if length > COPIED_BODY {
            return self.buffer.split_to(length).freeze();
        }
        let body = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        body
    }
}

/// Bytes of the parts of a frame.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    header: usize,
    /// Of the body, or of its place.
    body: usize,
    is_shared: bool,
}

fn decode<H: DeserializeOwned>(bytes: &[u8]) -> Result<H, Violation> {
    match postcard::take_from_bytes(bytes).map_err(Violation::Header)? {
        (header, []) => Ok(header),
        (_, rest) => Err(Violation::Message(format!(
            "a header has {} bytes too many",
            rest.len()
        ))),
    }
}

fn check(part: &'static str, length: usize, limit: usize) -> Result<(), Violation> {
    if length <= limit {
        return Ok(());
    }
    Err(Violation::TooLong {
        part,
        length,
        limit,
    })
}

fn to_u32(length: usize) -> Result<u32, Violation> {
    u32::try_from(length).map_err(|_| Violation::TooLong {
        part: "body",
        length,
        limit: u32::MAX as usize,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        header: 1 << 10,
        body: 1 << 20,
    };

    fn frames(messages: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut buffer = Vec::new();
        for (header, body) in messages {
            encode(&mut buffer, LIMITS, header, Body::Here(&[body])).unwrap();
        }
        buffer
    }

    fn decode_all(decoder: &mut Decoder) -> Result<Vec<(String, Vec<u8>)>, Violation> {
        let mut messages = Vec::new();
        while let Some((header, body)) = decoder.next::<String>()? {
            let ReadBody::Here(body) = body else {
                return Err(Violation::Message("shared".to_owned()));
            };
            messages.push((header, body.to_vec()));
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            messages in prop::collection::vec(("[a-z]{0,40}", prop::collection::vec(any::<u8>(), 0..40_000)), 0..6),
            cut in 1usize..9000,
        ) {
            let mut decoder = Decoder::new(LIMITS);
            let mut received = Vec::new();
            for chunk in frames(&messages).chunks(cut) {
                decoder.space().extend_from_slice(chunk);
                received.extend(decode_all(&mut decoder).unwrap());
            }
            prop_assert_eq!(received, messages);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(LIMITS);
            decoder.space().extend_from_slice(&bytes);
            let _ = decode_all(&mut decoder);
        }
    }

    #[test]
    fn announced_lengths_allocate_nothing() {
        let limits = FrameLimits {
            header: 1 << 10,
            body: 1 << 30,
        };
        let mut decoder = Decoder::new(limits);
        let mut bytes = (1u32 << 30).to_le_bytes().to_vec();
        bytes.extend_from_slice(&4u32.to_le_bytes());
        decoder.space().extend_from_slice(&bytes);
        assert_eq!(decoder.next::<String>(), Ok(None));
        assert!(decoder.space().capacity() < 1 << 20);
    }

    #[test]
    fn oversize_frames_are_refused_before_they_are_read() {
        let mut decoder = Decoder::new(LIMITS);
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(&4u32.to_le_bytes());
        decoder.space().extend_from_slice(&bytes);
        assert_eq!(
            decoder.next::<String>(),
            Err(Violation::TooLong {
                part: "body",
                length: u32::MAX as usize - 4,
                limit: LIMITS.body
            })
        );
    }

    #[test]
    fn a_header_longer_than_its_frame_is_refused() {
        let mut decoder = Decoder::new(LIMITS);
        decoder.space().extend_from_slice(&[3, 0, 0, 0, 4, 0, 0, 0]);
        let violation = Violation::Lengths {
            frame: 3,
            header: 4,
        };
        assert_eq!(decoder.next::<String>(), Err(violation));
    }

    #[test]
    fn a_header_with_a_tail_is_refused() {
        let mut decoder = Decoder::new(LIMITS);
        let bytes = [3, 0, 0, 0, 3, 0, 0, 0, 1, b'a', b'b'];
        decoder.space().extend_from_slice(&bytes);
        assert!(matches!(
            decoder.next::<String>(),
            Err(Violation::Message(_))
        ));
    }

    #[test]
    fn a_frame_over_the_limit_leaves_the_buffer_alone() {
        let mut buffer = b"before".to_vec();
        let body = vec![0; LIMITS.body + 1];
        assert!(encode(&mut buffer, LIMITS, &"header", Body::Here(&[&body])).is_err());
        assert_eq!(buffer, b"before");
    }

    #[test]
    fn a_place_arrives_as_it_was_sent_and_none_beyond_the_limit() {
        let most = LIMITS.body as u64;
        for (offset, length, arrives) in [
            (0, 0, true),
            (4096, most, true),
            (u64::MAX, 7, true),
            (0, most + 1, false),
            (0, u64::MAX, false),
        ] {
            let place = Place { offset, length };
            let mut decoder = Decoder::new(LIMITS);
            let mut buffer = Vec::new();
            encode(&mut buffer, LIMITS, &"header", Body::Shared(place)).unwrap();
            decoder.space().extend_from_slice(&buffer);
            let read = decoder.next::<String>();
            let expected = Some(("header".to_owned(), ReadBody::Shared(place)));
            assert_eq!(read == Ok(expected), arrives, "{place:?}");
            assert_eq!(read.is_err(), !arrives, "{place:?}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for body in [&b""[..], &[0], &[0, 0, 0], &[255; 20], &[0; 21]] {
            let mut bytes = Vec::new();
            encode(&mut bytes, LIMITS, &"header", Body::Here(&[body])).unwrap();
            bytes[PREFIX - 1] |= 0x80;
            let mut decoder = Decoder::new(LIMITS);
            decoder.space().extend_from_slice(&bytes);
            assert!(decoder.next::<String>().is_err(), "{body:?}");
        }
    }
}
