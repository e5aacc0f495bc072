//! Which setting wins, as in TorchServe, and what the operator allows at most.
//!
//! | setting | highest → lowest |
//! |---|---|
//! | batch size, max batch delay | API, archive, `models`, default |
//! | response and startup timeout | archive, `models`, API, server's default |
//! | workers | archive, API, `models`, server's default |
//! | job queue size | archive, server's default |
//! | bytes of a response | archive up to the server's `max_response_size`, which is the default |
//! | service envelope | API, archive, its manifest, server's default |
//! | devices, limits, everything else | archive, default |
//!
//! Timeouts are lowered to `lantern_max_timeout`, unless it is the server's own settings that say more. Handler instances are
//! as many as fit into `lantern_max_handler_memory`.
//!
//! One difference: there, an archive that has a configuration file but no timeout in it gets 120 s whatever the API
//! and the server say. Here a timeout that nobody wrote does not count.

use std::time::Duration;

use crate::model::{Device, Envelope, HandlerHeaders, Hosting, Limits, Settings};

use super::super::units::whole_size;
use super::super::{Problem, Problems};
use super::{DeviceType, LimitOptions, ModelConfig, Options};

/// What somebody outside the archive asks for: parameters of the API, or a version's entry under `models`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// Rows a batch may have.
    pub batch_size: Option<usize>,
    /// How long the oldest job may wait for a fuller batch.
    pub max_batch_delay: Option<Duration>,
    /// Workers to start with.
    pub min_workers: Option<usize>,
    /// Workers there may be; as many as to start with if none are asked for.
    pub max_workers: Option<usize>,
    /// From arrival until the answer.
    pub response_timeout: Option<Duration>,
    /// From the start of loading until the first worker is ready.
    pub startup_timeout: Option<Duration>,
}

/// What holds where nobody asks for anything else, and what nobody may exceed.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Workers of a version.
    pub workers: usize,
    /// From arrival until the answer.
    pub response_timeout: Duration,
    /// From the start of loading until the first worker is ready.
    pub startup_timeout: Duration,
    /// Requests that may wait.
    pub job_queue_size: usize,
    /// Bytes of a response's body, unless the archive says less; it cannot say more.
    pub max_response: usize,
    /// Where runtimes are hosted.
    pub hosting: Hosting,
    /// How requests are wrapped.
    pub envelope: Envelope,
    /// Headers that the operator allows handlers.
    pub handler_headers: HandlerHeaders,
    /// Whether an archive may have itself hosted in the server's process.
    pub allow_inline: bool,
    /// GPUs that may be used: `cuda:0` to `cuda:{gpus - 1}`.
    pub gpus: u32,
    /// The most that a handler may be given.
    pub ceilings: Limits,
    /// The most that a version may have.
    pub most: VersionLimits,
}

impl Defaults {
    /// The most that a handler may be given. One instance may not have more memory than all of them.
    fn ceilings(&self) -> Limits {
        Limits {
            memory: self.ceilings.memory.min(self.most.handler_memory),
            ..self.ceilings.clone()
        }
    }
}

/// What one version may have at most, whoever asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionLimits {
    /// `lantern_max_workers`.
    pub workers: usize,
    /// `lantern_max_batch_size`: rows of a batch.
    pub batch_size: usize,
    /// `lantern_max_job_queue_size`: requests that wait.
    pub job_queue_size: usize,
    /// `lantern_max_timeout`: any timeout that is not the server's own.
    pub timeout: Duration,
    /// `lantern_max_handler_memory`: bytes of all handler instances together.
    pub handler_memory: usize,
}

impl VersionLimits {
    /// Workers that no operator can exceed: more than any machine has use for.
    pub const WORKERS: usize = 1024;
    /// Rows of a batch that no operator can exceed.
    pub const BATCH_SIZE: usize = 65_536;
    /// Waiting requests that no operator can exceed.
    pub const JOB_QUEUE_SIZE: usize = 1_000_000;

    fn check(&self, settings: &Settings) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let queue = (settings.job_queue_size, self.job_queue_size);
        for (key, setting, (asked, most)) in [
            (
                "maxWorkers",
                "lantern_max_workers",
                (settings.max_workers, self.workers),
            ),
            (
                "batchSize",
                "lantern_max_batch_size",
                (settings.batch_size, self.batch_size),
            ),
            ("jobQueueSize", "lantern_max_job_queue_size", queue),
        ] {
            if asked > most {
                let rule =
                    format!("must be at most {most}, which is what this server allows ({setting})");
                problems.push(Problem::new("model settings", key, rule, asked));
            }
        }
        Problems::or(problems, ())
    }
}

impl Default for VersionLimits {
    fn default() -> Self {
        Self {
            workers: Self::WORKERS,
            batch_size: Self::BATCH_SIZE,
            job_queue_size: Self::JOB_QUEUE_SIZE,
            timeout: Duration::from_hours(1),
            handler_memory: 4 << 30,
        }
    }
}

/// How a version is served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// Settings of its runtime.
    pub settings: Settings,
    /// Limits of its handler.
    pub limits: Limits,
    /// What was ignored, and why.
    pub warnings: Vec<Problem>,
}

/// Settings and limits of one version: `config` is the archive's, `api` what a call asked for, `listed` what `models`
/// says. Fails where the archive asks for more than the operator allows.
pub fn resolve(
    config: &ModelConfig,
    api: &Requested,
    listed: &Requested,
    defaults: &Defaults,
) -> Result<Resolved, Problems> {
    let options = &config.options;
    let mut warnings = Vec::new();
    let devices = devices(options, defaults.gpus, &mut warnings);
    let hosting = hosting(options, defaults, &mut warnings);
    let mut limits = options.limits.within(&defaults.ceilings())?;
    limits.instances = instances(&options.limits, defaults, &limits, &mut warnings);
    limits.response = response(&options.limits, defaults, limits.response, &mut warnings);
    let mut settings = outside(listed, api, defaults);
    options.clone().apply_to(&mut settings);
    // For these two alone, the API counts more than the archive.
    settings.batch_size = api.batch_size.unwrap_or(settings.batch_size).max(1);
    settings.max_batch_delay = api.max_batch_delay.unwrap_or(settings.max_batch_delay);
    (settings.min_workers, settings.max_workers) = workers(options, api, listed, defaults.workers);
    settings.devices = devices;
    settings.hosting = hosting;
    lower_timeouts(&mut settings, defaults, &mut warnings);
    defaults.most.check(&settings)?;
    Ok(Resolved {
        settings,
        limits,
        warnings,
    })
}

/// What holds where the archive says nothing.
fn outside(listed: &Requested, api: &Requested, defaults: &Defaults) -> Settings {
    let base = Settings::default();
    let response_timeout = listed.response_timeout.or(api.response_timeout);
    let startup_timeout = listed.startup_timeout.or(api.startup_timeout);
    Settings {
        batch_size: listed.batch_size.unwrap_or(base.batch_size),
        max_batch_delay: listed.max_batch_delay.unwrap_or(base.max_batch_delay),
        response_timeout: response_timeout.unwrap_or(defaults.response_timeout),
        startup_timeout: startup_timeout.unwrap_or(defaults.startup_timeout),
        job_queue_size: defaults.job_queue_size,
        envelope: defaults.envelope,
        handler_headers: defaults.handler_headers.clone(),
        ..base
    }
}

fn workers(
    options: &Options,
    api: &Requested,
    listed: &Requested,
    default: usize,
) -> (usize, usize) {
    let pairs = [
        (options.min_workers, options.max_workers),
        (api.min_workers, api.max_workers),
        (listed.min_workers, listed.max_workers),
    ];
    let chosen = pairs.into_iter().find_map(|(min, max)| Some((min?, max)));
    let (min, max) = chosen.unwrap_or((default, None));
    (min, max.unwrap_or(min).max(min))
}

fn devices(options: &Options, gpus: u32, warnings: &mut Vec<Problem>) -> Vec<Device> {
    if gpus == 0 || options.device_type == Some(DeviceType::Cpu) {
        return vec![Device::Cpu];
    }
    match &options.device_ids {
        Some(ids) if ids.iter().all(|id| *id < gpus) => {
            ids.iter().copied().map(Device::Cuda).collect()
        }
        Some(ids) => {
            let rule = format!("is ignored: devices are numbered from 0 to {}", gpus - 1);
            warnings.push(Problem::new("model configuration", "deviceIds", rule, ids));
            (0..gpus).map(Device::Cuda).collect()
        }
        None => (0..gpus).map(Device::Cuda).collect(),
    }
}

/// An archive may leave the server's process, and come into it only where the operator trusts archives that far.
fn hosting(options: &Options, defaults: &Defaults, warnings: &mut Vec<Problem>) -> Hosting {
    let asked = options.hosting.unwrap_or(defaults.hosting);
    if asked == Hosting::Process || defaults.allow_inline || defaults.hosting == Hosting::Inline {
        return asked;
    }
    let rule = "is ignored: this server hosts models in processes of their own unless it is started with \
                lantern_allow_inline=true";
    warnings.push(Problem::plain(
        "model configuration",
        "lantern.hosting",
        rule,
    ));
    Hosting::Process
}

/// Lowers every timeout to what the operator allows. What the server's own settings say, or hold without being typed, nobody
/// asked for: it stays.
fn lower_timeouts(settings: &mut Settings, defaults: &Defaults, warnings: &mut Vec<Problem>) {
    let base = Settings::default();
    let own = [
        defaults.response_timeout,
        defaults.startup_timeout,
        base.max_retry_timeout,
        base.max_batch_delay,
    ];
    let asked = [
        ("responseTimeout", &mut settings.response_timeout),
        ("startupTimeout", &mut settings.startup_timeout),
        ("maxRetryTimeoutInSec", &mut settings.max_retry_timeout),
        ("maxBatchDelay", &mut settings.max_batch_delay),
    ];
    for ((key, asked), own) in asked.into_iter().zip(own) {
        let most = defaults.most.timeout.max(own);
        if *asked > most {
            let rule = format!("becomes {most:?}, which is lantern_max_timeout of this server");
            warnings.push(Problem::new("model settings", key, rule, *asked));
            *asked = most;
        }
    }
}

/// As many instances as there is memory for. Whoever asked for neither more instances nor more memory than the default misses
/// nothing.
fn instances(
    asked: &LimitOptions,
    defaults: &Defaults,
    allowed: &Limits,
    warnings: &mut Vec<Problem>,
) -> usize {
    let fitting = (defaults.most.handler_memory / allowed.memory.max(1)).max(1);
    let instances = allowed.instances.min(fitting);
    let has_large = asked.memory > Some(Limits::default().memory);
    if instances < allowed.instances && (asked.instances > Some(fitting) || has_large) {
        let memory = whole_size(allowed.memory);
        let rule = format!(
            "becomes {instances}: that many instances of {memory} fit into lantern_max_handler_memory of this server"
        );
        let key = "lantern.limits.instances";
        warnings.push(Problem::new(
            "model configuration",
            key,
            rule,
            allowed.instances,
        ));
    }
    instances
}

/// The operator's `max_response_size` is the limit of a version that has none of its own, and of every other too.
fn response(
    asked: &LimitOptions,
    defaults: &Defaults,
    allowed: usize,
    warnings: &mut Vec<Problem>,
) -> usize {
    let most = defaults.max_response.min(defaults.ceilings.response);
    if asked.response.is_none() {
        return most;
    }
    if allowed > most {
        let rule = format!("becomes {most}, which is max_response_size of this server");
        let key = "lantern.limits.response";
        warnings.push(Problem::new("model configuration", key, rule, allowed));
    }
    allowed.min(most)
}
