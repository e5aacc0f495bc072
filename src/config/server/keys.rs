//! Every key there is, TorchServe's and ours: its default as text, and what becomes of it.

/// One key of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// As it is written in a file.
    pub name: &'static str,
    /// The value that holds where nothing is typed; in parentheses where it is found out at the start; empty for none.
    pub default: &'static str,
    /// What becomes of it.
    pub standing: Standing,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a setting here.
    Used,
    /// A setting whose value nobody should read from a terminal or a log.
    Secret,
    /// Snapshots hold it, for people to read.
    Noted,
    /// TorchServe has it; here it does nothing, for this reason.
    Ignored(&'static str),
}

const NO_JAVA: &str = "has no effect: there is no Java virtual machine";
const AS_SENT: &str =
    "has no effect: a handler gets each body as it was sent, with its content type";
const NO_SEQUENCES: &str = "has no effect: requests are independent of each other";
const NO_INTEL: &str = "has no effect: the Intel extension for PyTorch is not used";
const NO_LAUNCHER: &str = "has no effect: workers are threads; their number is lantern.intraOpThreads of model-config.yaml";

const fn used(name: &'static str, default: &'static str) -> Key {
    let standing = Standing::Used;
    Key {
        name,
        default,
        standing,
    }
}

const fn noted(name: &'static str) -> Key {
    Key {
        name,
        default: "",
        standing: Standing::Noted,
    }
}

const fn ignored(name: &'static str, default: &'static str, why: &'static str) -> Key {
    Key {
        name,
        default,
        standing: Standing::Ignored(why),
    }
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    used("inference_address", "http://127.0.0.1:8080"),
    used("management_address", "http://127.0.0.1:8081"),
    used("metrics_address", "http://127.0.0.1:8082"),
    used("grpc_inference_address", "127.0.0.1"),
    used("grpc_management_address", "127.0.0.1"),
    used("grpc_inference_port", "7070"),
    used("grpc_management_port", "7071"),
    used("grpc_inference_max_connection_age_ms", ""),
    used("grpc_inference_max_connection_age_grace_ms", ""),
    used("grpc_management_max_connection_age_ms", ""),
    used("grpc_management_max_connection_age_grace_ms", ""),
    used("enable_grpc_ssl", "false"),
    used("private_key_file", ""),
    used("certificate_file", ""),
    used("keystore", ""),
    Key {
        name: "keystore_pass",
        default: "",
        standing: Standing::Secret,
    },
    used("keystore_type", "PKCS12"),
    used("load_models", ""),
    used("model_store", ""),
    used("workflow_store", "(model_store)"),
    used("models", ""),
    used("model_snapshot", ""),
    used("default_workers_per_model", "0"),
    used("default_response_timeout", "120"),
    used("default_startup_timeout", "120"),
    used("unregister_model_timeout", "120"),
    used("job_queue_size", "100"),
    used("number_of_gpu", "(all)"),
    used("number_of_netty_threads", "0"),
    ignored(
        "netty_client_threads",
        "0",
        "has no effect: connections to worker processes need no threads of their own",
    ),
    ignored(
        "use_native_io",
        "true",
        "has no effect: the system's own interface is always used",
    ),
    ignored(
        "io_ratio",
        "50",
        "has no effect: there is no such ratio here",
    ),
    ignored("prefer_direct_buffer", "false", NO_JAVA),
    used("max_request_size", "6553500"),
    used("max_response_size", "6553500"),
    ignored(
        "limit_max_image_pixels",
        "true",
        "has no effect: what a handler may decode is bounded by its memory (lantern_max_memory)",
    ),
    ignored("decode_input_request", "true", AS_SENT),
    ignored(
        "default_service_handler",
        "",
        "has no effect: an archive holds or names its own handler",
    ),
    ignored("service_envelope", "", AS_SENT),
    ignored(
        "install_py_dep_per_model",
        "false",
        "has no effect: handlers are WebAssembly components, and no Python package is installed",
    ),
    used("allowed_urls", ""),
    used("use_env_allowed_urls", "false"),
    ignored(
        "blacklist_env_vars",
        "",
        "has no effect: worker processes get none of the server's variables, handlers none at all",
    ),
    used("cors_allowed_origin", ""),
    used("cors_allowed_methods", ""),
    used("cors_allowed_headers", ""),
    used("metrics_config", ""),
    used("metrics_mode", "prometheus"),
    used("model_metrics_auto_detect", "false"),
    used("enable_metrics_api", "true"),
    used("disable_system_metrics", "false"),
    used("system_metrics_cmd", ""),
    used("metric_time_interval", "60"),
    used("async_logging", "true"),
    used("enable_envvars_config", "false"),
    used("disable_token_authorization", "false"),
    used("token_expiration_min", "60"),
    used("enable_model_api", "false"),
    used("ts_open_inference_protocol", "true"),
    ignored(
        "ts_header_key_sequence_id",
        "ts_request_sequence_id",
        NO_SEQUENCES,
    ),
    ignored(
        "ts_header_key_sequence_start",
        "ts_request_sequence_start",
        NO_SEQUENCES,
    ),
    ignored(
        "ts_header_key_sequence_end",
        "ts_request_sequence_end",
        NO_SEQUENCES,
    ),
    used("initial_worker_port", "9000"),
    ignored(
        "initial_distribution_port",
        "29500",
        "has no effect: no model is spread over processes by torchrun",
    ),
    ignored(
        "model_server_home",
        "",
        "has no effect: nothing is read from a home directory",
    ),
    ignored("ipex_enable", "false", NO_INTEL),
    ignored("ipex_gpu_enable", "false", NO_INTEL),
    ignored("cpu_launcher_enable", "false", NO_LAUNCHER),
    ignored("cpu_launcher_args", "", NO_LAUNCHER),
    ignored(
        "cpp_log_config",
        "",
        "has no effect: there are no C++ workers",
    ),
    ignored(
        "debug",
        "false",
        "has no effect: workers are always started by the server",
    ),
    ignored("vmargs", "", NO_JAVA),
    ignored(
        "plugins_path",
        "",
        "has no effect: plug-ins are Java classes, which nothing here runs",
    ),
    used("NUM_WORKERS", "1"),
    noted("version"),
    noted("python"),
    noted("tsConfigFile"),
    used("lantern_hosting", "process"),
    used("lantern_allow_inline", "false"),
    used("lantern_allow_public", "false"),
    used("lantern_key_file", ""),
    used("lantern_log_files", "true"),
    used("lantern_ping", "torchserve"),
    used("lantern_ready_requires", "all"),
    used("lantern_cache_dir", "(the user's cache)"),
    used("lantern_temp_dir", "(below the temporary directory)"),
    used("lantern_onnxruntime", "(found)"),
    used("lantern_torch", "(found)"),
    used("lantern_max_memory", "1GiB"),
    used("lantern_max_cpu", "10s"),
    used("lantern_max_init_cpu", "1min"),
    used("lantern_max_output", "256MiB"),
    used("lantern_max_response", "64MiB"),
    used("lantern_max_host_calls", "10000000"),
    used("lantern_max_log_lines_per_second", "1000"),
    used("lantern_max_metric_series", "1000"),
    used("lantern_max_instances", "1024"),
    used("lantern_max_workers", "1024"),
    used("lantern_max_batch_size", "65536"),
    used("lantern_max_job_queue_size", "1000000"),
    used("lantern_max_download", "16GiB"),
    used("lantern_download_timeout", "30min"),
    used("lantern_private_hosts", ""),
];

/// Keys that TorchServe takes from the file alone.
const FILE_ONLY: [&str; 12] = [
    "models",
    "model_snapshot",
    "use_native_io",
    "io_ratio",
    "use_env_allowed_urls",
    "system_metrics_cmd",
    "metric_time_interval",
    "enable_envvars_config",
    "vmargs",
    "plugins_path",
    "python",
    "tsConfigFile",
];

/// Keys whose variable has a name of its own, and that variable.
const RENAMED: [(&str, &str); 4] = [
    ("token_expiration_min", "TS_TOKEN_EXPIRATION_TIME_MIN"),
    ("ts_header_key_sequence_id", "TS_HEADER_KEY_SEQUENCE_ID"),
    (
        "ts_header_key_sequence_start",
        "TS_HEADER_KEY_SEQUENCE_START",
    ),
    ("ts_header_key_sequence_end", "TS_HEADER_KEY_SEQUENCE_END"),
];

/// A variable that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Whether it counts even where the file does not ask for variables.
    pub is_always_read: bool,
}

/// What is known of `name`; `None` if there is no such key.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The variable that sets `key`, if one does: `TS_…` for TorchServe's keys, which the file must ask for, and
/// `LANTERN_…` for ours, which is always read.
pub fn variable(key: &str) -> Option<Variable> {
    if FILE_ONLY.contains(&key) {
        return None;
    }
    if key.starts_with("lantern_") || key == "ts_open_inference_protocol" {
        let name = key.to_uppercase();
        let is_always_read = true;
        return Some(Variable {
            name,
            is_always_read,
        });
    }
    let renamed = RENAMED.iter().find(|(renamed, _)| *renamed == key);
    let name = renamed.map_or_else(
        || format!("TS_{}", key.to_uppercase()),
        |(_, variable)| (*variable).to_owned(),
    );
    let is_always_read = false;
    Some(Variable {
        name,
        is_always_read,
    })
}
