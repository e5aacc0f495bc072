//! Bytes in and out around one big tensor: raw little-endian fp32 elements to an input, the first output's bytes back.
//!
//! Nothing is parsed, so that benchmarks measure how bytes are moved. Settings: `handler: {input: NAME, shape: [..]}`,
//! the shape without the batch axis; a request has one row or several.

use handler_sdk::{Context, Dtype, Error, Handler, Outputs, Request, Response, Step, Tensor};
use serde::Deserialize;

/// Name and shape of the model's input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    input: String,
    shape: Vec<u32>,
}

impl Raw {
    /// Bytes of one row; `None` for a row of none, or of more than an address space.
    fn row(&self) -> Option<usize> {
        let mut sizes = self.shape.iter().map(|&size| usize::try_from(size).ok());
        let bytes = sizes.try_fold(size_of::<f32>(), |bytes, size| bytes.checked_mul(size?));
        bytes.filter(|&bytes| bytes > 0)
    }

    fn rows(&self, length: usize) -> Result<u32, Error> {
        let row = self.row().ok_or_else(|| wrong_shape(&self.shape))?;
        let rows = u32::try_from(length / row).unwrap_or(0);
        if rows == 0 || !length.is_multiple_of(row) {
            return Err(Error::bad_request(format!(
                "the body has {length} bytes; expected rows of {row} bytes, fp32 {:?}",
                self.shape
            )));
        }
        Ok(rows)
    }
}

fn wrong_shape(shape: &[u32]) -> Error {
    Error::internal(format!(
        "model-config.yaml, `handler`: shape {shape:?} has no elements or too many"
    ))
}

impl Handler for Raw {
    fn init(context: &Context) -> Result<Self, Error> {
        let raw: Self = context.settings()?;
        match raw.row() {
            Some(_) => Ok(raw),
            None => Err(wrong_shape(&raw.shape)),
        }
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let bytes = request.into_bytes()?;
        let shape = [&[self.rows(bytes.len())?], self.shape.as_slice()].concat();
        Ok(Step::infer(Tensor::from_bytes(
            self.input.as_str(),
            Dtype::Fp32,
            shape,
            bytes,
        )))
    }

    fn postprocess(&self, outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        let first = outputs.iter().next();
        let first = first.ok_or_else(|| Error::internal("the model has no outputs"))?;
        Ok(Response::bytes("application/octet-stream", first.bytes()))
    }
}

handler_sdk::export!(Raw);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing::{self, Host};
    use serde_json::json;

    use super::*;

    fn pairs() -> Raw {
        let settings = json!({"input": "x", "shape": [1, 2]});
        Host::new().settings(settings).init().unwrap()
    }

    #[test]
    fn bytes_become_rows() {
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        let step = pairs().preprocess(testing::request(bytes)).unwrap();
        let (inputs, _) = testing::inferred(step);
        assert_eq!((inputs[0].name(), inputs[0].shape()), ("x", &[2, 1, 2][..]));
        assert_eq!(inputs[0].view::<f32>().unwrap()[..], [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn what_is_not_rows_is_named() {
        for length in [0, 7, 12] {
            let step = pairs().preprocess(testing::request(vec![0; length]));
            let expected =
                format!("the body has {length} bytes; expected rows of 8 bytes, fp32 [1, 2]");
            assert_eq!(step.unwrap_err().message(), expected);
        }
    }

    #[test]
    fn shapes_without_elements_or_with_too_many_do_not_load() {
        for shape in [vec![0], vec![u32::MAX; 3]] {
            let settings = json!({"input": "x", "shape": shape});
            let raw = Host::new().settings(settings).init::<Raw>();
            assert!(raw.err().unwrap().message().contains("shape ["));
        }
    }

    #[test]
    fn the_first_output_comes_back_as_bytes() {
        let y = Tensor::from_vec("y", [1, 1], [1.5f32]).unwrap();
        let response = pairs().postprocess(vec![y].into(), &[]).unwrap();
        assert_eq!(response.body(), 1.5f32.to_le_bytes());
    }
}
