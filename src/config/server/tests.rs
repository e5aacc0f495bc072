//! Where settings come from, which wins, and what is refused.
use std::fs;

use super::*;
use std::time::Duration;

use crate::config::model::Requested;
use crate::config::snapshot::Saved;
use crate::listen::{CertificateSource, Password};
use crate::model::{ModelName, Version};

struct Fixture {
    directory: tempfile::TempDir,
    flags: Flags,
    variables: BTreeMap<String, String>,
    memory: Option<u64>,
}

impl Fixture {
    fn new(properties: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.properties"), properties).unwrap();
        Self {
            directory,
            flags: Flags::default(),
            variables: BTreeMap::new(),
            memory: None,
        }
    }

    /// On a machine with so many bytes of memory.
    fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flags(mut self, set: impl FnOnce(&mut Flags)) -> Self {
        set(&mut self.flags);
        self
    }

    fn load(&self) -> Result<ServerConfig, Problems> {
        let environment = Environment {
            variables: self.variables.clone(),
            current_directory: self.directory.path().to_owned(),
            program_directory: self.directory.path().to_owned(),
            memory: self.memory,
        };
        ServerConfig::load(&self.flags, &environment, check_urls)
    }

    fn refused(&self) -> String {
        self.load().unwrap_err().to_string()
    }

    fn warnings(&self) -> String {
        let config = self.load().unwrap();
        let texts: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        texts.join("\n")
    }
}

/// In place of those who fetch: a pattern allows nothing, unless every URL is allowed.
fn check_urls(text: &str, any: bool) -> Vec<String> {
    let patterns = text.split(',').filter(|item| item.contains(".*|") && !any);
    patterns
        .map(|item| format!("has the pattern {item:?}"))
        .collect()
}

#[test]
fn defaults_are_torchserves_on_loopback() {
    let config = Fixture::new("").load().unwrap();
    assert_eq!(
        config.values.inference_address.to_string(),
        "http://127.0.0.1:8080"
    );
    assert_eq!(
        config.values.management_address.to_string(),
        "http://127.0.0.1:8081"
    );
    assert_eq!(
        config.values.metrics_address.to_string(),
        "http://127.0.0.1:8082"
    );
    assert_eq!(config.values.job_queue_size, 100);
    assert_eq!(config.values.max_request_size, 6_553_500);
    assert_eq!(config.values.default_response_timeout.as_secs(), 120);
    assert_eq!(config.values.load_models, LoadModels::None);
    assert!(!config.values.enable_model_api);
    assert_eq!(config.warnings, []);
}

#[test]
fn variable_beats_flag_beats_file_beats_default() {
    let file = "enable_envvars_config=true\njob_queue_size=1\n";
    let set = |flags: &mut Flags| flags.set.push("job_queue_size=2".to_owned());
    let size = |fixture: Fixture| fixture.load().unwrap().values.job_queue_size;
    assert_eq!(size(Fixture::new("")), 100);
    assert_eq!(size(Fixture::new(file)), 1);
    assert_eq!(size(Fixture::new(file).flags(set)), 2);
    let all = Fixture::new(file)
        .flags(set)
        .variable("TS_JOB_QUEUE_SIZE", "3");
    assert_eq!(size(all), 3);
}

#[test]
fn variables_count_only_where_the_file_asks_for_them() {
    let fixture = Fixture::new("job_queue_size=1").variable("TS_JOB_QUEUE_SIZE", "3");
    assert_eq!(fixture.load().unwrap().values.job_queue_size, 1);
}

#[test]
fn an_empty_variable_overrides_too() {
    let fixture = Fixture::new("enable_envvars_config=true").variable("TS_INFERENCE_ADDRESS", "");
    assert_eq!(
        fixture.refused(),
        "TS_INFERENCE_ADDRESS: inference_address: Invalid binding address: : must be http://HOST[:PORT], \
         https://HOST[:PORT] or unix:/PATH"
    );
}

#[test]
fn the_file_is_named_by_variable_then_flag() {
    let fixture = Fixture::new("job_queue_size=1");
    let named = |name: &str| fixture.directory.path().join(name);
    fs::write(named("a.properties"), "job_queue_size=2").unwrap();
    fs::write(named("b.properties"), "job_queue_size=3").unwrap();
    let a = named("a.properties");
    let b = named("b.properties").display().to_string();
    let fixture = fixture.flags(|flags| flags.ts_config = Some(a));
    assert_eq!(fixture.load().unwrap().values.job_queue_size, 2);
    let fixture = fixture.variable("TS_CONFIG_FILE", &b);
    assert_eq!(fixture.load().unwrap().values.job_queue_size, 3);
    let fixture = fixture.variable("TS_CONFIG_FILE", "/nowhere.properties");
    assert_eq!(
        fixture.refused(),
        "TS_CONFIG_FILE: file not found, got \"/nowhere.properties\""
    );
}

#[test]
fn values_may_name_variables() {
    let fixture =
        Fixture::new("inference_address=http://127.0.0.1:$$PORT$$").variable("PORT", "9999");
    assert_eq!(
        fixture.load().unwrap().values.inference_address.to_string(),
        "http://127.0.0.1:9999"
    );
    assert!(
        Fixture::new("load_models=$$NOPE$$")
            .refused()
            .contains("Invalid Environment Variable NOPE")
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let fixture = Fixture::new(
        "inference_address=http://0.0.0.0:8080
management_address=https://127.0.0.1:8081
metrics_address=http://127.0.0.1:99999
grpc_inference_address=http://127.0.0.1
grpc_management_port=70710
grpc_inference_max_connection_age_ms=0
certificate_file=nope.pem
keystore=store.p12
token_expiration_min=-1
lantern_allow_any_url=perhaps
job_queue_size=many
default_response_timeout=0
enable_model_api=yes
max_request_size=-1
lantern_hosting=cloud
lantern_max_memory=lots
lantern_max_output=256
lantern_max_cpu=5
lantern_onnxruntime=nope.so
Disable_Token_Authorization=true
load_models=../x=a.mar,b.mar
",
    );
    insta::assert_snapshot!("every_problem_is_reported_at_once", fixture.refused());
}

#[test]
fn unused_and_unknown_keys_are_warnings() {
    let fixture = Fixture::new(
        "grpc_inference_port=7070
decode_input_request=false
prefer_direct_buffer=false
metrics_mode=loud
vmargs=-Xmx4g
async_logging=false
models={\"m\": {\"1.0\": {\"minWorkers\": -1, \"batchsize\": 3}}, \"../n\": {}}
install_py_dep_per_model=true
allowed_urls=https://h.org/.*
job_queue_sise=10
disable_token_authorization=false
model_store=not-there-yet
frobnicate=1
",
    );
    insta::assert_snapshot!("unused_and_unknown_keys_are_warnings", fixture.warnings());
}

#[test]
fn an_address_open_to_all_without_tokens_is_a_warning() {
    let wide = "inference_address=http://0.0.0.0:8080\ngrpc_management_address=0.0.0.0\n";
    assert_eq!(Fixture::new(wide).warnings(), "");
    let open = format!("{wide}disable_token_authorization=true\n");
    let warnings = Fixture::new(&open).warnings();
    for key in ["inference_address", "grpc_management_address"] {
        let line = format!("{key} is open to other machines");
        assert!(warnings.contains(&line), "{warnings}");
    }
    let meant = Fixture::new(&format!("{open}lantern_allow_public=true\n"));
    assert_eq!(meant.warnings(), "");
}

#[test]
fn probes_are_told_what_the_operator_chose() {
    let health = |properties: &str| {
        let values = Fixture::new(properties).load().unwrap().values;
        (values.lantern_ping, values.lantern_ready_requires)
    };
    assert_eq!(health(""), (PingMeaning::TorchServe, ReadyRequires::All));
    let chosen = health("lantern_ping=ready\nlantern_ready_requires=any\n");
    assert_eq!(chosen, (PingMeaning::Ready, ReadyRequires::Any));
    let wrong = "lantern_ping=some\nlantern_ready_requires=some\n";
    assert_eq!(health(wrong), health(""));
    let warnings = Fixture::new(wrong).warnings();
    for (key, default, words) in [
        ("lantern_ping", "torchserve", "torchserve, ready"),
        ("lantern_ready_requires", "all", "all, any, none"),
    ] {
        let says = format!(
            "{key} is ignored, and {default:?} holds in its place: it must be one of {words}, got \"some\""
        );
        assert!(warnings.contains(&says), "{warnings}");
    }
}

/// Every key whose wrong value is a warning, with such a value and what holds then.
#[test]
fn what_little_hangs_on_never_stops_a_start() {
    for (key, wrong, holds) in [
        ("metrics_mode", "loud", "log"),
        ("model_metrics_auto_detect", "yes", "false"),
        ("enable_metrics_api", "1", "false"),
        ("disable_system_metrics", "on", "false"),
        ("async_logging", "maybe", "false"),
        ("ts_open_inference_protocol", "v2", "false"),
        ("lantern_log_files", "no", "true"),
        ("lantern_ping", "pong", "torchserve"),
        ("lantern_ready_requires", "most", "all"),
    ] {
        let wrong = Fixture::new(&format!("{key}={wrong}\n"));
        let right = Fixture::new(&format!("{key}={holds}\n"));
        let warnings = wrong.warnings();
        assert!(
            warnings.starts_with(&format!("config.properties:1: {key} is ")),
            "{warnings}"
        );
        let (wrong, right) = (wrong.load().unwrap().values, right.load().unwrap().values);
        let cache = wrong.lantern_cache_dir.clone();
        let right = Values {
            lantern_cache_dir: cache,
            ..right
        };
        assert_eq!(wrong, right, "{key}");
    }
}

#[test]
fn what_safety_hangs_on_stops_a_start() {
    for key in keys().filter(|key| key.is_setting() && key.weight == Weight::Safety) {
        let shape = (key.shape)();
        // A text or a path has no wrong value by itself; files for TLS matter where it is spoken.
        let is_free = [
            "a text",
            "a path",
            "a file for TLS",
            "names",
            "starts of URLs",
        ]
        .iter()
        .any(|free| shape.starts_with(free));
        if !is_free {
            let refused = Fixture::new(&format!("{}=\\u2603\n", key.name)).refused();
            assert!(refused.contains(key.name), "{refused}");
        }
        let shouted = key.name.to_uppercase();
        let refused = Fixture::new(&format!("{shouted}=true\n")).refused();
        assert!(
            refused.contains(&format!("{shouted} must be written {}", key.name)),
            "{refused}"
        );
    }
}

#[test]
fn a_key_in_other_capitals_is_taken() {
    for text in [
        "Job_Queue_Size=7\n",
        "job_queue_size=7\nJOB_QUEUE_SIZE=8\n",
        "JOB_QUEUE_SIZE=8\njob_queue_size=7\n",
    ] {
        let fixture = Fixture::new(text);
        assert_eq!(fixture.load().unwrap().values.job_queue_size, 7, "{text}");
        assert!(
            fixture.warnings().contains("is taken for job_queue_size"),
            "{text}"
        );
    }
    let listed = Fixture::new(
        "models={\"m\": {\"1\": {\"BatchSize\": 4, \"minworkers\": 2, \"minWorkers\": 3}}}\n",
    );
    let (name, version) = (ModelName::new("m").unwrap(), Version::new("1").unwrap());
    let requested = listed.load().unwrap().values.models.of(&name, &version);
    assert_eq!(
        (requested.batch_size, requested.min_workers),
        (Some(4), Some(3))
    );
    assert!(
        listed
            .warnings()
            .contains("m.1.BatchSize, which is taken for batchSize")
    );
}

#[test]
fn a_file_is_found_beside_the_file_that_names_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    let named = elsewhere.path().join("ts.properties");
    let text = "certificate_file=keys/c.pem\nprivate_key_file=keys/k.pem\nmodel_store=models\nmetrics_config=m.yaml\n";
    fs::write(&named, text).unwrap();
    for directory in ["keys", "models"] {
        fs::create_dir(elsewhere.path().join(directory)).unwrap();
    }
    for file in ["keys/c.pem", "keys/k.pem", "m.yaml"] {
        fs::write(elsewhere.path().join(file), "").unwrap();
    }
    let fixture = Fixture::new("").flags(|flags| flags.ts_config = Some(named));
    let config = fixture.load().unwrap();
    // A snapshot is read without that file.
    let certificate = elsewhere.path().join("keys/c.pem");
    assert_eq!(
        config.to_save()["certificate_file"],
        certificate.display().to_string()
    );
    let tls = CertificateSource::Pem {
        certificate: elsewhere.path().join("keys/c.pem"),
        key: elsewhere.path().join("keys/k.pem"),
    };
    assert_eq!(config.certificate, Some(tls));
    assert_eq!(
        config.values.model_store,
        Some(elsewhere.path().join("models"))
    );
    assert_eq!(
        config.values.metrics_config,
        Some(elsewhere.path().join("m.yaml"))
    );
    let warnings = fixture.warnings();
    assert_eq!(
        warnings
            .matches("is taken from where this file lies")
            .count(),
        4,
        "{warnings}"
    );
    // What lies in the current directory counts more.
    fs::create_dir(fixture.directory.path().join("models")).unwrap();
    let here = fixture.load().unwrap().values.model_store;
    assert_eq!(here, Some(fixture.directory.path().join("models")));
    let flags = ["certificate_file=keys/c.pem", "enable_grpc_ssl=true"].map(str::to_owned);
    let typed = fixture.flags(|typed| typed.set.extend(flags));
    assert!(typed.refused().contains("certificate_file must be a file"));
}

#[test]
fn urls_that_are_not_understood_are_warnings_unless_every_url_is_allowed() {
    let everything = "allowed_urls=s3://b/,file://.*|http(s)?://.*\n";
    let warnings = Fixture::new(everything).warnings();
    assert_eq!(
        warnings,
        "config.properties:1: allowed_urls has the pattern \"file://.*|http(s)?://.*\""
    );
    let allowed = format!("{everything}lantern_allow_any_url=true\n");
    assert_eq!(Fixture::new(&allowed).warnings(), "");
}

#[test]
fn variables_name_proxies_in_either_case() {
    let fixture = Fixture::new("")
        .variable("HTTPS_PROXY", "http://upper:1")
        .variable("https_proxy", "http://lower:1")
        .variable("no_proxy", "h.org")
        .variable("HTTP_PROXY", "");
    let config = fixture.load().unwrap();
    let expected = [("HTTPS_PROXY", "http://upper:1"), ("NO_PROXY", "h.org")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(config.proxies.0, expected.into());
    assert!(!format!("{:?}", config.proxies).contains("upper"));
}

#[test]
fn every_default_is_what_its_text_says() {
    let plain = Fixture::new("").load().unwrap();
    let is_literal = |key: &&Key| !key.default.is_empty() && !key.default.starts_with('(');
    for key in keys().filter(is_literal) {
        let fixture = Fixture::new(&format!("{}={}\n", key.name, key.default));
        let config = fixture.load().unwrap();
        let expected = ServerConfig {
            file: config.file.clone(),
            typed: config.typed.clone(),
            written: config.written.clone(),
            ..at(&plain, &fixture)
        };
        assert_eq!(config, expected, "{}", key.name);
    }
}

/// The settings as if they had been read where `fixture` lies.
fn at(config: &ServerConfig, fixture: &Fixture) -> ServerConfig {
    let here = fixture.load().unwrap();
    ServerConfig {
        values: Values {
            lantern_cache_dir: here.values.lantern_cache_dir,
            ..config.values.clone()
        },
        log_directory: here.log_directory,
        metrics_directory: here.metrics_directory,
        unpack_directories: here.unpack_directories,
        snapshot_directory: here.snapshot_directory,
        key_file: here.key_file,
        ..config.clone()
    }
}

#[test]
fn names_of_variables_follow_torchserve() {
    let asking = "enable_envvars_config=true\nallowed_urls=https://h.org/\n";
    let fixture = Fixture::new(asking)
        .variable("TS_TOKEN_EXPIRATION_TIME_MIN", "0.25")
        .variable("TS_GRPC_INFERENCE_PORT", "9")
        .variable("TS_HEADER_KEY_SEQUENCE_ID", "X-Session")
        .variable("TS_MODELS", "not read")
        .variable("TS_ALLOWED_URLS", "http://a/.*, s3://b");
    let config = fixture.load().unwrap();
    assert_eq!(config.values.token_expiration_min, Duration::from_secs(15));
    assert_eq!(config.values.grpc_inference_port, 9);
    assert_eq!(config.typed["ts_header_key_sequence_id"].value, "X-Session");
    assert_eq!(config.values.allowed_urls, "https://h.org/");
    let fixture = Fixture::new(&format!("{asking}use_env_allowed_urls=true\n"))
        .variable("TS_ALLOWED_URLS", "http://a/.*, s3://b");
    let values = fixture.load().unwrap().values;
    assert_eq!(values.allowed_urls, "http://a/.*, s3://b");
}

#[test]
fn some_variables_are_always_read() {
    let fixture = Fixture::new("")
        .variable("TS_OPEN_INFERENCE_PROTOCOL", "false")
        .variable("LANTERN_MAX_INSTANCES", "3")
        .variable("LOG_LOCATION", "elsewhere")
        .variable("TS_JOB_QUEUE_SIZE", "7");
    let config = fixture.load().unwrap();
    assert!(!config.values.ts_open_inference_protocol);
    assert_eq!(config.values.lantern_max_instances, 3);
    assert_eq!(config.values.job_queue_size, 100);
    let here = fixture.directory.path();
    assert_eq!(config.log_directory, here.join("elsewhere"));
    assert_eq!(config.metrics_directory, here.join("logs"));
    assert_eq!(
        config.snapshot_directory,
        Some(here.join("elsewhere/config"))
    );
}

/// TorchServe's `test_token_authorization.py` and `test_model_control_mode.py`.
#[test]
fn switches_have_three_places_and_the_variable_wins() {
    let asking =
        "enable_envvars_config=true\ndisable_token_authorization=false\nenable_model_api=false\n";
    let state = |fixture: &Fixture| {
        let config = fixture.load().unwrap();
        (
            config.values.disable_token_authorization,
            config.values.enable_model_api,
        )
    };
    let flags = |flags: &mut Flags| {
        flags.disable_token_auth = true;
        flags.enable_model_api = true;
    };
    let with = |value: &str| {
        Fixture::new(asking)
            .variable("TS_DISABLE_TOKEN_AUTHORIZATION", value)
            .variable("TS_ENABLE_MODEL_API", value)
    };
    assert_eq!(state(&Fixture::new(asking)), (false, false));
    assert_eq!(state(&Fixture::new(asking).flags(flags)), (true, true));
    assert_eq!(state(&with("true")), (true, true));
    assert_eq!(state(&with("false").flags(flags)), (false, false));
}

#[test]
fn a_keystore_stands_in_for_certificate_and_key() {
    let tls = "enable_grpc_ssl=true\nkeystore=my.jks\nkeystore_type=JKS\n";
    let with = |more: &str| {
        let fixture = Fixture::new(&format!("{tls}{more}"));
        for name in ["my.jks", "c.pem", "k.pem"] {
            fs::write(fixture.directory.path().join(name), "").unwrap();
        }
        fixture
    };
    let keystore = |fixture: &Fixture, password: &str| CertificateSource::Keystore {
        file: fixture.directory.path().join("my.jks"),
        password: Password::new(password),
    };
    let silent = with("");
    let source = silent.load().unwrap().certificate;
    assert_eq!(source, Some(keystore(&silent, "changeit")));
    let said = with("keystore_pass=secret\n");
    let source = said.load().unwrap().certificate;
    assert_eq!(source, Some(keystore(&said, "secret")));
    let both = with("certificate_file=c.pem\nprivate_key_file=k.pem\n");
    let source = both.load().unwrap().certificate;
    assert!(matches!(source, Some(CertificateSource::Pem { .. })));
}

#[test]
fn files_for_tls_must_be_there_where_tls_is_spoken() {
    for keys in [
        "keystore=my.jks\n",
        "certificate_file=c.pem\nprivate_key_file=k.pem\n",
    ] {
        let idle = Fixture::new(keys);
        assert!(idle.warnings().contains("must be a file"), "{keys}");
        let needed = Fixture::new(&format!("{keys}enable_grpc_ssl=true\n"));
        assert!(needed.refused().contains("must be a file"), "{keys}");
    }
}

#[test]
fn certificate_and_key_come_together() {
    let fixture = Fixture::new("certificate_file=c.pem\nprivate_key_file=k.pem\n");
    for name in ["c.pem", "k.pem"] {
        fs::write(fixture.directory.path().join(name), "").unwrap();
    }
    let expected = CertificateSource::Pem {
        certificate: fixture.directory.path().join("c.pem"),
        key: fixture.directory.path().join("k.pem"),
    };
    assert_eq!(fixture.load().unwrap().certificate, Some(expected));
    let fixture = Fixture::new("private_key_file=config.properties\n");
    assert!(
        fixture
            .refused()
            .contains("needs certificate_file beside it")
    );
}

#[test]
fn certificates_of_clients_need_tls_and_keep_strangers_out() {
    let asked = "lantern_client_ca=config.properties\n";
    let refused = Fixture::new(asked).refused();
    assert!(
        refused.contains("lantern_client_ca needs a listener that speaks TLS"),
        "{refused}"
    );
    let public =
        "enable_grpc_ssl=true\ngrpc_inference_address=0.0.0.0\ndisable_token_authorization=true\n";
    let open = "grpc_inference_address is open to other machines";
    assert!(Fixture::new(public).warnings().contains(open));
    let asking = format!("{asked}{public}");
    assert_eq!(Fixture::new(&asking).warnings(), "");
    let plain = Fixture::new(&format!("{asking}metrics_address=http://0.0.0.0:8082\n")).warnings();
    let says = "lantern_client_ca does not hold for metrics_address, which other machines reach without TLS";
    assert!(plain.contains(says), "{plain}");
}

#[test]
fn a_snapshot_decides_what_is_loaded() {
    let fixture = Fixture::new("model_snapshot={\"models\": {}}\nload_models=all\n");
    let config = fixture.load().unwrap();
    assert_eq!(config.values.load_models, LoadModels::None);
    assert_eq!(config.values.model_snapshot, Some(Saved::default()));
    assert!(fixture.warnings().contains("load_models is ignored"));
}

#[test]
fn a_missing_temporary_directory_is_named_and_another_takes_its_place() {
    let fixture = Fixture::new("")
        .variable("TEMP", "/nowhere")
        .variable("STATE_DIRECTORY", "/var/lib/lantern");
    assert_eq!(
        fixture.warnings(),
        "Invalid temp directory: /nowhere, please check TEMP environment variable."
    );
    let first = &fixture.load().unwrap().unpack_directories[0];
    assert_eq!(first, std::path::Path::new("/var/lib/lantern/unpacked"));
}

#[test]
fn the_directory_that_is_named_for_archives_comes_first_and_others_stand_in() {
    let fixture = Fixture::new("lantern_temp_dir=/named\n").variable("STATE_DIRECTORY", "/s");
    let all = fixture.load().unwrap().unpack_directories;
    let first: Vec<_> = all.iter().take(2).map(|path| path.to_str()).collect();
    assert_eq!(first, [Some("/named"), Some("/s/unpacked")]);
}

/// Values of the settings that open a server, each other than its default.
const OPEN: [(&str, &str); 10] = [
    ("allowed_urls", "https://h.org/"),
    ("disable_token_authorization", "true"),
    ("enable_model_api", "true"),
    ("lantern_hosting", "inline"),
    ("lantern_allow_inline", "true"),
    ("lantern_allow_public", "true"),
    ("lantern_socket_mode", "0666"),
    ("lantern_handler_headers", "set-cookie"),
    ("lantern_allow_any_url", "true"),
    ("lantern_private_hosts", "intranet"),
];

/// A fixture with a snapshot of a server that was open in every way.
fn after_an_open_server(properties: &str) -> Fixture {
    let fixture = Fixture::new(properties);
    let directory = fixture.directory.path().join("logs/config");
    fs::create_dir_all(&directory).unwrap();
    let lines = OPEN.map(|(key, value)| format!("{key}={value}\n")).concat();
    let text = format!("job_queue_size=7\n{lines}model_snapshot={{\"models\":{{}}}}\n");
    fs::write(directory.join("20261120152439289-shutdown.cfg"), text).unwrap();
    fixture
}

#[test]
fn no_snapshot_opens_a_server() {
    let marked: Vec<_> = keys().filter(|key| key.opens).map(|key| key.name).collect();
    assert_eq!(marked, OPEN.map(|(key, _)| key));
    let fixture = after_an_open_server("");
    let (config, plain) = (fixture.load().unwrap(), Fixture::new("").load().unwrap());
    assert_eq!(config.values.job_queue_size, 7);
    for (key, value) in OPEN {
        assert_eq!(config.shown(key), plain.shown(key), "{key}");
        let mut warnings = config.warnings.iter().map(ToString::to_string);
        let told = warnings.find(|warning| warning.contains(&format!(" {key} is not restored")));
        let told = told.unwrap_or_else(|| panic!("nothing is said of {key}"));
        assert!(told.contains(value), "{told}");
    }
    assert_eq!(config.warnings.len(), OPEN.len());
    assert!(
        config
            .to_save()
            .keys()
            .all(|key| OPEN.iter().all(|(open, _)| open != key))
    );
}

/// It says what is loaded and run.
#[test]
fn a_snapshot_that_others_can_write_is_passed_over() {
    use std::os::unix::fs::PermissionsExt as _;

    let fixture = after_an_open_server("");
    let file = "logs/config/20261120152439289-shutdown.cfg";
    let file = fixture.directory.path().join(file);
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    let plain = Fixture::new("").load().unwrap();
    let found = fixture.load().unwrap();
    assert_eq!(found.values.job_queue_size, plain.values.job_queue_size);
    assert!(fixture.warnings().contains("others can write to it"));
}

/// What opens a server and what protects it come from one file, and passwords from the only one that holds them.
#[test]
fn what_this_start_says_protects_a_server_beside_a_snapshot() {
    let fixture = after_an_open_server(
        "management_address=https://127.0.0.1:8444\nkeystore=k.p12\nkeystore_pass=secret\njob_queue_size=1\n",
    );
    let keystore = fixture.directory.path().join("k.p12");
    fs::write(&keystore, "").unwrap();
    let config = fixture.load().unwrap();
    assert!(config.values.management_address.is_tls());
    let password = Password::new("secret");
    let file = keystore;
    let expected = CertificateSource::Keystore { file, password };
    assert_eq!(config.certificate, Some(expected));
    assert_eq!(config.values.job_queue_size, 7, "the snapshot's");
}

#[test]
fn what_this_start_says_opens_a_server_beside_a_snapshot() {
    for (key, value) in OPEN {
        let said = [
            after_an_open_server(&format!("{key}={value}\njob_queue_size=1\n")),
            after_an_open_server("").flags(|flags| flags.set.push(format!("{key}={value}"))),
        ];
        for fixture in said {
            let config = fixture.load().unwrap();
            assert_eq!(config.typed[key].value, value);
            assert_eq!(config.values.job_queue_size, 7, "the snapshot's");
            assert_eq!(config.warnings.len(), OPEN.len() - 1, "{key}");
        }
    }
    // A snapshot of a closed server has nothing to tell.
    let closed = Fixture::new("disable_token_authorization=true\n");
    let directory = closed.directory.path().join("logs/config");
    fs::create_dir_all(&directory).unwrap();
    let text = "disable_token_authorization=false\nmodel_snapshot={\"models\":{}}\n";
    fs::write(directory.join("20261120152439289-shutdown.cfg"), text).unwrap();
    assert_eq!(closed.warnings(), "");
    assert!(closed.load().unwrap().values.disable_token_authorization);
    // Whoever names the snapshot means what it says.
    let named = after_an_open_server("");
    let snapshot = "logs/config/20261120152439289-shutdown.cfg";
    let named = named.flags(|flags| flags.ts_config = Some(snapshot.into()));
    assert!(named.load().unwrap().values.disable_token_authorization);
}

#[test]
fn another_programs_file_is_refused_by_name() {
    let fixture = Fixture::new("").flags(|flags| flags.ts_config = Some("other.cfg".into()));
    let path = fixture.directory.path().join("other.cfg");
    for (content, keys) in [
        (
            "app.name=shop\napp.port=80\na=1\nb=2\n",
            "its 4 keys is known, such as \"app.name\", \"app.port\", \"a\":",
        ),
        ("Dear Sir\n", "its 1 keys is known, such as \"Dear\":"),
        ("\0\0\0", "its 1 keys is known, such as \"\\0\\0\\0\":"),
    ] {
        fs::write(&path, content).unwrap();
        let refused = fixture.refused();
        assert!(
            refused.starts_with("--ts-config: must name a file of the server's settings"),
            "{refused}"
        );
        assert!(
            refused.contains(keys) && refused.contains("other.cfg"),
            "{refused}"
        );
    }
    // One that is known is enough, and a file of comments says that nothing is to be changed.
    for content in ["app.name=shop\njob_queue_size=3\n", "# nothing\n", ""] {
        fs::write(&path, content).unwrap();
        fixture.load().unwrap();
    }
}

#[test]
fn flags_name_store_and_models() {
    let fixture = Fixture::new("load_models=all\nmodel_store=elsewhere\n");
    let store = fixture.directory.path().to_owned();
    let fixture = fixture.flags(|flags| {
        flags.model_store = Some(store.clone());
        flags.models = vec!["digits=d.mar".to_owned(), "e.mar".to_owned()];
        flags.enable_model_api = true;
    });
    let config = fixture.load().unwrap();
    assert_eq!(config.values.model_store, Some(store));
    assert!(config.values.enable_model_api);
    let LoadModels::Listed(models) = config.values.load_models else {
        panic!("a list of models")
    };
    let pairs: Vec<_> = models
        .iter()
        .map(|model| {
            (
                model.name.as_ref().map(ModelName::as_str),
                model.url.as_str(),
            )
        })
        .collect();
    assert_eq!(pairs, [(Some("digits"), "d.mar"), (None, "e.mar")]);
}

#[test]
fn a_missing_model_store_named_by_a_flag_is_a_problem() {
    let fixture =
        Fixture::new("").flags(|flags| flags.model_store = Some("/nowhere/models".into()));
    assert_eq!(
        fixture.refused(),
        "--model-store directory not found: /nowhere/models"
    );
}

#[test]
fn models_gives_settings_to_versions() {
    let config = Fixture::new(
        "models={ \\
  \"noop\": { \"1.11\": { \"defaultVersion\": true, \"marName\": \"noop.mar\", \"minWorkers\": 1, \\
    \"maxWorkers\": 2, \"batchSize\": 4, \"maxBatchDelay\": 50, \"responseTimeout\": 7 } } }",
    )
    .load()
    .unwrap();
    let (name, version) = (
        ModelName::new("noop").unwrap(),
        Version::new("1.11").unwrap(),
    );
    let listed = config.values.models.of(&name, &version);
    assert_eq!((listed.min_workers, listed.max_workers), (Some(1), Some(2)));
    assert_eq!(listed.max_batch_delay, Some(Duration::from_millis(50)));
    assert_eq!(config.values.models.defaults[&name], version);
    assert_eq!(
        config.values.models.of(&name, &Version::new("2").unwrap()),
        Requested::default()
    );
}

#[test]
fn workers_by_default_are_devices_at_the_start_and_none_later() {
    let config = Fixture::new("number_of_gpu=2").load().unwrap();
    let workers = |at_startup, gpus, cores| config.defaults(at_startup, gpus, cores).workers;
    assert_eq!(workers(true, 0, 4), 4);
    assert_eq!(workers(true, 8, 4), 2);
    assert_eq!(workers(false, 8, 4), 0);
    let config = Fixture::new("default_workers_per_model=3").load().unwrap();
    assert_eq!(config.defaults(false, 0, 4).workers, 3);
}

#[test]
fn a_worker_process_may_have_three_quarters_of_the_machine() {
    let limits = |fixture: Fixture| {
        let config = fixture.load().unwrap();
        let ceilings = config.defaults(true, 0, 1).ceilings;
        let shown = config.shown("lantern_max_process_memory");
        (ceilings.process_memory, shown, ceilings.threads)
    };
    let found = limits(Fixture::new("").memory((8 << 30) + 5));
    assert_eq!(found, (6 << 30, "6GiB".to_owned(), 1024));
    let small = limits(Fixture::new("").memory(5));
    assert_eq!((small.0, small.1.as_str()), (1 << 20, "1MiB"));
    let unknown = limits(Fixture::new(""));
    assert_eq!(unknown.0, usize::MAX);
    let typed = "lantern_max_process_memory=512MiB\nlantern_max_threads=99\n";
    let typed = limits(Fixture::new(typed).memory(8 << 30));
    assert_eq!(typed, (512 << 20, "512MiB".to_owned(), 99));
}

#[test]
fn what_is_found_out_about_the_machine_is_not_saved() {
    let config = Fixture::new("").memory(8 << 30).load().unwrap();
    let saved = format!("{:?}", config.to_save());
    assert!(!saved.contains("lantern_max_process_memory"), "{saved}");
}

#[test]
fn a_version_may_have_the_workers_that_fit_the_machine() {
    let most = |fixture: Fixture| {
        let config = fixture.load().unwrap();
        let most = config.defaults(true, 0, 1).most.workers;
        assert_eq!(config.shown("lantern_max_workers"), most.to_string());
        most
    };
    let mib = 1 << 20;
    for (memory, expected) in [
        (0, 16),
        (16 * 64 * mib, 16),
        (17 * 64 * mib, 17),
        (18 * 64 * mib - 1, 17),
        (1024 * 64 * mib, 1024),
        (u64::MAX, 1024),
    ] {
        assert_eq!(most(Fixture::new("").memory(memory)), expected, "{memory}");
    }
    assert_eq!(most(Fixture::new("")), 1024);
    let typed = Fixture::new("lantern_max_workers=1000").memory(mib);
    assert_eq!(most(typed), 1000);
}

#[test]
fn workers_by_default_are_no_more_than_a_version_may_have() {
    let workers = |text: &str, memory| {
        let config = Fixture::new(text).memory(memory).load().unwrap();
        config.defaults(true, 0, 96).workers
    };
    assert_eq!(workers("", 1 << 30), 16);
    assert_eq!(workers("", 64 << 30), 96);
    assert_eq!(workers("lantern_max_workers=2", 64 << 30), 2);
}

#[test]
fn ceilings_are_what_suits_archives_of_strangers() {
    let defaults = |text: &str| Fixture::new(text).load().unwrap().defaults(true, 0, 1);
    let plain = defaults("");
    assert_eq!(plain.ceilings.cpu, Duration::from_secs(2));
    assert_eq!(plain.ceilings.instances, 256);
    assert_eq!(plain.most.timeout, Duration::from_hours(1));
    assert_eq!(plain.most.handler_memory, 4 << 30);
    let typed = defaults("lantern_max_timeout=5min\nlantern_max_handler_memory=1GiB\n");
    assert_eq!(typed.most.timeout, Duration::from_mins(5));
    assert_eq!(typed.most.handler_memory, 1 << 30);
}
