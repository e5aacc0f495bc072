//! From a divided body to a request, and the form its response is to have.

use super::binary::{self, Parts};
use crate::api::oip::json::{self, Form, Head};
use crate::api::oip::{InferRequest, Parameters, RequestedOutput};
use crate::catalog::Signature;
use crate::error::Error;

/// The request in a body for a model of that signature.
pub(super) fn decode(parts: Parts, signature: &Signature) -> Result<(InferRequest, Form), Error> {
    match parts {
        Parts::Document { json, binary } => {
            let (head, read) = json::request(&json)?;
            let inputs = binary::attach(&head.inputs, read, binary)?;
            let form = form(&head)?;
            let outputs = head.outputs.into_iter();
            let outputs = outputs.map(|(name, parameters)| RequestedOutput::new(name, &parameters));
            let request = InferRequest {
                id: head.id,
                parameters: head.parameters,
                inputs,
                outputs: outputs.collect::<Result<_, _>>()?,
            };
            Ok((request, form))
        }
        Parts::Tensor(body) => {
            let request = InferRequest {
                id: None,
                parameters: Parameters::default(),
                inputs: vec![binary::whole(signature, body)?],
                outputs: Vec::new(),
            };
            let form = Form {
                is_binary: true,
                by_name: Vec::new(),
            };
            Ok((request, form))
        }
    }
}

/// Which outputs are to be binary: what an output says of itself goes before what the request says of all.
fn form(head: &Head) -> Result<Form, Error> {
    let is_binary = head.parameters.flag("binary_data_output")?.unwrap_or(false);
    let mut by_name = Vec::new();
    for (name, parameters) in &head.outputs {
        if let Some(is_binary) = parameters.flag("binary_data")? {
            by_name.push((name.clone(), is_binary));
        }
    }
    Ok(Form { is_binary, by_name })
}
