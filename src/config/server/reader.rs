//! Taking single settings out of what was typed: every problem is kept, none stops the reading.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{Problem, human};
use super::raw::{Entry, Raw};

/// Reads settings and gathers problems.
#[derive(Debug)]
pub struct Reader {
    raw: Raw,
}

impl Reader {
    /// For what was typed.
    pub const fn new(raw: Raw) -> Self {
        Self { raw }
    }

    /// What was typed without what was taken, and with the problems that were found.
    pub fn finish(self) -> Raw {
        self.raw
    }

    /// The value of `key` and where it was typed.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        self.raw.entries.get(key).cloned()
    }

    /// The value of `key` breaks `rule`.
    pub fn problem(&mut self, key: &str, entry: &Entry, rule: impl Into<String>) {
        let problem = Problem::new(&entry.origin, key, rule, &entry.value);
        self.raw.problems.push(problem);
    }

    /// The value of `key` is wrong, and `message` says it all, the value included.
    pub fn message(&mut self, key: &str, entry: &Entry, message: String) {
        let problem = Problem::plain(&entry.origin, format!("{key}:"), message);
        self.raw.problems.push(problem);
    }

    /// One more problem.
    pub fn add(&mut self, problem: Problem) {
        self.raw.problems.push(problem);
    }

    /// The value of `key` is ignored.
    pub fn warn(&mut self, key: &str, entry: &Entry, rule: impl Into<String>) {
        let warning = Problem::plain(&entry.origin, key, rule);
        self.raw.warnings.push(warning);
    }

    /// A text that is not empty.
    pub fn text(&self, key: &str) -> Option<String> {
        let entry = self.entry(key)?;
        let text = entry.value.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A path.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A truth value. TorchServe takes every text but `true` as false; a typing error there switches off what it
    /// meant to switch on.
    pub fn truth(&mut self, key: &str, default: bool) -> bool {
        let read = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" | "" => Some(false),
            _ => None,
        };
        self.parsed(key, "must be true or false", read)
            .unwrap_or(default)
    }

    /// A whole number within `range`.
    pub fn number<T>(&mut self, key: &str, range: &RangeInclusive<T>) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let rule = format!(
            "must be a whole number from {} to {}",
            range.start(),
            range.end()
        );
        self.parsed(key, &rule, |text| {
            text.parse().ok().filter(|number| range.contains(number))
        })
    }

    /// Seconds above 0.
    pub fn seconds(&mut self, key: &str, default: u64) -> Duration {
        let seconds = self.number(key, &(1..=31_536_000)).unwrap_or(default);
        Duration::from_secs(seconds)
    }

    /// A size.
    pub fn size(&mut self, key: &str) -> Option<usize> {
        self.parsed(key, human::SIZE_RULE, |text| {
            human::size(text).filter(|size| *size > 0)
        })
    }

    /// A duration with its unit.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        self.parsed(key, human::DURATION_RULE, |text| {
            human::duration(text).filter(|time| !time.is_zero())
        })
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        let rule = format!("must be one of {}", names.join(", "));
        self.parsed(key, &rule, |text| {
            let found = words.iter().find(|(name, _)| *name == text);
            found.map(|(_, value)| *value)
        })
    }

    /// What `read` makes of the value, or a problem with `rule`.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        rule: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entry(key)?;
        let value = read(entry.value.trim());
        if value.is_none() {
            self.problem(key, &entry, rule);
        }
        value
    }
}
