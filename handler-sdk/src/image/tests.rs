use std::collections::BTreeMap;

use super::*;
use crate::ErrorKind;

/// Decoders may round differently; chroma that was halved is smoothed differently.
const JPEG_TOLERANCE: u8 = 3;
const SUBSAMPLED_TOLERANCE: u8 = 12;

macro_rules! fixture {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../tests/images/", $name)).as_slice(),
        )
    };
}

const PNGS: [(&str, &[u8]); 7] = [
    fixture!("rgb.png"),
    fixture!("gray.png"),
    fixture!("rgba.png"),
    fixture!("gray_alpha.png"),
    fixture!("palette.png"),
    fixture!("bilevel.png"),
    fixture!("gray16.png"),
];

const JPEGS: [(&str, &[u8]); 5] = [
    fixture!("rgb.jpg"),
    fixture!("subsampled.jpg"),
    fixture!("progressive.jpg"),
    fixture!("gray.jpg"),
    fixture!("cmyk.jpg"),
];

#[derive(serde::Deserialize)]
struct Expected {
    width: u32,
    height: u32,
    channels: u8,
    pixels: String,
}

/// What Pillow made of `name`.
fn pillow(name: &str) -> Image {
    let json = include_str!("../../tests/images/expected.json");
    let mut all: BTreeMap<String, Expected> = serde_json::from_str(json).unwrap();
    let expected = all.remove(name).unwrap();
    let hex = expected.pixels.as_bytes().chunks_exact(2);
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16);
    let pixels = hex.map(byte).collect::<Result<_, _>>().unwrap();
    Image::new(expected.width, expected.height, expected.channels, pixels).unwrap()
}

/// The largest difference of two pictures of one size.
fn difference(one: &Image, other: &Image) -> u8 {
    let size = |image: &Image| (image.width, image.height, image.channels);
    assert_eq!(size(one), size(other));
    let pairs = one.pixels.iter().zip(&other.pixels);
    pairs
        .map(|(one, other)| one.abs_diff(*other))
        .max()
        .unwrap()
}

#[test]
fn every_kind_of_png_is_decoded_exactly() {
    for (name, bytes) in PNGS {
        assert!(decode(bytes).unwrap() == pillow(name), "{name}");
    }
}

#[test]
fn every_kind_of_jpeg_is_decoded_as_pillow_does() {
    for (name, bytes) in JPEGS {
        let tolerance = if name.starts_with("sub") {
            SUBSAMPLED_TOLERANCE
        } else {
            JPEG_TOLERANCE
        };
        let largest = difference(&decode(bytes).unwrap(), &pillow(name));
        assert!(largest <= tolerance, "{name}: {largest}");
    }
}

#[test]
fn gray_and_resizing_are_pillows() {
    let image = pillow("rgb.png");
    assert_eq!(difference(&image.to_gray(), &pillow("gray of rgb.png")), 0);
    let small = image.resize(10, 12).unwrap();
    assert!(difference(&small, &pillow("resized 10x12")) <= 1);
    let large = image.resize(37, 31).unwrap();
    assert!(difference(&large, &pillow("resized 37x31")) <= 1);
}

#[test]
fn limits_are_checked_on_the_header_alone() {
    let limits = Limits {
        max_pixels: 431,
        max_side: 1000,
    };
    for (name, bytes) in [PNGS[0], JPEGS[0]] {
        // Cut off: missing pixels would be noticed if they were read.
        let error = decode_with(&bytes[..bytes.len() - 60], &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
        assert_eq!(
            error.message(),
            "the image has 24x18 pixels, the limit is 431 in all"
        );
    }
    let narrow = Limits {
        max_pixels: 10_000,
        max_side: 23,
    };
    for (name, bytes) in [PNGS[0], JPEGS[0]] {
        let error = decode_with(bytes, &narrow).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
    }
}

#[test]
fn progressive_jpeg_has_a_third_of_the_pixels() {
    let limits = Limits {
        max_pixels: 2 * 432,
        max_side: 1000,
    };
    assert!(decode_with(JPEGS[0].1, &limits).is_ok());
    let error = decode_with(JPEGS[2].1, &limits).unwrap_err();
    assert_eq!(
        error.message(),
        "the image has 24x18 pixels, the limit is 288 in all"
    );
}

#[test]
fn a_header_that_promises_gigapixels_costs_nothing() {
    let mut png = PNGS[0].1.to_vec();
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let error = decode(&png).unwrap_err();
    assert_eq!(
        error.message(),
        "the image has 65536x65536 pixels, the limit is 20000000 in all"
    );
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        (0..8).fold(crc ^ u32::from(byte), shift)
    })
}

#[test]
fn cut_and_corrupt_files_are_errors_and_never_panics() {
    for (name, bytes) in PNGS.into_iter().chain(JPEGS) {
        let whole = decode(bytes).unwrap();
        for length in 0..bytes.len() {
            // All pixels may be there without the last checksums and markers.
            let image = decode(&bytes[..length]);
            let is_honest =
                image.is_err() || (image == Ok(whole.clone()) && length + 24 > bytes.len());
            assert!(is_honest, "{name} cut to {length} of {}", bytes.len());
        }
        for position in 0..bytes.len() {
            let mut corrupt = bytes.to_vec();
            corrupt[position] ^= 0x5a;
            // Some changes leave a valid file; what counts is that an answer comes.
            drop(decode(&corrupt));
        }
    }
}

#[test]
fn foreign_formats_are_named() {
    for (bytes, message) in [
        (
            &b"RIFF\0\0\0\0WEBPVP8 "[..],
            "the image is a WebP; this model reads JPEG and PNG",
        ),
        (
            b"BM....",
            "the image is a BMP; this model reads JPEG and PNG",
        ),
        (
            b"{}",
            "not an image: it starts with [7b, 7d]; this model reads JPEG and PNG",
        ),
    ] {
        let error = decode(bytes).unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::UnsupportedMediaType, message)
        );
    }
    assert_eq!(decode(b"").unwrap_err().kind(), ErrorKind::BadRequest);
}

#[test]
fn crops_take_the_middle_and_pad_with_black() {
    let image = Image::new(3, 1, 1, vec![1, 2, 3]).unwrap();
    assert_eq!(image.center_crop(1, 1).unwrap().pixels, [2]);
    assert_eq!(image.center_crop(2, 1).unwrap().pixels, [1, 2]);
    assert_eq!(image.center_crop(5, 1).unwrap().pixels, [0, 1, 2, 3, 0]);
    assert_eq!(image.center_crop(1, 3).unwrap().pixels, [0, 2, 0]);
    assert!(image.center_crop(0, 1).is_err());
}

#[test]
fn the_shorter_side_decides() {
    let image = Image::new(40, 30, 1, vec![0; 1200]).unwrap();
    let resized = image.resize_shorter_side(15).unwrap();
    assert_eq!((resized.width, resized.height), (20, 15));
    let line = Image::new(1, 300, 1, vec![0; 300]).unwrap();
    assert_eq!(
        line.resize_shorter_side(256).unwrap_err().kind(),
        ErrorKind::TooLarge
    );
}

#[test]
fn transparency_is_flattened_or_dropped() {
    let image = Image::new(2, 1, 4, vec![10, 20, 30, 0, 10, 20, 30, 255]).unwrap();
    assert_eq!(image.flatten(255).pixels, [255, 255, 255, 10, 20, 30]);
    assert_eq!(image.to_rgb().pixels, [10, 20, 30, 10, 20, 30]);
    assert_eq!(
        image.invert().pixels,
        [245, 235, 225, 0, 245, 235, 225, 255]
    );
}

#[test]
fn tensors_are_planes_of_normalized_values() {
    let image = Image::new(2, 1, 3, vec![0, 51, 255, 255, 102, 0]).unwrap();
    let tensor = image
        .to_tensor_chw("x", &[0.0, 0.5, 0.0], &[1.0, 0.5, 1.0])
        .unwrap();
    assert_eq!(tensor.shape(), [1, 3, 1, 2]);
    let values = tensor.view::<f32>().unwrap();
    for (value, expected) in values.iter().zip([0.0, 1.0, -0.6, -0.2, 1.0, 0.0]) {
        assert!((value - expected).abs() < 1e-6, "{values:?}");
    }
    assert!(image.to_tensor_chw("x", &[0.0], &[1.0]).is_err());
}
