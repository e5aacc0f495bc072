//! The ONNX backend against the answers of the Python runtime, hostile files, and many workers at once.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::model::Declared;
use crate::tensor::{NamedTensor, Tensor};

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use fixture::Fixture;

const MODELS: [&str; 9] = [
    "linear.onnx",
    "multi.onnx",
    "dtypes.onnx",
    "strings.onnx",
    "scalar_rows.onnx",
    "fixed_rows.onnx",
    "fails.onnx",
    "slow.onnx",
    "external.onnx",
];

fn backend() -> OnnxBackend {
    OnnxBackend::new(fixture::onnxruntime().as_deref()).unwrap()
}

fn spec(artifact: PathBuf, device: Device) -> LoadSpec {
    LoadSpec {
        artifact,
        device,
        workers: 4,
        intra_op_threads: 1,
        declared: Declared::default(),
    }
}

fn load(fixture: &Fixture, device: Device) -> Arc<dyn LoadedModel> {
    backend().load(&spec(fixture.path.clone(), device)).unwrap()
}

fn refusal(artifact: PathBuf) -> String {
    match backend().load(&spec(artifact, Device::Cpu)) {
        Err(BackendError::Load(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it loads"),
    }
}

fn answers_match(device: Device) {
    for model in MODELS {
        let fixture = Fixture::read(model);
        let loaded = load(&fixture, device);
        let mut session = loaded.session().unwrap();
        for case in &fixture.cases {
            loaded.signature().check(&case.inputs).unwrap();
            fixture.check(case, session.infer(case.inputs.clone()));
        }
    }
}

#[test]
fn answers_are_those_of_the_python_runtime() {
    answers_match(Device::Cpu);
}

#[test]
fn answers_on_cuda_are_those_of_the_python_runtime() {
    backend();
    match check_device(Device::Cuda(0)) {
        Ok(()) => answers_match(Device::Cuda(0)),
        Err(error) => {
            assert!(!fixture::requires_cuda(), "CUDA was promised: {error}");
            eprintln!("skipped: {error}");
        }
    }
}

#[test]
fn signatures_are_read_from_the_graph() {
    for model in MODELS {
        let fixture = Fixture::read(model);
        let loaded = load(&fixture, Device::Cpu);
        assert_eq!(
            loaded.signature().inputs,
            fixture.declared.inputs,
            "{model}"
        );
        assert_eq!(
            loaded.signature().outputs,
            fixture.declared.outputs,
            "{model}"
        );
    }
}

#[test]
fn a_declaration_that_differs_from_the_graph_is_refused() {
    let fixture = Fixture::read("linear.onnx");
    let mut spec = spec(fixture.path.clone(), Device::Cpu);
    spec.declared = fixture.declared.clone();
    backend().load(&spec).unwrap();
    spec.declared.inputs[0].dtype = Some(DType::F64);
    let error = backend().load(&spec).err().unwrap();
    assert_eq!(
        error,
        BackendError::Load(
            "input x: fp64[?, 16] is declared, but the model's is x: fp32[?, 16]".into()
        )
    );
}

#[test]
fn files_that_are_no_models_are_refused() {
    for file in [
        "broken.onnx",
        "hostile/cut_short.onnx",
        "hostile/empty.onnx",
    ] {
        refusal(fixture::path(file));
    }
    assert!(refusal("missing.onnx".into()).contains("cannot be read"));
}

#[test]
fn external_data_outside_the_directory_is_refused_before_it_is_opened() {
    for name in [
        "parent",
        "nested",
        "dot",
        "absolute",
        "backslash",
        "nul",
        "empty",
        "folder",
        "twice",
        "in_constant",
        "in_subgraph",
        "in_function",
        "in_sparse",
    ] {
        let text = refusal(fixture::path(&format!("hostile/external_{name}.onnx")));
        assert!(text.starts_with("external data at "), "{name}: {text}");
    }
}

#[test]
fn inputs_are_taken_by_name_whatever_their_order() {
    let fixture = Fixture::read("multi.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    for case in &fixture.cases {
        let mut inputs = case.inputs.clone();
        inputs.reverse();
        fixture.check(case, session.infer(inputs));
    }
    let lone = vec![fixture.cases[0].inputs[0].clone()];
    assert!(matches!(session.infer(lone), Err(BackendError::Input(_))));
}

#[test]
fn data_that_is_not_aligned_gives_the_same_answer() {
    let fixture = Fixture::read("linear.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    for case in &fixture.cases {
        let inputs = case.inputs.iter().map(shifted).collect();
        fixture.check(case, session.infer(inputs));
    }
}

/// The same tensor, its data one byte behind where the allocator put it.
fn shifted(input: &NamedTensor) -> NamedTensor {
    let tensor = &input.tensor;
    let data = Bytes::from([&[0], &tensor.data()[..]].concat()).slice(1..);
    assert!(!data.as_ptr().addr().is_multiple_of(2));
    NamedTensor::new(
        Arc::clone(&input.name),
        Tensor::new(tensor.dtype(), tensor.shape().to_vec(), data).unwrap(),
    )
}

#[test]
fn strings_may_hold_any_bytes() {
    let fixture = Fixture::read("strings.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let data = Bytes::from_static(b"\x03\0\0\0a\0b\x02\0\0\0\xff\xfe");
    let tensor = Tensor::new(DType::Bytes, vec![1, 2], data).unwrap();
    let outputs = session
        .infer(vec![NamedTensor::new("bytes", tensor.clone())])
        .unwrap();
    assert_eq!(outputs[0].tensor, tensor);
}

#[test]
fn a_failed_run_leaves_the_session_usable() {
    let fixture = Fixture::read("fails.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    for case in fixture.cases.iter().chain(fixture.cases.iter().rev()) {
        fixture.check(case, session.infer(case.inputs.clone()));
    }
}

#[test]
fn workers_infer_at_once_on_one_copy() {
    let fixture = Fixture::read("linear.onnx");
    let loaded = load(&fixture, Device::Cpu);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (fixture, mut session) = (&fixture, loaded.session().unwrap());
            scope.spawn(move || {
                for case in fixture.cases.iter().cycle().take(2000) {
                    fixture.check(case, session.infer(case.inputs.clone()));
                }
            });
        }
    });
}

#[test]
fn four_sessions_cost_one_copy_of_the_weights() {
    let directory = tempfile::tempdir().unwrap();
    let artifact = directory.path().join("wide.onnx");
    std::fs::write(&artifact, wide_model()).unwrap();
    let loaded = backend().load(&spec(artifact, Device::Cpu)).unwrap();
    let row = || {
        let data = Bytes::from(vec![0u8; WIDE * 4]);
        vec![NamedTensor::new(
            "x",
            Tensor::new(DType::F32, vec![1, WIDE], data).unwrap(),
        )]
    };
    let mut first = loaded.session().unwrap();
    first.infer(row()).unwrap();
    // What else the process does can only add: three more sessions that cost nothing even once have no weights of their own.
    let mut others = Vec::new();
    let mut three_more = || {
        let before = fixture::private_memory();
        for _ in 0..3 {
            let mut session = loaded.session().unwrap();
            session.infer(row()).unwrap();
            others.push(session);
        }
        fixture::private_memory().saturating_sub(before)
    };
    let grown = (0..3).map(|_| three_more()).min().unwrap_or(usize::MAX);
    assert!(
        grown < WIDE * WIDE * 4 / 10,
        "three more sessions took {grown} bytes"
    );
}

const WIDE: usize = 3200;

/// `y = x W` with a W of 40 MB, as protobuf.
fn wide_model() -> Vec<u8> {
    let axis = |size: usize| message(1, &number(1, size));
    let io = |name: &str| {
        let shape = [axis(1), axis(WIDE)].concat();
        let tensor = [number(1, 1), message(2, &shape)].concat();
        [
            message(1, name.as_bytes()),
            message(2, &message(1, &tensor)),
        ]
        .concat()
    };
    let node = [
        message(1, b"x"),
        message(1, b"w"),
        message(2, b"y"),
        message(4, b"MatMul"),
    ]
    .concat();
    let weights = vec![0u8; WIDE * WIDE * 4];
    let tensor = [
        number(1, WIDE),
        number(1, WIDE),
        number(2, 1),
        message(8, b"w"),
        message(9, &weights),
    ]
    .concat();
    let graph = [
        message(1, &node),
        message(2, b"wide"),
        message(5, &tensor),
        message(11, &io("x")),
        message(12, &io("y")),
    ]
    .concat();
    let opset = number(2, 17);
    [number(1, 8), message(7, &graph), message(8, &opset)].concat()
}

fn number(field: usize, value: usize) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn message(field: usize, content: &[u8]) -> Vec<u8> {
    [
        varint(field << 3 | 2),
        varint(content.len()),
        content.to_vec(),
    ]
    .concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}
