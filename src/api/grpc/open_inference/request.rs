//! Requests for inference, from messages. Raw data are taken as they lie in the message, without a copy.

use std::collections::HashMap;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::wire::infer_parameter::ParameterChoice;
use super::wire::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::wire::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::api::oip::{
    InferRequest, Parameter, Parameters, RequestedOutput, datatype, invalid, parameters, readable,
    shown,
};
use crate::error::Error;
use crate::tensor::{DType, MAX_TENSORS, NamedTensor, Tensor};

/// The request in a message.
pub(super) fn decode(message: ModelInferRequest) -> Result<InferRequest, Error> {
    check_count("inputs", message.inputs.len())?;
    check_count("outputs", message.outputs.len())?;
    let outputs = message.outputs.into_iter().map(output);
    Ok(InferRequest {
        id: Some(message.id),
        parameters: read(message.parameters)?,
        inputs: inputs(message.inputs, message.raw_input_contents)?,
        outputs: outputs.collect::<Result<_, _>>()?,
    })
}

fn check_count(what: &str, count: usize) -> Result<(), Error> {
    if count <= MAX_TENSORS {
        return Ok(());
    }
    Err(invalid(format!(
        "a request may have {MAX_TENSORS} {what}, this one has {count}"
    )))
}

fn output(output: InferRequestedOutputTensor) -> Result<RequestedOutput, Error> {
    RequestedOutput::new(output.name, &read(output.parameters)?)
}

fn read(map: HashMap<String, InferParameter>) -> Result<Parameters, Error> {
    if map.len() > parameters::LIMIT {
        let limit = parameters::LIMIT;
        return Err(invalid(format!(
            "there may be {limit} parameters, there are {}",
            map.len()
        )));
    }
    let pairs = map.into_iter().filter_map(|(name, value)| {
        let value = match value.parameter_choice? {
            ParameterChoice::BoolParam(flag) => Parameter::Flag(flag),
            ParameterChoice::Int64Param(number) => Parameter::Integer(number.into()),
            ParameterChoice::Uint64Param(number) => Parameter::Integer(number.into()),
            ParameterChoice::DoubleParam(number) => Parameter::Number(number),
            ParameterChoice::StringParam(text) => Parameter::Text(text),
        };
        Some((name, value))
    });
    Parameters::new(pairs.collect())
}

/// Data are raw for all inputs of a message, or for none.
fn inputs(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<NamedTensor>, Error> {
    if raw.is_empty() {
        let typed = |input: InferInputTensor| {
            let contents = input.contents.unwrap_or_default();
            let input = InferInputTensor {
                contents: None,
                ..input
            };
            tensor(input, |name, dtype| pack(name, dtype, contents))
        };
        return inputs.into_iter().map(typed).collect();
    }
    if raw.len() != inputs.len() {
        return Err(invalid(format!(
            "raw_input_contents must have data for each of {} inputs, got {}",
            inputs.len(),
            raw.len()
        )));
    }
    let inputs = inputs.into_iter().zip(raw);
    let inputs = inputs.map(|(input, data)| {
        if input
            .contents
            .as_ref()
            .is_some_and(|contents| members(contents) > 0)
        {
            let name = shown(&input.name);
            let text = format!(
                "input {name} has contents beside raw_input_contents: they exclude each other"
            );
            return Err(invalid(text));
        }
        tensor(input, |_, dtype| Ok(readable(dtype, data)))
    });
    inputs.collect()
}

fn tensor(
    input: InferInputTensor,
    data: impl FnOnce(&str, DType) -> Result<Bytes, Error>,
) -> Result<NamedTensor, Error> {
    read(input.parameters)?.check_of_tensor()?;
    let dtype = datatype::parse(&input.name, &input.datatype)?;
    let shape = input.shape.iter().map(|axis| usize::try_from(*axis));
    let shape = shape.collect::<Result<Vec<_>, _>>().map_err(|_| {
        let name = shown(&input.name);
        invalid(format!("shape of input {name} must have axes from 0 on"))
    })?;
    let data = data(&input.name, dtype)?;
    let tensor = Tensor::new(dtype, shape, data)
        .map_err(|error| invalid(format!("input {}: {error}", shown(&input.name))))?;
    Ok(NamedTensor::new(input.name, tensor))
}

/// Members that hold elements.
fn members(contents: &InferTensorContents) -> usize {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    [
        bool_contents.is_empty(),
        int_contents.is_empty(),
        int64_contents.is_empty(),
        uint_contents.is_empty(),
        uint64_contents.is_empty(),
        fp32_contents.is_empty(),
        fp64_contents.is_empty(),
        bytes_contents.is_empty(),
    ]
    .iter()
    .filter(|is_empty| !**is_empty)
    .count()
}

/// The elements in the member of the datatype, as bytes; no other member may hold any.
fn pack(name: &str, dtype: DType, contents: InferTensorContents) -> Result<Bytes, Error> {
    let used = members(&contents);
    let mut data = BytesMut::new();
    macro_rules! whole {
        ($type:ty, $elements:expr) => {
            put(&mut data, $elements, |value| {
                <$type>::try_from(value).map(<$type>::to_le_bytes).ok()
            })
        };
    }
    let elements = match dtype {
        DType::Bool => put(&mut data, contents.bool_contents, |flag| {
            Some([u8::from(flag)])
        }),
        DType::U8 => whole!(u8, contents.uint_contents),
        DType::U16 => whole!(u16, contents.uint_contents),
        DType::U32 => whole!(u32, contents.uint_contents),
        DType::U64 => whole!(u64, contents.uint64_contents),
        DType::I8 => whole!(i8, contents.int_contents),
        DType::I16 => whole!(i16, contents.int_contents),
        DType::I32 => whole!(i32, contents.int_contents),
        DType::I64 => whole!(i64, contents.int64_contents),
        DType::F32 => put(&mut data, contents.fp32_contents, |value| {
            Some(value.to_le_bytes())
        }),
        DType::F64 => put(&mut data, contents.fp64_contents, |value| {
            Some(value.to_le_bytes())
        }),
        DType::Bytes if used == usize::from(!contents.bytes_contents.is_empty()) => {
            return Ok(contents.bytes_contents.into_data());
        }
        DType::Bytes | DType::F16 | DType::Bf16 => return Err(misplaced(name, dtype)),
    };
    let elements = elements.map_err(|value| invalid(datatype::refusal(name, value, dtype)))?;
    if used != usize::from(elements > 0) {
        return Err(misplaced(name, dtype));
    }
    Ok(data.freeze())
}

fn misplaced(name: &str, dtype: DType) -> Error {
    let place = datatype::contents(dtype).unwrap_or("raw_input_contents");
    let (name, datatype) = (shown(name), datatype::name(dtype));
    invalid(format!(
        "input {name} of {datatype} must have its elements in {place} and nowhere else"
    ))
}

/// Appends elements and counts them; the failure is one that is out of range.
fn put<T: Copy + ToString, const N: usize>(
    data: &mut BytesMut,
    elements: Vec<T>,
    bytes: impl Fn(T) -> Option<[u8; N]>,
) -> Result<usize, String> {
    let count = elements.len();
    data.reserve(count * N);
    for element in elements {
        data.put_slice(&bytes(element).ok_or_else(|| element.to_string())?);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
        InferInputTensor {
            name: "x".to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            parameters: HashMap::new(),
            contents: Some(contents),
        }
    }

    fn none() -> InferTensorContents {
        InferTensorContents::default()
    }

    #[test]
    fn elements_are_in_the_member_of_their_datatype() {
        let ints = || InferTensorContents {
            int_contents: vec![-1, 2],
            ..none()
        };
        let uints = || InferTensorContents {
            uint_contents: vec![1, 65535],
            ..none()
        };
        let cases = [
            (
                "BOOL",
                InferTensorContents {
                    bool_contents: vec![true, false],
                    ..none()
                },
                2,
            ),
            (
                "UINT8",
                InferTensorContents {
                    uint_contents: vec![0, 255],
                    ..none()
                },
                2,
            ),
            ("UINT16", uints(), 4),
            ("UINT32", uints(), 8),
            (
                "UINT64",
                InferTensorContents {
                    uint64_contents: vec![1, u64::MAX],
                    ..none()
                },
                16,
            ),
            ("INT8", ints(), 2),
            ("INT16", ints(), 4),
            ("INT32", ints(), 8),
            (
                "INT64",
                InferTensorContents {
                    int64_contents: vec![1, 2],
                    ..none()
                },
                16,
            ),
            (
                "FP32",
                InferTensorContents {
                    fp32_contents: vec![1.0, 2.0],
                    ..none()
                },
                8,
            ),
            (
                "FP64",
                InferTensorContents {
                    fp64_contents: vec![1.0, 2.0],
                    ..none()
                },
                16,
            ),
            (
                "BYTES",
                InferTensorContents {
                    bytes_contents: ["a", ""].into_iter().collect(),
                    ..none()
                },
                9,
            ),
        ];
        for (datatype, contents, size) in cases {
            let read = inputs(vec![input(datatype, &[2], contents)], vec![]).unwrap();
            assert_eq!(read[0].tensor.data().len(), size, "{datatype}");
        }
    }

    #[test]
    fn wrong_contents_are_refused() {
        let floats = InferTensorContents {
            fp32_contents: vec![1.0],
            ..none()
        };
        let mixed = InferTensorContents {
            int_contents: vec![1],
            ..floats.clone()
        };
        let large = InferTensorContents {
            int_contents: vec![300],
            ..none()
        };
        let beyond = InferTensorContents {
            uint_contents: vec![65536],
            ..none()
        };
        for (input, says) in [
            (input("FP64", &[1], floats.clone()), "in fp64_contents and"),
            (input("FP32", &[1], mixed), "in fp32_contents and"),
            (input("INT8", &[1], large), "300 is no INT8, which is"),
            (
                input("UINT16", &[1], beyond),
                "65536 is no UINT16, which is",
            ),
            (
                input("UINT64", &[1], floats.clone()),
                "in uint64_contents and",
            ),
            (input("FP16", &[1], none()), "raw_input_contents"),
            (input("FP32", &[2], floats.clone()), "takes 8 bytes, got 4"),
            (input("FP32", &[-1], floats.clone()), "from 0 on"),
            (
                input("FP32", &[1 << 62, 1 << 62], floats.clone()),
                "more elements",
            ),
            (input("FP32", &[1; 65], floats.clone()), "65 axes"),
            (input("UINT128", &[1], floats.clone()), "must be one of"),
        ] {
            let error = inputs(vec![input], vec![]).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn raw_and_typed_exclude_each_other() {
        let raw = || Bytes::from_static(&[0; 4]);
        let float = |contents| input("FP32", &[1], contents);
        let read = inputs(vec![float(none())], vec![raw()]).unwrap();
        assert_eq!(read[0].tensor.elements(), 1);
        let typed = InferTensorContents {
            fp32_contents: vec![1.0],
            ..none()
        };
        let error = inputs(vec![float(none()), float(typed)], vec![raw(), raw()]).unwrap_err();
        assert!(error.message().contains("exclude"), "{error}");
        for count in [1, 3] {
            let error = inputs(vec![float(none()), float(none())], vec![raw(); count]).unwrap_err();
            assert!(error.message().contains("each of 2 inputs"), "{error}");
        }
        assert!(inputs(vec![float(none())], vec![Bytes::from_static(&[0; 5])]).is_err());
    }

    #[test]
    fn lists_are_limited() {
        let message = ModelInferRequest {
            inputs: vec![InferInputTensor::default(); MAX_TENSORS + 1],
            ..ModelInferRequest::default()
        };
        assert!(decode(message).is_err());
        let message = ModelInferRequest {
            outputs: vec![InferRequestedOutputTensor::default(); MAX_TENSORS + 1],
            ..ModelInferRequest::default()
        };
        assert!(decode(message).is_err());
    }
}
