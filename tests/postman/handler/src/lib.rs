//! Stands for a model that TorchServe's collections register: any body becomes one row for `tests/fixtures/linear.onnx`, and
//! once that model has run, the answer is a file of the archive.
//!
//! Settings: `handler: {answer: FILE, media_type: TYPE}`.

use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step, Tensor, assets};
use serde::Deserialize;

/// Numbers per row of the model's input `x`.
const WIDTH: usize = 16;

/// The section `handler:` of model-config.yaml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    answer: String,
    media_type: String,
}

/// The answer, read once per instance.
pub struct StandIn {
    media_type: String,
    answer: Vec<u8>,
}

impl Handler for StandIn {
    fn init(context: &Context) -> Result<Self, Error> {
        let settings: Settings = context.settings()?;
        Ok(Self {
            answer: assets::read(&settings.answer)?,
            media_type: settings.media_type,
        })
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let x = Tensor::from_vec("x", [1, 16], row(request.bytes()?))?;
        Ok(Step::infer(x))
    }

    fn postprocess(&self, outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        outputs.get("y")?;
        Ok(Response::bytes(
            self.media_type.as_str(),
            self.answer.as_slice(),
        ))
    }
}

handler_sdk::export!(StandIn);

/// The body's first bytes, and zeros where it is shorter.
fn row(body: &[u8]) -> [f32; WIDTH] {
    std::array::from_fn(|index| body.get(index).copied().map_or(0.0, f32::from))
}
