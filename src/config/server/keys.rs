//! Every key there is: TorchServe's and ours.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a setting here.
    Used,
    /// TorchServe has it; here it does nothing, for this reason.
    Ignored(&'static str),
}

use Standing::{Ignored, Used};

const LATER: &str = "is not used by this release";
const NO_PYTHON: &str = "has no effect: no Python and no Java is run";
const NO_GRPC: &str = "is not used by this release, which serves REST";
const NO_DOWNLOAD: &str =
    "is not used by this release, which loads archives from the model store alone";

/// Keys and what becomes of them.
pub const KEYS: &[(&str, Standing)] = &[
    ("inference_address", Used),
    ("management_address", Used),
    ("metrics_address", Used),
    ("load_models", Used),
    ("model_store", Used),
    ("models", Used),
    ("default_workers_per_model", Used),
    ("default_response_timeout", Used),
    ("default_startup_timeout", Used),
    ("unregister_model_timeout", Used),
    ("job_queue_size", Used),
    ("number_of_gpu", Used),
    ("number_of_netty_threads", Used),
    ("max_request_size", Used),
    ("max_response_size", Used),
    ("enable_model_api", Used),
    ("disable_token_authorization", Used),
    ("metrics_mode", Used),
    ("enable_metrics_api", Used),
    ("metric_time_interval", Used),
    ("cors_allowed_origin", Used),
    ("cors_allowed_methods", Used),
    ("cors_allowed_headers", Used),
    ("initial_worker_port", Used),
    ("enable_envvars_config", Used),
    ("lantern_hosting", Used),
    ("lantern_allow_inline", Used),
    ("lantern_allow_public", Used),
    ("lantern_cache_dir", Used),
    ("lantern_temp_dir", Used),
    ("lantern_onnxruntime", Used),
    ("lantern_torch", Used),
    ("lantern_max_memory", Used),
    ("lantern_max_cpu", Used),
    ("lantern_max_init_cpu", Used),
    ("lantern_max_output", Used),
    ("lantern_max_response", Used),
    ("lantern_max_host_calls", Used),
    ("lantern_max_log_lines_per_second", Used),
    ("lantern_max_metric_series", Used),
    ("lantern_max_instances", Used),
    ("allowed_urls", Ignored(NO_DOWNLOAD)),
    ("use_env_allowed_urls", Ignored(NO_DOWNLOAD)),
    ("grpc_inference_address", Ignored(NO_GRPC)),
    ("grpc_management_address", Ignored(NO_GRPC)),
    ("grpc_inference_port", Ignored(NO_GRPC)),
    ("grpc_management_port", Ignored(NO_GRPC)),
    ("grpc_inference_max_connection_age_ms", Ignored(NO_GRPC)),
    ("grpc_management_max_connection_age_ms", Ignored(NO_GRPC)),
    (
        "grpc_inference_max_connection_age_grace_ms",
        Ignored(NO_GRPC),
    ),
    (
        "grpc_management_max_connection_age_grace_ms",
        Ignored(NO_GRPC),
    ),
    ("enable_grpc_ssl", Ignored(NO_GRPC)),
    ("private_key_file", Ignored(LATER)),
    ("certificate_file", Ignored(LATER)),
    ("keystore", Ignored(LATER)),
    ("keystore_pass", Ignored(LATER)),
    ("keystore_type", Ignored(LATER)),
    ("workflow_store", Ignored(LATER)),
    ("model_snapshot", Ignored(LATER)),
    ("netty_client_threads", Ignored(LATER)),
    ("use_native_io", Ignored(LATER)),
    ("io_ratio", Ignored(LATER)),
    ("prefer_direct_buffer", Ignored(LATER)),
    ("limit_max_image_pixels", Ignored(LATER)),
    ("decode_input_request", Ignored(LATER)),
    ("default_service_handler", Ignored(LATER)),
    ("service_envelope", Ignored(LATER)),
    ("metrics_config", Ignored(LATER)),
    ("model_metrics_auto_detect", Ignored(LATER)),
    ("disable_system_metrics", Ignored(LATER)),
    ("system_metrics_cmd", Ignored(NO_PYTHON)),
    ("async_logging", Ignored(LATER)),
    ("token_expiration_min", Ignored(LATER)),
    ("ts_open_inference_protocol", Ignored(LATER)),
    ("ts_header_key_sequence_id", Ignored(LATER)),
    ("ts_header_key_sequence_start", Ignored(LATER)),
    ("ts_header_key_sequence_end", Ignored(LATER)),
    ("initial_distribution_port", Ignored(LATER)),
    ("model_server_home", Ignored(LATER)),
    ("install_py_dep_per_model", Ignored(NO_PYTHON)),
    ("blacklist_env_vars", Ignored(NO_PYTHON)),
    ("ipex_enable", Ignored(NO_PYTHON)),
    ("ipex_gpu_enable", Ignored(NO_PYTHON)),
    ("cpu_launcher_enable", Ignored(NO_PYTHON)),
    ("cpu_launcher_args", Ignored(NO_PYTHON)),
    ("cpp_log_config", Ignored(NO_PYTHON)),
    ("debug", Ignored(NO_PYTHON)),
    ("vmargs", Ignored(NO_PYTHON)),
    ("plugins_path", Ignored(NO_PYTHON)),
    ("version", Ignored(LATER)),
    ("NUM_WORKERS", Ignored(LATER)),
];

/// Keys that TorchServe takes from the file alone.
const FILE_ONLY: [&str; 4] = [
    "models",
    "model_snapshot",
    "metric_time_interval",
    "enable_envvars_config",
];

/// What becomes of `key`; `None` if it is not known.
pub fn standing(key: &str) -> Option<Standing> {
    let found = KEYS.iter().find(|(known, _)| *known == key);
    found.map(|(_, standing)| *standing)
}

/// The variable that sets `key`, if one does.
pub fn variable(key: &str) -> Option<String> {
    (!FILE_ONLY.contains(&key)).then(|| format!("TS_{}", key.to_uppercase()))
}
