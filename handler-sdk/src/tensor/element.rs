//! The dtypes by name, and which Rust types are elements of which dtype.

use std::fmt;
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};
use half::{bf16, f16};

use super::Dtype;
use crate::Error;

// Elements cross the interface little-endian and are cast in place.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "handler-sdk needs a little-endian target"
);

/// A type that tensors can hold: `bool`, the integers of the interface, `f16`, `bf16`, `f32` and `f64`.
///
/// Strings (dtype `bytes`) have no fixed size: see [`Tensor::strings`](super::Tensor::strings).
pub trait Element: CheckedBitPattern + NoUninit + sealed::Sealed {
    /// The dtype whose elements are `Self`.
    const DTYPE: Dtype;
    /// The element whose bytes are all zero.
    const ZERO: Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty => $dtype:ident, $zero:expr;)*) => {
        $(impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            const ZERO: Self = $zero;
        })*
    };
}

elements! {
    bool => Boolean, false;
    u8 => Uint8, 0;
    i8 => Int8, 0;
    i16 => Int16, 0;
    i32 => Int32, 0;
    i64 => Int64, 0;
    f16 => Fp16, f16::ZERO;
    bf16 => Bf16, bf16::ZERO;
    f32 => Fp32, 0.0;
    f64 => Fp64, 0.0;
}

/// Every dtype with its name in `wit/handler.wit`.
const WORDS: [(Dtype, &str); 11] = [
    (Dtype::Boolean, "boolean"),
    (Dtype::Uint8, "uint8"),
    (Dtype::Int8, "int8"),
    (Dtype::Int16, "int16"),
    (Dtype::Int32, "int32"),
    (Dtype::Int64, "int64"),
    (Dtype::Fp16, "fp16"),
    (Dtype::Bf16, "bf16"),
    (Dtype::Fp32, "fp32"),
    (Dtype::Fp64, "fp64"),
    (Dtype::Bytes, "bytes"),
];

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS
            .iter()
            .find(|(dtype, _)| dtype == self)
            .map_or("", |(_, word)| word);
        formatter.pad(word)
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        let found = WORDS.iter().find(|(_, known)| *known == word);
        found
            .map(|(dtype, _)| *dtype)
            .ok_or_else(|| Error::bad_request(format!("there is no dtype `{word}`; one is `fp32`")))
    }
}
