//! Names of element types on the wire.

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

/// Whether JSON has a form for its elements.
pub(in crate::api) const fn has_json_form(dtype: DType) -> bool {
    !matches!(dtype, DType::F16 | DType::Bf16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_lead_back_to_their_dtypes() {
        for dtype in DType::ALL {
            assert_eq!(parse("x", name(dtype)).unwrap(), dtype);
        }
    }

    #[test]
    fn unknown_datatypes_are_named() {
        for datatype in ["UINT128", "fp32", "STRING", ""] {
            let error = parse("x", datatype).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
            assert!(error.message().contains(&format!("got {datatype:?}")));
        }
    }
}
