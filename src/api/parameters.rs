//! Parameters of management calls, from the query string or from a JSON body.
//!
//! As in TorchServe an integer that does not parse counts as not given, and a flag is set only by `true` in any
//! letter case. In JSON, numbers and flags may be strings.

use std::time::Duration;

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

    /// An integer that must lie in `range`.
    pub(super) fn count(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<usize>, Error> {
        let Some(value) = self.integer(name) else {
            return Ok(None);
        };
        let (least, most) = (range.start(), range.end());
        if !range.contains(&value) {
            return Err(bad_request(format!(
                "{name} must be from {least} to {most}, got {value}"
            )));
        }
        Ok(usize::try_from(value).ok())
    }

    /// A duration, given in units of `unit`.
    pub(super) fn duration(&self, name: &str, unit: Duration) -> Result<Option<Duration>, Error> {
        let count = self.count(name, 0..=i64::from(i32::MAX))?;
        let count = count.and_then(|count| u32::try_from(count).ok());
        Ok(count.map(|count| unit * count))
    }
}

pub(super) fn bad_request(message: String) -> Error {
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

    #[test]
    fn counts_outside_their_range_name_rule_and_value() {
        let error = query(&[("batch_size", "0")])
            .count("batch_size", 1..=10)
            .unwrap_err();
        assert_eq!(error.message(), "batch_size must be from 1 to 10, got 0");
    }
}
