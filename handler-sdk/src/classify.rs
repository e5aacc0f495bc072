//! From scores to named classes: softmax, top-k, labels, and the answer that TorchServe's image classifier gives.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::{Error, assets};

/// Probabilities of `scores`: positive, summing to 1. Large scores do not overflow.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut exponentials: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    for value in &mut exponentials {
        *value /= sum;
    }
    exponentials
}

/// The indices and values of the `k` largest, descending; of equal ones the first comes first, NaN last.
pub fn top_k(values: &[f32], k: usize) -> Vec<(usize, f32)> {
    let rank = |value: f32| {
        if value.is_nan() {
            f32::NEG_INFINITY
        } else {
            value
        }
    };
    let mut ranked: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| rank(b.1).total_cmp(&rank(a.1)));
    ranked.truncate(k);
    ranked
}

/// Names of classes, as TorchServe's `index_to_name.json` gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    names: Vec<Option<String>>,
}

/// Most classes of a file of labels. The largest index decides how much memory they take.
const MAX_CLASSES: usize = 1 << 20;

impl Labels {
    /// Reads `index_to_name.json` from the archive; without the file, classes are called by their index.
    ///
    /// # Errors
    /// Internal, naming what in the file is wrong.
    pub fn from_assets() -> Result<Self, Error> {
        match assets::find("index_to_name.json")? {
            Some(json) => Self::parse(&json),
            None => Ok(Self::default()),
        }
    }

    /// Parses the JSON of `index_to_name.json`: `{"0": "cat"}`, `{"0": ["n02123", "cat"]}` (the last element counts) or
    /// `{"object_type_names": ["cat"]}`.
    ///
    /// # Errors
    /// Internal, naming the key and the rule.
    ///
    /// ```
    /// use handler_sdk::Labels;
    ///
    /// let labels = Labels::parse(br#"{"0": "cat", "1": ["n02084071", "dog"]}"#)?;
    /// assert_eq!([labels.name(0), labels.name(1), labels.name(2)], ["cat", "dog", "2"]);
    /// # Ok::<(), handler_sdk::Error>(())
    /// ```
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let value: Value =
            serde_json::from_slice(json).map_err(|error| invalid(&error.to_string()))?;
        let Value::Object(entries) = value else {
            return Err(invalid("not an object of index to name"));
        };
        if let Some(names) = entries.get("object_type_names") {
            return Self::from_list(names);
        }
        let mut labels = Self::default();
        for (key, value) in &entries {
            labels.insert(parse_index(key)?, label(key, value)?);
        }
        Ok(labels)
    }

    fn from_list(names: &Value) -> Result<Self, Error> {
        let list = names
            .as_array()
            .ok_or_else(|| invalid("`object_type_names` is not a list"))?;
        let name = |(index, value): (usize, &Value)| label(&index.to_string(), value).map(Some);
        Ok(Self {
            names: list
                .iter()
                .enumerate()
                .map(name)
                .collect::<Result<_, _>>()?,
        })
    }

    fn insert(&mut self, index: usize, name: String) {
        if self.names.len() <= index {
            self.names.resize(index + 1, None);
        }
        self.names[index] = Some(name);
    }

    /// The name of class `index`: its label, or the index itself.
    pub fn name(&self, index: usize) -> Cow<'_, str> {
        match self.names.get(index) {
            Some(Some(name)) => Cow::Borrowed(name),
            _ => Cow::Owned(index.to_string()),
        }
    }
}

fn parse_index(key: &str) -> Result<usize, Error> {
    match key.parse() {
        Ok(index) if index < MAX_CLASSES => Ok(index),
        _ => Err(invalid(&format!(
            "key `{key}` is not an index below {MAX_CLASSES}"
        ))),
    }
}

fn label(key: &str, value: &Value) -> Result<String, Error> {
    let text = match value {
        Value::Array(list) => list.last().and_then(Value::as_str),
        other => other.as_str(),
    };
    text.map(str::to_owned).ok_or_else(|| {
        invalid(&format!(
            "the value of `{key}` is neither a string nor a list of them"
        ))
    })
}

fn invalid(reason: &str) -> Error {
    Error::internal(format!("index_to_name.json: {reason}"))
}

/// Label → probability in descending order: a JSON object when serialized.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    entries: Vec<(String, f32)>,
}

impl Classification {
    /// Labels and probabilities, the most probable first.
    pub fn entries(&self) -> &[(String, f32)] {
        &self.entries
    }
}

impl Serialize for Classification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (label, probability) in &self.entries {
            map.serialize_entry(label, probability)?;
        }
        map.end()
    }
}

/// The `k` most probable classes by name, as TorchServe's `image_classifier` answers. Of classes that share a label the
/// most probable stands for all.
///
/// ```
/// use handler_sdk::{Labels, classification, softmax};
///
/// let labels = Labels::parse(br#"{"0": "cat", "1": "dog"}"#)?;
/// let answer = classification(&softmax(&[0.0, 1.0]), &labels, 5);
/// assert_eq!(serde_json::to_string(&answer)?, r#"{"dog":0.7310586,"cat":0.26894143}"#);
/// # Ok::<(), handler_sdk::Error>(())
/// ```
pub fn classification(probabilities: &[f32], labels: &Labels, k: usize) -> Classification {
    let mut entries: Vec<(String, f32)> = Vec::new();
    for (index, probability) in top_k(probabilities, k) {
        let name = labels.name(index);
        if entries.iter().all(|(label, _)| *label != name) {
            entries.push((name.into_owned(), probability));
        }
    }
    Classification { entries }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    #[test]
    fn softmax_sums_to_one_for_any_scores() {
        for scores in [
            &[1000.0, 999.0, -1000.0][..],
            &[0.0],
            &[-5.0, -5.0, -5.0, -5.0],
        ] {
            let sum: f32 = softmax(scores).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{scores:?}: {sum}");
        }
        assert!(softmax(&[]).is_empty());
        assert!((softmax(&[0.0, 2f32.ln()])[1] - 2.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn top_k_descends_keeps_ties_in_order_and_puts_nan_last() {
        let values = [0.1, 0.7, f32::NAN, 0.7, 0.2];
        let indices: Vec<usize> = top_k(&values, 9).iter().map(|entry| entry.0).collect();
        assert_eq!(indices, [1, 3, 4, 0, 2]);
        assert_eq!(top_k(&values, 2).len(), 2);
    }

    #[test]
    fn labels_follow_torchserves_rules() {
        let old = Labels::parse(br#"{"object_type_names": ["a", ["id", "b"]]}"#).unwrap();
        assert_eq!([old.name(0), old.name(1), old.name(2)], ["a", "b", "2"]);
        let sparse = Labels::parse(br#"{"2": "c"}"#).unwrap();
        assert_eq!([sparse.name(0), sparse.name(2)], ["0", "c"]);
    }

    #[test]
    fn wrong_labels_name_key_and_rule() {
        for (json, message) in [
            (
                r#"["a"]"#,
                "index_to_name.json: not an object of index to name",
            ),
            (
                r#"{"0": 1}"#,
                "index_to_name.json: the value of `0` is neither a string nor a list of them",
            ),
            (
                r#"{"0": []}"#,
                "index_to_name.json: the value of `0` is neither a string nor a list of them",
            ),
            (
                r#"{"-1": "a"}"#,
                "index_to_name.json: key `-1` is not an index below 1048576",
            ),
            (
                r#"{"9999999999": "a"}"#,
                "index_to_name.json: key `9999999999` is not an index below 1048576",
            ),
            (
                r#"{"object_type_names": "a"}"#,
                "index_to_name.json: `object_type_names` is not a list",
            ),
        ] {
            assert_eq!(
                Labels::parse(json.as_bytes()).unwrap_err().message(),
                message
            );
        }
    }

    #[test]
    fn labels_come_from_the_archive_if_it_has_them() {
        let host = Host::new();
        assert_eq!(Labels::from_assets().unwrap().name(3), "3");
        let _host = host.asset("index_to_name.json", r#"{"3": "three"}"#);
        assert_eq!(Labels::from_assets().unwrap().name(3), "three");
    }

    #[test]
    fn duplicate_labels_collapse_to_the_most_probable() {
        let labels = Labels::parse(br#"{"0": "a", "1": "b", "2": "a"}"#).unwrap();
        let answer = classification(&[0.2, 0.3, 0.5], &labels, 5);
        assert_eq!(
            answer.entries(),
            [("a".to_owned(), 0.5), ("b".to_owned(), 0.3)]
        );
    }
}
