//! The model's answer to one request.

use crate::{Error, Tensor};

/// This request's rows of the model's outputs, in the model's order.
#[derive(Debug)]
pub struct Outputs {
    tensors: Vec<Tensor>,
}

impl Outputs {
    /// The output called `name`.
    ///
    /// # Errors
    /// Internal, naming the outputs that there are.
    pub fn get(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors
            .iter()
            .find(|tensor| tensor.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = self.tensors.iter().map(Tensor::name).collect();
                Error::internal(format!("the model has no output `{name}`, only {names:?}"))
            })
    }

    /// The only output of a model that has one, whatever its name.
    ///
    /// # Errors
    /// Internal, if the model has none or several.
    pub fn single(&self) -> Result<&Tensor, Error> {
        match self.tensors.as_slice() {
            [tensor] => Ok(tensor),
            tensors => Err(Error::internal(format!(
                "the model has {} outputs where the handler expects one",
                tensors.len()
            ))),
        }
    }

    /// The outputs, in the model's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }
}

impl From<Vec<Tensor>> for Outputs {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self { tensors }
    }
}

impl<'a> IntoIterator for &'a Outputs {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_output_names_those_that_exist() {
        let outputs = Outputs::from(vec![Tensor::from_vec("y", [1], [1.0f32]).unwrap()]);
        assert_eq!(outputs.single().unwrap().name(), "y");
        assert_eq!(
            outputs.get("logits").unwrap_err().message(),
            "the model has no output `logits`, only [\"y\"]"
        );
        assert!(Outputs::from(vec![]).single().is_err());
    }
}
