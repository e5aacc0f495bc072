//! From what was typed to what is meant.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Hosting, Limits};

use super::super::model::Most;
use super::super::{Problem, Problems};
use super::address::DefaultPorts;
use super::places::Surroundings;
use super::raw::{Flags, Raw};
use super::reader::Reader;
use super::{ServerConfig, parts, sources, startup};

const MAX_BODY: usize = 6_553_500;
const MOST_BYTES: usize = 1 << 40;

/// Resolves every setting, or reports everything that is wrong.
pub fn resolve(
    raw: Raw,
    flags: &Flags,
    surroundings: &Surroundings,
) -> Result<ServerConfig, Problems> {
    let mut reader = Reader::new(raw);
    let mut config = read(&mut reader, flags, surroundings);
    let is_tls_needed = config.is_tls_needed();
    config.tls = parts::tls(&mut reader, surroundings, is_tls_needed);
    check_reach(&mut reader, &config);
    check_temp(&mut reader, surroundings);
    let raw = reader.finish();
    config.file = raw.file;
    config.typed = raw.entries;
    config.written = raw.written;
    config.warnings = raw.warnings;
    Problems::or(raw.problems, config)
}

fn read(reader: &mut Reader, flags: &Flags, surroundings: &Surroundings) -> ServerConfig {
    let listed = startup::models(reader);
    let ports = |http, https| DefaultPorts { http, https };
    let model_store = store(reader, "model_store", surroundings);
    ServerConfig {
        inference_address: parts::address(reader, "inference_address", 8080, ports(80, 443)),
        management_address: parts::address(reader, "management_address", 8081, ports(8081, 8444)),
        metrics_address: parts::address(reader, "metrics_address", 8082, ports(8082, 8445)),
        grpc: parts::grpc(reader),
        tls: None,
        tokens: parts::tokens(reader, surroundings),
        metrics: parts::metrics(reader, surroundings),
        open_inference_protocol: parts::open_inference_protocol(reader),
        snapshots: parts::snapshots(reader, surroundings, !flags.no_config_snapshots),
        logs: parts::logs(reader, surroundings),
        health: parts::health(reader),
        sagemaker: parts::sagemaker(reader, surroundings),
        workflow_store: store(reader, "workflow_store", surroundings)
            .or_else(|| model_store.clone()),
        model_store,
        sources: sources::sources(reader, surroundings),
        load_models: startup::load_models(reader),
        models: listed.models,
        default_versions: listed.defaults,
        default_workers: reader
            .number("default_workers_per_model", &(0..=1024))
            .filter(|n| *n > 0),
        default_response_timeout: reader.seconds("default_response_timeout", 120),
        default_startup_timeout: reader.seconds("default_startup_timeout", 120),
        unregister_timeout: reader.seconds("unregister_model_timeout", 120),
        job_queue_size: reader
            .number("job_queue_size", &(1..=1_000_000))
            .unwrap_or(100),
        number_of_gpu: reader.number("number_of_gpu", &(0..=1024)),
        io_threads: reader
            .number("number_of_netty_threads", &(0..=1024))
            .filter(|n| *n > 0),
        max_request_size: reader
            .number("max_request_size", &(1..=MOST_BYTES))
            .unwrap_or(MAX_BODY),
        max_response_size: reader
            .number("max_response_size", &(1..=MOST_BYTES))
            .unwrap_or(MAX_BODY),
        enable_model_api: reader.truth("enable_model_api", false),
        cors: parts::cors(reader),
        initial_worker_id: reader
            .number("initial_worker_port", &(0..=1_000_000_000))
            .unwrap_or(9000),
        hosting: hosting(reader),
        allow_inline: reader.truth("lantern_allow_inline", false),
        ceilings: ceilings(reader),
        most: most(reader),
        cache_directory: place(reader, "lantern_cache_dir", surroundings)
            .unwrap_or_else(|| surroundings.cache_directory()),
        temp_directory: place(reader, "lantern_temp_dir", surroundings)
            .unwrap_or_else(|| surroundings.own_temp_directory()),
        onnxruntime: parts::file(reader, "lantern_onnxruntime", surroundings)
            .or_else(|| surroundings.onnxruntime()),
        lantern_torch: parts::file(reader, "lantern_torch", surroundings)
            .or_else(|| surroundings.lantern_torch()),
        file: None,
        typed: std::collections::BTreeMap::new(),
        written: std::collections::BTreeMap::new(),
        warnings: Vec::new(),
    }
}

/// Without tokens, whoever reaches a socket may do what it offers. That is what TorchServe's own container does, so
/// it is said and not refused.
fn check_reach(reader: &mut Reader, config: &ServerConfig) {
    if reader.truth("lantern_allow_public", false) || config.tokens.enabled {
        return;
    }
    let addresses = [
        ("inference_address", config.inference_address.is_public()),
        ("management_address", config.management_address.is_public()),
        ("metrics_address", config.metrics_address.is_public()),
        (
            "grpc_inference_address",
            !config.grpc.inference.address.ip().is_loopback(),
        ),
        (
            "grpc_management_address",
            !config.grpc.management.address.ip().is_loopback(),
        ),
    ];
    for (key, is_public) in addresses {
        if let Some(entry) = reader.entry(key).filter(|_| is_public) {
            let rule = "is open to other machines, and no token is asked for: set lantern_allow_public=true if \
                        something else keeps strangers out";
            reader.warn(key, &entry, rule);
        }
    }
}

fn check_temp(reader: &mut Reader, surroundings: &Surroundings) {
    let directory = surroundings.temp_directory();
    if directory.is_dir() {
        return;
    }
    let rule = format!(
        "Invalid temp directory: {}, please check TEMP environment variable.",
        directory.display()
    );
    reader.add(Problem::plain("", "", rule));
}

fn hosting(reader: &mut Reader) -> Hosting {
    let words = [("process", Hosting::Process), ("inline", Hosting::Inline)];
    reader.word("lantern_hosting", &words).unwrap_or_default()
}

/// What a handler may be given at most. Wider than the defaults where a handler may well need more.
fn ceilings(reader: &mut Reader) -> Limits {
    let base = Limits::default();
    Limits {
        memory: reader.size("lantern_max_memory").unwrap_or(1 << 30),
        cpu: reader
            .duration("lantern_max_cpu")
            .unwrap_or(Duration::from_secs(10)),
        init_cpu: reader
            .duration("lantern_max_init_cpu")
            .unwrap_or(Duration::from_mins(1)),
        output: reader.size("lantern_max_output").unwrap_or(256 << 20),
        response: reader.size("lantern_max_response").unwrap_or(64 << 20),
        host_calls: reader
            .number("lantern_max_host_calls", &(1..=u64::MAX))
            .unwrap_or(10_000_000),
        log_lines_per_second: reader
            .number("lantern_max_log_lines_per_second", &(0..=u32::MAX))
            .unwrap_or(base.log_lines_per_second),
        metric_series: reader
            .number("lantern_max_metric_series", &(0..=1_000_000))
            .unwrap_or(base.metric_series),
        instances: reader
            .number("lantern_max_instances", &(1..=65_536))
            .unwrap_or(1024),
    }
}

/// What one version may have at most.
fn most(reader: &mut Reader) -> Most {
    let base = Most::default();
    Most {
        workers: reader
            .number("lantern_max_workers", &(1..=Most::WORKERS))
            .unwrap_or(base.workers),
        batch_size: reader
            .number("lantern_max_batch_size", &(1..=Most::BATCH_SIZE))
            .unwrap_or(base.batch_size),
        job_queue_size: reader
            .number("lantern_max_job_queue_size", &(1..=Most::JOB_QUEUE_SIZE))
            .unwrap_or(base.job_queue_size),
    }
}

/// A path that is taken from the current directory.
fn place(reader: &Reader, key: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = reader.path(key)?;
    Some(surroundings.current_directory.join(path))
}

/// A directory of archives. One that is missing is a mistake when a flag names it; one named by the file may come later.
fn store(reader: &mut Reader, key: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = place(reader, key, surroundings)?;
    let Some(entry) = reader.entry(key).filter(|_| !path.is_dir()) else {
        return Some(path);
    };
    if entry.origin.starts_with("--") {
        let message = format!("{} directory not found: {}", entry.origin, entry.value);
        reader.add(Problem::plain("", "", message));
    } else {
        reader.warn(key, &entry, "names a directory that does not exist");
    }
    Some(path)
}
