//! Samples that a model is tried out with: from its archive, or made up from its signature.
//!
//! A file of samples is a JSON array of requests, each an object of the model's inputs by name:
//! `[{"x": {"dtype": "fp32", "shape": [1, 2], "data": [0.5, 2]}}, …]`, elements flat and row-major.

use std::path::Path;

use bytes::{BufMut as _, BytesMut};
use serde_json::Value;

use crate::backend::Signature;
use crate::model::{Arity, TensorSpec};
use crate::tensor::{DType, NamedTensor, Tensor};

/// This many are stacked in different orders.
const NEEDED: usize = 3;
/// At most this many are read.
const MOST: usize = 16;
/// A file of samples has at most this many bytes.
const FILE_LIMIT: u64 = 16 << 20;
/// An input that is made up has at most this many bytes.
const INPUT_LIMIT: usize = 64 << 20;

/// The sizes of axes other than axis 0 where they vary, in the order in which they are tried: those of a sentence, a small
/// picture and a usual one.
pub(super) const FREE_AXES: [usize; 3] = [8, 64, 224];

/// Inputs of one request, in the model's order.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Rows on axis 0.
    pub(super) rows: usize,
    pub(super) inputs: Vec<NamedTensor>,
}

/// Reads the archive's samples; none if it names no file. The error says what is wrong with them.
pub(super) fn read(file: Option<&Path>, signature: &Signature) -> Result<Vec<Sample>, String> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let name = file.file_name().unwrap_or_default().display();
    let broken = |reason: &dyn std::fmt::Display| format!("samples {name}: {reason}");
    let length = std::fs::metadata(file)
        .map_err(|error| broken(&error))?
        .len();
    if length > FILE_LIMIT {
        return Err(broken(&format!(
            "{length} bytes, at most {FILE_LIMIT} are read"
        )));
    }
    let text = std::fs::read(file).map_err(|error| broken(&error))?;
    let samples = parse(&text, signature).map_err(|reason| broken(&reason))?;
    let samples = first_that_stack(samples);
    if samples.len() < NEEDED {
        let count = samples.len();
        return Err(broken(&format!(
            "{count} requests that differ and stack with the first, {NEEDED} are needed"
        )));
    }
    Ok(samples)
}

/// The first request, and the next ones that differ from all before and stack with it, as many as are needed.
fn first_that_stack(samples: Vec<Sample>) -> Vec<Sample> {
    let mut kept: Vec<Sample> = Vec::with_capacity(NEEDED);
    for sample in samples {
        let differs = kept
            .iter()
            .all(|other| contents(other) != contents(&sample));
        let stacks = kept
            .first()
            .is_none_or(|first| stack_together(first, &sample));
        if kept.len() < NEEDED && differs && stacks {
            kept.push(sample);
        }
    }
    kept
}

fn stack_together(one: &Sample, two: &Sample) -> bool {
    let fits = |(one, two): (&NamedTensor, &NamedTensor)| {
        Tensor::stack(&[&one.tensor, &two.tensor]).is_ok()
    };
    one.inputs.len() == two.inputs.len() && one.inputs.iter().zip(&two.inputs).all(fits)
}

fn contents(sample: &Sample) -> Vec<&[u8]> {
    sample
        .inputs
        .iter()
        .map(|input| &input.tensor.data()[..])
        .collect()
}

fn parse(text: &[u8], signature: &Signature) -> Result<Vec<Sample>, String> {
    let json: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let requests = json.as_array().ok_or("must be an array of requests")?;
    let samples = requests.iter().take(MOST).enumerate();
    samples
        .map(|(index, request)| {
            sample(request, signature).map_err(|reason| format!("request {index}: {reason}"))
        })
        .collect()
}

fn sample(request: &Value, signature: &Signature) -> Result<Sample, String> {
    let inputs = request
        .as_object()
        .ok_or("must be an object of inputs by name")?;
    let inputs: Vec<NamedTensor> = inputs
        .iter()
        .map(|(name, value)| {
            let tensor = tensor(value).map_err(|reason| format!("input {name:?}: {reason}"))?;
            Ok(NamedTensor::new(name.as_str(), tensor))
        })
        .collect::<Result<_, String>>()?;
    signature
        .check(&inputs)
        .map_err(|error| error.message().to_owned())?;
    let rows = signature.rows(&inputs);
    let rows = rows.ok_or("all inputs need the same size on axis 0, and at least 1")?;
    Ok(Sample {
        rows,
        inputs: signature.arrange(inputs),
    })
}

fn tensor(value: &Value) -> Result<Tensor, String> {
    let dtype = value["dtype"].as_str().and_then(DType::from_name);
    let dtype = dtype.ok_or("needs a dtype, such as fp32")?;
    let shape = value["shape"].as_array().ok_or("needs a shape")?;
    let axis = |axis: &Value| axis.as_u64().and_then(|axis| usize::try_from(axis).ok());
    let shape: Option<Vec<usize>> = shape.iter().map(axis).collect();
    let shape = shape.ok_or("has a shape that is not of sizes")?;
    let elements = value["data"].as_array().ok_or("needs data, an array")?;
    let mut data = BytesMut::new();
    for element in elements {
        put(&mut data, dtype, element).ok_or_else(|| format!("{element} is no {dtype}"))?;
    }
    Tensor::new(dtype, shape, data.freeze()).map_err(|error| error.to_string())
}

/// Appends one element; `None` if it is not of that dtype.
fn put(data: &mut BytesMut, dtype: DType, element: &Value) -> Option<()> {
    macro_rules! integer {
        ($type:ty, $read:ident) => {
            <$type>::try_from(element.$read()?)
                .ok()?
                .to_le_bytes()
                .as_slice()
        };
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a sample need not be exact"
    )]
    let single = || Some(element.as_f64()? as f32);
    match dtype {
        DType::Bool => data.put_u8(u8::from(element.as_bool()?)),
        DType::U8 => data.put_slice(integer!(u8, as_u64)),
        DType::U16 => data.put_slice(integer!(u16, as_u64)),
        DType::U32 => data.put_slice(integer!(u32, as_u64)),
        DType::U64 => data.put_slice(integer!(u64, as_u64)),
        DType::I8 => data.put_slice(integer!(i8, as_i64)),
        DType::I16 => data.put_slice(integer!(i16, as_i64)),
        DType::I32 => data.put_slice(integer!(i32, as_i64)),
        DType::I64 => data.put_slice(integer!(i64, as_i64)),
        DType::F16 => data.put_slice(&half::f16::from_f32(single()?).to_le_bytes()),
        DType::Bf16 => data.put_slice(&half::bf16::from_f32(single()?).to_le_bytes()),
        DType::F32 => data.put_slice(&single()?.to_le_bytes()),
        DType::F64 => data.put_slice(&element.as_f64()?.to_le_bytes()),
        DType::Bytes => {
            let text = element.as_str()?.as_bytes();
            data.put_u32_le(u32::try_from(text.len()).ok()?);
            data.put_slice(text);
        }
    }
    Some(())
}

/// Makes up three requests for a model whose inputs have an axis 0 that varies. Other axes that vary are `size` long. `None`
/// where dtypes or shapes are unknown, inputs hold strings, or are too large.
pub(super) fn make(signature: &Signature, batch_size: usize, size: usize) -> Option<Vec<Sample>> {
    let required = signature.inputs.iter();
    let required: Vec<_> = required
        .filter(|spec| spec.arity != Arity::Optional)
        .collect();
    if required.is_empty() {
        return None;
    }
    // One has several rows if a batch has room for it and another one.
    let rows = [1, 1, if batch_size > 2 { 2 } else { 1 }];
    let mut numbers = Numbers(0);
    let samples = rows.into_iter().map(|rows| {
        let inputs = required
            .iter()
            .map(|spec| made_input(spec, rows, size, &mut numbers));
        Some(Sample {
            rows,
            inputs: inputs.collect::<Option<_>>()?,
        })
    });
    samples.collect()
}

fn made_input(
    spec: &TensorSpec,
    rows: usize,
    size: usize,
    numbers: &mut Numbers,
) -> Option<NamedTensor> {
    let (dtype, axes) = (spec.dtype?, spec.shape.as_ref()?);
    if spec.arity != Arity::One || !spec.has_free_rows() {
        return None;
    }
    let behind = axes.iter().skip(1).map(|axis| axis.unwrap_or(size));
    let shape: Vec<usize> = std::iter::once(rows).chain(behind).collect();
    let elements = shape
        .iter()
        .try_fold(1usize, |product, axis| product.checked_mul(*axis))?;
    elements
        .checked_mul(dtype.size()?)
        .filter(|bytes| *bytes <= INPUT_LIMIT)?;
    let mut data = BytesMut::new();
    for _ in 0..elements {
        numbers.put(&mut data, dtype);
    }
    let tensor = Tensor::new(dtype, shape, data.freeze()).ok()?;
    Some(NamedTensor::new(spec.name.clone(), tensor))
}

/// Pseudo-random numbers that are the same every time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Appends a float from 0 to 1, or 0 or 1 as an integer, which every vocabulary, mask and flag has.
    fn put(&mut self, data: &mut BytesMut, dtype: DType) {
        let number = self.next();
        let bit = u8::from(number >> 63 == 1);
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let float = (number >> 40) as f32 / (1u32 << 24) as f32;
        match dtype {
            DType::F16 => data.put_slice(&half::f16::from_f32(float).to_le_bytes()),
            DType::Bf16 => data.put_slice(&half::bf16::from_f32(float).to_le_bytes()),
            DType::F32 => data.put_f32_le(float),
            DType::F64 => data.put_f64_le(float.into()),
            _ => {
                data.put_u8(bit);
                data.put_bytes(0, dtype.size().unwrap_or(1) - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(dtype: DType, shape: &[Option<usize>]) -> Signature {
        Signature {
            inputs: vec![TensorSpec::new("x", dtype, shape.to_vec())],
            ..Signature::default()
        }
    }

    #[test]
    fn made_requests_fit_the_signature_and_are_distinct() {
        for dtype in DType::ALL
            .into_iter()
            .filter(|dtype| *dtype != DType::Bytes)
        {
            let signature = signature(dtype, &[None, None, Some(3)]);
            let made = make(&signature, 4, 8).unwrap();
            assert_eq!(
                made.iter().map(|sample| sample.rows).collect::<Vec<_>>(),
                [1, 1, 2]
            );
            let distinct: std::collections::HashSet<_> = made.iter().map(contents).collect();
            assert_eq!(distinct.len(), 3, "{dtype}");
            for sample in &made {
                signature.check(&sample.inputs).unwrap();
                assert_eq!(sample.inputs[0].tensor.shape()[1..], [8, 3]);
            }
        }
    }

    #[test]
    fn nothing_is_made_up_for_what_is_not_known() {
        assert!(make(&Signature::default(), 4, 8).is_none());
        for shape in [vec![Some(1)], vec![], vec![None, Some(usize::MAX)]] {
            assert!(
                make(&signature(DType::F32, &shape), 4, 8).is_none(),
                "{shape:?}"
            );
        }
        assert!(make(&signature(DType::Bytes, &[None]), 4, 8).is_none());
    }

    #[test]
    fn files_are_read_and_what_is_wrong_with_them_is_said() {
        let signature = signature(DType::F32, &[None, Some(2)]);
        let read = |text: &str| parse(text.as_bytes(), &signature);
        let request = |data: &str| {
            format!(r#"{{"x": {{"dtype": "fp32", "shape": [1, 2], "data": {data}}}}}"#)
        };
        let good = read(&format!("[{}, {}]", request("[1, 2.5]"), request("[3, 4]"))).unwrap();
        assert_eq!((good.len(), good[1].rows), (2, 1));
        for (text, says) in [
            ("{".to_owned(), "EOF"),
            ("{}".to_owned(), "must be an array"),
            ("[1]".to_owned(), "request 0: must be an object"),
            (r#"[{"x": {}}]"#.to_owned(), "input \"x\": needs a dtype"),
            (format!("[{}]", request("[1]")), "takes 8 bytes, got 4"),
            (format!("[{}]", request(r#"[1, "a"]"#)), "\"a\" is no fp32"),
            (
                request("[1, 2]")
                    .replacen('{', "[{", 1)
                    .replace("\"x\"", "\"z\"")
                    + "]",
                "no input \"z\"",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
