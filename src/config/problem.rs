//! One thing that is wrong with a setting, and all of them together.

use std::fmt;

use crate::error::{Error, Kind, shortened};

const SHOWN: usize = 80;

/// A setting that breaks a rule: where it was set, its key, the rule, and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File and line, variable or flag; empty where the rule says it.
    pub origin: String,
    /// The key; empty where the whole source is at fault.
    pub key: String,
    /// What must hold, as a sentence that starts after the key.
    pub rule: String,
    /// The value that breaks the rule.
    pub value: Option<String>,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn new(
        origin: impl Into<String>,
        key: impl Into<String>,
        rule: impl Into<String>,
        value: impl fmt::Debug,
    ) -> Self {
        Self {
            value: Some(shortened(&format!("{value:?}"), SHOWN)),
            ..Self::plain(origin, key, rule)
        }
    }

    /// A problem that needs no value to be understood.
    pub fn plain(
        origin: impl Into<String>,
        key: impl Into<String>,
        rule: impl Into<String>,
    ) -> Self {
        Self {
            origin: origin.into(),
            key: key.into(),
            rule: rule.into(),
            value: None,
        }
    }
}

impl Problem {
    /// The line of the file at fault; problems from elsewhere come first.
    fn line(&self) -> u64 {
        let line = self.origin.rsplit_once(':').map(|(_, line)| line.parse());
        line.and_then(Result::ok).unwrap_or(0)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(formatter, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{} ", self.key)?;
        }
        formatter.write_str(&self.rule)?;
        match &self.value {
            Some(value) => write!(formatter, ", got {value}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one set of settings; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `value`, unless something is wrong.
    pub fn or<T>(mut problems: Vec<Problem>, value: T) -> Result<T, Self> {
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(Problem::line);
        Err(Self(problems))
    }

    /// Each of them, in the order of the source.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Settings that belong to an archive make it invalid.
impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Self::new(Kind::InvalidModel, texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_source_key_rule_and_value() {
        let problem = Problem::new("a.yaml:3", "batchSize", "must be a number", "many");
        assert_eq!(
            problem.to_string(),
            "a.yaml:3: batchSize must be a number, got \"many\""
        );
    }

    #[test]
    fn long_values_are_cut() {
        let problem = Problem::new("a", "b", "c", "x".repeat(1 << 20));
        assert!(problem.to_string().len() < 200);
    }

    #[test]
    fn no_problem_is_no_error() {
        assert_eq!(Problems::or(vec![], 7), Ok(7));
        let problems = Problems::or(vec![Problem::plain("a", "b", "c")], 7).unwrap_err();
        assert_eq!(Error::from(problems).kind(), Kind::InvalidModel);
    }
}
