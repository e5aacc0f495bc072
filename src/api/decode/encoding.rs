//! Compressed bodies: `Content-Encoding` gzip and deflate, unpacked within the limit of plain bodies.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header;

use crate::error::{Error, Kind};

/// Bytes that are made room for before anything is known of the unpacked size.
const FIRST_ROOM: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One or more gzip members.
    Gzip,
    /// A zlib stream, or a bare deflate stream as some clients send it.
    Deflate,
}

impl Encoding {
    /// The encoding that `headers` declare; `None` if the body is plain. Fails if it is another one, or more than one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let value = value.as_bytes().trim_ascii();
        let is = |name: &[u8]| value.eq_ignore_ascii_case(name);
        match () {
            () if values.next().is_some() => Err(unknown(b"of several headers")),
            () if is(b"identity") || value.is_empty() => Ok(None),
            () if is(b"gzip") || is(b"x-gzip") => Ok(Some(Self::Gzip)),
            () if is(b"deflate") => Ok(Some(Self::Deflate)),
            () => Err(unknown(value)),
        }
    }

    /// The unpacked body; `None` if it has more than `limit` bytes. Blocks.
    pub(super) fn unpack(self, body: &[u8], limit: usize) -> Result<Option<Bytes>, Error> {
        let unpacked = match self {
            Self::Gzip => read_at_most(MultiGzDecoder::new(body), limit),
            Self::Deflate if is_zlib(body) => read_at_most(ZlibDecoder::new(body), limit),
            Self::Deflate => read_at_most(DeflateDecoder::new(body), limit),
        };
        unpacked.map_err(|error| {
            let message = format!("The body is not valid {}", self.name());
            Error::new(Kind::BadRequest, message).with_detail(error)
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

fn unknown(value: &[u8]) -> Error {
    let value = String::from_utf8_lossy(value.get(..100).unwrap_or(value)).into_owned();
    let message = format!("Content-Encoding must be gzip, deflate or identity, got {value:?}");
    Error::new(Kind::UnsupportedMediaType, message)
}

/// Whether `body` starts as RFC 1950 says: method 8, and a checksum over the two bytes.
fn is_zlib(body: &[u8]) -> bool {
    let &[method, flags, ..] = body else {
        return false;
    };
    method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31)
}

fn read_at_most(reader: impl Read, limit: usize) -> io::Result<Option<Bytes>> {
    let mut unpacked = Vec::with_capacity(FIRST_ROOM.min(limit));
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(more).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= limit).then(|| unpacked.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn bare(body: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(encoding: Encoding, body: &[u8]) -> Option<Vec<u8>> {
        let unpacked = encoding.unpack(body, 10_000).unwrap();
        unpacked.map(|bytes| bytes.to_vec())
    }

    fn of(value: &str) -> Result<Option<Encoding>, Kind> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, value.parse().unwrap());
        Encoding::of(&headers).map_err(|error| error.kind())
    }

    #[test]
    fn encodings_are_known_in_any_letter_case() {
        assert_eq!(Encoding::of(&HeaderMap::new()).unwrap(), None);
        assert_eq!(of("identity"), Ok(None));
        assert_eq!(
            (of("GZip"), of("x-gzip")),
            (Ok(Some(Encoding::Gzip)), Ok(Some(Encoding::Gzip)))
        );
        assert_eq!(of(" deflate "), Ok(Some(Encoding::Deflate)));
        for other in ["br", "zstd", "gzip, gzip", "compress"] {
            assert_eq!(of(other), Err(Kind::UnsupportedMediaType), "{other}");
        }
    }

    #[test]
    fn each_form_unpacks() {
        assert_eq!(unpack(Encoding::Gzip, &gzip(b"abc")), Some(b"abc".to_vec()));
        assert_eq!(
            unpack(Encoding::Deflate, &zlib(b"abc")),
            Some(b"abc".to_vec())
        );
        assert_eq!(
            unpack(Encoding::Deflate, &bare(b"abc")),
            Some(b"abc".to_vec())
        );
        let two = [gzip(b"abc"), gzip(b"def")].concat();
        assert_eq!(unpack(Encoding::Gzip, &two), Some(b"abcdef".to_vec()));
        assert_eq!(unpack(Encoding::Gzip, &gzip(b"")), Some(Vec::new()));
    }

    #[test]
    fn the_limit_is_on_the_unpacked_bytes() {
        let exact = gzip(&[0; 10_000]);
        assert_eq!(
            unpack(Encoding::Gzip, &exact).map(|bytes| bytes.len()),
            Some(10_000)
        );
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 12_000, "{}", bomb.len());
        assert_eq!(unpack(Encoding::Gzip, &bomb), None);
        let members = gzip(&[0; 1000]).repeat(11);
        assert_eq!(unpack(Encoding::Gzip, &members), None);
        assert_eq!(unpack(Encoding::Deflate, &zlib(&vec![0; 1 << 20])), None);
    }

    #[test]
    fn what_does_not_unpack_is_the_clients_fault() {
        let whole = gzip(b"a text that is long enough to be cut");
        let mut wrong_sum = whole.clone();
        let at = wrong_sum.len() - 6;
        wrong_sum[at] ^= 1;
        let junk_after = [whole.clone(), b"junk".to_vec()].concat();
        for (encoding, body) in [
            (Encoding::Gzip, &whole[..whole.len() - 9]),
            (Encoding::Gzip, &whole[..5]),
            (Encoding::Gzip, &wrong_sum),
            (Encoding::Gzip, &junk_after),
            (Encoding::Gzip, b""),
            (Encoding::Gzip, b"plain"),
            (Encoding::Deflate, b"\xff\xff\xff"),
            (Encoding::Deflate, &zlib(b"abc")[..4]),
        ] {
            let error = encoding.unpack(body, 10_000).unwrap_err();
            assert_eq!(error.kind(), Kind::BadRequest, "{encoding:?} {body:?}");
        }
    }
}
