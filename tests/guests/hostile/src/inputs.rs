//! Acts of `preprocess` alone: tensors that no host should take.

use handler_sdk::{Dtype, Error, Step, Tensor};

use crate::Order;

/// Rows of `x` as the model wants them.
pub fn honest(rows: u32) -> Result<Tensor, Error> {
    Tensor::from_vec("x", [rows, 16], vec![1.0f32; rows as usize * 16])
}

/// The step of the act; `None` if it is none of these.
pub fn step(order: &Order) -> Result<Option<Step>, Error> {
    let step = match order.act {
        "honest" => Step::infer(honest(1)?),
        "rows" => Step::infer(honest(order.number()?)?),
        "carry" => Step::infer(honest(1)?).with_carry(vec![0xff; order.number()? as usize]),
        "no-tensors" => Step::infer([]),
        "same-name" => Step::infer([honest(1)?, honest(1)?]),
        "axis-0" => Step::infer([honest(1)?, honest(2)?.renamed("z")]),
        "extra-tensor" => Step::infer([honest(1)?, honest(1)?.renamed("z")]),
        "many-tensors" => many(order.number()?)?,
        _ => match single(order)? {
            Some(tensor) => Step::infer(tensor),
            None => return Ok(None),
        },
    };
    Ok(Some(step))
}

fn many(count: u32) -> Result<Step, Error> {
    let tensor = |index: u32| honest(1).map(|tensor| tensor.renamed(format!("x{index}")));
    Ok(Step::infer(
        (0..count).map(tensor).collect::<Result<Vec<_>, _>>()?,
    ))
}

/// A tensor whose shape, dtype, name and bytes do not fit each other or the model.
fn single(order: &Order) -> Result<Option<Tensor>, Error> {
    let fp32 = |shape: Vec<u32>, bytes| Tensor::from_bytes("x", Dtype::Fp32, shape, vec![0; bytes]);
    Ok(Some(match order.act {
        "shape" => fp32(vec![1, 16], 60),
        "width" => fp32(vec![1, 15], 60),
        "overflow" => fp32(vec![u32::MAX; 8], 64),
        "wrap" => fp32(vec![0x8000_0000, 2, 0x8000_0000, 4, 1], 0),
        "rank" => fp32(vec![1; order.number()? as usize], 4),
        "scalar" => fp32(vec![], 4),
        "no-rows" => fp32(vec![0, 16], 0),
        "no-elements" => fp32(vec![1, 0], 0),
        "dtype" => Tensor::from_vec("x", [1, 16], [1i64; 16])?,
        "name" => honest(1)?.renamed(order.argument),
        "tensor-bytes" => huge(order.number()?),
        "booleans" => Tensor::from_bytes("x", Dtype::Boolean, [1, 16], vec![7; 16]),
        "strings-cut" => Tensor::from_bytes("x", Dtype::Bytes, [1, 1], vec![255; 8]),
        "strings-few" => Tensor::from_bytes("x", Dtype::Bytes, [1, 1000], vec![0; 8]),
        _ => return Ok(None),
    }))
}

/// A tensor that is consistent, and too large.
fn huge(bytes: u32) -> Tensor {
    Tensor::from_bytes("x", Dtype::Uint8, [1, bytes], vec![0; bytes as usize])
}
