//! Reading and resolving `model-config.yaml`.
use std::time::Duration;

use super::*;
use crate::model::{
    DType, Device, Envelope, HandlerHeaders, Hosting, Limits, Settings, StateSharing,
};

fn parse(text: &str) -> ModelConfig {
    ModelConfig::parse("c.yaml", text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    ModelConfig::parse("c.yaml", text.as_bytes())
        .unwrap_err()
        .to_string()
}

fn warnings(text: &str) -> Vec<String> {
    parse(text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn defaults() -> Defaults {
    Defaults {
        workers: 2,
        response_timeout: Duration::from_secs(30),
        startup_timeout: Duration::from_secs(40),
        job_queue_size: 100,
        max_response: 1 << 20,
        hosting: Hosting::Process,
        envelope: Envelope::None,
        handler_headers: HandlerHeaders::default(),
        allow_inline: false,
        gpus: 0,
        ceilings: Limits {
            memory: 256 << 20,
            ..Limits::default()
        },
        most: VersionLimits::default(),
    }
}

#[test]
fn no_version_gets_more_than_the_operator_allows() {
    let most = VersionLimits {
        workers: 4,
        batch_size: 8,
        job_queue_size: 16,
        ..VersionLimits::default()
    };
    let defaults = Defaults {
        most,
        job_queue_size: 16,
        ..defaults()
    };
    let asked = |text: &str, api: &Requested| {
        let resolved = resolve(&parse(text), api, &Requested::default(), &defaults);
        resolved.map_err(|problems| problems.to_string())
    };
    let api = |min_workers, batch_size| Requested {
        min_workers: Some(min_workers),
        batch_size: Some(batch_size),
        ..Requested::default()
    };
    assert!(asked("minWorkers: 4\nmaxWorkers: 4\njobQueueSize: 16", &api(1, 8)).is_ok());
    for (text, api, says) in [
        ("", api(5, 1), "maxWorkers must be at most 4"),
        ("", api(1, 9), "batchSize must be at most 8"),
        (
            "minWorkers: 1\nmaxWorkers: 5",
            api(1, 1),
            "maxWorkers must be at most 4",
        ),
        (
            "jobQueueSize: 17",
            api(1, 1),
            "jobQueueSize must be at most 16",
        ),
    ] {
        let refused = asked(text, &api).unwrap_err();
        assert!(refused.contains(says), "{refused}");
        assert!(refused.contains("(lantern_max_"), "{refused}");
    }
}

/// Settings with timeouts in seconds: of responses, starts and restarts, and of batches.
fn timeouts(settings: &Settings) -> [u64; 4] {
    [
        settings.response_timeout,
        settings.startup_timeout,
        settings.max_retry_timeout,
        settings.max_batch_delay,
    ]
    .map(|timeout| timeout.as_secs())
}

#[test]
fn timeouts_become_what_the_operator_allows_whoever_asks() {
    let most = VersionLimits {
        timeout: Duration::from_mins(10),
        ..VersionLimits::default()
    };
    let defaults = Defaults { most, ..defaults() };
    let archive = |seconds: u64| {
        format!(
            "responseTimeout: {seconds}\nstartupTimeout: {seconds}\nmaxRetryTimeoutInSec: {seconds}\n\
             maxBatchDelay: {seconds}000\n"
        )
    };
    let outside = |seconds| {
        let asked = Some(Duration::from_secs(seconds));
        Requested {
            max_batch_delay: asked,
            response_timeout: asked,
            startup_timeout: asked,
            ..Requested::default()
        }
    };
    let (none, year) = (Requested::default(), 31_536_000);
    for (text, api, listed, expected, warnings) in [
        (String::new(), &none, &none, [30, 40, 300, 0], 0),
        (archive(600), &none, &none, [600; 4], 0),
        (archive(601), &none, &none, [600; 4], 4),
        (archive(31_536), &none, &none, [600; 4], 4),
        (String::new(), &outside(600), &none, [600, 600, 300, 600], 0),
        (String::new(), &outside(601), &none, [600, 600, 300, 600], 3),
        (
            String::new(),
            &outside(year),
            &none,
            [600, 600, 300, 600],
            3,
        ),
        (String::new(), &none, &outside(600), [600, 600, 300, 600], 0),
        (String::new(), &none, &outside(601), [600, 600, 300, 600], 3),
        // What does not count is not lowered.
        (archive(7), &none, &outside(601), [7; 4], 0),
    ] {
        let resolved = resolve(&parse(&text), api, listed, &defaults).unwrap();
        let case = format!("{text} {api:?} {listed:?}");
        assert_eq!(timeouts(&resolved.settings), expected, "{case}");
        assert_eq!(resolved.warnings.len(), warnings, "{case}");
    }
    let resolved = resolve(&parse(&archive(601)), &none, &none, &defaults).unwrap();
    assert_eq!(
        resolved.warnings[0].to_string(),
        "model settings: responseTimeout becomes 600s, which is lantern_max_timeout of this server, got 601s"
    );
}

#[test]
fn the_servers_own_timeouts_are_not_lowered() {
    let defaults = Defaults {
        response_timeout: Duration::from_secs(700),
        startup_timeout: Duration::from_secs(800),
        most: VersionLimits {
            timeout: Duration::from_millis(10),
            ..VersionLimits::default()
        },
        ..defaults()
    };
    let none = Requested::default();
    let text = "responseTimeout: 701\nstartupTimeout: 800\nmaxBatchDelay: 101\n";
    for (text, warnings) in [("", 0), (text, 2)] {
        let resolved = resolve(&parse(text), &none, &none, &defaults).unwrap();
        assert_eq!(timeouts(&resolved.settings), [700, 800, 300, 0], "{text}");
        let delay = resolved.settings.max_batch_delay;
        assert_eq!(delay, Duration::from_millis(100));
        assert_eq!(resolved.warnings.len(), warnings, "{text}");
    }
}

#[test]
fn as_many_instances_exist_as_there_is_memory_for() {
    let ceilings = Limits {
        memory: 4 << 30,
        instances: 256,
        ..Limits::default()
    };
    let limits = |text: &str, handler_memory| {
        let defaults = Defaults {
            ceilings: ceilings.clone(),
            most: VersionLimits {
                handler_memory,
                ..VersionLimits::default()
            },
            ..defaults()
        };
        let none = Requested::default();
        let resolved = resolve(&parse(text), &none, &none, &defaults);
        resolved.map(|it| {
            (
                it.limits.memory >> 20,
                it.limits.instances,
                it.warnings.len(),
            )
        })
    };
    let gib = 1 << 30;
    for (text, handler_memory, expected) in [
        ("", 4 * gib, (128, 32, 0)),
        // Nobody asked for what there is no room for.
        ("", gib, (128, 8, 0)),
        ("lantern: {limits: {memory: 64MiB}}", gib, (64, 16, 0)),
        ("", 64 << 20, (64, 1, 0)),
        ("lantern: {limits: {instances: 32}}", 4 * gib, (128, 32, 0)),
        ("lantern: {limits: {instances: 33}}", 4 * gib, (128, 32, 1)),
        (
            "lantern: {limits: {memory: 64MiB, instances: 64}}",
            4 * gib,
            (64, 64, 0),
        ),
        ("lantern: {limits: {memory: 1GiB}}", 4 * gib, (1024, 4, 1)),
        (
            "lantern: {limits: {memory: 1GiB, instances: 4}}",
            4 * gib,
            (1024, 4, 0),
        ),
        (
            "lantern: {limits: {memory: 1GiB, instances: 5}}",
            4 * gib,
            (1024, 4, 1),
        ),
        ("lantern: {limits: {memory: 4GiB}}", 4 * gib, (4096, 1, 1)),
        (
            "lantern: {limits: {memory: 3GiB, instances: 1}}",
            4 * gib,
            (3072, 1, 0),
        ),
    ] {
        assert_eq!(limits(text, handler_memory), Ok(expected), "{text}");
    }
    let refused = limits("lantern: {limits: {memory: 2GiB}}", gib).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "model configuration: lantern.limits.memory must be at most 1073741824, which is what this server allows, got \
         2147483648"
    );
}

fn settings(text: &str, api: &Requested, listed: &Requested) -> Settings {
    resolve(&parse(text), api, listed, &defaults())
        .unwrap()
        .settings
}

const FULL: &str = "
minWorkers: 2
maxWorkers: 4
batchSize: 8
maxBatchDelay: 20
responseTimeout: 7
startupTimeout: 9
clientTimeoutInMills: 500
maxRetryTimeoutInSec: -1
jobQueueSize: 50
deviceType: gpu
deviceIds: [0, 2]
handler: {labels: [zero, one], mean: 0.5}
lantern:
  handler: classify.wasm
  backend: onnx
  hosting: inline
  intraOpThreads: 2
  freshInstances: true
  oip: handler
  serviceEnvelope: kserve
  waitForFullBatches: yes
  maxBatchElements: 4096
  inputs:
    - {name: image, dtype: fp32, shape: [-1, 1, 28, 28]}
  outputs:
    - {name: scores, dtype: fp32, shape: [-1, 10]}
  limits: {memory: 64MiB, cpu: 100ms, initCpu: 2s, output: 1048576, response: 1MB,
           hostCalls: 1000, logLinesPerSecond: 10, logBytesPerSecond: 1KiB, observationsPerSecond: 20,
           metricSeries: 5, instances: 3,
           processMemory: 2GiB, threads: 40}
";

#[test]
fn every_key_arrives() {
    let config = parse(FULL);
    insta::assert_debug_snapshot!("every_key_arrives", config.options);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let json: serde_json::Value = serde_json::from_str(&config.json).unwrap();
    assert_eq!(json["handler"]["labels"][1], "one");
    assert_eq!(json["lantern"]["limits"]["memory"], "64MiB");
}

#[test]
fn a_model_that_keeps_state_is_shared_or_copied() {
    let state = |word: &str| parse(&format!("lantern: {{state: {word}}}")).options.state;
    assert_eq!(state("shared"), Some(StateSharing::Shared));
    assert_eq!(state("copies"), Some(StateSharing::Copies));
    let problem = refused("lantern: {state: mine}");
    assert!(
        problem.contains("lantern.state must be shared or copies, got \"mine\""),
        "{problem}"
    );
}

#[test]
fn the_envelope_is_the_archives_or_its_manifests_or_the_servers() {
    let envelope = |text: &str, manifest: Option<&str>| {
        let config = parse(text).with_manifests_envelope(manifest);
        let defaults = Defaults {
            envelope: Envelope::Body,
            ..defaults()
        };
        let nothing = Requested::default();
        let resolved = resolve(&config, &nothing, &nothing, &defaults).unwrap();
        resolved.settings.envelope
    };
    let own = "lantern: {serviceEnvelope: kservev2}";
    assert_eq!(envelope(own, Some("json")), Envelope::KServeV2);
    assert_eq!(envelope("", Some("json")), Envelope::Json);
    assert_eq!(envelope("", None), Envelope::Body);
    assert_eq!(envelope("", Some("seldon")), Envelope::Body);
    assert_eq!(
        envelope("lantern: {serviceEnvelope: none}", None),
        Envelope::None
    );
    let unknown = ModelConfig::default().with_manifests_envelope(Some("seldon"));
    let warning = unknown.warnings[0].to_string();
    assert!(
        warning.contains("model.envelope has no effect: it is none of none, body"),
        "{warning}"
    );
    let problem = refused("lantern: {serviceEnvelope: seldon}");
    assert!(
        problem.contains("lantern.serviceEnvelope must be one of none, body"),
        "{problem}"
    );
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(parse(""), ModelConfig::default());
}

#[test]
fn every_problem_is_reported_at_once() {
    insta::assert_snapshot!(
        "every_problem_is_reported_at_once",
        refused(
            "batchSise: 3
maxBatchDelay: 5
batchSize: 0
minWorkers: 5000
maxWorkers: 9000
sequenceBatching: true
useJobtickets: true
lantern:
  backend: tensorflow
  handler: handler.py
  hosting: cloud
  intraOpThreads: 0
  freshInstances: maybe
  inputs:
    - {name: a, dtype: float, shape: [-2]}
    - {name: b, dtype: fp32}
    - {name: b, dtype: fp32, shape: []}
    - 7
  outputs: all
  limit: {}
  Hosting: inline
  limits: {memory: lots, output: 256, cpu: 250, memori: 1MiB}
"
        )
    );
}

#[test]
fn wrong_values_of_torchserve_keys_are_ignored_with_a_warning() {
    insta::assert_snapshot!(
        "wrong_values_are_warnings",
        warnings(
            "batchSize: many
maxBatchDelay: -5
deviceType: tpu
deviceIds: [0, x]
minWorkers: 3
maxWorkers: 2
useVenv: true
pt2: {compile: {enable: true}}
micro_batching: {micro_batch_size: 2}
sequenceMaxIdleMSec: 10
continuousBatching: true
asyncCommunication: false
parallelType: tp
parallelLevel: 2
torchrun: {nproc-per-node: 2}
sequenceBatching: false
useJobTicket: often
vocabulary: {file: vocab.txt}
"
        )
        .join("\n")
    );
}

#[test]
fn workers_below_one_become_one_as_in_torchserve() {
    let text = "minWorkers: 0\nmaxWorkers: 3\njobQueueSize: 0\n";
    let options = parse(text).options;
    assert_eq!(
        (options.min_workers, options.max_workers),
        (Some(1), Some(3))
    );
    assert_eq!(options.job_queue_size, None);
    assert!(warnings(text)[1].contains("minWorkers becomes 1: it must be at least 1, got 0"));
}

#[test]
fn values_below_one_are_not_changed_silently() {
    let said = warnings("responseTimeout: 0\njobQueueSize: -1\n");
    let expected = [
        "c.yaml:1: responseTimeout is ignored: it must be above 0, got 0",
        "c.yaml:2: jobQueueSize is ignored: it must be above 0, got -1",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_number_out_of_range_is_answered_with_the_range() {
    let long = "9".repeat(27);
    for (text, says) in [
        (
            "batchSize: 0",
            "batchSize must be a whole number from 1 to 65536, got 0",
        ),
        (
            "batchSize: -4",
            "batchSize must be a whole number from 1 to 65536, got -4",
        ),
        (
            &format!("minWorkers: {long}"),
            "minWorkers must be a whole number from 1 to 1024",
        ),
        (
            &format!("minWorkers: 1\nmaxWorkers: {long}{long}"),
            "maxWorkers must be a whole number from 1 to 1024",
        ),
        (
            &format!("jobQueueSize: {long}"),
            "jobQueueSize must be a whole number from 1 to 1000000",
        ),
        (
            &format!("lantern: {{intraOpThreads: {long}}}"),
            "lantern.intraOpThreads must be a whole number from 1 to 1024",
        ),
    ] {
        let refused = refused(text);
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn a_small_size_is_asked_for_its_unit() {
    let refused = refused("lantern: {limits: {memory: 256}}");
    assert_eq!(
        refused,
        "c.yaml:1: lantern.limits.memory must have a unit: 256 what? Write 256MiB, or 256B if bytes are meant, got 256"
    );
    let limits = parse("lantern: {limits: {output: 256B, memory: 1048576}}")
        .options
        .limits;
    assert_eq!((limits.output, limits.memory), (Some(256), Some(1 << 20)));
}

#[test]
fn truth_is_said_in_the_words_that_torchserve_reads() {
    for (word, value) in [
        ("yes", true),
        ("On", true),
        ("TRUE", true),
        ("no", false),
        ("OFF", false),
    ] {
        let text = format!(
            "useJobTicket: {word}\nhandler: {{profile: {word}}}\nlantern: {{freshInstances: {word}}}"
        );
        let config = parse(&text);
        assert_eq!(config.options.job_tickets, Some(value), "{word}");
        assert_eq!(config.options.fresh_instances, Some(value), "{word}");
        assert_eq!(config.is_profiled, value, "{word}");
        assert_eq!(config.warnings, [], "{word}");
    }
    assert!(refused("sequenceBatching: yes").contains("is not supported"));
    assert_eq!(parse("sequenceBatching: no").warnings, []);
}

#[test]
fn a_key_in_other_capitals_is_taken_unless_safety_hangs_on_it() {
    let text = "BatchSize: 4\nminworkers: 2\nMAXWORKERS: 3\nlantern: {OIP: handler}\n";
    let options = parse(text).options;
    assert_eq!(options.batch_size, Some(4));
    assert_eq!(
        (options.min_workers, options.max_workers),
        (Some(2), Some(3))
    );
    assert_eq!(options.tensors_to, Some(crate::model::TensorsTo::Handler));
    let said = warnings(text);
    assert_eq!(
        said[0],
        "c.yaml:1: BatchSize is taken for batchSize, which is how it is written"
    );
    assert_eq!(said.len(), 4, "{said:?}");
    let both = "batchSize: 4\nBatchSize: 5\n";
    assert_eq!(parse(both).options.batch_size, Some(4));
    assert!(warnings(both)[0].contains("BatchSize is ignored: batchSize is there too"));
    assert!(refused("SequenceBatching: true").contains("is not supported"));
    for text in [
        "lantern: {Hosting: inline}",
        "lantern: {limits: {Memory: 1GiB}}",
        "lantern: {FreshInstances: false}",
    ] {
        assert!(
            refused(text).contains("is not a known key; did you mean"),
            "{text}"
        );
    }
}

#[test]
fn words_on_which_little_hangs_are_warnings() {
    let text = "lantern: {oip: there, waitForFullBatches: perhaps}\n";
    let config = parse(text);
    assert_eq!(
        (
            config.options.tensors_to,
            config.options.wait_for_full_batches
        ),
        (None, None)
    );
    let said = warnings(text);
    assert_eq!(
        said[0],
        "c.yaml:1: lantern.oip is ignored: it must be model or handler, got \"there\""
    );
    assert_eq!(
        said[1],
        "c.yaml:1: lantern.waitForFullBatches is ignored: it must be true or false, got \"perhaps\""
    );
}

#[test]
fn what_is_no_setting_is_the_handlers() {
    let config = parse("useJobTicket: true\nvocabulary: {file: vocab.txt}\n");
    assert_eq!(config.options.job_tickets, Some(true));
    assert!(config.json.contains("vocab.txt"), "{}", config.json);
}

#[test]
fn a_response_may_have_what_the_server_allows() {
    let limit = |text: &str| {
        let none = Requested::default();
        let resolved = resolve(&parse(text), &none, &none, &defaults()).unwrap();
        (resolved.limits.response, resolved.warnings.len())
    };
    assert_eq!(limit(""), (1 << 20, 0));
    assert_eq!(limit("lantern: {limits: {response: 1KiB}}"), (1 << 10, 0));
    assert_eq!(limit("lantern: {limits: {response: 2MiB}}"), (1 << 20, 1));
}

#[test]
fn a_document_must_be_a_mapping() {
    assert_eq!(
        refused("- 1\n- 2\n"),
        "c.yaml: must be a mapping of keys to values, got \"a list of 2\""
    );
}

#[test]
fn batch_size_comes_from_api_then_archive_then_models() {
    let asked = |batch_size| Requested {
        batch_size,
        ..Requested::default()
    };
    let cases = [
        ("batchSize: 2", Some(3), Some(4), 3),
        ("batchSize: 2", None, Some(4), 2),
        ("", None, Some(4), 4),
        ("", None, None, 1),
    ];
    for (text, api, listed, expected) in cases {
        let settings = settings(text, &asked(api), &asked(listed));
        assert_eq!(settings.batch_size, expected, "{text} {api:?} {listed:?}");
    }
}

#[test]
fn timeouts_come_from_archive_then_models_then_api() {
    let asked = |seconds: Option<u64>| Requested {
        response_timeout: seconds.map(Duration::from_secs),
        ..Requested::default()
    };
    let cases = [
        ("responseTimeout: 3", Some(77), Some(5), 3_000),
        ("batchSize: 1", Some(77), Some(5), 5_000),
        ("", Some(77), None, 77_000),
        ("", None, None, 30_000),
        ("clientTimeoutInMills: 200", None, None, 200),
        ("clientTimeoutInMills: 200000", None, None, 30_000),
    ];
    for (text, api, listed, expected) in cases {
        let settings = settings(text, &asked(api), &asked(listed));
        assert_eq!(settings.answer_timeout().as_millis(), expected, "{text}");
    }
}

#[test]
fn workers_come_from_archive_then_api_then_models() {
    let asked = |min_workers| Requested {
        min_workers,
        ..Requested::default()
    };
    let cases = [
        ("minWorkers: 1\nmaxWorkers: 2", Some(5), Some(6), (1, 2)),
        ("minWorkers: 3\nmaxWorkers: 2", Some(5), Some(6), (5, 5)),
        ("", Some(0), Some(6), (0, 0)),
        ("", None, Some(6), (6, 6)),
        ("", None, None, (2, 2)),
    ];
    for (text, api, listed, expected) in cases {
        let settings = settings(text, &asked(api), &asked(listed));
        assert_eq!(
            (settings.min_workers, settings.max_workers),
            expected,
            "{text}"
        );
    }
}

#[test]
fn devices_follow_type_ids_and_what_there_is() {
    let devices = |text: &str, gpus| {
        let defaults = Defaults { gpus, ..defaults() };
        let none = Requested::default();
        resolve(&parse(text), &none, &none, &defaults)
            .unwrap()
            .settings
            .devices
    };
    let cuda = |ids: &[u32]| ids.iter().copied().map(Device::Cuda).collect::<Vec<_>>();
    assert_eq!(devices("deviceType: gpu", 0), [Device::Cpu]);
    assert_eq!(devices("deviceType: cpu", 4), [Device::Cpu]);
    assert_eq!(devices("", 2), cuda(&[0, 1]));
    assert_eq!(devices("deviceIds: [3, 1]", 4), cuda(&[3, 1]));
    assert_eq!(devices("deviceIds: [4]", 2), cuda(&[0, 1]));
}

#[test]
fn an_archive_comes_into_the_servers_process_only_where_that_is_allowed() {
    let hosting = |text: &str, default, allow_inline| {
        let defaults = Defaults {
            hosting: default,
            allow_inline,
            ..defaults()
        };
        let none = Requested::default();
        let resolved = resolve(&parse(text), &none, &none, &defaults).unwrap();
        (resolved.settings.hosting, resolved.warnings.len())
    };
    let (process, inline) = (Hosting::Process, Hosting::Inline);
    let asks = "lantern: {hosting: inline}";
    assert_eq!(hosting(asks, process, false), (process, 1));
    assert_eq!(hosting(asks, process, true), (inline, 0));
    assert_eq!(hosting(asks, inline, false), (inline, 0));
    assert_eq!(hosting("", process, true), (process, 0));
    assert_eq!(
        hosting("lantern: {hosting: process}", inline, true),
        (process, 0)
    );
}

#[test]
fn limits_stay_under_the_ceiling() {
    let resolve = |text: &str| {
        let none = Requested::default();
        resolve(&parse(text), &none, &none, &defaults()).map(|resolved| resolved.limits)
    };
    assert_eq!(resolve("").unwrap().memory, 128 << 20);
    assert_eq!(
        resolve("lantern: {limits: {memory: 200MiB}}")
            .unwrap()
            .memory,
        200 << 20
    );
    let message = resolve("lantern: {limits: {memory: 1GiB, cpu: 1s}}")
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "model configuration: lantern.limits.memory must be at most 268435456, which is what this server allows, got 1073741824\n\
         model configuration: lantern.limits.cpu must be at most 250ms, which is what this server allows, got 1s"
    );
}

#[test]
fn a_worker_process_has_what_the_archive_asks_up_to_the_ceiling() {
    let defaults = Defaults {
        ceilings: Limits {
            process_memory: 2 << 30,
            threads: 64,
            ..Limits::default()
        },
        ..defaults()
    };
    let limits = |text: &str| {
        let none = Requested::default();
        let resolved = resolve(&parse(text), &none, &none, &defaults);
        let limits = resolved.map(|resolved| resolved.limits);
        limits.map(|limits| (limits.process_memory, limits.threads))
    };
    for (text, expected) in [
        ("", (2 << 30, 64)),
        ("lantern: {limits: {processMemory: 1GiB}}", (1 << 30, 64)),
        ("lantern: {limits: {threads: 8}}", (2 << 30, 8)),
        (
            "lantern: {limits: {processMemory: 2GiB, threads: 64}}",
            (2 << 30, 64),
        ),
    ] {
        assert_eq!(limits(text), Ok(expected), "{text}");
    }
    let message = limits("lantern: {limits: {processMemory: 2147483649, threads: 65}}");
    assert_eq!(
        message.unwrap_err().to_string(),
        "model configuration: lantern.limits.processMemory must be at most 2147483648, which is what this server allows, \
         got 2147483649\n\
         model configuration: lantern.limits.threads must be at most 64, which is what this server allows, got 65"
    );
}

#[test]
fn declared_tensors_have_dtype_and_varying_axes() {
    let declared = parse(FULL).options.declared();
    assert_eq!(declared.inputs[0].dtype, Some(DType::F32));
    assert_eq!(declared.inputs[0].to_string(), "image: fp32[?, 1, 28, 28]");
}

/// A document that says `value` of `key`.
fn saying(key: &str, value: &str) -> String {
    let levels: Vec<_> = key.split('.').collect();
    let open = levels.join(": {");
    let close = "}".repeat(levels.len() - 1);
    format!("{open}: {value}{close}")
}

#[test]
fn every_default_is_what_its_text_says() {
    let defaults = Defaults {
        gpus: 1,
        ..defaults()
    };
    let none = Requested::default();
    let resolved = |text: &str| resolve(&parse(text), &none, &none, &defaults).unwrap();
    let is_literal = |key: &&Key| !key.default.is_empty() && !key.default.starts_with('(');
    for key in keys().filter(is_literal) {
        let text = saying(key.name, key.default);
        assert_eq!(resolved(&text), resolved(""), "{text}");
        assert!(parse(&text).warnings.is_empty(), "{text}");
    }
}

#[test]
fn a_dot_in_a_name_is_no_level() {
    let config = parse("lantern.hosting: inline\n");
    assert_eq!(config.options.hosting, None);
}
