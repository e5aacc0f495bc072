//! Keys of tenants: each opens what its tenant has, as far as its scopes and its models go.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::KeyDigest;
use crate::model::ModelName;

/// What a key of a tenant's opens. Scopes are not contained in each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantScope {
    /// Running models.
    Predict,
    /// Seeing and changing models.
    Manage,
    /// Seeing metrics and logs.
    Observe,
}

impl TenantScope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Predict, Self::Manage, Self::Observe];

    /// The word in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Manage => "manage",
            Self::Observe => "observe",
        }
    }

    /// The scope that `word` is.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == word)
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    /// SHA-256 of the key.
    pub digest: KeyDigest,
    /// What people call it.
    pub label: Option<String>,
    /// What it opens.
    pub scopes: BTreeSet<TenantScope>,
    /// The only models that it opens; all of its tenant's if that is not said.
    pub models: Option<BTreeSet<ModelName>>,
    /// When it becomes invalid; `None` for never.
    pub expires: Option<SystemTime>,
}

impl TenantKey {
    /// Whether it opens `scope` at `now`.
    pub fn opens(&self, scope: TenantScope, now: SystemTime) -> bool {
        self.scopes.contains(&scope) && self.expires.is_none_or(|expires| now < expires)
    }
}
