//! Downloads archives into the model store, from where `allowed_urls` allows.
//!
//! `remote` parses the URL, `http` and `s3` open it, `file` finds archives on this machine, `part` is the file of an
//! unfinished download, and `download` a finished one. A URL is refused before anything is connected to or created.
//! Nothing is unpacked here: a downloaded archive is read as any other in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::AllowedUrls;
use super::ArchiveError;
use super::store::{Location, ModelStore};
use crate::config::show_size;
use crate::hex;

mod address;
mod download;
mod file;
mod http;
mod part;
mod proxy;
mod remote;
mod s3;

pub(super) use address::is_public;
pub use address::{Lookup, system_lookup};
pub use download::{Download, recover};
pub use proxy::Proxies;
pub use remote::with_pin;

use http::Http;
pub(super) use part::Part;
use remote::Remote;
use s3::S3;

/// How often a transfer is resumed after its connection broke.
const RESUMPTIONS: u32 = 5;
/// Pause before the first resumption. Each further pause is longer.
const PAUSE: Duration = Duration::from_millis(200);
/// A connection that delivers no byte for so long is given up.
const STALL: Duration = Duration::from_mins(1);
/// Time between two log lines about the progress of a download.
const PROGRESS: Duration = Duration::from_secs(10);

/// Where archives may be fetched from, and how large they may be.
#[derive(Clone)]
pub struct FetchConfig {
    /// The URLs that the setting `allowed_urls` allows.
    pub allowed: AllowedUrls,
    /// Host names that may have private addresses.
    pub private_hosts: BTreeSet<String>,
    /// Most bytes of an archive.
    pub limit: u64,
    /// How long a download may take, resumptions included.
    pub timeout: Duration,
    /// The `AWS_*` variables: the address of the S3 store, and the credentials.
    pub s3: BTreeMap<String, String>,
    /// The proxies through which others are reached.
    pub proxies: Proxies,
    /// Finds the addresses of a name.
    pub lookup: Lookup,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            allowed: AllowedUrls::default(),
            private_hosts: BTreeSet::new(),
            limit: 16 << 30,
            timeout: Duration::from_mins(30),
            s3: BTreeMap::new(),
            proxies: Proxies::default(),
            lookup: system_lookup(),
        }
    }
}

/// Who named an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A client of the API, who may only name what is allowed, before a restart of the server and after it.
    Client,
    /// The operator, in the settings. A URL listed there is allowed, and a file that an earlier start fetched is used
    /// again.
    Operator,
}

/// An archive that is on this machine.
#[derive(Debug)]
pub struct Found {
    /// Where it is.
    pub location: Location,
    /// The downloaded file, if this call downloaded it.
    pub download: Option<Download>,
}

/// Finds archives in the model store and fetches them into it. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    cfg: FetchConfig,
    store: ModelStore,
    http: Http,
    s3: S3,
    /// Downloads under way, by the name of the file they make.
    busy: DashMap<String, Weak<tokio::sync::Mutex<()>>>,
}

/// A source that was opened: from which byte on it sends, how many there are in total, and the bytes.
pub struct Opened {
    offset: u64,
    total: Option<u64>,
    validator: Option<String>,
    body: futures_util::stream::BoxStream<'static, Result<bytes::Bytes, String>>,
}

/// How to resume a transfer: the number of bytes that are here, and the validator of the file that they belong to.
pub struct Resume {
    offset: u64,
    validator: String,
}

/// Why a transfer failed. The first text is for the client, the second for the log.
#[derive(Debug)]
pub enum Failure {
    /// Trying again would fail as well.
    Refused(String, String),
    /// Trying again may succeed.
    Broken(&'static str, String),
    /// This machine failed, not the source.
    Here(ArchiveError),
}

impl Failure {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into(), String::new())
    }
}

impl Fetcher {
    /// Fetches into `store`, whose links lead where `cfg` allows. Removes unfinished downloads of earlier servers that are
    /// too old to resume.
    pub fn new(cfg: FetchConfig, store: ModelStore) -> Self {
        let store = store.linking_to(&cfg.allowed);
        if let Some(root) = store.root() {
            part::sweep(&root);
        }
        Self(Arc::new(Inner {
            http: Http::new(&cfg),
            s3: S3::new(cfg.s3.clone(), cfg.proxies.clone()),
            busy: DashMap::new(),
            cfg,
            store,
        }))
    }

    /// Bytes that an archive may have.
    pub fn largest(&self) -> u64 {
        self.0.cfg.limit
    }

    /// How it fetches.
    pub fn config(&self) -> &FetchConfig {
        &self.0.cfg
    }

    /// The same for somebody who may fetch from other URLs, and no more than so many bytes.
    #[must_use]
    pub fn restricted_to(&self, allowed: AllowedUrls, most: u64) -> Self {
        let cfg = FetchConfig {
            allowed,
            limit: self.0.cfg.limit.min(most),
            ..self.0.cfg.clone()
        };
        Self::new(cfg, self.0.store.clone())
    }

    /// Whether `url` names an archive that has to be fetched.
    pub fn is_remote(url: &str) -> bool {
        let named = remote::split_pin(url).map(|(named, _)| named);
        named.is_ok_and(|named| Remote::parse(named).is_ok_and(|remote| remote.is_some()))
    }

    /// The model store that archives are fetched into.
    pub fn store(&self) -> &ModelStore {
        &self.0.store
    }

    /// The archive that is called `url`, if it is on this machine already. Nothing is fetched; reads the file system.
    pub fn here(&self, url: &str, by: NamedBy) -> Option<Location> {
        let (named, _) = remote::split_pin(url).ok()?;
        let Some(remote) = Remote::parse(named).ok()? else {
            return self.0.local(named, by).ok();
        };
        let is_file = remote.source.scheme == "file";
        let path = is_file.then(|| file::in_store(&remote, &self.0.store))??;
        Some(self.0.at(path, url))
    }

    /// The archive that `url` names, downloaded if it is not in the store. Dropping the future ends the download.
    pub async fn find(&self, url: &str, by: NamedBy) -> Result<Found, ArchiveError> {
        let (fetcher, url) = (self.clone(), url.to_owned());
        let left = CancellationToken::new();
        let _guard = left.clone().drop_guard();
        // Access to file systems blocks, and they may be on other machines.
        let runtime = Handle::current();
        let found = tokio::task::spawn_blocking(move || {
            let found = left.run_until_cancelled(fetcher.find_here(&url, by));
            runtime.block_on(found)
        });
        let gone =
            |why: String| ArchiveError::io("fetching an archive")(std::io::Error::other(why));
        let found = found.await.map_err(|panic| gone(panic.to_string()))?;
        found.unwrap_or_else(|| Err(gone("no client waits for it any more".to_owned())))
    }

    async fn find_here(&self, url: &str, by: NamedBy) -> Result<Found, ArchiveError> {
        let inner = &self.0;
        let (named, pin) = remote::split_pin(url)?;
        let Some(remote) = Remote::parse(named)? else {
            let location = inner.local(named, by)?;
            return Ok(Found::in_place(location.pinned(pin)));
        };
        if !inner.may_fetch(&remote, by) {
            return Err(remote.not_allowed());
        }
        let mut found = match remote.source.scheme {
            "file" => inner.copy(&remote, by).await,
            _ => inner.download(&remote, by).await,
        }?;
        found.location = found.location.named(url).pinned(pin);
        Ok(found)
    }
}

impl Found {
    const fn in_place(location: Location) -> Self {
        Self {
            location,
            download: None,
        }
    }
}

impl Inner {
    /// An archive in the store, or, by its absolute path, in a directory that `allowed_urls` names. The operator may name
    /// any path.
    fn local(&self, named: &str, by: NamedBy) -> Result<Location, ArchiveError> {
        let path = Path::new(named);
        if by == NamedBy::Operator && path.is_absolute() {
            return Location::local(path).map(|found| found.linking_to(self.store.roots()));
        }
        match file::allowed_path(path, &self.store) {
            Some(path) => Ok(self.at(path, named)),
            None => self.store.resolve(named),
        }
    }

    fn at(&self, path: PathBuf, url: &str) -> Location {
        Location::at(path, url, self.store.roots())
    }

    fn may_fetch(&self, remote: &Remote, by: NamedBy) -> bool {
        let in_store =
            || remote.source.scheme == "file" && file::in_store(remote, &self.store).is_some();
        by == NamedBy::Operator || self.cfg.allowed.permit(&remote.source) || in_store()
    }

    /// Copies a `file://` into the store. A file in the store itself is used where it is.
    async fn copy(&self, remote: &Remote, by: NamedBy) -> Result<Found, ArchiveError> {
        if let Some(path) = file::in_store(remote, &self.store) {
            let source = path.display().to_string();
            return Ok(Found::in_place(self.at(path, &source)));
        }
        self.arrive(remote, by, async |part: Part| {
            let (path, limit) = (remote.path(), self.cfg.limit);
            let copied = file::copy(&path, &self.store, by, limit, &part);
            copied.map(|()| part)
        })
        .await
    }

    async fn download(&self, remote: &Remote, by: NamedBy) -> Result<Found, ArchiveError> {
        self.arrive(remote, by, async |mut part: Part| {
            let transfer = self.transfer(remote, &mut part);
            let ended = match tokio::time::timeout(self.cfg.timeout, transfer).await {
                Ok(ended) => ended,
                Err(_) => Err(Failure::Broken(
                    "it takes too long",
                    format!("over {:?}", self.cfg.timeout),
                )),
            };
            match ended {
                Ok(()) => Ok(part),
                // A later registration can resume from what is here.
                Err(failure @ Failure::Broken(..)) => Err(failure),
                Err(failure) => {
                    part.discard();
                    Err(failure)
                }
            }
        })
        .await
    }

    /// Has `bring` fill a file and moves it into the store. Of one name, only one download runs at a time.
    async fn arrive(
        &self,
        remote: &Remote,
        by: NamedBy,
        bring: impl AsyncFnOnce(Part) -> Result<Part, Failure>,
    ) -> Result<Found, ArchiveError> {
        let root = self.store.root().ok_or(ArchiveError::NoModelStore)?;
        let turn = self.turn(&remote.name);
        let _turn = turn.lock().await;
        let destination = root.join(&remote.name);
        if destination.symlink_metadata().is_ok() {
            return match by {
                NamedBy::Client => Err(ArchiveError::Exists(remote.name.clone())),
                NamedBy::Operator => {
                    tracing::info!(
                        "{} is in the model store already, and is used as it is",
                        remote.name
                    );
                    Ok(Found::in_place(self.store.resolve(&remote.name)?))
                }
            };
        }
        let part = Part::open(&root, &hex::encode(&Sha256::digest(remote.url.as_str())))?;
        let part = bring(part)
            .await
            .map_err(|failure| remote.failed(failure))?;
        let download = Download::publish(part, &root, &remote.name)?;
        Ok(Found {
            location: self.at(download.path().to_owned(), &remote.name),
            download: Some(download),
        })
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.busy.retain(|_, turn| turn.strong_count() > 0);
        let mut turn = self.busy.entry(name.to_owned()).or_default();
        turn.upgrade().unwrap_or_else(|| {
            let first = Arc::default();
            *turn = Arc::downgrade(&first);
            first
        })
    }

    /// Downloads into `part`, and resumes after a connection broke, if the source can and bytes arrived.
    async fn transfer(&self, remote: &Remote, part: &mut Part) -> Result<(), Failure> {
        let mut resumptions = 0;
        loop {
            let before = part.len().map_err(Failure::Here)?;
            let failure = match self.attempt(remote, part).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let came = part.len().map_err(Failure::Here)? > before && part.resume().is_some();
            let Failure::Broken(_, detail) = &failure else {
                return Err(failure);
            };
            if !came || resumptions == RESUMPTIONS {
                return Err(failure);
            }
            resumptions += 1;
            tracing::warn!(
                "The download of {} broke off and goes on: {detail}",
                remote.name
            );
            tokio::time::sleep(PAUSE * resumptions).await;
        }
    }

    async fn attempt(&self, remote: &Remote, part: &mut Part) -> Result<(), Failure> {
        let resume = part.resume();
        let opened = match remote.source.scheme {
            "s3" => self.s3.open(remote, resume.as_ref()).await?,
            _ => self.http.open(&remote.url, resume.as_ref()).await?,
        };
        if opened.total.is_some_and(|total| total > self.cfg.limit) {
            return Err(self.too_large());
        }
        if opened.offset == 0 {
            part.restart(opened.validator.as_deref())
                .map_err(Failure::Here)?;
        }
        self.receive(remote, part, opened).await
    }

    async fn receive(&self, remote: &Remote, part: &Part, opened: Opened) -> Result<(), Failure> {
        let writing = |error| Failure::Here(ArchiveError::io("writing an archive")(error));
        let mut file = part.writer(opened.offset).map_err(Failure::Here)?;
        let (mut body, mut received) = (opened.body, opened.offset);
        let mut progress = Progress::new(remote, opened.total);
        loop {
            let next = tokio::time::timeout(STALL, body.next()).await;
            let chunk = match next.map_err(|_| {
                Failure::Broken(
                    "its server stopped sending",
                    format!("{STALL:?} without a byte"),
                )
            }) {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => break,
                Ok(Some(Err(detail))) => {
                    file.flush().await.map_err(writing)?;
                    return Err(Failure::Broken("it broke off", detail));
                }
                Err(stalled) => {
                    file.flush().await.map_err(writing)?;
                    return Err(stalled);
                }
            };
            received += chunk.len() as u64;
            if received > self.cfg.limit {
                return Err(self.too_large());
            }
            file.write_all(&chunk).await.map_err(writing)?;
            progress.at(received);
        }
        file.flush().await.map_err(writing)?;
        match opened.total {
            Some(total) if total != received => Err(Failure::Broken(
                "it broke off",
                format!("{received} of {total} bytes"),
            )),
            _ => Ok(()),
        }
    }

    fn too_large(&self) -> Failure {
        let limit = usize::try_from(self.cfg.limit).unwrap_or(usize::MAX);
        Failure::refused(format!("it is larger than {}", show_size(limit as u64)))
    }
}

/// Logs now and then how far a download is.
struct Progress<'a> {
    name: &'a str,
    total: Option<u64>,
    last: Instant,
}

impl<'a> Progress<'a> {
    fn new(remote: &'a Remote, total: Option<u64>) -> Self {
        Self {
            name: &remote.name,
            total,
            last: Instant::now(),
        }
    }

    fn at(&mut self, received: u64) {
        if self.last.elapsed() < PROGRESS {
            return;
        }
        self.last = Instant::now();
        let of = self.total.map(|total| format!(" of {}", show_size(total)));
        tracing::info!(
            "Downloading {}: {}{}",
            self.name,
            show_size(received),
            of.unwrap_or_default()
        );
    }
}

#[cfg(test)]
mod tests;
