//! PNG, by image-rs' `png`.

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Transformations};

use super::{Image, Limits};
use crate::Error;

/// Most bytes that the decoder may use beside the pixels, for its rows and for text chunks, which are skipped.
const OVERHEAD_BYTES: usize = 4 << 20;

/// Decodes to 8 bits per channel, palettes expanded.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Image, Error> {
    let limit = png::Limits {
        bytes: OVERHEAD_BYTES,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limit);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    let (width, height) = decoder
        .read_header_info()
        .map_err(|error| broken(&error))?
        .size();
    limits.check(width, height, 1)?;
    let mut reader = decoder.read_info().map_err(|error| broken(&error))?;
    let length = reader
        .output_buffer_size()
        .ok_or_else(|| Error::too_large("the PNG is too large"))?;
    let mut pixels = vec![0; length];
    let frame = reader
        .next_frame(&mut pixels)
        .map_err(|error| broken(&error))?;
    pixels.truncate(frame.buffer_size());
    Image::new(
        frame.width,
        frame.height,
        channels(frame.color_type),
        pixels,
    )
}

fn channels(color_type: ColorType) -> u8 {
    match color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Indexed => 3,
        ColorType::Rgba => 4,
    }
}

fn broken(error: &DecodingError) -> Error {
    match error {
        DecodingError::LimitsExceeded => {
            Error::too_large("the PNG needs more memory to decode than is allowed")
        }
        other => Error::bad_request(format!("the PNG is broken: {other}")),
    }
}
