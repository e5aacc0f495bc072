//! Reading single settings out of what was typed: every problem is kept, none stops the reading.

use std::path::{Path, PathBuf};

use super::super::Problem;
use super::CheckUrls;
use super::environment::Environment;
use super::keys::{Key, Weight};
use super::raw::{Entry, Raw};

/// Reads settings and gathers problems.
pub struct Reader<'a> {
    raw: Raw,
    /// The key that is being read.
    key: &'static str,
    /// Where relative paths start, and what is found where nothing is typed.
    pub environment: &'a Environment,
    /// Checks the value of `allowed_urls`.
    pub check_urls: CheckUrls,
}

type Absent<T> = Box<dyn Fn(&Environment) -> T>;
type Read<T> = Box<dyn Fn(&mut Reader<'_>, &Entry) -> Option<T>>;

/// A value, in words and as it is made.
type Fallback<T> = (&'static str, fn() -> T);

/// What the values of a key look like, and how they are read.
pub struct SettingKind<T> {
    shape: String,
    /// Reads what was typed; `None` if that is a problem.
    read: Read<T>,
    /// The value where nothing is typed and the default is not a value that could be typed.
    absent: Option<Absent<T>>,
    /// What holds in place of a wrong value that does not stop the start, in words too; the default if there is nothing.
    fallback: Option<Fallback<T>>,
    /// The value as it is shown, where that says more than what was typed.
    show: Option<fn(&T) -> String>,
}

impl<T: 'static> SettingKind<T> {
    /// A kind that `read` reads. It reports what is wrong.
    pub fn new(
        shape: impl Into<String>,
        read: impl Fn(&mut Reader<'_>, &Entry) -> Option<T> + 'static,
    ) -> Self {
        Self {
            shape: shape.into(),
            read: Box::new(read),
            absent: None,
            fallback: None,
            show: None,
        }
    }

    /// A kind whose texts `parse` understands; others break the rule that they must be `shape`.
    pub fn parsed(shape: impl Into<String>, parse: impl Fn(&str) -> Option<T> + 'static) -> Self {
        let shape = shape.into();
        let rule = format!("must be {shape}");
        Self::new(shape, move |reader, entry| {
            let value = parse(entry.value.trim());
            if value.is_none() {
                reader.problem(entry, rule.clone());
            }
            value
        })
    }

    /// The same, with `absent` where nothing is typed.
    pub fn or(self, absent: impl Fn(&Environment) -> T + 'static) -> Self {
        Self {
            absent: Some(Box::new(absent)),
            ..self
        }
    }

    /// The same, with `value`, which is called `name`, in place of a wrong value that does not stop the start.
    pub fn falling_back(self, name: &'static str, value: fn() -> T) -> Self {
        Self {
            fallback: Some((name, value)),
            ..self
        }
    }

    /// The same, shown by `show`.
    pub fn shown(self, show: fn(&T) -> String) -> Self {
        Self {
            show: Some(show),
            ..self
        }
    }

    /// The same, with `change` made to each value.
    pub fn map<U: 'static>(self, change: impl Fn(T) -> U + 'static) -> SettingKind<U> {
        let read = self.read;
        SettingKind::new(self.shape, move |reader, entry| {
            read(reader, entry).map(&change)
        })
    }

    /// What a value must be, as it is said after "must be".
    pub fn shape(self) -> String {
        self.shape
    }

    /// `value` as it is shown; `None` where what was typed says it all.
    pub fn show(&self, value: &T) -> Option<String> {
        self.show.map(|show| show(value))
    }
}

/// Whether `file` says what `entry` is.
fn names(file: &Path, entry: &Entry) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let line = entry.origin.strip_prefix(&*name);
    line.is_some_and(|line| line.starts_with(':'))
}

impl<'a> Reader<'a> {
    /// For what was typed.
    pub const fn new(raw: Raw, environment: &'a Environment, check_urls: CheckUrls) -> Self {
        Self {
            raw,
            key: "",
            environment,
            check_urls,
        }
    }

    /// What was typed, with the problems that were found.
    pub fn finish(self) -> Raw {
        self.raw
    }

    /// The value of `key`: what was typed, else its default.
    pub fn take<T: 'static>(&mut self, key: &Key, kind: &SettingKind<T>) -> T {
        self.key = key.name;
        let Some(entry) = self.entry(key.name) else {
            return self.default(key, kind);
        };
        let before = self.raw.problems.len();
        match (kind.read)(self, &entry) {
            Some(value) => value,
            None if key.weight == Weight::Light => {
                let name = kind.fallback.map_or(key.default, |(name, _)| name);
                self.forgive(before, name);
                let value = kind.fallback.map(|(_, value)| value());
                value.unwrap_or_else(|| self.default(key, kind))
            }
            None => self.default(key, kind),
        }
    }

    /// Turns the problems from the one numbered `first` on into warnings, because `name` holds in place of the value.
    fn forgive(&mut self, first: usize, name: &str) {
        let holds = if name.is_empty() {
            "the default holds".to_owned()
        } else {
            format!("{name:?} holds in its place")
        };
        let forgiven = self.raw.problems.drain(first..).map(|problem| Problem {
            rule: format!("is ignored, and {holds}: it {}", problem.rule),
            ..problem
        });
        self.raw.warnings.extend(forgiven);
    }

    /// The path that was typed. It starts from the current directory; if nothing is there that `is_there` looks for, from
    /// where the file of settings lies that names it.
    pub fn located(&mut self, entry: &Entry, is_there: fn(&Path) -> bool) -> PathBuf {
        let text = entry.value.trim();
        let path = self.environment.path(text);
        let file = self.raw.file.as_deref().filter(|file| names(file, entry));
        let beside = file
            .and_then(Path::parent)
            .map(|directory| directory.join(text));
        match beside.filter(|beside| !is_there(&path) && is_there(beside)) {
            Some(beside) => {
                let rule =
                    "is not in the current directory, and is taken from where this file lies";
                self.warn(entry, rule);
                // What is shown and saved is where it is: the next start may be of another file.
                if let Some(typed) = self.raw.entries.get_mut(self.key) {
                    typed.value = beside.display().to_string();
                }
                beside
            }
            None => path,
        }
    }

    fn default<T>(&mut self, key: &Key, kind: &SettingKind<T>) -> T {
        if let Some(absent) = &kind.absent {
            return absent(self.environment);
        }
        let entry = Entry {
            value: key.default.to_owned(),
            origin: String::new(),
        };
        (kind.read)(self, &entry).expect("a test reads every default")
    }

    /// The value of `key` and where it was typed.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        self.raw.entries.get(key).cloned()
    }

    /// The value of the key that is read breaks `rule`.
    pub fn problem(&mut self, entry: &Entry, rule: impl Into<String>) {
        self.add(Problem::new(&entry.origin, self.key, rule, &entry.value));
    }

    /// The value of the key that is read is ignored.
    pub fn warn(&mut self, entry: &Entry, rule: impl Into<String>) {
        self.warn_of(self.key, entry, rule);
    }

    /// The value of `key` is ignored.
    pub fn warn_of(&mut self, key: &str, entry: &Entry, rule: impl Into<String>) {
        self.add_warning(Problem::plain(&entry.origin, key, rule));
    }

    /// One more thing that does not hold, and does no harm.
    pub fn add_warning(&mut self, warning: Problem) {
        self.raw.warnings.push(warning);
    }

    /// The value of the key that is read is wrong, and `message` says it all, the value included.
    pub fn message(&mut self, entry: &Entry, message: String) {
        self.add(Problem::plain(
            &entry.origin,
            format!("{}:", self.key),
            message,
        ));
    }

    /// The value of the key that is read breaks `rule`, and is too long to be shown.
    pub fn plain(&mut self, entry: &Entry, rule: String) {
        self.add(Problem::plain(&entry.origin, self.key, rule));
    }

    /// One more problem.
    pub fn add(&mut self, problem: Problem) {
        self.raw.problems.push(problem);
    }
}
