//! Compression of responses: what a client takes, and how it is done.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::HeaderMap;
use hyper::header::{self, HeaderValue};

use crate::error::{Error, Kind};

/// How a response is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// `gzip`.
    Gzip,
    /// `deflate`, which is zlib's format.
    Deflate,
}

impl Coding {
    /// The value of `Content-Encoding`.
    pub(super) const fn name(self) -> HeaderValue {
        match self {
            Self::Gzip => HeaderValue::from_static("gzip"),
            Self::Deflate => HeaderValue::from_static("deflate"),
        }
    }

    /// A body of these pieces, compressed.
    pub(super) fn pack(self, pieces: &[&Bytes]) -> Result<Bytes, Error> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let room = Vec::with_capacity(length / 2 + 64);
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(room, Compression::fast());
                let mut written = pieces.iter().map(|piece| encoder.write_all(piece));
                written
                    .try_for_each(|piece| piece)
                    .and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(room, Compression::fast());
                let mut written = pieces.iter().map(|piece| encoder.write_all(piece));
                written
                    .try_for_each(|piece| piece)
                    .and_then(|()| encoder.finish())
            }
        };
        packed.map(Bytes::from).map_err(|error| {
            Error::new(Kind::Internal, "The response could not be compressed").with_detail(error)
        })
    }
}

/// What the client likes best of what it names in `Accept-Encoding`; of equals the first of gzip, deflate and none. A
/// client that names none of the two gets neither.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let mut weights = [0u16; 3];
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let named = values.filter_map(|value| value.to_str().ok());
    for named in named.flat_map(|value| value.split(',')) {
        let (name, weight) = weighed(named);
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => weights[0] = weight,
            "deflate" => weights[1] = weight,
            "identity" => weights[2] = weight,
            _ => {}
        }
    }
    let [gzip, deflate, identity] = weights;
    match gzip.max(deflate) {
        0 => None,
        best if identity > best => None,
        best if gzip == best => Some(Coding::Gzip),
        _ => Some(Coding::Deflate),
    }
}

/// A coding and its weight in thousandths; what is no weight counts as none.
fn weighed(named: &str) -> (&str, u16) {
    let mut pieces = named.split(';').map(str::trim);
    let name = pieces.next().unwrap_or("");
    let weight = pieces.find_map(|piece| piece.strip_prefix("q=").or(piece.strip_prefix("Q=")));
    let Some(weight) = weight else {
        return (name, 1000);
    };
    let weight = weight.parse::<f32>().ok();
    let weight = weight.filter(|weight| (0.0..=1.0).contains(weight));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1000"
    )]
    let thousandths = weight.map_or(0, |weight| (weight * 1000.0) as u16);
    (name, thousandths)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn choice(value: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
        accepted(&headers)
    }

    #[test]
    fn the_client_chooses() {
        assert_eq!(accepted(&HeaderMap::new()), None);
        for (value, coding) in [
            ("", None),
            ("identity", None),
            ("br", None),
            ("*", None),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("deflate, gzip", Some(Coding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.8", Some(Coding::Deflate)),
            ("gzip;q=0.5, identity;q=0.8", None),
            ("gzip;q=0, deflate;q=0", None),
            ("gzip;q=x", None),
            ("gzip;q=7", None),
            ("gzip;q=NaN", None),
            (" br , gzip ; q=0.1", Some(Coding::Gzip)),
        ] {
            assert_eq!(choice(value), coding, "{value:?}");
        }
    }

    #[test]
    fn what_is_packed_unpacks() {
        let body = b"tensors ".repeat(1000);
        let pieces = [&body[..10], &[], &body[10..]].map(Bytes::copy_from_slice);
        let pieces: Vec<_> = pieces.iter().collect();
        let gzip = Coding::Gzip.pack(&pieces).unwrap();
        let deflate = Coding::Deflate.pack(&pieces).unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, body);
        unpacked.clear();
        flate2::read::ZlibDecoder::new(&deflate[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, body);
    }
}
