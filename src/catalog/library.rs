//! From the name of an archive to a version that can be loaded: found, checked, unpacked, its settings resolved.

use std::sync::Arc;

use super::{Registration, Requested, Restored};
use crate::archive::{
    Download, Fetcher, Found, Location, NamedBy, Runtime, Summary, UnpackLimits, UnpackStore,
    Unpacked, default_name, read_summary, with_pin,
};
use crate::config::model::{Defaults, LimitOptions, ModelConfig, Resolved, resolve};
use crate::config::server::ListedVersions;
use crate::config::snapshot::SavedVersion;
use crate::config::{Problem, Problems};
use crate::error::{Error, Kind};
use crate::model::{BackendKind, Envelope, ModelName, ModelSpec, Version};
use crate::runtime::{Bounds, ModelFiles};

/// Where archives come from and what settings they get.
#[derive(Clone)]
pub struct Library {
    /// Where archives lie, and how they get there.
    pub fetcher: Fetcher,
    /// Where they are unpacked.
    pub unpacked: UnpackStore,
    /// What settings versions get.
    pub cfg: Arc<LibraryConfig>,
}

/// Settings of versions, where archives leave room.
#[derive(Debug, Clone)]
pub struct LibraryConfig {
    /// Settings of single versions.
    pub listed: ListedVersions,
    /// What holds for a version that is loaded at the start where nobody says anything.
    pub at_startup: Defaults,
    /// The same for one that is registered by the API.
    pub by_api: Defaults,
}

impl ModelFiles for Unpacked {
    fn are_whole(&self) -> bool {
        self.is_whole()
    }

    fn restore(&self) -> Result<(), Error> {
        let is_restored = Self::restore(self)?;
        if is_restored {
            tracing::warn!(
                "another program removed files of an unpacked archive, which was unpacked again; lantern_temp_dir names \
                 a directory that no cleaner of temporary files visits"
            );
        }
        Ok(())
    }
}

/// An archive that was opened.
pub(super) struct Opened {
    pub(super) spec: ModelSpec,
    /// The manifest's `runtime`.
    pub(super) runtime: &'static str,
    /// Whether each phase is measured for TorchServe's `ts_handler_*` as well.
    pub(super) is_profiled: bool,
    /// What is odd about its settings.
    pub(super) warnings: Vec<String>,
    /// Keeps the files.
    pub(super) files: Unpacked,
    /// Why it cannot be started, if that is known.
    pub(super) unusable: Option<Error>,
    /// The archive's file, if it was fetched for this.
    pub(super) download: Option<Download>,
    /// What restores it: a name in the model store, or a whole path.
    pub(super) source: String,
    /// The SHA-256 that the archive must have also when it is restored, if whoever registered it said one.
    pub(super) pin: Option<String>,
    /// The handler that was asked for, if one was.
    pub(super) handler: Option<String>,
    /// The envelope that was asked for, if one was.
    pub(super) envelope: Option<Envelope>,
    /// What clients are shown as its URL.
    pub(super) url: String,
    /// Whether the operator listed it.
    pub(super) loaded_at_startup: bool,
}

/// What is known of a version before its archive is opened.
pub(super) struct Preview {
    /// Name, version and settings, or what stands for them; no files.
    pub(super) spec: Arc<ModelSpec>,
    /// Whether the name is the one it is going to have.
    pub(super) is_name_known: bool,
    /// Whether the version is the one it is going to have.
    pub(super) is_version_known: bool,
    /// The framework that runs the artifact.
    pub(super) backend: Option<BackendKind>,
    /// The manifest's `runtime`.
    pub(super) runtime: &'static str,
    /// Whether the archive is on this machine.
    pub(super) is_here: bool,
}

/// The version that is shown of an archive that nobody has opened.
const UNKNOWN: &str = "unknown";

impl Library {
    /// What is known of a registration at the start, without unpacking anything.
    pub(super) fn preview(&self, registration: &Registration) -> Preview {
        let by = named_by(registration, true);
        let location = self.fetcher.here(&registration.url, by);
        let summary = location.as_ref();
        let summary = summary.and_then(|location| read_summary(location, UnpackLimits::default()));
        let (name, version) = preview_names(registration, summary.as_ref());
        let runtime = summary
            .as_ref()
            .map_or(Runtime::Python, |summary| summary.manifest.runtime);
        Preview {
            is_name_known: name.is_some(),
            is_version_known: version.is_some(),
            backend: summary.as_ref().and_then(|summary| summary.backend),
            runtime: runtime.name(),
            is_here: location.is_some(),
            spec: Arc::new(self.preview_spec(registration, name, version, summary)),
        }
    }

    fn preview_spec(
        &self,
        registration: &Registration,
        name: Option<ModelName>,
        version: Option<Version>,
        summary: Option<Summary>,
    ) -> ModelSpec {
        let of_url = || ModelName::new(&default_name(&registration.url)).ok();
        let fallback = || ModelName::new(UNKNOWN).expect("it is a name");
        let name = name.or_else(of_url).unwrap_or_else(fallback);
        let version = version.unwrap_or_else(|| Version::new(UNKNOWN).expect("it is a version"));
        let config = summary.map(|summary| summary.config).unwrap_or_default();
        let resolved = self.preview_settings(registration, &config, &name, &version);
        ModelSpec {
            directory: std::path::PathBuf::new(),
            artifact: std::path::PathBuf::new(),
            handler: std::path::PathBuf::new(),
            backend: BackendKind::None,
            digest: String::new(),
            samples: None,
            declared: config.options.declared(),
            manifest: String::new(),
            config: config.json,
            properties: std::collections::BTreeMap::new(),
            settings: resolved.settings,
            limits: resolved.limits,
            name,
            version,
        }
    }

    /// The settings it is going to have. Where they are wrong, opening the archive says so.
    fn preview_settings(
        &self,
        registration: &Registration,
        config: &ModelConfig,
        name: &ModelName,
        version: &Version,
    ) -> Resolved {
        let resolved = self.resolve(registration, config, (name, version), true);
        resolved.unwrap_or_else(|_| {
            let nothing = Requested::default();
            let config = ModelConfig::default();
            let defaults = &self.cfg.at_startup;
            let resolved = resolve(&config, &nothing, &nothing, defaults);
            let bounds = saved_bounds(registration, defaults.most.workers);
            as_registered(registration, bounds, resolved.unwrap_or_default())
        })
    }

    /// The same for an owner whose handlers and processes may be given less.
    #[must_use]
    pub(super) fn within(mut self, ceilings: &LimitOptions) -> Self {
        if *ceilings != LimitOptions::default() {
            let cfg = Arc::make_mut(&mut self.cfg);
            for defaults in [&mut cfg.at_startup, &mut cfg.by_api] {
                defaults.ceilings = ceilings.lower(&defaults.ceilings);
            }
        }
        self
    }

    /// Settings of a version: what its archive, the registration, the operator and the server say.
    fn resolve(
        &self,
        registration: &Registration,
        config: &ModelConfig,
        (name, version): (&ModelName, &Version),
        at_startup: bool,
    ) -> Result<Resolved, Problems> {
        let defaults = if at_startup {
            &self.cfg.at_startup
        } else {
            &self.cfg.by_api
        };
        let listed = self.cfg.listed.of(name, version);
        let bounds = saved_bounds(registration, defaults.most.workers);
        let requested = Requested {
            min_workers: bounds.map_or(registration.requested.min_workers, |it| Some(it.min)),
            max_workers: bounds.map_or(registration.requested.max_workers, |it| Some(it.max)),
            ..registration.requested.clone()
        };
        let resolved = resolve(config, &requested, &listed, defaults)?;
        Ok(as_registered(registration, bounds, resolved))
    }

    /// Brings the archive that `registration` names to this machine, and opens it.
    pub(super) async fn open(
        self,
        registration: Registration,
        at_startup: bool,
    ) -> Result<Opened, Error> {
        let by = named_by(&registration, at_startup);
        let url = registration.url.clone();
        let found = self.fetcher.find(&pinned(&registration), by).await?;
        let opened =
            tokio::task::spawn_blocking(move || self.unpack(&registration, found, at_startup));
        opened.await.map_err(|panic| {
            Error::new(Kind::Internal, format!("Failed to save model: {url}")).with_detail(panic)
        })?
    }

    /// The file that was fetched for a version that is restored: it still goes with the version.
    fn fetched_before(&self, registration: &Registration) -> Option<Download> {
        let restored = registration.restored.as_ref()?;
        self.kept(&registration.url, restored.more.is_fetched)
    }

    fn kept(&self, source: &str, is_fetched: bool) -> Option<Download> {
        let root = self.fetcher.store().root()?;
        is_fetched.then(|| Download::kept(&root, source))?
    }

    /// Files that were fetched for versions that nobody wants any more. They go when they are dropped.
    pub(super) fn give_up(&self, versions: &[SavedVersion]) -> Vec<Download> {
        let kept = versions
            .iter()
            .filter_map(|saved| self.kept(&saved.source, saved.more.is_fetched));
        kept.inspect(Download::give_up).collect()
    }

    /// Blocks for as long as unpacking takes.
    fn unpack(
        &self,
        registration: &Registration,
        found: Found,
        at_startup: bool,
    ) -> Result<Opened, Error> {
        let Found { location, download } = found;
        let restored = registration.restored.as_ref();
        let files = self.unpacked.unpack(&location)?;
        let manifest = &files.contents().manifest;
        let unusable = check_handler(registration, &files).err();
        let name = model_name(registration, &files, &location, at_startup)?;
        let version = manifest.version.clone();
        check_restored(restored, &version, files.digest())?;
        let config = &files.contents().config;
        let resolved = self.resolve(registration, config, (&name, &version), at_startup)?;
        let warnings = config.warnings.iter().chain(&resolved.warnings);
        Ok(Opened {
            runtime: manifest.runtime.name(),
            is_profiled: config.is_profiled,
            warnings: warnings.map(ToString::to_string).collect(),
            spec: files.spec(name, version, &resolved),
            files,
            unusable,
            download: download.or_else(|| self.fetched_before(registration)),
            source: location.source().to_owned(),
            pin: location.digest().map(str::to_owned),
            handler: registration.handler.clone(),
            envelope: registration.envelope,
            url: restored
                .and_then(|restored| restored.more.url.clone())
                .unwrap_or_else(|| registration.url.clone()),
            loaded_at_startup: restored
                .map_or(at_startup, |restored| restored.more.loaded_at_startup),
        })
    }
}

/// Who names the archive: a version that a client registered is restored with the client's rights. What lies by its name may be
/// another file by now.
fn named_by(registration: &Registration, at_startup: bool) -> NamedBy {
    let restored = registration.restored.as_ref();
    let is_listed = restored.is_none_or(|restored| restored.more.loaded_at_startup);
    if at_startup && is_listed {
        NamedBy::Operator
    } else {
        NamedBy::Client
    }
}

/// What finds the archive, with the digest that it was registered with, if this restores it.
fn pinned(registration: &Registration) -> String {
    let restored = registration.restored.as_ref();
    let pin = restored.and_then(|restored| restored.more.pin.as_deref());
    pin.map_or_else(
        || registration.url.clone(),
        |pin| with_pin(&registration.url, pin),
    )
}

/// Whatever its archive says, a version has the envelope it was registered with, and a restored one the workers that it had, as
/// far as `bounds` has room for them.
fn as_registered(
    registration: &Registration,
    bounds: Option<Bounds>,
    mut resolved: Resolved,
) -> Resolved {
    if let Some(envelope) = registration.envelope {
        resolved.settings.envelope = envelope;
    }
    let Some(bounds) = bounds else {
        return resolved;
    };
    resolved.settings.min_workers = bounds.min;
    resolved.settings.max_workers = bounds.max;
    let restored = registration.restored.as_ref();
    let saved = restored.and_then(|restored| restored.bounds);
    let lost = saved.filter(|saved| saved.max > bounds.max);
    resolved
        .warnings
        .extend(lost.map(|saved| lowered(saved, bounds)));
    resolved
}

/// The workers that a snapshot says, and no more than the operator allows by now: another server may have saved it.
fn saved_bounds(registration: &Registration, most: usize) -> Option<Bounds> {
    let saved = registration.restored.as_ref()?.bounds?;
    Some(Bounds {
        min: saved.min.min(most),
        max: saved.max.min(most),
    })
}

fn lowered(saved: Bounds, bounds: Bounds) -> Problem {
    let max = bounds.max;
    let rule = format!("becomes {max}, which is lantern_max_workers of this server");
    Problem::new("the snapshot", "maxWorkers", rule, saved.max)
}

/// A restored version must be the one that was saved. The archive's bytes may have changed unless they were pinned: that is the
/// operator's to do.
fn check_restored(
    restored: Option<&Restored>,
    version: &Version,
    digest: &str,
) -> Result<(), Error> {
    let Some(restored) = restored else {
        return Ok(());
    };
    if restored.version != *version {
        let saved = &restored.version;
        let message =
            format!("the archive must hold version {saved} as the snapshot says, got {version}");
        return Err(Error::new(Kind::InvalidModel, message));
    }
    if restored
        .more
        .digest
        .as_ref()
        .is_some_and(|saved| saved != digest)
    {
        tracing::warn!(version = %version, "the archive has changed since the snapshot was saved");
    }
    Ok(())
}

/// Name and version as far as they are known: asked for, restored, or in the manifest.
fn preview_names(
    registration: &Registration,
    summary: Option<&Summary>,
) -> (Option<ModelName>, Option<Version>) {
    let manifest = summary.map(|summary| &summary.manifest);
    let name = match &registration.name {
        Some(name) => ModelName::new(name).ok(),
        None => manifest.and_then(|manifest| {
            let by_file = || ModelName::new(&default_name(&registration.url)).ok();
            manifest.name.clone().or_else(by_file)
        }),
    };
    let restored = registration.restored.as_ref();
    let version = restored.map(|restored| restored.version.clone());
    let version = version.or_else(|| manifest.map(|manifest| manifest.version.clone()));
    (name, version)
}

/// The name asked for, else the manifest's, else, at start-up, one made from the file's.
fn model_name(
    registration: &Registration,
    files: &Unpacked,
    location: &Location,
    at_startup: bool,
) -> Result<ModelName, Error> {
    let parse = |name: &str| {
        ModelName::new(name).map_err(|error| Error::new(Kind::BadRequest, error.to_string()))
    };
    match (&registration.name, &files.contents().manifest.name) {
        (Some(name), _) => parse(name),
        (None, Some(name)) => Ok(name.clone()),
        (None, None) if at_startup => parse(&location.default_name()),
        (None, None) => Err(Error::new(Kind::InvalidModel, "Model name is not defined.")),
    }
}

/// A component is checked when it is packed and unpacked: one from elsewhere cannot take its place. As in TorchServe such
/// a version can be registered; its workers do not start.
fn check_handler(registration: &Registration, files: &Unpacked) -> Result<(), Error> {
    let own = files.contents().handler.as_str();
    match &registration.handler {
        Some(other) if other != own => {
            let message = format!(
                "handler must be the archive's own, {own:?}, or be left out, got {other:?}"
            );
            Err(Error::new(Kind::LoadFailed, message))
        }
        _ => Ok(()),
    }
}
