//! The server and its processes report to nobody: they open no socket but the listeners, and write no file but their own.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{Model, Place};

/// What the file descriptors of a process refer to.
fn handles(pid: u64) -> Vec<String> {
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// Lines of the kernel's tables of sockets that belong to the process and reach beyond the machine: all but listening TCP.
fn conversations(pid: u64) -> Vec<String> {
    let handles = handles(pid);
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/{pid}/net/{table}"));
    let tables = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok());
    let is_own = |line: &String| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let is_listening = columns[3] == "0A";
        let is_local = columns[2].starts_with("0100007F:");
        !is_listening && !is_local && handles.contains(&format!("socket:[{}]", columns[9]))
    };
    let lines = tables.flat_map(|table| {
        let lines: Vec<_> = table.lines().skip(1).map(str::to_owned).collect();
        lines
    });
    lines.filter(is_own).collect()
}

/// Every file and directory below.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let paths = entries.map(|entry| entry.path());
    let each = paths.flat_map(|path| {
        let is_directory = path.is_dir() && !path.is_symlink();
        let inside = if is_directory {
            below(&path)
        } else {
            Vec::new()
        };
        [path].into_iter().chain(inside)
    });
    each.collect()
}

#[tokio::test]
async fn onnx_runtime_reports_to_nobody() {
    let place = Place::new(&[
        Model::linear().named("here"),
        Model::linear().named("apart").in_process(),
    ]);
    let home = place.directory.path().join("home");
    fs::create_dir(&home).unwrap();
    // The environment of the server cannot switch telemetry on again. Walls would keep it from what it must not even try.
    let place = place
        .variable("HOME", home.to_str().unwrap())
        .variable("ORT_DISABLE_TELEMETRY", "0")
        .variable("LANTERN_SANDBOX", "off");
    let mut life = place.start(&["--models", "all"]).await;
    if !life.output.contains("2 of 2 models loaded") {
        life.read_until("2 of 2 models loaded").await;
    }
    let mut processes = Vec::new();
    for name in ["here", "apart"] {
        let (_, described) = life.ask("GET", &format!("/models/{name}")).await;
        let worker = &described[0]["workers"][0];
        assert_eq!(worker["status"], "READY", "{described}");
        processes.push(worker["pid"].as_u64().unwrap());
    }
    assert_ne!(processes[0], processes[1]);
    for pid in &processes {
        let handles = handles(*pid);
        let is_foreign = |handle: &&String| handle.contains("onnxruntime");
        assert_eq!(handles.iter().find(is_foreign), None, "{handles:?}");
        assert_eq!(conversations(*pid), Vec::<String>::new());
    }
    let apart = fs::read_link(format!("/proc/{}/cwd", processes[1])).unwrap();
    assert_ne!(apart, place.directory.path());
    assert!(!apart.join("key_file.json").exists());
    assert_eq!(below(&apart), Vec::<PathBuf>::new());
    life.end(Signal::TERM).await;
    assert_eq!(below(&home), Vec::<PathBuf>::new());
    let strange = below(place.directory.path()).into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name == "Microsoft" || name == ".ses" || name.contains("onnxruntime")
    });
    assert_eq!(strange, None);
}
