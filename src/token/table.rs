//! The table of keys, and the one place where a request's key is compared with them.

use std::time::SystemTime;

use subtle::{Choice, ConstantTimeEq as _};

use super::Scope;
use super::key::KeyDigest;

/// Most bytes of a key. A longer one is refused without being hashed, which would cost time.
pub const LONGEST: usize = 512;

/// All keys, by digest.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

/// A key and what it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// SHA-256 of the key.
    pub digest: KeyDigest,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// When it becomes invalid; `None` for never.
    pub expires: Option<SystemTime>,
}

impl Table {
    /// A table of these keys.
    pub const fn new(rows: Vec<Row>) -> Self {
        Self(rows)
    }

    /// Whether `key` opens `scope` at `now`. It is compared with every row, in constant time, even after one has matched.
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
