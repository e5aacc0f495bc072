//! Checks of requests, evidence on axis 0, declarations.

use bytes::Bytes;

use super::*;
use crate::tensor::DType;

fn spec(name: &str, dtype: DType, shape: &[Option<usize>]) -> TensorSpec {
    TensorSpec::new(name, dtype, shape.to_vec())
}

fn of(inputs: Vec<TensorSpec>) -> Signature {
    Signature {
        inputs,
        ..Signature::default()
    }
}

fn tensor(name: &str, dtype: DType, shape: &[usize]) -> NamedTensor {
    let length = shape.iter().product::<usize>() * dtype.size().unwrap();
    NamedTensor::new(
        name,
        Tensor::new(dtype, shape.to_vec(), Bytes::from(vec![0; length])).unwrap(),
    )
}

fn two_inputs() -> Signature {
    Signature {
        inputs: vec![
            spec("a", DType::F32, &[None, Some(3)]),
            spec("b", DType::I64, &[None]),
        ],
        ..Signature::default()
    }
}

fn refusal(signature: &Signature, inputs: &[NamedTensor]) -> String {
    let error = signature.check(inputs).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    error.message().to_owned()
}

#[test]
fn matching_inputs_pass_in_any_order_and_are_arranged() {
    let signature = two_inputs();
    let inputs = vec![
        tensor("b", DType::I64, &[2]),
        tensor("a", DType::F32, &[2, 3]),
    ];
    signature.check(&inputs).unwrap();
    let names: Vec<_> = signature
        .arrange(inputs)
        .into_iter()
        .map(|input| input.name)
        .collect();
    assert_eq!(names, ["a".into(), "b".into()]);
}

#[test]
fn refusals_name_the_input_and_what_was_expected() {
    let signature = two_inputs();
    let a = || tensor("a", DType::F32, &[2, 3]);
    let b = || tensor("b", DType::I64, &[2]);
    let cases = [
        (
            vec![],
            r#"input "a" is missing; the model takes a: fp32[?, 3], b: int64[?]"#,
        ),
        (
            vec![a()],
            r#"input "b" is missing; the model takes a: fp32[?, 3], b: int64[?]"#,
        ),
        (
            vec![a(), b(), tensor("c", DType::U8, &[2])],
            r#"the model has no input "c"; it takes a: fp32[?, 3], b: int64[?]"#,
        ),
        (vec![a(), b(), a()], r#"input "a" came twice"#),
        (
            vec![tensor("a", DType::F64, &[2, 3]), b()],
            "expected a: fp32[?, 3], got fp64[2, 3]",
        ),
        (
            vec![tensor("a", DType::F32, &[2, 4]), b()],
            "expected a: fp32[?, 3], got fp32[2, 4]",
        ),
        (
            vec![tensor("a", DType::F32, &[3]), b()],
            "expected a: fp32[?, 3], got fp32[3]",
        ),
    ];
    for (inputs, message) in cases {
        assert_eq!(refusal(&signature, &inputs), message);
    }
}

#[test]
fn long_names_and_long_signatures_are_cut_in_messages() {
    let specs = (0..300)
        .map(|index| spec(&format!("in{index}"), DType::U8, &[None]))
        .collect();
    let signature = Signature {
        inputs: specs,
        ..Signature::default()
    };
    let message = refusal(&signature, &[tensor(&"ä".repeat(10_000), DType::U8, &[1])]);
    assert!(message.len() < 600, "{message}");
    assert!(message.ends_with("and 292 more"), "{message}");
}

#[test]
fn unknown_inputs_take_anything_and_no_inputs_take_nothing() {
    let unknown = Signature::default();
    unknown.check(&[]).unwrap();
    unknown
        .check(&[tensor("x", DType::U8, &[]), tensor("y", DType::U8, &[0, 9])])
        .unwrap();
    let x = || tensor("x", DType::U8, &[1]);
    assert_eq!(refusal(&unknown, &[x(), x()]), r#"input "x" came twice"#);
    let none = Signature {
        is_open: false,
        ..Signature::default()
    };
    none.check(&[]).unwrap();
    assert_eq!(
        refusal(&none, &[x()]),
        r#"the model has no input "x"; it takes none"#
    );
}

#[test]
fn optional_inputs_may_be_left_out_and_lists_have_no_gaps() {
    let with = |arity, name| TensorSpec {
        arity,
        ..spec(name, DType::U8, &[None])
    };
    let signature = of(vec![with(Arity::Many, "xs"), with(Arity::Optional, "o")]);
    let t = |name| tensor(name, DType::U8, &[1]);
    signature.check(&[]).unwrap();
    signature.check(&[t("o"), t("xs.1"), t("xs.0")]).unwrap();
    let names: Vec<_> = signature.arrange(vec![t("o"), t("xs.1"), t("xs.0")]);
    let names: Vec<_> = names.iter().map(|input| &*input.name).collect();
    assert_eq!(names, ["xs.0", "xs.1", "o"]);
    assert!(refusal(&signature, &[t("xs.0"), t("xs.2")]).starts_with(r#"input "xs.1" is missing"#));
    assert!(refusal(&signature, &[t("xs")]).starts_with(r#"the model has no input "xs""#));
    let wrong = refusal(&signature, &[tensor("xs.0", DType::F32, &[1])]);
    assert_eq!(
        wrong,
        r#"input "xs.0": expected xs: uint8[?] (list), got fp32[1]"#
    );
}

#[test]
fn only_requests_with_rows_in_common_add_rows_to_a_batch() {
    let optional = TensorSpec {
        arity: Arity::Optional,
        ..spec("o", DType::U8, &[None])
    };
    let signature = of(vec![
        spec("a", DType::U8, &[None]),
        spec("b", DType::U8, &[None]),
        optional,
    ]);
    let t = |name, shape: &[usize]| tensor(name, DType::U8, shape);
    assert_eq!(signature.rows(&[t("a", &[2]), t("b", &[2])]), Some(2));
    for apart in [
        vec![],
        vec![t("a", &[2]), t("b", &[3])],
        vec![t("a", &[0]), t("b", &[0])],
        vec![t("a", &[]), t("b", &[])],
        vec![t("a", &[2]), t("b", &[2]), t("o", &[2])],
    ] {
        assert_eq!(signature.rows(&apart), None, "{apart:?}");
    }
}

#[test]
fn evidence_on_axis_0_comes_from_shapes_and_names() {
    let free = spec("x", DType::U8, &[None, Some(2)]);
    let unknown = TensorSpec {
        shape: None,
        ..free.clone()
    };
    let list = TensorSpec {
        arity: Arity::Many,
        ..free.clone()
    };
    let optional = TensorSpec {
        arity: Arity::Optional,
        ..spec("w", DType::U8, &[Some(4)])
    };
    let fixed = spec("y", DType::U8, &[Some(2), None]);
    let scalar = spec("y", DType::U8, &[]);
    let judge =
        |inputs: &[NamedAxis<'_>], outputs: &[NamedAxis<'_>]| Axis0::judge(inputs, outputs, false);
    let n = Some("N");
    assert_eq!(judge(&[(&free, n)], &[(&free, n)]), Axis0::Shared);
    assert_eq!(
        judge(&[(&free, n), (&optional, None)], &[(&free, n)]),
        Axis0::Shared
    );
    assert_eq!(
        Axis0::judge(&[(&free, Some("A"))], &[(&free, None)], true),
        Axis0::Shared
    );
    for (inputs, outputs) in [
        (vec![(&free, None)], vec![(&free, None)]),
        (vec![(&free, n)], vec![(&free, None)]),
        (vec![(&unknown, None)], vec![(&free, n)]),
        (vec![(&free, n)], vec![]),
        (vec![], vec![]),
    ] {
        assert_eq!(judge(&inputs, &outputs), Axis0::Unknown);
    }
    for (inputs, outputs, says) in [
        (
            vec![(&free, n)],
            vec![(&free, Some("M"))],
            "is called \"N\"",
        ),
        (
            vec![(&free, n)],
            vec![(&fixed, None)],
            "axis 0 of output \"y\" is always 2",
        ),
        (
            vec![(&free, n)],
            vec![(&scalar, None)],
            "output \"y\" has no axis 0",
        ),
        (vec![(&scalar, None)], vec![], "input \"y\" has no axis 0"),
        (vec![(&list, None)], vec![], "is not always one tensor"),
    ] {
        let Axis0::Refuted(reason) = judge(&inputs, &outputs) else {
            panic!("not refuted: {says}");
        };
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn declarations_are_confirmed_by_the_model() {
    let signature = two_inputs();
    let declare = |spec| Declared {
        inputs: vec![spec],
        outputs: vec![],
    };
    signature
        .confirm(&declare(spec("a", DType::F32, &[None, None])))
        .unwrap();
    for wrong in [
        spec("z", DType::F32, &[None, Some(3)]),
        spec("a", DType::F64, &[None, Some(3)]),
        spec("a", DType::F32, &[None, Some(4)]),
        spec("a", DType::F32, &[None]),
    ] {
        assert!(signature.confirm(&declare(wrong)).is_err());
    }
}
