//! Owners of models.

use std::fmt;
use std::sync::Arc;

use super::{InvalidName, check};

const LIMIT: usize = 63;
const RULE: &str = "must start with a lower-case letter or a digit, hold only lower-case letters, digits, '-' and '_', and be at most 63 bytes";

/// Name of a tenant: `[a-z0-9][a-z0-9_-]*`, at most 63 bytes. So it can be the name of a directory, a value of a label or of a header,
/// and part of a log line as it is. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// Checks the rule for names.
    pub fn new(value: &str) -> Result<Self, InvalidName> {
        let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_allowed = |byte: u8| is_first(byte) || b"-_".contains(&byte);
        let is_sound = value.len() <= LIMIT
            && value.bytes().next().is_some_and(is_first)
            && value.bytes().all(is_allowed);
        check(is_sound, "tenant", value, RULE).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lets a map with names as keys be searched with a text from a request.
impl std::borrow::Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_forges_a_path_a_label_a_header_or_a_line() {
        let longest = "x".repeat(LIMIT);
        for name in ["a", "0", "acme", "acme-eu_1", &longest] {
            assert_eq!(TenantName::new(name).unwrap().as_str(), name);
        }
        let long = "x".repeat(LIMIT + 1);
        for name in [
            "", ".", "..", "-a", "_a", "A", "aB", "a.b", "a/b", "a\\b", "a\"", "a\nb", "a b",
            "a:b", "ä", "a\0", &long,
        ] {
            assert!(TenantName::new(name).is_err(), "{name:?}");
        }
    }
}
