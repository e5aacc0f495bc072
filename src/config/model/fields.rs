//! Reading single values of a document: every problem is kept, none stops the reading.

use std::time::Duration;

use super::super::yaml::{Node, Value};
use super::super::{Problem, spelling, units};
use super::Weight;

/// What was found wrong so far with one document.
#[derive(Debug)]
pub struct Fields {
    origin: String,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Fields {
    /// For the document that messages call `origin`.
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Problems, and warnings.
    pub fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems, self.warnings)
    }

    /// The value of `key` breaks a rule.
    pub fn problem(&mut self, key: &str, node: &Node, rule: impl Into<String>) {
        let problem = self.describe(key, node, rule);
        self.problems.push(problem);
    }

    /// The value of `key` is ignored.
    pub fn warn(&mut self, key: &str, node: &Node, rule: impl Into<String>) {
        let warning = self.describe(key, node, rule);
        self.warnings.push(warning);
    }

    /// What `read` reads, whose problems are about keys that begin with `to` where it says `from`.
    pub fn renaming<T>(&mut self, from: &str, to: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.problems.len();
        let value = read(self);
        for problem in &mut self.problems[before..] {
            if let Some(rest) = problem.key.strip_prefix(from) {
                problem.key = format!("{to}{rest}");
            }
        }
        value
    }

    /// What `read` reads. Where little hangs on the key, its problems are warnings.
    pub fn weighing<T>(&mut self, weight: Weight, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.problems.len();
        let value = read(self);
        if weight == Weight::Light {
            let forgiven = self.problems.drain(before..).map(|problem| Problem {
                rule: format!("is ignored: it {}", problem.rule),
                ..problem
            });
            self.warnings.extend(forgiven);
        }
        value
    }

    /// The one of `known` that `given` is in other capitals, unless `entries` have that too.
    pub fn recapitalized(
        &mut self,
        (key, node): (&str, &Node),
        given: &str,
        known: impl IntoIterator<Item = &'static str>,
        entries: &[(String, Node)],
    ) -> Option<&'static str> {
        let mut known = known.into_iter();
        let found = known.find(|known| known.eq_ignore_ascii_case(given))?;
        if entries.iter().any(|(name, _)| name == found) {
            self.key_warning(key, node, format!("is ignored: {found} is there too"));
            return None;
        }
        let rule = format!("is taken for {found}, which is how it is written");
        self.key_warning(key, node, rule);
        Some(found)
    }

    /// The key is refused or ignored, whatever its value.
    pub fn key_problem(&mut self, key: &str, node: &Node, rule: impl Into<String>) {
        let problem = Problem::plain(self.at(node), key, rule);
        self.problems.push(problem);
    }

    /// The key has no effect here, whatever its value.
    pub fn key_warning(&mut self, key: &str, node: &Node, rule: impl Into<String>) {
        let warning = Problem::plain(self.at(node), key, rule);
        self.warnings.push(warning);
    }

    /// The key is not known.
    pub fn unknown<'a>(
        &mut self,
        key: &str,
        node: &Node,
        given: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        self.key_problem(key, node, spelling::unknown(given, known));
    }

    /// The entries of a mapping.
    pub fn map<'a>(&mut self, key: &str, node: &'a Node) -> &'a [(String, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => {
                self.problem(key, node, "must be a mapping of keys to values");
                &[]
            }
        }
    }

    /// The items of a list.
    pub fn list<'a>(&mut self, key: &str, node: &'a Node) -> &'a [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => {
                self.problem(key, node, "must be a list");
                &[]
            }
        }
    }

    /// A text that is not empty.
    pub fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            Value::Null => None,
            _ => {
                self.problem(key, node, "must be a text");
                None
            }
        }
    }

    /// A truth value, in YAML's present words or in the older ones that TorchServe reads.
    pub fn truth(&mut self, key: &str, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Null => None,
            value => {
                let truth = value.truth();
                if truth.is_none() {
                    self.problem(key, node, "must be true or false");
                }
                truth
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub fn number<T: TryFrom<i128>>(
        &mut self,
        key: &str,
        node: &Node,
        least: i128,
        most: i128,
    ) -> Option<T> {
        match node.value {
            Value::Integer(value) if (least..=most).contains(&value) => T::try_from(value).ok(),
            Value::Null => None,
            _ => {
                let rule = format!("must be a whole number from {least} to {most}");
                self.problem(key, node, rule);
                None
            }
        }
    }

    /// A size, as a number of bytes or with a unit.
    pub fn size(&mut self, key: &str, node: &Node) -> Option<usize> {
        let (text, size) = match &node.value {
            Value::Null => return None,
            Value::Integer(value) => (value.to_string(), usize::try_from(*value).ok()),
            Value::Text(text) => (text.clone(), units::size(text)),
            _ => (String::new(), None),
        };
        if let Some(question) = units::question(&text) {
            self.problem(key, node, question);
            return None;
        }
        let size = size.filter(|bytes| *bytes > 0);
        if size.is_none() {
            self.problem(key, node, format!("must be {}", units::SIZE));
        }
        size
    }

    /// A duration with its unit.
    pub fn duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        let duration = match &node.value {
            Value::Null => return None,
            Value::Text(text) => units::duration(text).filter(|time| !time.is_zero()),
            _ => None,
        };
        if duration.is_none() {
            self.problem(key, node, format!("must be {}", units::DURATION));
        }
        duration
    }

    fn describe(&self, key: &str, node: &Node, rule: impl Into<String>) -> Problem {
        Problem {
            value: Some(node.value.describe()),
            ..Problem::plain(self.at(node), key, rule)
        }
    }

    fn at(&self, node: &Node) -> String {
        match node.line {
            0 => self.origin.clone(),
            line => format!("{}:{line}", self.origin),
        }
    }
}
