//! Resolving the groups of settings.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::Problem;
use super::super::snapshot::{self, Saved};
use super::address::{self, Address, DefaultPorts};
use super::groups::{
    CorsConfig, GrpcConfig, GrpcListenerConfig, HealthConfig, LogConfig, MetricsConfig,
    MetricsMode, PingMeaning, ReadyRequires, SageMakerConfig, SnapshotConfig, TlsConfig,
    TokenConfig,
};
use super::places::Surroundings;
use super::reader::Reader;

/// Longer than anybody keeps a connection, and short enough to be added to any time.
const LONGEST_MS: u64 = 10 * 365 * 24 * 3_600_000;
const LONGEST_MINUTES: f64 = 10.0 * 365.0 * 24.0 * 60.0;

/// Reads an address; `default` is the port of the standard one.
pub fn address(reader: &mut Reader, key: &str, default: u16, unwritten: DefaultPorts) -> Address {
    let standard = Address::http(SocketAddr::from((Ipv4Addr::LOCALHOST, default)));
    let Some(entry) = reader.entry(key) else {
        return standard;
    };
    address::parse(&entry.value, unwritten).unwrap_or_else(|message| {
        reader.message(key, &entry, message);
        standard
    })
}

/// Reads `grpc_*`.
pub fn grpc(reader: &mut Reader) -> GrpcConfig {
    GrpcConfig {
        inference: grpc_listener(reader, "inference", 7070),
        management: grpc_listener(reader, "management", 7071),
        tls: reader.truth("enable_grpc_ssl", false),
    }
}

fn grpc_listener(reader: &mut Reader, name: &str, default: u16) -> GrpcListenerConfig {
    let key = |rest: &str| format!("grpc_{name}_{rest}");
    let mut age = |rest: &str| {
        let number = reader.number(&key(rest), &(1..=LONGEST_MS));
        number.map(Duration::from_millis)
    };
    let (max_connection_age, max_connection_age_grace) = (
        age("max_connection_age_ms"),
        age("max_connection_age_grace_ms"),
    );
    GrpcListenerConfig {
        address: grpc_address(reader, &key("address"), &key("port"), default),
        max_connection_age,
        max_connection_age_grace,
    }
}

fn grpc_address(reader: &mut Reader, host: &str, port: &str, default: u16) -> SocketAddr {
    let mut ip = Ipv4Addr::LOCALHOST.into();
    if let Some(entry) = reader.entry(host) {
        match address::parse_host(&entry.value) {
            Ok(found) => ip = found,
            Err(message) => reader.message(host, &entry, message),
        }
    }
    let port = reader.number(port, &(0..=u16::MAX)).unwrap_or(default);
    SocketAddr::new(ip, port)
}

/// Reads the certificate and its key. A keystore is Java's: whoever needs what is in one is told how to take it out.
pub fn tls(reader: &mut Reader, surroundings: &Surroundings, is_needed: bool) -> Option<TlsConfig> {
    let certificate = file(reader, "certificate_file", surroundings);
    let key = file(reader, "private_key_file", surroundings);
    let pem = match (certificate, key) {
        (Some(certificate_file), Some(private_key_file)) => Some(TlsConfig {
            certificate_file,
            private_key_file,
        }),
        (Some(_), None) => half(reader, "certificate_file", "private_key_file"),
        (None, Some(_)) => half(reader, "private_key_file", "certificate_file"),
        (None, None) => None,
    };
    keystore(reader, is_needed && pem.is_none());
    pem
}

fn half(reader: &mut Reader, there: &str, missing: &str) -> Option<TlsConfig> {
    if let Some(entry) = reader
        .entry(there)
        .filter(|_| reader.text(missing).is_none())
    {
        reader.problem(there, &entry, format!("needs {missing} beside it"));
    }
    None
}

fn keystore(reader: &mut Reader, is_needed: bool) {
    let Some((entry, path)) = reader.entry("keystore").zip(reader.text("keystore")) else {
        return;
    };
    let kind = reader.text("keystore_type").unwrap_or_default();
    let rule = format!(
        "is not read: convert it to PEM and name the two files by certificate_file and private_key_file: {}",
        conversion(&path, &kind)
    );
    if is_needed {
        reader.problem("keystore", &entry, rule);
    } else {
        reader.warn("keystore", &entry, rule);
    }
}

/// The commands that take certificate and key out of a keystore; a JKS becomes PKCS#12 first.
fn conversion(path: &str, kind: &str) -> String {
    let take = |path: &str| {
        format!(
            "openssl pkcs12 -in '{path}' -clcerts -nokeys -out certificate.pem && \
             openssl pkcs12 -in '{path}' -nocerts -nodes -out private_key.pem"
        )
    };
    if kind.eq_ignore_ascii_case("JKS") {
        let import = format!(
            "keytool -importkeystore -srckeystore '{path}' -destkeystore keystore.p12 -deststoretype PKCS12"
        );
        return format!("{import} && {}", take("keystore.p12"));
    }
    take(path)
}

/// Reads what concerns tokens.
pub fn tokens(reader: &mut Reader, surroundings: &Surroundings) -> TokenConfig {
    let rule = "must be a number of minutes above 0, such as 60 or 0.25";
    let minutes = reader.parsed("token_expiration_min", rule, |text| {
        let minutes: f64 = text.parse().ok()?;
        (minutes > 0.0 && minutes <= LONGEST_MINUTES).then_some(minutes)
    });
    TokenConfig {
        enabled: !reader.truth("disable_token_authorization", false),
        expiration: Duration::from_secs_f64(minutes.unwrap_or(60.0) * 60.0),
        key_file: surroundings.path("key_file.json"),
        own_keys: file(reader, "lantern_key_file", surroundings),
    }
}

/// Reads what concerns metrics.
pub fn metrics(reader: &mut Reader, surroundings: &Surroundings) -> MetricsConfig {
    MetricsConfig {
        api: reader.truth("enable_metrics_api", true),
        mode: metrics_mode(reader),
        // That it cannot be read is no reason not to serve.
        file: reader
            .text("metrics_config")
            .map(|text| surroundings.path(&text)),
        auto_detect: reader.truth("model_metrics_auto_detect", false),
        system: !reader.truth("disable_system_metrics", false),
        interval: reader.seconds("metric_time_interval", 60),
        system_command: reader.text("system_metrics_cmd"),
    }
}

/// As TorchServe reads it: whatever the case, and `log` if it is none.
fn metrics_mode(reader: &mut Reader) -> MetricsMode {
    let Some(entry) = reader.entry("metrics_mode") else {
        return MetricsMode::default();
    };
    match entry.value.trim().to_ascii_lowercase().as_str() {
        "prometheus" => MetricsMode::Prometheus,
        "legacy" => MetricsMode::Legacy,
        "log" => MetricsMode::Log,
        other => {
            let rule = format!("is none of log, prometheus, legacy; {other:?} means log");
            reader.warn("metrics_mode", &entry, rule);
            MetricsMode::Log
        }
    }
}

/// TorchServe's variable switches it on by the word `oip` alone; whoever sets it to something else wants it off.
pub fn open_inference_protocol(reader: &mut Reader) -> bool {
    let key = "ts_open_inference_protocol";
    let read = |text: &str| match text.to_ascii_lowercase().as_str() {
        "true" | "oip" => Some(true),
        "false" | "" => Some(false),
        _ => None,
    };
    reader
        .parsed(key, "must be oip, true or false", read)
        .unwrap_or(true)
}

/// Reads `cors_*`.
pub fn cors(reader: &Reader) -> CorsConfig {
    CorsConfig {
        allowed_origin: reader.text("cors_allowed_origin"),
        allowed_methods: reader.text("cors_allowed_methods"),
        allowed_headers: reader.text("cors_allowed_headers"),
    }
}

/// Where snapshots lie, and what one says that is restored.
pub fn snapshots(
    reader: &mut Reader,
    surroundings: &Surroundings,
    enabled: bool,
) -> SnapshotConfig {
    SnapshotConfig {
        enabled,
        directory: surroundings.snapshot_directory(),
        restored: restored(reader),
    }
}

fn restored(reader: &mut Reader) -> Option<Saved> {
    let text = reader.text("model_snapshot")?;
    let entry = reader.entry("model_snapshot")?;
    match snapshot::parse(&text) {
        Ok(saved) => {
            for problem in &saved.problems {
                reader.warn("model_snapshot", &entry, problem);
            }
            Some(saved)
        }
        Err(rule) => {
            reader.add(Problem::plain(entry.origin, "model_snapshot", rule));
            None
        }
    }
}

/// Where logs lie. They never hold up a request, which is what `async_logging` is for.
pub fn logs(reader: &mut Reader, surroundings: &Surroundings) -> LogConfig {
    let is_asynchronous = reader.truth("async_logging", true);
    if let Some(entry) = reader.entry("async_logging").filter(|_| !is_asynchronous) {
        let rule = "has no effect: logs are always written beside the requests";
        reader.warn("async_logging", &entry, rule);
    }
    LogConfig {
        files: reader.truth("lantern_log_files", true),
        directory: surroundings.log_directory(),
        metrics_directory: surroundings.metrics_directory(),
    }
}

/// What probes are told.
pub fn health(reader: &mut Reader) -> HealthConfig {
    let pings = [
        ("torchserve", PingMeaning::TorchServe),
        ("ready", PingMeaning::Ready),
    ];
    let requirements = [
        ("all", ReadyRequires::All),
        ("any", ReadyRequires::Any),
        ("none", ReadyRequires::None),
    ];
    HealthConfig {
        ping: reader.word("lantern_ping", &pings).unwrap_or_default(),
        ready_requires: reader
            .word("lantern_ready_requires", &requirements)
            .unwrap_or_default(),
    }
}

/// What SageMaker says.
pub fn sagemaker(reader: &mut Reader, surroundings: &Surroundings) -> SageMakerConfig {
    let multi = surroundings.variable("SAGEMAKER_MULTI_MODE");
    SageMakerConfig {
        is_host: surroundings.variable("SAGEMAKER_BIND_TO_PORT").is_some(),
        is_multi_model: multi.is_some_and(|value| !value.eq_ignore_ascii_case("false")),
        max_concurrent: reader.number("NUM_WORKERS", &(1..=1_000_000)).unwrap_or(1),
    }
}

/// A file that must be there.
pub fn file(reader: &mut Reader, key: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = surroundings.path(&reader.text(key)?);
    if let Some(entry) = reader.entry(key).filter(|_| !path.is_file()) {
        reader.problem(key, &entry, "must be a file");
    }
    Some(path)
}
