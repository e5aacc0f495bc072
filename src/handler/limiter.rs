//! What one instance may hold: linear memories and tables, counted in total.
//!
//! wasmtime's own `StoreLimits` bounds each memory by itself, so a component of several modules could hold a
//! multiple of the limit. Here every growth is charged to one account of the store.

use wasmtime::ResourceLimiter;

/// Core instances of one component: `CPython` needs 38.
const INSTANCES: usize = 200;
const MEMORIES: usize = 32;
const TABLES: usize = 64;
/// Elements of all tables.
const ELEMENTS: usize = 100_000;

/// The account of one store. Memory is never given back before the store goes.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit: usize,
    used: usize,
    elements: usize,
    has_refused: bool,
}

impl MemoryLimiter {
    /// An account of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            elements: 0,
            has_refused: false,
        }
    }

    /// Bytes of all linear memories.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether growth was ever refused since [`Self::forget_refusals`].
    pub fn has_refused(&self) -> bool {
        self.has_refused
    }

    /// Starts a call with a clean slate; what is held stays charged.
    pub fn forget_refusals(&mut self) {
        self.has_refused = false;
    }

    fn decide(&mut self, is_allowed: bool) -> bool {
        self.has_refused |= !is_allowed;
        is_allowed
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        let is_legal = maximum.is_none_or(|maximum| desired <= maximum);
        if !self.decide(total <= self.limit) || !is_legal {
            return Ok(false);
        }
        self.used = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .elements
            .saturating_add(desired.saturating_sub(current));
        let is_legal = maximum.is_none_or(|maximum| desired <= maximum);
        if !self.decide(total <= ELEMENTS) || !is_legal {
            return Ok(false);
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memories_are_charged_to_one_account() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.has_refused());
        limiter.forget_refusals();
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert_eq!(limiter.used(), 100);
        assert!(!limiter.has_refused());
    }

    #[test]
    fn a_memory_past_its_own_maximum_is_refused_without_blaming_the_limit() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(!limiter.memory_growing(0, 60, Some(50)).unwrap());
        assert!(!limiter.has_refused());
    }

    #[test]
    fn table_elements_are_limited_in_total() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.table_growing(0, ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
