//! Parameters of management calls, from the query string or from a JSON body.
//!
//! As in TorchServe an integer that does not parse counts as not given, and a flag is set only by `true` in any
//! letter case. In JSON, numbers and flags may be strings.

use serde_json::{Map, Value};

use crate::error::{Error, Kind};

/// Where parameters come from.
pub(super) enum Parameters {
    /// Name and value, decoded.
    Query(Vec<(String, String)>),
    /// Members of an object.
    Json(Map<String, Value>),
}

impl Parameters {
    /// Parameters in a JSON body.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, Error> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self::Json(members)),
            Ok(_) => Err(bad_request("The body must be a JSON object".to_owned())),
            Err(error) => Err(bad_request(format!("The body is not valid JSON: {error}"))),
        }
    }

    /// The first value of `name`.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Query(pairs) => {
                let pair = pairs.iter().find(|(key, _)| key == name);
                pair.map(|(_, value)| value.clone())
            }
            Self::Json(members) => match members.get(name)? {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
        }
    }

    /// An integer.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.trim().parse().ok()
    }

    /// A flag.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.text(name)
            .map(|text| text.eq_ignore_ascii_case("true"))
    }
}

fn bad_request(message: String) -> Error {
    Error::new(Kind::BadRequest, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Parameters {
        let pairs = pairs.iter();
        Parameters::Query(
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn the_first_value_counts_and_odd_ones_do_not() {
        let query = query(&[
            ("a", "1"),
            ("a", "2"),
            ("b", "dd"),
            ("c", ""),
            ("d", "TRUE"),
            ("e", "1"),
        ]);
        assert_eq!(query.integer("a"), Some(1));
        assert_eq!(
            (query.integer("b"), query.integer("c"), query.integer("x")),
            (None, None, None)
        );
        assert_eq!(
            (query.flag("d"), query.flag("e"), query.flag("x")),
            (Some(true), Some(false), None)
        );
    }

    #[test]
    fn json_may_say_numbers_as_strings() {
        let json = Parameters::from_json(br#"{"a": 3, "b": "4", "c": true, "d": null, "e": "x"}"#)
            .unwrap();
        assert_eq!((json.integer("a"), json.integer("b")), (Some(3), Some(4)));
        assert_eq!(
            (json.flag("c"), json.text("d"), json.text("e")),
            (Some(true), None, Some("x".to_owned()))
        );
    }

    #[test]
    fn json_that_is_no_object_is_refused() {
        let deep = "[".repeat(1_000_000);
        for body in ["", "{", "[]", "3", "{\"a\":}", &deep] {
            let error = Parameters::from_json(body.as_bytes()).err().unwrap();
            assert_eq!(error.kind(), Kind::BadRequest);
        }
    }
}
