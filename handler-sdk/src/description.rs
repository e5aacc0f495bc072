//! A handler's description of its model.

use serde::Serialize;
use serde_json::Value;

use crate::Error;

/// A JSON object that describes a model; `{}` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(String);

impl Description {
    /// A value that is an object in JSON: a struct, a map, `json!({..})`.
    ///
    /// # Errors
    /// Internal, if it is another kind of value or has no form in JSON.
    ///
    /// ```
    /// use handler_sdk::Description;
    /// use serde_json::json;
    ///
    /// let description = Description::json(&json!({ "classes": ["cat", "dog"] }))?;
    /// assert_eq!(description.as_str(), r#"{"classes":["cat","dog"]}"#);
    /// assert!(Description::json(&["cat", "dog"]).is_err());
    /// # Ok::<(), handler_sdk::Error>(())
    /// ```
    pub fn json(value: &impl Serialize) -> Result<Self, Error> {
        let value = serde_json::to_value(value)
            .map_err(|error| Error::internal(format!("the description is no JSON: {error}")))?;
        match value {
            Value::Object(_) => Ok(Self(value.to_string())),
            _ => Err(Error::internal("the description is no JSON object")),
        }
    }

    /// A text that is a JSON object already. It is not checked here; the host shows `{}` if it is something else.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl Default for Description {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}
