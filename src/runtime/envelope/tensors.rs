//! KServe's second protocol as TorchServe's `kservev2` envelope has it: `{"inputs": […]}`, `{"outputs": […]}`.
//!
//! Each input is a request to the handler, as JSON: `{"name", "shape", "datatype", "data"}`, with the data nested as the
//! shape says, or the first of its elements where they are BYTES. Each answer is an output with the name of its input.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Answer, JSON, Row, Wrapped, answers};
use crate::model::ModelSpec;
use crate::payload::Response;
use crate::tensor::MAX_RANK;

/// Lists that are made for each element. Without a limit, axes of one element would make a hundred bytes of two.
const LISTS_LIMIT: usize = 8;

pub(super) fn read(input: Value) -> Result<Row, String> {
    let Value::Object(mut input) = input else {
        return Err("must be an object with name, shape, datatype and data".to_owned());
    };
    let name = text(&input, "name")?.to_owned();
    let is_bytes = text(&input, "datatype")? == "BYTES";
    let Some(Value::Array(data)) = input.remove("data") else {
        return Err(format!("({name}) must have a list \"data\""));
    };
    let data = if is_bytes {
        let first = data.into_iter().next();
        let first = first.ok_or_else(|| format!("({name}) must have an element in \"data\""))?;
        first.to_string()
    } else {
        shaped(data, input.get("shape")).map_err(|rule| format!("({name}) {rule}"))?
    };
    Ok(Row {
        name,
        ..Row::new(Some(JSON), with_data(input, &data))
    })
}

/// The object that `input`, which has members, is with `data` at its end.
fn with_data(input: Map<String, Value>, data: &str) -> String {
    let mut text = Value::Object(input).to_string();
    text.pop();
    text.push_str(",\"data\":");
    text.push_str(data);
    text.push('}');
    text
}

fn text<'a>(input: &'a Map<String, Value>, member: &str) -> Result<&'a str, String> {
    let value = input.get(member).and_then(Value::as_str);
    value.ok_or_else(|| format!("must have a text {member:?}"))
}

/// The elements of `data` in JSON, nested as `shape` says; -1 in it is what the number of elements leaves.
fn shaped(data: Vec<Value>, shape: Option<&Value>) -> Result<String, String> {
    let elements = flat(Value::Array(data));
    let shape = shape
        .and_then(Value::as_array)
        .filter(|axes| axes.len() <= MAX_RANK)
        .and_then(|axes| axes.iter().map(Value::as_i64).collect::<Option<Vec<_>>>())
        .ok_or_else(|| format!("must have as \"shape\" a list of at most {MAX_RANK} sizes"))?;
    let sizes = sizes(&shape, elements.len());
    let sizes = sizes.ok_or_else(|| {
        let count = elements.len();
        format!("has {count} elements, which shape {shape:?} does not hold")
    })?;
    if elements.is_empty() {
        return Ok("[]".to_owned());
    }
    let (lists, most) = (lists(&sizes), LISTS_LIMIT * elements.len() + MAX_RANK);
    if lists > most {
        return Err(format!(
            "has a shape of {lists} lists, at most {LISTS_LIMIT} are made for each element"
        ));
    }
    let mut text = String::new();
    write_nested(&mut text, &mut elements.into_iter(), &sizes);
    Ok(text)
}

/// How many lists are within each other and beside each other in that shape.
fn lists(sizes: &[usize]) -> usize {
    let mut beside = 1_usize;
    let of_axis = sizes.iter().map(|size| {
        let lists = beside;
        beside = beside.saturating_mul(*size);
        lists
    });
    of_axis.fold(0, usize::saturating_add)
}

/// The size of each axis; `None` if they do not make `count` elements.
fn sizes(shape: &[i64], count: usize) -> Option<Vec<usize>> {
    let known = shape.iter().filter(|size| **size != -1);
    let mut known = known.map(|size| usize::try_from(*size).ok());
    let product = known.try_fold(1_usize, |product, size| product.checked_mul(size?))?;
    let left = match shape.iter().filter(|size| **size == -1).count() {
        0 => 1,
        1 => count.checked_div(product)?,
        _ => return None,
    };
    (product.checked_mul(left)? == count).then(|| {
        let size = |size: &i64| usize::try_from(*size).unwrap_or(left);
        shape.iter().map(size).collect()
    })
}

/// Written at once: as values the lists would take many times the memory.
fn write_nested(text: &mut String, elements: &mut impl Iterator<Item = Value>, sizes: &[usize]) {
    let [size, inner @ ..] = sizes else {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", elements.next().unwrap_or_default());
        return;
    };
    text.push('[');
    for index in 0..*size {
        if index > 0 {
            text.push(',');
        }
        write_nested(text, elements, inner);
    }
    text.push(']');
}

/// Everything in `value` that is no list, in order.
fn flat(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values.into_iter().flat_map(flat).collect(),
        other => vec![other],
    }
}

pub(super) fn wrap(
    wrapped: &Wrapped,
    model: &ModelSpec,
    responses: &[Response],
) -> Result<Vec<u8>, String> {
    let outputs = answers(responses).zip(&wrapped.names);
    let outputs = outputs.map(|(answer, name)| {
        let (place, answer) = answer?;
        output(name, answer)
            .map_err(|error| format!("the answer to row {place} cannot be read: {error}"))
    });
    let outputs = outputs.collect::<Result<Vec<_>, String>>()?;
    let response = json!({
        "id": wrapped.id.as_deref().unwrap_or(&wrapped.request.id),
        "model_name": model.name.as_str(),
        "model_version": model.version.as_str(),
        "outputs": outputs,
    });
    Ok(response.to_string().into_bytes())
}

/// Fails for JSON beyond what can be read: numbers out of range, lists nested too deep, half a character.
fn output(name: &str, answer: Answer<'_>) -> Result<Value, serde_json::Error> {
    let value = match answer {
        Answer::Json(json) => serde_json::from_slice(json)?,
        Answer::Text(text) => Value::from(text),
    };
    let elements = flat(value);
    let datatype = datatype(&elements);
    let elements: Vec<Value> = match datatype {
        "BYTES" => elements.into_iter().map(as_bytes).collect(),
        _ => elements,
    };
    let shape = [elements.len()];
    Ok(json!({ "name": name, "datatype": datatype, "data": elements, "shape": shape }))
}

/// The narrowest of BOOL, INT64, UINT64 and FP64 that all elements are of; otherwise they are texts.
fn datatype(elements: &[Value]) -> &'static str {
    let all = |is_it: fn(&Value) -> bool| !elements.is_empty() && elements.iter().all(is_it);
    match () {
        () if all(Value::is_boolean) => "BOOL",
        () if all(Value::is_i64) => "INT64",
        () if all(Value::is_u64) => "UINT64",
        () if elements.iter().all(Value::is_number) => "FP64",
        () => "BYTES",
    }
}

/// Texts and objects stay as they are.
fn as_bytes(element: Value) -> Value {
    match element {
        Value::String(_) | Value::Object(_) => element,
        other => Value::from(other.to_string()),
    }
}
