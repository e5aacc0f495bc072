//! Which tensors make which arguments, and what is said where they do not.

use super::*;

fn arguments(schema: &[(&str, Type, bool)]) -> Result<Arguments, String> {
    let schema: Vec<_> = schema
        .iter()
        .map(|(name, kind, has_default)| shim::Argument {
            name: (*name).to_owned(),
            kind: kind.clone(),
            has_default: *has_default,
        })
        .collect();
    Arguments::of(&schema)
}

fn optional(kind: Type) -> Type {
    Type::Optional(Box::new(kind))
}

fn list(kind: Type) -> Type {
    Type::List(Box::new(kind))
}

fn tuple(members: &[Type]) -> Type {
    Type::Tuple(members.iter().map(|kind| (None, kind.clone())).collect())
}

fn shown(schema: &[(&str, Type, bool)]) -> String {
    let specs = arguments(schema).unwrap().declared(&[]).unwrap();
    let specs: Vec<_> = specs.iter().map(ToString::to_string).collect();
    specs.join(", ")
}

#[test]
fn each_type_has_its_inputs() {
    let named = Type::Tuple(vec![
        (Some("left".to_owned()), Type::Tensor),
        (Some("right".to_owned()), Type::Int),
    ]);
    for (kind, inputs) in [
        (Type::Tensor, "a: any[...]"),
        (Type::Int, "a: int64[]"),
        (Type::Float, "a: fp64[]"),
        (Type::Bool, "a: boolean[]"),
        (Type::Str, "a: bytes[]"),
        (Type::Number, "a: any[]"),
        (optional(Type::Tensor), "a: any[...] (optional)"),
        (list(Type::Tensor), "a: any[...] (list)"),
        (list(Type::Int), "a: int64[?]"),
        (
            tuple(&[Type::Tensor, list(Type::Tensor)]),
            "a.0: any[...], a.1: any[...] (list)",
        ),
        (
            optional(tuple(&[Type::Tensor, Type::Tensor])),
            "a.0: any[...] (optional), a.1: any[...] (optional)",
        ),
        (named, "a.left: any[...], a.right: int64[]"),
        (optional(Type::Other("Device".to_owned())), ""),
    ] {
        assert_eq!(shown(&[("a", kind.clone(), false)]), inputs, "{kind}");
    }
    assert_eq!(shown(&[("k", Type::Int, true)]), "k: int64[] (optional)");
}

#[test]
fn what_no_tensor_stands_for_needs_a_default() {
    let dict = || Type::Other("Dict[str, Tensor]".to_owned());
    assert_eq!(shown(&[("d", dict(), true)]), "");
    let nested = list(list(Type::Tensor));
    for kind in [dict(), nested, list(optional(Type::Tensor))] {
        let error = arguments(&[("d", kind.clone(), false)]).unwrap_err();
        assert!(
            error.contains("argument \"d\"") && error.contains(&kind.to_string()),
            "{error}"
        );
    }
}

#[test]
fn a_declaration_adds_to_the_schema() {
    let arguments = arguments(&[
        ("x", Type::Tensor, false),
        ("k", Type::Int, false),
        ("m", optional(Type::Tensor), false),
    ]);
    let arguments = arguments.unwrap();
    let declared = [
        TensorSpec::new("k", DType::I32, vec![Some(1)]),
        TensorSpec::new("x", DType::F32, vec![None, Some(3)]),
    ];
    let inputs = arguments.declared(&declared).unwrap();
    let inputs: Vec<_> = inputs.iter().map(ToString::to_string).collect();
    assert_eq!(
        inputs,
        ["x: fp32[?, 3]", "k: int32[1]", "m: any[...] (optional)"]
    );
}

#[test]
fn a_declaration_that_contradicts_the_schema_is_refused() {
    let arguments = arguments(&[("x", Type::Tensor, false), ("k", Type::Int, false)]);
    let arguments = arguments.unwrap();
    let x = TensorSpec::new("x", DType::F32, vec![None]);
    let k = |dtype, shape: &[Option<usize>]| TensorSpec::new("k", dtype, shape.to_vec());
    for (declared, part) in [
        (
            vec![TensorSpec::new("y", DType::F32, vec![])],
            "forward takes x: any[...], k: int64[]",
        ),
        (vec![x.clone()], "input k: int64[] is not declared"),
        (
            vec![x.clone(), k(DType::F32, &[])],
            "the argument is one int",
        ),
        (
            vec![x.clone(), k(DType::I64, &[None])],
            "the argument is one int",
        ),
        (
            vec![
                TensorSpec::new("x", DType::Bytes, vec![]),
                k(DType::I64, &[]),
            ],
            "no tensors of strings",
        ),
    ] {
        let error = arguments.declared(&declared).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
