//! From what was typed to what is meant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Hosting, Limits};

use super::super::Problems;
use super::address::{self, DefaultPort};
use super::places::Surroundings;
use super::raw::Raw;
use super::reader::Reader;
use super::{CorsConfig, MetricsMode, ServerConfig, startup};

const MAX_BODY: usize = 6_553_500;
const MOST_BYTES: usize = 1 << 40;

/// Resolves every setting, or reports everything that is wrong.
pub fn resolve(raw: Raw, surroundings: &Surroundings) -> Result<ServerConfig, Problems> {
    let mut reader = Reader::new(raw);
    let listed = startup::models(&mut reader);
    let mut config = ServerConfig {
        inference_address: address(&mut reader, "inference_address", 8080, 80),
        management_address: address(&mut reader, "management_address", 8081, 8081),
        metrics_address: address(&mut reader, "metrics_address", 8082, 8082),
        enable_metrics_api: reader.truth("enable_metrics_api", true),
        metrics_mode: metrics_mode(&mut reader),
        metric_interval: reader.seconds("metric_time_interval", 60),
        model_store: model_store(&mut reader, surroundings),
        load_models: startup::load_models(&mut reader),
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
        cors: cors(&reader),
        initial_worker_id: reader
            .number("initial_worker_port", &(0..=1_000_000_000))
            .unwrap_or(9000),
        hosting: hosting(&mut reader),
        allow_inline: reader.truth("lantern_allow_inline", false),
        ceilings: ceilings(&mut reader),
        cache_directory: place(&reader, "lantern_cache_dir", surroundings)
            .unwrap_or_else(|| surroundings.cache_directory()),
        temp_directory: temp_directory(&mut reader, surroundings),
        onnxruntime: file(&mut reader, "lantern_onnxruntime", surroundings)
            .or_else(|| surroundings.onnxruntime()),
        lantern_torch: file(&mut reader, "lantern_torch", surroundings)
            .or_else(|| surroundings.lantern_torch()),
        file: None,
        warnings: Vec::new(),
    };
    check_reach(&mut reader, &config);
    tokens(&mut reader);
    let raw = reader.finish();
    config.file = raw.file;
    config.warnings = raw.warnings;
    Problems::or(raw.problems, config)
}

fn address(reader: &mut Reader, key: &str, default: u16, unwritten: u16) -> SocketAddr {
    let standard = SocketAddr::from(([127, 0, 0, 1], default));
    let Some(entry) = reader.entry(key) else {
        return standard;
    };
    address::parse(&entry.value, DefaultPort(unwritten)).unwrap_or_else(|rule| {
        reader.problem(key, &entry, rule);
        standard
    })
}

/// There are no tokens yet, so whoever reaches a socket may do what it offers.
fn check_reach(reader: &mut Reader, config: &ServerConfig) {
    if reader.truth("lantern_allow_public", false) {
        return;
    }
    let addresses = [
        ("inference_address", config.inference_address),
        ("management_address", config.management_address),
        ("metrics_address", config.metrics_address),
    ];
    for (key, address) in addresses {
        if let Some(entry) = reader.entry(key).filter(|_| !address.ip().is_loopback()) {
            let rule = "must be a loopback address: others could reach it, and requests are not authorized. Set \
                        lantern_allow_public=true if something else keeps strangers out";
            reader.problem(key, &entry, rule);
        }
    }
}

/// The key is taken; what it switches off is not there yet.
fn tokens(reader: &mut Reader) {
    let disabled = reader.truth("disable_token_authorization", false);
    if let Some(entry) = reader
        .entry("disable_token_authorization")
        .filter(|_| !disabled)
    {
        let rule =
            "is not used by this release, which has no token authorization and listens on loopback";
        reader.warn("disable_token_authorization", &entry, rule);
    }
}

fn metrics_mode(reader: &mut Reader) -> MetricsMode {
    let words = [
        ("log", MetricsMode::Log),
        ("prometheus", MetricsMode::Prometheus),
        ("legacy", MetricsMode::Legacy),
    ];
    reader.word("metrics_mode", &words).unwrap_or_default()
}

fn hosting(reader: &mut Reader) -> Hosting {
    let words = [("process", Hosting::Process), ("inline", Hosting::Inline)];
    reader.word("lantern_hosting", &words).unwrap_or_default()
}

fn cors(reader: &Reader) -> CorsConfig {
    CorsConfig {
        allowed_origin: reader.text("cors_allowed_origin"),
        allowed_methods: reader.text("cors_allowed_methods"),
        allowed_headers: reader.text("cors_allowed_headers"),
    }
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

/// A path that is taken from the current directory.
fn place(reader: &Reader, key: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = reader.path(key)?;
    Some(surroundings.current_directory.join(path))
}

/// The model store. A directory that is missing is a mistake when a flag names it; one named by the file may come later.
fn model_store(reader: &mut Reader, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = place(reader, "model_store", surroundings)?;
    let entry = reader.entry("model_store").filter(|_| !path.is_dir());
    if let Some(entry) = entry {
        if entry.origin.starts_with("--") {
            reader.problem("model_store", &entry, "must be a directory");
        } else {
            reader.warn(
                "model_store",
                &entry,
                "names a directory that does not exist",
            );
        }
    }
    Some(path)
}

fn temp_directory(reader: &mut Reader, surroundings: &Surroundings) -> PathBuf {
    place(reader, "lantern_temp_dir", surroundings)
        .unwrap_or_else(|| surroundings.own_temp_directory())
}

fn file(reader: &mut Reader, key: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = place(reader, key, surroundings)?;
    if let Some(entry) = reader.entry(key).filter(|_| !path.is_file()) {
        reader.problem(key, &entry, "must be a file");
    }
    Some(path)
}
