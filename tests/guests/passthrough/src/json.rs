//! One tensor as JSON.

use handler_sdk::{Dtype, Element, Error, Tensor, bf16, f16};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A tensor's name, dtype, shape and flat elements.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TensorJson {
    name: String,
    dtype: String,
    shape: Vec<u32>,
    data: Vec<Value>,
}

impl TensorJson {
    /// The tensor that this describes.
    pub fn into_tensor(self) -> Result<Tensor, Error> {
        match self.dtype.parse()? {
            Dtype::Boolean => self.typed(|value: bool| value),
            Dtype::Uint8 => self.typed(|value: u8| value),
            Dtype::Int8 => self.typed(|value: i8| value),
            Dtype::Int16 => self.typed(|value: i16| value),
            Dtype::Int32 => self.typed(|value: i32| value),
            Dtype::Int64 => self.typed(|value: i64| value),
            Dtype::Fp16 => self.typed(f16::from_f64),
            Dtype::Bf16 => self.typed(bf16::from_f64),
            Dtype::Fp32 => self.typed(|value: f32| value),
            Dtype::Fp64 => self.typed(|value: f64| value),
            Dtype::Bytes => self.strings(),
        }
    }

    fn typed<J: DeserializeOwned, T: Element>(self, convert: fn(J) -> T) -> Result<Tensor, Error> {
        let values: Vec<T> = self.values()?.into_iter().map(convert).collect();
        Tensor::from_vec(self.name, self.shape, values).map_err(clients_fault)
    }

    fn strings(self) -> Result<Tensor, Error> {
        let values: Vec<String> = self.values()?;
        Tensor::from_strings(self.name, self.shape, &values).map_err(clients_fault)
    }

    fn values<J: DeserializeOwned>(&self) -> Result<Vec<J>, Error> {
        let parse = |value: &Value| J::deserialize(value).map_err(|error| self.wrong_value(&error));
        self.data.iter().map(parse).collect()
    }

    fn wrong_value(&self, error: &serde_json::Error) -> Error {
        Error::bad_request(format!("tensor `{}` of {}: {error}", self.name, self.dtype))
    }

    /// The description of `tensor`.
    pub fn of_tensor(tensor: &Tensor) -> Result<Self, Error> {
        let data = match tensor.dtype() {
            Dtype::Boolean => data(tensor, |value: bool| value)?,
            Dtype::Uint8 => data(tensor, |value: u8| value)?,
            Dtype::Int8 => data(tensor, |value: i8| value)?,
            Dtype::Int16 => data(tensor, |value: i16| value)?,
            Dtype::Int32 => data(tensor, |value: i32| value)?,
            Dtype::Int64 => data(tensor, |value: i64| value)?,
            Dtype::Fp16 => data(tensor, f16::to_f64)?,
            Dtype::Bf16 => data(tensor, bf16::to_f64)?,
            Dtype::Fp32 => data(tensor, |value: f32| f64::from(value))?,
            Dtype::Fp64 => data(tensor, |value: f64| value)?,
            Dtype::Bytes => texts(tensor)?,
        };
        let (name, shape) = (tensor.name().to_owned(), tensor.shape().to_vec());
        Ok(Self {
            name,
            dtype: tensor.dtype().to_string(),
            shape,
            data,
        })
    }
}

fn data<T: Element, J: Into<Value>>(
    tensor: &Tensor,
    convert: fn(T) -> J,
) -> Result<Vec<Value>, Error> {
    Ok(tensor
        .view::<T>()?
        .iter()
        .map(|&value| convert(value).into())
        .collect())
}

fn texts(tensor: &Tensor) -> Result<Vec<Value>, Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into();
    Ok(tensor.strings()?.into_iter().map(text).collect())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err wants"
)]
fn clients_fault(error: Error) -> Error {
    Error::bad_request(error.message())
}
