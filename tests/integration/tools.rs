//! `lantern archive` and `lantern inspect`, run as programs.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{fixture, guest};

fn lantern(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A folder with an author's files, and the flags that pack them.
fn author() -> (TempDir, Vec<String>) {
    let directory = TempDir::new().unwrap();
    let settings = "batchSize: 4\nuseVenv: true\nlantern: {limits: {memory: 64MiB}}\n";
    std::fs::write(directory.path().join("model-config.yaml"), settings).unwrap();
    let flags = format!(
        "archive --model-name linear --version 1.0 --handler {} --serialized-file {} --config-file model-config.yaml",
        guest("linear").display(),
        fixture("linear.onnx").display()
    );
    (directory, flags.split(' ').map(str::to_owned).collect())
}

fn run(directory: &TempDir, flags: &[String], more: &[&str]) -> Output {
    let flags: Vec<_> = flags
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    lantern(directory.path(), &flags)
}

#[test]
fn an_archive_is_packed_and_inspected() {
    let (directory, flags) = author();
    let packed = run(&directory, &flags, &[]);
    assert!(stdout(&packed).starts_with("./linear.mar ("));
    assert_eq!(
        stderr(&packed),
        "warning: model-config.yaml:2: useVenv has no effect: no Python is run\n"
    );
    let text = stdout(&lantern(directory.path(), &["inspect", "linear.mar"]));
    for expected in [
        "linear 1.0\n",
        "world         handler",
        "memory        64.0 MiB",
        "inputs        x: fp32[?, 16]",
        "batching      on (samples gave the same alone and stacked)",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
}

#[test]
fn samples_come_with_the_archive_and_have_to_be_right() {
    let (directory, flags) = author();
    let write = |name, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "model-config.yaml",
        "batchSize: 4\nlantern: {samples: samples.json}\n",
    );
    let missing = run(&directory, &flags, &[]);
    assert!(!missing.status.success());
    let text = stderr(&missing);
    assert!(text.contains("no file \"samples.json\""), "{text}");
    let request = |value: u8| {
        let data = vec![value; 16];
        format!(r#"{{"x": {{"dtype": "fp32", "shape": [1, 16], "data": {data:?}}}}}"#)
    };
    for (values, expected) in [
        (vec![1, 2, 3], "batching      on (samples gave the same"),
        (
            vec![1, 2, 2],
            "2 requests that differ and stack with the first, 3 are needed",
        ),
    ] {
        let requests: Vec<_> = values.into_iter().map(request).collect();
        write("samples.json", &format!("[{}]", requests.join(",")));
        stdout(&run(
            &directory,
            &flags,
            &["--extra-files", "samples.json", "--force"],
        ));
        // It fails for what a server would refuse, and shows it all the same.
        let inspected = lantern(directory.path(), &["inspect", "linear.mar"]);
        let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
        assert!(inspected.contains(expected), "{inspected}");
    }
}

#[test]
fn inspect_speaks_json() {
    let (directory, flags) = author();
    stdout(&run(&directory, &flags, &["--archive-format", "tgz"]));
    let text = stdout(&lantern(
        directory.path(),
        &["inspect", "linear.tar.gz", "--json"],
    ));
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["servable"], true);
    assert_eq!(json["backend"], "onnx");
    assert_eq!(json["manifest"]["model"]["serializedFile"], "linear.onnx");
    assert_eq!(json["handler"]["component"]["world"], "handler");
    assert_eq!(json["model"]["source"], "model");
    assert_eq!(
        json["model"]["inputs"][0],
        serde_json::json!({"name": "x", "dtype": "fp32", "shape": [-1, 16], "arity": "one"})
    );
}

#[test]
fn what_cannot_be_served_is_not_packed() {
    let (directory, flags) = author();
    let forbidden = guest("forbidden").display().to_string();
    let at = flags.iter().position(|flag| flag == "--handler").unwrap() + 1;
    let mut others = flags;
    for (handler, reason) in [
        (
            forbidden.as_str(),
            "imports what handlers may not have: wasi:filesystem",
        ),
        ("image_classifier", "built into TorchServe"),
        ("handler.py", "must be a WebAssembly component"),
    ] {
        handler.clone_into(&mut others[at]);
        let refused = run(&directory, &others, &["--force"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(reason), "{}", stderr(&refused));
    }
}

#[test]
fn an_archive_that_cannot_be_served_is_shown_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let archive = fixture("archives/python_handler.mar").display().to_string();
    let shown = lantern(directory.path(), &["inspect", &archive]);
    assert_eq!(shown.status.code(), Some(1));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("custom.py") && text.contains("not servable: "),
        "{text}"
    );
}

#[test]
fn what_is_no_file_is_not_read_and_a_reader_may_leave() {
    let directory = TempDir::new().unwrap();
    let refused = lantern(directory.path(), &["inspect", "/dev/zero"]);
    assert_eq!(refused.status.code(), Some(1));
    let expected =
        "error: the archive must be a regular file or a directory, got a device, pipe or socket\n";
    assert_eq!(stderr(&refused), expected);

    let archive = fixture("archives/python_handler.mar");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let left = Command::new(env!("CARGO_BIN_EXE_lantern"))
        .arg("inspect")
        .arg(archive)
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(stderr(&left), "");
}

#[test]
fn arguments_that_do_not_parse_exit_with_2() {
    let directory = TempDir::new().unwrap();
    for arguments in [
        &["archive"][..],
        &["inspect"],
        &["frobnicate"],
        &["archive", "--archive-format", "rar"],
    ] {
        let output = lantern(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = stderr(&output);
        assert!(
            text.contains("error: ") && text.contains("--help"),
            "{text}"
        );
    }
}
