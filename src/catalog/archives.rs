//! The archives of a tenant's own: sent by clients, listed, removed.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::Catalog;
use crate::archive::{
    ArchiveError, ModelStore, Stored, UnpackLimits, Upload, arrived, remove_stored, stored,
};
use crate::error::{Error, Kind};

/// An archive that a client is sending. There is one at a time.
pub struct Sending {
    catalog: Catalog,
    upload: Upload,
    /// Bytes that any archive may have.
    largest: u64,
    /// The tenant's quota, and what its other archives take of it.
    quota: Option<(u64, u64)>,
    one_at_a_time: OwnedMutexGuard<()>,
}

impl Sending {
    /// Bytes that have arrived.
    pub fn arrived(&self) -> Result<u64, Error> {
        Ok(self.upload.arrived()?)
    }

    /// Fails if it may not have so many bytes, or if the tenant is gone.
    pub fn check_room(&self, bytes: u64) -> Result<(), Error> {
        self.catalog.check_open()?;
        if bytes > self.largest {
            let largest = self.largest;
            let message = format!("An archive may have {largest} bytes (lantern_max_download)");
            return Err(Error::new(Kind::TooLarge, message));
        }
        match self.quota {
            Some((quota, others)) if others.saturating_add(bytes) > quota => {
                let message = format!(
                    "The tenant's quota is {quota} bytes of archives: it has {others}, and this is {bytes} more"
                );
                Err(Error::new(Kind::OverQuota, message))
            }
            _ => Ok(()),
        }
    }

    /// It begins anew.
    pub fn restart(&self) -> Result<(), Error> {
        Ok(self.upload.restart()?)
    }

    /// What the rest is written to.
    pub fn rest(&self) -> Result<tokio::fs::File, Error> {
        Ok(self.upload.rest()?)
    }

    /// Nothing more comes: it gets its name, if it is what it should be.
    pub async fn finish(self) -> Result<Stored, Error> {
        let Self {
            catalog,
            upload,
            one_at_a_time,
            ..
        } = self;
        blocking(move || {
            let _one_at_a_time = one_at_a_time;
            catalog.check_open()?;
            Ok(upload.finish(UnpackLimits::default())?)
        })
        .await
    }
}

impl Catalog {
    /// Begins to take an archive, or goes on with one that broke off.
    pub async fn begin_upload(&self, name: String, digest: String) -> Result<Sending, Error> {
        self.check_has_archives()?;
        let turn = Arc::clone(&self.state.uploading).try_lock_owned();
        let one_at_a_time = turn.map_err(|_| {
            Error::new(
                Kind::Conflict,
                "Another archive is being sent: send one at a time",
            )
        })?;
        self.check_open()?;
        let (catalog, store) = (self.clone(), self.store());
        let quota = self.state.parts.owner.quotas().archive_bytes;
        let largest = self.state.parts.library.fetcher.largest();
        blocking(move || {
            let upload = Upload::begin(&store, &name, &digest).map_err(begun)?;
            let (_, taken) = stored(&store)?;
            let others = taken.saturating_sub(upload.arrived()?);
            Ok(Sending {
                catalog,
                upload,
                largest,
                quota: quota.map(|quota| (quota as u64, others)),
                one_at_a_time,
            })
        })
        .await
    }

    /// Bytes that have arrived of an archive that broke off.
    pub async fn arrived(&self, digest: String) -> Result<u64, Error> {
        self.check_has_archives()?;
        let store = self.store();
        blocking(move || Ok(arrived(&store, &digest)?)).await
    }

    /// The archives, by name.
    pub async fn stored(&self) -> Result<Vec<Stored>, Error> {
        self.check_has_archives()?;
        let store = self.store();
        blocking(move || Ok(stored(&store)?.0)).await
    }

    /// Removes an archive that no version comes from.
    pub async fn remove_stored(&self, name: String) -> Result<(), Error> {
        self.check_has_archives()?;
        let is_used = |source: &str| source == name;
        let entries = self.entries();
        if let Some(entry) = entries.iter().find(|entry| is_used(entry.source())) {
            let spec = entry.spec();
            let message = format!(
                "{name} is the archive of model {} version {}: unregister it first",
                spec.name, spec.version
            );
            return Err(Error::new(Kind::Conflict, message));
        }
        let store = self.store();
        blocking(move || Ok(remove_stored(&store, &name)?)).await
    }

    fn store(&self) -> ModelStore {
        self.state.parts.library.fetcher.store().clone()
    }

    /// What is in the operator's model store is put there by the operator's own means. Whoever sees certain models alone sees no archives.
    fn check_has_archives(&self) -> Result<(), Error> {
        if self.state.parts.owner.tenant().is_some() && self.only.is_none() {
            return Ok(());
        }
        let message = "Archives are a tenant's, and for keys that are for all its models";
        Err(Error::new(Kind::ResourceNotFound, message))
    }
}

/// The failure of an archive that is not taken.
fn begun(error: ArchiveError) -> Error {
    match &error {
        ArchiveError::Exists(_) => Error::new(Kind::Conflict, error.to_string()),
        _ => error.into(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| {
        Error::new(Kind::Internal, "The archive could not be read or written").with_detail(panic)
    })?
}
