//! Where archives may be fetched from, and how much they may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::super::{AllowedUrls, Problem};
use super::places::Surroundings;
use super::reader::Reader;

/// Fetching archives into the model store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// `allowed_urls`. TorchServe allows every place unless told otherwise; here nothing said means no place.
    pub allowed: AllowedUrls,
    /// `lantern_private_hosts`: names that may lead to addresses of this machine and its network.
    pub private_hosts: BTreeSet<String>,
    /// `lantern_max_download`: bytes of an archive.
    pub limit: u64,
    /// `lantern_download_timeout`: for an archive to arrive.
    pub timeout: Duration,
    /// `AWS_*`: where S3 is and who asks.
    pub s3: Variables,
}

/// Environment variables that hold secrets; only their names are ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads the settings of fetching.
pub fn sources(reader: &mut Reader, surroundings: &Surroundings) -> SourceConfig {
    // Read for its problems: what it switches on was decided when variables were read.
    reader.truth("use_env_allowed_urls", false);
    let hosts = reader.text("lantern_private_hosts").unwrap_or_default();
    let hosts = hosts
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty());
    let aws = surroundings
        .variables
        .iter()
        .filter(|(name, _)| name.starts_with("AWS_"));
    SourceConfig {
        allowed: allowed(reader),
        private_hosts: hosts.map(str::to_ascii_lowercase).collect(),
        limit: reader
            .size("lantern_max_download")
            .map_or(16 << 30, |size| size as u64),
        timeout: reader
            .duration("lantern_download_timeout")
            .unwrap_or(Duration::from_mins(30)),
        s3: Variables(
            aws.map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
    }
}

fn allowed(reader: &mut Reader) -> AllowedUrls {
    let Some(entry) = reader.entry("allowed_urls") else {
        return AllowedUrls::default();
    };
    AllowedUrls::parse(&entry.value).unwrap_or_else(|(item, rule)| {
        reader.add(Problem::new(&entry.origin, "allowed_urls", rule, item));
        AllowedUrls::default()
    })
}
