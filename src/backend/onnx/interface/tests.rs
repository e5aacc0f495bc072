//! Files as exporters write them, and as nobody should.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 0x80, "one byte holds the length");
    [&[number << 3 | 2, length], content].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// A tensor's type, with a shape of `rank` axes.
fn tensor(element: u8, rank: Option<usize>) -> Vec<u8> {
    let shape = rank.map(|rank| field(2, &field(1, &[]).repeat(rank)));
    let content = [number(1, element), shape.unwrap_or_default()].concat();
    field(1, &content)
}

fn sequence(inner: &[u8]) -> Vec<u8> {
    field(4, &field(1, inner))
}

fn map(key: u8, value: &[u8]) -> Vec<u8> {
    field(5, &[number(1, key), field(2, value)].concat())
}

fn optional(inner: &[u8]) -> Vec<u8> {
    field(9, &field(1, inner))
}

/// A value called `v`.
fn value(kind: &[u8]) -> Vec<u8> {
    [field(1, b"v"), field(2, kind)].concat()
}

fn read_bytes(bytes: &[u8]) -> Result<Interface, String> {
    let length = u64::try_from(bytes.len()).unwrap();
    read_from(Cursor::new(bytes), length).map_err(|error| error.to_string())
}

fn as_input(kind: &[u8]) -> Result<Interface, String> {
    read_bytes(&field(7, &field(11, &value(kind))))
}

fn as_output(kind: &[u8]) -> Result<Interface, String> {
    read_bytes(&field(7, &field(12, &value(kind))))
}

const FLOAT: u8 = 1;
const STRING: u8 = 8;
const COMPLEX: u8 = 14;

#[test]
fn a_tensor_without_a_shape_has_no_rank_and_a_scalar_has() {
    let names = |read: Result<Interface, String>| read.unwrap().unranked_inputs;
    assert!(names(as_input(&tensor(FLOAT, None))).contains("v"));
    assert!(names(as_input(&optional(&tensor(FLOAT, None)))).contains("v"));
    assert!(names(as_input(&tensor(FLOAT, Some(0)))).is_empty());
    assert!(names(as_input(&tensor(FLOAT, Some(2)))).is_empty());
    let outputs = as_output(&tensor(FLOAT, None)).unwrap();
    assert!(outputs.unranked_inputs.is_empty() && outputs.unranked_outputs.contains("v"));
}

#[test]
fn sequences_maps_and_optionals_are_served() {
    let float = tensor(FLOAT, None);
    for kind in [
        sequence(&float),
        map(STRING, &float),
        optional(&float),
        optional(&sequence(&float)),
    ] {
        as_input(&kind).unwrap();
        as_output(&kind).unwrap();
    }
    as_output(&sequence(&map(STRING, &float))).unwrap();
    as_output(&[]).unwrap();
}

#[test]
fn what_is_not_served_is_refused_by_name_with_a_remedy() {
    let float = tensor(FLOAT, None);
    for (kind, says) in [
        (
            tensor(COMPLEX, None),
            "is of complex64, which is not served: cast it",
        ),
        (tensor(26, None), "is of int2,"),
        (tensor(99, None), "is of an unknown element type,"),
        (sequence(&tensor(COMPLEX, None)), "is of complex64,"),
        (map(COMPLEX, &float), "is of complex64,"),
        (
            map(STRING, &sequence(&float)),
            "is of map(string,seq(tensor(float))),",
        ),
        (
            sequence(&sequence(&float)),
            "is of seq(seq(tensor(float))),",
        ),
        (
            sequence(&map(STRING, &float)),
            "is of seq(map(string,tensor(float))),",
        ),
        (
            optional(&optional(&float)),
            "is of optional(optional(tensor(float))),",
        ),
        (optional(&map(STRING, &float)), "is of optional(map("),
        (sequence(&[]), "is of seq(no type),"),
        (field(8, &number(1, FLOAT)), "is a sparse tensor,"),
        (field(7, &[]), "is of an opaque type,"),
    ] {
        let text = as_input(&kind).unwrap_err();
        assert!(text.starts_with(&format!("input \"v\" {says}")), "{text}");
    }
}

#[test]
fn an_initializer_among_the_inputs_may_be_of_any_type() {
    let input = field(11, &value(&tensor(COMPLEX, None)));
    let called = |name: &[u8]| field(5, &field(8, name));
    let sparse = field(15, &field(1, &field(8, b"v")));
    for initializer in [called(b"v"), sparse] {
        read_bytes(&field(7, &[&input[..], &initializer].concat())).unwrap();
    }
    read_bytes(&field(7, &[input, called(b"w")].concat())).unwrap_err();
}

#[test]
fn two_answers_to_one_question_are_refused() {
    let float = tensor(FLOAT, Some(1));
    for kind in [
        [tensor(FLOAT, None), sequence(&float)].concat(),
        field(1, &[field(2, &[]), field(2, &[])].concat()),
    ] {
        let text = as_input(&kind).unwrap_err();
        assert!(text.contains("came twice"), "{text}");
    }
    let twice = [value(&float), field(2, &float)].concat();
    assert!(read_bytes(&field(7, &field(11, &twice))).is_err());
}

#[test]
fn deep_types_are_refused() {
    let mut kind = tensor(FLOAT, None);
    for _ in 0..MAX_DEPTH {
        kind = sequence(&kind);
    }
    assert!(as_input(&kind).unwrap_err().contains("nested too deeply"));
}

proptest! {
    #[test]
    fn any_change_to_a_model_is_read_without_panic(place in 0..40usize, byte: u8) {
        let kind = optional(&sequence(&map(STRING, &tensor(FLOAT, Some(2)))));
        let mut bytes = field(7, &field(11, &value(&kind)));
        let place = place % bytes.len();
        bytes[place] = byte;
        let _ = read_bytes(&bytes);
    }
}
