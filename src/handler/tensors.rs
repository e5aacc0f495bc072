//! Resource `tensor-handle`: tensors that stay on the host while a handler looks at them.
//!
//! A handle lives for one call. Numbers are never used twice in a store: a handle that a guest kept from an earlier
//! request is unknown, and does not lead to another request's tensor.

use wasmtime::component::Resource;

use crate::tensor::{DType, Tensor};

use super::bindings::lantern::handler::types::{self, Dtype};
use super::fault::Exceeded;
use super::host::Host;

/// Marker type of the handles that guests have of tensors.
pub struct TensorHandle;

/// The tensors of the call under way, by handle.
#[derive(Default)]
pub(super) struct TensorTable {
    first: u32,
    tensors: Vec<Option<Tensor>>,
}

impl TensorTable {
    /// A handle for `tensor`; `None` if the store has used all numbers.
    pub fn push(&mut self, tensor: Tensor) -> Option<Resource<TensorHandle>> {
        let index = u32::try_from(self.tensors.len()).ok()?;
        let number = self.first.checked_add(index)?;
        self.tensors.push(Some(tensor));
        Some(Resource::new_own(number))
    }

    /// The tensor of a handle that the guest gave back. Its elements are shared, not copied.
    pub fn take(&mut self, handle: &Resource<TensorHandle>) -> Option<Tensor> {
        let index = handle.rep().checked_sub(self.first)?;
        self.tensors.get_mut(index as usize)?.take()
    }

    fn get(&self, handle: &Resource<TensorHandle>) -> Option<&Tensor> {
        let index = handle.rep().checked_sub(self.first)?;
        self.tensors.get(index as usize)?.as_ref()
    }

    /// Forgets all handles, at the end of a call.
    pub fn clear(&mut self) {
        let used = u32::try_from(self.tensors.len()).unwrap_or(u32::MAX);
        self.first = self.first.saturating_add(used);
        self.tensors.clear();
    }
}

impl Host {
    fn tensor(&self, handle: &Resource<TensorHandle>) -> wasmtime::Result<&Tensor> {
        self.tensors.get(handle).ok_or_else(stale)
    }
}

fn stale() -> wasmtime::Error {
    Exceeded::Forbidden("used a tensor handle of an earlier request".to_owned()).into()
}

impl types::Host for Host {}

impl types::HostTensorHandle for Host {
    fn dtype(&mut self, handle: Resource<TensorHandle>) -> wasmtime::Result<Dtype> {
        self.charge()?;
        let dtype = self.tensor(&handle)?.dtype();
        // Only tensors that `lower` made handles for are here, and it refuses dtypes without a name.
        dtype
            .try_into()
            .map_err(|Unnamed(dtype)| wasmtime::Error::msg(format!("{dtype} has no name here")))
    }

    fn shape(&mut self, handle: Resource<TensorHandle>) -> wasmtime::Result<Vec<u32>> {
        self.charge()?;
        let shape = self.tensor(&handle)?.shape();
        Ok(shape
            .iter()
            .map(|&axis| u32::try_from(axis).unwrap_or(u32::MAX))
            .collect())
    }

    fn read(
        &mut self,
        handle: Resource<TensorHandle>,
        offset: u64,
        len: u32,
    ) -> wasmtime::Result<Vec<u8>> {
        self.charge()?;
        let data = self.tensor(&handle)?.data();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let end = start.saturating_add(len as usize).min(data.len());
        Ok(data[start..end].to_vec())
    }

    fn drop(&mut self, handle: Resource<TensorHandle>) -> wasmtime::Result<()> {
        self.tensors.take(&handle);
        Ok(())
    }
}

/// A dtype that this version of the interface does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unnamed(pub DType);

impl TryFrom<DType> for Dtype {
    type Error = Unnamed;

    fn try_from(dtype: DType) -> Result<Self, Unnamed> {
        Ok(match dtype {
            DType::Bool => Self::Boolean,
            DType::U8 => Self::Uint8,
            DType::I8 => Self::Int8,
            DType::I16 => Self::Int16,
            DType::I32 => Self::Int32,
            DType::I64 => Self::Int64,
            DType::F16 => Self::Fp16,
            DType::Bf16 => Self::Bf16,
            DType::F32 => Self::Fp32,
            DType::F64 => Self::Fp64,
            DType::Bytes => Self::Bytes,
            DType::U16 | DType::U32 | DType::U64 => return Err(Unnamed(dtype)),
        })
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Boolean => Self::Bool,
            Dtype::Uint8 => Self::U8,
            Dtype::Int8 => Self::I8,
            Dtype::Int16 => Self::I16,
            Dtype::Int32 => Self::I32,
            Dtype::Int64 => Self::I64,
            Dtype::Fp16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Fp32 => Self::F32,
            Dtype::Fp64 => Self::F64,
            Dtype::Bytes => Self::Bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tensor(value: u8) -> Tensor {
        Tensor::new(DType::U8, vec![1], Bytes::copy_from_slice(&[value])).unwrap()
    }

    #[test]
    fn handles_of_an_earlier_call_are_unknown() {
        let mut table = TensorTable::default();
        let old = table.push(tensor(1)).unwrap();
        table.clear();
        let new = table.push(tensor(2)).unwrap();
        assert!(table.get(&old).is_none());
        assert_eq!(table.get(&new).unwrap().data()[0], 2);
    }

    #[test]
    fn a_tensor_can_be_taken_once() {
        let mut table = TensorTable::default();
        let handle = table.push(tensor(1)).unwrap();
        assert_eq!(table.take(&handle).unwrap(), tensor(1));
        assert!(table.take(&handle).is_none());
    }

    #[test]
    fn dtypes_cross_unchanged() {
        for dtype in DType::ALL {
            let has_name = !matches!(dtype, DType::U16 | DType::U32 | DType::U64);
            let crossed = Dtype::try_from(dtype).map(DType::from);
            assert_eq!(crossed, has_name.then_some(dtype).ok_or(Unnamed(dtype)));
        }
    }
}
