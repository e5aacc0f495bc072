//! From resolved settings to what is measured and where it goes.

use std::ffi::OsString;

use crate::config;
use crate::config::server::Values;
use crate::metrics::{Config, Listing, Mode, System};

/// What `values` ask for, where `threads` threads count.
pub(super) fn config(values: &Values, threads: usize) -> Config {
    Config {
        mode: values.metrics_mode,
        listing: listing(values),
        auto_detect: values.model_metrics_auto_detect,
        has_scrapes: values.enable_metrics_api,
        threads,
        ..Config::default()
    }
}

/// What `metrics_config` lists. As with TorchServe, a file that is wrong leaves its metrics out, and the server serves.
fn listing(values: &Values) -> Listing {
    let Some(file) = &values.metrics_config else {
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
pub(super) fn system(values: &Values, environment: &[(OsString, OsString)]) -> Option<System> {
    let is_seen = values.enable_metrics_api || values.metrics_mode != Mode::Prometheus;
    let words = |command: &String| command.split_whitespace().map(str::to_owned).collect();
    (!values.disable_system_metrics && is_seen).then(|| System {
        interval: values.metric_time_interval,
        command: values
            .system_metrics_cmd
            .as_ref()
            .map(words)
            .unwrap_or_default(),
        environment: environment.to_vec(),
    })
}
