//! Keys, their file, and what they open.
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

fn config(directory: &Path) -> Config {
    Config {
        file: directory.join("key_file.json"),
        stand_in: None,
        expiration: Duration::from_hours(1),
        own: None,
    }
}

fn keys(directory: &Path) -> Value {
    let text = std::fs::read(directory.join("key_file.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn key(keys: &Value, scope: &str) -> Vec<u8> {
    keys[scope]["key"].as_str().unwrap().as_bytes().to_vec()
}

#[test]
fn the_file_is_torchserves_and_its_users_alone() {
    let directory = TempDir::new().unwrap();
    std::fs::write(
        directory.path().join("key_file.json"),
        "of an earlier server",
    )
    .unwrap();
    Tokens::create(config(directory.path())).unwrap();
    let path = directory.path().join("key_file.json");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut text = std::fs::read_to_string(&path).unwrap();
    let keys = keys(directory.path());
    for (scope, member, stand_in) in [
        ("management", "key", "KEY"),
        ("inference", "key", "KEY"),
        ("API", "key", "KEY"),
        ("management", "expiration time", "TIME"),
        ("inference", "expiration time", "TIME"),
    ] {
        let value = keys[scope][member].as_str().unwrap();
        assert_eq!(
            value.len(),
            if stand_in == "KEY" { 43 } else { 30 },
            "{value}"
        );
        text = text.replace(value, stand_in);
    }
    let expected = r#"{
  "management": {
    "key": "KEY",
    "expiration time": "TIME"
  },
  "inference": {
    "key": "KEY",
    "expiration time": "TIME"
  },
  "API": {
    "key": "KEY"
  }
}"#;
    assert_eq!(text, expected);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn each_key_opens_its_scope_alone() {
    let directory = TempDir::new().unwrap();
    let tokens = Tokens::create(config(directory.path())).unwrap();
    let keys = keys(directory.path());
    let scopes = [
        ("management", Scope::Management),
        ("inference", Scope::Inference),
        ("API", Scope::Api),
    ];
    for (name, of) in scopes {
        for (_, scope) in scopes {
            assert_eq!(
                tokens.opens(&key(&keys, name), scope),
                of == scope,
                "{name} {scope:?}"
            );
        }
    }
    let right = key(&keys, "inference");
    for wrong in [
        &right[..42],
        &[&right[..], b"x"].concat(),
        b"",
        &[b'x'; 600],
    ] {
        assert!(!tokens.opens(wrong, Scope::Inference));
    }
}

#[test]
fn a_new_key_ends_the_old_one_and_leaves_the_others() {
    let directory = TempDir::new().unwrap();
    let tokens = Tokens::create(config(directory.path())).unwrap();
    let before = keys(directory.path());
    assert!(tokens.rotate(Scope::Inference).unwrap());
    let after = keys(directory.path());
    assert!(!tokens.opens(&key(&before, "inference"), Scope::Inference));
    assert!(tokens.opens(&key(&after, "inference"), Scope::Inference));
    assert_eq!(before["management"], after["management"]);
    assert!(tokens.opens(&key(&before, "management"), Scope::Management));
    assert!(!tokens.rotate(Scope::Api).unwrap());
    assert_eq!(after, keys(directory.path()));
}

#[test]
fn keys_expire_but_for_the_one_that_makes_others() {
    let written = Written::create(SystemTime::UNIX_EPOCH + Duration::from_secs(10)).unwrap();
    let json: Value = serde_json::from_str(&written.json()).unwrap();
    assert_eq!(
        json["inference"]["expiration time"],
        "1970-01-01T00:00:10.000000000Z"
    );
    let table = written.table();
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let inference = key(&json, "inference");
    assert!(table.opens(&inference, Scope::Inference, at(9)));
    assert!(!table.opens(&inference, Scope::Inference, at(10)));
    assert!(table.opens(&key(&json, "API"), Scope::Api, at(1 << 40)));
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let directory = TempDir::new().unwrap();
    let cfg = config(&directory.path().join("missing"));
    let error = Tokens::create(cfg).unwrap_err().to_string();
    assert!(
        error.starts_with("Token Authorization setup unsuccessful: "),
        "{error}"
    );
    assert!(error.contains("missing/key_file.json"), "{error}");
}

#[test]
fn keys_are_where_they_can_be_written_and_renewed_there() {
    let directory = TempDir::new().unwrap();
    let cfg = |file: &str| Config {
        file: directory.path().join(file),
        stand_in: Some(directory.path().join("key_file.json")),
        ..config(directory.path())
    };
    let tokens = Tokens::create(cfg("missing/key_file.json")).unwrap();
    let first = keys(directory.path());
    assert!(tokens.opens(&key(&first, "inference"), Scope::Inference));
    assert!(tokens.rotate(Scope::Inference).unwrap());
    assert_ne!(keys(directory.path()), first);
    Tokens::create(cfg("here.json")).unwrap();
    assert!(directory.path().join("here.json").exists());
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let directory = TempDir::new().unwrap();
    let tokens = Tokens::create(config(directory.path())).unwrap();
    let printed = format!("{tokens:?}");
    let keys = keys(directory.path());
    for scope in ["management", "inference", "API"] {
        assert!(!printed.contains(keys[scope]["key"].as_str().unwrap()));
    }
}

fn own(directory: &TempDir, text: &str) -> Result<Tokens, TokenError> {
    let path = directory.path().join("own.json");
    std::fs::write(&path, text).unwrap();
    Tokens::create(Config {
        own: Some(path),
        ..config(directory.path())
    })
}

#[test]
fn the_operators_keys_are_taken_plain_or_as_digests_and_none_is_made() {
    let directory = TempDir::new().unwrap();
    // echo -n correct-horse | sha256sum
    let tokens = own(
        &directory,
        r#"{"keys": [
            {"key": "battery-staple", "opens": ["inference", "management"]},
            {"sha256": "9dca666eb54730714630d1519264a7bf1eeaad00b8f2edc90d3ecbfad928d163", "opens": ["inference"]},
            {"key": "long-gone", "opens": ["inference"], "expires": "2020-01-01T00:00:00Z"}
        ]}"#,
    )
    .unwrap();
    assert!(tokens.opens(b"battery-staple", Scope::Inference));
    assert!(tokens.opens(b"battery-staple", Scope::Management));
    assert!(!tokens.opens(b"battery-staple", Scope::Api));
    assert!(tokens.opens(b"correct-horse", Scope::Inference));
    assert!(!tokens.opens(b"correct-horse", Scope::Management));
    assert!(!tokens.opens(b"long-gone", Scope::Inference));
    assert!(!tokens.rotate(Scope::Inference).unwrap());
    assert!(!directory.path().join("key_file.json").exists());
}

#[test]
fn digests_are_those_of_sha256sum() {
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_eq!(
        key::KeyDigest::from_hex(hex),
        Some(key::KeyDigest::of(b"test"))
    );
    for wrong in ["", "9f", &"g".repeat(64), &"é".repeat(32), &"0".repeat(66)] {
        assert_eq!(key::KeyDigest::from_hex(wrong), None, "{wrong}");
    }
}

#[test]
fn a_changed_file_of_keys_is_taken_and_a_broken_one_is_not() {
    let directory = TempDir::new().unwrap();
    let text = |key: &str| format!(r#"{{"keys": [{{"key": "{key}", "opens": ["inference"]}}]}}"#);
    let tokens = own(&directory, &text("the-first")).unwrap();
    assert_eq!(tokens.refresh(), Ok(false));
    let write = |text: &str| std::fs::write(directory.path().join("own.json"), text).unwrap();
    write(&text("the-second-one"));
    assert_eq!(tokens.refresh(), Ok(true));
    assert!(!tokens.opens(b"the-first", Scope::Inference));
    assert!(tokens.opens(b"the-second-one", Scope::Inference));
    write("{");
    assert!(tokens.refresh().is_err());
    assert!(tokens.opens(b"the-second-one", Scope::Inference));
}

#[test]
fn wrong_files_of_keys_are_refused_without_showing_a_key() {
    for (text, expected) in [
        ("", "line 1"),
        (r#"{"keys": "SECRET"}"#, "line 1"),
        (
            r#"{"keys": [{"key": "SECRET-1", "opens": ["SECRET"]}]}"#,
            "line 1",
        ),
        (
            r#"{"keys": [{"key": "SECRET-1", "opens": []}]}"#,
            "keys[0] must open something",
        ),
        (
            r#"{"keys": [{"key": "SECRET", "opens": ["inference"]}]}"#,
            "keys[0] must have a key of 8",
        ),
        (
            r#"{"keys": [{"key": "SECRET 12", "opens": ["inference"]}]}"#,
            "keys[0] must have a key of 8",
        ),
        (
            r#"{"keys": [{"sha256": "SECRET", "opens": ["inference"]}]}"#,
            "keys[0] must have a sha256",
        ),
        (
            r#"{"keys": [{"opens": ["inference"]}]}"#,
            "keys[0] must have one of",
        ),
        (r#"{"keys": [], "more": "SECRET"}"#, "line 1"),
    ] {
        let directory = TempDir::new().unwrap();
        let error = own(&directory, text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
