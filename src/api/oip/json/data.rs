//! The data of a request's tensors, from JSON into the bytes that a model takes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::InputHead;
use crate::api::oip::{datatype, shown};
use crate::tensor::DType;

/// Bytes of each tensor that has its data in the document, in the order of `heads`. `list` is the member of the
/// document that has the tensors; `heads` come from the same document.
pub(super) fn read(
    document: &[u8],
    list: &'static str,
    heads: &[InputHead],
) -> Result<Vec<Option<Vec<u8>>>, serde_json::Error> {
    let room = document.len();
    let mut columns = Vec::with_capacity(heads.len());
    let mut parser = serde_json::Deserializer::from_slice(document);
    parser.deserialize_map(Document {
        list,
        tensors: Tensors {
            heads,
            room,
            columns: &mut columns,
        },
    })?;
    Ok(columns)
}

/// The whole document: looks for the list.
struct Document<'a> {
    list: &'static str,
    tensors: Tensors<'a>,
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == self.list {
                map.next_value_seed(&mut self.tensors)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The list: takes one tensor after the other.
struct Tensors<'a> {
    heads: &'a [InputHead],
    room: usize,
    columns: &'a mut Vec<Option<Vec<u8>>>,
}

impl<'de> DeserializeSeed<'de> for &mut Tensors<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Tensors<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for head in self.heads {
            let tensor = OneTensor {
                head,
                room: self.room,
            };
            if let Some(column) = list.next_element_seed(tensor)? {
                self.columns.push(column);
            }
        }
        Ok(())
    }
}

/// One tensor: looks for its data.
struct OneTensor<'a> {
    head: &'a InputHead,
    room: usize,
}

impl<'de> DeserializeSeed<'de> for OneTensor<'_> {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneTensor<'_> {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" && self.head.has_data {
                let mut column = Column::new(self.head, self.room).map_err(A::Error::custom)?;
                map.next_value_seed(List(&mut column))?;
                data = Some(column.finish().map_err(A::Error::custom)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(data)
    }
}

/// The elements of one tensor as they come.
struct Column<'a> {
    head: &'a InputHead,
    /// Elements that the shape asks for.
    expected: usize,
    elements: usize,
    bytes: Vec<u8>,
}

impl<'a> Column<'a> {
    /// A column for `head`, in a document of `room` bytes.
    fn new(head: &'a InputHead, room: usize) -> Result<Self, String> {
        if !datatype::has_json_form(head.dtype) {
            return Err(format!(
                "sending {} data via JSON is not supported: input {} must use the binary data format",
                datatype::name(head.dtype),
                shown(&head.name)
            ));
        }
        let axes = head.shape.iter();
        let expected = axes.fold(1usize, |product, axis| product.saturating_mul(*axis));
        // Each element takes a byte of the document and one that parts it from the next.
        let has_room = expected <= room / 2 + 1;
        let column = Self {
            head,
            expected,
            elements: 0,
            bytes: Vec::new(),
        };
        if !has_room {
            return Err(column.mismatch("fewer"));
        }
        let size = head.dtype.size().unwrap_or(4);
        Ok(Self {
            bytes: Vec::with_capacity(expected * size),
            ..column
        })
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        if self.elements == self.expected {
            return Ok(self.bytes);
        }
        Err(self.mismatch(&self.elements.to_string()))
    }

    fn mismatch(&self, actual: &str) -> String {
        format!(
            "input {} of shape {:?} takes {} elements, got {actual}",
            shown(&self.head.name),
            self.head.shape,
            self.expected
        )
    }

    fn wrong(&self, value: impl fmt::Display) -> String {
        let datatype = datatype::name(self.head.dtype);
        format!("input {}: {value} is no {datatype}", shown(&self.head.name))
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.elements == self.expected {
            return Err(self.mismatch("more"));
        }
        self.elements += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn push_integer(&mut self, value: i128) -> Result<(), String> {
        macro_rules! push {
            ($type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => self.push(&value.to_le_bytes()),
                    Err(_) => Err(self.wrong(value)),
                }
            };
        }
        match self.head.dtype {
            DType::U8 => push!(u8),
            DType::U16 => push!(u16),
            DType::U32 => push!(u32),
            DType::U64 => push!(u64),
            DType::I8 => push!(i8),
            DType::I16 => push!(i16),
            DType::I32 => push!(i32),
            DType::I64 => push!(i64),
            #[expect(clippy::cast_precision_loss, reason = "the client chose a float")]
            DType::F32 => self.push(&(value as f32).to_le_bytes()),
            #[expect(clippy::cast_precision_loss, reason = "the client chose a float")]
            DType::F64 => self.push(&(value as f64).to_le_bytes()),
            DType::Bool | DType::F16 | DType::Bf16 | DType::Bytes => Err(self.wrong(value)),
        }
    }

    fn push_float(&mut self, value: f64) -> Result<(), String> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what becomes infinite is refused"
        )]
        let single = value as f32;
        match self.head.dtype {
            DType::F32 if single.is_finite() => self.push(&single.to_le_bytes()),
            DType::F64 => self.push(&value.to_le_bytes()),
            _ => Err(self.wrong(value)),
        }
    }

    fn push_flag(&mut self, value: bool) -> Result<(), String> {
        match self.head.dtype {
            DType::Bool => self.push(&[u8::from(value)]),
            _ => Err(self.wrong(value)),
        }
    }

    fn push_text(&mut self, value: &str) -> Result<(), String> {
        match (self.head.dtype, u32::try_from(value.len())) {
            (DType::Bytes, Ok(length)) => {
                self.push(&length.to_le_bytes())?;
                self.bytes.extend_from_slice(value.as_bytes());
                Ok(())
            }
            _ => Err(self.wrong(shown(value))),
        }
    }
}

/// A list of elements, or of lists.
struct List<'a, 'h>(&'a mut Column<'h>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Item(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// An element, or a list of them.
struct Item<'a, 'h>(&'a mut Column<'h>);

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "an element of {}",
            datatype::name(self.0.head.dtype)
        )
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.push_flag(value).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.push_integer(value.into()).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.push_integer(value.into()).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.push_float(value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0.push_text(value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        List(self.0).visit_seq(list)
    }
}
