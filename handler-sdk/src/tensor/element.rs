//! Which Rust types are elements of which dtype.

use bytemuck::{CheckedBitPattern, NoUninit};
use half::{bf16, f16};

use super::Dtype;

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
    /// What a zeroed element is.
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
