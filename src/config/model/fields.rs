//! Reading single values of a document: every problem is kept, none stops the reading.

use std::time::Duration;

use super::super::yaml::{Node, Value};
use super::super::{Problem, spelling, units};

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
            Value::Bool(value) => Some(*value),
            Value::Text(text) if matches!(text.as_str(), "yes" | "on") => Some(true),
            Value::Text(text) if matches!(text.as_str(), "no" | "off") => Some(false),
            Value::Null => None,
            _ => {
                self.problem(key, node, "must be true or false");
                None
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
        let size = match &node.value {
            Value::Null => return None,
            Value::Integer(value) => usize::try_from(*value).ok(),
            Value::Text(text) => units::size(text),
            _ => None,
        };
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
