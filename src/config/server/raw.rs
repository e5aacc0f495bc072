//! What was typed, and where: variable over flag over file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::properties::Property;
use super::super::{Problem, Problems, spelling};
use super::environment::Environment;
use super::file::{self, FoundBy, Settings};
use super::keys::{self, Key, Role, Weight};

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
    let withheld = read_file(&mut raw, flags, environment)?;
    read_flags(&mut raw, flags);
    read_variables(&mut raw, environment);
    tell_withheld(&mut raw, withheld);
    Ok(raw)
}

impl Raw {
    fn set(&mut self, name: &str, value: String, origin: String) {
        match keys::find(name) {
            Some(key) => self.set_key(key, value, origin),
            None => self.set_unknown(name, value, origin),
        }
    }

    fn set_key(&mut self, key: &'static Key, value: String, origin: String) {
        if let Role::Ignored(why) = key.role {
            // Whoever writes down what holds anyway misses nothing.
            if !key.default.eq_ignore_ascii_case(value.trim()) {
                self.warnings.push(Problem::plain(&origin, key.name, why));
            }
        }
        self.written.remove(key.name);
        let entry = Entry { value, origin };
        self.entries.insert(key.name.to_owned(), entry);
    }

    /// A known key in other capitals is taken, unless safety hangs on it: TorchServe does not know it then, and what it says
    /// must not begin to hold by a change of the server.
    fn set_unknown(&mut self, name: &str, value: String, origin: String) {
        match keys::find_in_other_capitals(name) {
            Some(key) if key.weight == Weight::Safety => {
                let rule = format!(
                    "must be written {}: a key on which safety hangs is not guessed",
                    key.name
                );
                self.problems.push(Problem::plain(origin, name, rule));
            }
            Some(key) => {
                let rule = format!("is taken for {}, which is how it is written", key.name);
                self.warnings.push(Problem::plain(&origin, name, rule));
                self.set_key(key, value, origin);
            }
            None => {
                let rule = spelling::unknown(name, keys::keys().map(|key| key.name));
                self.warnings.push(Problem::plain(origin, name, rule));
            }
        }
    }

    /// Takes what `settings` say, with the values of variables in place of their names.
    fn take(&mut self, settings: &Settings, environment: &Environment) {
        let is_known = |property: &&Property| keys::find(&property.key).is_some();
        let (known, others): (Vec<_>, Vec<_>) = settings.properties.iter().partition(is_known);
        // What is written as it should be counts over what is taken for it.
        for property in others.into_iter().chain(known) {
            let origin = format!("{}:{}", settings.name, property.line);
            match substitute(&property.value, environment) {
                Ok(value) => {
                    let written = (value != property.value).then(|| property.value.clone());
                    self.set(&property.key, value, origin);
                    let key = keys::find_in_other_capitals(&property.key);
                    let written = key.zip(written);
                    let written = written.map(|(key, written)| (key.name.to_owned(), written));
                    self.written.extend(written);
                }
                Err(variable) => {
                    let rule =
                        format!("has an Invalid Environment Variable {variable}: it is not set");
                    self.problems
                        .push(Problem::plain(origin, &property.key, rule));
                }
            }
        }
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

/// Takes what the file says, if there is one. Returns what a snapshot says and may not set.
fn read_file(
    raw: &mut Raw,
    flags: &Flags,
    environment: &Environment,
) -> Result<Vec<(String, Property)>, Problems> {
    let Some(mut settings) = file::read(flags, environment)? else {
        return Ok(Vec::new());
    };
    let is_known = |key: &str| keys::find_in_other_capitals(key).is_some();
    if let Some(problem) = settings.stranger(is_known) {
        return Err(problem.into());
    }
    raw.warnings.append(&mut settings.warnings);
    let mut withheld = Vec::new();
    if settings.found_by == FoundBy::Snapshot {
        withheld.extend(settings.properties.extract_if(.., opens));
    }
    raw.take(&settings, environment);
    if settings.found_by == FoundBy::Snapshot {
        read_beside(raw, environment);
    }
    raw.file = Some(settings.path);
    let origin = |property: &Property| format!("{}:{}", settings.name, property.line);
    Ok(withheld
        .into_iter()
        .map(|property| (origin(&property), property))
        .collect())
}

/// Whether a setting opens the server to somebody. Nobody may find it open because it once was: a flag of an earlier start
/// is in the snapshots as well.
fn opens(property: &mut Property) -> bool {
    keys::find(&property.key).is_some_and(|key| key.opens)
}

/// Whether the file in the current directory says it for a start from a snapshot as well: what safety hangs on, so that what
/// opens a server and what protects it come from one place, and secrets, which no snapshot holds.
fn holds_beside_a_snapshot(property: &Property) -> bool {
    let key = keys::find(&property.key);
    key.is_some_and(|key| key.weight == Weight::Safety || key.role == Role::Secret)
}

/// Takes, beside a snapshot, what safety hangs on from the file in the current directory. Its other settings are the snapshot's
/// to give.
fn read_beside(raw: &mut Raw, environment: &Environment) {
    match file::beside(environment) {
        Ok(Some(mut settings)) => {
            settings.properties.retain(holds_beside_a_snapshot);
            raw.take(&settings, environment);
        }
        Ok(None) => {}
        Err(problems) => raw.warnings.extend(problems.iter().cloned()),
    }
}

/// One line for each setting that opened the server when the snapshot was saved and does not now.
fn tell_withheld(raw: &mut Raw, withheld: Vec<(String, Property)>) {
    for (origin, Property { key, value, .. }) in withheld {
        let now = raw.entries.get(&key).map(|entry| &entry.value);
        let now = raw.written.get(&key).or(now).map_or("", |now| now.trim());
        let default = keys::find(&key).map_or("", |key| key.default);
        let value = value.trim();
        let opened = !value.eq_ignore_ascii_case(default);
        if !opened || now.eq_ignore_ascii_case(value) {
            continue;
        }
        let rule = "is not restored from the snapshot, because it opens the server: it holds if this start's \
                    config.properties, a flag or a variable says so";
        raw.warnings.push(Problem::new(origin, key, rule, value));
    }
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
