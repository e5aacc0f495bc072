//! A YAML document as a tree with lines, read within limits.
//!
//! Documents come from strangers: size, depth, nodes, text, aliases and merges are bounded, tags that ask for types
//! and keys that are there twice are refused, and so is a second document. It does not know what keys mean.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::Problem;

/// Bytes that a document may have.
pub const DOCUMENT_LIMIT: usize = 1 << 20;
/// Levels that a document may nest.
pub(super) const DEPTH_LIMIT: usize = 32;
/// Values that a document may have, those that aliases repeat included.
pub(super) const NODE_LIMIT: usize = 50_000;
/// Aliases and merges that a document may have.
const ALIAS_LIMIT: usize = 64;

/// A value and the line it is on, from 1; 0 where that is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its line.
    pub line: u64,
}

/// What YAML can say.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the document's order; keys differ.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => integer(*value),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| (key.clone(), node.to_json()))
                .collect(),
        }
    }
}

impl Value {
    /// A truth value, in YAML's present words or in the older ones that TorchServe reads.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value in a few words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => format!("{:?}", value.chars().take(60).collect::<String>()),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Map(entries) => format!("a mapping of {}", entries.len()),
        }
    }
}

/// How large a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its bytes.
    pub bytes: usize,
    /// Its values, those that aliases repeat included.
    pub nodes: usize,
}

impl Extent {
    /// Of what comes from strangers.
    const OF_STRANGERS: Self = Self {
        bytes: DOCUMENT_LIMIT,
        nodes: NODE_LIMIT,
    };
}

/// Reads the document in `bytes`; `origin` is what messages call it.
pub fn parse(origin: &str, bytes: &[u8]) -> Result<Node, Problem> {
    parse_within(Extent::OF_STRANGERS, origin, bytes)
}

/// The same of a document that may be as large as `extent`.
pub fn parse_within(extent: Extent, origin: &str, bytes: &[u8]) -> Result<Node, Problem> {
    if bytes.len() > extent.bytes {
        let rule = format!("must be at most {} bytes", extent.bytes);
        return Err(Problem::new(origin, "", rule, bytes.len()));
    }
    let parsed = serde_saphyr::from_slice_with_options::<Option<Spanned<Value>>>(
        bytes,
        options(extent.nodes),
    );
    match parsed {
        Ok(Some(spanned)) => Ok(node(spanned)),
        Ok(None) => Ok(Node {
            value: Value::Null,
            line: 1,
        }),
        Err(error) => Err(refusal(origin, &error)),
    }
}

fn options(nodes: usize) -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_LIMIT,
            flow_nesting_limit: DEPTH_LIMIT,
            max_nodes: nodes,
            max_events: 2 * nodes,
            max_aliases: ALIAS_LIMIT,
            max_anchors: ALIAS_LIMIT,
            max_merge_keys: ALIAS_LIMIT,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODE_LIMIT,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        // `y` and `n` are names, of tensors for one: `true` and `false` alone are truth values.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn refusal(origin: &str, error: &serde_saphyr::Error) -> Problem {
    let origin = match error.location() {
        Some(location) if location.line() > 0 => format!("{origin}:{}", location.line()),
        _ => origin.to_owned(),
    };
    let text = error.to_string();
    let first: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    Problem::plain(
        origin,
        "",
        format!("is not YAML that is read here: {first}"),
    )
}

fn node(spanned: Spanned<Value>) -> Node {
    Node {
        line: line(spanned.referenced),
        value: spanned.value,
    }
}

fn line(location: Location) -> u64 {
    location.line()
}

fn integer(value: i128) -> serde_json::Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => value.into(),
        (_, Ok(value)) => value.into(),
        // Outside what JSON readers agree on: as text rather than as another number.
        _ => value.to_string().into(),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(node(item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, value)) = access.next_entry::<String, Spanned<Value>>()? {
            // To the reader a number and the same digits as a text are two keys.
            if !seen.insert(key.clone()) {
                let text = format!("the key {key:?} is there twice");
                return Err(A::Error::custom(text));
            }
            entries.push((key, node(value)));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse("c.yaml", text.as_bytes()).unwrap_err().to_string()
    }

    fn alias_bomb() -> String {
        let level = |level: usize| {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("a{level}: &a{level} [{aliases}]\n")
        };
        let levels: Vec<_> = (1..9).map(level).collect();
        format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{}", levels.concat())
    }

    #[test]
    fn values_keep_their_types_and_lines() {
        let text = "a: 1\nb:\n  - true\n  - 1.5\n  - x\nc: null\nd: {e: 'f'}\n";
        let node = parse("c.yaml", text.as_bytes()).unwrap();
        let json = serde_json::json!({"a": 1, "b": [true, 1.5, "x"], "c": null, "d": {"e": "f"}});
        assert_eq!(node.to_json(), json);
        let Value::Map(entries) = node.value else {
            panic!("a mapping")
        };
        let lines: Vec<_> = entries.iter().map(|(_, node)| node.line).collect();
        assert_eq!(lines, [1, 3, 6, 7]);
    }

    #[test]
    fn letters_are_names_and_no_truth_values() {
        let node = parse("c.yaml", b"y: y\nn: [N, yes, off]\n").unwrap();
        let json = serde_json::json!({"y": "y", "n": ["N", "yes", "off"]});
        assert_eq!(node.to_json(), json);
    }

    #[test]
    fn an_empty_document_is_null() {
        for text in ["", "# only a comment\n", "---\n", "~"] {
            assert_eq!(parse("c.yaml", text.as_bytes()).unwrap().value, Value::Null);
        }
    }

    #[test]
    fn tags_that_make_objects_are_refused() {
        for tag in [
            "!!javax.script.ScriptEngineManager",
            "!!python/object:os.system",
            "!include",
        ] {
            let message = refused(&format!("a: {tag} /etc/passwd\n"));
            assert!(message.starts_with("c.yaml:1: is not YAML"), "{message}");
        }
    }

    #[test]
    fn alias_bombs_are_refused() {
        assert!(
            refused(&alias_bomb()).contains("alias"),
            "{}",
            refused(&alias_bomb())
        );
    }

    #[test]
    fn depth_is_limited() {
        let flow = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
        let levels: Vec<_> = (0..200)
            .map(|n| {
                " ".repeat(n)
                    + "a:
"
            })
            .collect();
        let block = levels.concat();
        for text in [flow, block] {
            assert!(refused(&text).contains("is not YAML"));
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        let message = refused("a: 1\nb: 2\na: 3\n");
        assert!(
            message.starts_with("c.yaml:3") && message.contains("duplicate"),
            "{message}"
        );
    }

    #[test]
    fn huge_documents_are_refused() {
        let message = refused(&format!("a: {}\n", "x".repeat(10 << 20)));
        assert_eq!(
            message,
            "c.yaml: must be at most 1048576 bytes, got 10485764"
        );
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for number in [".nan", ".inf", "-.inf", "1e999"] {
            assert!(
                refused(&format!("a: {number}\n")).contains("is not YAML"),
                "{number}"
            );
        }
    }

    #[test]
    fn second_documents_and_foreign_encodings_are_refused() {
        refused("a: 1\n---\nb: 2\n");
        assert!(parse("c.yaml", b"a: \xff\xfe").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9:\\[\\]{}&*!\\n \"'#|>-]{0,120}") {
            let _ = parse("c.yaml", text.as_bytes());
        }
    }
}
