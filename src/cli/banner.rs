//! What the server logs about itself at the start: TorchServe's block of `Name: value` lines, then Lantern's own.

use std::path::Path;

use super::doctor;
use crate::config::server::{Environment, ServerConfig, Values};
use crate::server::{Machine, probe};

/// The release of TorchServe whose behavior this server has.
pub(super) const TORCHSERVE: &str = "0.12.0";
const NONE: &str = "N/A";

/// Logs the settings that an operator checks when something is not as expected, and the keys that have no effect.
pub(super) fn introduce(settings: &ServerConfig, environment: &Environment, machine: &Machine) {
    for (name, value) in lines(settings, environment, machine) {
        let value = if value.is_empty() { NONE } else { &value };
        tracing::info!("{name}: {value}");
    }
    if let Some(saved) = &settings.values.model_snapshot {
        let count = saved.versions.len();
        tracing::info!("Started restoring models from snapshot: {count} versions, and no others");
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

/// Which walls there are around worker processes.
fn sandbox(values: &Values, machine: &Machine) -> String {
    let demands = &values.lantern_sandbox;
    if demands.is_off() {
        return doctor::line(demands, &Vec::new());
    }
    probe(values, machine).map_or_else(
        |error| format!("{demands}: unknown ({error})"),
        |outcomes| doctor::line(demands, &outcomes),
    )
}

fn lines(
    settings: &ServerConfig,
    environment: &Environment,
    machine: &Machine,
) -> Vec<(&'static str, String)> {
    let key = |name| settings.shown(name);
    let path = |path: &Path| path.display().to_string();
    let number = |number: usize| number.to_string();
    let none = String::new;
    let file = settings.file.as_deref().map_or_else(none, path);
    let values = &settings.values;
    let threads = values.number_of_netty_threads.unwrap_or(machine.cores);
    vec![
        ("Torchserve version", TORCHSERVE.to_owned()),
        ("Lantern version", env!("CARGO_PKG_VERSION").to_owned()),
        ("TS Home", path(&environment.program_directory)),
        ("Current directory", path(&environment.current_directory)),
        ("Temp directory", path(&values.lantern_temp_dir)),
        ("Metrics config path", key("metrics_config")),
        ("Number of GPUs", machine.gpus.to_string()),
        ("Number of CPUs", number(machine.cores)),
        ("Max heap size", none()),
        ("Python executable", none()),
        ("Config file", file),
        ("Inference address", key("inference_address")),
        ("Management address", key("management_address")),
        ("Metrics address", key("metrics_address")),
        ("Model Store", key("model_store")),
        ("Initial Models", key("load_models")),
        ("Log dir", path(&settings.log_directory)),
        ("Metrics dir", path(&settings.metrics_directory)),
        ("Netty threads", number(threads)),
        ("Netty client threads", key("netty_client_threads")),
        (
            "Default workers per model",
            key("default_workers_per_model"),
        ),
        ("Blacklist Regex", key("blacklist_env_vars")),
        ("Maximum Response Size", number(values.max_response_size)),
        ("Maximum Request Size", number(values.max_request_size)),
        ("Limit Maximum Image Pixels", none()),
        ("Prefer direct buffer", none()),
        ("Allowed Urls", key("allowed_urls")),
        (
            "Custom python dependency for model allowed",
            "false".to_owned(),
        ),
        ("Enable metrics API", key("enable_metrics_api")),
        ("Metrics mode", key("metrics_mode")),
        ("Disable system metrics", key("disable_system_metrics")),
        ("Workflow Store", key("workflow_store")),
        ("CPP log config", none()),
        ("Model config", key("models")),
        ("System metrics command", key("system_metrics_cmd")),
        ("Model API enabled", key("enable_model_api")),
        ("ONNX Runtime", key("lantern_onnxruntime")),
        ("TorchScript host", key("lantern_torch")),
        ("Sandbox", sandbox(values, machine)),
    ]
}
