//! What a run gave, as the tensors that stand for it.

use std::sync::Arc;

use bytes::BytesMut;

use super::port::{Form, Member, Port};
use super::value::{OutputValue, StayingOutputs};
use crate::tensor::{DType, MAX_RANK, MAX_TENSORS, NamedTensor, Tensor};

impl Port {
    /// Appends the tensors that stand for what a run gave. The error is the rest of a sentence about the output.
    /// Tensors themselves may stay where they are, if `stay` says so; parts of sequences and maps are copied.
    pub(super) fn take_out(
        &self,
        given: OutputValue<'_>,
        stay: Option<StayingOutputs<'_>>,
        tensors: &mut Vec<NamedTensor>,
    ) -> Result<(), String> {
        if self.is_optional && !given.has_value() {
            return Ok(());
        }
        match &self.form {
            Form::Tensor(member) => tensors.push(member.named(given.into_tensor(stay)?)),
            Form::Sequence(elements) => {
                let mut gathered = Gathered::new(elements.dtype);
                for part in given.parts()? {
                    gathered.push(part?.tensor()?)?;
                }
                gathered.copy_out(elements, tensors)?;
            }
            Form::Map { keys, values } => {
                let given = given.keys_and_values()?;
                tensors.push(keys.named(given.0));
                tensors.push(values.named(given.1));
            }
            Form::Maps { keys, values } => copy_maps_out(&given, keys, values, tensors)?,
        }
        Ok(())
    }
}

fn copy_maps_out(
    given: &OutputValue<'_>,
    keys: &Member,
    values: &Member,
    tensors: &mut Vec<NamedTensor>,
) -> Result<(), String> {
    let mut gathered_keys = Gathered::new(keys.dtype);
    let mut gathered_values = Gathered::new(values.dtype);
    for map in given.parts()? {
        let (keys, values) = map?.keys_and_values()?;
        gathered_keys.push(keys)?;
        gathered_values.push(values)?;
    }
    gathered_keys.copy_out(keys, tensors)?;
    gathered_values.copy_out(values, tensors)
}

impl Member {
    fn named(&self, tensor: Tensor) -> NamedTensor {
        NamedTensor::new(Arc::clone(&self.name), tensor)
    }
}

/// The tensors of a sequence: stacked on a new axis 0 as long as all are alike, else one by one.
#[derive(Debug)]
enum Gathered {
    Stacked {
        dtype: DType,
        /// That of each; none of no tensors.
        shape: Option<Vec<usize>>,
        data: BytesMut,
        /// Bytes of each.
        lengths: Vec<usize>,
    },
    Apart(Vec<Tensor>),
}

impl Gathered {
    fn new(dtype: DType) -> Self {
        Self::Stacked {
            dtype,
            shape: None,
            data: BytesMut::new(),
            lengths: Vec::new(),
        }
    }

    fn push(&mut self, tensor: Tensor) -> Result<(), String> {
        let Some(tensor) = self.stacked(tensor) else {
            return Ok(());
        };
        let apart = self.apart()?;
        if apart.len() == MAX_TENSORS {
            return Err(too_many());
        }
        apart.push(tensor);
        Ok(())
    }

    /// Stacks a tensor, or gives it back if it is not like those before.
    fn stacked(&mut self, tensor: Tensor) -> Option<Tensor> {
        let Self::Stacked {
            dtype,
            shape,
            data,
            lengths,
        } = self
        else {
            return Some(tensor);
        };
        let shape = shape.get_or_insert_with(|| tensor.shape().to_vec());
        if tensor.dtype() != *dtype || tensor.shape() != shape || shape.len() == MAX_RANK {
            return Some(tensor);
        }
        data.extend_from_slice(tensor.data());
        lengths.push(tensor.data().len());
        None
    }

    /// The tensors one by one.
    fn apart(&mut self) -> Result<&mut Vec<Tensor>, String> {
        if let Self::Stacked {
            dtype,
            shape,
            data,
            lengths,
        } = self
        {
            if lengths.len() > MAX_TENSORS {
                return Err(too_many());
            }
            let shape = shape.take().unwrap_or_default();
            let tensors = lengths
                .iter()
                .map(|length| Tensor::new(*dtype, shape.clone(), data.split_to(*length).freeze()));
            let tensors: Result<Vec<_>, _> = tensors.collect();
            *self = Self::Apart(tensors.map_err(|error| error.to_string())?);
        }
        match self {
            Self::Apart(tensors) => Ok(tensors),
            Self::Stacked { .. } => Err("is stacked".to_owned()),
        }
    }

    /// Appends them, called after `member`.
    fn copy_out(self, member: &Member, tensors: &mut Vec<NamedTensor>) -> Result<(), String> {
        match self {
            Self::Stacked {
                dtype,
                shape,
                data,
                lengths,
            } => {
                let mut stacked = vec![lengths.len()];
                stacked.extend(shape.unwrap_or_default());
                let tensor = Tensor::new(dtype, stacked, data.freeze());
                tensors.push(member.named(tensor.map_err(|error| error.to_string())?));
            }
            Self::Apart(apart) => {
                let members = apart.into_iter().enumerate();
                tensors.extend(members.map(|(place, tensor)| {
                    NamedTensor::new(format!("{}.{place}", member.name), tensor)
                }));
            }
        }
        Ok(())
    }
}

fn too_many() -> String {
    format!(
        "has more than {MAX_TENSORS} tensors, which can only be stacked, and not all have one shape"
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tensor(shape: &[usize], fill: u8) -> Tensor {
        let length = shape.iter().product();
        Tensor::new(DType::U8, shape.to_vec(), vec![fill; length].into()).unwrap()
    }

    fn gathered(tensors: impl IntoIterator<Item = Tensor>) -> Result<Vec<NamedTensor>, String> {
        let member = Member {
            name: "x".into(),
            dtype: DType::U8,
        };
        let mut gathered = Gathered::new(member.dtype);
        for tensor in tensors {
            gathered.push(tensor)?;
        }
        let mut named = Vec::new();
        gathered.copy_out(&member, &mut named)?;
        Ok(named)
    }

    #[test]
    fn tensors_of_one_shape_are_stacked() {
        let stacked = gathered([tensor(&[2], 1), tensor(&[2], 2), tensor(&[2], 3)]).unwrap();
        let data = Bytes::from_static(&[1, 1, 2, 2, 3, 3]);
        let expected = Tensor::new(DType::U8, vec![3, 2], data).unwrap();
        assert_eq!(stacked, [NamedTensor::new("x", expected)]);
        let scalars = gathered([tensor(&[], 1), tensor(&[], 2)]).unwrap();
        assert_eq!(scalars[0].tensor.shape(), [2]);
    }

    #[test]
    fn tensors_of_several_shapes_are_numbered() {
        let all = [
            tensor(&[1], 1),
            tensor(&[1], 2),
            tensor(&[2], 3),
            tensor(&[1], 4),
        ];
        let numbered = gathered(all.clone()).unwrap();
        let names: Vec<_> = numbered.iter().map(|named| &*named.name).collect();
        assert_eq!(names, ["x.0", "x.1", "x.2", "x.3"]);
        let tensors: Vec<_> = numbered.into_iter().map(|named| named.tensor).collect();
        assert_eq!(tensors, all);
    }

    #[test]
    fn an_axis_too_many_keeps_tensors_apart() {
        let numbered = gathered([tensor(&[1; MAX_RANK], 7)]).unwrap();
        assert_eq!(&*numbered[0].name, "x.0");
        assert_eq!(numbered[0].tensor.shape().len(), MAX_RANK);
    }

    #[test]
    fn no_tensors_are_one_of_shape_zero() {
        let empty = gathered([]).unwrap();
        assert_eq!(empty, [NamedTensor::new("x", tensor(&[0], 0))]);
        let of_nothing = gathered([tensor(&[0, 3], 0), tensor(&[0, 3], 0)]).unwrap();
        assert_eq!(of_nothing[0].tensor.shape(), [2, 0, 3]);
    }

    #[test]
    fn a_million_are_stacked_and_not_numbered() {
        let alike = (0..1_000_000).map(|_| tensor(&[], 1));
        let stacked = gathered(alike.clone()).unwrap();
        assert_eq!(stacked[0].tensor.shape(), [1_000_000]);
        gathered(alike.chain([tensor(&[1], 1)])).unwrap_err();
        let grows = (0..=MAX_TENSORS).map(|length| tensor(&[length], 1));
        let text = gathered(grows).unwrap_err();
        assert!(text.contains("more than 1024"), "{text}");
    }
}
