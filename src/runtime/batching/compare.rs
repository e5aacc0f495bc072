//! Whether a stacked run gave each request what a run of its own gave.
//!
//! Outputs are compared by place. Framework kernels round differently for other batch sizes, so floats may differ by
//! rounding; what a row of somebody else would look like is known from the single runs, and tells rounding from place.

use crate::tensor::{DType, NamedTensor, Tensor};

/// A difference of this part of what lies between the outputs of different requests is rounding, as in models that are
/// quantized dynamically.
const ROUNDING: f64 = 0.02;
/// Rows tell one place from another where they differ by this many tolerances.
const TELLING: f64 = 8.0;

/// One request's inputs and what a run of its own gave.
#[derive(Debug, Clone)]
pub(crate) struct Single {
    /// Rows on axis 0 of its inputs.
    pub(crate) rows: usize,
    /// Outputs of its own run.
    pub(crate) outputs: Vec<NamedTensor>,
}

/// What a comparison shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Each request got its own.
    Same {
        /// Whether a row in the wrong place would have shown.
        is_telling: bool,
        /// Whether the same up to the rounding of a kernel, and not of a quantization that depends on the company.
        is_exact: bool,
    },
    /// Somebody got something else; the text says what.
    Different(String),
}

/// Compares what a stacked run of `singles` gave, in that order, with what each run of their own gave.
pub(crate) fn compare(singles: &[&Single], stacked: &[NamedTensor]) -> Finding {
    let (mut is_telling, mut is_exact) = (false, true);
    for (index, output) in stacked.iter().enumerate() {
        let own: Option<Vec<_>> = singles
            .iter()
            .map(|single| {
                single
                    .outputs
                    .get(index)
                    .filter(|own| own.name == output.name)
            })
            .collect();
        let Some(own) = own else {
            return different(output, "is not what single runs give");
        };
        match compare_output(singles, &own, output) {
            Finding::Same {
                is_telling: tells,
                is_exact: exact,
            } => {
                is_telling |= tells;
                is_exact &= exact;
            }
            different @ Finding::Different(_) => return different,
        }
    }
    if singles
        .iter()
        .any(|single| single.outputs.len() != stacked.len())
    {
        return Finding::Different("stacked runs give other outputs than single ones".to_owned());
    }
    Finding::Same {
        is_telling,
        is_exact,
    }
}

fn compare_output(singles: &[&Single], own: &[&NamedTensor], output: &NamedTensor) -> Finding {
    let keeps_rows =
        |(single, own): (&&Single, &&NamedTensor)| own.tensor.rows() == Some(single.rows);
    if !singles.iter().zip(own).all(keeps_rows) {
        return different(output, "does not keep axis 0");
    }
    let tensors: Vec<&Tensor> = own.iter().map(|own| &own.tensor).collect();
    let Ok(expected) = Tensor::stack(&tensors) else {
        return different(output, "has shapes that do not stack");
    };
    if (expected.dtype(), expected.shape()) != (output.tensor.dtype(), output.tensor.shape()) {
        return different(
            output,
            &format!(
                "is {:?} of requests that gave {:?} one by one",
                output.tensor.shape(),
                expected.shape()
            ),
        );
    }
    let owners = singles.iter().enumerate();
    let owners: Vec<usize> = owners
        .flat_map(|(index, single)| std::iter::repeat_n(index, single.rows))
        .collect();
    by_place(&owners, &rows(&expected), &rows(&output.tensor), output)
}

/// Compares row by row; `owners` says whose request each row is of.
fn by_place(owners: &[usize], own: &[Row], stacked: &[Row], output: &NamedTensor) -> Finding {
    let spread = spread(owners, own);
    let kernel = kernel_rounding(output.tensor.dtype()) * scale(own);
    let tolerance = kernel.max(ROUNDING * spread);
    let moved = own.iter().zip(stacked);
    let moved = moved
        .map(|(own, stacked)| own.distance(stacked))
        .fold(0.0, f64::max);
    if moved > tolerance {
        return different(output, "differs between single and stacked runs");
    }
    Finding::Same {
        is_telling: spread > TELLING * tolerance.max(f64::MIN_POSITIVE),
        is_exact: moved <= kernel,
    }
}

/// The largest distance between rows of different requests.
fn spread(owners: &[usize], rows: &[Row]) -> f64 {
    let pairs = (0..rows.len()).flat_map(|one| (0..one).map(move |two| (one, two)));
    let apart = pairs.filter(|(one, two)| owners[*one] != owners[*two]);
    let distances = apart.map(|(one, two)| rows[one].distance(&rows[two]));
    let finite = |distance: f64| {
        if distance.is_finite() {
            distance
        } else {
            f64::MAX.sqrt()
        }
    };
    distances.map(finite).fold(0.0, f64::max)
}

/// The largest finite magnitude.
fn scale(rows: &[Row]) -> f64 {
    let values = rows.iter().flat_map(|row| match row {
        Row::Floats(values) => values.as_slice(),
        Row::Exact(_) => &[],
    });
    values
        .copied()
        .map(f64::abs)
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max)
}

/// Relative rounding that kernels differ by when they sum in another order.
const fn kernel_rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-9,
        DType::F32 => 1e-4,
        DType::F16 => 1e-2,
        DType::Bf16 => 5e-2,
        _ => 0.0,
    }
}

/// One row of an output.
enum Row {
    Floats(Vec<f64>),
    Exact(Vec<u8>),
}

impl Row {
    /// The largest difference of two elements in one place. Of what is no number, 0 if equal and infinite if not.
    fn distance(&self, other: &Self) -> f64 {
        match (self, other) {
            (Self::Floats(one), Self::Floats(two)) => one
                .iter()
                .zip(two)
                .map(|(one, two)| apart(*one, *two))
                .fold(0.0, f64::max),
            (Self::Exact(one), Self::Exact(two)) if one == two => 0.0,
            _ => f64::INFINITY,
        }
    }
}

fn apart(one: f64, two: f64) -> f64 {
    let is_same = one.to_bits() == two.to_bits() || (one.is_nan() && two.is_nan());
    if is_same {
        return 0.0;
    }
    let distance = (one - two).abs();
    if distance.is_nan() {
        f64::INFINITY
    } else {
        distance
    }
}

fn rows(tensor: &Tensor) -> Vec<Row> {
    let each = vec![1; tensor.rows().unwrap_or(0)];
    let rows = tensor.split(&each).unwrap_or_default();
    rows.iter().map(row).collect()
}

fn row(row: &Tensor) -> Row {
    let data = row.data();
    let floats = |values: Vec<f64>| Row::Floats(values);
    match row.dtype() {
        DType::F16 => floats(elements(data, |bytes| {
            half::f16::from_le_bytes(bytes).into()
        })),
        DType::Bf16 => floats(elements(data, |bytes| {
            half::bf16::from_le_bytes(bytes).into()
        })),
        DType::F32 => floats(elements(data, |bytes| f32::from_le_bytes(bytes).into())),
        DType::F64 => floats(elements(data, f64::from_le_bytes)),
        _ => Row::Exact(data.to_vec()),
    }
}

fn elements<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}

fn different(output: &NamedTensor, how: &str) -> Finding {
    let name: String = output.name.chars().take(64).collect();
    Finding::Different(format!("output {name:?} {how}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        NamedTensor::new(
            name,
            Tensor::new(DType::F32, shape.to_vec(), data.into()).unwrap(),
        )
    }

    fn single(rows: usize, values: &[f32]) -> Single {
        let width = values.len() / rows;
        Single {
            rows,
            outputs: vec![tensor("y", &[rows, width], values)],
        }
    }

    fn found(singles: &[Single], shape: &[usize], stacked: &[f32]) -> Finding {
        let singles: Vec<&Single> = singles.iter().collect();
        compare(&singles, &[tensor("y", shape, stacked)])
    }

    fn same(is_telling: bool, is_exact: bool) -> Finding {
        Finding::Same {
            is_telling,
            is_exact,
        }
    }

    #[test]
    fn rounding_is_told_from_place() {
        let singles = [single(1, &[1.0, 2.0]), single(2, &[3.0, 4.0, 5.0, 6.0])];
        let of = |values: &[f32]| found(&singles, &[3, 2], values);
        assert_eq!(of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), same(true, true));
        assert_eq!(of(&[1.000_01, 2.0, 3.0, 4.0, 5.0, 6.0]), same(true, true));
        assert_eq!(of(&[1.05, 2.0, 3.0, 4.0, 5.0, 6.0]), same(true, false));
        for wrong in [
            [3.0, 4.0, 1.0, 2.0, 5.0, 6.0],
            [1.0, 2.0, 5.0, 6.0, 3.0, 4.0],
            [1.0, 2.0, 3.0, 4.0, 5.0, f32::NAN],
            [1.0, 2.2, 3.0, 4.0, 5.0, 6.0],
        ] {
            assert!(matches!(of(&wrong), Finding::Different(_)), "{wrong:?}");
        }
    }

    #[test]
    fn outputs_that_do_not_keep_the_rows_are_different() {
        let scalar = || Single {
            rows: 1,
            outputs: vec![tensor("y", &[], &[1.0])],
        };
        let wide = || Single {
            rows: 1,
            outputs: vec![tensor("y", &[2, 1], &[1.0, 2.0])],
        };
        for singles in [[scalar(), scalar()], [wide(), wide()]] {
            let finding = found(&singles, &[2, 1], &[1.0, 1.0]);
            assert!(
                matches!(&finding, Finding::Different(text) if text.contains("does not keep axis 0"))
            );
        }
        let finding = found(
            &[single(1, &[1.0]), single(1, &[2.0])],
            &[3, 1],
            &[1.0, 2.0, 3.0],
        );
        assert!(
            matches!(&finding, Finding::Different(text) if text.contains("[3, 1]")),
            "{finding:?}"
        );
        let two = Single {
            rows: 1,
            outputs: vec![tensor("y", &[1], &[1.0]), tensor("z", &[1], &[1.0])],
        };
        let finding = compare(&[&two, &two], &[tensor("y", &[2], &[1.0, 1.0])]);
        assert!(matches!(finding, Finding::Different(_)));
    }

    #[test]
    fn equal_requests_tell_nothing() {
        let singles = [single(1, &[1.0, 2.0]), single(1, &[1.0, 2.0])];
        assert_eq!(
            found(&singles, &[2, 2], &[1.0, 2.0, 1.0, 2.0]),
            same(false, true)
        );
        let nothing = [single(1, &[f32::NAN]), single(1, &[f32::NAN])];
        assert_eq!(found(&nothing, &[2, 1], &[f32::NAN; 2]), same(false, true));
    }

    proptest! {
        /// Rows in another order than their requests never pass for the same, unless they are.
        #[test]
        fn a_permutation_is_seen(
            values in prop::collection::vec(-1e3f32..1e3, 2..6),
            shift in 1usize..5,
        ) {
            let singles: Vec<_> = values.iter().map(|value| single(1, &[*value])).collect();
            let mut rotated = values.clone();
            rotated.rotate_left(shift % values.len());
            let finding = found(&singles, &[values.len(), 1], &rotated);
            let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let low = values.iter().copied().fold(f32::MAX, f32::min);
            let high = values.iter().copied().fold(f32::MIN, f32::max);
            let tolerance = (largest * 1e-4).max((high - low) * 0.02);
            let moved = values.iter().zip(&rotated).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert_eq!(matches!(finding, Finding::Different(_)), moved > tolerance * 1.000_01
                || (moved > tolerance && matches!(finding, Finding::Different(_))));
        }
    }
}
