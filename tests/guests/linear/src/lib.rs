//! JSON in and out around one small matrix: `{"x": [16 numbers]}` to tensor `x`, tensor `y` to `{"y": [..]}`.
//!
//! The benchmark handler: what it costs is what any handler costs at least. Numbers are parsed straight into one
//! vector and printed straight from the output's bytes.

mod input;

use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step, Tensor};
use serde::Serialize;

use input::Rows;

/// Numbers per row of `x`.
const WIDTH: usize = 16;

/// A handler without state.
pub struct Linear;

impl Handler for Linear {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let rows: Rows = request.json()?;
        let x = Tensor::from_vec("x", [rows.count(WIDTH)?, 16], &rows.values)?;
        Ok(Step::infer(x).with_carry([u8::from(rows.is_nested)]))
    }

    fn postprocess(&self, outputs: Outputs, carry: &[u8]) -> Result<Response, Error> {
        let y = outputs.get("y")?.view::<f32>()?;
        let y = if carry == [1] {
            Y::Rows(y.rows().collect())
        } else {
            Y::Row(&y)
        };
        Response::json(&Answer { y })
    }
}

/// The response's JSON.
#[derive(Serialize)]
struct Answer<'a> {
    y: Y<'a>,
}

/// In the form in which the request gave `x`.
#[derive(Serialize)]
#[serde(untagged)]
enum Y<'a> {
    Row(&'a [f32]),
    Rows(Vec<&'a [f32]>),
}

handler_sdk::export!(Linear);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing;

    use super::*;

    const ROW: &str = "[0,-1,2.5,3,4,5,6,7,8,9,10,11,12,13,14,1e1]";

    fn shape(body: &str) -> Vec<u32> {
        let step = Linear.preprocess(testing::request(body)).unwrap();
        testing::inferred(step).0[0].shape().to_vec()
    }

    #[test]
    fn one_row_comes_with_and_without_its_name() {
        assert_eq!(shape(&format!("{{\"x\": {ROW}}}")), [1, 16]);
        assert_eq!(shape(&format!("{{\"note\": {{}}, \"x\": {ROW}}}")), [1, 16]);
        assert_eq!(shape(ROW), [1, 16]);
        let (inputs, _) = testing::inferred(Linear.preprocess(testing::request(ROW)).unwrap());
        assert_eq!(inputs[0].view::<f32>().unwrap()[..4], [0.0, -1.0, 2.5, 3.0]);
    }

    #[test]
    fn several_rows_come_back_as_rows() {
        let body = format!("{{\"x\": [{ROW}, {ROW}]}}");
        let (inputs, carry) = testing::inferred(Linear.preprocess(testing::request(body)).unwrap());
        assert_eq!(inputs[0].shape(), [2, 16]);
        let y = Tensor::from_vec("y", [2, 2], [0.5f32, 1.0, 2.0, 3.0]).unwrap();
        let response = Linear.postprocess(vec![y].into(), &carry).unwrap();
        assert_eq!(response.body(), b"{\"y\":[[0.5,1.0],[2.0,3.0]]}");
    }

    #[test]
    fn wrong_documents_say_what_is_expected() {
        for (body, reason) in [
            ("{}", "missing field `x`"),
            ("7", "expected {\"x\": [16 numbers]}"),
            ("[1, 2]", "`x` has 2 numbers, not rows of 16"),
            ("[]", "`x` has 0 numbers"),
            ("[[1, 2]]", "invalid length 2, expected a row of 16 numbers"),
            ("[1, [2]]", "a list between numbers"),
            ("[true]", "expected a number, or a list of 16 numbers"),
            (
                "{\"x\": \"1\"}",
                "expected a list of 16 numbers, or of such lists",
            ),
        ] {
            let error = Linear.preprocess(testing::request(body)).unwrap_err();
            assert!(error.message().contains(reason), "{body}: {error}");
        }
    }
}
