//! Snapshot files: their names, their text, and what is wrong with one. It writes nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Zoned;

use super::super::properties::{self, Property};
use super::{SavedVersion, parse, render};

/// A line in every snapshot file that is written here.
const OURS: &str = "#Saved by Lantern; the last line is #end\n";
/// The last line of such a file.
const END: &str = "#end\n";
/// Digits that a name starts with: a local time to the millisecond.
const STAMP: usize = 17;

/// Why a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The server is up.
    Startup,
    /// Something changed.
    Change,
    /// The server ends in good order.
    Shutdown,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Startup, Self::Change, Self::Shutdown];

    const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Change => "snapshot",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The stamp that stands for `now`.
pub fn stamp_of(now: &Zoned) -> u64 {
    let digits = format!("{}{:03}", now.strftime("%Y%m%d%H%M%S"), now.millisecond());
    digits.parse().unwrap_or(0)
}

/// The name of a file; names sort by their stamps.
pub fn file_name(stamp: u64, moment: Moment) -> String {
    format!("{stamp}-{}.cfg", moment.name())
}

/// The stamp of a snapshot's name, TorchServe's or ours; `None` if it is none.
pub fn stamp(name: &str) -> Option<u64> {
    let (stamp, rest) = name.split_at_checked(STAMP)?;
    let is_stamp = stamp.bytes().all(|byte| byte.is_ascii_digit());
    rest.strip_prefix('-')?.strip_suffix(".cfg")?;
    is_stamp.then(|| stamp.parse().ok())?
}

/// Whether a name is one that is given here.
pub fn is_ours(name: &str) -> bool {
    let is_named = |moment: &Moment| name[STAMP..] == format!("-{}.cfg", moment.name());
    stamp(name).is_some() && Moment::ALL.iter().any(is_named)
}

/// Names in `directory` that `is_meant` picks, the oldest first. Other files are somebody else's.
pub fn names(directory: &Path, is_meant: fn(&str) -> bool) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_meant(name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The text of the file `name`, written at `now`: settings of the server, versions, and the line that says it is whole.
pub fn text(
    name: &str,
    now: &Zoned,
    settings: &BTreeMap<String, String>,
    versions: &[SavedVersion],
) -> String {
    let date = now.strftime("%a %b %d %H:%M:%S %Z %Y");
    let mut text = format!("#Saving snapshot\n#{date}\n{OURS}");
    for (key, value) in settings {
        text.push_str(&properties::render(key, value));
    }
    let models = render(name, now.timestamp().as_millisecond(), versions);
    text.push_str(&properties::render("model_snapshot", &models));
    text.push_str(END);
    text
}

/// Why a file is not to be restored, if it is not: `settings` are what it says. Ours end in a line that says so;
/// TorchServe's just end. Both say which models there are.
pub fn damage(text: &str, settings: &[Property]) -> Option<String> {
    let value = |key: &str| {
        let mut found = settings.iter().rev();
        let found = found.find(|property| property.key == key);
        found.map(|property| property.value.as_str())
    };
    let is_ours = text.contains(OURS);
    if settings.is_empty() {
        return Some("is empty and is passed over".to_owned());
    }
    if text.contains('\0') {
        return Some("holds zero bytes and is passed over".to_owned());
    }
    if is_ours && !text.ends_with(&format!("\n{END}")) {
        return Some("is not whole and is passed over".to_owned());
    }
    if let Some(version) = value("version").filter(|version| is_ours && is_later(version)) {
        let own = env!("CARGO_PKG_VERSION");
        return Some(format!(
            "was saved by the later version {version} and is passed over: this is {own}"
        ));
    }
    let Some(models) = value("model_snapshot") else {
        return Some("is no snapshot and is passed over: it has no model_snapshot".to_owned());
    };
    let wrong = parse(models).err()?;
    Some(format!("is passed over: its model_snapshot {wrong}"))
}

/// Whether `version` may save what this version does not know: patches add no settings.
fn is_later(version: &str) -> bool {
    let track = |version: &str| -> Option<(u64, u64)> {
        let mut numbers = version.split(['.', '-', '+']).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    track(version) > track(env!("CARGO_PKG_VERSION"))
}
