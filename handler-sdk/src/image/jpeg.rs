//! JPEG, by zune-jpeg.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::{Image, Limits};
use crate::Error;

/// How much more memory a progressive file takes: the coefficients of all blocks beside the pixels.
const PROGRESSIVE_WEIGHT: u64 = 3;

/// The end-of-image marker.
const END: [u8; 2] = [0xff, 0xd9];

/// Decodes to gray or RGB. A file that is cut off is an error, not a half-gray picture.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Image, Error> {
    // The decoder's own limits are off: those of the caller are checked before pixels are decoded.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let (width, height, colors) = check_header(bytes, options, limits)?;
    if !bytes.windows(2).rev().any(|pair| pair == END) {
        return Err(Error::bad_request(
            "the JPEG is cut off: it has no end marker",
        ));
    }
    let options = options.jpeg_set_out_colorspace(colors);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().map_err(|error| broken(&error))?;
    let channels = if colors == ColorSpace::Luma { 1 } else { 3 };
    Image::new(width, height, channels, pixels)
}

/// Checks the limits, and chooses the color space to decode to.
fn check_header(
    bytes: &[u8],
    options: DecoderOptions,
    limits: &Limits,
) -> Result<(u32, u32, ColorSpace), Error> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| broken(&error))?;
    let info = decoder
        .info()
        .ok_or_else(|| Error::bad_request("the JPEG has no header"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let weight = if info.sof.is_sequential_dct() {
        1
    } else {
        PROGRESSIVE_WEIGHT
    };
    limits.check(width, height, weight)?;
    let colors = if info.components == 1 {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    Ok((width, height, colors))
}

fn broken(error: &DecodeErrors) -> Error {
    match error {
        DecodeErrors::Unsupported(scheme) => {
            Error::unsupported_media_type(format!("this kind of JPEG is not read: {scheme:?}"))
        }
        other => Error::bad_request(format!("the JPEG is broken: {other:?}")),
    }
}
