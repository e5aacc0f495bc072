//! Warm instances of one handler: taken for a call, given back after it, and replaced when they cannot be used again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::{Error, Kind};

use super::instance::Instance;
use super::{Level, LogLine, Version};

/// How long an instance that has grown may wait for another call.
const GROWN_IDLE: Duration = Duration::from_secs(5);

/// Idle instances as a stack: the last used is taken first, since its memory is still in the processor's caches.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    /// One for each instance that may be in use or being made.
    permits: Semaphore,
    limit: usize,
}

#[derive(Default)]
struct Idle {
    /// Each with when it was given back.
    instances: Vec<(Instance, Instant)>,
    /// Whether a task is looking after those that have grown.
    is_looked_after: bool,
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

    /// Keeps an instance for later calls, or drops it if the pool is full. Whether somebody has to look after instances that have grown.
    fn put(&self, instance: Instance) -> bool {
        let mut idle = self.idle.lock();
        if idle.instances.len() >= self.limit {
            drop(idle);
            return false;
        }
        let has_grown = instance.has_grown();
        idle.instances.push((instance, Instant::now()));
        has_grown && !std::mem::replace(&mut idle.is_looked_after, true)
    }

    /// Instances that wait for a call.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        self.idle.lock().instances.len()
    }

    /// Those of them that have grown.
    #[cfg(test)]
    pub fn grown(&self) -> usize {
        let idle = self.idle.lock();
        let grown = idle
            .instances
            .iter()
            .filter(|(instance, _)| instance.has_grown());
        grown.count()
    }

    fn take(&self) -> Option<Instance> {
        let (instance, _) = self.idle.lock().instances.pop()?;
        Some(instance)
    }

    /// Takes out what has grown and has waited for too long. Whether there is something left to look after.
    fn outgrown(&self) -> (Vec<Instance>, bool) {
        let mut idle = self.idle.lock();
        let is_over = |(instance, since): &mut (Instance, Instant)| {
            instance.has_grown() && since.elapsed() >= GROWN_IDLE
        };
        let over = idle.instances.extract_if(.., is_over);
        let over = over.map(|(instance, _)| instance).collect();
        let mut left = idle.instances.iter();
        idle.is_looked_after = left.any(|(instance, _)| instance.has_grown());
        (over, idle.is_looked_after)
    }
}

/// Keeps an instance of `version` for later calls. Memory of wasm does not shrink: what large bodies made grow goes back to the system with
/// the instance, once it was not needed for a while.
pub(super) fn put(version: &Arc<Version>, instance: Instance) {
    if !version.pool.put(instance) {
        return;
    }
    match runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(look_after(Arc::downgrade(version)))),
        Err(_) => version.pool.idle.lock().is_looked_after = false,
    }
}

/// Drops instances that have grown and wait, as long as there are some. If none is left, one is made that has not grown.
async fn look_after(version: Weak<Version>) {
    loop {
        tokio::time::sleep(GROWN_IDLE).await;
        let Some(version) = version.upgrade() else {
            return;
        };
        let (outgrown, is_some_left) = version.pool.outgrown();
        if !outgrown.is_empty() && version.pool.idle.lock().instances.is_empty() {
            replace(&version);
        }
        drop(outgrown);
        if !is_some_left {
            return;
        }
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
            put(self.version, instance);
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
            Ok(instance) => put(&version, instance),
            Err(error) => version.host.sink.log(LogLine {
                level: Level::Error,
                message: format!("cannot make a new instance: {error}"),
                fields: Vec::new(),
                request_id: String::new(),
            }),
        }
    });
}
