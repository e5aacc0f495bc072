//! The request's JSON: `{"x": ROWS}` or ROWS alone, where ROWS is one row of numbers or a list of rows.
//!
//! Numbers go from the parser straight into one vector; nothing is built in between.

use std::fmt;

use handler_sdk::Error;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// The numbers of all rows.
#[derive(Debug, Default, PartialEq)]
pub struct Rows {
    /// Row after row.
    pub values: Vec<f32>,
    /// Whether the rows came as a list of lists.
    pub is_nested: bool,
}

impl Rows {
    /// How many rows of `width` there are; every row was checked to have that width.
    pub fn count(&self, width: usize) -> Result<u32, Error> {
        let count = self.values.len() / width;
        let is_whole = count > 0 && self.values.len().is_multiple_of(width);
        u32::try_from(count)
            .ok()
            .filter(|_| is_whole)
            .ok_or_else(|| {
                let length = self.values.len();
                Error::bad_request(format!("`x` has {length} numbers, not rows of {width}"))
            })
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Document)
    }
}

/// The whole document.
struct Document;

impl<'de> Visitor<'de> for Document {
    type Value = Rows;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{\"x\": [16 numbers]}, several such rows, or the rows alone")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Rows, A::Error> {
        let mut rows = Rows {
            values: Vec::with_capacity(16),
            is_nested: false,
        };
        RowList(&mut rows).visit_seq(sequence)?;
        Ok(rows)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
        let mut rows = None;
        while let Some(key) = map.next_key::<Key>()? {
            if matches!(key, Key::X) {
                rows = Some(map.next_value_seed(Field)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        rows.ok_or_else(|| A::Error::missing_field("x"))
    }
}

/// A key of the object, without a copy of it.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    X,
    #[serde(other)]
    Other,
}

/// The value of `x`.
struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Rows;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Rows, D::Error> {
        let mut rows = Rows {
            values: Vec::with_capacity(16),
            is_nested: false,
        };
        deserializer.deserialize_seq(RowList(&mut rows))?;
        Ok(rows)
    }
}

/// A list of numbers, or of rows.
struct RowList<'a>(&'a mut Rows);

impl<'de> Visitor<'de> for RowList<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of 16 numbers, or of such lists")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Item(self.0))?.is_some() {}
        Ok(())
    }
}

/// A number, or a row.
struct Item<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, or a list of 16 numbers")
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the model's numbers are f32"
    )]
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if self.0.is_nested {
            return Err(E::custom("a number between lists"));
        }
        self.0.values.push(value as f32);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "the model's numbers are f32")]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "the model's numbers are f32")]
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        if !self.0.is_nested && !self.0.values.is_empty() {
            return Err(A::Error::custom("a list between numbers"));
        }
        self.0.is_nested = true;
        let before = self.0.values.len();
        while let Some(value) = row.next_element::<f32>()? {
            self.0.values.push(value);
        }
        match self.0.values.len() - before {
            crate::WIDTH => Ok(()),
            width => Err(A::Error::invalid_length(width, &"a row of 16 numbers")),
        }
    }
}
