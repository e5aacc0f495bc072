//! Settings of the server: the command line, the environment and `config.properties`, in TorchServe's keys.
//!
//! Two steps: `raw` gathers what was typed, and from where; `keys`, the table of all keys, reads each, and `checks` has the
//! rules for several together. Every problem is reported at once. Nothing here binds, loads or starts anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::listen::CertificateSource;
use crate::model::Limits;

use super::model::{Defaults, VersionLimits};
use super::{Problem, Problems};

mod address;
mod checks;
mod environment;
mod file;
mod keys;
mod kinds;
mod memory;
mod raw;
mod reader;
mod report;
mod saved;
mod startup;

pub use environment::Environment;
pub use file::newest_saved;
pub use keys::{Key, PingMeaning, ReadyRequires, Role, Values, Weight, keys};
pub use raw::{Entry, Flags};
pub use report::Setting;
pub use startup::{ListedVersions, LoadModel, LoadModels};

use reader::Reader;

/// Says which items of `allowed_urls` allow nothing, or less than they say, and why. The second argument is
/// `lantern_allow_any_url`. What a URL means is the business of those who fetch from it.
pub type CheckUrls = fn(&str, bool) -> Vec<String>;

/// What KServe sets `PROTOCOL_VERSION` to.
const KSERVE_PROTOCOLS: [&str; 4] = ["v1", "v2", "grpc-v1", "grpc-v2"];

/// Settings of the server, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The value of every key.
    pub values: Values,
    /// Where certificate and key are, if files were named. Listeners that speak TLS without make their own.
    pub certificate: Option<CertificateSource>,
    /// Where the server's log, the models' and that of requests are written.
    pub log_directory: PathBuf,
    /// Where metrics are written that are log lines.
    pub metrics_directory: PathBuf,
    /// Where archives may be unpacked: `lantern_temp_dir`, then what takes its place if nothing can be written there.
    pub unpack_directories: Vec<PathBuf>,
    /// Where snapshots of the catalog are written; `None` if there are none.
    pub snapshot_directory: Option<PathBuf>,
    /// Where keys that the server makes are written.
    pub key_file: PathBuf,
    /// Whether Amazon SageMaker runs this server: it sets `SAGEMAKER_BIND_TO_PORT`.
    pub is_on_sagemaker: bool,
    /// Whether KServe runs this server as its TorchServe: it sets `PROTOCOL_VERSION`, which nothing but the wrapper of that
    /// container reads.
    pub is_on_kserve: bool,
    /// `SAGEMAKER_MULTI_MODE`: models come and go through the API.
    pub is_multi_model: bool,
    /// `AWS_*`: where S3 is and who asks.
    pub s3: Variables,
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`: through what archives are fetched.
    pub proxies: Variables,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Everything that was typed, by key, as snapshots save it. May hold secrets.
    pub typed: BTreeMap<String, Entry>,
    /// What the file says where it names variables with `$$NAME$$`: their values may be secrets.
    pub written: BTreeMap<String, String>,
    /// What was ignored, and why.
    pub warnings: Vec<Problem>,
}

/// Environment variables that hold secrets; only their names are ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

impl fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl ServerConfig {
    /// Reads the file that flags and environment name, and every setting, or reports everything that is wrong.
    pub fn load(
        flags: &Flags,
        environment: &Environment,
        check_urls: CheckUrls,
    ) -> Result<Self, Problems> {
        let raw = raw::gather(flags, environment)?;
        let mut reader = Reader::new(raw, environment, check_urls);
        let mut values = Values::read(&mut reader);
        let stores = (values.workflow_store.take(), &values.model_store);
        values.workflow_store = stores.0.or_else(|| stores.1.clone());
        let certificate = checks::certificate(&mut reader, &values);
        checks::client_ca(&mut reader, &values);
        checks::logs(&mut reader, &values);
        checks::urls(&mut reader, &values);
        checks::reach(&mut reader, &values);
        checks::tenants(&mut reader, &values);
        checks::temporary_directory(&mut reader);
        let raw = reader.finish();
        let saves = !flags.no_config_snapshots;
        let multi = environment.variable("SAGEMAKER_MULTI_MODE");
        let mut unpack_directories = environment.unpack_directories();
        unpack_directories.retain(|other| *other != values.lantern_temp_dir);
        unpack_directories.insert(0, values.lantern_temp_dir.clone());
        let config = Self {
            values,
            certificate,
            log_directory: environment.log_directory(),
            metrics_directory: environment.metrics_directory(),
            unpack_directories,
            snapshot_directory: saves.then(|| environment.snapshot_directory()),
            key_file: environment.path("key_file.json"),
            is_on_sagemaker: environment.variable("SAGEMAKER_BIND_TO_PORT").is_some(),
            is_on_kserve: environment
                .variable("PROTOCOL_VERSION")
                .is_some_and(|version| KSERVE_PROTOCOLS.contains(&version)),
            is_multi_model: multi.is_some_and(|value| !value.eq_ignore_ascii_case("false")),
            s3: Variables(environment.starting_with("AWS_")),
            proxies: Variables(environment.proxies()),
            file: raw.file,
            typed: raw.entries,
            written: raw.written,
            warnings: raw.warnings,
        };
        Problems::or(raw.problems, config)
    }

    /// What holds for a version about which nobody says anything. `at_startup`, a version without workers would be of
    /// no use, so it gets one for each device; a registration by the API gets none.
    pub fn defaults(&self, at_startup: bool, gpus: u32, cores: usize) -> Defaults {
        let values = &self.values;
        let gpus = values.number_of_gpu.map_or(gpus, |most| gpus.min(most));
        let devices = usize::try_from(gpus).ok().filter(|gpus| *gpus > 0);
        let workers = match (values.default_workers_per_model, at_startup) {
            (Some(workers), _) => workers,
            (None, true) => {
                let found = devices.unwrap_or(cores).max(1);
                found.min(values.lantern_max_workers)
            }
            (None, false) => 0,
        };
        Defaults {
            workers,
            response_timeout: values.default_response_timeout,
            startup_timeout: values.default_startup_timeout,
            job_queue_size: values.job_queue_size,
            max_response: values.max_response_size,
            hosting: values.lantern_hosting,
            envelope: values.service_envelope,
            handler_headers: values.lantern_handler_headers.clone(),
            allow_inline: values.lantern_allow_inline,
            gpus,
            ceilings: values.ceilings(),
            most: VersionLimits {
                workers: values.lantern_max_workers,
                batch_size: values.lantern_max_batch_size,
                job_queue_size: values.lantern_max_job_queue_size,
                timeout: values.lantern_max_timeout,
                handler_memory: values.lantern_max_handler_memory,
            },
        }
    }
}

impl Values {
    /// Whether any listener speaks TLS.
    pub const fn needs_tls(&self) -> bool {
        self.inference_address.is_tls()
            || self.management_address.is_tls()
            || self.metrics_address.is_tls()
            || self.enable_grpc_ssl
    }

    /// The most that a handler may be given. Wider than the defaults where a handler may well need more.
    const fn ceilings(&self) -> Limits {
        Limits {
            memory: self.lantern_max_memory,
            cpu: self.lantern_max_cpu,
            init_cpu: self.lantern_max_init_cpu,
            output: self.lantern_max_output,
            response: self.lantern_max_response,
            host_calls: self.lantern_max_host_calls,
            log_lines_per_second: self.lantern_max_log_lines_per_second,
            log_bytes_per_second: self.lantern_max_log_bytes_per_second,
            observations_per_second: self.lantern_max_observations_per_second,
            metric_series: self.lantern_max_metric_series,
            instances: self.lantern_max_instances,
            process_memory: self.lantern_max_process_memory,
            threads: self.lantern_max_threads,
        }
    }
}

#[cfg(test)]
mod tests;
