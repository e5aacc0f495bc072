//! What each key opens, and the one comparison.

use std::time::SystemTime;

use subtle::{Choice, ConstantTimeEq as _};

use super::Scope;
use super::key::KeyDigest;

/// Longest key that is looked at. Longer ones are wrong, and would cost time.
pub const LONGEST: usize = 512;

/// Keys by digest.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is known by.
    pub digest: KeyDigest,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// From when on it opens nothing.
    pub expires: Option<SystemTime>,
}

impl Table {
    /// A table with these rows.
    pub const fn new(rows: Vec<Row>) -> Self {
        Self(rows)
    }

    /// Whether `key` opens `scope` at `now`. Every row is compared, whole and in constant time, found or not.
    pub fn opens(&self, key: &[u8], scope: Scope, now: SystemTime) -> bool {
        if key.len() > LONGEST {
            return false;
        }
        let shown = KeyDigest::of(key);
        let opens = self.0.iter().fold(Choice::from(0), |opens, row| {
            let is_it = row.digest.bytes().ct_eq(shown.bytes());
            opens | (is_it & Choice::from(u8::from(row.opens(scope, now))))
        });
        opens.into()
    }
}

impl Row {
    fn opens(&self, scope: Scope, now: SystemTime) -> bool {
        self.scopes.contains(&scope) && self.expires.is_none_or(|expires| now < expires)
    }
}
