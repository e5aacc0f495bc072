//! From resolved settings to what is measured and where it goes.

use std::ffi::OsString;

use crate::config;
use crate::config::server::{MetricsConfig, MetricsMode};
use crate::metrics::{Config, Listing, Mode, System};

/// What `settings` ask for, where `threads` threads count.
pub(super) fn config(settings: &MetricsConfig, threads: usize) -> Config {
    Config {
        mode: match settings.mode {
            MetricsMode::Log => Mode::Log,
            MetricsMode::Prometheus => Mode::Prometheus,
            MetricsMode::Legacy => Mode::Legacy,
        },
        listing: listing(settings),
        auto_detect: settings.auto_detect,
        has_scrapes: settings.api,
        threads,
        ..Config::default()
    }
}

/// What `metrics_config` lists. As with TorchServe, a file that is wrong leaves its metrics out, and the server serves.
fn listing(settings: &MetricsConfig) -> Listing {
    let Some(file) = &settings.file else {
        return Listing::default();
    };
    config::metrics::load(file).unwrap_or_else(|problems| {
        for problem in problems.iter() {
            tracing::error!("metrics_config: {problem}");
        }
        tracing::error!("metrics_config: TorchServe's metrics are left out.");
        Listing::NONE
    })
}

/// How the machine is measured, in `environment`: not at all if that is disabled, or if nobody would see it.
pub(super) fn system(
    settings: &MetricsConfig,
    environment: &[(OsString, OsString)],
) -> Option<System> {
    let is_seen = settings.api || settings.mode != MetricsMode::Prometheus;
    let words = |command: &String| command.split_whitespace().map(str::to_owned).collect();
    (settings.system && is_seen).then(|| System {
        interval: settings.interval,
        command: settings
            .system_command
            .as_ref()
            .map(words)
            .unwrap_or_default(),
        environment: environment.to_vec(),
    })
}
