//! A request without the data of its tensors.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::oip::{Parameter, Parameters, datatype, invalid, parameters, shown};
use crate::error::Error;
use crate::tensor::{DType, MAX_RANK, MAX_TENSORS, TensorError};

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct Head {
    pub id: Option<String>,
    pub parameters: Parameters,
    pub inputs: Vec<InputHead>,
    /// Name and parameters of each output that is named.
    pub outputs: Vec<(String, Parameters)>,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct InputHead {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub parameters: Parameters,
    /// Whether the document holds its data.
    pub has_data: bool,
}

impl Head {
    pub(super) fn new(raw: RawHead) -> Result<Self, Error> {
        let inputs = raw.inputs.0.into_iter().map(InputHead::new);
        let outputs = raw.outputs.map(|outputs| outputs.0).unwrap_or_default();
        let outputs = outputs
            .into_iter()
            .map(|raw| Ok((raw.name, read_parameters(raw.parameters)?)));
        Ok(Self {
            id: raw.id,
            parameters: read_parameters(raw.parameters)?,
            inputs: inputs.collect::<Result<_, Error>>()?,
            outputs: outputs.collect::<Result<_, Error>>()?,
        })
    }
}

impl InputHead {
    fn new(raw: RawInput) -> Result<Self, Error> {
        let parameters = read_parameters(raw.parameters)?;
        parameters.check_of_tensor()?;
        let dtype = datatype::parse(&raw.name, &raw.datatype)?;
        let axes = raw.shape.0.iter().map(|axis| usize::try_from(*axis));
        let shape = axes.collect::<Result<_, _>>();
        Ok(Self {
            shape: shape.map_err(|_| too_large(&raw.name))?,
            name: raw.name,
            dtype,
            parameters,
            has_data: raw.data.is_some(),
        })
    }

    /// The failure of a tensor that cannot exist.
    pub(in crate::api) fn refused(&self, error: &TensorError) -> Error {
        invalid(format!("input {}: {error}", shown(&self.name)))
    }
}

fn too_large(name: &str) -> Error {
    invalid(format!(
        "shape of input {} is beyond this machine",
        shown(name)
    ))
}

/// The heads of the tensors that a handler's response lists.
pub(super) fn outputs_of_handler(raw: RawAnswer) -> Result<Vec<InputHead>, Error> {
    let heads = raw.outputs.0.into_iter().map(InputHead::new);
    heads.collect()
}

fn read_parameters(raw: Option<RawParameters>) -> Result<Parameters, Error> {
    Parameters::new(raw.map(|raw| raw.0).unwrap_or_default())
}

/// A handler's response, as far as it lists tensors.
#[derive(Deserialize)]
pub(super) struct RawAnswer {
    outputs: AtMost<RawInput, MAX_TENSORS>,
}

/// A request as it is written.
#[derive(Deserialize)]
pub(super) struct RawHead {
    id: Option<String>,
    parameters: Option<RawParameters>,
    inputs: AtMost<RawInput, MAX_TENSORS>,
    outputs: Option<AtMost<RawOutput, MAX_TENSORS>>,
}

#[derive(Deserialize)]
struct RawInput {
    name: String,
    shape: AtMost<u64, MAX_RANK>,
    datatype: String,
    parameters: Option<RawParameters>,
    data: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    parameters: Option<RawParameters>,
}

/// A list of at most `N` items.
struct AtMost<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMostVisitor(PhantomData))
    }
}

struct AtMostVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for AtMostVisitor<T, N> {
    type Value = AtMost<T, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {N}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == N {
                return Err(A::Error::custom(format!("a list has more than {N} items")));
            }
            items.push(item);
        }
        Ok(AtMost(items))
    }
}

/// A flat map.
struct RawParameters(Vec<(String, Parameter)>);

impl<'de> Deserialize<'de> for RawParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ParametersVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = RawParameters;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("parameters by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawParameters, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, RawParameter(value))) = map.next_entry()? {
            if pairs.len() == parameters::LIMIT {
                let text = format!("there may be {} parameters", parameters::LIMIT);
                return Err(A::Error::custom(text));
            }
            pairs.push((name, value));
        }
        Ok(RawParameters(pairs))
    }
}

struct RawParameter(Parameter);

impl<'de> Deserialize<'de> for RawParameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParameterVisitor).map(Self)
    }
}

struct ParameterVisitor;

impl Visitor<'_> for ParameterVisitor {
    type Value = Parameter;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number or a flag")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Parameter, E> {
        Ok(Parameter::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Parameter, E> {
        Ok(Parameter::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Parameter, E> {
        Ok(Parameter::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Parameter, E> {
        Ok(Parameter::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Parameter, E> {
        Ok(Parameter::Text(text.to_owned()))
    }
}
