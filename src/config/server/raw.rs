//! What was typed, and where: variable over flag over file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{Problem, Problems, nearest, properties};
use super::keys::{self, Standing};
use super::places::Surroundings;

/// Largest file of settings that is read.
const FILE_LIMIT: u64 = 1 << 20;
/// The file in the current directory that is read when no other is named.
const DEFAULT_FILE: &str = "config.properties";

/// Flags of the command line that are settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--ts-config`.
    pub ts_config: Option<PathBuf>,
    /// `--model-store`.
    pub model_store: Option<PathBuf>,
    /// `--models`.
    pub models: Vec<String>,
    /// `--enable-model-api`.
    pub enable_model_api: bool,
    /// `--disable-token-auth`.
    pub disable_token_auth: bool,
    /// `--set KEY=VALUE`.
    pub set: Vec<String>,
}

/// One value and where it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: String,
    /// File and line, variable or flag.
    pub origin: String,
}

/// Everything that was typed, by key.
#[derive(Debug, Default)]
pub struct Raw {
    /// The value that counts for each key.
    pub entries: BTreeMap<String, Entry>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Keys that do nothing.
    pub warnings: Vec<Problem>,
    /// What was wrong already.
    pub problems: Vec<Problem>,
}

/// Gathers what was typed. Fails where the file cannot be read: then nothing else can be said.
pub fn gather(flags: &Flags, surroundings: &Surroundings) -> Result<Raw, Problems> {
    let mut raw = Raw::default();
    read_file(&mut raw, flags, surroundings)?;
    read_flags(&mut raw, flags);
    read_variables(&mut raw, surroundings);
    Ok(raw)
}

impl Raw {
    fn set(&mut self, key: &str, value: String, origin: String) {
        match keys::standing(key) {
            Some(Standing::Used) => {}
            Some(Standing::Ignored(why)) => {
                return self.warnings.push(Problem::plain(origin, key, why));
            }
            None => {
                let known = keys::KEYS.iter().map(|(key, _)| *key);
                let rule = nearest::unknown(key, known);
                return self.warnings.push(Problem::plain(origin, key, rule));
            }
        }
        self.entries.insert(key.to_owned(), Entry { value, origin });
    }
}

/// The file named by the environment, else by a flag, else the one in the current directory if it is there.
fn read_file(raw: &mut Raw, flags: &Flags, surroundings: &Surroundings) -> Result<(), Problems> {
    let named = surroundings.variable("TS_CONFIG_FILE").map(PathBuf::from);
    let (path, origin) = match (named, &flags.ts_config) {
        (Some(path), _) => (path, "TS_CONFIG_FILE"),
        (None, Some(path)) => (path.clone(), "--ts-config"),
        (None, None) => {
            let path = surroundings.current_directory.join(DEFAULT_FILE);
            if !path.is_file() {
                return Ok(());
            }
            (path, DEFAULT_FILE)
        }
    };
    let unreadable = |why: &str| Problem::new(origin, "", why, path.display().to_string());
    let size = std::fs::metadata(&path)
        .map_err(|_| unreadable("file not found"))?
        .len();
    if size > FILE_LIMIT {
        return Err(unreadable("must name a file of at most 1 MiB").into());
    }
    let bytes =
        std::fs::read(&path).map_err(|_| unreadable("must name a file that can be read"))?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let properties = properties::parse(&bytes).map_err(|malformed| {
        Problem::plain(
            format!("{name}:{}", malformed.line),
            "",
            "has a broken \\u escape",
        )
    })?;
    for property in properties {
        let origin = format!("{name}:{}", property.line);
        match substitute(&property.value, surroundings) {
            Ok(value) => raw.set(&property.key, value, origin),
            Err(variable) => {
                let rule = "names an environment variable that is not set";
                raw.problems
                    .push(Problem::new(origin, &property.key, rule, variable));
            }
        }
    }
    raw.file = Some(path);
    Ok(())
}

/// Replaces each `$$NAME$$` by the environment's NAME.
fn substitute(value: &str, surroundings: &Surroundings) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("$$") {
        let Some((name, remaining)) = after.split_once("$$") else {
            break;
        };
        result.push_str(before);
        result.push_str(surroundings.variable(name).ok_or_else(|| name.to_owned())?);
        rest = remaining;
    }
    result.push_str(rest);
    Ok(result)
}

fn read_flags(raw: &mut Raw, flags: &Flags) {
    for setting in &flags.set {
        match setting.split_once('=') {
            Some((key, value)) => raw.set(
                key.trim(),
                value.to_owned(),
                format!("--set {}", key.trim()),
            ),
            None => raw
                .problems
                .push(Problem::new("--set", "", "must be KEY=VALUE", setting)),
        }
    }
    if let Some(path) = &flags.model_store {
        raw.set(
            "model_store",
            path.display().to_string(),
            "--model-store".to_owned(),
        );
    }
    if !flags.models.is_empty() {
        raw.set("load_models", flags.models.join(","), "--models".to_owned());
    }
    if flags.enable_model_api {
        raw.set(
            "enable_model_api",
            "true".to_owned(),
            "--enable-model-api".to_owned(),
        );
    }
    if flags.disable_token_auth {
        raw.set(
            "disable_token_authorization",
            "true".to_owned(),
            "--disable-token-auth".to_owned(),
        );
    }
}

/// Variables count only where the file asks for them, as in TorchServe.
fn read_variables(raw: &mut Raw, surroundings: &Surroundings) {
    let asked = raw.entries.get("enable_envvars_config");
    if asked.is_none_or(|entry| !entry.value.trim().eq_ignore_ascii_case("true")) {
        return;
    }
    for (key, _) in keys::KEYS {
        let Some(variable) = keys::variable(key) else {
            continue;
        };
        if let Some(value) = surroundings.variable(&variable) {
            raw.set(key, value.to_owned(), variable);
        }
    }
}
