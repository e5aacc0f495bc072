//! Warm instances of one handler: taken for a call, given back after it, and replaced when they cannot be used again.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Kind};

use super::instance::Instance;
use super::{Level, LogLine, Version};

/// Idle instances as a stack: the last used is taken first, since its memory is still in the processor's caches.
pub(super) struct Pool {
    idle: Mutex<Vec<Instance>>,
    /// One for each instance that may be in use or being made.
    permits: Semaphore,
    limit: usize,
}

/// An instance while it is in use. If it is dropped without being given back, a new one is made in its place.
pub(super) struct Lease<'a> {
    instance: Option<Instance>,
    version: &'a Arc<Version>,
    permit: Option<SemaphorePermit<'a>>,
}

impl Pool {
    /// Holds at most `limit` instances, and at least one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            idle: Mutex::default(),
            permits: Semaphore::new(limit),
            limit,
        }
    }

    /// Keeps an instance for later calls, or drops it if the pool is full.
    pub fn put(&self, instance: Instance) {
        let mut idle = self.idle.lock();
        let is_full = idle.len() >= self.limit;
        if !is_full {
            idle.push(instance);
            return;
        }
        drop(idle);
    }

    /// Instances that wait for a call.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    fn take(&self) -> Option<Instance> {
        self.idle.lock().pop()
    }
}

impl<'a> Lease<'a> {
    /// Takes an idle instance or makes one. Waits while as many as allowed are in use.
    pub async fn take(version: &'a Arc<Version>) -> Result<Self, Error> {
        let closed = |_| Error::new(Kind::Internal, "The handler's pool is closed");
        let permit = version.pool.permits.acquire().await.map_err(closed)?;
        let instance = match version.pool.take() {
            Some(instance) => instance,
            None => Instance::start(version).await?,
        };
        Ok(Self {
            instance: Some(instance),
            version,
            permit: Some(permit),
        })
    }

    /// The instance to call.
    pub fn instance(&mut self) -> &mut Instance {
        self.instance
            .as_mut()
            .expect("a lease holds its instance until it ends")
    }

    /// Gives the instance back, if it may be used again.
    pub fn give_back(mut self) {
        let may_stay = !self.version.model.settings.fresh_instances;
        if let Some(instance) = self
            .instance
            .take_if(|instance| may_stay && instance.is_usable())
        {
            self.version.pool.put(instance);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        if self.instance.is_some() {
            replace(self.version);
        }
    }
}

/// Makes a new instance in a task of its own, so that the request whose call lost the old one does not wait for it.
///
/// Nothing is made while as many as allowed are in use or being made: many cancelled requests must not cause as many
/// calls of `init`. Nothing is made either where there is no tokio runtime, as at the end of a process.
fn replace(version: &Arc<Version>) {
    let Ok(runtime) = runtime::Handle::try_current() else {
        return;
    };
    let version = Arc::clone(version);
    runtime.spawn(async move {
        let Ok(_permit) = version.pool.permits.try_acquire() else {
            return;
        };
        match Instance::start(&version).await {
            Ok(instance) => version.pool.put(instance),
            Err(error) => version.host.sink.log(LogLine {
                level: Level::Error,
                message: format!("cannot make a new instance: {error}"),
                fields: Vec::new(),
                request_id: String::new(),
            }),
        }
    });
}
