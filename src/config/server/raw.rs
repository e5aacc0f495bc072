//! What was typed, and where: variable over flag over file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Problem, Problems, spelling};
use super::environment::Environment;
use super::file;
use super::keys::{self, Role};

/// Flags of the command line that are settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--ts-config`.
    pub ts_config: Option<PathBuf>,
    /// `--model-store`.
    pub model_store: Option<PathBuf>,
    /// `--workflow-store`.
    pub workflow_store: Option<PathBuf>,
    /// `--models`.
    pub models: Vec<String>,
    /// `--enable-model-api`.
    pub enable_model_api: bool,
    /// `--disable-token-auth`.
    pub disable_token_auth: bool,
    /// `--no-config-snapshots`.
    pub no_config_snapshots: bool,
    /// `--log-config`.
    pub log_config: Option<PathBuf>,
    /// `--cpp-log-config`.
    pub cpp_log_config: Option<PathBuf>,
    /// `--plugins-path`.
    pub plugins_path: Option<PathBuf>,
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
    /// Values of the file before variables were put in, where that made a difference.
    pub written: BTreeMap<String, String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Keys that do nothing.
    pub warnings: Vec<Problem>,
    /// What was wrong already.
    pub problems: Vec<Problem>,
}

/// Gathers what was typed. Fails where the file cannot be read: then nothing else can be said.
pub fn gather(flags: &Flags, environment: &Environment) -> Result<Raw, Problems> {
    let mut raw = Raw::default();
    read_file(&mut raw, flags, environment)?;
    read_flags(&mut raw, flags);
    read_variables(&mut raw, environment);
    Ok(raw)
}

impl Raw {
    fn set(&mut self, name: &str, value: String, origin: String) {
        let key = keys::find(name);
        match key.map(|key| key.role) {
            Some(Role::Setting | Role::Secret | Role::Note) => {}
            Some(Role::Ignored(why)) => {
                // Whoever writes down what holds anyway misses nothing.
                let is_default =
                    key.is_some_and(|key| key.default.eq_ignore_ascii_case(value.trim()));
                if !is_default {
                    self.warnings.push(Problem::plain(&origin, name, why));
                }
            }
            None => {
                let known = keys::keys().map(|key| key.name);
                let rule = spelling::unknown(name, known);
                return self.warnings.push(Problem::plain(origin, name, rule));
            }
        }
        self.written.remove(name);
        self.entries
            .insert(name.to_owned(), Entry { value, origin });
    }

    /// A file of log4j's settings is not read, but one that is missing is a typing error.
    fn log_config(&mut self, path: &Path) {
        if path.is_file() {
            let rule = "has no effect: what is logged, and how, is said by --log and --log-format";
            self.warnings.push(Problem::plain("--log-config", "", rule));
        } else {
            let rule = format!("--log-config file not found: {}", path.display());
            self.problems.push(Problem::plain("", "", rule));
        }
    }

    fn is_true(&self, key: &str) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.value.trim().eq_ignore_ascii_case("true"))
    }
}

/// Takes what the file says, if there is one.
fn read_file(raw: &mut Raw, flags: &Flags, environment: &Environment) -> Result<(), Problems> {
    let Some(settings) = file::read(flags, environment)? else {
        return Ok(());
    };
    raw.warnings.extend(settings.warnings);
    for property in settings.properties {
        let origin = format!("{}:{}", settings.name, property.line);
        match substitute(&property.value, environment) {
            Ok(value) => {
                let written = (value != property.value).then_some(property.value);
                raw.set(&property.key, value, origin);
                raw.written
                    .extend(written.map(|written| (property.key, written)));
            }
            Err(variable) => {
                let rule = format!("has an Invalid Environment Variable {variable}: it is not set");
                let problem = Problem::plain(origin, &property.key, rule);
                raw.problems.push(problem);
            }
        }
    }
    raw.file = Some(settings.path);
    Ok(())
}

/// Replaces each `$$NAME$$` by the environment's NAME.
fn substitute(value: &str, environment: &Environment) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("$$") {
        let Some((name, remaining)) = after.split_once("$$") else {
            break;
        };
        result.push_str(before);
        result.push_str(environment.variable(name).ok_or_else(|| name.to_owned())?);
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
    let paths = [
        ("model_store", "--model-store", &flags.model_store),
        ("workflow_store", "--workflow-store", &flags.workflow_store),
        ("cpp_log_config", "--cpp-log-config", &flags.cpp_log_config),
        ("plugins_path", "--plugins-path", &flags.plugins_path),
    ];
    for (key, flag, path) in paths {
        if let Some(path) = path {
            raw.set(key, path.display().to_string(), flag.to_owned());
        }
    }
    if let Some(path) = &flags.log_config {
        raw.log_config(path);
    }
    if !flags.models.is_empty() {
        raw.set("load_models", flags.models.join(","), "--models".to_owned());
    }
    let switches = [
        (
            "enable_model_api",
            "--enable-model-api",
            flags.enable_model_api,
        ),
        (
            "disable_token_authorization",
            "--disable-token-auth",
            flags.disable_token_auth,
        ),
    ];
    for (key, flag, is_on) in switches {
        if is_on {
            raw.set(key, "true".to_owned(), flag.to_owned());
        }
    }
}

/// TorchServe's variables count only where the file asks for them; an empty one counts as well.
fn read_variables(raw: &mut Raw, environment: &Environment) {
    let asks = raw.is_true("enable_envvars_config");
    let asks_for_urls = asks && raw.is_true("use_env_allowed_urls");
    for key in keys::keys() {
        let Some((variable, is_always_read)) = key.environment_variable() else {
            continue;
        };
        let is_read = match key.name {
            "allowed_urls" => asks_for_urls,
            _ => asks || is_always_read,
        };
        if let Some(value) = environment.variable(&variable).filter(|_| is_read) {
            raw.set(key.name, value.to_owned(), variable);
        }
    }
}
