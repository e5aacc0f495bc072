//! What the fuzzer calls: tensors of any dtype, shape and data.

use bytes::Bytes;

use super::{DType, Tensor};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("tensors", tensors)];

/// A dtype, a rank, so many axes, and the data. An axis over 250 stands for one that makes products overflow.
fn tensors(bytes: &[u8]) {
    let [dtype, rank, rest @ ..] = bytes else {
        return;
    };
    let rank = usize::from(rank % 80);
    let Some((axes, data)) = rest.split_at_checked(rank) else {
        return;
    };
    let dtype = DType::ALL[usize::from(*dtype) % DType::ALL.len()];
    let shape = axes.iter().map(|axis| size(*axis)).collect();
    let Ok(tensor) = Tensor::new(dtype, shape, Bytes::copy_from_slice(data)) else {
        return;
    };
    let expected = dtype.size().map(|size| size * tensor.elements());
    assert_eq!(expected.unwrap_or(data.len()), data.len());
    if dtype == DType::Bytes {
        let lengths = tensor.strings().map(|text| text.len() + 4);
        assert_eq!(lengths.sum::<usize>(), data.len());
        assert_eq!(tensor.strings().count(), tensor.elements());
    }
    check_rows(&tensor);
}

const fn size(axis: u8) -> usize {
    match axis {
        251 => 1 << 16,
        252 => 1 << 32,
        253 => (1 << 60) + 2,
        254 => usize::MAX / 2,
        255 => usize::MAX,
        small => small as usize,
    }
}

/// A tensor that is split stacks into itself, and each part is a tensor.
fn check_rows(tensor: &Tensor) {
    let Some(rows @ 0..1024) = tensor.rows() else {
        return;
    };
    for at in [0, 1, rows / 2, rows] {
        if at > rows {
            continue;
        }
        let parts = tensor.split(&[at, rows - at]);
        let parts = parts.expect("rows that add up are split");
        for part in &parts {
            let made = Tensor::new(part.dtype(), part.shape().to_vec(), part.data().clone());
            assert_eq!(made.as_ref(), Ok(part));
        }
        let stacked = Tensor::stack(&parts.iter().collect::<Vec<_>>());
        assert_eq!(stacked.as_ref(), Ok(tensor));
    }
    assert!(tensor.split(&[rows, usize::MAX]).is_err());
}
