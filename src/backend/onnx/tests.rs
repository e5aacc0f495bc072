//! The ONNX backend against the answers of the Python runtime, hostile files, and many workers at once.

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::model::{Arity, Declared};
use crate::tensor::{DType, NamedTensor, Tensor};

#[path = "../../../tests/support/fixture.rs"]
mod fixture;

use fixture::Fixture;

const MODELS: [&str; 25] = [
    "linear.onnx",
    "multi.onnx",
    "dtypes.onnx",
    "strings.onnx",
    "unsigned.onnx",
    "unsigned_output.onnx",
    "identity_f64.onnx",
    "scalar_rows.onnx",
    "fixed_rows.onnx",
    "fails.onnx",
    "slow.onnx",
    "external.onnx",
    "classifier_strings.onnx",
    "classifier_int64s.onnx",
    "sequences.onnx",
    "sequence_input.onnx",
    "sequence_insert.onnx",
    "many_parts.onnx",
    "optional.onnx",
    "initializer.onnx",
    "map_input.onnx",
    "norank.onnx",
    "two_axes.onnx",
    "sum_of_series.onnx",
    "nine_axes.onnx",
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
        state: crate::model::StateSharing::default(),
        has_brief_outputs: true,
    }
}

fn load(fixture: &Fixture, device: Device) -> Arc<dyn LoadedModel> {
    backend().load(&spec(fixture.path.clone(), device)).unwrap()
}

fn refusal(artifact: PathBuf) -> String {
    match backend().load(&spec(artifact, Device::Cpu)) {
        Err(BackendError::Load(text) | BackendError::Refused(text)) => text,
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
            eprintln!("SKIPPED: {error}");
        }
    }
}

#[test]
fn signatures_are_read_from_the_graph() {
    for model in MODELS {
        let fixture = Fixture::read(model);
        let loaded = load(&fixture, Device::Cpu);
        let Signature {
            inputs, outputs, ..
        } = loaded.signature();
        let given = inputs.iter().chain(outputs);
        let said = fixture.declared.inputs.iter();
        let said = said.chain(&fixture.declared.outputs).zip(&fixture.arities);
        let said: Vec<_> = said.map(|(spec, word)| with_arity(spec, word)).collect();
        assert_eq!(given.cloned().collect::<Vec<_>>(), said, "{model}");
    }
}

fn with_arity(spec: &TensorSpec, word: &str) -> TensorSpec {
    TensorSpec {
        arity: match word {
            "optional" => Arity::Optional,
            "list" => Arity::Many,
            _ => Arity::One,
        },
        ..spec.clone()
    }
}

#[test]
fn more_than_256_inputs_are_served() {
    let fixture = Fixture::read("many_inputs.onnx");
    let loaded = load(&fixture, Device::Cpu);
    assert_eq!(loaded.signature().inputs.len(), 300);
    let mut session = loaded.session().unwrap();
    for case in &fixture.cases {
        loaded.signature().check(&case.inputs).unwrap();
        fixture.check(case, session.infer(case.inputs.clone()));
    }
}

/// A model of so many inputs, and of so many initializers that are inputs as well.
fn model_of(inputs: usize, initializers: usize) -> Vec<u8> {
    let io = |name: &str| {
        let shape = message(1, &number(1, 1));
        let tensor = [number(1, 1), message(2, &shape)].concat();
        [
            message(1, name.as_bytes()),
            message(2, &message(1, &tensor)),
        ]
        .concat()
    };
    let initializer = |name: &str| {
        [
            number(1, 1),
            number(2, 1),
            message(8, name.as_bytes()),
            message(9, &[0; 4]),
        ]
        .concat()
    };
    let node = [message(1, b"x0"), message(2, b"y"), message(4, b"Identity")].concat();
    let mut graph = [
        message(1, &node),
        message(2, b"many"),
        message(12, &io("y")),
    ]
    .concat();
    for place in 0..inputs {
        graph.extend(message(11, &io(&format!("x{place}"))));
    }
    for place in 0..initializers {
        let name = format!("w{place}");
        graph.extend(message(11, &io(&name)));
        graph.extend(message(5, &initializer(&name)));
    }
    [number(1, 8), message(7, &graph), message(8, &number(2, 17))].concat()
}

#[test]
fn too_many_inputs_are_refused_and_too_many_initializers_are_not_offered() {
    let directory = tempfile::tempdir().unwrap();
    let file = |inputs, initializers| {
        let artifact = directory.path().join("many.onnx");
        std::fs::write(&artifact, model_of(inputs, initializers)).unwrap();
        artifact
    };
    let text = refusal(file(1025, 0));
    assert_eq!(text, "the model has 1025 inputs, the most are 1024");
    for (initializers, offered) in [(1023, 1024), (1024, 1)] {
        let artifact = file(1, initializers);
        let loaded = backend().load(&spec(artifact, Device::Cpu)).unwrap();
        assert_eq!(loaded.signature().inputs.len(), offered);
        let tensor = Tensor::new(DType::F32, vec![1], Bytes::from(vec![0; 4])).unwrap();
        let inputs = vec![NamedTensor::new("x0", tensor)];
        let outputs = loaded.session().unwrap().infer(inputs.clone()).unwrap();
        assert_eq!(outputs[0].tensor, inputs[0].tensor);
    }
}

/// Floats of an output that is large enough to stay where ONNX Runtime put it.
const LARGE: usize = 8192;

/// A model that gives its input `x`, its constant `w`, and copies of both.
fn giving_on() -> Vec<u8> {
    let io = |name: &str| {
        let shape = message(1, &number(1, LARGE));
        let tensor = [number(1, 1), message(2, &shape)].concat();
        [
            message(1, name.as_bytes()),
            message(2, &message(1, &tensor)),
        ]
        .concat()
    };
    let constant = [
        number(1, LARGE),
        number(2, 1),
        message(8, b"w"),
        message(9, &7f32.to_le_bytes().repeat(LARGE)),
    ];
    let identity = |from: &str, to: &str| {
        [
            message(1, from.as_bytes()),
            message(2, to.as_bytes()),
            message(4, b"Identity"),
        ]
        .concat()
    };
    let graph = [
        message(1, &identity("x", "y")),
        message(1, &identity("w", "v")),
        message(2, b"giving_on"),
        message(5, &constant.concat()),
        message(11, &io("x")),
        ["x", "w", "y", "v"]
            .map(|name| message(12, &io(name)))
            .concat(),
    ];
    [
        number(1, 8),
        message(7, &graph.concat()),
        message(8, &number(2, 17)),
    ]
    .concat()
}

#[test]
fn large_outputs_stay_as_they_are_after_their_inputs_later_runs_and_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let artifact = directory.path().join("giving_on.onnx");
    std::fs::write(&artifact, giving_on()).unwrap();
    let loaded = backend().load(&spec(artifact, Device::Cpu)).unwrap();
    let mut session = loaded.session().unwrap();
    let data = |value: f32| Bytes::from(value.to_le_bytes().repeat(LARGE));
    let mut infer = |value| {
        let tensor = Tensor::new(DType::F32, vec![LARGE], data(value)).unwrap();
        session.infer(vec![NamedTensor::new("x", tensor)]).unwrap()
    };
    let runs: Vec<_> = [1.0, 2.0, 3.0].map(|value| (value, infer(value))).into();
    drop(session);
    drop(loaded);
    for (value, outputs) in runs {
        let expected = [value, 7.0, value, 7.0].map(data);
        let given = outputs.iter().map(|output| output.tensor.data());
        assert!(given.eq(&expected), "{value}");
    }
}

#[test]
fn the_classifier_in_onnxruntimes_own_package_is_served() {
    let package =
        fixture::onnxruntime().and_then(|library| Some(library.parent()?.parent()?.to_owned()));
    let artifact = package.map(|package| package.join("datasets/logreg_iris.onnx"));
    let Some(artifact) = artifact.filter(|artifact| artifact.exists()) else {
        eprintln!("SKIPPED: this ONNX Runtime is no Python package");
        return;
    };
    let loaded = backend().load(&spec(artifact, Device::Cpu)).unwrap();
    let [input] = &*loaded.signature().inputs else {
        panic!("{:?}", loaded.signature().inputs);
    };
    let rows = [5.1f32, 3.5, 6.2, 2.9, 1.0, 1.0]
        .map(f32::to_le_bytes)
        .concat();
    let tensor = Tensor::new(DType::F32, vec![3, 2], rows.into()).unwrap();
    let inputs = vec![NamedTensor::new(Arc::clone(&input.name), tensor)];
    loaded.signature().check(&inputs).unwrap();
    let outputs = loaded.session().unwrap().infer(inputs).unwrap();
    let shapes: Vec<_> = outputs
        .iter()
        .map(|output| (&*output.name, output.tensor.shape()))
        .collect();
    assert_eq!(
        shapes,
        [
            ("label", &[3][..]),
            ("probabilities.keys", &[3, 3]),
            ("probabilities.values", &[3, 3])
        ]
    );
}

#[test]
fn what_may_be_left_out_and_what_is_no_tensor_is_not_stacked() {
    for (model, why) in [
        ("classifier_strings.onnx", r#"output "probabilities.keys""#),
        ("sequences.onnx", r#"output "equal""#),
        ("sequence_input.onnx", r#"input "parts""#),
        ("optional.onnx", r#"input "rows""#),
        ("map_input.onnx", r#""words" is a map"#),
        ("sum_of_series.onnx", r#"output "y" has no axis 0"#),
    ] {
        let loaded = load(&Fixture::read(model), Device::Cpu);
        let Axis0::Refuted(reason) = &loaded.signature().axis0 else {
            panic!("{model}: {:?}", loaded.signature().axis0);
        };
        assert!(reason.starts_with(why), "{model}: {reason}");
    }
    let axis0 = |model| {
        load(&Fixture::read(model), Device::Cpu)
            .signature()
            .axis0
            .clone()
    };
    assert_eq!(axis0("norank.onnx"), Axis0::Unknown);
    assert_eq!(axis0("initializer.onnx"), Axis0::Shared);
}

#[test]
fn inputs_that_are_not_served_are_refused_by_name_with_a_remedy() {
    for (file, says) in [
        ("complex64", "is of complex64, which is not served: cast it"),
        ("float8", "is of float8e4m3fn, which is not served: cast it"),
        ("int4", "is of int4, which is not served: cast it"),
        ("sparse", "is a sparse tensor, which is not served: make it"),
        ("opaque", "is of an opaque type, which is not served: take"),
        (
            "nested",
            "is of seq(seq(tensor(float))), which is not served",
        ),
        (
            "optional",
            "is of optional(optional(tensor(float))), which is",
        ),
        ("axes", "has 65 axes, the most are 64: reshape it"),
    ] {
        let text = refusal(fixture::path(&format!("unsupported/{file}.onnx")));
        assert!(text.starts_with(&format!("input \"x\" {says}")), "{text}");
    }
    let text = refusal(fixture::path("unsupported/clash.onnx"));
    assert!(text.contains(r#"are served as "y.0""#), "{text}");
}

#[test]
fn tensors_that_belong_to_nothing_are_refused_and_leave_the_session_usable() {
    let fixture = Fixture::read("sequence_input.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let tensor = |name: &str| {
        let data = Bytes::from(vec![0; 4]);
        NamedTensor::new(name, Tensor::new(DType::F32, vec![1], data).unwrap())
    };
    for names in [
        &["parts"][..],
        &["parts.1"],
        &["parts.0", "parts.2"],
        &["x"],
    ] {
        let inputs = names.iter().map(|name| tensor(name)).collect();
        let refused = session.infer(inputs);
        assert!(matches!(refused, Err(BackendError::Input(_))), "{names:?}");
    }
    for case in &fixture.cases {
        fixture.check(case, session.infer(case.inputs.clone()));
    }
}

#[test]
fn a_map_has_as_many_values_as_keys() {
    let fixture = Fixture::read("map_input.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let keys = |count: usize| {
        let data = Bytes::from(b"\x01\0\0\0a".repeat(count));
        NamedTensor::new(
            "words.keys",
            Tensor::new(DType::Bytes, vec![count], data).unwrap(),
        )
    };
    let values = |shape: &[usize]| {
        let data = Bytes::from(vec![0; 4 * shape.iter().product::<usize>()]);
        NamedTensor::new(
            "words.values",
            Tensor::new(DType::F32, shape.to_vec(), data).unwrap(),
        )
    };
    for inputs in [
        vec![keys(1000), values(&[1])],
        vec![keys(1), values(&[2])],
        vec![keys(1), values(&[])],
        vec![keys(1)],
        vec![values(&[1])],
    ] {
        assert!(matches!(session.infer(inputs), Err(BackendError::Input(_))));
    }
    session.infer(vec![keys(0), values(&[0])]).unwrap();
}

#[test]
fn a_sequence_of_a_hundred_thousand_tensors_is_stacked() {
    let fixture = Fixture::read("many_parts.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let data = Bytes::copy_from_slice(&100_000i64.to_le_bytes());
    let count = Tensor::new(DType::I64, vec![], data).unwrap();
    let outputs = session.infer(vec![NamedTensor::new("count", count)]);
    assert_eq!(outputs.unwrap()[0].tensor.shape(), [100_000]);
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
        BackendError::Refused(
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
fn the_same_request_has_the_same_bits_wherever_its_data_lies() {
    let fixture = Fixture::read("scalar_rows.onnx");
    let mut session = load(&fixture, Device::Cpu).session().unwrap();
    let values = (0..3 * 37u16).map(|place| (f32::from(place) * 0.37).sin());
    let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let mut sum = |offset: usize| {
        let data = Bytes::from([&vec![0; offset], &data[..]].concat()).slice(offset..);
        let tensor = Tensor::new(DType::F32, vec![3, 37], data).unwrap();
        session.infer(vec![NamedTensor::new("x", tensor)]).unwrap()
    };
    let aligned = sum(0);
    for offset in 1..32 {
        assert_eq!(sum(offset), aligned, "{offset} bytes further");
    }
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

/// Models of several nodes: branches, sequences and maps that allocate, strings, a loop in a subgraph.
const BUSY: [&str; 6] = [
    "multi.onnx",
    "dtypes.onnx",
    "sequences.onnx",
    "classifier_strings.onnx",
    "optional.onnx",
    "slow.onnx",
];

#[test]
fn runs_on_many_threads_give_the_bits_of_a_lone_run() {
    for model in BUSY {
        let fixture = Fixture::read(model);
        let loaded = load(&fixture, Device::Cpu);
        let mut alone = loaded.session().unwrap();
        let cases: Vec<_> = fixture.cases.iter().map(|case| &case.inputs).collect();
        let expected: Vec<_> = cases
            .iter()
            .map(|inputs| alone.infer((*inputs).clone()))
            .collect();
        let run = &|thread: usize| {
            let mut session = loaded.session().unwrap();
            let interrupter = session.interrupter().unwrap();
            for round in 0..200 {
                // A run that is to be ended before it begins is not concerned; it ends nobody else's either.
                if round % 3 == thread % 3 {
                    interrupter.interrupt();
                }
                let place = (thread + round) % cases.len();
                assert_eq!(
                    session.infer(cases[place].clone()),
                    expected[place],
                    "{model}"
                );
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || run(thread));
            }
        });
    }
}

#[test]
fn a_run_that_is_ended_leaves_those_of_other_threads_alone() {
    let loaded = load(&Fixture::read("slow.onnx"), Device::Cpu);
    let expected = loaded.session().unwrap().infer(steps(1000)).unwrap();
    let session = || loaded.session().unwrap();
    std::thread::scope(|scope| {
        for mut other in [session(), session(), session()] {
            let expected = &expected;
            scope.spawn(move || {
                for _ in 0..200 {
                    assert_eq!(&other.infer(steps(1000)).unwrap(), expected);
                }
            });
        }
        for _ in 0..20 {
            let mut session = session();
            let interrupter = session.interrupter().unwrap();
            let endless = scope.spawn(move || session.infer(steps(i64::MAX)));
            while !endless.is_finished() {
                interrupter.interrupt();
                std::thread::yield_now();
            }
            let ended = endless.join().unwrap();
            assert!(matches!(ended, Err(BackendError::Infer(_))), "{ended:?}");
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

#[test]
fn a_run_without_end_is_ended_from_another_thread() {
    let loaded = load(&Fixture::read("slow.onnx"), Device::Cpu);
    let mut session = loaded.session().unwrap();
    let interrupter = session.interrupter().unwrap();
    // Of no consequence for a run that begins later.
    interrupter.interrupt();
    session.infer(steps(10)).unwrap();
    let (ended, is_ended) = std::sync::mpsc::channel();
    let run = std::thread::spawn(move || {
        let endless = session.infer(steps(i64::MAX));
        ended.send(()).unwrap();
        (session, endless)
    });
    while is_ended.try_recv().is_err() {
        interrupter.interrupt();
        std::thread::yield_now();
    }
    let (mut session, endless) = run.join().unwrap();
    assert!(
        matches!(endless, Err(BackendError::Infer(_))),
        "{endless:?}"
    );
    session.infer(steps(10)).unwrap();
}

/// Inputs of `slow.onnx` that make it take so many steps.
fn steps(count: i64) -> Vec<NamedTensor> {
    let data = Bytes::copy_from_slice(&count.to_le_bytes());
    let tensor = Tensor::new(DType::I64, vec![1, 1], data).unwrap();
    vec![NamedTensor::new("steps", tensor)]
}
