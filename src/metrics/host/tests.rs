//! The machine's figures, from the system and from a command.

use super::*;
use crate::metrics::{Config, Format};

fn system(command: &[&str]) -> System {
    System {
        interval: Duration::from_secs(5),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        environment: Vec::new(),
    }
}

fn sample(metrics: &Metrics, name: &str) -> Option<f64> {
    let text = metrics.scrape(Format::TorchServe, &[name.to_owned()]);
    text.lines().last()?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_machine_has_memory_a_disk_and_a_processor() {
    let metrics = Metrics::default();
    Machine::new().measure(&metrics.0);
    for name in [
        "MemoryUsed",
        "MemoryAvailable",
        "DiskUsage",
        "DiskAvailable",
    ] {
        assert!(sample(&metrics, name).unwrap() > 0.0, "{name}");
    }
    for name in ["CPUUtilization", "MemoryUtilization", "DiskUtilization"] {
        let percent = sample(&metrics, name).unwrap();
        assert!((0.0..=100.0).contains(&percent), "{name} {percent}");
    }
}

#[test]
fn what_is_not_listed_is_not_measured() {
    let mut cfg = Config::default();
    cfg.listing.ts.retain(|listed| listed.name != "MemoryUsed");
    let metrics = Metrics::new(&cfg);
    Machine::new().measure(&metrics.0);
    assert_eq!(sample(&metrics, "MemoryUsed"), None);
    assert!(sample(&metrics, "MemoryAvailable").is_some());
}

#[tokio::test]
async fn a_command_measures_instead() {
    let metrics = Metrics::default();
    let line = "CPUUtilization.Percent:12.5|#Level:Host|#hostname:vm,1795188336";
    let gpu = "GPUUtilization.Percent:7|#Level:Host,device_id:0|#hostname:vm,1795188336";
    let print = format!("{line}\\n{gpu}\\nnonsense\\n");
    metrics
        .collector(system(&["/usr/bin/printf", &print]))
        .run_command()
        .await;
    assert_eq!(sample(&metrics, "CPUUtilization"), Some(12.5));
    let text = metrics.scrape(Format::TorchServe, &["GPUUtilization".to_owned()]);
    assert!(
        text.contains("GPUUtilization{Level=\"Host\",DeviceId=\"0\",Hostname=\"vm\",} 7.0"),
        "{text}"
    );
    assert_eq!(sample(&metrics, "MemoryUsed"), None);
}

#[tokio::test]
async fn commands_that_fail_hang_or_are_missing_are_errors() {
    let error = |command: &[&str]| {
        let system = system(command);
        async move { command::run(&system).await.unwrap_err().to_string() }
    };
    assert!(error(&["/nowhere/measure"]).await.starts_with("cannot run"));
    assert!(error(&["/bin/false"]).await.contains("failed"));
    assert_eq!(error(&[]).await, "names no program");
    let hangs = System {
        interval: Duration::from_millis(20),
        ..system(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"])
    };
    let error = command::run(&hangs).await.unwrap_err().to_string();
    assert!(error.contains("took longer than 20ms"), "{error}");
}

#[tokio::test]
async fn a_command_sees_the_environment_it_is_given_and_is_read_only_so_far() {
    let given = System {
        environment: vec![("GIVEN".into(), "yes".into())],
        ..system(&["/usr/bin/env"])
    };
    assert_eq!(command::run(&given).await.unwrap(), "GIVEN=yes\n");
    let endless = system(&[
        "/bin/sh",
        "-c",
        "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaa; done",
    ]);
    // The pipe breaks once nobody reads it any more.
    assert!(command::run(&endless).await.is_err());
}
