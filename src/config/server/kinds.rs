//! The kinds of values that settings have.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::listen::Address;
use crate::metrics::Mode;
use crate::model::{Envelope, HandlerHeaders};
use crate::sandbox::Demands;

use super::super::snapshot::{self, Saved};
use super::super::{Problem, units};
use super::address::{self, DefaultPorts};
use super::environment::Environment;
use super::reader::SettingKind;

/// Longer than anybody keeps a connection, and short enough to be added to any time.
const LONGEST_MS: u64 = 10 * 365 * 24 * 3_600_000;
const LONGEST_MINUTES: f64 = 10.0 * 365.0 * 24.0 * 60.0;

/// A whole number from `least` to `most`.
pub fn number<T>(least: T, most: T) -> SettingKind<T>
where
    T: FromStr + PartialOrd + Display + Copy + 'static,
{
    let shape = format!("a whole number from {least} to {most}");
    SettingKind::parsed(shape, move |text| {
        let number = text.parse().ok();
        number.filter(|number| (least..=most).contains(number))
    })
}

/// A number of which 0 means that there is none.
pub fn number_or_zero(most: usize) -> SettingKind<Option<usize>> {
    number(0, most).map(|number| (number > 0).then_some(number))
}

/// Nothing unless it is typed.
pub fn optional<T: 'static>(kind: SettingKind<T>) -> SettingKind<Option<T>> {
    kind.map(Some).or(|_| None)
}

/// Whole seconds.
pub fn seconds() -> SettingKind<Duration> {
    number(1, 31_536_000).map(Duration::from_secs)
}

/// Whole seconds, or none.
pub fn seconds_or_none() -> SettingKind<Duration> {
    number(0, 31_536_000).map(Duration::from_secs)
}

/// Whole milliseconds.
pub fn milliseconds() -> SettingKind<Duration> {
    number(1, LONGEST_MS).map(Duration::from_millis)
}

/// Minutes, with a fraction.
pub fn minutes() -> SettingKind<Duration> {
    let shape = "a number of minutes above 0, such as 60 or 0.25";
    SettingKind::parsed(shape, |text| {
        let minutes: f64 = text.parse().ok()?;
        let is_usable = minutes > 0.0 && minutes <= LONGEST_MINUTES;
        is_usable.then(|| Duration::from_secs_f64(minutes * 60.0))
    })
}

/// The mode of a file, which its user at least may read and write.
pub fn socket_mode() -> SettingKind<u32> {
    SettingKind::parsed("a mode in octal from 0600 to 0777, such as 0660", |text| {
        let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
        mode.filter(|mode| (0o600..=0o777).contains(mode))
    })
}

/// A duration with its unit.
pub fn duration() -> SettingKind<Duration> {
    SettingKind::parsed(units::DURATION, |text| {
        units::duration(text).filter(|time| !time.is_zero())
    })
}

/// How much walls are wanted.
pub fn demands() -> SettingKind<Demands> {
    let shape =
        "require, prefer or off, then WALL=require, WALL=prefer or WALL=off for single walls";
    SettingKind::parsed(shape, |text| text.parse().ok())
}

/// A size in bytes.
pub fn size() -> SettingKind<usize> {
    size_of_at_least(1)
}

/// A size that may be 0, which means nothing at all.
pub fn size_or_none() -> SettingKind<usize> {
    size_of_at_least(0)
}

fn size_of_at_least(least: usize) -> SettingKind<usize> {
    SettingKind::new(units::SIZE, move |reader, entry| {
        let text = entry.value.trim();
        let size = units::size(text).filter(|size| *size >= least);
        match units::question(text) {
            Some(question) => reader.problem(entry, question),
            None if size.is_none() => reader.problem(entry, format!("must be {}", units::SIZE)),
            None => return size,
        }
        None
    })
}

/// A size as it is shown, in the largest unit that has no fraction.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "kinds show values of any type"
)]
pub fn shown_size(bytes: &usize) -> String {
    units::whole_size(*bytes)
}

/// A truth value. TorchServe takes every text but `true` as false; a typing error there switches off what it
/// meant to switch on.
pub fn truth() -> SettingKind<bool> {
    SettingKind::parsed("true or false", |text| {
        match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" | "" => Some(false),
            _ => None,
        }
    })
}

/// A truth value of TorchServe's that is false, as there, if it is neither true nor false.
pub fn switch() -> SettingKind<bool> {
    truth().falling_back("false", || false)
}

/// TorchServe's variable switches it on by the word `oip` alone; whoever sets it to something else wants it off.
pub fn open_inference_protocol() -> SettingKind<bool> {
    let kind = SettingKind::parsed("oip, true or false", |text| {
        match text.to_ascii_lowercase().as_str() {
            "true" | "oip" => Some(true),
            "false" | "" => Some(false),
            _ => None,
        }
    });
    kind.falling_back("false", || false)
}

/// One of a few words.
pub fn word<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> SettingKind<T> {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    SettingKind::parsed(format!("one of {}", names.join(", ")), move |text| {
        let found = words.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value)
    })
}

/// The name of an envelope.
pub fn envelope() -> SettingKind<Envelope> {
    let shape = format!("one of {}", Envelope::choices());
    SettingKind::parsed(shape, |text| Envelope::named(text.trim()))
}

/// As TorchServe reads it: whatever the case, and `log` if it is none.
pub fn metrics_mode() -> SettingKind<Mode> {
    SettingKind::new("one of log, prometheus, legacy", |reader, entry| {
        let mode = match entry.value.trim().to_ascii_lowercase().as_str() {
            "prometheus" => Mode::Prometheus,
            "legacy" => Mode::Legacy,
            "log" => Mode::Log,
            other => {
                let rule = format!("is none of log, prometheus, legacy; {other:?} means log");
                reader.warn(entry, rule);
                Mode::Log
            }
        };
        Some(mode)
    })
}

/// A text; none if it is empty.
pub fn text() -> SettingKind<Option<String>> {
    SettingKind::parsed("a text", |text| {
        Some((!text.is_empty()).then(|| text.to_owned()))
    })
}

/// Names, separated by commas, in lower case.
pub fn names() -> SettingKind<BTreeSet<String>> {
    SettingKind::parsed("names separated by commas", |text| {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        Some(names.map(str::to_ascii_lowercase).collect())
    })
}

/// Headers that act on more than the response that they are in.
pub fn handler_headers() -> SettingKind<HandlerHeaders> {
    let shape = "headers that act on more than a response, such as set-cookie or access-control-allow-origin, separated by commas";
    SettingKind::parsed(shape, HandlerHeaders::parse)
}

/// Starts of URLs and patterns, as they were typed. Whoever fetches from them reads them again.
pub fn urls() -> SettingKind<String> {
    SettingKind::parsed("starts of URLs, or patterns, separated by commas", |text| {
        Some(text.to_owned())
    })
}

/// An address to listen on, with the ports where none is written.
pub fn address(http: u16, https: u16) -> SettingKind<Address> {
    let ports = DefaultPorts { http, https };
    let kind = SettingKind::new(address::SHAPE, move |reader, entry| {
        let address = address::parse(&entry.value, ports);
        address
            .map_err(|message| reader.message(entry, message))
            .ok()
    });
    kind.shown(ToString::to_string)
}

/// The host of an address.
pub fn host() -> SettingKind<IpAddr> {
    SettingKind::new(address::HOST_SHAPE, |reader, entry| {
        let host = address::parse_host(&entry.value);
        host.map_err(|message| reader.message(entry, message)).ok()
    })
}

/// A path, taken from the current directory, or from where the file of settings lies.
pub fn path() -> SettingKind<Option<PathBuf>> {
    SettingKind::new("a path", |reader, entry| {
        let text = entry.value.trim();
        Some((!text.is_empty()).then(|| reader.located(entry, Path::exists)))
    })
}

/// A path, or what is found where none is typed.
pub fn path_or(found: fn(&Environment) -> PathBuf) -> SettingKind<PathBuf> {
    let kind = SettingKind::new("a path", move |reader, entry| {
        let text = entry.value.trim();
        let typed = (!text.is_empty()).then(|| reader.environment.path(text));
        Some(typed.unwrap_or_else(|| found(reader.environment)))
    });
    kind.or(found).shown(|path| path.display().to_string())
}

/// A file that must be there.
pub fn file() -> SettingKind<Option<PathBuf>> {
    file_or(|_| None)
}

/// A file that must be there, or what is found where none is typed.
pub fn found_file(found: fn(&Environment) -> Option<PathBuf>) -> SettingKind<Option<PathBuf>> {
    file_or(found).shown(|path| shown(path.as_deref()))
}

/// A file that TLS needs. Whether it is there matters where TLS is spoken, which other settings say.
pub fn tls_file() -> SettingKind<Option<PathBuf>> {
    let kind = SettingKind::new("a file for TLS", |reader, entry| {
        let is_named = !entry.value.trim().is_empty();
        Some(is_named.then(|| reader.located(entry, Path::is_file)))
    });
    kind.or(|_| None)
}

fn file_or(found: fn(&Environment) -> Option<PathBuf>) -> SettingKind<Option<PathBuf>> {
    let kind = SettingKind::new("a file", move |reader, entry| {
        let text = entry.value.trim();
        if text.is_empty() {
            return Some(found(reader.environment));
        }
        let path = reader.located(entry, Path::is_file);
        if !path.is_file() {
            reader.problem(entry, "must be a file");
        }
        Some(Some(path))
    });
    kind.or(found)
}

/// A directory of archives. One that is missing is a mistake when a flag names it; one named by the file may come later.
pub fn store() -> SettingKind<Option<PathBuf>> {
    let kind = SettingKind::new("a directory", |reader, entry| {
        if entry.value.trim().is_empty() {
            return Some(None);
        }
        let path = reader.located(entry, Path::is_dir);
        if !path.is_dir() && entry.origin.starts_with("--") {
            let message = format!("{} directory not found: {}", entry.origin, entry.value);
            reader.add(Problem::plain("", "", message));
        } else if !path.is_dir() {
            reader.warn(entry, "names a directory that does not exist");
        }
        Some(Some(path))
    });
    kind.or(|_| None).shown(|path| shown(path.as_deref()))
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// What a snapshot says of models.
pub fn saved_models() -> SettingKind<Option<Saved>> {
    SettingKind::new("JSON as snapshots have it", |reader, entry| {
        let text = entry.value.trim();
        if text.is_empty() {
            return Some(None);
        }
        match snapshot::parse(text) {
            Ok(saved) => {
                for problem in &saved.problems {
                    reader.warn(entry, problem);
                }
                Some(Some(saved))
            }
            Err(rule) => {
                reader.plain(entry, rule);
                None
            }
        }
    })
}
