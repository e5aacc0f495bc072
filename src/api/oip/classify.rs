//! Classification: an output's highest values with their indices, in place of the tensor.

use bytes::{BufMut as _, BytesMut};

use crate::error::{Error, Kind};
use crate::tensor::{DType, NamedTensor, Tensor};

/// Elements of an output that is classified, at most.
const ELEMENTS_LIMIT: usize = 1_000_000;

/// The `classes` highest values of each row of `output` as texts `VALUE:INDEX`, in descending order; all of a row's if
/// it has fewer. Of an output that `is_batched` each index of axis 0 is a row; another is one row.
pub(super) fn classify(
    output: &NamedTensor,
    classes: u64,
    is_batched: bool,
) -> Result<NamedTensor, Error> {
    let tensor = &output.tensor;
    check(output)?;
    let rows = if is_batched {
        tensor.rows().unwrap_or(1)
    } else {
        1
    };
    let width = tensor.elements().checked_div(rows).unwrap_or(0);
    let classes = usize::try_from(classes).unwrap_or(usize::MAX).min(width);
    let mut shape = vec![rows, classes];
    if !is_batched {
        shape.remove(0);
    }
    let texts = texts(tensor, width, classes);
    let texts = Tensor::new(DType::Bytes, shape, texts.freeze()).map_err(|error| {
        Error::new(Kind::Internal, "The classes do not make a tensor").with_detail(error)
    })?;
    Ok(NamedTensor::new(output.name.clone(), texts))
}

fn check(output: &NamedTensor) -> Result<(), Error> {
    let dtype = output.tensor.dtype();
    let why = match dtype {
        DType::Bool | DType::F16 | DType::Bf16 | DType::Bytes => {
            format!("holds {}", super::datatype::name(dtype))
        }
        _ if output.tensor.elements() > ELEMENTS_LIMIT => {
            format!("has more than {ELEMENTS_LIMIT} elements")
        }
        _ => return Ok(()),
    };
    let name = super::shown(&output.name);
    Err(Error::new(
        Kind::InvalidInput,
        format!("output {name} {why}: it cannot be classified"),
    ))
}

/// The texts of all rows, `width` elements each, as elements of [`DType::Bytes`].
fn texts(tensor: &Tensor, width: usize, classes: usize) -> BytesMut {
    macro_rules! texts {
        ($type:ty, $form:literal) => {
            all_rows(
                tensor,
                width,
                classes,
                |bytes| <$type>::from_le_bytes(bytes.try_into().unwrap_or_default()),
                |value, index| format!($form, value, index),
            )
        };
    }
    match tensor.dtype() {
        DType::U8 => texts!(u8, "{}:{}"),
        DType::I8 => texts!(i8, "{}:{}"),
        DType::I16 => texts!(i16, "{}:{}"),
        DType::I32 => texts!(i32, "{}:{}"),
        DType::I64 => texts!(i64, "{}:{}"),
        DType::U16 => texts!(u16, "{}:{}"),
        DType::U32 => texts!(u32, "{}:{}"),
        DType::U64 => texts!(u64, "{}:{}"),
        DType::F32 => texts!(f32, "{:.6}:{}"),
        DType::F64 => texts!(f64, "{:.6}:{}"),
        DType::Bool | DType::F16 | DType::Bf16 | DType::Bytes => BytesMut::new(),
    }
}

fn all_rows<T: PartialOrd + Copy>(
    tensor: &Tensor,
    width: usize,
    classes: usize,
    read: impl Fn(&[u8]) -> T,
    print: impl Fn(T, usize) -> String,
) -> BytesMut {
    let mut texts = BytesMut::new();
    let size = tensor.dtype().size().unwrap_or(1);
    for row in tensor.data().chunks_exact((width * size).max(1)) {
        let values: Vec<T> = row.chunks_exact(size).map(&read).collect();
        for index in highest(&values, classes) {
            let text = print(values[index], index);
            texts.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
            texts.put_slice(text.as_bytes());
        }
    }
    texts
}

/// Indices of the `count` highest values, highest first; of equal ones the first goes first. What is not a number goes
/// last.
fn highest<T: PartialOrd>(values: &[T], count: usize) -> Vec<usize> {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let order = |one: &usize, two: &usize| {
        let (a, b) = (&values[*one], &values[*two]);
        let by_value = b.partial_cmp(a);
        by_value
            .unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
            .then(one.cmp(two))
    };
    let mut indices: Vec<usize> = (0..values.len()).collect();
    if count == 0 {
        indices.clear();
    } else if count < indices.len() {
        indices.select_nth_unstable_by(count - 1, order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> NamedTensor {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let tensor = Tensor::new(DType::F32, shape.to_vec(), data.into());
        NamedTensor::new("y", tensor.unwrap())
    }

    fn texts_of(classified: &NamedTensor) -> Vec<&str> {
        let texts = classified.tensor.strings();
        texts
            .map(|text| std::str::from_utf8(text).unwrap())
            .collect()
    }

    #[test]
    fn each_row_gives_its_highest_in_descending_order() {
        let output = floats(&[2, 3], &[0.25, 3.3, -1.0, 1.0, 2.0, 2.0]);
        let classified = classify(&output, 2, true).unwrap();
        assert_eq!(classified.tensor.shape(), [2, 2]);
        assert_eq!(
            texts_of(&classified),
            ["3.300000:1", "0.250000:0", "2.000000:1", "2.000000:2"]
        );
        let one = classify(&floats(&[3], &[1.0, 5.0, 3.0]), 1, false).unwrap();
        assert_eq!(one.tensor.shape(), [1]);
        assert_eq!(texts_of(&one), ["5.000000:1"]);
    }

    #[test]
    fn more_classes_than_there_are_is_all_and_nan_goes_last() {
        let output = floats(&[1, 3], &[f32::NAN, 1.0, f32::INFINITY]);
        let classified = classify(&output, u64::MAX, true).unwrap();
        assert_eq!(texts_of(&classified), ["inf:2", "1.000000:1", "NaN:0"]);
    }

    #[test]
    fn integers_are_printed_as_such() {
        let data: Vec<u8> = [7i64, -2, i64::MAX]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let tensor = Tensor::new(DType::I64, vec![3], data.into()).unwrap();
        let classified = classify(&NamedTensor::new("y", tensor), 2, false).unwrap();
        assert_eq!(texts_of(&classified), ["9223372036854775807:2", "7:0"]);
    }

    #[test]
    fn what_cannot_be_compared_is_refused_and_nothing_is_nothing() {
        for (dtype, data) in [
            (DType::Bool, vec![1]),
            (DType::F16, vec![0; 2]),
            (DType::Bf16, vec![0; 2]),
            (DType::Bytes, vec![0; 4]),
        ] {
            let tensor = Tensor::new(dtype, vec![1], data.into()).unwrap();
            let error = classify(&NamedTensor::new("y", tensor), 1, false).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
        }
        let large = Tensor::new(
            DType::U8,
            vec![1, ELEMENTS_LIMIT + 1],
            vec![0; ELEMENTS_LIMIT + 1].into(),
        );
        assert!(classify(&NamedTensor::new("y", large.unwrap()), 1, true).is_err());
        for shape in [&[0, 3][..], &[2, 0]] {
            let classified = classify(&floats(shape, &[]), 3, true).unwrap();
            assert!(texts_of(&classified).is_empty());
        }
        let none = classify(&floats(&[1, 2], &[1.0, 2.0]), 0, true).unwrap();
        assert_eq!(none.tensor.shape(), [1, 0]);
    }
}
