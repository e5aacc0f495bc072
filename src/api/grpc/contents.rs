//! Elements of a tensor within a message. They are read as prost reads them, but for texts: an empty one is two bytes on the wire, and as a
//! value of its own 32 in memory. Here texts are one value, in the form that a tensor's data have.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, bool, bytes as text, double, encode_key, encode_varint,
    encoded_len_varint, float, int32, int64, key_len, skip_field, uint32, uint64,
};
use prost::{DecodeError, Message};

/// The number of the field that holds texts.
const TEXTS: u32 = 8;

/// `InferTensorContents` of `proto/open_inference.proto`.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs, reason = "the .proto file has them")]
pub struct InferTensorContents {
    pub bool_contents: Vec<bool>,
    pub int_contents: Vec<i32>,
    pub int64_contents: Vec<i64>,
    pub uint_contents: Vec<u32>,
    pub uint64_contents: Vec<u64>,
    pub fp32_contents: Vec<f32>,
    pub fp64_contents: Vec<f64>,
    pub bytes_contents: Texts,
}

/// Texts, each behind its length in four bytes, the least significant first: a tensor's data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(BytesMut);

impl Texts {
    /// The texts in `data` of a tensor.
    pub(super) fn of(data: &[u8]) -> Self {
        Self(data.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    fn push(&mut self, text: &[u8]) {
        // No message is as long as a length can be.
        self.0
            .put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.put_slice(text);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (text, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(text)
        })
    }

    /// A tensor's data.
    pub(super) fn into_data(self) -> Bytes {
        self.0.freeze()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.push(text.as_ref());
        }
        all
    }
}

impl Message for InferTensorContents {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        bool::encode_packed(1, &self.bool_contents, buffer);
        int32::encode_packed(2, &self.int_contents, buffer);
        int64::encode_packed(3, &self.int64_contents, buffer);
        uint32::encode_packed(4, &self.uint_contents, buffer);
        uint64::encode_packed(5, &self.uint64_contents, buffer);
        float::encode_packed(6, &self.fp32_contents, buffer);
        double::encode_packed(7, &self.fp64_contents, buffer);
        for text in self.bytes_contents.iter() {
            encode_key(TEXTS, WireType::LengthDelimited, buffer);
            encode_varint(text.len() as u64, buffer);
            buffer.put_slice(text);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => bool::merge_repeated(wire_type, &mut self.bool_contents, buffer, context),
            2 => int32::merge_repeated(wire_type, &mut self.int_contents, buffer, context),
            3 => int64::merge_repeated(wire_type, &mut self.int64_contents, buffer, context),
            4 => uint32::merge_repeated(wire_type, &mut self.uint_contents, buffer, context),
            5 => uint64::merge_repeated(wire_type, &mut self.uint64_contents, buffer, context),
            6 => float::merge_repeated(wire_type, &mut self.fp32_contents, buffer, context),
            7 => double::merge_repeated(wire_type, &mut self.fp64_contents, buffer, context),
            TEXTS => {
                let mut one = Bytes::new();
                text::merge(wire_type, &mut one, buffer, context)?;
                self.bytes_contents.push(&one);
                Ok(())
            }
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let texts = self.bytes_contents.iter();
        let texts =
            texts.map(|text| key_len(TEXTS) + encoded_len_varint(text.len() as u64) + text.len());
        bool::encoded_len_packed(1, &self.bool_contents)
            + int32::encoded_len_packed(2, &self.int_contents)
            + int64::encoded_len_packed(3, &self.int64_contents)
            + uint32::encoded_len_packed(4, &self.uint_contents)
            + uint64::encoded_len_packed(5, &self.uint64_contents)
            + float::encoded_len_packed(6, &self.fp32_contents)
            + double::encoded_len_packed(7, &self.fp64_contents)
            + texts.sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The message as prost's derivation has it.
    #[derive(Clone, PartialEq, Message)]
    struct Derived {
        #[prost(bool, repeated, tag = "1")]
        bools: Vec<bool>,
        #[prost(int32, repeated, tag = "2")]
        ints: Vec<i32>,
        #[prost(int64, repeated, tag = "3")]
        int64s: Vec<i64>,
        #[prost(uint32, repeated, tag = "4")]
        uints: Vec<u32>,
        #[prost(uint64, repeated, tag = "5")]
        uint64s: Vec<u64>,
        #[prost(float, repeated, tag = "6")]
        floats: Vec<f32>,
        #[prost(double, repeated, tag = "7")]
        doubles: Vec<f64>,
        #[prost(bytes = "bytes", repeated, tag = "8")]
        texts: Vec<Bytes>,
    }

    fn derived() -> impl Strategy<Value = Derived> {
        use prop::collection::vec;

        let signed = (
            vec(any::<bool>(), 0..4),
            vec(any::<i32>(), 0..4),
            vec(any::<i64>(), 0..4),
        );
        let unsigned = (vec(any::<u32>(), 0..4), vec(any::<u64>(), 0..4));
        let floating = (vec(-1e9f32..1e9, 0..4), vec(-1e9f64..1e9, 0..4));
        let texts = vec(vec(any::<u8>(), 0..200), 0..4);
        (signed, unsigned, floating, texts).prop_map(
            |((bools, ints, int64s), (uints, uint64s), (floats, doubles), texts)| Derived {
                bools,
                ints,
                int64s,
                uints,
                uint64s,
                floats,
                doubles,
                texts: texts.into_iter().map(Bytes::from).collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn contents_are_on_the_wire_what_prost_makes_of_them(derived in derived()) {
            let wire = derived.encode_to_vec();
            let contents = InferTensorContents::decode(&wire[..]).unwrap();
            prop_assert_eq!(&contents.bool_contents, &derived.bools);
            prop_assert_eq!(&contents.int_contents, &derived.ints);
            prop_assert_eq!(&contents.int64_contents, &derived.int64s);
            prop_assert_eq!(&contents.uint_contents, &derived.uints);
            prop_assert_eq!(&contents.uint64_contents, &derived.uint64s);
            prop_assert_eq!(&contents.fp32_contents, &derived.floats);
            prop_assert_eq!(&contents.fp64_contents, &derived.doubles);
            prop_assert!(contents.bytes_contents.iter().eq(derived.texts.iter()));
            prop_assert_eq!(contents.encoded_len(), wire.len());
            prop_assert_eq!(contents.encode_to_vec(), wire);
        }

        #[test]
        fn what_breaks_a_rule_is_refused_as_prost_does(
            wire in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let expected = Derived::decode(&wire[..]).is_ok();
            prop_assert_eq!(InferTensorContents::decode(&wire[..]).is_ok(), expected);
        }
    }

    #[test]
    fn an_empty_text_takes_four_bytes() {
        let wire = [0x42, 0].repeat(1000);
        let contents = InferTensorContents::decode(&wire[..]).unwrap();
        assert_eq!(contents.bytes_contents.iter().count(), 1000);
        assert_eq!(contents.bytes_contents.into_data(), vec![0; 4000]);
    }
}
