//! Warm instances of one handler: taken for a call, given back after it, replaced when they are lost or worn.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Kind};

use super::instance::Instance;
use super::{Level, LogLine, Version};

/// Idle instances, the last used on top: it is the one whose memory is still in the caches.
pub(super) struct Pool {
    idle: Mutex<Vec<Instance>>,
    /// One for each instance that may be in use or in the making.
    permits: Semaphore,
    limit: usize,
}

/// An instance while it is in use. Unless it is given back it is lost, and a new one is made in its place.
pub(super) struct Lease<'a> {
    instance: Option<Instance>,
    version: &'a Arc<Version>,
    permit: Option<SemaphorePermit<'a>>,
}

impl Pool {
    /// At most `limit` instances, and at least one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            idle: Mutex::default(),
            permits: Semaphore::new(limit),
            limit,
        }
    }

    /// Keeps an instance for later; drops it if there are enough.
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
    /// Takes an idle instance or makes one; waits while as many as allowed are in use.
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

    /// The instance.
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

/// Makes a new instance away from the request that lost the old one.
///
/// Not while as many as allowed are in use or in the making: a storm of cancelled requests must not become a storm
/// of `init`. Without a runtime, as at the end of a process, there is nothing to do it on.
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
                message: format!("no new instance: {error}"),
                fields: Vec::new(),
                request_id: String::new(),
            }),
        }
    });
}
