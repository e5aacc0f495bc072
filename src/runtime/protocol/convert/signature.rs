//! What a model may say of its inputs and outputs, wherever it is hosted: as much as a worker process can report.

use crate::backend::Signature;
use crate::model::TensorSpec;
use crate::runtime::protocol::SIGNATURE_LIMIT;
use crate::tensor::{MAX_NAME, MAX_RANK, MAX_TENSORS};

use super::{signature_to_wire, truncated};

/// Bytes of a name that a message shows.
const SHOWN: usize = 64;

/// Why a model is not served: the thing, the rule and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Too many inputs or outputs.
    #[error("the model has {count} {what}s, {MAX_TENSORS} are served")]
    Count {
        /// `input` or `output`.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Too long a name.
    #[error("{what} {name:?}… has a name of {length} bytes, names have at most {MAX_NAME}")]
    Name {
        /// `input` or `output`.
        what: &'static str,
        /// How it begins.
        name: String,
        /// Bytes.
        length: usize,
    },
    /// Too many axes.
    #[error("{what} {name:?} has {rank} axes, tensors have at most {MAX_RANK}")]
    Rank {
        /// `input` or `output`.
        what: &'static str,
        /// Its name, or how it begins.
        name: String,
        /// How many.
        rank: usize,
    },
    /// Too much of all.
    #[error(
        "the names and shapes of the model's inputs and outputs take {0} bytes, {SIGNATURE_LIMIT} are served"
    )]
    Size(usize),
}

/// Whether a model can be served that has this signature.
pub fn check_signature(signature: &Signature) -> Result<(), SignatureError> {
    check_specs("input", &signature.inputs)?;
    check_specs("output", &signature.outputs)?;
    let size =
        postcard::to_stdvec(&signature_to_wire(signature)).map_or(usize::MAX, |bytes| bytes.len());
    if size > SIGNATURE_LIMIT {
        return Err(SignatureError::Size(size));
    }
    Ok(())
}

fn check_specs(what: &'static str, specs: &[TensorSpec]) -> Result<(), SignatureError> {
    let count = specs.len();
    if count > MAX_TENSORS {
        return Err(SignatureError::Count { what, count });
    }
    specs.iter().try_for_each(|spec| check_spec(what, spec))
}

fn check_spec(what: &'static str, spec: &TensorSpec) -> Result<(), SignatureError> {
    let name = truncated(&spec.name, SHOWN).to_owned();
    let (length, rank) = (spec.name.len(), spec.shape.as_ref().map_or(0, Vec::len));
    if length > MAX_NAME {
        return Err(SignatureError::Name { what, name, length });
    }
    if rank > MAX_RANK {
        return Err(SignatureError::Rank { what, name, rank });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arity;
    use crate::tensor::DType;

    fn spec(name: &str, rank: usize) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype: Some(DType::F32),
            shape: Some(vec![Some(1); rank]),
            arity: Arity::One,
        }
    }

    fn specs(count: usize, name: usize) -> Vec<TensorSpec> {
        (0..count)
            .map(|index| spec(&format!("{index:0>name$}"), 1))
            .collect()
    }

    fn refusal(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Option<String> {
        let refused = check_signature(&Signature {
            inputs,
            outputs,
            ..Signature::default()
        });
        refused.err().map(|error| error.to_string())
    }

    #[test]
    fn what_fits_is_served() {
        assert_eq!(refusal(vec![], vec![]), None);
        assert_eq!(refusal(specs(1024, 100), specs(1024, 100)), None);
        let longest = spec(&"n".repeat(MAX_NAME), MAX_RANK);
        assert_eq!(refusal(vec![longest], vec![]), None);
    }

    #[test]
    fn refusals_name_the_thing_the_rule_and_the_value() {
        for (inputs, outputs, says) in [
            (
                specs(3000, 1),
                vec![],
                "the model has 3000 inputs, 1024 are served",
            ),
            (
                vec![],
                specs(1025, 1),
                "the model has 1025 outputs, 1024 are served",
            ),
            (
                vec![spec(&"n".repeat(1025), 1)],
                vec![],
                "has a name of 1025 bytes, names have at most 1024",
            ),
            (
                vec![spec("x", MAX_RANK + 1)],
                vec![],
                &format!(
                    "input \"x\" has {} axes, tensors have at most {MAX_RANK}",
                    MAX_RANK + 1
                ),
            ),
            (specs(1000, 1000), vec![], "bytes, 983040 are served"),
        ] {
            let refusal = refusal(inputs, outputs).unwrap_or_default();
            assert!(refusal.contains(says), "{refusal}");
        }
    }
}
