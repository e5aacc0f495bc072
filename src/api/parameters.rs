//! Parameters of management calls, from the query string or from a JSON body.
//!
//! As in TorchServe an integer in a query that does not parse counts as not given, one in JSON is an error, and a flag is
//! set only by `true` in any letter case. In JSON, numbers and flags may be texts.

use super::lenient::{self, Scalar};
use crate::error::{Error, Kind, truncated};

/// Bytes of a value that a message shows.
const SHOWN: usize = 64;

/// Where parameters come from.
pub(super) enum Parameters {
    /// Name and value, decoded.
    Query(Vec<(String, String)>),
    /// Members of an object.
    Json(Vec<(String, Scalar)>),
}

impl Parameters {
    /// Parameters in a JSON body.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, Error> {
        let members = lenient::object(body)
            .map_err(|error| bad_request(format!("The body is not a JSON object: {error}")));
        members.map(Self::Json)
    }

    /// The first value of `name`.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    /// An integer.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(text) = self.value(name) else {
            return Ok(None);
        };
        match (text.trim().parse().ok(), self) {
            (None, Self::Json(_)) => {
                let shown = truncated(text, SHOWN);
                Err(bad_request(format!(
                    "{name} must be an integer, got {shown:?}"
                )))
            }
            (value, _) => Ok(value),
        }
    }

    /// A flag.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.value(name)
            .map(|text| text.eq_ignore_ascii_case("true"))
    }

    fn value(&self, name: &str) -> Option<&str> {
        match self {
            Self::Query(pairs) => {
                let pair = pairs.iter().find(|(key, _)| key == name);
                pair.map(|(_, value)| value.as_str())
            }
            Self::Json(members) => {
                let member = members.iter().find(|(key, _)| key == name);
                match &member?.1 {
                    Scalar::Null => None,
                    Scalar::Text(text) => Some(text),
                }
            }
        }
    }
}

fn bad_request(message: String) -> Error {
    Error::new(Kind::BadRequest, message)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(query.integer("a").unwrap(), Some(1));
        assert_eq!(
            ["b", "c", "x"].map(|name| query.integer(name).unwrap()),
            [None; 3]
        );
        assert_eq!(
            (query.flag("d"), query.flag("e"), query.flag("x")),
            (Some(true), Some(false), None)
        );
    }

    #[test]
    fn json_may_say_numbers_as_strings() {
        let json = br#"{"a": 3, "b": "4", "c": true, "d": null, "e": "x"}"#;
        let json = Parameters::from_json(json).unwrap();
        let integers = ["a", "b", "d"].map(|name| json.integer(name).unwrap());
        assert_eq!(integers, [Some(3), Some(4), None]);
        assert_eq!(
            json.integer("e").unwrap_err().message(),
            "e must be an integer, got \"x\""
        );
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
