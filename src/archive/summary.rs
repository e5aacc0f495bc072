//! What an archive says of itself, read without unpacking it: enough to know which model it is.

use crate::config::model::ModelConfig;
use crate::model::BackendKind;

use super::contents::{TEXT_LIMIT, backend_of};
use super::entry::EntryName;
use super::{Location, MANIFEST, Manifest, UnpackLimits, source};

/// Manifest and settings of an archive that was not unpacked.
#[derive(Debug)]
pub struct Summary {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its settings; the default where it has none that can be read.
    pub config: ModelConfig,
    /// The framework that runs the artifact, as far as its name says.
    pub backend: Option<BackendKind>,
}

/// Reads the manifest and the settings of the archive at `location`. `None` where that would take reading all of it, as a
/// tar does, or where it cannot be read: whoever opens the archive learns why.
pub fn read_summary(location: &Location, limits: UnpackLimits) -> Option<Summary> {
    let read = |name: &EntryName| source::read_one(location, name, limits, TEXT_LIMIT);
    let named = EntryName::parse(MANIFEST.as_bytes()).ok()??;
    let manifest = Manifest::parse(&read(&named)?).ok()?;
    let config = manifest.config_file.as_ref().and_then(|name| {
        let content = read(name)?;
        ModelConfig::parse(name.as_str(), &content).ok()
    });
    let config = config
        .unwrap_or_default()
        .with_manifests_envelope(manifest.envelope.as_deref());
    Some(Summary {
        backend: backend_of(&manifest, &config),
        manifest,
        config,
    })
}
