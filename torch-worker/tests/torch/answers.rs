//! What `forward` may return: containers of any shape, plain values, and tensors without plain memory.

use lantern::model::TensorSpec;
use lantern::tensor::{DType, NamedTensor};

use super::support::{answer, floats, load, load_declared, text};

fn x() -> Vec<NamedTensor> {
    vec![floats("x", &[2], &[1.0, 2.0])]
}

#[test]
fn answers_are_flattened_to_named_outputs() {
    for (name, answered) in [
        ("number", "output_0 int64[] 2"),
        ("nothing", ""),
        (
            "nested",
            "output_0 fp32[2] 1 2; output_1.0 fp32[2] 2 3; output_1.1 fp32[2] 3 4",
        ),
        (
            "named",
            "boxes.0 fp32[2] 1 2; boxes.1 fp32[2] 2 3; count int64[] 2",
        ),
        (
            "nested_dict",
            "left.0 fp32[2] 1 2; right.0 fp32[2] 2 3; right.1 fp32[2] 3 4",
        ),
        ("int_keys", "7 fp32[2] 1 2"),
        (
            "kinds",
            "output_0 int64[] 2; output_1 fp64[] 0.5; output_2 boolean[] 1; output_3 bytes[] \"ä\"; output_4 int64[2] 1 2; \
             output_5 fp64[1] 0.5; output_6 boolean[2] 1 0; output_7 bytes[2] \"a\" \"\"; output_9 fp32[2] 1 2",
        ),
    ] {
        assert_eq!(answer(&load(name), x()), answered, "{name}");
    }
}

#[test]
fn an_answer_of_too_many_outputs_is_an_error() {
    let error = answer(&load("many_outputs"), x());
    assert_eq!(error, "the model returned more than 1024 outputs");
}

#[test]
fn declared_outputs_are_checked_after_each_run() {
    let spec = TensorSpec::new;
    let right = vec![
        spec("right.0", DType::F32, vec![None]),
        spec("left.0", DType::F32, vec![None]),
    ];
    let model = load_declared("nested_dict", vec![], right).unwrap();
    assert_eq!(
        answer(&model, x()),
        "right.0 fp32[2] 2 3; left.0 fp32[2] 1 2"
    );
    for (declared, error) in [
        (
            spec("middle", DType::F32, vec![None]),
            "output \"middle\" is declared, but the model returns left.0, right.0, right.1",
        ),
        (
            spec("left.0", DType::I64, vec![None]),
            "output left.0: int64[?] is declared, but the model returned fp32[2]",
        ),
        (
            spec("left.0", DType::F32, vec![Some(3)]),
            "output left.0: fp32[3] is declared, but the model returned fp32[2]",
        ),
    ] {
        let model = load_declared("nested_dict", vec![], vec![declared]).unwrap();
        assert_eq!(answer(&model, x()), error);
    }
}

#[test]
fn a_declared_output_that_was_none_is_no_other() {
    let undeclared = |index| TensorSpec {
        dtype: None,
        shape: None,
        ..TensorSpec::new(format!("y{index}").as_str(), DType::F32, vec![])
    };
    // The ninth of ten is None.
    let model = load_declared("kinds", vec![], (0..9).map(undeclared).collect()).unwrap();
    let error = answer(&model, x());
    assert!(
        error.starts_with("output \"y8\" is declared for output_8, but the model returns output_0"),
        "{error}"
    );
}

#[test]
fn tensors_without_plain_memory_are_values_or_errors() {
    let model = load("values");
    let plain = "output_0 fp32[2, 3] 0.5 1 1.5 2 2.5 3";
    for (kind, expected) in [
        ("plain", plain),
        ("zero", "output_0 fp32[2, 3] 0 0 0 0 0 0"),
        ("half_zero", "output_0 fp16[2, 3] 0 0 0 0 0 0"),
        ("sparse", plain),
        ("csr", plain),
        ("quantized", plain),
        ("mkldnn", plain),
        ("negated", "output_0 fp32[2, 3] -0.5 -1 -1.5 -2 -2.5 -3"),
        ("empty", "output_0 fp32[0, 3] "),
        ("empty_sparse", "output_0 fp32[2, 3] 0 0 0 0 0 0"),
        ("expanded", "output_0 fp32[2, 3] 0.5 0.5 0.5 2 2 2"),
        ("transposed", "output_0 fp32[3, 2] 0.5 2 1 2.5 1.5 3"),
        ("offset", "output_0 fp32[1, 2] 2.5 3"),
        ("uint16", "output_0 uint16[2, 3] 0 1 1 2 2 3"),
        ("complex", "output \"output_0\" is complex"),
        ("conjugated", "output \"output_0\" is complex"),
        ("complex_zero", "output \"output_0\" is complex"),
        ("meta", "output \"output_0\" is a meta tensor"),
        ("nested", "output \"output_0\" is a nested tensor"),
        ("huge", "output \"output_0\" is larger than"),
        ("endless", "output \"output_0\" is larger than"),
        ("float8", "output \"output_0\" is of Float8_e4m3fn"),
        (
            "rank_9",
            "output_0 fp32[1, 1, 1, 1, 1, 1, 1, 2, 3] 0.5 1 1.5 2 2.5 3",
        ),
    ] {
        let x = floats("x", &[2, 3], &[0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        let answered = answer(&model, vec![x, text("kind", kind)]);
        let is_right = answered == expected
            || !expected.starts_with("output_0") && answered.contains(expected);
        assert!(is_right, "{kind}: {answered}");
    }
}

#[test]
fn runs_leak_nothing() {
    let models = ["kinds", "nested_dict", "named"].map(|name| (name, load(name)));
    let values = load("values");
    let run = |times: usize| {
        for _ in 0..times {
            for (name, model) in &models {
                assert!(!answer(model, x()).is_empty(), "{name}");
            }
            for kind in ["zero", "sparse", "complex"] {
                let x = floats("x", &[2, 3], &[0.5; 6]);
                answer(&values, vec![x, text("kind", kind)]);
            }
        }
    };
    run(500);
    // A leak grows in every round; an allocator's arena does in one or the other.
    let rounds = [(); 4].map(|()| {
        let before = super::fixture::private_memory();
        run(500);
        super::fixture::private_memory().saturating_sub(before)
    });
    let grown = rounds.into_iter().min().unwrap();
    assert!(grown < 200_000, "500 runs of each took {rounds:?} bytes");
}
