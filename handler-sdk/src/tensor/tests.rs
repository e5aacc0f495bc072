use std::cell::RefCell;
use std::rc::Rc;

use half::{bf16, f16};

use super::*;

fn round_trip<T: Element + PartialEq + std::fmt::Debug>(values: &[T]) {
    let count = u32::try_from(values.len()).unwrap();
    let tensor = Tensor::from_vec("t", [count], values).unwrap();
    assert_eq!(tensor.dtype(), T::DTYPE);
    assert_eq!(tensor.bytes().len(), size_of_val(values));
    assert_eq!(&*tensor.view::<T>().unwrap(), values);
}

#[test]
fn every_element_type_round_trips() {
    round_trip(&[true, false, true]);
    round_trip(&[0u8, 255]);
    round_trip(&[-128i8, 127]);
    round_trip(&[i16::MIN, i16::MAX]);
    round_trip(&[i32::MIN, i32::MAX]);
    round_trip(&[i64::MIN, i64::MAX]);
    round_trip(&[f16::from_f32(1.5), f16::MAX]);
    round_trip(&[bf16::from_f32(-2.0), bf16::MIN]);
    round_trip(&[0.1f32, f32::MAX]);
    round_trip(&[0.1f64, f64::MIN]);
}

#[test]
fn elements_are_little_endian() {
    let tensor = Tensor::from_vec("t", [1], [0x0102_0304i32]).unwrap();
    assert_eq!(tensor.bytes(), [4, 3, 2, 1]);
}

#[test]
fn misaligned_elements_are_copied() {
    let mut bytes = [0u8; 9];
    bytes[1..5].copy_from_slice(&1.5f32.to_le_bytes());
    bytes[5..9].copy_from_slice(&(-2.5f32).to_le_bytes());
    let aligned = bytes.as_ptr().addr().is_multiple_of(4);
    let elements = view::elements::<f32>(&bytes[usize::from(aligned)..][..8]).unwrap();
    assert!(matches!(elements, Cow::Owned(_)));
    if aligned {
        assert_eq!(&elements[..], [1.5, -2.5]);
    }
}

#[test]
fn building_in_place_equals_building_from_values() {
    let built = Tensor::build("t", [2, 2], |out: &mut [f32]| {
        out.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        Ok(())
    });
    let values = Tensor::from_vec("t", [2, 2], [1.0f32, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(built.unwrap().bytes(), values.bytes());
}

#[test]
fn shape_and_values_must_agree() {
    let error = Tensor::from_vec("x", [2, 3], [1.0f32; 5]).unwrap_err();
    assert_eq!(
        error.message(),
        "tensor `x`: shape [2, 3] does not hold 5 elements"
    );
    assert!(Tensor::from_vec::<u8>("x", [u32::MAX, u32::MAX, u32::MAX], []).is_err());
    assert!(Tensor::from_strings("s", [1], &["a", "b"]).is_err());
}

#[test]
fn reading_with_another_type_says_so() {
    let tensor = Tensor::from_vec("logits", [1], [1i64]).unwrap();
    let error = tensor.view::<f32>().unwrap_err();
    assert_eq!(error.message(), "tensor `logits` is int64, read as fp32");
}

#[test]
fn foreign_bytes_are_checked() {
    let short = Tensor::from_bytes("t", Dtype::Fp32, [1], vec![0; 3]);
    assert!(short.view::<f32>().is_err());
    let long = Tensor::from_bytes("t", Dtype::Fp32, [1], vec![0; 8]);
    assert_eq!(
        long.view::<f32>().unwrap_err().message(),
        "tensor `t`: 2 elements in shape [1]"
    );
    let not_boolean = Tensor::from_bytes("t", Dtype::Boolean, [2], vec![1, 2]);
    assert!(not_boolean.view::<bool>().is_err());
    let cut = Tensor::from_bytes("t", Dtype::Bytes, [1], vec![5, 0, 0, 0, b'a']);
    assert_eq!(
        cut.strings().unwrap_err().message(),
        "tensor `t`: a string is cut off"
    );
}

#[test]
fn dtypes_have_the_words_of_the_interface() {
    for word in [
        "boolean", "uint8", "int8", "int16", "int32", "int64", "fp16", "bf16", "fp32", "fp64",
        "bytes",
    ] {
        assert_eq!(word.parse::<Dtype>().unwrap().to_string(), word);
    }
    assert!("float".parse::<Dtype>().is_err());
}

#[test]
fn strings_round_trip() {
    let tensor = Tensor::from_strings("s", [1, 3], &["", "a", "héllo"]).unwrap();
    assert_eq!(tensor.bytes()[..5], [0, 0, 0, 0, 1]);
    assert_eq!(
        tensor.strings().unwrap(),
        [&b""[..], b"a", "héllo".as_bytes()]
    );
}

#[test]
fn rows_follow_axis_zero() {
    let tensor = Tensor::from_vec("t", [3, 1, 2], [1i32, 2, 3, 4, 5, 6]).unwrap();
    let view = tensor.view::<i32>().unwrap();
    assert_eq!(view.rows().collect::<Vec<_>>(), [[1, 2], [3, 4], [5, 6]]);
    let empty = Tensor::from_vec::<f32>("t", [0, 4], []).unwrap();
    assert_eq!(empty.view::<f32>().unwrap().rows().count(), 0);
    let hollow = Tensor::from_vec::<f32>("t", [2, 0], []).unwrap();
    assert_eq!(hollow.view::<f32>().unwrap().rows().count(), 2);
    let scalar = Tensor::from_vec("t", [], [7u8]).unwrap();
    assert_eq!(scalar.view::<u8>().unwrap().row(0), [7]);
}

/// Answers at most 1000 bytes a call and remembers what was asked.
struct Slow {
    bytes: Vec<u8>,
    calls: Rc<RefCell<Vec<(u64, u32)>>>,
}

impl Source for Slow {
    fn read(&self, offset: u64, length: u32) -> Vec<u8> {
        self.calls.borrow_mut().push((offset, length));
        slice(&self.bytes, offset, length.min(1000)).to_vec()
    }
}

#[test]
fn host_side_elements_are_read_once_and_in_pieces() {
    let bytes: Vec<u8> = (0..2500u32)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    let calls = Rc::new(RefCell::new(Vec::new()));
    let source = Slow {
        bytes: bytes.clone(),
        calls: Rc::clone(&calls),
    };
    let tensor = Tensor::from_source("t", Dtype::Uint8, [2500], source);
    assert!(calls.borrow().is_empty());
    assert_eq!(*tensor.read(10, 3), bytes[10..13]);
    assert_eq!(*calls.borrow(), [(10, 3)]);
    assert_eq!(&*tensor.view::<u8>().unwrap(), &bytes[..]);
    let offsets: Vec<u64> = calls.borrow()[1..].iter().map(|call| call.0).collect();
    assert_eq!(offsets, [0, 1000, 2000, 2500]);
    assert_eq!(*tensor.read(2499, 10), bytes[2499..]);
    assert_eq!(calls.borrow().len(), 5);
    assert_eq!(tensor.into_parts().3, bytes);
}
