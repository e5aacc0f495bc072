//! The archives of a tenant's own: sent by clients, listed, removed.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::{Catalog, Library};
use crate::archive::{
    AllowedUrls, ArchiveError, Fetcher, ModelStore, Stored, UnpackLimits, Upload, arrived,
    remove_stored, stored,
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

    /// It begins anew, or goes on. Of others that broke off nothing stays.
    pub fn begin(&self, anew: bool) -> Result<(), Error> {
        Ok(self.upload.take_place(anew)?)
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
        let examining = Arc::clone(&catalog.state.parts.examining)
            .acquire_owned()
            .await;
        blocking(move || {
            let _held = (one_at_a_time, examining);
            catalog.check_open()?;
            let unpacked = &catalog.state.parts.library.unpacked;
            let signers = catalog.state.parts.owner.signers();
            let stored = upload.finish(unpacked.directory(), UnpackLimits::default(), &signers);
            stored.map_err(refused)
        })
        .await
    }
}

impl Catalog {
    /// Begins to take an archive, or goes on with one that broke off.
    pub async fn begin_upload(&self, name: String, digest: String) -> Result<Sending, Error> {
        self.check_has_archives()?;
        let _at_work = self.at_work().await?;
        let turn = Arc::clone(&self.state.uploading).try_lock_owned();
        let one_at_a_time = turn.map_err(|_| {
            Error::new(
                Kind::Conflict,
                "Another archive is being sent: send one at a time",
            )
        })?;
        let (catalog, store) = (self.clone(), self.store());
        let quota = self.state.parts.owner.quotas().archive_bytes;
        let largest = self.state.parts.library.fetcher.largest();
        blocking(move || {
            let upload = Upload::begin(&store, &name, &digest).map_err(refused)?;
            // What broke off before makes room for this one.
            let others = stored(&store)?.iter().map(|one| one.bytes).sum();
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

    /// Lets `library` fetch what a tenant names, from where it may and as much as its quota leaves. One archive comes at a time.
    pub(super) async fn begin_fetching(
        &self,
        url: &str,
        library: &mut Library,
    ) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        let owner = &self.state.parts.owner;
        let Some(sources) = owner.sources().filter(|_| Fetcher::is_remote(url)) else {
            return Ok(None);
        };
        let one_at_a_time = Arc::clone(&self.state.uploading).lock_owned().await;
        let (store, quota) = (self.store(), owner.quotas().archive_bytes);
        let has = blocking(move || Ok(stored(&store)?.iter().map(|one| one.bytes).sum::<u64>()));
        let has = has.await?;
        let room = quota.map_or(u64::MAX, |quota| (quota as u64).saturating_sub(has));
        let (allowed, _) = AllowedUrls::read(&sources.join(","), false);
        library.fetcher = library.fetcher.restricted_to(allowed, room);
        Ok(Some(one_at_a_time))
    }

    /// Bytes that have arrived of an archive that broke off.
    pub async fn arrived(&self, digest: String) -> Result<u64, Error> {
        self.check_has_archives()?;
        let _at_work = self.at_work().await?;
        let store = self.store();
        blocking(move || Ok(arrived(&store, &digest)?)).await
    }

    /// The archives, by name.
    pub async fn stored(&self) -> Result<Vec<Stored>, Error> {
        self.check_has_archives()?;
        let _at_work = self.at_work().await?;
        let store = self.store();
        blocking(move || Ok(stored(&store)?)).await
    }

    /// Removes an archive that no version comes from.
    pub async fn remove_stored(&self, name: String) -> Result<(), Error> {
        self.check_has_archives()?;
        let _alone = self.alone().await?;
        if self.sources().iter().any(|source| is_of(source, &name)) {
            let message = format!("A version comes from {name}: unregister it first");
            return Err(Error::new(Kind::Conflict, message));
        }
        let store = self.store();
        blocking(move || Ok(remove_stored(&store, &name)?)).await
    }

    /// What versions come from, those included that could not be restored yet.
    fn sources(&self) -> Vec<String> {
        let entries = self.entries();
        let registered = entries.iter().map(|entry| entry.source().to_owned());
        let missing = self.state.snapshots.missing_sources();
        registered.chain(missing).collect()
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

/// Whether a version's source, however it was named, is the archive called `name`.
fn is_of(source: &str, name: &str) -> bool {
    source.trim_end_matches('/').rsplit('/').next() == Some(name)
}

/// The failure of an archive that is not taken.
fn refused(error: ArchiveError) -> Error {
    match &error {
        ArchiveError::Exists(_) | ArchiveError::Busy => {
            Error::new(Kind::Conflict, error.to_string())
        }
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
