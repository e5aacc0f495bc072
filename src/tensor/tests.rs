//! Properties of tensors: what is made is valid, a stack splits into what was stacked, and no input causes a panic.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn dtypes() -> impl Strategy<Value = DType> {
    select(DType::ALL.to_vec())
}

/// Shapes of one row: few and small axes.
fn rows_shape() -> impl Strategy<Value = Vec<usize>> {
    vec(0..4usize, 0..4)
}

/// A valid tensor of `rows` rows whose data comes from `seed`.
fn filled(dtype: DType, rows: usize, behind: &[usize], seed: u8) -> Tensor {
    let shape = [&[rows], behind].concat();
    let elements = shape.iter().product::<usize>();
    let byte = |index: usize| u8::try_from(index % 251).unwrap().wrapping_add(seed);
    let data: Vec<u8> = match dtype {
        DType::Bool => (0..elements).map(|index| byte(index) & 1).collect(),
        DType::Bytes => (0..elements)
            .flat_map(|index| string(usize::from(byte(index)) % 5, seed))
            .collect(),
        sized => (0..elements * sized.size().unwrap()).map(byte).collect(),
    };
    Tensor::new(dtype, shape, data.into()).unwrap()
}

fn string(length: usize, seed: u8) -> Vec<u8> {
    [
        &u32::try_from(length).unwrap().to_le_bytes()[..],
        &vec![seed; length],
    ]
    .concat()
}

/// Shapes of any length, their axes small, huge, or chosen so that products overflow.
fn hostile_shapes() -> impl Strategy<Value = Vec<usize>> {
    let axis = prop_oneof![
        0..5usize,
        Just(usize::MAX),
        Just(1 << 32),
        Just((1 << 60) + 2),
        any::<usize>()
    ];
    vec(axis, 0..12)
}

proptest! {
    #[test]
    fn stacked_tensors_part_into_the_same(
        dtype in dtypes(),
        behind in rows_shape(),
        rows in vec(0..4usize, 1..6),
    ) {
        let parts: Vec<_> = rows
            .iter()
            .zip(0u8..)
            .map(|(rows, seed)| filled(dtype, *rows, &behind, seed.wrapping_mul(37)))
            .collect();
        let stacked = Tensor::stack(&parts.iter().collect::<Vec<_>>()).unwrap();
        prop_assert_eq!(stacked.rows(), Some(rows.iter().sum()));
        let checked = Tensor::new(dtype, stacked.shape().to_vec(), stacked.data().clone());
        prop_assert_eq!(checked.as_ref(), Ok(&stacked));
        prop_assert_eq!(stacked.split(&rows).unwrap(), parts);
    }

    #[test]
    fn parts_of_a_tensor_stack_into_the_same(
        dtype in dtypes(),
        behind in rows_shape(),
        rows in vec(0..4usize, 1..6),
        seed: u8,
    ) {
        let whole = filled(dtype, rows.iter().sum(), &behind, seed);
        let parts = whole.split(&rows).unwrap();
        for (part, rows) in parts.iter().zip(&rows) {
            prop_assert_eq!(part.rows(), Some(*rows));
            let checked = Tensor::new(dtype, part.shape().to_vec(), part.data().clone());
            prop_assert_eq!(checked.as_ref(), Ok(part));
        }
        prop_assert_eq!(Tensor::stack(&parts.iter().collect::<Vec<_>>()).unwrap(), whole);
    }

    #[test]
    fn any_dtype_shape_and_data_are_checked_without_panic(
        dtype in dtypes(),
        shape in hostile_shapes(),
        data in vec(prop_oneof![any::<u8>(), 0..2u8], 0..64),
    ) {
        if let Ok(tensor) = Tensor::new(dtype, shape.clone(), data.clone().into()) {
            let expected = dtype.size().map_or(data.len(), |size| tensor.elements() * size);
            prop_assert_eq!(expected, data.len());
            if dtype == DType::Bytes {
                let lengths = tensor.strings().map(|string| string.len() + 4);
                prop_assert_eq!(lengths.sum::<usize>(), data.len());
                prop_assert_eq!(tensor.strings().count(), tensor.elements());
            }
        }
    }

    #[test]
    fn any_rows_are_split_or_refused_without_panic(
        dtype in dtypes(),
        total in 0..6usize,
        rows in vec(prop_oneof![0..7usize, Just(usize::MAX), Just(usize::MAX / 2)], 0..5),
    ) {
        let whole = filled(dtype, total, &[2], 9);
        let sum = rows.iter().try_fold(0usize, |sum, rows| sum.checked_add(*rows));
        prop_assert_eq!(whole.split(&rows).is_ok(), sum == Some(total));
    }

    #[test]
    fn tensors_that_differ_do_not_stack(
        first in dtypes(),
        second in dtypes(),
        left in rows_shape(),
        right in rows_shape(),
    ) {
        let (a, b) = (filled(first, 1, &left, 0), filled(second, 2, &right, 0));
        prop_assert_eq!(Tensor::stack(&[&a, &b]).is_ok(), first == second && left == right);
    }
}

#[test]
fn scalars_and_nothing_do_not_stack_or_split() {
    let scalar = Tensor::new(DType::U8, vec![], Bytes::from_static(&[1])).unwrap();
    assert_eq!(Tensor::stack(&[]), Err(TensorError::Scalar));
    assert_eq!(Tensor::stack(&[&scalar, &scalar]), Err(TensorError::Scalar));
    assert_eq!(scalar.split(&[1]), Err(TensorError::Scalar));
}

#[test]
fn a_zero_axis_does_not_hide_an_overflow() {
    for shape in [
        vec![usize::MAX, 0],
        vec![0, 1 << 40, 1 << 40],
        vec![1 << 4, (1 << 60) + 2],
    ] {
        let error = Tensor::new(DType::U8, shape.clone(), Bytes::new()).unwrap_err();
        assert_eq!(error, TensorError::Overflow(shape));
    }
    assert_eq!(
        Tensor::new(DType::U8, vec![1; 65], Bytes::from_static(&[1])),
        Err(TensorError::Rank(65))
    );
}

#[test]
fn only_0_and_1_are_booleans() {
    let data = Bytes::from_static(&[0, 1, 2]);
    assert_eq!(
        Tensor::new(DType::Bool, vec![3], data),
        Err(TensorError::Boolean(2))
    );
}

#[test]
fn elements_must_fill_the_data() {
    let make = |data: &'static [u8]| Tensor::new(DType::Bytes, vec![2], Bytes::from_static(data));
    assert!(make(b"\x01\0\0\0a\0\0\0\0").is_ok());
    for (data, element) in [
        (&b"\x01\0\0\0a"[..], 1),
        (b"\x01\0\0\0a\0\0\0\0x", 2),
        (b"\x01\0\0\0a\xff\xff\xff\xff", 1),
        (b"", 0),
    ] {
        assert_eq!(
            make(data),
            Err(TensorError::Element {
                shape: vec![2],
                element
            })
        );
    }
}
