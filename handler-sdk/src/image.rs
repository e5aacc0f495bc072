//! Pictures: decoding JPEG and PNG, color, geometry, and tensors.
//!
//! Owns 8-bit pixels in rows of interleaved channels and the limits of decoding. Arithmetic follows Pillow and
//! torchvision, with which most models were trained: gray is ITU-R 601, resizing is antialiased, alpha is dropped unless
//! [`Image::flatten`] is asked for, and the orientation noted by a camera is not applied.

mod decode;
mod geometry;
mod jpeg;
mod png;

pub use decode::{Limits, decode, decode_with};

use crate::{Error, Tensor};

/// A picture in memory.
///
/// ```
/// use handler_sdk::image::Image;
///
/// let image = Image::new(2, 1, 3, vec![255, 0, 0, 255, 255, 255])?;
/// assert_eq!(image.to_gray().pixels(), [76, 255]);
/// # Ok::<(), handler_sdk::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    channels: u8,
    pixels: Vec<u8>,
}

impl Image {
    /// A picture of `pixels`, row by row. `channels` is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).
    ///
    /// # Errors
    /// Internal, if a size is 0, `channels` is another number or the pixels are too few or too many.
    pub fn new(width: u32, height: u32, channels: u8, pixels: Vec<u8>) -> Result<Self, Error> {
        let expected = u64::from(width) * u64::from(height) * u64::from(channels);
        let is_valid = expected == pixels.len() as u64 && expected > 0 && channels <= 4;
        if !is_valid {
            let length = pixels.len();
            return Err(Error::internal(format!(
                "an image of {width}x{height} with {channels} channels is not {length} bytes"
            )));
        }
        Ok(Self {
            width,
            height,
            channels,
            pixels,
        })
    }

    /// Pixels per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Bytes per pixel: 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// All bytes, row by row, channels interleaved.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// One channel, by Pillow's weights (299, 587 and 114 thousandths). Alpha is dropped.
    #[must_use]
    pub fn to_gray(&self) -> Self {
        match self.channels {
            1 => self.clone(),
            2 => self.mapped(1, |pixel, out| out.push(pixel[0])),
            _ => self.mapped(1, |pixel, out| out.push(luma(pixel))),
        }
    }

    /// Three channels. Alpha is dropped.
    #[must_use]
    pub fn to_rgb(&self) -> Self {
        match self.channels {
            3 => self.clone(),
            4 => self.mapped(3, |pixel, out| out.extend_from_slice(&pixel[..3])),
            _ => self.mapped(3, |pixel, out| out.extend_from_slice(&[pixel[0]; 3])),
        }
    }

    /// Without alpha: blended over a plain `background` level, as the picture looks on paper of that color.
    #[must_use]
    pub fn flatten(&self, background: u8) -> Self {
        if !matches!(self.channels, 2 | 4) {
            return self.clone();
        }
        self.mapped(self.channels - 1, |pixel, out| {
            if let Some((&alpha, colors)) = pixel.split_last() {
                out.extend(colors.iter().map(|&color| blend(color, background, alpha)));
            }
        })
    }

    /// The negative: 255 minus every channel except alpha.
    #[must_use]
    pub fn invert(mut self) -> Self {
        let channels = usize::from(self.channels);
        let colors = if matches!(channels, 2 | 4) {
            channels - 1
        } else {
            channels
        };
        for pixel in self.pixels.chunks_exact_mut(channels) {
            pixel[..colors]
                .iter_mut()
                .for_each(|color| *color = 255 - *color);
        }
        self
    }

    /// An fp32 tensor `[1, channels, height, width]` of `(value / 255 - mean) / deviation`, per channel.
    ///
    /// `mean` and `deviation` have one number per channel; `&[0.0]` and `&[1.0]` leave gray in 0..1.
    ///
    /// # Errors
    /// Internal, if they have another length.
    pub fn to_tensor_chw(
        &self,
        name: &str,
        mean: &[f32],
        deviation: &[f32],
    ) -> Result<Tensor, Error> {
        let channels = usize::from(self.channels);
        if mean.len() != channels || deviation.len() != channels {
            return Err(Error::internal(format!(
                "{} means and {} deviations for an image of {channels} channels",
                mean.len(),
                deviation.len()
            )));
        }
        let shape = [1, u32::from(self.channels), self.height, self.width];
        Tensor::build(name, shape, |out: &mut [f32]| {
            let planes = out.chunks_exact_mut(self.pixels.len() / channels);
            for (channel, plane) in planes.enumerate() {
                let scale = 1.0 / (255.0 * deviation[channel]);
                let offset = -mean[channel] / deviation[channel];
                fill_plane(plane, &self.pixels[channel..], channels, scale, offset);
            }
            Ok(())
        })
    }

    fn mapped(&self, channels: u8, convert: impl Fn(&[u8], &mut Vec<u8>)) -> Self {
        let count = self.pixels.len() / usize::from(self.channels);
        let mut pixels = Vec::with_capacity(count * usize::from(channels));
        for pixel in self.pixels.chunks_exact(usize::from(self.channels)) {
            convert(pixel, &mut pixels);
        }
        Self {
            width: self.width,
            height: self.height,
            channels,
            pixels,
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Image({}x{}x{})",
            self.width, self.height, self.channels
        )
    }
}

/// Every `step`th of `values`, scaled.
fn fill_plane(plane: &mut [f32], values: &[u8], step: usize, scale: f32, offset: f32) {
    for (out, &value) in plane.iter_mut().zip(values.iter().step_by(step)) {
        *out = f32::from(value) * scale + offset;
    }
}

fn luma(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    let sum = red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000;
    u8::try_from(sum >> 16).unwrap_or(u8::MAX)
}

fn blend(color: u8, background: u8, alpha: u8) -> u8 {
    let [color, background, alpha] = [color, background, alpha].map(u32::from);
    let sum = color * alpha + background * (255 - alpha) + 127;
    u8::try_from(sum / 255).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
