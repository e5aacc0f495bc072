//! Whether a stacked run gave each request what a run of its own gave.
//!
//! Outputs are compared place by place within a row. Kernels of frameworks round differently for other batch sizes, so floats
//! may differ by rounding. The single runs show what the row of another request would look like, which tells the difference
//! between rounding and a row in the wrong place.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use crate::tensor::{DType, NamedTensor, Tensor};

/// A difference of at most this fraction of the distance between the outputs of different requests counts as rounding that
/// depends on the other requests in the run, as in models that are quantized dynamically.
const SHARED_ROUNDING: f64 = 0.02;
/// Rows in the wrong place show where different requests differ by at least this many tolerances.
const TELLING: f64 = 8.0;
const DIFFERS: &str = "differs between single and stacked runs";

/// What a run of one request by itself gave.
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
    /// Each request got what it gets by itself.
    Same {
        /// Whether a row in the wrong place would have shown in every output.
        is_telling: bool,
        /// Whether it is the same but for a kernel's rounding, without rounding that depends on the other requests.
        is_exact: bool,
    },
    /// A request got something else. The text says what.
    Different(String),
}

/// Compares the outputs of a run of `singles`, stacked in that order, with what each run by itself gave.
pub(crate) fn compare(singles: &[&Single], stacked: &[NamedTensor]) -> Finding {
    let (mut is_telling, mut is_exact) = (true, true);
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
                is_telling &= tells;
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
    let (own, together) = (columns(&expected), columns(&output.tensor));
    let rows: Vec<usize> = singles.iter().map(|single| single.rows).collect();
    by_place(&own, &together, &rows, output)
}

/// Compares place by place within a row, since the values in the places of one output may be of different sizes. `rows` are the
/// rows of each request, in order.
fn by_place(own: &Columns, together: &Columns, rows: &[usize], output: &NamedTensor) -> Finding {
    let rounding = Rounding::of(output.tensor.dtype(), own);
    let (mut is_telling, mut is_exact) = (false, true);
    for (own, together) in own.0.iter().zip(&together.0) {
        let Some(place) = Place::of(own, together, rows) else {
            return different(output, DIFFERS);
        };
        let exact = rounding.of_place(place.scale);
        let tolerance = exact.max(SHARED_ROUNDING * place.spread);
        if place.moved > tolerance {
            return different(output, DIFFERS);
        }
        is_exact &= place.moved <= exact;
        is_telling |= place.is_mixed || place.spread > TELLING * tolerance.max(f64::MIN_POSITIVE);
    }
    Finding::Same {
        is_telling,
        is_exact,
    }
}

/// One place in all rows, alone and stacked.
struct Place {
    /// The largest finite magnitude.
    scale: f64,
    /// The largest finite distance between rows of different requests.
    spread: f64,
    /// The largest distance between a row alone and stacked.
    moved: f64,
    /// One request has a value that is no finite number where another has none, which no rounding explains.
    is_mixed: bool,
}

impl Place {
    /// `None` where a value that is not finite alone is another one stacked, or the other way round.
    fn of(own: &[f64], together: &[f64], rows: &[usize]) -> Option<Self> {
        let moved = own
            .iter()
            .zip(together)
            .map(|(own, together)| moved(*own, *together));
        let moved = moved.collect::<Option<Vec<_>>>()?;
        let ranges = ranges(own, rows);
        let kinds = |range: &Range| range.has_others;
        let scale = own.iter().copied().filter(|value| value.is_finite());
        Some(Self {
            scale: largest(scale.map(f64::abs)),
            spread: spread(&ranges),
            moved: largest(moved.into_iter()),
            is_mixed: ranges.iter().any(kinds) && !ranges.iter().all(kinds),
        })
    }
}

/// How far a value moved; `None` if one of the two is not finite and they differ.
fn moved(own: f64, together: f64) -> Option<f64> {
    let is_same = own.to_bits() == together.to_bits() || (own.is_nan() && together.is_nan());
    if is_same {
        return Some(0.0);
    }
    let distance = (own - together).abs();
    distance.is_finite().then_some(distance)
}

/// The range of one request's values in one place.
struct Range {
    low: f64,
    high: f64,
    /// Whether some values are not finite.
    has_others: bool,
}

fn ranges(values: &[f64], rows: &[usize]) -> Vec<Range> {
    let mut rest = values;
    let range = |rows: &usize| {
        let (own, others) = rest.split_at((*rows).min(rest.len()));
        rest = others;
        let finite = || own.iter().copied().filter(|value| value.is_finite());
        Range {
            low: finite().fold(f64::INFINITY, f64::min),
            high: finite().fold(f64::NEG_INFINITY, f64::max),
            has_others: finite().count() < own.len(),
        }
    };
    rows.iter().map(range).collect()
}

/// The largest distance between a value of one request and a value of another.
fn spread(ranges: &[Range]) -> f64 {
    let pairs = ranges.iter().enumerate().flat_map(|(index, one)| {
        let others = ranges
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != index);
        others.map(|(_, other)| one.high - other.low)
    });
    largest(pairs.filter(|distance| distance.is_finite()))
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// The rounding of kernels that sum in another order.
struct Rounding {
    /// As a fraction of the value itself.
    relative: f64,
    /// The least rounding, a fraction of the output's largest value: it remains where larger values cancel out.
    absolute: f64,
}

impl Rounding {
    fn of(dtype: DType, own: &Columns) -> Self {
        let (relative, of_largest) = match dtype {
            DType::F64 => (1e-9, 1e-13),
            DType::F32 => (1e-4, 2e-6),
            DType::F16 => (1e-2, 1e-3),
            DType::Bf16 => (5e-2, 8e-3),
            _ => (0.0, 0.0),
        };
        let values = own.0.iter().flatten().copied();
        let finite = values.filter(|value| value.is_finite());
        Self {
            relative,
            absolute: of_largest * largest(finite.map(f64::abs)),
        }
    }

    fn of_place(&self, scale: f64) -> f64 {
        (self.relative * scale).max(self.absolute)
    }
}

/// A tensor by places within a row: each has the values of all rows. A tensor that does not hold floats has one place, whose
/// values are equal where the rows are.
struct Columns(Vec<Vec<f64>>);

fn columns(tensor: &Tensor) -> Columns {
    let data = tensor.data();
    let values = match tensor.dtype() {
        DType::F16 => elements(data, |bytes| half::f16::from_le_bytes(bytes).into()),
        DType::Bf16 => elements(data, |bytes| half::bf16::from_le_bytes(bytes).into()),
        DType::F32 => elements(data, |bytes| f32::from_le_bytes(bytes).into()),
        DType::F64 => elements(data, f64::from_le_bytes),
        _ => return Columns(vec![fingerprints(tensor)]),
    };
    let width = values.len() / tensor.rows().unwrap_or(1).max(1);
    let column = |place| values.iter().skip(place).step_by(width).copied().collect();
    Columns((0..width).map(column).collect())
}

/// A number for each row, equal for equal rows.
fn fingerprints(tensor: &Tensor) -> Vec<f64> {
    let each = vec![1; tensor.rows().unwrap_or(0)];
    let rows = tensor.split(&each).unwrap_or_default();
    let fingerprint = |row: &Tensor| {
        let mut hasher = DefaultHasher::new();
        row.data().hash(&mut hasher);
        // A double holds 52 bits exactly.
        #[expect(clippy::cast_precision_loss, reason = "52 bits fit")]
        let number = (hasher.finish() >> 12) as f64;
        number
    };
    rows.iter().map(fingerprint).collect()
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

    #[test]
    fn what_is_no_number_hides_no_row_of_another() {
        let low = f32::NEG_INFINITY;
        let singles = [single(1, &[1.0, low]), single(1, &[2.0, 3.0])];
        let of = |values: &[f32]| found(&singles, &[2, 2], values);
        assert_eq!(of(&[1.0, low, 2.0, 3.0]), same(true, true));
        for wrong in [
            [2.0, low, 1.0, 3.0],
            [1.0, 3.0, 2.0, low],
            [1.0, f32::NAN, 2.0, 3.0],
            [1.0, f32::INFINITY, 2.0, 3.0],
        ] {
            assert!(matches!(of(&wrong), Finding::Different(_)), "{wrong:?}");
        }
    }

    #[test]
    fn large_places_hide_nothing_in_small_ones() {
        // As of Concat(1000 x, Softmax(x, axis 0)).
        let singles = [single(1, &[1000.0, 1.0]), single(1, &[9000.0, 1.0])];
        let mixed = found(&singles, &[2, 2], &[1000.0, 0.3, 9000.0, 0.7]);
        assert!(matches!(mixed, Finding::Different(_)), "{mixed:?}");
        // What is left where large values cancel out is rounding.
        let near_zero = [single(1, &[1000.0, 1e-4]), single(1, &[9000.0, -1e-4])];
        let found = found(&near_zero, &[2, 2], &[1000.0, 1e-3, 9000.0, 0.0]);
        assert_eq!(found, same(true, true));
    }

    #[test]
    fn what_is_no_float_is_equal_or_not() {
        let texts = |texts: &[&str]| {
            let prefixed =
                |text: &&str| [&[text.len().to_le_bytes()[0], 0, 0, 0], text.as_bytes()].concat();
            let data: Vec<u8> = texts.iter().flat_map(prefixed).collect();
            let tensor = Tensor::new(DType::Bytes, vec![texts.len(), 1], data.into()).unwrap();
            vec![NamedTensor::new("y", tensor)]
        };
        let single = |text| Single {
            rows: 1,
            outputs: texts(&[text]),
        };
        let singles = [single("cat"), single("a dog")];
        let of = |stacked: &[&str]| compare(&[&singles[0], &singles[1]], &texts(stacked));
        assert_eq!(of(&["cat", "a dog"]), same(true, true));
        assert!(matches!(of(&["a dog", "cat"]), Finding::Different(_)));
    }

    proptest! {
        /// A row in the place of another never passes for the same where any of its places tells them apart, whatever the
        /// sizes of the others.
        #[test]
        fn swapped_rows_are_seen(
            rows in prop::collection::vec((-1f32..1.0, -1e3f32..1e3, prop::sample::select(vec![0.5, f32::NEG_INFINITY])), 2..6),
            one in 0usize..6,
            two in 0usize..6,
        ) {
            let (one, two) = (one % rows.len(), two % rows.len());
            let small = rows.iter().map(|row| row.0);
            let (low, high) = small.fold((1.0f32, -1.0f32), |(low, high), value| (low.min(value), high.max(value)));
            // Else it may pass for rounding.
            prop_assume!((rows[one].0 - rows[two].0).abs() > 0.05 * (high - low).max(0.1));
            let flat = |rows: &[(f32, f32, f32)]| -> Vec<f32> {
                rows.iter().flat_map(|row| [row.0, row.1, row.2]).collect()
            };
            let singles: Vec<_> = rows.iter().map(|row| single(1, &[row.0, row.1, row.2])).collect();
            let right = found(&singles, &[rows.len(), 3], &flat(&rows));
            let is_same = matches!(right, Finding::Same { is_exact: true, .. });
            prop_assert!(is_same, "{:?}", right);
            let mut swapped = rows.clone();
            swapped.swap(one, two);
            let wrong = found(&singles, &[rows.len(), 3], &flat(&swapped));
            prop_assert!(matches!(wrong, Finding::Different(_)));
        }
    }
}
