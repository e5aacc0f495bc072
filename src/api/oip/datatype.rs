//! Element types on the wire: their names, and what their elements are.

use std::fmt;

use half::{bf16, f16};

use crate::error::{Error, Kind};
use crate::tensor::DType;

/// The name in requests, responses and metadata.
pub(in crate::api) const fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::U8 => "UINT8",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::F16 => "FP16",
        DType::Bf16 => "BF16",
        DType::F32 => "FP32",
        DType::F64 => "FP64",
        DType::Bytes => "BYTES",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
    }
}

/// The dtype of that name; `input` is the tensor that has it.
pub(in crate::api) fn parse(input: &str, datatype: &str) -> Result<DType, Error> {
    let found = DType::ALL.into_iter().find(|one| name(*one) == datatype);
    found.ok_or_else(|| {
        let names = DType::ALL.map(name).join(", ");
        Error::new(
            Kind::InvalidInput,
            format!(
                "datatype of input {} must be one of {names}, got {}",
                super::shown(input),
                super::shown(datatype)
            ),
        )
    })
}

/// The member of gRPC's typed contents that has its elements; `None` where they can be raw alone.
pub(in crate::api) const fn contents(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::Bool => Some("bool_contents"),
        DType::U8 | DType::U16 | DType::U32 => Some("uint_contents"),
        DType::I8 | DType::I16 | DType::I32 => Some("int_contents"),
        DType::I64 => Some("int64_contents"),
        DType::U64 => Some("uint64_contents"),
        DType::F16 | DType::Bf16 => None,
        DType::F32 => Some("fp32_contents"),
        DType::F64 => Some("fp64_contents"),
        DType::Bytes => Some("bytes_contents"),
    }
}

/// Says that an element of an input is none of its dtype, and what is.
pub(in crate::api) fn refusal(input: &str, value: impl fmt::Display, dtype: DType) -> String {
    let (input, name, rule) = (super::shown(input), name(dtype), rule(dtype));
    format!("input {input}: {value} is no {name}, which is {rule}")
}

/// What an element must be.
fn rule(dtype: DType) -> String {
    macro_rules! whole {
        ($type:ty) => {
            format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX)
        };
    }
    macro_rules! float {
        ($largest:expr) => {
            format!("a number up to {:e}, NaN, Infinity or -Infinity", $largest)
        };
    }
    match dtype {
        DType::Bool => "true or false".to_owned(),
        DType::U8 => whole!(u8),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::F16 => float!(f16::MAX),
        DType::Bf16 => float!(bf16::MAX),
        DType::F32 => float!(f32::MAX),
        DType::F64 => float!(f64::MAX),
        DType::Bytes => "a text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_dtypes() {
        for dtype in DType::ALL {
            assert_eq!(parse("x", name(dtype)).unwrap(), dtype);
        }
    }

    #[test]
    fn unknown_datatypes_are_named() {
        for datatype in ["UINT128", "uint16", "fp32", "STRING", ""] {
            let error = parse("x", datatype).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
            assert!(error.message().contains(&format!("got {datatype:?}")));
        }
    }
}
