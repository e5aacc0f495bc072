//! Classifies a picture of one handwritten digit.
//!
//! A PNG or JPEG of any size becomes the model's input `image`, fp32 `[1, 1, 28, 28]`, white on black in 0..1; the output
//! `logits` becomes `{"7": 0.98, ..}`, as TorchServe's image classifier answers.

use handler_sdk::image::{self, Image};
use handler_sdk::{
    Context, Description, Error, Handler, Labels, Outputs, Request, Response, Step, classification,
    softmax,
};
use serde::{Deserialize, Serialize};

/// Pixels per side of the model's input.
const SIDE: u32 = 28;
/// Classes that the model tells apart.
const CLASSES: usize = 10;

/// The section `handler:` of model-config.yaml.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Classes in an answer.
    topk: usize,
}

impl Default for Settings {
    /// As many classes as TorchServe's image classifier answers with.
    fn default() -> Self {
        Self { topk: 5 }
    }
}

/// The description of the model, shown as `customizedMetadata`.
#[derive(Serialize)]
struct Facts<'a> {
    /// Names of the classes, by index.
    classes: Vec<std::borrow::Cow<'a, str>>,
    /// Pixels per side of the pictures that the model sees.
    side: u32,
    topk: usize,
}

/// The settings and the names of the classes, read once per instance.
pub struct Digits {
    settings: Settings,
    labels: Labels,
}

impl Handler for Digits {
    fn init(context: &Context) -> Result<Self, Error> {
        Ok(Self {
            settings: context.settings()?,
            labels: Labels::from_assets()?,
        })
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        // Transparent pixels become white, as on paper, before the brightness of the border is measured.
        let picture = white_on_black(image::decode(request.bytes()?)?.flatten(255).to_gray());
        Ok(Step::infer(picture.resize(SIDE, SIDE)?.to_tensor_chw(
            "image",
            &[0.0],
            &[1.0],
        )?))
    }

    fn postprocess(&self, outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        let probabilities = softmax(outputs.get("logits")?.view::<f32>()?.row(0));
        Response::json_pretty(&classification(
            &probabilities,
            &self.labels,
            self.settings.topk,
        ))
    }

    fn describe(&self) -> Result<Description, Error> {
        Description::json(&Facts {
            classes: (0..CLASSES).map(|index| self.labels.name(index)).collect(),
            side: SIDE,
            topk: self.settings.topk,
        })
    }
}

handler_sdk::export!(Digits);

/// Inverts a gray picture if its border is bright: ink on paper is dark on white, and the model was trained on the opposite.
fn white_on_black(picture: Image) -> Image {
    if border_brightness(&picture) > 127 {
        picture.invert()
    } else {
        picture
    }
}

/// The mean of the outermost pixels, 0 to 255.
fn border_brightness(picture: &Image) -> u64 {
    let (width, pixels) = (picture.width() as usize, picture.pixels());
    let ends = [&pixels[..width], &pixels[pixels.len() - width..]]
        .into_iter()
        .flatten();
    let sides = pixels
        .chunks_exact(width)
        .flat_map(|row| [&row[0], &row[width - 1]]);
    let (sum, count) = ends.chain(sides).fold((0, 0), |(sum, count), &pixel| {
        (sum + u64::from(pixel), count + 1)
    });
    sum / count
}

#[cfg(test)]
mod tests;
