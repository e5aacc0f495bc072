//! The reader's side of a region: bytes at the places that the writer tells of.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::arena::Place;
use super::mapping::Mapping;

/// Tells the writer that the stretch at an offset is not read any more.
pub type Release = Box<dyn Fn(u64) + Send + Sync>;

/// A region that this process reads.
pub struct View {
    mapping: Mapping,
    release: OnceLock<Release>,
}

impl View {
    pub(super) const fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            release: OnceLock::new(),
        }
    }

    /// Says how the writer is told what is not read any more. Without, or if it is said twice, the first counts.
    pub fn on_release(&self, release: Release) {
        let _ = self.release.set(release);
    }

    /// The bytes at `place`, not copied; `None` if it is not within the region. The writer is told when the last clone is
    /// dropped. If the other process is not to be trusted, they may change at any time: they may be sent, and nothing else.
    pub fn bytes(self: &Arc<Self>, place: Place) -> Option<Bytes> {
        let offset = usize::try_from(place.offset).ok()?;
        let length = usize::try_from(place.length).ok()?;
        if offset.checked_add(length)? > self.mapping.length() {
            return None;
        }
        Some(Bytes::from_owner(Stretch {
            view: self.clone(),
            offset,
            length,
        }))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("View").finish_non_exhaustive()
    }
}

/// What is being read.
struct Stretch {
    view: Arc<View>,
    offset: usize,
    length: usize,
}

impl AsRef<[u8]> for Stretch {
    fn as_ref(&self) -> &[u8] {
        self.view.mapping.read(self.offset, self.length)
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        if let Some(release) = self.view.release.get() {
            release(self.offset as u64);
        }
    }
}
