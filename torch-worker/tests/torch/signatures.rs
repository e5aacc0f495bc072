//! Arguments: their names, their order, their types, and what a declaration may add.

use lantern::backend::{Axis0, BackendError};
use lantern::model::{Declared, StateSharing, TensorSpec};
use lantern::tensor::{DType, NamedTensor};

use super::support::{
    answer, boolean, double, floats, int, ints, load, load_declared, load_with, text,
};

fn x() -> NamedTensor {
    floats("x", &[1, 2], &[1.0, 2.0])
}

fn digits(names: &[&str]) -> Vec<NamedTensor> {
    let digit = |name: &&str| match *name {
        "zeta" => 1.0,
        "alpha" => 2.0,
        _ => 3.0,
    };
    names
        .iter()
        .map(|name| floats(name, &[1, 1], &[digit(name)]))
        .collect()
}

#[test]
fn the_schema_says_what_a_model_takes_and_gives() {
    for (name, inputs, outputs) in [
        (
            "order",
            "zeta: any[...], alpha: any[...], mid: any[...]",
            "output_0: any[...]",
        ),
        (
            "int_argument",
            "x: any[...], k: int64[]",
            "output_0: any[...]",
        ),
        (
            "defaults",
            "x: any[...], k: int64[] (optional), plus: fp64[] (optional), negate: boolean[] (optional), mode: bytes[] (optional)",
            "output_0: any[...]",
        ),
        (
            "lists",
            "xs: any[...] (list), weights: int64[?]",
            "output_0: any[...]",
        ),
        (
            "tuples",
            "pair.0: any[...], pair.1: any[...], state.hidden: any[...] (optional), state.cell: any[...] (optional)",
            "output_0: any[...]",
        ),
        (
            "named",
            "x: any[...]",
            "boxes.0: any[...], boxes.1: any[...], count: int64[]",
        ),
        ("nested_dict", "x: any[...]", ""),
    ] {
        let model = load(name);
        let shown = |specs: &[TensorSpec]| {
            let specs: Vec<_> = specs.iter().map(ToString::to_string).collect();
            specs.join(", ")
        };
        let signature = model.signature();
        assert_eq!(shown(&signature.inputs), inputs, "{name}");
        assert_eq!(shown(&signature.outputs), outputs, "{name}");
        assert!(!signature.is_open, "{name}");
    }
}

#[test]
fn tensors_go_to_the_arguments_of_their_names() {
    let model = load("order");
    for order in [
        ["zeta", "alpha", "mid"],
        ["alpha", "mid", "zeta"],
        ["mid", "zeta", "alpha"],
    ] {
        assert_eq!(
            answer(&model, digits(&order)),
            "output_0 fp32[1, 1] 123",
            "{order:?}"
        );
    }
}

#[test]
fn names_that_are_wrong_repeated_or_missing_are_refused_with_what_is_taken() {
    let model = load("order");
    let takes = "zeta: any[...], alpha: any[...], mid: any[...]";
    for (names, refusal) in [
        (
            vec!["zeta", "alpha", "middle"],
            format!("the model has no input \"middle\"; it takes {takes}"),
        ),
        (
            vec!["zeta", "alpha"],
            format!("input \"mid\" is missing; the model takes {takes}"),
        ),
        (
            vec!["zeta", "alpha", "mid", "mid"],
            "input \"mid\" came twice".to_owned(),
        ),
    ] {
        assert_eq!(answer(&model, digits(&names)), refusal);
    }
}

#[test]
fn numbers_are_tensors_of_rank_0() {
    let model = load("int_argument");
    assert_eq!(
        answer(&model, vec![int("k", 3), x()]),
        "output_0 fp32[1, 2] 3 6"
    );
    assert_eq!(
        answer(&model, vec![double("k", 3.0), x()]),
        "expected k: int64[], got fp64[]"
    );
    assert_eq!(
        answer(&model, vec![ints("k", &[3]), x()]),
        "expected k: int64[], got int64[1]"
    );
    let refuted = Axis0::Refuted("input \"k\" has no axis 0".to_owned());
    assert_eq!(model.signature().axis0, refuted);
}

#[test]
fn what_has_a_default_may_be_left_out() {
    let model = load("defaults");
    for (given, answered) in [
        (vec![], "2.5 4.5"),
        (vec![int("k", -1)], "-0.5 -1.5"),
        (vec![double("plus", 0.0), boolean("negate", true)], "-2 -4"),
        (vec![text("mode", "twice")], "5 9"),
    ] {
        let inputs = [given, vec![x()]].concat();
        assert_eq!(
            answer(&model, inputs),
            format!("output_0 fp32[1, 2] {answered}")
        );
    }
}

#[test]
fn what_may_be_none_may_be_left_out() {
    let model = load("optional");
    let two = |name| floats(name, &[2], &[10.0, 0.0]);
    for (given, answered) in [
        (vec![], "1 2"),
        (vec![two("mask")], "10 0"),
        (vec![two("bias")], "11 2"),
        (vec![two("bias"), two("mask")], "20 0"),
    ] {
        let inputs = [given, vec![x()]].concat();
        assert_eq!(
            answer(&model, inputs),
            format!("output_0 fp32[1, 2] {answered}")
        );
    }
}

#[test]
fn lists_are_numbered_tensors_and_rows_of_numbers() {
    let model = load("lists");
    let one = |name| floats(name, &[2], &[1.0, 2.0]);
    for (given, answered) in [
        (vec![ints("weights", &[])], "0 0"),
        (
            vec![one("xs.1"), ints("weights", &[1, 10]), one("xs.0")],
            "11 22",
        ),
    ] {
        assert_eq!(
            answer(&model, given),
            format!("output_0 fp32[2] {answered}")
        );
    }
    let gap = vec![one("xs.1"), ints("weights", &[1])];
    assert!(answer(&model, gap).starts_with("input \"xs.0\" is missing"));
}

#[test]
fn members_of_tuples_are_inputs_of_their_own() {
    let model = load("tuples");
    let pair = || {
        vec![
            floats("pair.1", &[1], &[1.0]),
            floats("pair.0", &[1], &[3.0]),
        ]
    };
    let state = |name, value| floats(name, &[1], &[value]);
    assert_eq!(answer(&model, pair()), "output_0 fp32[1] 2");
    let with_state = [
        pair(),
        vec![state("state.cell", 5.0), state("state.hidden", 4.0)],
    ];
    assert_eq!(answer(&model, with_state.concat()), "output_0 fp32[1] 542");
    let half = [pair(), vec![state("state.cell", 5.0)]].concat();
    assert_eq!(answer(&model, half), "input \"state.hidden\" is missing");
}

#[test]
fn an_argument_that_no_tensor_stands_for_is_refused_at_registration() {
    let refused = load_with("dict_argument", Declared::default(), StateSharing::Shared);
    let Err(BackendError::Refused(text)) = refused else {
        panic!("it loads");
    };
    assert!(
        text.contains("argument \"tensors\" is Dict[str, Tensor]"),
        "{text}"
    );
}

#[test]
fn a_declaration_adds_dtypes_and_shapes() {
    let spec = TensorSpec::new;
    let inputs = vec![
        spec("mid", DType::F32, vec![None, Some(1)]),
        spec("zeta", DType::F32, vec![None, Some(1)]),
        spec("alpha", DType::F32, vec![None, Some(1)]),
    ];
    let outputs = vec![spec("y", DType::F32, vec![None, Some(1)])];
    let model = load_declared("order", inputs, outputs).unwrap();
    assert_eq!(model.signature().axis0, Axis0::Shared);
    assert_eq!(
        answer(&model, digits(&["mid", "zeta", "alpha"])),
        "y fp32[1, 1] 123"
    );
}

#[test]
fn a_declared_number_may_have_one_element_and_another_width() {
    let inputs = vec![
        TensorSpec::new("x", DType::F32, vec![None, Some(2)]),
        TensorSpec::new("k", DType::I64, vec![Some(1)]),
    ];
    let model = load_declared("int_argument", inputs, vec![]).unwrap();
    assert_eq!(
        answer(&model, vec![ints("k", &[3]), x()]),
        "output_0 fp32[1, 2] 3 6"
    );
}

#[test]
fn a_declaration_that_contradicts_the_schema_is_refused_at_registration() {
    let spec = |name: &str, dtype| TensorSpec::new(name, dtype, vec![None, Some(2)]);
    for (inputs, outputs, part) in [
        (
            vec![spec("image", DType::F32)],
            vec![],
            "input image: fp32[?, 2] is declared, but forward takes x: any[...], k: int64[]",
        ),
        (
            vec![spec("x", DType::F32)],
            vec![],
            "input k: int64[] is not declared",
        ),
        (
            vec![spec("x", DType::F32), spec("k", DType::F32)],
            vec![],
            "the argument is one int",
        ),
        (
            vec![],
            vec![spec("a", DType::F32), spec("b", DType::F32)],
            "2 outputs are declared, but the model returns 1: output_0",
        ),
    ] {
        let Err(BackendError::Refused(text)) = load_declared("int_argument", inputs, outputs)
        else {
            panic!("it loads: {part}");
        };
        assert!(text.contains(part), "{text}");
    }
}
