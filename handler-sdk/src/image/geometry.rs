//! Resizing and cropping, with torchvision's rounding.

use fast_image_resize::images::{Image as Pixels, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Image;
use crate::Error;

impl Image {
    /// Scaled to `width` x `height`: bilinear and antialiased, as Pillow's `BILINEAR`.
    ///
    /// # Errors
    /// Internal, if a size is 0.
    pub fn resize(&self, width: u32, height: u32) -> Result<Self, Error> {
        if (width, height) == (self.width(), self.height()) {
            return Ok(self.clone());
        }
        if width == 0 || height == 0 {
            return Err(Error::internal(format!(
                "an image cannot be resized to {width}x{height}"
            )));
        }
        let kind = pixel_type(self.channels());
        let source = ImageRef::new(self.width(), self.height(), self.pixels(), kind)
            .map_err(|error| Error::internal(format!("resizing: {error}")))?;
        let mut scaled = Pixels::new(width, height, kind);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new()
            .resize(&source, &mut scaled, &options)
            .map_err(|error| Error::internal(format!("resizing: {error}")))?;
        Self::new(width, height, self.channels(), scaled.into_vec())
    }

    /// Scaled so that the shorter side is `side`, as torchvision's `Resize(side)`.
    ///
    /// # Errors
    /// Internal, if `side` is 0; too large, if the longer side would be over 65,535.
    pub fn resize_shorter_side(&self, side: u32) -> Result<Self, Error> {
        let (short, long) = (
            self.width().min(self.height()),
            self.width().max(self.height()),
        );
        let scaled = u64::from(side) * u64::from(long) / u64::from(short);
        let Ok(scaled) = u16::try_from(scaled).map(u32::from) else {
            return Err(Error::too_large(format!(
                "the image of {}x{} pixels is too narrow to be resized",
                self.width(),
                self.height()
            )));
        };
        if self.width() <= self.height() {
            self.resize(side, scaled)
        } else {
            self.resize(scaled, side)
        }
    }

    /// The middle `width` x `height`; where the picture is smaller it is padded with black, as torchvision does.
    ///
    /// # Errors
    /// Internal, if a size is 0.
    pub fn center_crop(&self, width: u32, height: u32) -> Result<Self, Error> {
        let channels = usize::from(self.channels());
        let mut pixels = vec![0; width as usize * height as usize * channels];
        let (columns, rows) = (overlap(self.width(), width), overlap(self.height(), height));
        let bytes = columns.length * channels;
        for row in 0..rows.length {
            let from = ((rows.from + row) * self.width() as usize + columns.from) * channels;
            let to = ((rows.to + row) * width as usize + columns.to) * channels;
            pixels[to..to + bytes].copy_from_slice(&self.pixels()[from..from + bytes]);
        }
        Self::new(width, height, self.channels(), pixels)
    }
}

/// Which pixels of one axis are copied, and where to.
struct Overlap {
    from: usize,
    to: usize,
    length: usize,
}

fn overlap(have: u32, want: u32) -> Overlap {
    let (have, want) = (have as usize, want as usize);
    if have >= want {
        Overlap {
            from: half_to_even(have - want),
            to: 0,
            length: want,
        }
    } else {
        Overlap {
            from: 0,
            to: (want - have) / 2,
            length: have,
        }
    }
}

/// Half of `number` as Python rounds it: 1 → 0, 3 → 2, 5 → 2, 7 → 4.
fn half_to_even(number: usize) -> usize {
    let half = number / 2;
    if number.is_multiple_of(2) {
        half
    } else {
        half + half % 2
    }
}

fn pixel_type(channels: u8) -> PixelType {
    match channels {
        1 => PixelType::U8,
        2 => PixelType::U8x2,
        3 => PixelType::U8x3,
        _ => PixelType::U8x4,
    }
}
