//! How much memory one instance may hold: the bytes of all its linear memories, and the elements of all its tables.
//!
//! wasmtime's own `StoreLimits` bounds each memory by itself, so a component of several modules could hold a
//! multiple of the limit. Here each growth counts toward one total per store.

use wasmtime::ResourceLimiter;

/// Most core instances of one component. `CPython` needs 38.
const INSTANCES: usize = 200;
const MEMORIES: usize = 32;
const TABLES: usize = 64;
/// Most elements of all tables together.
const ELEMENTS: usize = 100_000;

/// Memory of one store, counted. The count never falls, since wasm memory does not shrink while its store exists.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit: usize,
    used: usize,
    elements: usize,
    has_refused: bool,
    has_run_out: bool,
}

impl MemoryLimiter {
    /// Allows `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            elements: 0,
            has_refused: false,
            has_run_out: false,
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

    /// Whether growth was refused since [`Self::forget_refusals`].
    pub fn has_refused(&self) -> bool {
        self.has_refused
    }

    /// Whether the process had no memory for growth that this allowed, since [`Self::forget_refusals`].
    pub fn has_run_out(&self) -> bool {
        self.has_run_out
    }

    /// Makes [`Self::has_refused`] and [`Self::has_run_out`] speak of the next call alone. Memory that is held stays counted.
    pub fn forget_refusals(&mut self) {
        self.has_refused = false;
        self.has_run_out = false;
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

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.has_run_out = true;
        Ok(())
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
    fn a_process_without_memory_is_not_the_limit() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        let error = wasmtime::Error::msg("out of memory");
        limiter.memory_grow_failed(error).unwrap();
        assert!(limiter.has_run_out() && !limiter.has_refused());
        limiter.forget_refusals();
        assert!(!limiter.has_run_out());
    }

    #[test]
    fn table_elements_are_limited_in_total() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.table_growing(0, ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
