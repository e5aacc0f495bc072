//! Recognizes the format of a picture, and limits its size.

use super::{Image, jpeg, png};
use crate::Error;

/// How large a picture may be, checked on its header before memory is taken for pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels: width times height. A progressive JPEG needs three times the memory and may have a third of this.
    pub max_pixels: u64,
    /// Most pixels of the width, and of the height.
    pub max_side: u32,
}

impl Default for Limits {
    /// 20 megapixels, which decode within the 128 MiB that a handler has unless its archive asks for more, and
    /// 16,384 per side. (Pillow refuses above 178,956,970 pixels.)
    fn default() -> Self {
        Self {
            max_pixels: 20_000_000,
            max_side: 16_384,
        }
    }
}

impl Limits {
    /// The error of a picture over the limits. `weight` multiplies the memory per pixel.
    pub(super) fn check(&self, width: u32, height: u32, weight: u64) -> Result<(), Error> {
        let (pixels, allowed) = (
            u64::from(width) * u64::from(height),
            self.max_pixels / weight,
        );
        if pixels > allowed {
            return Err(Error::too_large(format!(
                "the image has {width}x{height} pixels, the limit is {allowed} in all"
            )));
        }
        let side = width.max(height);
        if side > self.max_side {
            return Err(Error::too_large(format!(
                "the image has {width}x{height} pixels, the limit is {} per side",
                self.max_side
            )));
        }
        Ok(())
    }
}

/// Decodes a JPEG or PNG by its first bytes, within the default [`Limits`].
///
/// JPEG becomes gray or RGB; PNG becomes gray, gray with alpha, RGB or RGBA, 8 bits each (palettes are expanded, 16 bits are cut
/// to 8). Of an animated PNG the first picture counts.
///
/// # Errors
/// Unsupported media type for other formats, too large over a limit, bad request for a broken file.
///
/// ```
/// use handler_sdk::{ErrorKind, image};
///
/// let error = image::decode(b"GIF89a...").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::UnsupportedMediaType);
/// assert_eq!(error.message(), "the image is a GIF; this model reads JPEG and PNG");
/// ```
pub fn decode(bytes: &[u8]) -> Result<Image, Error> {
    decode_with(bytes, &Limits::default())
}

/// [`decode`] with other limits.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(bytes: &[u8], limits: &Limits) -> Result<Image, Error> {
    match bytes {
        [] => Err(Error::bad_request("the image is empty")),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes, limits),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png::decode(bytes, limits),
        _ => Err(unsupported(bytes)),
    }
}

fn unsupported(bytes: &[u8]) -> Error {
    let format = match bytes {
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'B', b'M', ..] => "a BMP",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "a TIFF",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "a WebP",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF or HEIF",
        _ => {
            let start = &bytes[..bytes.len().min(8)];
            return Error::unsupported_media_type(format!(
                "not an image: it starts with {start:02x?}; this model reads JPEG and PNG"
            ));
        }
    };
    Error::unsupported_media_type(format!(
        "the image is {format}; this model reads JPEG and PNG"
    ))
}
