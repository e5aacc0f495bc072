//! What the fuzzer calls: YAML and the files in it, properties, and snapshots.

use std::collections::HashSet;
use std::time::Duration;

use super::model::{Defaults, ModelConfig, Requested, VersionLimits, resolve};
use super::yaml::{Node, Value};
use super::{metrics, properties, snapshot, tenants, yaml};
use crate::model::{Envelope, HandlerHeaders, Hosting, Limits};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 6] = [
    ("yaml", yaml),
    ("model_config", model_config),
    ("metrics_config", metrics_config),
    ("tenants", tenants),
    ("properties", properties),
    ("snapshot", snapshot),
];

fn yaml(bytes: &[u8]) {
    let Ok(document) = yaml::parse("f.yaml", bytes) else {
        return;
    };
    let mut nodes = 0;
    check_node(&document, 0, &mut nodes);
    let text = document.to_json().to_string();
    let again: serde_json::Value = serde_json::from_str(&text).expect("JSON is written");
    assert_eq!(again, document.to_json());
}

/// Checks the limits that `yaml` promises.
fn check_node(node: &Node, depth: usize, nodes: &mut usize) {
    *nodes += 1;
    assert!(depth <= yaml::DEPTH_LIMIT && *nodes <= yaml::NODE_LIMIT);
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Text(_) => {}
        Value::Float(value) => assert!(value.is_finite()),
        Value::List(items) => {
            for item in items {
                check_node(item, depth + 1, nodes);
            }
        }
        Value::Map(entries) => {
            let keys: HashSet<_> = entries.iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), entries.len(), "a key is there twice");
            for (_, node) in entries {
                check_node(node, depth + 1, nodes);
            }
        }
    }
}

/// What an archive asks for never exceeds what the operator allows.
fn model_config(bytes: &[u8]) {
    let Ok(config) = ModelConfig::parse("f.yaml", bytes) else {
        return;
    };
    let json: serde_json::Value = serde_json::from_str(&config.json).expect("JSON is written");
    assert!(json.is_object());
    let defaults = defaults();
    let none = Requested::default();
    let Ok(resolved) = resolve(&config, &none, &none, &defaults) else {
        return;
    };
    let (settings, limits, most) = (resolved.settings, resolved.limits, &defaults.most);
    assert!(settings.min_workers <= settings.max_workers);
    assert!(settings.max_workers <= most.workers);
    assert!(settings.batch_size <= most.batch_size && settings.batch_size > 0);
    assert!(settings.job_queue_size <= most.job_queue_size);
    assert!(settings.response_timeout <= most.timeout && settings.startup_timeout <= most.timeout);
    assert_eq!(settings.hosting, Hosting::Process);
    let ceilings = &defaults.ceilings;
    assert!(limits.memory <= ceilings.memory.min(most.handler_memory));
    assert!(limits.response <= ceilings.response.min(defaults.max_response));
}

fn defaults() -> Defaults {
    Defaults {
        workers: 1,
        response_timeout: Duration::from_secs(30),
        startup_timeout: Duration::from_secs(30),
        job_queue_size: 100,
        max_response: 1 << 20,
        hosting: Hosting::Process,
        envelope: Envelope::None,
        allow_inline: false,
        gpus: 0,
        handler_headers: HandlerHeaders::default(),
        ceilings: Limits::default(),
        most: VersionLimits::default(),
    }
}

/// No key opens two tenants, and none opens nothing. Whoever is asked for signers has some.
fn tenants(bytes: &[u8]) {
    let Ok(tenants) = tenants::parse("f.yaml", bytes, |_, _| Vec::new()) else {
        return;
    };
    let mut digests = HashSet::new();
    let mut required = tenants
        .tenants
        .values()
        .filter_map(|tenant| tenant.signers.required());
    assert!(required.all(|signers| !signers.is_empty()));
    for key in tenants.tenants.values().flat_map(|tenant| &tenant.keys) {
        assert!(digests.insert(key.digest), "a key is there twice");
        assert!(!key.scopes.is_empty());
        let label = key.label.as_deref().unwrap_or_default();
        assert!(!label.chars().any(char::is_control));
    }
}

fn metrics_config(bytes: &[u8]) {
    let _ = metrics::parse("f.yaml", bytes);
}

/// What is read is read again when it is written.
fn properties(bytes: &[u8]) {
    let Ok(read) = properties::parse(bytes) else {
        return;
    };
    for property in read {
        let line = properties::render(&property.key, &property.value);
        let again = properties::parse(line.as_bytes());
        let expected = properties::Property {
            line: 1,
            ..property
        };
        assert_eq!(again, Ok(vec![expected]));
    }
}

/// What is read is read again when it is saved.
fn snapshot(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(saved) = snapshot::parse(&text) else {
        return;
    };
    let again = snapshot::parse(&snapshot::render("f.cfg", 0, &saved.versions));
    let again = again.expect("what is written is a snapshot");
    assert_eq!((again.versions, again.problems), (saved.versions, vec![]));
}
